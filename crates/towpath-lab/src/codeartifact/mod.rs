//! AWS CodeArtifact: the REST API on one port, and the package endpoint, with a Cargo registry, on another.
//!
//! Both look at the same store. The API follows the CodeArtifact API reference and refuses what is not signed; the
//! package endpoint follows the user guide and the Cargo book, and wants a token from `GetAuthorizationToken`.

mod api;
mod cargo;
mod model;
mod packages;
mod public;
mod store;
mod tokens;

pub use cargo::archive::CrateError;
pub use model::{
    Asset, Domain, ExternalConnection, Metadata, Origin, Package, Repository, Restrictions, Status, Version,
};

use crate::server::{Bound, Server};
use crate::sigv4::Verifier;
use crate::{Faults, LabError, RequestLog};
use bytes::Bytes;
use public::PublicCrates;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use tokens::Tokens;
use towpath_core::{PackageId, Secret};

/// What a lab's CodeArtifact is like at its start.
#[derive(Clone, Debug)]
pub struct CodeArtifactConfig {
    /// The region that requests must be signed for.
    pub region: String,
    /// The account that owns every domain: 12 digits.
    pub account: String,
    /// The access key that requests must be signed with.
    pub access_key_id: String,
    /// The secret that belongs to it.
    pub secret_access_key: Secret,
    /// The port of the API; 0 takes any free one.
    pub api_port: u16,
    /// The port of the package endpoint; 0 takes any free one.
    pub packages_port: u16,
    /// How long the caller's own credentials live: the life of a token that is asked for with a duration of 0.
    pub session: Duration,
    /// The repositories that are there at the start, and with them their domains.
    pub repositories: Vec<RepositoryConfig>,
}

/// A repository that is there at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Its domain.
    pub domain: String,
    /// Its name.
    pub name: String,
    /// Its upstreams, by name.
    pub upstreams: Vec<String>,
    /// Its external connection.
    pub external_connection: Option<ExternalConnection>,
}

/// A domain `acme` with a repository `libraries`, and `crates-io-store` upstream of it.
impl Default for CodeArtifactConfig {
    fn default() -> Self {
        let repository = |name: &str, upstreams: &[&str], external_connection| RepositoryConfig {
            domain: "acme".into(),
            name: name.into(),
            upstreams: upstreams.iter().map(|name| (*name).to_owned()).collect(),
            external_connection,
        };
        Self {
            region: "eu-west-1".into(),
            account: "111122223333".into(),
            access_key_id: "AKIALABLABLABLABLAB1".into(),
            secret_access_key: Secret::new("lab-secret-access-key"),
            api_port: 0,
            packages_port: 0,
            session: Duration::from_secs(3600),
            repositories: vec![
                repository("crates-io-store", &[], Some(ExternalConnection::CRATES_IO)),
                repository("libraries", &["crates-io-store"], None),
            ],
        }
    }
}

/// A running CodeArtifact; stops when it is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use towpath_lab::codeartifact::{CodeArtifact, CodeArtifactConfig};
/// let lab = CodeArtifact::start(CodeArtifactConfig::default()).await?;
/// lab.seed_source(&[
///     ("Cargo.toml", b"[package]\nname = \"tiny\"\nversion = \"1.0.0\"\nedition = \"2024\"\n"),
///     ("src/lib.rs", b"//! Nothing.\n"),
/// ])?;
/// assert!(lab.api_url().starts_with("http://127.0.0.1:"));
/// assert!(lab.repository("acme", "libraries").is_some_and(|libraries| libraries.packages.is_empty()));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct CodeArtifact {
    service: Arc<Service>,
    api: Server,
    packages: Server,
}

/// What both servers share.
#[derive(Debug)]
struct Service {
    verifier: Verifier,
    packages_url: String,
    session: Duration,
    store: Mutex<Store>,
}

impl Service {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where package managers find a repository. The service has a host for each domain; the lab has a path.
    fn endpoint(&self, account: &str, domain: &str, format: &str, repository: &str) -> String {
        format!("{}/{domain}-{account}/{format}/{repository}/", self.packages_url)
    }
}

impl CodeArtifact {
    /// Starts both servers.
    ///
    /// # Errors
    /// A port of the configuration is taken.
    pub async fn start(config: CodeArtifactConfig) -> Result<Self, LabError> {
        let api = Bound::new("CodeArtifact", config.api_port).await?;
        let packages = Bound::new("CodeArtifact's packages", config.packages_port).await?;
        let mut store = Store {
            account: config.account,
            region: config.region.clone(),
            domains: BTreeMap::new(),
            tokens: Tokens::default(),
            crates_io: PublicCrates::default(),
        };
        for wanted in config.repositories {
            store.create_domain(&wanted.domain, None);
            if let Some(domain) = store.domains.get_mut(&wanted.domain) {
                let mut repository = Repository::new(&wanted.name, None, wanted.upstreams);
                repository.external_connection = wanted.external_connection;
                domain.repositories.insert(wanted.name, repository);
            }
        }
        cargo::archive::pack(GREETING)
            .and_then(|greeting| store.crates_io.seed(greeting))
            .map_err(|error| LabError::Program {
                program: "the packing of the lab's own crate",
                reason: error.to_string(),
            })?;
        let service = Arc::new(Service {
            verifier: Verifier {
                region: config.region,
                service: "codeartifact",
                unsigned_payload: true,
                access_key_id: config.access_key_id,
                secret_access_key: config.secret_access_key,
            },
            packages_url: format!("http://{}", packages.address()),
            session: config.session,
            store: Mutex::new(store),
        });
        Ok(Self {
            api: api.serve(api::router(Arc::clone(&service))),
            packages: packages.serve(packages::router(Arc::clone(&service))),
            service,
        })
    }

