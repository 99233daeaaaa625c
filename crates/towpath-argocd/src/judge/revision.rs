//! Which commit was compared, and whether it is the expected one, or contains it, at every source that it concerns.

use super::{Ancestry, Case, Facts, Unmet, Verdict, brief, ended, pending, short};
use crate::wire::{App, Source};
use towpath_core::CommitSha;
use towpath_elements::delivery::DeliveryOutcome;

/// The revision that a sync of the expected commit has to name: with a hydrator the commit that it made of it, without one
/// the commit itself. Not a newer one that contains it: somebody else decides about that.
pub(crate) fn revision_to_sync<'a>(app: &'a App, expected: &'a CommitSha, facts: &Facts) -> &'a str {
    let hydrated = app.status.source_hydrator.last_successful_operation.as_ref();
    match hydrated
        .filter(|last| app.spec.source_hydrator.is_some() && matches_expected(&last.dry_sha, expected, facts))
    {
        Some(last) => &last.hydrated_sha,
        None => expected.as_str(),
    }
}

/// The revision in the snapshot that is, or contains, the expected one.
pub fn matching_revision<'a>(app: &'a App, expected: &CommitSha, facts: &Facts) -> Option<&'a str> {
    git_revisions(app)
        .into_iter()
        .map(|(_, revision)| revision)
        .find(|revision| matches_expected(revision, expected, facts))
}

/// The revisions that were compared, of the sources that have commits, with their repositories.
pub fn git_revisions(app: &App) -> Vec<(String, &str)> {
    git_sources(app)
        .into_iter()
        .map(|(source, revision)| (source.repo_url, revision))
        .collect()
}

fn git_sources(app: &App) -> Vec<(Source, &str)> {
    let sync = &app.status.sync;
    let sources = app.spec.effective_sources();
    let revisions: Vec<&str> = match sync.revisions.is_empty() {
        true => vec![sync.revision.as_str()],
        false => sync.revisions.iter().map(String::as_str).collect(),
    };
    sources
        .into_iter()
        .zip(revisions)
        .filter(|(source, _)| source.is_git())
        .collect()
}

pub(super) fn matches_expected(revision: &str, expected: &CommitSha, facts: &Facts) -> bool {
    revision == expected.as_str() || facts.ancestry.get(revision) == Some(&Ancestry::Descendant)
}

impl Case<'_> {
    pub(super) fn revision(&self) -> Option<Verdict> {
        if self.app.spec.source_hydrator.is_some() {
            return self.hydrated();
        }
        if self.matches() {
            return self.source_left_behind();
        }
        let wanted = self.expected.revision.short();
        let revisions = git_revisions(self.app);
        for (repository, revision) in &revisions {
            let unknown = self.unknown_ancestry(repository, revision);
            if unknown.is_some() {
                return unknown;
            }
            let is_commit = CommitSha::new(*revision).is_ok();
            let known = self.facts.ancestry.get(*revision);
            let moved_on = match known {
                Some(Ancestry::Unrelated) => true,
                Some(_) => false,
                // Without an oracle, only leaving the expected revision for one never seen before is a sure sign.
                None => {
                    is_commit
                        && self.facts.expected_seen
                        && !self.facts.baseline.iter().any(|before| before == revision)
                }
            };
            if moved_on {
                let why = match known {
                    Some(_) => format!(
                        "{} took over, which does not contain {wanted}; wait for that one, or deploy {wanted} again",
                        short(revision)
                    ),
                    None => format!(
                        "{} took over, and whether it contains {wanted} is not known; give the wait a revision oracle, or wait for that one",
                        short(revision)
                    ),
                };
                return ended(DeliveryOutcome::Superseded, why);
            }
        }
        let seen: Vec<&str> = revisions.iter().map(|(_, revision)| *revision).collect();
        Some(pending(
            Unmet::Revision,
            format!("the server to see commit {wanted} (it compared {})", brief(&seen)),
        ))
    }

    /// Several sources may follow the same branch of the same repository, and each is resolved by itself: the commit has
    /// arrived with the last of them.
    fn source_left_behind(&self) -> Option<Verdict> {
        let wanted = &self.expected.revision;
        let (there, behind): (Vec<_>, Vec<_>) = git_sources(self.app)
            .into_iter()
            .partition(|(_, revision)| matches_expected(revision, wanted, self.facts));
        let branch = |source: &Source| {
            let target = source
                .target_revision
                .as_deref()
                .filter(|target| !target.is_empty());
            (source.repo_url.clone(), target.unwrap_or("HEAD").to_owned())
        };
        let (source, revision) = behind
            .iter()
            .find(|(behind, _)| there.iter().any(|(there, _)| branch(there) == branch(behind)))?;
        self.unknown_ancestry(&source.repo_url, revision).or_else(|| {
            let path = source.path.as_deref().unwrap_or(".");
            Some(pending(
                Unmet::Revision,
                format!(
                    "every source that follows the same branch to be compared at {}, and {path:?} of {} was at {}",
                    wanted.short(),
                    source.repo_url,
                    short(revision)
                ),
            ))
        })
    }

    /// The question how a revision stands to the expected one, where it has not been asked and somebody knows.
    fn unknown_ancestry(&self, repository: &str, revision: &str) -> Option<Verdict> {
        let asked = self.facts.ancestry.contains_key(revision);
        (self.facts.has_oracle && !asked && CommitSha::new(revision).is_ok()).then(|| {
            pending(
                Unmet::Ancestry {
                    revision: revision.to_owned(),
                    repository: repository.to_owned(),
                },
                format!(
                    "how {} stands to {}",
                    short(revision),
                    self.expected.revision.short()
                ),
            )
        })
    }

    /// With a hydrator, people's commit is the dry one; what is compared is the commit that the hydrator made of it.
    fn hydrated(&self) -> Option<Verdict> {
        let status = &self.app.status.source_hydrator;
        let wanted = |sha: &str| matches_expected(sha, &self.expected.revision, self.facts);
        if let Some(current) = &status.current_operation
            && current.phase == "Failed"
            && wanted(&current.dry_sha)
        {
            return ended(
                DeliveryOutcome::ComparisonError,
                format!(
                    "the hydrator failed: {}; mend the dry source, and wait for that commit",
                    current.message
                ),
            );
        }
        match &status.last_successful_operation {
            Some(last) if wanted(&last.dry_sha) => {
                (last.hydrated_sha != self.app.status.sync.revision).then(|| {
                    pending(
                        Unmet::Revision,
                        format!("the hydrated commit {} to be compared", short(&last.hydrated_sha)),
                    )
                })
            }
            _ => Some(pending(
                Unmet::Revision,
                format!("commit {} to be hydrated", self.expected.revision.short()),
            )),
        }
    }

    pub(super) fn matches(&self) -> bool {
        matching_revision(self.app, &self.expected.revision, self.facts).is_some()
    }
}
