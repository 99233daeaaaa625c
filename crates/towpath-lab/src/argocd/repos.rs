//! The repository server: revisions and rendered manifests, with the caches that make the real one lag.

use super::clock::{Clock, Moment};
use super::git::{CommitInfo, Git};
use super::knobs::Knobs;
use super::model::Source;
use super::render::{self, Rendered};
use semver::{Version, VersionReq};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use towpath_core::CommitSha;

/// A version of a Helm chart, as its repository would serve it. Templates are not run: the manifests are what they give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartVersion {
    /// The URL of the Helm repository.
    pub repository: String,
    /// The name of the chart.
    pub chart: String,
    /// The version, by Semantic Versioning.
    pub version: String,
    /// The manifests, as one YAML text.
    pub manifests: String,
}

#[derive(Debug)]
pub(super) struct Repos {
    git: Git,
    charts: Vec<ChartVersion>,
    knobs: Knobs,
    clock: Clock,
    /// How long a resolved revision is believed.
    revision_cache: Duration,
    revisions: Mutex<HashMap<(String, String), (String, Moment)>>,
    rendered: Mutex<HashMap<(String, String), Rendered>>,
}

impl Repos {
    pub(super) fn new(
        git: Git,
        charts: Vec<ChartVersion>,
        knobs: Knobs,
        clock: Clock,
        revision_cache: Duration,
    ) -> Self {
        Self {
            git,
            charts,
            knobs,
            clock,
            revision_cache,
            revisions: Mutex::default(),
            rendered: Mutex::default(),
        }
    }

    /// The commit that `target` names, or the version of a chart. `fresh` asks the repository whatever the cache says, and
    /// leaves the cache alone, as the API server does.
    pub(super) async fn resolve(&self, source: &Source, target: &str, fresh: bool) -> Result<String, String> {
        if let Some(known) = self.known(source, target) {
            return known;
        }
        if fresh {
            self.reachable()?;
            return self.git.resolve(&source.repo_url, target).await;
        }
        let cached = {
            let key = (source.repo_url.clone(), target.to_owned());
            let revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
            let cached = revisions.get(&key);
            cached
                .filter(|(_, at)| self.clock.since(*at) < self.revision_cache)
                .map(|(sha, _)| sha.clone())
        };
        match cached {
            Some(sha) => Ok(sha),
            None => self.resolve_anew(source, target).await,
        }
    }

    /// Asks the repository whatever the cache says, and remembers the answer.
    pub(super) async fn resolve_anew(&self, source: &Source, target: &str) -> Result<String, String> {
        if let Some(known) = self.known(source, target) {
            return known;
        }
        self.reachable()?;
        let sha = self.git.resolve(&source.repo_url, target).await?;
        let key = (source.repo_url.clone(), target.to_owned());
        let mut revisions = self.revisions.lock().unwrap_or_else(PoisonError::into_inner);
        revisions.insert(key, (sha.clone(), self.clock.moment()));
        Ok(sha)
    }

    /// What can be told without asking a repository.
    fn known(&self, source: &Source, target: &str) -> Option<Result<String, String>> {
        match source.chart.as_str() {
            "" => target.parse::<CommitSha>().ok().map(|sha| Ok(sha.to_string())),
            _ => Some(
                self.chart(source, target)
                    .map(|chart| chart.version.clone())
                    .ok_or_else(|| {
                        format!(
                            "unable to get chart for {} {target} from {}: not found",
                            source.chart, source.repo_url
                        )
                    }),
            ),
        }
    }

    /// The version that `target` names, or the newest one in the range that it is.
    fn chart(&self, source: &Source, target: &str) -> Option<&ChartVersion> {
        let own = || {
            self.charts
                .iter()
                .filter(|chart| chart.repository == source.repo_url && chart.chart == source.chart)
        };
        if Version::parse(target).is_ok() {
            return own().find(|chart| chart.version == target);
        }
        let range = match target {
            "HEAD" => VersionReq::STAR,
            range => VersionReq::parse(range).ok()?,
        };
        own()
            .filter_map(|chart| Some((Version::parse(&chart.version).ok()?, chart)))
            .filter(|(version, _)| range.matches(version))
            .max_by(|(one, _), (other, _)| one.cmp(other))
            .map(|(_, chart)| chart)
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
        let rendered = match self.chart(source, sha).filter(|_| !source.chart.is_empty()) {
            Some(chart) => render::chart(source, &chart.manifests)?,
            None => {
                self.reachable()?;
                let files = self.git.files(&source.repo_url, sha).await?;
                render::render(&files, source)?
            }
        };
        let mut cache = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(key, rendered.clone());
        Ok(rendered)
    }

    /// The objects of several sources, together, and how each was made.
    pub(super) async fn render_all(
        &self,
        sources: &[Source],
        revisions: &[String],
        hard: bool,
    ) -> Result<(Rendered, Vec<String>), String> {
        let (mut objects, mut types) = (Vec::new(), Vec::new());
        let mut whole = None;
        for (index, (source, revision)) in sources.iter().zip(revisions).enumerate() {
            let rendered = self
                .render(source, revision, hard)
                .await
                .map_err(|why| failed(index, sources.len(), &why))?;
            types.push(rendered.source_type.to_owned());
            whole.get_or_insert(rendered.source_type);
            objects.extend(rendered.objects);
        }
        let source_type = whole.ok_or("spec.source or spec.sources is required")?;
        Ok((Rendered { source_type, objects }, types))
    }

    pub(super) async fn info(&self, source: &Source, sha: &str) -> Result<CommitInfo, String> {
        self.reachable()?;
        self.git.info(&source.repo_url, sha).await
    }

    /// Commits files to a branch; answers the branch's newest commit.
    pub(super) async fn commit(
        &self,
        url: &str,
        branch: &str,
        files: &[(String, String)],
        message: &str,
    ) -> Result<String, String> {
        self.reachable()?;
        self.git.commit(url, branch, files, message).await
    }

    fn reachable(&self) -> Result<(), String> {
        self.knobs.get().repo_error.map_or(Ok(()), Err)
    }
}

/// What a comparison says of a source that cannot be resolved or rendered.
pub(super) fn failed(index: usize, count: usize, why: &str) -> String {
    format!(
        "failed to generate manifest for source {} of {count}: rpc error: code = Unknown desc = {why}",
        index + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn charts_are_found_by_version_and_by_range() {
        let charts = ["1.2.0", "1.10.0", "2.0.0"].map(|version| ChartVersion {
            repository: "https://charts.example".into(),
            chart: "db".into(),
            version: version.into(),
            manifests: "kind: A\n".into(),
        });
        let (git, clock) = (Git::new(Vec::new()).unwrap(), Clock::start());
        let repos = Repos::new(git, charts.into(), Knobs::default(), clock, Duration::ZERO);
        let source = Source {
            repo_url: "https://charts.example".into(),
            chart: "db".into(),
            ..Source::default()
        };
        for (target, version) in [
            ("1.2.0", "1.2.0"),
            ("^1", "1.10.0"),
            ("HEAD", "2.0.0"),
            ("*", "2.0.0"),
        ] {
            assert_eq!(repos.resolve(&source, target, false).await.unwrap(), version);
        }
        let rendered = repos.render(&source, "1.10.0", false).await.unwrap();
        assert_eq!((rendered.source_type, rendered.objects.len()), ("Helm", 1));
        let error = repos.resolve(&source, "^3", true).await.unwrap_err();
        assert!(error.contains("db ^3"), "{error}");
    }
}