    /// The base of the API: what `AWS_ENDPOINT_URL_CODEARTIFACT` is set to.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api.address())
    }

    /// The base of the package endpoint. Clients ask `GetRepositoryEndpoint`; this is for looking at it from outside.
    pub fn packages_url(&self) -> String {
        self.service.packages_url.clone()
    }

    /// What the API was asked.
    pub fn requests(&self) -> &RequestLog {
        self.api.log()
    }

    /// The faults in front of the API.
    pub fn faults(&self) -> &Faults {
        self.api.faults()
    }

    /// What the package endpoint was asked.
    pub fn package_requests(&self) -> &RequestLog {
        self.packages.log()
    }

    /// The faults in front of the package endpoint.
    pub fn package_faults(&self) -> &Faults {
        self.packages.faults()
    }

    /// Every domain, with all that is in it.
    pub fn domains(&self) -> Vec<Domain> {
        self.service.store().domains.values().cloned().collect()
    }

    /// A repository, with all that is in it.
    pub fn repository(&self, domain: &str, repository: &str) -> Option<Repository> {
        self.service.store().repository(domain, repository).cloned()
    }

    /// A version that a repository keeps. Versions further upstream are not its own until somebody has fetched them.
    pub fn version(
        &self,
        domain: &str,
        repository: &str,
        package: &PackageId,
        version: &str,
    ) -> Option<Version> {
        self.service
            .store()
            .repository(domain, repository)?
            .version(package, version)
            .cloned()
    }

    /// Makes every token that was handed out worthless, as time would.
    pub fn expire_tokens(&self) {
        self.service.store().tokens.expire_all();
    }

    /// Gives every token from now on this life, whatever was asked; `None` goes back to what is asked.
    pub fn set_token_lifetime(&self, lifetime: Option<Duration>) {
        self.service.store().tokens.set_lifetime(lifetime);
    }

    /// Puts a `.crate` file behind `public:crates-io`, with an index entry made from the manifest in it.
    ///
    /// # Errors
    /// It is not a gzipped tar archive with a valid `name-version/Cargo.toml`.
    pub fn seed_crate(&self, archive: impl Into<Bytes>) -> Result<(), CrateError> {
        self.service.store().crates_io.seed(archive.into())
    }

    /// Packs source files, with paths relative to the crate's root, and puts the crate behind `public:crates-io`.
    /// Returns the `.crate` file. The same files give the same bytes.
    ///
    /// # Errors
    /// There is no `Cargo.toml` with a name and a version among them, or it cannot be read.
    pub fn seed_source(&self, files: &[(&str, &[u8])]) -> Result<Bytes, CrateError> {
        let archive = cargo::archive::pack(files)?;
        self.seed_crate(archive.clone())?;
        Ok(archive)
    }

    /// The same with a folder of source, without its `target` and its hidden files.
    ///
    /// # Errors
    /// A file cannot be read, or as with [`seed_source`](Self::seed_source).
    pub fn seed_folder(&self, root: &Path) -> Result<Bytes, CrateError> {
        let archive = cargo::archive::pack_folder(root)?;
        self.seed_crate(archive.clone())?;
        Ok(archive)
    }

    /// Puts crates from a Cargo home's download cache behind `public:crates-io`, so that what was built once on this
    /// machine can be built through the lab without a network. Returns the names and versions that are not in the
    /// cache.
    ///
    /// # Errors
    /// The cache cannot be read, or a file in it is no crate.
    pub fn seed_from_cargo_home(
        &self,
        cargo_home: &Path,
        wanted: &[(String, String)],
    ) -> Result<Vec<(String, String)>, CrateError> {
        self.service
            .store()
            .crates_io
            .seed_from_cargo_home(cargo_home, wanted)
    }
}

/// The crate that a lab's public registry always has.
const GREETING: &[(&str, &[u8])] = &[
    (
        "Cargo.toml",
        b"[package]\nname = \"towpath-greeting\"\nversion = \"1.0.0\"\nedition = \"2021\"\n\
          description = \"One function, for something to depend on\"\nlicense = \"MIT OR Apache-2.0\"\n",
    ),
    (
        "src/lib.rs",
        b"//! One function, for something to depend on.\n\n\
          /// Greets somebody by name.\n\
          pub fn greet(name: &str) -> String {\n    format!(\"Hello, {name}!\")\n}\n",
    ),
];
