//! The settings of the registry as a whole: its policy, and what is set for the account (*Amazon ECR User Guide*, "Private
//! registry"). Scanning has a module of its own.

mod replication;
mod signing;

pub use replication::{ReplicationConfiguration, ReplicationDestination, ReplicationRule};
pub use signing::{SigningConfiguration, SigningRule};

use crate::client::Ecr;
use crate::differences::{Difference, Reconciled};
use crate::error::{SERVICE, failed};
use crate::policy::PolicyDocument;
use std::fmt;
use towpath_elements::{Error, ErrorKind, Result};

/// A setting of the account in a Region (`PutAccountSetting`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccountSetting {
    /// `BASIC_SCAN_TYPE_VERSION`: which basic scanner there is; `AWS_NATIVE`.
    BasicScanTypeVersion,
    /// `REGISTRY_POLICY_SCOPE`: which actions the registry's policy governs; `V2`, which is all of them.
    RegistryPolicyScope,
    /// `BLOB_MOUNTING`: whether a push may take a layer from another repository; `ENABLED` or `DISABLED`.
    BlobMounting,
    /// A setting that this version does not know. Its values are not checked before they are sent.
    Other(String),
}

impl AccountSetting {
    /// The service's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::BasicScanTypeVersion => "BASIC_SCAN_TYPE_VERSION",
            Self::RegistryPolicyScope => "REGISTRY_POLICY_SCOPE",
            Self::BlobMounting => "BLOB_MOUNTING",
            Self::Other(name) => name,
        }
    }

    /// The values that it may have; `None` where they are not known.
    pub fn values(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::BasicScanTypeVersion => Some(&["AWS_NATIVE"]),
            Self::RegistryPolicyScope => Some(&["V2"]),
            Self::BlobMounting => Some(&["ENABLED", "DISABLED"]),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for AccountSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Ecr {
    /// The policy of the registry; `None` where it has none.
    ///
    /// # Errors
    /// What the service says to `GetRegistryPolicy`.
    pub async fn registry_policy(&self) -> Result<Option<PolicyDocument>> {
        match self.api.get_registry_policy().send().await {
            Ok(output) => output.policy_text.map(PolicyDocument::permissions).transpose(),
            Err(error) => {
                let failed = failed("read the policy of", "the registry", error);
                match failed.code.as_str() {
                    "RegistryPolicyNotFoundException" => Ok(None),
                    _ => Err(failed.error),
                }
            }
        }
    }

    /// Gives the registry this policy, in place of the one that it has.
    ///
    /// # Errors
    /// *Invalid* where the service does not take it, and what else it says to `PutRegistryPolicy`.
    pub async fn put_registry_policy(&self, policy: &PolicyDocument) -> Result<()> {
        let output = self
            .api
            .put_registry_policy()
            .policy_text(policy.as_str())
            .send()
            .await;
        output.map_err(|error| failed("set the policy of", "the registry", error).error)?;
        Ok(())
    }

    /// Takes its policy from the registry. False where it has none.
    ///
    /// # Errors
    /// What the service says to `DeleteRegistryPolicy`.
    pub async fn delete_registry_policy(&self) -> Result<bool> {
        let Err(error) = self.api.delete_registry_policy().send().await else {
            return Ok(true);
        };
        let failed = failed("delete the policy of", "the registry", error);
        match failed.code.as_str() {
            "RegistryPolicyNotFoundException" => Ok(false),
            _ => Err(failed.error),
        }
    }

    /// The value of a setting of the account; `None` where the service gives none.
    ///
    /// # Errors
    /// What the service says to `GetAccountSetting`.
    pub async fn account_setting(&self, setting: &AccountSetting) -> Result<Option<String>> {
        let output = self.api.get_account_setting().name(setting.as_str()).send().await;
        let output = output.map_err(|error| failed("read the account setting", setting, error).error)?;
        Ok(output.value)
    }

    /// Sets a setting of the account where it has another value.
    ///
    /// # Errors
    /// *Invalid* for a value that the setting cannot have, and what the service says to `GetAccountSetting` and
    /// `PutAccountSetting`.
    pub async fn put_account_setting(
        &self,
        setting: &AccountSetting,
        value: &str,
    ) -> Result<Reconciled<String>> {
        const ATTEMPTED: &str = "set the account setting";
        if let Some(values) = setting.values()
            && !values.contains(&value)
        {
            return Err(Error::new(ErrorKind::Invalid, SERVICE, ATTEMPTED, setting)
                .because(format!("{value:?} is none of {}", values.join(", "))));
        }
        let wanted = value.to_owned();
        let found = self.account_setting(setting).await?;
        let difference = Difference::between("value", found.as_ref(), &wanted);
        if difference.is_some() {
            let call = self.api.put_account_setting().name(setting.as_str()).value(value);
            let output = call.send().await;
            output.map_err(|error| failed(ATTEMPTED, setting, error).error)?;
        }
        Ok(Reconciled {
            now: wanted,
            created: false,
            changed: difference.into_iter().collect(),
        })
    }
}

/// A list in one line, for differences.
fn joined<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], between: &str) -> fmt::Result {
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        item.fmt(f)?;
    }
    Ok(())
}
