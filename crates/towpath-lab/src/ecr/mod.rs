//! Elastic Container Registry: the JSON API, `/v2/`, image scans, and the pull-through cache with its upstreams.
//!
//! [`Ecr`] is one private registry of one account and region on three ports, over one store: the API (AWS JSON 1.1,
//! model `AmazonEC2ContainerRegistry_V20150921`, signatures verified), the OCI distribution endpoint, and the storage
//! that the latter redirects to for the bytes of blobs.
//! [`Upstream`] is a registry to pull through from: the ECR public gallery, Quay.io, Docker Hub and others, with token
//! servers of their own. Their images are synthetic: they are built from the files that a seed names.
//!
//! Where ECR is known to differ from the distribution specification, this does too: Basic authentication only, a
//! plain-text 401, 403 for an expired token, 201 for a chunk, no `Location` for a manifest, 405 for a manifest it
//! dislikes, blobs behind redirects to signed addresses, images translated for who accepts another format.
//!
//! Two settings hide at first what a client has to deal with. Every repository is scanned on push
//! ([`EcrConfig::scan_on_push`]), so that an image which nobody scans shows only without it. And the layers of a cached
//! image have come with its manifest, so that a client finds nothing left to fill until
//! [`cache_layers_lazily`](Ecr::cache_layers_lazily) is called.
//!
//! The lab stands in for upstream registries too, but only the registry knows where they are. A client that asks an
//! upstream itself (`Verify::Required` of `towpath-ecr`) asks the real one, unless its configuration names the lab's
//! ([`Upstream::address`]), as `EcrConfig::upstream` of `towpath-ecr` does.

mod api;
mod archive;
mod blobs;
mod creation;
mod distribution;
mod hosts;
mod inspect;
mod lifecycle;
mod manifest;
mod many;
mod names;
mod permissions;
mod pull_through;
mod registry;
mod remote;
mod scan;
mod secrets;
mod seed;
mod spread;
mod storage;
mod store;
mod tags;
mod tokens;
mod uploads;
mod upstream;

pub use hosts::UpstreamKind;
pub use inspect::{ImageState, PullThroughRuleState, RepositoryState};
pub use scan::{Finding, ScanType};
pub use secrets::SecretFault;
pub use seed::ImageSeed;
pub use upstream::{Upstream, UpstreamConfig, UpstreamTrouble};

use crate::server::{Bound, Server};
use crate::sigv4::Verifier;
use crate::{Fault, Faults, LabError, RequestLog};
use axum::http::{HeaderValue, StatusCode, header};
use blobs::Blobs;
use scan::Pace;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use tokens::Tokens;
use towpath_core::{Digest, Secret};

/// How a registry is to be set up. Each field says its default.
#[derive(Clone, Debug)]
pub struct EcrConfig {
    /// The region that requests are signed for; `eu-west-1`.
    pub region: String,
    /// The account, which is the id of the registry: 12 digits; `123456789012`.
    pub account: String,
    /// The access key that is known; `AKIALABLABLABLABLAB0`.
    pub access_key_id: String,
    /// The secret that belongs to it; `lab-secret-access-key`.
    pub secret_access_key: Secret,
    /// Where the upstream registries of pull-through rules are: host name, address on loopback; none.
    pub upstreams: Vec<(String, SocketAddr)>,
    /// How long an authorization token lasts; 12 hours.
    pub token_life: Duration,
    /// The time from a push to the end of its scan; 60 milliseconds.
    pub scan_delay: Duration,
    /// How long after the end of an enhanced scan its findings are listed; at once.
    pub findings_delay: Duration,
    /// Whether a registry scans every repository on push from the start (basic scanning); it does. Without it a repository
    /// is scanned as its own setting says.
    pub scan_on_push: bool,
    /// How long a cached tag is served without asking its upstream; 24 hours.
    pub cache_life: Duration,
    /// The port of the JSON API; 0, which is any that is free.
    pub api_port: u16,
    /// The port of `/v2/`; 0, which is any that is free.
    pub registry_port: u16,
    /// How long the signed address of a blob works, in whole seconds; an hour.
    pub download_url_life: Duration,
}

impl Default for EcrConfig {
    fn default() -> Self {
        Self {
            region: "eu-west-1".into(),
            account: "123456789012".into(),
            access_key_id: "AKIALABLABLABLABLAB0".into(),
            secret_access_key: Secret::new("lab-secret-access-key"),
            upstreams: Vec::new(),
            token_life: Duration::from_secs(12 * 60 * 60),
            scan_delay: Duration::from_millis(60),
            findings_delay: Duration::ZERO,
            scan_on_push: true,
            cache_life: store::DAY,
            api_port: 0,
            registry_port: 0,
            download_url_life: Duration::from_secs(60 * 60),
        }
    }
}

