//! A client of the OCI distribution protocol (*OCI Distribution Specification* 1.1), as far as images need it, with
//! the deviations of Amazon ECR in mind.

mod archive;
mod attach;
mod auth;
mod blob;
mod challenge;
pub(crate) mod copy;
mod cosign;
mod error;
mod feed;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod layout;
mod manifest;
pub(crate) mod origin;
mod place;
mod range;
mod referrers;
mod source;
mod transport;
mod upload;

pub use archive::{ArchivedImage, DockerArchive, DockerArchiveWriter, OciArchive, OciArchiveWriter};
pub use attach::{Artifact, ArtifactPart, Attached};
pub use auth::{Anonymous, RegistryCredentials};
pub use blob::{Blob, BlobSource, BlobStream, ReadBlob};
pub use copy::{Copied, CopyOptions, copy, digest_of};
pub use layout::Layout;
pub use manifest::{LARGEST_MANIFEST, Manifest, ManifestContent, media};
pub use oci_spec::image::{self as spec, Descriptor};
pub use place::ImagePlace;
pub use source::{ImageSink, ImageSource, Reference, Repository};
pub use upload::Pushed;

use crate::pacing::Pacer;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use towpath_core::RegistryHost;
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// How the client behaves on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OciSettings {
    /// How often a request is sent at most, the first time included. At least 1; 5 unless set.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles up to [`longest_pause`](Self::longest_pause), with jitter. A
    /// quarter of a second unless set.
    pub first_pause: Duration,
    /// The longest pause, 20 seconds unless set. A server that asks for more with `Retry-After` is not asked again; the
    /// error says how long.
    pub longest_pause: Duration,
    /// How long a connection may take to open; 5 seconds unless set.
    pub connect_timeout: Duration,
    /// How long a transfer may make no progress at all, in either direction; 30 seconds unless set.
    pub idle_timeout: Duration,
    /// How many blobs travel at once; 4 unless set.
    pub parallel: usize,
    /// The most bytes of a blob that go in one request; a registry that wants larger parts gets them. Unless it is set,
    /// a blob goes in one request, whatever its size, which is the fewest requests; some proxies before registries refuse that.
    pub chunk: Option<u64>,
    /// Where a registry is really reached, for mirrors and tests. Others are at `https://HOST`, or `http://HOST` on
    /// this machine.
    pub endpoints: BTreeMap<RegistryHost, Url>,
    /// The token server of a registry whose tokens come from another host, such as `https://auth.docker.io/` for
    /// `docker.io`, which is there from the start. A registry's credentials go to its own origin and to this one; a
    /// token server that only the registry names is asked without them.
    pub token_servers: BTreeMap<RegistryHost, Url>,
}

impl Default for OciSettings {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            parallel: 4,
            chunk: None,
            endpoints: BTreeMap::new(),
            token_servers: docker_hub(),
        }
    }
}

/// Docker Hub's registry and its token server.
fn docker_hub() -> BTreeMap<RegistryHost, Url> {
    let pair = (
        RegistryHost::new("docker.io"),
        Url::parse("https://auth.docker.io/"),
    );
    match pair {
        (Ok(registry), Ok(server)) => BTreeMap::from([(registry, server)]),
        _ => BTreeMap::new(),
    }
}

fn connections(settings: &OciSettings) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(settings.connect_timeout)
        .user_agent(concat!("towpath-ecr/", env!("CARGO_PKG_VERSION")))
}

/// Progress that makes up for a cut: with less, a peer that drips would be asked for ever.
const PROGRESS: u64 = 1 << 20;

/// A client for any number of registries. Cheap to clone; clones share connections and tokens.
///
/// Digests and sizes of everything that is read are verified. Credentials go to the origin (scheme, host and port) of
/// the registry they are for, and never to where it redirects.
#[derive(Clone, Debug)]
pub struct OciClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// For registries on this machine: it knows no certificates, because reading those of the machine takes longer than a
    /// copy that finds everything there.
    plain: reqwest::Client,
    /// For all others.
    secure: OnceLock<reqwest::Client>,
    settings: OciSettings,
    service: &'static str,
    credentials: Arc<dyn RegistryCredentials>,
    tokens: auth::Tokens,
    /// Held while a list of referrers is written that a tag stands for.
    listing: tokio::sync::Mutex<()>,
    pacer: Option<Pacer>,
}

impl OciClient {
    /// A client whose errors name `service`, with these credentials.
    ///
    /// # Errors
    /// *Invalid* where an endpoint is plain `http` and not on this machine. Where TLS cannot be set up, the first request
    /// that needs it says so.
    pub fn new(
        service: &'static str,
        credentials: Arc<dyn RegistryCredentials>,
        settings: OciSettings,
    ) -> Result<Self> {
        let refuse = |subject: &str| Error::new(ErrorKind::Invalid, service, "use the endpoint", subject);
        for url in settings.endpoints.values().chain(settings.token_servers.values()) {
            if !origin::is_secure(url) {
                return Err(refuse(url.as_str())
                    .because("credentials and images travel over https, except on this machine"));
            }
        }
        let plain = connections(&settings)
            .tls_certs_only([])
            .build()
            .map_err(|error| refuse("of the registry").caused_by(error))?;
        Ok(Self {
            inner: Arc::new(Inner {
                plain,
                secure: OnceLock::new(),
                settings,
                service,
                credentials,
                tokens: auth::Tokens::default(),
                listing: tokio::sync::Mutex::default(),
                pacer: None,
            }),
        })
    }

    /// The connections for a URL.
    fn http(&self, url: &Url) -> Result<&reqwest::Client> {
        if url.scheme() != "https" {
            return Ok(&self.inner.plain);
        }
        if let Some(secure) = self.inner.secure.get() {
            return Ok(secure);
        }
        let built = connections(self.settings()).build().map_err(|error| {
            Error::new(ErrorKind::Invalid, self.service(), "set up", "TLS").caused_by(error)
        })?;
        Ok(self.inner.secure.get_or_init(|| built))
    }

    /// Holds the requests to ECR back as their actions are. For a client that has no clones yet.
    pub(crate) fn paced(mut self, pacer: Pacer) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.pacer = Some(pacer);
        }
        self
    }

    /// How this client behaves on the wire.
    pub fn settings(&self) -> &OciSettings {
        &self.inner.settings
    }

    pub(crate) fn service(&self) -> &'static str {
        self.inner.service
    }

    /// The base URL of a registry.
    pub(crate) fn base(&self, registry: &RegistryHost) -> Result<Url> {
        if let Some(url) = self.inner.settings.endpoints.get(registry) {
            return Ok(url.clone());
        }
        let scheme = if registry.is_loopback() { "http" } else { "https" };
        let host = match registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        Url::parse(&format!("{scheme}://{host}/")).map_err(|error| {
            Error::new(ErrorKind::Invalid, self.service(), "use the registry", registry).caused_by(error)
        })
    }

    /// `/v2/REPOSITORY/KIND/REFERENCE` at the registry of `image`.
    pub(crate) fn url(&self, image: &towpath_core::ImageRef, rest: &str) -> Result<Url> {
        let base = self.base(image.registry())?;
        base.join(&format!("/v2/{}/{rest}", image.repository()))
            .map_err(|error| {
                Error::new(ErrorKind::Invalid, self.service(), "make a URL for", image).caused_by(error)
            })
    }
}
