//! How repositories come to be without being asked for: by the template of their prefix, at a pull through the cache or
//! at a push. Follows "Templates to control repositories created during a pull through cache, create on push, or
//! replication action" of the user guide.

use super::store::{Mutability, Repository, Store};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The prefix of the template for everything without a nearer one.
const ROOT: &str = "ROOT";

/// `encryptionConfiguration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encryption {
    pub(super) by: String,
    pub(super) key: Option<String>,
}

impl Default for Encryption {
    fn default() -> Self {
        Self {
            by: "AES256".into(),
            key: None,
        }
    }
}

/// A repository creation template.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) description: Option<String>,
    pub(super) encryption: Encryption,
    pub(super) resource_tags: BTreeMap<String, String>,
    pub(super) mutability: Mutability,
    pub(super) policy: Option<String>,
    pub(super) lifecycle: Option<String>,
    /// `PULL_THROUGH_CACHE`, `REPLICATION`, `CREATE_ON_PUSH`.
    pub(super) applied_for: Vec<String>,
    pub(super) custom_role_arn: Option<String>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

impl Template {
    /// Tags and keys are the business of a role of the account: without one nothing is created.
    fn works(&self) -> bool {
        let needs_role = !self.resource_tags.is_empty() || self.encryption.by != "AES256";
        self.custom_role_arn.is_some() || !needs_role
    }

    fn repository(&self) -> Repository {
        Repository {
            encryption: self.encryption.clone(),
            resource_tags: self.resource_tags.clone(),
            mutability: self.mutability.clone(),
            policy: self.policy.clone(),
            lifecycle: self.lifecycle.clone(),
            ..Repository::new()
        }
    }
}

impl Store {
    /// The template with the longest prefix that is above the repository and meant for this use.
    fn template(&self, repository: &str, applied_for: &str) -> Option<&Template> {
        let matching = self.templates.iter().filter_map(|(prefix, template)| {
            let above = repository
                .strip_prefix(prefix.trim_end_matches('/'))
                .is_some_and(|rest| rest.starts_with('/'));
            let length = if above { prefix.len() } else { 0 };
            let used = template.applied_for.iter().any(|word| word == applied_for);
            (used && (above || prefix == ROOT)).then_some((length, template))
        });
        let longest = matching.max_by_key(|(length, _)| *length);
        longest.map(|(_, template)| template)
    }

    /// A repository that the cache makes for a rule's prefix; `None` where its template lacks a role that it needs.
    pub(super) fn cache_repository(&self, name: &str, prefix: &str) -> Option<Repository> {
        let made = match self.template(name, "PULL_THROUGH_CACHE") {
            Some(template) if !template.works() => return None,
            Some(template) => template.repository(),
            None => Repository::new(),
        };
        Some(Repository {
            pull_through: Some(prefix.to_owned()),
            ..made
        })
    }

    /// Makes the repository of a push where there is none and a template says so.
    pub(super) fn create_on_push(&mut self, name: &str) {
        if self.repositories.contains_key(name) {
            return;
        }
        let made = self
            .template(name, "CREATE_ON_PUSH")
            .filter(|template| template.works())
            .map(Template::repository);
        if let Some(made) = made {
            self.repositories.insert(name.to_owned(), made);
        }
    }
}
