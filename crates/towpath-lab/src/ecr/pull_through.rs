//! The pull-through cache: an image that is asked for under the prefix of a rule is brought in from the rule's upstream.
//!
//! Follows "Sync an upstream registry with an Amazon ECR private registry" of the user guide. The first pull makes the
//! repository and copies the image; of an index, with every child. Later pulls of a digest never ask the upstream; those
//! of a tag ask once the cached one is a day old, and are served from the cache where the upstream cannot be reached.
//! A repository that was made by hand below the prefix of a rule is filled like one of the cache's own.

use super::Service;
use super::manifest::Manifest;
use super::remote::{Fetched, Remote};
use super::secrets::{Login, SecretFault};
use super::store::{Push, Reference, Rule};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Instant;
use towpath_core::Digest;

/// How deep indexes may be nested in indexes.
const MAX_DEPTH: usize = 3;

/// Why an image could not be brought in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PullFailure {
    NotFound,
    Denied,
    /// The upstream does not take the login of the rule, or refuses it the image.
    LoginRefused,
    /// The secret of the rule cannot be used.
    Secret(SecretFault),
    TooManyRequests,
    Unavailable(String),
}

enum Cached {
    Fresh,
    /// There, but due to be compared with the upstream.
    Stale,
    No,
}

/// Sees to it that what is asked for is in the store, where a rule covers it. Without a rule this does nothing.
pub(super) async fn ensure(service: &Service, name: &str, reference: &Reference) -> Result<(), PullFailure> {
    if !covered(service, name) || matches!(cached(service, name, reference), Cached::Fresh) {
        return Ok(());
    }
    // One import at a time: a second client that asks for the same image waits for the first, and finds it there.
    let _importing = service.importing.lock().await;
    let stale = match cached(service, name, reference) {
        Cached::Fresh => return Ok(()),
        Cached::Stale => true,
        Cached::No => false,
    };
    let Some((prefix, rule, upstream)) = service.store().pull_through(name) else {
        return Ok(());
    };
    let by_digest = matches!(reference, Reference::Digest(_));
    if !service.may_import(name, &prefix) || (by_digest && !service.digests_imported.load(Ordering::Relaxed))
    {
        // The service answers as if there were no rule.
        return Ok(());
    }
    match import(service, name, &prefix, &rule, &upstream, reference).await {
        Err(failure) if stale => {
            tracing::debug!(
                ?failure,
                name,
                "served from the cache, since the upstream did not answer"
            );
            Ok(())
        }
        outcome => outcome,
    }
}

/// Sees to it that a blob is in the store that an image of the cache names.
pub(super) async fn ensure_blob(service: &Service, name: &str, digest: &Digest) -> Result<(), PullFailure> {
    let lacking = {
        let store = service.store();
        let repository = store.repositories.get(name);
        repository.is_some_and(|repository| {
            repository.references(digest)
                && !(repository.blobs.contains(digest) && service.blobs.size(digest).is_some())
        })
    };
    if !lacking || !covered(service, name) {
        return Ok(());
    }
    let _importing = service.importing.lock().await;
    let Some((prefix, rule, upstream)) = service.store().pull_through(name) else {
        return Ok(());
    };
    if !service.may_import(name, &prefix) {
        return Ok(());
    }
    service
        .remote(&rule, &upstream)?
        .blob(&service.blobs, digest)
        .await?;
    if let Some(repository) = service.store().repositories.get_mut(name) {
        repository.blobs.insert(digest.clone());
    }
    Ok(())
}

fn covered(service: &Service, name: &str) -> bool {
    super::names::is_repository_name(name) && service.store().pull_through(name).is_some()
}

fn cached(service: &Service, name: &str, reference: &Reference) -> Cached {
    let store = service.store();
    let Some(repository) = store.repositories.get(name) else {
        return Cached::No;
    };
    match (repository.resolve(reference), reference) {
        (None, _) => Cached::No,
        (Some(_), Reference::Digest(_)) => Cached::Fresh,
        (Some(_), Reference::Tag(tag)) => {
            // What was pushed here never came from the upstream, and is not compared with it.
            let checked = repository.checked.get(tag);
            let fresh = checked.is_none_or(|checked| checked.elapsed() < service.config.cache_life);
            if fresh { Cached::Fresh } else { Cached::Stale }
        }
    }
}

