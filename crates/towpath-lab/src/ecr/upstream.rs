//! A registry to pull through from, read-only for clients: the ECR public gallery, Quay.io, Docker Hub and others.
//!
//! All but `registry.k8s.io` want a Bearer token even from anonymous clients, and lead to their own token servers in the
//! challenge: the gallery with the fixed scope `aws`, the others with the repository and `pull`. Those do not say whether a
//! repository is missing or private: they answer 401 to both. A token server takes a user name and an access token as
//! Basic authentication, refuses wrong ones, and grants what the account may read, private repositories included.

use super::blobs::Blobs;
use super::distribution::{API_VERSION, Refused, Route, manifest_response, page, parameters};
use super::hosts::UpstreamKind;
use super::lock;
use super::seed::ImageSeed;
use super::store::Reference;
use super::tokens::{Standing, Tokens};
use crate::server::{Bound, Server};
use crate::{Faults, LabError, RequestLog};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use towpath_core::{Digest, Secret};

/// What an upstream does instead of serving images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamTrouble {
    /// It answers 403 to whoever asks.
    Denied,
    /// It answers 429, `toomanyrequests`; with a `Retry-After` where one is given. Docker Hub counts only manifests, and
    /// not by `HEAD`.
    RateLimited {
        /// For how long.
        retry_after: Option<Duration>,
    },
    /// It answers 503 to everything.
    Down,
}

/// How an upstream is to be set up.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// Which registry it stands for.
    pub kind: UpstreamKind,
    /// How long its tokens last.
    pub token_life: Duration,
    /// Its port; 0 for any.
    pub port: u16,
}

impl UpstreamConfig {
    /// A registry of this kind on any free port, with tokens that last 5 minutes.
    pub fn new(kind: UpstreamKind) -> Self {
        Self {
            kind,
            token_life: Duration::from_secs(300),
            port: 0,
        }
    }
}

/// An upstream registry. It serves until it is dropped.
///
/// ```
/// use towpath_lab::ecr::{ImageSeed, Upstream, UpstreamConfig, UpstreamKind};
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay)).await?;
/// let index = quay.seed_image("towpath/ca-certificates", "2026", &ImageSeed::certificates())?;
/// assert_eq!(quay.digest("towpath/ca-certificates", "2026"), Some(index));
/// # Ok::<(), towpath_lab::LabError>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Upstream {
    site: Arc<Site>,
    server: Server,
}

#[derive(Debug)]
struct Site {
    config: UpstreamConfig,
    address: SocketAddr,
    repositories: Mutex<BTreeMap<String, Contents>>,
    blobs: Blobs,
    tokens: Tokens,
    accounts: Mutex<BTreeMap<String, Secret>>,
    trouble: Mutex<Option<UpstreamTrouble>>,
}

#[derive(Debug, Default)]
struct Contents {
    private: bool,
    manifests: BTreeMap<Digest, (String, Bytes)>,
    tags: BTreeMap<String, Digest>,
    blobs: BTreeSet<Digest>,
}

impl Upstream {
    /// Starts a registry without images.
    ///
    /// # Errors
    /// The port is taken, or there is no room for temporary files.
    pub async fn start(config: UpstreamConfig) -> Result<Self, LabError> {
        let bound = Bound::new(config.kind.host(), config.port).await?;
        let site = Arc::new(Site {
            address: bound.address(),
            repositories: Mutex::default(),
            blobs: Blobs::new()?,
            tokens: Tokens::default(),
            accounts: Mutex::default(),
            trouble: Mutex::default(),
            config,
        });
        let router = Router::new()
            .route(site.config.kind.token_path(), get(token))
            .fallback(serve)
            .with_state(Arc::clone(&site));
        Ok(Self {
            server: bound.serve(router),
            site,
        })
    }

    /// Puts an image in, and gives the digest of its index.
    ///
    /// # Errors
    /// Its files cannot be packed, or there is no room for them.
    pub fn seed_image(&self, repository: &str, tag: &str, seed: &ImageSeed) -> Result<Digest, LabError> {
        let built = seed.build()?;
        let mut repositories = lock(&self.site.repositories);
        let contents = repositories.entry(repository.to_owned()).or_default();
        for blob in &built.blobs {
            let digest = self.site.blobs.put(blob).map_err(|source| LabError::File {
                action: "write a blob of",
                path: repository.into(),
                source,
            })?;
            contents.blobs.insert(digest);
        }
        let mut last = Digest::sha256_of([]);
        for (media_type, bytes) in built.manifests {
            last = Digest::sha256_of(&bytes);
            contents
                .manifests
                .insert(last.clone(), (media_type.to_owned(), bytes.into()));
        }
        contents.tags.insert(tag.to_owned(), last.clone());
        Ok(last)
    }

