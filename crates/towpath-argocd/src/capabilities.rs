//! What a server of a version can do (`/api/version`).

use crate::ArgoCd;
use crate::config::SERVICE;
use std::fmt;
use towpath_elements::{Error, ErrorKind, Result};

/// Something that not every supported server can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Feature {
    /// Revisions of single sources in a sync and for manifests; 2.11.
    MultiSourceSync,
    /// Resource actions with parameters; 3.1. Older servers run actions without.
    ActionParameters,
    /// `syncPolicy.automated.enabled: false` switches automatic syncs off; 3.1. Older servers take no notice of it.
    AutomatedEnabled,
    /// The images of each resource in the result of a sync; 3.1.
    ResultImages,
    /// The server-side diff; 3.2.
    ServerSideDiff,
    /// Retries that take up a newer commit; 3.2.
    RetryRefresh,
    /// The stream of changes of ApplicationSets; 3.4.
    ApplicationSetStream,
}

impl Feature {
    /// The release, major and minor, that has it first.
    pub fn since(self) -> (u64, u64) {
        match self {
            Self::MultiSourceSync => (2, 11),
            Self::ActionParameters | Self::AutomatedEnabled | Self::ResultImages => (3, 1),
            Self::ServerSideDiff | Self::RetryRefresh => (3, 2),
            Self::ApplicationSetStream => (3, 4),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MultiSourceSync => "revisions of single sources",
            Self::ActionParameters => "parameters of resource actions",
            Self::AutomatedEnabled => "syncPolicy.automated.enabled",
            Self::ResultImages => "images in the result of a sync",
            Self::ServerSideDiff => "the server-side diff",
            Self::RetryRefresh => "retries that take up a newer commit",
            Self::ApplicationSetStream => "the stream of ApplicationSets",
        })
    }
}

/// The oldest release that this client is made for.
const OLDEST: (u64, u64) = (2, 12);

/// What a server can do, by its version.
///
/// ```
/// use towpath_argocd::{Capabilities, Feature};
/// let server = Capabilities::of("v3.1.4+9f8c");
/// assert!(server.has(Feature::ActionParameters) && !server.has(Feature::ServerSideDiff));
/// assert!(Capabilities::of("latest").has(Feature::ServerSideDiff));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    version: String,
    release: Option<(u64, u64)>,
}

impl Capabilities {
    /// Reads a version: `v3.5.1+9f…`, `3.2.0-rc1`. One that cannot be read, such as that of a private build, is taken for
    /// the newest. A candidate for a release has what the release has.
    pub fn of(version: &str) -> Self {
        let text = version.trim();
        let mut numbers = text
            .strip_prefix('v')
            .unwrap_or(text)
            .split(['.', '-', '+'])
            .map(|part| part.parse::<u64>().ok());
        let release = match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => Some((major, minor)),
            _ => None,
        };
        Self {
            version: text.to_owned(),
            release,
        }
    }

    /// The version in the server's own words.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Major and minor, where they could be read.
    pub fn release(&self) -> Option<(u64, u64)> {
        self.release
    }

    /// Whether the server can do this.
    pub fn has(&self, feature: Feature) -> bool {
        self.release.is_none_or(|release| release >= feature.since())
    }

    /// What to tell somebody whose server is older than this client is made for; `None` where it is not.
    pub fn warning(&self) -> Option<String> {
        let (major, minor) = OLDEST;
        self.release.filter(|release| *release < OLDEST).map(|_| {
            format!(
                "Argo CD {} is older than {major}.{minor}, the oldest release that this client is made for: after a \
                 sync by hand it may sync back to an older commit; upgrade the server",
                self.version
            )
        })
    }
}

impl ArgoCd {
    /// What the server can do. It is asked once for each client and its clones; a failure is not kept. A server that is
    /// too old is also told of in the log.
    pub async fn capabilities(&self) -> Result<&Capabilities> {
        self.capabilities_cell()
            .get_or_try_init(|| async {
                let capabilities = Capabilities::of(&self.version().await?.version);
                if let Some(warning) = capabilities.warning() {
                    tracing::warn!("{warning}");
                }
                Ok(capabilities)
            })
            .await
    }

    /// Refuses what the server cannot do, before it is sent.
    pub(crate) async fn require(
        &self,
        feature: Feature,
        attempted: &'static str,
        subject: &(impl fmt::Display + Sync),
    ) -> Result<()> {
        let capabilities = self.capabilities().await?;
        if capabilities.has(feature) {
            return Ok(());
        }
        let (major, minor) = feature.since();
        Err(
            Error::new(ErrorKind::Unsupported, SERVICE, attempted, subject).because(format!(
                "{feature} needs Argo CD {major}.{minor}, and the server is {}",
                capabilities.version()
            )),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_servers_write_them() {
        for (version, release) in [
            ("v3.5.1+9f8c1d2", Some((3, 5))),
            ("2.12.3", Some((2, 12))),
            ("v3.2.0-rc1+abc", Some((3, 2))),
            ("v3.6.0+unknown.dirty", Some((3, 6))),
            ("v3.10", Some((3, 10))),
            ("", None),
            ("latest", None),
            ("v3", None),
            ("vX.Y.Z", None),
        ] {
            assert_eq!(Capabilities::of(version).release(), release, "{version}");
        }
    }

    #[test]
    fn features_begin_at_their_release_and_old_servers_are_warned_of() {
        for (version, has, lacks) in [
            ("v2.10.0", None, Some(Feature::MultiSourceSync)),
            (
                "v2.11.0",
                Some(Feature::MultiSourceSync),
                Some(Feature::ActionParameters),
            ),
            ("v3.0.9", None, Some(Feature::AutomatedEnabled)),
            ("v3.1.0", Some(Feature::ResultImages), Some(Feature::RetryRefresh)),
            (
                "v3.2.0",
                Some(Feature::ServerSideDiff),
                Some(Feature::ApplicationSetStream),
            ),
            ("v3.10.0", Some(Feature::ApplicationSetStream), None),
        ] {
            let server = Capabilities::of(version);
            assert!(has.is_none_or(|feature| server.has(feature)), "{version}");
            assert!(!lacks.is_some_and(|feature| server.has(feature)), "{version}");
        }
        assert!(Capabilities::of("v2.11.9").warning().unwrap().contains("v2.11.9"));
        assert_eq!(Capabilities::of("v2.12.0").warning(), None);
        assert_eq!(Capabilities::of("dev").warning(), None);
    }
}
