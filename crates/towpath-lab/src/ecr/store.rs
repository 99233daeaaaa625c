//! What a private registry holds: repositories, their images and tags, rules and settings. No wire in here.

use super::api::{ReplicationConfiguration, SigningConfiguration};
use super::archive::Storage;
use super::blobs::Blobs;
use super::creation::{Encryption, Template};
use super::lifecycle::{Preview, Previews};
use super::manifest::Manifest;
use super::names::{is_tag, matches};
use super::scan::{Finding, Pace, Published, Scan, ScanType};
use super::spread::Spread;
use super::tags::Tags;
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use towpath_core::Digest;

#[derive(Debug)]
pub(super) struct Store {
    pub(super) repositories: BTreeMap<String, Repository>,
    pub(super) rules: BTreeMap<String, Rule>,
    pub(super) scanning: Scanning,
    pub(super) settings: BTreeMap<String, String>,
    /// Repository creation templates, by prefix.
    pub(super) templates: BTreeMap<String, Template>,
    pub(super) registry_policy: Option<String>,
    pub(super) replication: ReplicationConfiguration,
    pub(super) signing: Option<SigningConfiguration>,
    /// Principals whose pulls do not count as the last one, and since when.
    pub(super) pull_time_exclusions: BTreeMap<String, Timestamp>,
    /// By repository name or by image digest.
    pub(super) findings: BTreeMap<String, Vec<Finding>>,
    /// Scan statuses that a test insists on, by repository name or by image digest.
    pub(super) forced: BTreeMap<String, String>,
    /// Weaknesses that became known later than the images they are in.
    pub(super) published: Vec<Published>,
    /// Whether enhanced scans have their time of completion before their findings.
    pub(super) early_end: bool,
    pub(super) pace: Pace,
    pub(super) spread: Spread,
    pub(super) previews: Previews,
}

#[derive(Clone, Debug)]
pub(super) struct Repository {
    pub(super) created_at: Timestamp,
    pub(super) mutability: Mutability,
    pub(super) scan_on_push: bool,
    /// The prefix of the pull-through rule that made it.
    pub(super) pull_through: Option<String>,
    pub(super) images: BTreeMap<Digest, Image>,
    pub(super) tags: Tags,
    /// The indexes that hold an image, by that image.
    pub(super) holders: BTreeMap<Digest, BTreeSet<Digest>>,
    /// The artifacts that name an image as their subject, by that image.
    pub(super) referrers: BTreeMap<Digest, BTreeSet<Digest>>,
    pub(super) blobs: BTreeSet<Digest>,
    /// When a cached tag was last compared with its upstream.
    pub(super) checked: BTreeMap<String, Instant>,
    pub(super) resource_tags: BTreeMap<String, String>,
    pub(super) encryption: Encryption,
    pub(super) policy: Option<String>,
    pub(super) lifecycle: Option<String>,
    pub(super) lifecycle_evaluated: Option<Timestamp>,
    pub(super) preview: Option<Preview>,
}

/// `imageTagMutability` with its exclusion filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mutability {
    pub(super) immutable: bool,
    pub(super) except: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) bytes: Bytes,
    pub(super) manifest: Manifest,
    pub(super) pushed_at: Timestamp,
    pub(super) last_pull: Option<Timestamp>,
    pub(super) scan: Option<Scan>,
    pub(super) storage: Storage,
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) upstream_url: String,
    pub(super) upstream_name: &'static str,
    pub(super) upstream_prefix: String,
    pub(super) credential_arn: Option<String>,
    pub(super) custom_role_arn: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// The scanning configuration of the registry.
#[derive(Clone, Debug)]
pub(super) struct Scanning {
    pub(super) by: ScanType,
    pub(super) rules: Vec<ScanRule>,
}

#[derive(Clone, Debug)]
pub(super) struct ScanRule {
    /// `SCAN_ON_PUSH`, `CONTINUOUS_SCAN` or `MANUAL`.
    pub(super) frequency: String,
    /// Repository names, where `*` stands for anything.
    pub(super) filters: Vec<String>,
}

/// What an image is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    Tag(String),
    Digest(Digest),
}

/// One manifest to store.
pub(super) struct Push<'a> {
    pub(super) repository: &'a str,
    pub(super) bytes: Bytes,
    pub(super) media_type: Option<&'a str>,
    pub(super) digest: Option<Digest>,
    pub(super) tag: Option<String>,
    /// Whether storing what is there already is an error, as it is for `PutImage`.
    pub(super) must_change: bool,
    /// Whether what it names may come later, as it does in the cache.
    pub(super) parts_follow: bool,
}