    /// Puts a manifest or an index in as it is, whatever it names, and a tag on it where one is given.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let mut repositories = lock(&self.site.repositories);
        let contents = repositories.entry(repository.to_owned()).or_default();
        let manifest = (media_type.to_owned(), Bytes::copy_from_slice(bytes));
        contents.manifests.insert(digest.clone(), manifest);
        if let Some(tag) = tag {
            contents.tags.insert(tag.to_owned(), digest.clone());
        }
        digest
    }

    /// Removes a tag, or by digest a manifest with its tags or a blob; whether there was one.
    pub fn remove(&self, repository: &str, reference: &str) -> bool {
        let mut repositories = lock(&self.site.repositories);
        let Some(contents) = repositories.get_mut(repository) else {
            return false;
        };
        match Reference::parse(reference) {
            Some(Reference::Tag(tag)) => contents.tags.remove(&tag).is_some(),
            Some(Reference::Digest(digest)) => {
                contents.tags.retain(|_, tagged| *tagged != digest);
                contents.manifests.remove(&digest).is_some() | contents.blobs.remove(&digest)
            }
            None => false,
        }
    }

    /// Makes a repository private: only who has an account may pull from it.
    pub fn make_private(&self, repository: &str) {
        let mut repositories = lock(&self.site.repositories);
        repositories.entry(repository.to_owned()).or_default().private = true;
    }

    /// Opens an account, or gives it another access token.
    pub fn add_account(&self, username: &str, access_token: &Secret) {
        lock(&self.site.accounts).insert(username.to_owned(), access_token.clone());
    }

    /// Sets what it does instead of serving images; `None` ends it.
    pub fn set_trouble(&self, trouble: Option<UpstreamTrouble>) {
        *lock(&self.site.trouble) = trouble;
    }

    /// Which registry it stands for.
    pub fn kind(&self) -> UpstreamKind {
        self.site.config.kind
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.site.address
    }

    /// The digest that a tag has.
    pub fn digest(&self, repository: &str, tag: &str) -> Option<Digest> {
        lock(&self.site.repositories)
            .get(repository)?
            .tags
            .get(tag)
            .cloned()
    }

    /// The bytes of a blob; `None` where there is none with this digest.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.site.blobs.read(digest)
    }

    /// What it was asked.
    pub fn requests(&self) -> &RequestLog {
        self.server.log()
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }
}

/// The token endpoint. Anyone gets a token, unless with a wrong login; what it is good for is in its scope.
async fn token(State(site): State<Arc<Site>>, request: Request) -> Response {
    if let Some(response) = site.in_trouble(None, request.method()) {
        return response;
    }
    let Ok(known) = site.login(request.headers()) else {
        let body = axum::Json(json!({"details": "incorrect username or password"}));
        return (StatusCode::UNAUTHORIZED, body).into_response();
    };
    let query = request.uri().query();
    let scope = match site.config.kind {
        // Clients such as skopeo ask for a repository here, whatever the challenge says, and are served.
        UpstreamKind::EcrPublic => "aws".to_owned(),
        _ => {
            let repositories = lock(&site.repositories);
            let granted = parameters(query, "scope").into_iter().filter(|scope| {
                let name = scope
                    .strip_prefix("repository:")
                    .and_then(|rest| rest.split(':').next());
                name.and_then(|name| repositories.get(name))
                    .is_some_and(|contents| known || !contents.private)
            });
            granted
                .filter_map(|scope| scope.rsplit_once(':').map(|(what, _)| format!("{what}:pull")))
                .collect::<Vec<_>>()
                .join(" ")
        }
    };
    let (text, _) = site.tokens.issue(site.config.token_life, &scope);
    axum::Json(json!({"token": text, "expires_in": site.config.token_life.as_secs()})).into_response()
}

async fn serve(State(site): State<Arc<Site>>, request: Request) -> Response {
    let Some(route) = Route::parse(request.uri().path()) else {
        return Refused::new(StatusCode::NOT_FOUND, "NOT_FOUND", "page not found").into_response();
    };
    if let Some(response) = site.challenge(&route, request.headers()) {
        return response;
    }
    if let Some(response) = site.in_trouble(Some(&route), request.method()) {
        return response;
    }
    let (parts, _) = request.into_parts();
    let mut response = match site.read(route, &parts).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    };
    response
        .headers_mut()
        .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response
}

