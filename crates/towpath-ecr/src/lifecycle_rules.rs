//! The rules of a lifecycle policy: what they may say, and how they are written (*Amazon ECR User Guide*, "Lifecycle
//! policy properties").

use crate::error::SERVICE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use towpath_elements::{Error, ErrorKind, Result};

const MOST_RULES: usize = 50;
const LONGEST: usize = 30_720;
const MOST_WILDCARDS: usize = 4;
const LEAST_DAYS_ARCHIVED: u32 = 90;

/// One rule. It begins as one that selects, and is nothing until it says what is done and when.
///
/// Rules go by ascending priority. An image that a rule selects is left alone by the rules behind it, even where this
/// rule does nothing to it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LifecycleRule {
    /// Its place: 1 is first. Unique within a policy.
    pub priority: u32,
    /// What it is for.
    pub description: Option<String>,
    /// The images that it selects.
    pub selection: LifecycleSelection,
    /// When it applies to them.
    pub due: LifecycleDue,
    /// What it does to them.
    pub action: LifecycleAction,
}

/// Which images a rule selects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifecycleSelection {
    /// Those that have, for each of these patterns, a tag that it matches. `*` is any text.
    TagPatterns(Vec<String>),
    /// Those that have, for each of these texts, a tag that begins with it.
    TagPrefixes(Vec<String>),
    /// Those without a tag.
    Untagged,
    /// All.
    Any,
}

/// When a rule applies to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifecycleDue {
    /// When this many younger ones are selected.
    Beyond(u32),
    /// This many days after its push.
    DaysSincePushed(u32),
    /// This many days after its last pull, or its push where it was never pulled.
    DaysSincePulled(u32),
    /// This many days after it was put into the archive. Such a rule selects archived images, all others active ones.
    DaysSinceArchived(u32),
}

/// What is done to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LifecycleAction {
    /// It is deleted.
    Expire,
    /// It goes to the archive.
    Archive,
    /// A word that this version does not know.
    Other(String),
}

/// A rule that selects, and has still to say what is done and when.
#[derive(Clone, Debug)]
#[must_use = "it is no rule until it says what is done and when"]
pub struct LifecycleRuleBuilder {
    priority: u32,
    selection: LifecycleSelection,
}

impl LifecycleRule {
    /// A rule about images that have, for each of these patterns, a tag that it matches.
    pub fn tag_patterns<T: Into<String>>(
        priority: u32,
        patterns: impl IntoIterator<Item = T>,
    ) -> LifecycleRuleBuilder {
        let patterns = patterns.into_iter().map(Into::into).collect();
        Self::selecting(priority, LifecycleSelection::TagPatterns(patterns))
    }

    /// A rule about images that have, for each of these texts, a tag that begins with it.
    pub fn tag_prefixes<T: Into<String>>(
        priority: u32,
        prefixes: impl IntoIterator<Item = T>,
    ) -> LifecycleRuleBuilder {
        let prefixes = prefixes.into_iter().map(Into::into).collect();
        Self::selecting(priority, LifecycleSelection::TagPrefixes(prefixes))
    }

    /// A rule about images without a tag.
    pub fn untagged(priority: u32) -> LifecycleRuleBuilder {
        Self::selecting(priority, LifecycleSelection::Untagged)
    }

    /// A rule about every image. It has to come last.
    pub fn any(priority: u32) -> LifecycleRuleBuilder {
        Self::selecting(priority, LifecycleSelection::Any)
    }

    fn selecting(priority: u32, selection: LifecycleSelection) -> LifecycleRuleBuilder {
        LifecycleRuleBuilder { priority, selection }
    }

    /// Says what the rule is for.
    #[must_use]
    pub fn described(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    fn is_about_the_archive(&self) -> bool {
        matches!(self.due, LifecycleDue::DaysSinceArchived(_))
    }

    fn check(&self) -> Result<(), String> {
        let (LifecycleSelection::TagPatterns(tags) | LifecycleSelection::TagPrefixes(tags)) = &self.selection
        else {
            return self.check_due();
        };
        if tags.is_empty() || tags.iter().any(String::is_empty) {
            return Err("it names no tag: name one, or select untagged or any images".into());
        }
        let patterns = matches!(self.selection, LifecycleSelection::TagPatterns(_));
        let many = tags.iter().find(|tag| tag.matches('*').count() > MOST_WILDCARDS);
        if let Some(pattern) = many.filter(|_| patterns) {
            return Err(format!(
                "the pattern {pattern:?} has more than {MOST_WILDCARDS} wildcards"
            ));
        }
        self.check_due()
    }

    fn check_due(&self) -> Result<(), String> {
        match (self.due, &self.action) {
            (_, LifecycleAction::Other(word)) => Err(format!("the action {word:?} is not known")),
            (
                LifecycleDue::Beyond(0) | LifecycleDue::DaysSincePushed(0) | LifecycleDue::DaysSincePulled(0),
                _,
            ) => Err("countNumber is 0: it has to be at least 1".into()),
            (LifecycleDue::DaysSinceArchived(days), _) if days < LEAST_DAYS_ARCHIVED => Err(format!(
                "countNumber is {days}: an image stays in the archive for at least {LEAST_DAYS_ARCHIVED} days"
            )),
            (LifecycleDue::DaysSinceArchived(_), LifecycleAction::Archive) => {
                Err("it archives what is archived: from there images can only expire".into())
            }
            _ => Ok(()),
        }
    }
}

impl LifecycleRuleBuilder {
    /// Deletes images this many days after their push.
    pub fn expire_after_days(self, days: u32) -> LifecycleRule {
        self.rule(LifecycleDue::DaysSincePushed(days), LifecycleAction::Expire)
    }

