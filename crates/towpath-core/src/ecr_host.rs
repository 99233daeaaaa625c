//! The host names of Amazon ECR private registries, in every partition
//! (*Amazon ECR endpoints and quotas* in the AWS General Reference).

use crate::{AccountId, Region};

/// A group of AWS Regions with its own accounts and its own domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Partition {
    /// `amazonaws.com`, GovCloud included (its registries use the same domain).
    Aws,
    /// `amazonaws.com.cn`.
    China,
    /// `amazonaws.eu`, the European Sovereign Cloud.
    EuropeanSovereign,
    /// `c2s.ic.gov`.
    Iso,
    /// `sc2s.sgov.gov`.
    IsoB,
    /// `cloud.adc-e.uk`.
    IsoE,
    /// `csp.hci.ic.gov`.
    IsoF,
}

/// Each form is the label behind the account, and the suffix behind the Region.
const FORMS: &[(&str, &str, Partition, bool, bool)] = &[
    ("dkr.ecr", "amazonaws.com", Partition::Aws, false, false),
    ("dkr.ecr-fips", "amazonaws.com", Partition::Aws, true, false),
    ("dkr-ecr", "on.aws", Partition::Aws, false, true),
    ("dkr-ecr-fips", "on.aws", Partition::Aws, true, true),
    ("dkr.ecr", "amazonaws.com.cn", Partition::China, false, false),
    (
        "dkr-ecr",
        "on.amazonwebservices.com.cn",
        Partition::China,
        false,
        true,
    ),
    (
        "dkr.ecr",
        "amazonaws.eu",
        Partition::EuropeanSovereign,
        false,
        false,
    ),
    ("dkr.ecr", "c2s.ic.gov", Partition::Iso, false, false),
    ("dkr.ecr-fips", "c2s.ic.gov", Partition::Iso, true, false),
    ("dkr.ecr", "sc2s.sgov.gov", Partition::IsoB, false, false),
    ("dkr.ecr-fips", "sc2s.sgov.gov", Partition::IsoB, true, false),
    ("dkr.ecr", "cloud.adc-e.uk", Partition::IsoE, false, false),
    ("dkr.ecr", "csp.hci.ic.gov", Partition::IsoF, false, false),
];

/// What the host name of an ECR private registry says: whose it is, where, and over which endpoint.
///
/// ```
/// use towpath_core::EcrHost;
/// let host = EcrHost::of("123456789012.dkr-ecr-fips.us-east-1.on.aws").unwrap();
/// assert_eq!(host.account().as_str(), "123456789012");
/// assert_eq!(host.region().as_str(), "us-east-1");
/// assert!(host.is_fips() && host.is_dual_stack());
/// assert!(EcrHost::of("123456789012.dkr.ecr.us-east-1.amazonaws.com.attacker.example").is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EcrHost {
    account: AccountId,
    region: Region,
    partition: Partition,
    fips: bool,
    dual_stack: bool,
}

impl EcrHost {
    /// Reads a host name, in any case and without a port; `None` where it is not an ECR private registry.
    pub fn of(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let (account, rest) = host.split_once('.')?;
        let account = AccountId::new(account).ok()?;
        FORMS
            .iter()
            .find_map(|&(label, suffix, partition, fips, dual_stack)| {
                let region = rest
                    .strip_prefix(label)?
                    .strip_prefix('.')?
                    .strip_suffix(suffix)?
                    .strip_suffix('.')?;
                let region = Region::new(region).ok()?;
                Some(Self {
                    account: account.clone(),
                    region,
                    partition,
                    fips,
                    dual_stack,
                })
            })
    }

    /// The account that owns the registry.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The Region it is in: a client for this registry works there, whatever the ambient configuration says.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The partition it is in.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Whether it is a FIPS endpoint.
    pub fn is_fips(&self) -> bool {
        self.fips
    }

    /// Whether it answers over IPv4 and IPv6.
    pub fn is_dual_stack(&self) -> bool {
        self.dual_stack
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn look_alikes_are_not_registries() {
        for host in [
            "public.ecr.aws",
            "123456789012.dkr.ecr.us-east-1.amazonaws.com.evil.example",
            "12345678901.dkr.ecr.us-east-1.amazonaws.com",
            "123456789012.dkr.ecr..amazonaws.com",
            "123456789012.dkr.ecr.us-east-1.evil.amazonaws.com",
            "123456789012.dkr.ecr.us-east-1amazonaws.com",
            "",
        ] {
            assert!(EcrHost::of(host).is_none(), "{host}");
        }
    }

    proptest! {
        #[test]
        fn every_form_is_read_back(
            account in "[0-9]{12}",
            region in "[a-z]{2}(-[a-z]{3,8}){1,2}-[1-9]",
            form in proptest::sample::select(FORMS),
        ) {
            let (label, suffix, partition, fips, dual_stack) = form;
            let host = format!("{account}.{label}.{region}.{suffix}");
            for written in [host.clone(), host.to_ascii_uppercase()] {
                let read = EcrHost::of(&written).unwrap();
                prop_assert_eq!(read.account().as_str(), &account);
                prop_assert_eq!(read.region().as_str(), &region);
                prop_assert_eq!((read.partition(), read.is_fips(), read.is_dual_stack()), (partition, fips, dual_stack));
            }
        }
    }
}
