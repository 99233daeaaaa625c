//! Listing images of the lab beside a bare loop over the SDK's paginator, each in a program of its own.

use crate::Result;
use crate::child::{Cost, measure};
use crate::report::{header, mebibytes, median, milliseconds, ratio, row, text};
use futures_util::TryStreamExt;
use std::process::Command;
use std::time::Duration;
use towpath_ecr::{Ecr, EcrConfig, ImageFilter, Region};
use towpath_lab::ecr as lab;

const REPOSITORY: &str = "shop/web";
const LARGE: usize = 100_000;
const SMALL: usize = 10_000;

pub(crate) async fn compare(rounds: usize) -> Result<()> {
    text(&format!(
        "Listing, median of {rounds}, taking turns; load {}\n",
        std::fs::read_to_string("/proc/loadavg")?.trim()
    ));
    header(["images", "figure", "bare SDK loop", "Towpath", "Towpath / bare"]);
    for images in [SMALL, LARGE] {
        let registry = lab::Ecr::start(lab::EcrConfig::default()).await?;
        registry.seed_images(REPOSITORY, images)?;
        let log = tempfile::NamedTempFile::new()?;
        let mut costs: [Vec<Cost>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (way, costs) in ["list-bare", "list-images"].into_iter().zip(&mut costs) {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([way, &registry.api_url(), &images.to_string()]);
                let (succeeded, cost) = measure(&mut command, log.path()).await?;
                if !succeeded {
                    return Err(format!("{way} failed: {}", std::fs::read_to_string(log.path())?).into());
                }
                costs.push(cost);
            }
        }
        let of = |figure: &dyn Fn(&Cost) -> Duration| {
            [0, 1].map(|way| median(costs[way].iter().map(figure).collect::<Vec<_>>()))
        };
        let name = images.to_string();
        for (first, what, [bare, ours]) in [
            (name.as_str(), "time", of(&|cost| cost.wall)),
            ("", "processor time", of(&|cost| cost.processor)),
        ] {
            row([
                first,
                what,
                &milliseconds(bare),
                &milliseconds(ours),
                &ratio(ours, bare),
            ]);
        }
        let [bare, ours] =
            [0, 1].map(|way| median(costs[way].iter().map(|cost| cost.peak_kib).collect::<Vec<_>>()));
        row(["", "peak memory", &mebibytes(bare), &mebibytes(ours), ""]);
    }
    text("");
    Ok(())
}

/// What a child does: lists everything, and checks that it is everything.
pub(crate) async fn list(bare: bool, endpoint: &str, images: &str) -> Result<()> {
    let known = lab::EcrConfig::default();
    let config = EcrConfig::from_env()
        .region(Region::new(&known.region)?)
        .endpoint(endpoint.parse()?)
        .credentials(known.access_key_id, known.secret_access_key, None);
    let ecr = Ecr::new(&config).await?;
    let (mut seen, mut bytes) = (0, 0);
    if bare {
        let request = ecr.api().describe_images().repository_name(REPOSITORY);
        let mut pages = request.into_paginator().page_size(1000).send();
        while let Some(page) = pages.next().await {
            for image in page?.image_details() {
                seen += 1;
                bytes += u64::try_from(image.image_size_in_bytes().unwrap_or_default())?;
            }
        }
    } else {
        let mut all = ecr.images(&REPOSITORY.parse()?, ImageFilter::new());
        while let Some(image) = all.try_next().await? {
            seen += 1;
            bytes += image.size.unwrap_or_default();
        }
    }
    match seen == images.parse::<usize>()? && bytes > 0 {
        true => Ok(()),
        false => Err(format!("{seen} images, {bytes} bytes").into()),
    }
}
