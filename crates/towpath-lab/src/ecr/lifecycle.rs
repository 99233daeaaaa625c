//! Lifecycle policies: what they may say, and which images they mark.
//!
//! Follows "Automate the cleanup of images by using lifecycle policies" and "Lifecycle policy properties" of the user
//! guide. Rules go by ascending priority. Each looks at every image that it selects, even at one that a rule before it
//! selected, but marks only those that none before it selected.

use super::Ecr;
use super::names::matches;
use super::store::{Image, Repository};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use towpath_core::Digest;

const LONGEST: usize = 30_720;
const SHORTEST: usize = 100;
const MOST_RULES: usize = 50;
/// An archived image is kept, and paid for, at least this long.
const LEAST_DAYS_ARCHIVED: u32 = 90;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    rule_priority: u32,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    selection: Selection,
    action: Action,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selection {
    tag_status: TagStatus,
    #[serde(default)]
    tag_pattern_list: Vec<String>,
    #[serde(default)]
    tag_prefix_list: Vec<String>,
    #[serde(default)]
    storage_class: Class,
    count_type: CountType,
    count_unit: Option<String>,
    count_number: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum TagStatus {
    Tagged,
    Untagged,
    Any,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Class {
    #[default]
    Standard,
    Archive,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum CountType {
    ImageCountMoreThan,
    SinceImagePushed,
    SinceImagePulled,
    SinceImageTransitioned,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Action {
    #[serde(rename = "type")]
    kind: ActionKind,
    target_storage_class: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum ActionKind {
    Expire,
    Transition,
}

/// An image that a rule applies to.
#[derive(Clone, Debug)]
pub(super) struct Marked {
    pub(super) priority: u32,
    pub(super) action: ActionKind,
    pub(super) tags: Vec<String>,
    pub(super) pushed_at: Timestamp,
    pub(super) archived: bool,
}

/// A preview that was asked for.
#[derive(Clone, Debug)]
pub(super) struct Preview {
    pub(super) text: String,
    pub(super) marked: BTreeMap<Digest, Marked>,
    since: Instant,
}

/// How previews go.
#[derive(Debug, Default)]
pub(super) struct Previews {
    delay: Duration,
    forced: Option<String>,
}

impl Previews {
    pub(super) fn status(&self, preview: &Preview) -> &str {
        match &self.forced {
            Some(forced) => forced,
            None if preview.since.elapsed() < self.delay => "IN_PROGRESS",
            None => "COMPLETE",
        }
    }
}

impl Policy {
    /// Reads a policy. The error is the constraint that it fails.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !(SHORTEST..=LONGEST).contains(&text.chars().count()) {
            return Err(format!(
                "Member must have length between {SHORTEST} and {LONGEST}"
            ));
        }
        let failed =
            |reason: &dyn std::fmt::Display| format!("Lifecycle policy validation failure: {reason}");
        let mut policy: Self = serde_json::from_str(text).map_err(|error| failed(&error))?;
        policy.rules.sort_by_key(|rule| rule.rule_priority);
        policy.check().map_err(|reason| failed(&reason))?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=MOST_RULES).contains(&self.rules.len()) {
            return Err(format!("a policy has between 1 and {MOST_RULES} rules"));
        }
        // Rules about everything come last, and there is one about what has no tag, in each storage class.
        let mut closed = BTreeSet::new();
        let mut untagged = BTreeSet::new();
        let mut last = 0;
        for rule in &self.rules {
            if rule.rule_priority <= last {
                return Err(format!(
                    "rulePriority {} must be at least 1 and unique",
                    rule.rule_priority
                ));
            }
            last = rule.rule_priority;
            rule.check()
                .map_err(|reason| format!("rule {}: {reason}", rule.rule_priority))?;
            let class = rule.selection.storage_class;
            if closed.contains(&class) {
                return Err("a rule with tagStatus any must have the highest rulePriority".into());
            }
            match rule.selection.tag_status {
                TagStatus::Any => {
                    closed.insert(class);
                }
                TagStatus::Untagged if !untagged.insert(class) => {
                    return Err("only one rule may select untagged images".into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The images that this policy applies to now.
    pub(super) fn evaluate(
        &self,
        repository: &Repository,
        restore: Duration,
        now: Timestamp,
    ) -> BTreeMap<Digest, Marked> {
        let (mut marked, mut claimed) = (BTreeMap::new(), BTreeSet::new());
        for rule in &self.rules {
            let mut selected: Vec<(&Digest, &Image)> = repository
                .images
                .iter()
                .filter(|(digest, image)| rule.selects(repository, digest, image, restore))
                .collect();
            // The newest first.
            selected.sort_by_key(|(digest, image)| (std::cmp::Reverse(image.pushed_at), *digest));
            for (position, (digest, image)) in selected.iter().enumerate() {
                let due = rule.is_due(position, image, now);
                // What an index holds goes only after the index.
                let free = !claimed.contains(*digest) && repository.holders(digest).is_empty();
                if due && free {
                    let mark = Marked {
                        priority: rule.rule_priority,
                        action: rule.action.kind,
                        tags: repository.tags_of(digest),
                        pushed_at: image.pushed_at,
                        archived: image.storage.status(restore) == "ARCHIVED",
                    };
                    marked.insert((*digest).clone(), mark);
                }
            }
            claimed.extend(selected.into_iter().map(|(digest, _)| digest));
        }
        marked
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let selection = &self.selection;
        let (patterns, prefixes) = (&selection.tag_pattern_list, &selection.tag_prefix_list);
        match selection.tag_status {
            TagStatus::Tagged if patterns.is_empty() == prefixes.is_empty() => {
                return Err("tagStatus tagged needs either tagPatternList or tagPrefixList".into());
            }
            TagStatus::Untagged | TagStatus::Any if !patterns.is_empty() || !prefixes.is_empty() => {
                return Err("tagPatternList and tagPrefixList go with tagStatus tagged only".into());
            }
            _ => {}
        }
        if patterns.iter().any(|pattern| pattern.matches('*').count() > 4) {
            return Err("a tag pattern has at most four wildcards".into());
        }
        if selection.count_number == 0 {
            return Err("countNumber must be at least 1".into());
        }
        match (selection.count_type, selection.count_unit.as_deref()) {
            (CountType::ImageCountMoreThan, None) => {}
            (CountType::ImageCountMoreThan, Some(_)) => {
                return Err("countUnit does not go with imageCountMoreThan".into());
            }
            (_, Some("days")) => {}
            _ => return Err("countUnit must be days".into()),
        }
        let transitioned = selection.count_type == CountType::SinceImageTransitioned;
        if transitioned != (selection.storage_class == Class::Archive) {
            return Err("storageClass archive and countType sinceImageTransitioned go together".into());
        }
        if transitioned && selection.count_number < LEAST_DAYS_ARCHIVED {
            return Err(format!(
                "an image stays in the archive for at least {LEAST_DAYS_ARCHIVED} days"
            ));
        }
        match (self.action.kind, self.action.target_storage_class.as_deref()) {
            (ActionKind::Expire, None) => Ok(()),
            (ActionKind::Transition, Some("archive")) if !transitioned => Ok(()),
            (ActionKind::Transition, Some("archive")) => {
                Err("an image in the archive can only expire".into())
            }
            (ActionKind::Expire, Some(_)) => Err("targetStorageClass goes with transition only".into()),
            (ActionKind::Transition, _) => Err("a transition needs the targetStorageClass archive".into()),
        }
    }

    fn selects(&self, repository: &Repository, digest: &Digest, image: &Image, restore: Duration) -> bool {
        let selection = &self.selection;
        let class = match image.storage.status(restore) {
            "ACTIVE" => Class::Standard,
            _ => Class::Archive,
        };
        let tags = || repository.tags.of(digest);
        class == selection.storage_class
            && match selection.tag_status {
                TagStatus::Any => true,
                TagStatus::Untagged => !repository.tags.any(digest),
                // An image has to have a tag for every entry of the list.
                TagStatus::Tagged => {
                    let mut patterns = selection.tag_pattern_list.iter();
                    let mut prefixes = selection.tag_prefix_list.iter();
                    patterns.all(|pattern| tags().any(|tag| matches(pattern, tag)))
                        && prefixes.all(|prefix| tags().any(|tag| tag.starts_with(prefix.as_str())))
                }
            }
    }

    fn is_due(&self, position: usize, image: &Image, now: Timestamp) -> bool {
        let number = self.selection.count_number;
        let since = match self.selection.count_type {
            CountType::ImageCountMoreThan => return position >= number as usize,
            CountType::SinceImagePushed => image.pushed_at,
            // An image that was never pulled counts from its push, one that came back from its return.
            CountType::SinceImagePulled => image
                .last_pull
                .unwrap_or(image.pushed_at)
                .max(image.storage.activated_at.unwrap_or(Timestamp::MIN)),
            CountType::SinceImageTransitioned => image.storage.archived_at.unwrap_or(now),
        };
        now.duration_since(since) > SignedDuration::from_hours(i64::from(number) * 24)
    }
}

impl Preview {
    pub(super) fn new(text: String, marked: BTreeMap<Digest, Marked>) -> Self {
        Self {
            text,
            marked,
            since: Instant::now(),
        }
    }
}

impl Ecr {
    /// Evaluates the lifecycle policy of a repository now, and does what it says. Returns the images that expired.
    pub fn run_lifecycle(&self, repository: &str) -> Vec<Digest> {
        let restore = self.service.restore();
        let mut store = self.service.store();
        let Some(repository) = store.repositories.get_mut(repository) else {
            return Vec::new();
        };
        let policy = repository.lifecycle.as_deref().map(Policy::parse);
        let Some(Ok(policy)) = policy else {
            return Vec::new();
        };
        let now = Timestamp::now();
        repository.lifecycle_evaluated = Some(now);
        let mut expired = Vec::new();
        for (digest, mark) in policy.evaluate(repository, restore, now) {
            match mark.action {
                ActionKind::Expire if repository.delete(None, Some(&digest)).is_ok() => expired.push(digest),
                ActionKind::Expire => {}
                ActionKind::Transition => {
                    if let Some(image) = repository.images.get_mut(&digest) {
                        image.storage.archive();
                    }
                }
            }
        }
        expired
    }

    /// Sets how long a lifecycle preview takes; no time from the start.
    pub fn set_preview_delay(&self, delay: Duration) {
        self.service.store().previews.delay = delay;
    }

    /// Sets the status of lifecycle previews, such as `FAILED` or `EXPIRED`; `None` lets them complete again.
    pub fn set_preview_status(&self, status: Option<&str>) {
        self.service.store().previews.forced = status.map(str::to_owned);
    }
}