/// Why a manifest was not stored.
#[derive(Debug)]
pub(super) enum PushRefused {
    NoRepository,
    Invalid(String),
    DigestDiffers,
    LayersMissing(Vec<Digest>),
    ImagesMissing(Vec<Digest>),
    TagImmutable(String),
    AlreadyThere { digest: Digest, tag: Option<String> },
}

/// Why an image was not deleted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeleteRefused {
    NotFound,
    TagDiffers,
    /// Indexes hold on to it.
    Referenced(Vec<Digest>),
}

impl Reference {
    /// A digest where it reads like one, or else a tag; an error where it is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.contains(':') {
            return text.parse().ok().map(Self::Digest);
        }
        is_tag(text).then(|| Self::Tag(text.to_owned()))
    }
}

impl Repository {
    pub(super) fn new() -> Self {
        Self {
            created_at: Timestamp::now(),
            mutability: Mutability::default(),
            scan_on_push: false,
            pull_through: None,
            images: BTreeMap::new(),
            tags: Tags::default(),
            holders: BTreeMap::new(),
            referrers: BTreeMap::new(),
            blobs: BTreeSet::new(),
            checked: BTreeMap::new(),
            resource_tags: BTreeMap::new(),
            encryption: Encryption::default(),
            policy: None,
            lifecycle: None,
            lifecycle_evaluated: None,
            preview: None,
        }
    }

    pub(super) fn resolve(&self, reference: &Reference) -> Option<Digest> {
        let digest = match reference {
            Reference::Digest(digest) => digest,
            Reference::Tag(tag) => self.tags.get(tag)?,
        };
        self.images.contains_key(digest).then(|| digest.clone())
    }

    pub(super) fn tags_of(&self, digest: &Digest) -> Vec<String> {
        self.tags.of(digest).cloned().collect()
    }

    /// Adds an image, where it is not there yet.
    pub(super) fn add(&mut self, digest: &Digest, image: impl FnOnce() -> Image) {
        if let Some(known) = self.images.get_mut(digest) {
            known.storage.activate();
            return;
        }
        let image = image();
        for child in &image.manifest.children {
            let holders = self.holders.entry(child.digest.clone()).or_default();
            holders.insert(digest.clone());
        }
        if let Some(subject) = &image.manifest.subject {
            let referrers = self.referrers.entry(subject.digest.clone()).or_default();
            referrers.insert(digest.clone());
        }
        self.images.insert(digest.clone(), image);
    }

    /// Takes an image out, whatever names it.
    pub(super) fn remove(&mut self, digest: &Digest) {
        let Some(image) = self.images.remove(digest) else {
            return;
        };
        for child in &image.manifest.children {
            forget(&mut self.holders, &child.digest, digest);
        }
        if let Some(subject) = &image.manifest.subject {
            forget(&mut self.referrers, &subject.digest, digest);
        }
    }

    /// The artifacts that name an image as their subject, by digest.
    pub(super) fn referrers(&self, subject: &Digest) -> impl Iterator<Item = (&Digest, &Image)> {
        let referrers = self.referrers.get(subject).into_iter().flatten();
        referrers.filter_map(|digest| self.images.get_key_value(digest))
    }

    /// Deletes by digest, with all tags, or by tag, with the image where that was its last one.
    pub(super) fn delete(
        &mut self,
        tag: Option<&str>,
        digest: Option<&Digest>,
    ) -> Result<Vec<(Digest, Option<String>)>, DeleteRefused> {
        let tagged = match tag {
            Some(tag) => Some(self.tags.get(tag).cloned().ok_or(DeleteRefused::NotFound)?),
            None => None,
        };
        if let (Some(tagged), Some(digest)) = (&tagged, digest)
            && tagged != digest
        {
            return Err(DeleteRefused::TagDiffers);
        }
        let target = digest.cloned().or(tagged).ok_or(DeleteRefused::NotFound)?;
        if !self.images.contains_key(&target) {
            return Err(DeleteRefused::NotFound);
        }
        let tags = self.tags_of(&target);
        let last = tag.is_none() || tags.len() == 1;
        if last {
            let holders = self.holders(&target);
            if !holders.is_empty() {
                return Err(DeleteRefused::Referenced(holders));
            }
            self.remove(&target);
        }
        let removed: Vec<String> = match tag {
            Some(tag) => vec![tag.to_owned()],
            None => tags,
        };
        for tag in &removed {
            self.tags.remove(tag);
        }
        Ok(if removed.is_empty() {
            vec![(target, None)]
        } else {
            removed
                .into_iter()
                .map(|tag| (target.clone(), Some(tag)))
                .collect()
        })
    }