async fn import(
    service: &Service,
    name: &str,
    prefix: &str,
    rule: &Rule,
    upstream: &str,
    reference: &Reference,
) -> Result<(), PullFailure> {
    let mut remote = service.remote(rule, upstream)?;
    let wanted = match reference {
        Reference::Tag(tag) => tag.clone(),
        Reference::Digest(digest) => digest.to_string(),
    };
    if let Reference::Tag(tag) = reference
        && let Some(current) = remote.resolve(&wanted).await?
        && service.confirm(name, tag, &current)
    {
        return Ok(());
    }
    // Children stand behind their index here, and are stored before it.
    let mut fetched = vec![(remote.manifest(&wanted).await?, 0)];
    let mut blobs = BTreeSet::new();
    let mut next = 0;
    while let Some((manifest, depth)) = fetched.get(next) {
        let depth = depth + 1;
        let parsed = Manifest::parse(&manifest.bytes, manifest.media_type.as_deref())
            .map_err(PullFailure::Unavailable)?;
        for blob in parsed.blobs() {
            if service.lazy_layers.load(Ordering::Relaxed) {
                continue;
            }
            match remote.blob(&service.blobs, &blob.digest).await {
                Ok(()) => blobs.insert(blob.digest.clone()),
                // The manifest is served all the same: what is missing shows when it is asked for.
                Err(PullFailure::NotFound) => false,
                Err(failure) => return Err(failure),
            };
        }
        if depth > MAX_DEPTH && !parsed.children.is_empty() {
            return Err(PullFailure::Unavailable(format!(
                "its indexes are nested more than {MAX_DEPTH} deep"
            )));
        }
        for child in &parsed.children {
            if !fetched.iter().any(|(known, _)| known.digest == child.digest) {
                match remote.manifest(child.digest.as_str()).await {
                    Ok(child) => fetched.push((child, depth)),
                    Err(PullFailure::NotFound) => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        next += 1;
    }
    let fetched = fetched.into_iter().map(|(manifest, _)| manifest).collect();
    service.keep_import(name, prefix, reference, fetched, blobs)
}

impl Service {
    /// The repository at the upstream of a rule, with the login of the rule's secret.
    fn remote<'a>(&'a self, rule: &Rule, repository: &'a str) -> Result<Remote<'a>, PullFailure> {
        let login: Option<Login> = match &rule.credential_arn {
            Some(arn) => Some(self.secret(arn).map_err(PullFailure::Secret)?),
            None => None,
        };
        let address = self.upstream(&rule.upstream_url)?;
        Ok(Remote::new(self.remote_client()?, address, repository, login))
    }

    /// Tries a rule: its secret, its upstream, and the one at the other.
    pub(super) async fn try_rule(&self, rule: &Rule) -> Result<(), PullFailure> {
        self.remote(rule, "")?.check().await
    }

    fn upstream(&self, url: &str) -> Result<SocketAddr, PullFailure> {
        let address = self.upstreams.get(url).copied();
        address.ok_or_else(|| PullFailure::Unavailable(format!("no route to {url}")))
    }

    fn remote_client(&self) -> Result<&reqwest::Client, PullFailure> {
        if let Some(client) = self.remote.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| PullFailure::Unavailable(error.to_string()))?;
        Ok(self.remote.get_or_init(|| client))
    }

    /// Notes that a cached tag is what the upstream has; false where it is not, or cannot be moved to what it is now.
    fn confirm(&self, name: &str, tag: &str, current: &Digest) -> bool {
        let mut store = self.store();
        let Some(repository) = store.repositories.get_mut(name) else {
            return false;
        };
        let cached = repository.tags.get(tag);
        let same = cached == Some(current);
        let kept = cached.is_some() && !repository.mutability.allows(tag);
        if same || kept {
            repository.checked.insert(tag.to_owned(), Instant::now());
        }
        same || kept
    }

    fn keep_import(
        &self,
        name: &str,
        prefix: &str,
        reference: &Reference,
        fetched: Vec<Fetched>,
        blobs: BTreeSet<Digest>,
    ) -> Result<(), PullFailure> {
        let mut store = self.store();
        let made = store.cache_repository(name, prefix).ok_or(PullFailure::Denied)?;
        let repository = store.repositories.entry(name.to_owned()).or_insert(made);
        repository.blobs.extend(blobs);
        for (position, manifest) in fetched.into_iter().enumerate().rev() {
            let tag = match reference {
                Reference::Tag(tag) if position == 0 => Some(tag.clone()),
                _ => None,
            };
            let push = Push {
                repository: name,
                bytes: manifest.bytes,
                media_type: manifest.media_type.as_deref(),
                digest: Some(manifest.digest),
                tag: tag.clone(),
                must_change: false,
                parts_follow: true,
            };
            store.push(&self.blobs, push).map_err(|refused| {
                PullFailure::Unavailable(format!("its image cannot be stored: {refused:?}"))
            })?;
            if let Some(tag) = tag
                && let Some(repository) = store.repositories.get_mut(name)
            {
                repository.checked.insert(tag, Instant::now());
            }
        }
        Ok(())
    }
}