/// A private registry. It serves until it is dropped.
///
/// ```
/// use towpath_lab::ecr::{Ecr, EcrConfig};
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let ecr = Ecr::start(EcrConfig::default()).await?;
/// assert!(ecr.api_url().starts_with("http://127.0.0.1:"));
/// assert!(ecr.repositories().is_empty());
/// # Ok::<(), towpath_lab::LabError>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A client needs its address, its region and its access key. The client of `towpath-ecr` takes them so:
///
/// ```ignore
/// let config = towpath_ecr::EcrConfig::from_env()
///     .region(lab.region().parse()?)
///     .endpoint(lab.api_url().parse()?)
///     .credentials(lab.access_key_id(), lab.secret_access_key().clone(), None);
/// let ecr = towpath_ecr::Ecr::new(&config).await?;
/// ```
#[derive(Debug)]
pub struct Ecr {
    service: Arc<Service>,
    api: Server,
    registry: Server,
    storage: Server,
}

/// What the handlers of both ports share.
#[derive(Debug)]
struct Service {
    config: EcrConfig,
    /// `host:port` of `/v2/`.
    registry_host: String,
    /// The URL of the storage of the blobs, without a slash at its end.
    storage_url: String,
    storage_key: storage::SigningKey,
    verifier: Verifier,
    upstreams: HashMap<String, SocketAddr>,
    store: Mutex<Store>,
    blobs: Blobs,
    tokens: Tokens,
    uploads: uploads::Uploads,
    importing: tokio::sync::Mutex<()>,
    remote: std::sync::OnceLock<reqwest::Client>,
    token_life: Mutex<Duration>,
    /// How long a restore from the archive takes.
    restore: Mutex<Duration>,
    chunks_created: AtomicBool,
    /// Actions of IAM that a test denies.
    denied: Mutex<BTreeSet<String>>,
    blobs_redirected: AtomicBool,
    secrets: Mutex<HashMap<String, secrets::Stored>>,
    lazy_layers: AtomicBool,
    digests_imported: AtomicBool,
}

impl Ecr {
    /// Starts a registry without repositories.
    ///
    /// # Errors
    /// A port is taken, or there is no room for temporary files.
    pub async fn start(config: EcrConfig) -> Result<Self, LabError> {
        let api = Bound::new("ECR", config.api_port).await?;
        let registry = Bound::new("the ECR registry", config.registry_port).await?;
        let storage = Bound::new("the storage of the ECR registry", 0).await?;
        let pace = Pace {
            scan: config.scan_delay,
            findings: config.findings_delay,
        };
        let service = Arc::new(Service {
            restore: Mutex::new(Duration::ZERO),
            registry_host: registry.address().to_string(),
            // By name: there are clients that take every port of one host for the same origin, and ECR's storage is on
            // another host.
            storage_url: format!("http://localhost:{}", storage.address().port()),
            storage_key: storage::SigningKey::new(),
            verifier: Verifier {
                access_key_id: config.access_key_id.clone(),
                secret_access_key: config.secret_access_key.clone(),
                region: config.region.clone(),
                service: "ecr",
                unsigned_payload: false,
            },
            upstreams: config.upstreams.iter().cloned().collect(),
            store: Mutex::new(Store::new(pace, config.scan_on_push)),
            blobs: Blobs::new()?,
            tokens: Tokens::of(&config.account, &config.region),
            uploads: uploads::Uploads::default(),
            importing: tokio::sync::Mutex::default(),
            remote: std::sync::OnceLock::new(),
            token_life: Mutex::new(config.token_life),
            chunks_created: AtomicBool::new(true),
            denied: Mutex::default(),
            blobs_redirected: AtomicBool::new(true),
            secrets: Mutex::default(),
            lazy_layers: AtomicBool::new(false),
            digests_imported: AtomicBool::new(true),
            config,
        });
        Ok(Self {
            api: api.serve(api::router(Arc::clone(&service))),
            registry: registry.serve(registry::router(Arc::clone(&service))),
            storage: storage.serve(storage::router(Arc::clone(&service))),
            service,
        })
    }