    /// Whether an image cannot be pulled because it is in the archive, or not yet back.
    pub(super) fn archived(&self, digest: &Digest, restore: Duration) -> bool {
        let image = self.images.get(digest);
        image.is_some_and(|image| image.storage.status(restore) != "ACTIVE")
    }

    /// The indexes that hold on to an image.
    pub(super) fn holders(&self, child: &Digest) -> Vec<Digest> {
        let holders = self.holders.get(child).into_iter().flatten();
        holders.cloned().collect()
    }

    /// Whether some stored manifest of this repository names the blob.
    pub(super) fn references(&self, blob: &Digest) -> bool {
        let mut images = self.images.values();
        images.any(|image| image.manifest.blobs().any(|entry| entry.digest == *blob))
    }
}

impl Mutability {
    /// Whether a tag that exists may be given to another image.
    pub(super) fn allows(&self, tag: &str) -> bool {
        let excepted = self.except.iter().any(|filter| matches(filter, tag));
        self.immutable == excepted
    }

    pub(super) fn name(&self) -> &'static str {
        match (self.immutable, self.except.is_empty()) {
            (false, true) => "MUTABLE",
            (true, true) => "IMMUTABLE",
            (true, false) => "IMMUTABLE_WITH_EXCLUSION",
            (false, false) => "MUTABLE_WITH_EXCLUSION",
        }
    }
}

impl Store {
    pub(super) fn new(pace: Pace, scan_on_push: bool) -> Self {
        let everything = ScanRule {
            frequency: "SCAN_ON_PUSH".into(),
            filters: vec!["*".into()],
        };
        Self {
            repositories: BTreeMap::new(),
            rules: BTreeMap::new(),
            scanning: Scanning {
                by: ScanType::Basic,
                rules: scan_on_push.then_some(everything).into_iter().collect(),
            },
            settings: BTreeMap::new(),
            templates: BTreeMap::new(),
            registry_policy: None,
            replication: ReplicationConfiguration::default(),
            signing: None,
            pull_time_exclusions: BTreeMap::new(),
            findings: BTreeMap::new(),
            forced: BTreeMap::new(),
            published: Vec::new(),
            early_end: false,
            pace,
            spread: Spread::default(),
            previews: Previews::default(),
        }
    }

    /// Stores a manifest, and starts its scan where the configuration says so.
    pub(super) fn push(&mut self, blobs: &Blobs, push: Push<'_>) -> Result<Digest, PushRefused> {
        let frequency = self.frequency(push.repository);
        let by = self.scanning.by;
        let repository = self
            .repositories
            .get_mut(push.repository)
            .ok_or(PushRefused::NoRepository)?;
        let manifest = Manifest::parse(&push.bytes, push.media_type).map_err(PushRefused::Invalid)?;
        let digest = Digest::sha256_of(&push.bytes);
        if push.digest.is_some_and(|wanted| wanted != digest) {
            return Err(PushRefused::DigestDiffers);
        }
        let absent = |blob: &Digest| !repository.blobs.contains(blob) || blobs.size(blob).is_none();
        let layers: BTreeSet<Digest> = manifest.blobs().map(|blob| blob.digest.clone()).collect();
        let missing: Vec<Digest> = layers.into_iter().filter(absent).collect();
        if !missing.is_empty() && !push.parts_follow {
            return Err(PushRefused::LayersMissing(missing));
        }
        let children: BTreeSet<Digest> = manifest
            .children
            .iter()
            .map(|child| child.digest.clone())
            .collect();
        let missing: Vec<Digest> = children
            .into_iter()
            .filter(|child| !repository.images.contains_key(child))
            .collect();
        if !missing.is_empty() && !push.parts_follow {
            return Err(PushRefused::ImagesMissing(missing));
        }
        let tagged = push.tag.as_ref().and_then(|tag| repository.tags.get(tag));
        let unchanged = match &push.tag {
            Some(_) => tagged == Some(&digest),
            None => repository.images.contains_key(&digest),
        };
        if push.must_change && unchanged {
            return Err(PushRefused::AlreadyThere {
                digest,
                tag: push.tag,
            });
        }
        if let Some(tag) = &push.tag
            && tagged.is_some()
            && !repository.mutability.allows(tag)
        {
            return Err(PushRefused::TagImmutable(tag.clone()));
        }
        // The setting of a repository is the basic scanner's.
        let own = by == ScanType::Basic && repository.scan_on_push;
        let scanned = frequency.is_some_and(|frequency| frequency != "MANUAL") || own;
        repository.add(&digest, || Image {
            scan: (scanned && !manifest.is_index()).then(|| Scan {
                by,
                continuous: frequency_is_continuous(by, push.repository, &self.scanning.rules),
                requested: false,
                supported: manifest.is_runnable(),
                asked: Instant::now(),
                asked_at: Timestamp::now(),
            }),
            bytes: push.bytes,
            manifest,
            pushed_at: Timestamp::now(),
            last_pull: None,
            storage: Storage::default(),
        });
        if let Some(tag) = push.tag {
            repository.tags.insert(tag, digest.clone());
        }
        let signing = self.signing.as_ref();
        self.spread
            .begin(push.repository, &digest, &self.replication, signing);
        Ok(digest)
    }

