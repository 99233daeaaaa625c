//! Elements D1, D2, E1 and E2: a private registry with a pull-through cache, and the registries behind it.

mod assemble;
mod images;
mod prepare;

pub use prepare::ImageSetup;

use super::faults::Element;
use super::{Moment, State, World, refusal};
use async_trait::async_trait;
use images::Images as Store;
use std::collections::BTreeSet;
use std::time::Duration;
use towpath_core::{Digest, ImageRef, RegistryHost, RepositoryName, Tag};
use towpath_elements::registry::{
    Assembly, Coverage, Finding, ImportedImage, NoResult, PlatformImage, PlatformScan, ResolvedImage,
    ScanReport, ScanStatus, Scanner,
};
use towpath_elements::{Error, ErrorKind, Registry, Result};

pub(super) use images::Images;

/// What the scanner will say of the images of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScanScript {
    /// Nothing found.
    #[default]
    Clean,
    /// These findings, on every platform.
    Finds(Vec<Finding>),
    /// No result ever, for this reason.
    Unavailable(String),
    /// It never begins, although a rule has the repository scanned.
    Never,
    /// No rule has the repository scanned.
    Uncovered,
    /// The scanner says that it has ended, and lists no findings so far.
    Unlisted,
}

/// The host of the private registry: one by the naming rules of Amazon ECR, in no account that exists.
pub(super) fn private_host() -> RegistryHost {
    #[expect(clippy::unwrap_used, reason = "the name is a constant")]
    RegistryHost::new("000000000000.dkr.ecr.eu-west-1.amazonaws.com").unwrap()
}

fn by_digest<'a>(image: &'a ImageRef, attempted: &'static str) -> Result<&'a Digest> {
    image.digest().ok_or_else(|| {
        refusal(ErrorKind::Invalid, attempted, image, "it is not given by digest")
            .advise("resolve its tag first")
    })
}

fn missing(attempted: &'static str, image: &ImageRef) -> Error {
    refusal(ErrorKind::NotFound, attempted, image, "there is no such image")
}

fn cached_name(images: &Store, upstream: &ImageRef) -> Result<ImageRef> {
    let prefix = images.rules.get(upstream.registry()).ok_or_else(|| {
        let detail = format!("no pull-through rule for {}", upstream.registry());
        refusal(ErrorKind::NotFound, "find the cached name of", upstream, detail).advise("create the rule")
    })?;
    let repository = RepositoryName::new(format!("{prefix}/{}", upstream.repository()))?;
    let name = ImageRef::new(private_host(), repository);
    Ok(match (upstream.digest(), upstream.tag()) {
        (Some(digest), _) => name.at(digest.clone()),
        (None, Some(tag)) => name.tagged(tag.clone()),
        (None, None) => name,
    })
}