    /// Keeps this many of the youngest images, and deletes the others.
    pub fn expire_beyond(self, count: u32) -> LifecycleRule {
        self.rule(LifecycleDue::Beyond(count), LifecycleAction::Expire)
    }

    /// Deletes images that were not pulled for this many days.
    pub fn expire_when_not_pulled_for_days(self, days: u32) -> LifecycleRule {
        self.rule(LifecycleDue::DaysSincePulled(days), LifecycleAction::Expire)
    }

    /// Deletes images that have been in the archive for this many days, 90 at least.
    pub fn expire_after_days_in_the_archive(self, days: u32) -> LifecycleRule {
        self.rule(LifecycleDue::DaysSinceArchived(days), LifecycleAction::Expire)
    }

    /// Archives images this many days after their push.
    pub fn archive_after_days(self, days: u32) -> LifecycleRule {
        self.rule(LifecycleDue::DaysSincePushed(days), LifecycleAction::Archive)
    }

    /// Keeps this many of the youngest images active, and archives the others.
    pub fn archive_beyond(self, count: u32) -> LifecycleRule {
        self.rule(LifecycleDue::Beyond(count), LifecycleAction::Archive)
    }

    /// Archives images that were not pulled for this many days.
    pub fn archive_when_not_pulled_for_days(self, days: u32) -> LifecycleRule {
        self.rule(LifecycleDue::DaysSincePulled(days), LifecycleAction::Archive)
    }

    fn rule(self, due: LifecycleDue, action: LifecycleAction) -> LifecycleRule {
        LifecycleRule {
            priority: self.priority,
            description: None,
            selection: self.selection,
            due,
            action,
        }
    }
}

impl LifecycleAction {
    pub(crate) fn read(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "expire" => Self::Expire,
            "transition" => Self::Archive,
            _ => Self::Other(word.to_owned()),
        }
    }
}