impl Site {
    /// Whether a request has a login that is right; an error where it has one that is wrong.
    fn login(&self, headers: &HeaderMap) -> Result<bool, ()> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(false);
        };
        let basic = value.to_str().ok().and_then(|value| value.strip_prefix("Basic "));
        let decoded = basic.and_then(|basic| STANDARD.decode(basic).ok());
        let text = decoded
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or(())?;
        let (username, token) = text.split_once(':').ok_or(())?;
        let accounts = lock(&self.accounts);
        let right = accounts
            .get(username)
            .is_some_and(|known| known.expose() == token);
        right.then_some(true).ok_or(())
    }

    /// What is answered instead of an image, or of a token where there is no route.
    fn in_trouble(&self, route: Option<&Route>, method: &Method) -> Option<Response> {
        let trouble = (*lock(&self.trouble))?;
        let manifest = matches!(route, Some(Route::Manifest { .. }));
        let content = manifest || matches!(route, Some(Route::Blob { .. } | Route::Tags { .. }));
        match trouble {
            UpstreamTrouble::Down => {
                let refused = Refused::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "UNAVAILABLE",
                    "service unavailable",
                );
                Some(refused.into_response())
            }
            UpstreamTrouble::Denied if content => {
                let message = "requested access to the resource is denied";
                Some(Refused::new(StatusCode::FORBIDDEN, "DENIED", message).into_response())
            }
            UpstreamTrouble::RateLimited { retry_after } if content => {
                if self.config.kind.counts_only_get() && !(manifest && method == Method::GET) {
                    return None;
                }
                let message = "You have reached your pull rate limit.";
                let mut response =
                    Refused::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message).into_response();
                if let Some(pause) = retry_after {
                    let seconds = HeaderValue::from(pause.as_secs());
                    response.headers_mut().insert(header::RETRY_AFTER, seconds);
                }
                Some(response)
            }
            UpstreamTrouble::Denied | UpstreamTrouble::RateLimited { .. } => None,
        }
    }

    async fn read(&self, route: Route, request: &Parts) -> Result<Response, Refused> {
        let method = &request.method;
        if method != Method::GET && method != Method::HEAD {
            return Err(Refused::unsupported("The operation is unsupported."));
        }
        match route {
            Route::Base => Ok(StatusCode::OK.into_response()),
            Route::Manifest { name, reference } => {
                let unknown = || Refused::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
                let repositories = lock(&self.repositories);
                let contents = repositories.get(&name).ok_or_else(|| missing(&name))?;
                let digest = match Reference::parse(&reference).ok_or_else(unknown)? {
                    Reference::Digest(digest) => digest,
                    Reference::Tag(tag) => contents.tags.get(&tag).cloned().ok_or_else(unknown)?,
                };
                let (media_type, bytes) = contents.manifests.get(&digest).ok_or_else(unknown)?;
                Ok(manifest_response(
                    method,
                    media_type,
                    digest.as_str(),
                    bytes.clone(),
                ))
            }
            Route::Blob { name, digest } => {
                let digest: Option<Digest> = digest.parse().ok();
                let known = digest.filter(|digest| {
                    let repositories = lock(&self.repositories);
                    repositories
                        .get(&name)
                        .is_some_and(|contents| contents.blobs.contains(digest))
                });
                let unknown =
                    || Refused::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
                let digest = known.ok_or_else(unknown)?;
                Ok(self.blobs.respond(method, &request.headers, &digest).await)
            }
            Route::Tags { name } => {
                let tags = {
                    let repositories = lock(&self.repositories);
                    let contents = repositories.get(&name).ok_or_else(|| missing(&name))?;
                    contents.tags.keys().cloned().collect()
                };
                let (tags, next) = page(tags, request.uri.query(), &format!("/v2/{name}/tags/list"))?;
                let mut response = axum::Json(json!({"name": name, "tags": tags})).into_response();
                if let Some(link) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
                    response.headers_mut().insert(header::LINK, link);
                }
                Ok(response)
            }
            _ => Err(Refused::unsupported("The operation is unsupported.")),
        }
    }

    /// The challenge to a request whose token is not good for what it asks; `None` lets it in.
    fn challenge(&self, route: &Route, headers: &HeaderMap) -> Option<Response> {
        if self.config.kind == UpstreamKind::Kubernetes {
            return None;
        }
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let needed = self.scope(route);
        if let Some(token) = token
            && let Standing::Good { scope } = self.tokens.check(token)
            && needed
                .as_deref()
                .is_none_or(|needed| scope.split(' ').any(|held| held == needed))
        {
            return None;
        }
        let kind = self.config.kind;
        let (code, message) = kind.unauthorized();
        let mut challenge = format!(
            "Bearer realm=\"http://{}{}\",service=\"{}\"",
            self.address,
            kind.token_path(),
            kind.service()
        );
        if let Some(scope) = needed {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        let mut response = Refused::new(StatusCode::UNAUTHORIZED, code, message).into_response();
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        Some(response)
    }

    fn scope(&self, route: &Route) -> Option<String> {
        let name = match route {
            _ if self.config.kind == UpstreamKind::EcrPublic => return Some("aws".into()),
            Route::Base | Route::Catalog => return None,
            Route::Manifest { name, .. }
            | Route::Blob { name, .. }
            | Route::Uploads { name }
            | Route::Upload { name, .. }
            | Route::Tags { name }
            | Route::Referrers { name, .. } => name,
        };
        Some(format!("repository:{name}:pull"))
    }
}

fn missing(name: &str) -> Refused {
    let message = format!("The repository with name '{name}' does not exist in the registry");
    Refused::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", message)
}