impl State {
    /// Copies manifests, and everything they consist of, from one repository to another.
    fn copy_image(&mut self, digest: &Digest, from: &ImageRef, to: &ImageRef, moment: Moment<'_>) {
        let mut next = vec![digest.clone()];
        let mut seen = BTreeSet::new();
        while let Some(digest) = next.pop() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            next.extend(self.registry.children(&digest));
            next.extend(self.registry.referrers(from, &digest));
            self.changed |= self.registry.store(to, &digest, moment.now);
        }
    }

    fn set_tag(&mut self, image: &ImageRef, tag: &Tag, digest: &Digest) -> Result<()> {
        let repository = self.registry.repository_mut(image);
        match repository.tags.get(tag) {
            Some(before) if before == digest => {}
            Some(before) if repository.immutable => {
                let detail = format!("the tag is immutable and names {before}, not {digest}");
                return Err(refusal(
                    ErrorKind::Conflict,
                    "tag",
                    image.tagged(tag.clone()),
                    detail,
                ));
            }
            _ => {
                repository.tags.insert(tag.clone(), digest.clone());
                self.changed = true;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Registry for World {
    async fn locate(&self, repository: &RepositoryName) -> Result<ImageRef> {
        self.call(Element::Registry, "locate", repository, |_, _| {
            Ok(ImageRef::new(private_host(), repository.clone()))
        })
        .await
    }

    async fn ensure_repository(&self, repository: &RepositoryName) -> Result<ImageRef> {
        self.call(Element::Registry, "ensure_repository", repository, |state, _| {
            let image = ImageRef::new(private_host(), repository.clone());
            state.changed = !state.registry.repositories.contains_key(&image.name());
            state.registry.repository_mut(&image);
            Ok(image)
        })
        .await
    }

    async fn resolve(&self, image: &ImageRef) -> Result<Option<ResolvedImage>> {
        self.call(Element::Registry, "resolve", image, |state, _| {
            state.registry.resolve(image)
        })
        .await
    }

    async fn cached(&self, upstream: &ImageRef) -> Result<ImageRef> {
        self.call(Element::Registry, "cached", upstream, |state, _| {
            cached_name(&state.registry, upstream)
        })
        .await
    }

    async fn import(&self, upstream: &ImageRef) -> Result<ImportedImage> {
        self.call(Element::Registry, "import", upstream, |state, moment| {
            let name = cached_name(&state.registry, upstream)?;
            let found = state
                .registry
                .resolve(upstream)?
                .ok_or_else(|| missing("import", upstream))?;
            state.copy_image(&found.digest, upstream, &name, moment);
            if let (None, Some(tag)) = (upstream.digest(), upstream.tag()) {
                // A cache follows its upstream: the tag moves, whatever the rule of other repositories.
                let tags = &mut state.registry.repository_mut(&name).tags;
                let before = tags.insert(tag.clone(), found.digest.clone());
                state.changed |= before.as_ref() != Some(&found.digest);
            }
            let cached = state
                .registry
                .described(&name.at(found.digest.clone()), &found.digest)?;
            Ok(ImportedImage {
                upstream: upstream.clone(),
                cached,
            })
        })
        .await
    }

    async fn assemble(&self, assembly: Assembly) -> Result<ResolvedImage> {
        self.call(
            Element::Registry,
            "assemble",
            assembly.target.clone(),
            |state, moment| {
                let digest = assemble::assemble(&mut state.registry, &assembly)?;
                let target = &assembly.target;
                for digest in state.registry.whole(&digest) {
                    state.changed |= state.registry.store(target, &digest, moment.now);
                }
                if let Some(tag) = target.tag() {
                    state.set_tag(target, tag, &digest)?;
                }
                state.registry.described(&target.at(digest.clone()), &digest)
            },
        )
        .await
    }

    async fn tag(&self, image: &ImageRef, tag: &Tag) -> Result<()> {
        self.call(
            Element::Registry,
            "tag",
            format!("{image} as {tag}"),
            |state, _| {
                let digest = by_digest(image, "tag")?;
                if state.registry.resolve(image)?.is_none() {
                    return Err(missing("tag", image));
                }
                state.set_tag(image, tag, digest)
            },
        )
        .await
    }

    async fn copy(&self, from: &ImageRef, to: &ImageRef) -> Result<ResolvedImage> {
        self.call(
            Element::Registry,
            "copy",
            format!("{from} to {to}"),
            |state, moment| {
                let digest = by_digest(from, "copy")?;
                if state.registry.resolve(from)?.is_none() {
                    return Err(missing("copy", from));
                }
                state.copy_image(digest, from, to, moment);
                if let Some(tag) = to.tag() {
                    state.set_tag(to, tag, digest)?;
                }
                state.registry.described(&to.at(digest.clone()), digest)
            },
        )
        .await
    }

    async fn scan(&self, image: &ImageRef) -> Result<ScanReport> {
        self.call(Element::Registry, "scan", image, |state, moment| {
            by_digest(image, "read the scan of")?;
            state.scan(image, moment)
        })
        .await
    }

    async fn scan_again(&self, before: &ScanReport) -> Result<ScanReport> {
        self.call(Element::Registry, "scan_again", &before.image, |state, moment| {
            let now = state.scan(&before.image, moment)?;
            let mut report = before.clone();
            for scan in report.platforms.iter_mut().filter(|scan| !scan.has_ended()) {
                if let Some(newer) = now.platforms.iter().find(|newer| newer.image == scan.image) {
                    *scan = newer.clone();
                }
            }
            Ok(report)
        })
        .await
    }
}

impl State {
    fn scan(&mut self, image: &ImageRef, moment: Moment<'_>) -> Result<ScanReport> {
        let found = self
            .registry
            .resolve(image)?
            .ok_or_else(|| missing("read the scan of", image))?;
        let script = self
            .registry
            .scans
            .get(&image.name())
            .cloned()
            .unwrap_or_default();
        let repository = self.registry.repository_mut(image);
        let scans = found.platforms.into_iter().map(|platform| {
            let pushed = repository.manifests.get(&platform.digest).copied();
            scanned(&script, platform, pushed.unwrap_or_default(), moment)
        });
        let mut report = ScanReport::new(image.clone(), scans.collect());
        report.configured = Some(Scanner::Basic);
        report.coverage = match script {
            ScanScript::Uncovered => Coverage::Uncovered,
            _ => Coverage::Covered("SCAN_ON_PUSH".to_owned()),
        };
        Ok(report)
    }
}

/// One platform that was pushed at a time, as the script has it scanned.
fn scanned(
    script: &ScanScript,
    platform: PlatformImage,
    pushed: Duration,
    moment: Moment<'_>,
) -> PlatformScan {
    let ended = pushed + moment.timing.scan;
    let (status, findings) = match script {
        ScanScript::Uncovered => {
            let text = "no rule has the repository scanned; add one";
            return PlatformScan::without_result(platform, NoResult::NotCovered, text);
        }
        ScanScript::Never => (ScanStatus::Pending, Vec::new()),
        _ if moment.now < pushed + moment.timing.scan / 2 => (ScanStatus::Pending, Vec::new()),
        _ if moment.now < ended => (ScanStatus::InProgress, Vec::new()),
        ScanScript::Unlisted => (ScanStatus::InProgress, Vec::new()),
        ScanScript::Clean => (ScanStatus::Complete, Vec::new()),
        ScanScript::Finds(findings) => (ScanStatus::Complete, findings.clone()),
        ScanScript::Unavailable(why) => (ScanStatus::Unavailable(why.clone()), Vec::new()),
    };
    let mut scan = PlatformScan::new(platform, status);
    scan.scanner = Some(Scanner::Basic);
    scan.completed = (scan.status == ScanStatus::Complete).then(|| moment.stamp(ended));
    if *script == ScanScript::Unlisted && scan.status == ScanStatus::InProgress {
        scan.word = Some("COMPLETE".to_owned());
    }
    scan.findings = findings;
    scan
}
