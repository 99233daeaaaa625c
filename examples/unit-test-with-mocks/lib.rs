//! A flow of one's own over the elements' traits, and its unit tests with mocks.
//!
//! `promote` writes an image, by digest, into a file of the deployment repository, if somebody reviewed the commit that it
//! was built from. It takes the traits, not the clients: GitHub and ECR in production, mocks in the tests below.

use std::collections::BTreeMap;
use towpath_core::{BranchName, CommitSha, ImageRef, RepoSlug};
use towpath_elements::source::Change;
use towpath_elements::{Error, ErrorKind, Registry, Result, Source};

/// What is promoted, and where to.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The repository that the image was built from.
    pub service: RepoSlug,
    /// The commit that it was built from.
    pub commit: CommitSha,
    /// The image; a tag is resolved once.
    pub image: ImageRef,
    /// The repository that says what runs.
    pub deployment: RepoSlug,
    /// Its branch.
    pub branch: BranchName,
    /// The file that holds the image and nothing else.
    pub file: String,
}

/// How often another commit may be faster before it is given up.
const ATTEMPTS: usize = 3;

/// Promotes an image, and returns the commit of the deployment repository that says so.
///
/// # Errors
/// *Denied* without an approval of what was merged, *not found* without an image or a branch, *conflict* where others were
/// faster each time, and whatever the elements say.
pub async fn promote(
    source: &dyn Source,
    registry: &dyn Registry,
    promotion: &Promotion,
) -> Result<CommitSha> {
    let Promotion {
        service,
        commit,
        image,
        deployment,
        branch,
        file,
    } = promotion;
    let refuse = |kind| Error::new(kind, "promotion", "promote", image);

    let review = source.review(service, commit).await?;
    if review
        .pull_requests
        .iter()
        .all(|pull| pull.approvers().is_empty())
    {
        return Err(refuse(ErrorKind::Denied).because(format!("nobody approved {commit}")));
    }
    let Some(resolved) = registry.resolve(image).await? else {
        return Err(refuse(ErrorKind::NotFound).because("the registry has no such image"));
    };
    let line = format!("{}\n", resolved.image).into_bytes();

    let mut attempt = 1;
    loop {
        let Some(head) = source.head(deployment, branch).await? else {
            return Err(refuse(ErrorKind::NotFound).because(format!("{deployment} has no branch {branch}")));
        };
        if source.file(deployment, &head, file).await?.as_deref() == Some(line.as_slice()) {
            return Ok(head);
        }
        let change = Change {
            repository: deployment.clone(),
            branch: branch.clone(),
            expected_head: head,
            files: BTreeMap::from([(file.clone(), Some(line.clone()))]),
            message: format!("Promote {}\n\nSource-Commit: {commit}\n", resolved.image),
        };
        match source.commit(change).await {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
