//! The repository server: revisions and rendered manifests, with the caches that make the real one lag.

use super::git::{CommitInfo, Git};
use super::knobs::Knobs;
use super::model::Source;
use super::render::{self, Rendered};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use towpath_core::CommitSha;

#[derive(Debug)]
pub(super) struct Repos {
    git: Git,
    knobs: Knobs,
    /// How long a resolved revision is believed.
    revision_cache: Duration,
    revisions: Mutex<HashMap<(String, String), (String, Instant)>>,
    rendered: Mutex<HashMap<(String, String), Rendered>>,
}

impl Repos {
    pub(super) fn new(git: Git, knobs: Knobs, revision_cache: Duration) -> Self {
        Self {
            git,
            knobs,
            revision_cache,
            revisions: Mutex::default(),
            rendered: Mutex::default(),
        }
    }

    /// The commit that `target` names; `fresh` asks the repository whatever the cache says.
    pub(super) async fn resolve(&self, source: &Source, target: &str, fresh: bool) -> Result<String, String> {
        if let Ok(sha) = target.parse::<CommitSha>() {
            return Ok(sha.to_string());
        }
        let key = (source.repo_url.clone(), target.to_owned());
        if !fresh {
            let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((sha, at)) = revisions.get(&key)
                && at.elapsed() < self.revision_cache
            {
                return Ok(sha.clone());
            }
        }
        self.reachable()?;
        let sha = self.git.resolve(&source.repo_url, target).await?;
        let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        revisions.insert(key, (sha.clone(), Instant::now()));
        Ok(sha)
    }

    /// The objects of a commit; `hard` renders them again.
    pub(super) async fn render(&self, source: &Source, sha: &str, hard: bool) -> Result<Rendered, String> {
        let unique = serde_json::to_string(source).map_err(|error| error.to_string())?;
        let key = (sha.to_owned(), unique);
        if !hard {
            let rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(rendered) = rendered.get(&key) {
                return Ok(rendered.clone());
            }
        }
        self.reachable()?;
        let files = self.git.files(&source.repo_url, sha).await?;
        let rendered = render::render(&files, source)?;
        let mut cache = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(key, rendered.clone());
        Ok(rendered)
    }

    pub(super) async fn info(&self, source: &Source, sha: &str) -> Result<CommitInfo, String> {
        self.reachable()?;
        self.git.info(&source.repo_url, sha).await
    }

    fn reachable(&self) -> Result<(), String> {
        self.knobs.get().repo_error.map_or(Ok(()), Err)
    }
}