    /// How often images of this repository are scanned, by the rules of the registry.
    pub(super) fn frequency(&self, repository: &str) -> Option<String> {
        let rule = self.rule_for(repository)?;
        Some(rule.frequency.clone())
    }

    pub(super) fn rule_for(&self, repository: &str) -> Option<&ScanRule> {
        rule_for(&self.scanning.rules, repository)
    }

    /// The findings a test has set for an image, for its digest, or else for its repository, and those that its scan
    /// knows of since; with the time of the last of these.
    pub(super) fn findings_of(
        &self,
        repository: &str,
        digest: &Digest,
        scan: &Scan,
    ) -> (Vec<Finding>, Option<Timestamp>) {
        let set = self.findings.get(digest.as_str());
        let mut findings = set
            .or_else(|| self.findings.get(repository))
            .cloned()
            .unwrap_or_default();
        let mut last = None;
        for published in &self.published {
            let meant = published.target == repository || published.target == digest.as_str();
            if meant && published.is_known_to(scan) {
                findings.push(published.finding.clone());
                last = Some(published.stamp);
            }
        }
        (findings, last)
    }

    pub(super) fn forced_status(&self, repository: &str, digest: &Digest) -> Option<&String> {
        let forced = self.forced.get(digest.as_str());
        forced.or_else(|| self.forced.get(repository))
    }

    /// The pull-through rule for a repository, with its prefix and the repository's name at the upstream.
    pub(super) fn pull_through(&self, repository: &str) -> Option<(String, Rule, String)> {
        let matching = self.rules.iter().filter_map(|(prefix, rule)| {
            let rest = if prefix == "ROOT" {
                repository
            } else {
                repository.strip_prefix(prefix)?.strip_prefix('/')?
            };
            Some((prefix, rule, rest))
        });
        let (prefix, rule, rest) = matching.min_by_key(|(_, _, rest)| rest.len())?;
        let upstream = if rule.upstream_prefix == "ROOT" {
            rest.to_owned()
        } else {
            format!("{}/{rest}", rule.upstream_prefix)
        };
        Some((prefix.clone(), rule.clone(), upstream))
    }
}

fn forget(index: &mut BTreeMap<Digest, BTreeSet<Digest>>, key: &Digest, entry: &Digest) {
    if let Some(entries) = index.get_mut(key) {
        entries.remove(entry);
        if entries.is_empty() {
            index.remove(key);
        }
    }
}

fn rule_for<'a>(rules: &'a [ScanRule], repository: &str) -> Option<&'a ScanRule> {
    // The rule that scans most often wins where several match.
    let rank = |rule: &&ScanRule| match rule.frequency.as_str() {
        "CONTINUOUS_SCAN" => 2,
        "SCAN_ON_PUSH" => 1,
        _ => 0,
    };
    let matching = rules
        .iter()
        .filter(|rule| rule.filters.iter().any(|filter| matches(filter, repository)));
    matching.max_by_key(rank)
}

fn frequency_is_continuous(by: ScanType, repository: &str, rules: &[ScanRule]) -> bool {
    by == ScanType::Enhanced
        && rule_for(rules, repository).is_some_and(|rule| rule.frequency == "CONTINUOUS_SCAN")
}

/// A day: how long a tag is served from the cache without asking, and how long an image is scanned only once.
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusions_turn_mutability_round() {
        let rule = |immutable, except: &[&str]| Mutability {
            immutable,
            except: except.iter().map(ToString::to_string).collect(),
        };
        assert!(rule(false, &[]).allows("a"));
        assert!(!rule(true, &[]).allows("a"));
        assert!(rule(true, &["latest"]).allows("latest"));
        assert!(!rule(false, &["v*"]).allows("v1"));
    }
}
