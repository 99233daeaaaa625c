//! Everything the four flows do to the world, and the way back: [`RollBack`].

mod ci;
mod delivery;
mod image;
mod infrastructure;
mod library;
mod promotion;
mod review;
mod roll_back;
mod write_back;

pub use ci::ConfirmCiRun;
pub use delivery::{AwaitLive, NoticeRevision};
pub use image::{AssembleImage, ImportImage, ScanImage, StoredImage};
pub use infrastructure::{ConfirmRun, DiscardRun, FindRun, FollowRun, PlanMade, ReadPlan, SeeConfirmed};
pub use library::{FetchDependencies, PackageLibrary, PublishPackage};
pub use promotion::{Deployment, Promotion};
pub use review::{ReadReview, ReportBuild};
pub use roll_back::{RollBack, RolledBack, To};
pub use write_back::{WriteBack, WrittenBack};

use crate::Catalog;

/// Adds all of them to a catalog.
pub(crate) fn register(catalog: Catalog) -> Catalog {
    catalog
        .with::<ReadReview>()
        .with::<ConfirmCiRun>()
        .with::<ImportImage>()
        .with::<FetchDependencies>()
        .with::<PackageLibrary>()
        .with::<PublishPackage>()
        .with::<AssembleImage>()
        .with::<ScanImage>()
        .with::<ReportBuild>()
        .with::<WriteBack>()
        .with::<RollBack>()
        .with::<NoticeRevision>()
        .with::<AwaitLive>()
        .with::<FindRun>()
        .with::<ReadPlan>()
        .with::<ConfirmRun>()
        .with::<SeeConfirmed>()
        .with::<DiscardRun>()
        .with::<FollowRun>()
}