/// The document of the user guide.
#[derive(Deserialize, Serialize)]
struct Document {
    rules: Vec<Written>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    rule_priority: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    selection: Selection,
    action: Action,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Selection {
    tag_status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag_pattern_list: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag_prefix_list: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storage_class: Option<String>,
    count_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count_unit: Option<String>,
    count_number: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_storage_class: Option<String>,
}

/// The text of rules.
pub(crate) fn write(rules: &[LifecycleRule]) -> Result<String> {
    let rules = rules.iter().map(Written::from).collect();
    serde_json::to_string(&Document { rules })
        .map_err(|error| invalid("it cannot be written").caused_by(error))
}

/// The rules of a text, checked and sorted.
pub(crate) fn read(text: &str) -> Result<Vec<LifecycleRule>> {
    let length = text.chars().count();
    if length > LONGEST {
        return Err(invalid(format!(
            "it has {length} characters: the service takes {LONGEST} at most"
        )));
    }
    let document: Document = serde_json::from_str(text)
        .map_err(|error| invalid(format!("it is not of the form of a lifecycle policy: {error}")))?;
    let count = document.rules.len();
    if !(1..=MOST_RULES).contains(&count) {
        return Err(invalid(format!(
            "it has {count} rules: the service takes between 1 and {MOST_RULES}"
        )));
    }
    let mut rules = Vec::with_capacity(count);
    for written in document.rules {
        let priority = written.rule_priority;
        let about = |reason| invalid(format!("rule {priority}: {reason}"));
        let rule = LifecycleRule::try_from(written).map_err(about)?;
        rule.check().map_err(about)?;
        rules.push(rule);
    }
    rules.sort_by_key(|rule| rule.priority);
    check_together(&rules)?;
    Ok(rules)
}

fn check_together(rules: &[LifecycleRule]) -> Result<()> {
    if rules.iter().any(|rule| rule.priority == 0) {
        return Err(invalid("a rule has the priority 0: the first is 1"));
    }
    for pair in rules.windows(2) {
        if let [one, two] = pair
            && one.priority == two.priority
        {
            return Err(invalid(format!("two rules have the priority {}", one.priority)));
        }
    }
    // Rules about archived and about active images do not meet.
    let (mut any, mut untagged) = (BTreeSet::new(), BTreeSet::new());
    for rule in rules {
        let class = rule.is_about_the_archive();
        if any.contains(&class) {
            return Err(invalid(format!(
                "rule {} stands behind one about any image, which has to be the last",
                rule.priority
            )));
        }
        match rule.selection {
            LifecycleSelection::Any => {
                any.insert(class);
            }
            LifecycleSelection::Untagged if !untagged.insert(class) => {
                return Err(invalid(format!(
                    "rule {} is the second one about untagged images: the service takes one",
                    rule.priority
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

fn invalid(reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, SERVICE, "use", "the lifecycle policy").because(reason)
}

impl From<&LifecycleRule> for Written {
    fn from(rule: &LifecycleRule) -> Self {
        let mut selection = Selection::default();
        match &rule.selection {
            LifecycleSelection::TagPatterns(patterns) => {
                selection.tag_status = "tagged".into();
                selection.tag_pattern_list = Some(patterns.clone());
            }
            LifecycleSelection::TagPrefixes(prefixes) => {
                selection.tag_status = "tagged".into();
                selection.tag_prefix_list = Some(prefixes.clone());
            }
            LifecycleSelection::Untagged => selection.tag_status = "untagged".into(),
            LifecycleSelection::Any => selection.tag_status = "any".into(),
        }
        let (count_type, number) = match rule.due {
            LifecycleDue::Beyond(count) => ("imageCountMoreThan", count),
            LifecycleDue::DaysSincePushed(days) => ("sinceImagePushed", days),
            LifecycleDue::DaysSincePulled(days) => ("sinceImagePulled", days),
            LifecycleDue::DaysSinceArchived(days) => ("sinceImageTransitioned", days),
        };
        selection.count_type = count_type.into();
        selection.count_number = number;
        if !matches!(rule.due, LifecycleDue::Beyond(_)) {
            selection.count_unit = Some("days".into());
        }
        if rule.is_about_the_archive() {
            selection.storage_class = Some("archive".into());
        }
        let (action, target) = match &rule.action {
            LifecycleAction::Expire => ("expire", None),
            LifecycleAction::Archive => ("transition", Some("archive".to_owned())),
            LifecycleAction::Other(word) => (word.as_str(), None),
        };
        Self {
            rule_priority: rule.priority,
            description: rule.description.clone(),
            selection,
            action: Action {
                r#type: action.into(),
                target_storage_class: target,
            },
        }
    }
}

impl TryFrom<Written> for LifecycleRule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Selection {
            tag_status,
            tag_pattern_list: patterns,
            tag_prefix_list: prefixes,
            storage_class,
            count_type,
            count_unit,
            count_number,
        } = written.selection;
        let selection = match (tag_status.as_str(), patterns, prefixes) {
            ("tagged", Some(patterns), None) => LifecycleSelection::TagPatterns(patterns),
            ("tagged", None, Some(prefixes)) => LifecycleSelection::TagPrefixes(prefixes),
            ("tagged", ..) => {
                return Err("tagStatus tagged needs one of tagPatternList and tagPrefixList".into());
            }
            ("untagged", None, None) => LifecycleSelection::Untagged,
            ("any", None, None) => LifecycleSelection::Any,
            ("untagged" | "any", ..) => {
                return Err(format!(
                    "tagStatus {tag_status} goes without tagPatternList and tagPrefixList"
                ));
            }
            _ => return Err(format!("the tagStatus {tag_status:?} is not known")),
        };
        let due = match (count_type.as_str(), count_unit.as_deref()) {
            ("imageCountMoreThan", None) => LifecycleDue::Beyond(count_number),
            ("imageCountMoreThan", Some(_)) => return Err("imageCountMoreThan goes without countUnit".into()),
            ("sinceImagePushed", Some("days")) => LifecycleDue::DaysSincePushed(count_number),
            ("sinceImagePulled", Some("days")) => LifecycleDue::DaysSincePulled(count_number),
            ("sinceImageTransitioned", Some("days")) => LifecycleDue::DaysSinceArchived(count_number),
            ("sinceImagePushed" | "sinceImagePulled" | "sinceImageTransitioned", _) => {
                return Err(format!("{count_type} needs the countUnit days"));
            }
            _ => return Err(format!("the countType {count_type:?} is not known")),
        };
        let archived = matches!(due, LifecycleDue::DaysSinceArchived(_));
        match (storage_class.as_deref(), archived) {
            (None | Some("standard"), false) | (Some("archive"), true) => {}
            (_, true) => return Err("sinceImageTransitioned needs the storageClass archive".into()),
            (Some(class), false) => {
                return Err(format!(
                    "{count_type} does not go with the storageClass {class:?}"
                ));
            }
        }
        let action = match (
            written.action.r#type.as_str(),
            written.action.target_storage_class.as_deref(),
        ) {
            ("expire", None) => LifecycleAction::Expire,
            ("expire", Some(_)) => return Err("expire goes without targetStorageClass".into()),
            ("transition", Some("archive")) => LifecycleAction::Archive,
            ("transition", _) => return Err("transition needs the targetStorageClass archive".into()),
            (other, _) => return Err(format!("the action {other:?} is not known")),
        };
        Ok(Self {
            priority: written.rule_priority,
            description: written.description,
            selection,
            due,
            action,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(selection: &str, action: &str) -> String {
        format!(
            "{{\"rules\":[{{\"rulePriority\":1,\"selection\":{{{selection}}},\"action\":{{{action}}}}}]}}"
        )
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rules = vec![
            LifecycleRule::tag_patterns(1, ["v*", "*-rc*"]).expire_beyond(3),
            LifecycleRule::tag_prefixes(2, ["main"])
                .archive_after_days(10)
                .described("main"),
            LifecycleRule::untagged(3).expire_after_days(1),
            LifecycleRule::any(4).archive_when_not_pulled_for_days(90),
            LifecycleRule::any(5).expire_after_days_in_the_archive(365),
        ];
        assert_eq!(read(&write(&rules).unwrap()).unwrap(), rules);
    }

    #[test]
    fn what_the_service_refuses_is_refused_here_with_its_place() {
        let pushed = r#""countType":"sinceImagePushed","countUnit":"days","countNumber":1"#;
        for (text, reason) in [
            ("[]".to_owned(), "form"),
            (r#"{"rules":[]}"#.into(), "0 rules"),
            (
                rule(&format!(r#""tagStatus":"tagged",{pushed}"#), r#""type":"expire""#),
                "rule 1: tagStatus tagged",
            ),
            (
                rule(
                    &format!(r#""tagStatus":"any","tagPrefixList":["a"],{pushed}"#),
                    r#""type":"expire""#,
                ),
                "goes without",
            ),
            (
                rule(
                    r#""tagStatus":"any","countType":"sinceImagePushed","countNumber":1"#,
                    r#""type":"expire""#,
                ),
                "countUnit days",
            ),
            (
                rule(
                    r#""tagStatus":"any","countType":"imageCountMoreThan","countUnit":"days","countNumber":1"#,
                    r#""type":"expire""#,
                ),
                "without countUnit",
            ),
            (
                rule(
                    r#""tagStatus":"any","countType":"imageCountMoreThan","countNumber":0"#,
                    r#""type":"expire""#,
                ),
                "at least 1",
            ),
            (
                rule(
                    &format!(r#""tagStatus":"any",{pushed}"#),
                    r#""type":"transition""#,
                ),
                "targetStorageClass",
            ),
            (
                rule(&format!(r#""tagStatus":"some",{pushed}"#), r#""type":"expire""#),
                "not known",
            ),
            (
                rule(
                    &format!(r#""tagStatus":"tagged","tagPatternList":["*a*b*c*d*e"],{pushed}"#),
                    r#""type":"expire""#,
                ),
                "wildcards",
            ),
            (
                rule(
                    r#""tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned","countUnit":"days","countNumber":30"#,
                    r#""type":"expire""#,
                ),
                "at least 90",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(
                error.to_string().contains(reason),
                "{error} does not say {reason}"
            );
        }
    }

    #[test]
    fn rules_have_to_go_together() {
        let untagged = |priority| LifecycleRule::untagged(priority).expire_after_days(1);
        let any = |priority| LifecycleRule::any(priority).expire_beyond(1);
        for (rules, reason) in [
            (vec![untagged(1), any(1)], "two rules"),
            (vec![untagged(0)], "priority 0"),
            (vec![any(1), untagged(2)], "the last"),
            (vec![untagged(1), untagged(2)], "second one"),
            (
                (1..=51)
                    .map(|n| LifecycleRule::tag_prefixes(n, ["a"]).expire_beyond(1))
                    .collect(),
                "51 rules",
            ),
            (vec![untagged(1).described("x".repeat(LONGEST))], "characters"),
        ] {
            let error = read(&write(&rules).unwrap()).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