    /// The URL of the JSON API, for `AWS_ENDPOINT_URL_ECR`.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api.address())
    }

    /// The region that requests are signed for, for `AWS_REGION`.
    pub fn region(&self) -> &str {
        &self.service.config.region
    }

    /// The access key that is known, for `AWS_ACCESS_KEY_ID`.
    pub fn access_key_id(&self) -> &str {
        &self.service.config.access_key_id
    }

    /// The secret that belongs to it, for `AWS_SECRET_ACCESS_KEY`.
    pub fn secret_access_key(&self) -> &Secret {
        &self.service.config.secret_access_key
    }

    /// `host:port` of `/v2/`, for image references. It speaks plain HTTP.
    pub fn registry_host(&self) -> &str {
        &self.service.registry_host
    }

    /// What the JSON API was asked.
    pub fn api_requests(&self) -> &RequestLog {
        self.api.log()
    }

    /// What `/v2/` was asked.
    pub fn registry_requests(&self) -> &RequestLog {
        self.registry.log()
    }

    /// What the storage behind `/v2/` was asked: the bytes of blobs, read where the registry redirects to.
    pub fn storage_requests(&self) -> &RequestLog {
        self.storage.log()
    }

    /// Faults of the JSON API. They can be aimed at one operation by its name.
    pub fn api_faults(&self) -> &Faults {
        self.api.faults()
    }

    /// Faults of `/v2/`.
    pub fn registry_faults(&self) -> &Faults {
        self.registry.faults()
    }

    /// Faults of the storage behind `/v2/`.
    pub fn storage_faults(&self) -> &Faults {
        self.storage.faults()
    }

    /// Answers the next requests of `/v2/`, this many of them, 429: the account is over its rates.
    pub fn throttle_registry(&self, times: u32) {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        let fault = Fault::respond("/v2/", StatusCode::TOO_MANY_REQUESTS, body);
        let fault = fault.header(header::CONTENT_TYPE, json);
        self.registry_faults().inject(fault.times(times));
    }

    /// Ends every upload that is under way: its session is unknown from now on.
    pub fn expire_uploads(&self) {
        self.service.uploads.expire_all();
    }

    /// A new password for the user `AWS` of `/v2/`, as `GetAuthorizationToken` would give it out.
    pub fn issue_password(&self) -> Secret {
        Secret::new(self.service.issue_token().0)
    }

    /// Ends every authorization token given out so far: `/v2/` answers 403 to them from now on.
    pub fn expire_tokens(&self) {
        self.service.tokens.expire_all();
    }

    /// Sets how long the next authorization tokens last.
    pub fn set_token_life(&self, life: Duration) {
        *lock(&self.service.token_life) = life;
    }

    /// Sets which vulnerabilities scans find, by repository name or, which goes first, by image digest.
    pub fn set_findings(&self, target: &str, findings: Vec<Finding>) {
        self.service.store().findings.insert(target.to_owned(), findings);
    }

    /// Sets the status of scans by repository name or image digest, such as `UNSUPPORTED_IMAGE` or `FAILED`, whatever
    /// the time; `None` lets them move on their own again.
    pub fn set_scan_status(&self, target: &str, status: Option<&str>) {
        let mut store = self.service.store();
        match status {
            Some(status) => store.forced.insert(target.to_owned(), status.to_owned()),
            None => store.forced.remove(target),
        };
    }

    /// Sets how long scans take, and how long after the end of an enhanced one its findings are listed. It holds for
    /// scans under way, too.
    pub fn set_scan_delays(&self, scan: Duration, findings: Duration) {
        self.service.store().pace = Pace { scan, findings };
    }

    /// Whether a blob is read from the storage, where `/v2/` redirects to (307), as with ECR and as from the start, or
    /// from `/v2/` itself.
    pub fn redirect_blobs(&self, redirect: bool) {
        self.service.blobs_redirected.store(redirect, Ordering::Relaxed);
    }

    /// Makes a vulnerability (CVE) known, for a repository or an image digest. Scans from now on find it, and so do images that
    /// are scanned continuously: they are scanned anew. Other scans stay as they are.
    pub fn publish_finding(&self, target: &str, finding: Finding) {
        self.service.store().published.push(scan::Published {
            target: target.to_owned(),
            finding,
            at: std::time::Instant::now(),
            stamp: jiff::Timestamp::now(),
        });
    }

    /// Whether an enhanced scan gives its time of completion, and counts nothing, before its findings are listed. From
    /// the start it has no time until then. Either is seen of the service.
    pub fn complete_before_findings(&self, early: bool) {
        self.service.store().early_end = early;
    }

    /// Whether a chunk of an upload is answered 201, as ECR does and as this does from the start, or 202 by the
    /// specification.
    pub fn answer_chunks_as_created(&self, created: bool) {
        self.service.chunks_created.store(created, Ordering::Relaxed);
    }

    /// Whether the layers of a cached image come only when each is asked for. Otherwise, and from the start, all have come
    /// when the manifest is answered.
    pub fn cache_layers_lazily(&self, lazily: bool) {
        self.service.lazy_layers.store(lazily, Ordering::Relaxed);
    }

    /// Whether an image that is asked for by digest is brought in from the upstream; it is from the start. Users of the
    /// service report that at times it is not.
    pub fn cache_digests(&self, imported: bool) {
        self.service.digests_imported.store(imported, Ordering::Relaxed);
    }

    /// Takes a blob or a manifest out of a repository, as if its import had not come so far; whether it was there. The tags
    /// and the indexes that name it stay.
    pub fn lose(&self, repository: &str, digest: &Digest) -> bool {
        let mut store = self.service.store();
        let Some(found) = store.repositories.get_mut(repository) else {
            return false;
        };
        let held = found.images.contains_key(digest);
        found.remove(digest);
        let lost = found.blobs.remove(digest) | held;
        let mut others = store.repositories.values();
        if !others.any(|other| other.blobs.contains(digest)) {
            self.service.blobs.forget(digest);
        }
        lost
    }
}

impl Service {
    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    fn restore(&self) -> Duration {
        *lock(&self.restore)
    }

    fn issue_token(&self) -> (String, jiff::Timestamp) {
        let life = *lock(&self.token_life);
        self.tokens.issue(life, "")
    }

    fn repository_arn(&self, name: &str) -> String {
        let EcrConfig { region, account, .. } = &self.config;
        format!("arn:aws:ecr:{region}:{account}:repository/{name}")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
