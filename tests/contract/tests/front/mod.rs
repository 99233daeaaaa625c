//! What stands before a docker-registry to count the writes, which it does not count itself.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::Response;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Passes every request on to the docker-registry.
pub(crate) struct Front {
    relay: Arc<Relay>,
    url: String,
}

struct Relay {
    registry: String,
    http: reqwest::Client,
    writes: AtomicUsize,
}

impl Front {
    pub(crate) async fn start() -> Self {
        let variable = "TOWPATH_PEER_REGISTRY_OPEN";
        let registry =
            std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; run tests/peers/run"));
        let relay = Arc::new(Relay {
            registry,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            writes: AtomicUsize::new(0),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(Arc::clone(&relay));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { relay, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn writes(&self) -> usize {
        self.relay.writes.load(Ordering::Relaxed)
    }

    /// A manifest as the docker-registry serves it, past this.
    pub(crate) async fn served(&self, repository: &str, reference: &str) -> Option<Vec<u8>> {
        let url = format!(
            "http://{}/v2/{repository}/manifests/{reference}",
            self.relay.registry
        );
        let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
        let response = self
            .relay
            .http
            .get(url)
            .header("accept", accept)
            .send()
            .await
            .unwrap();
        match response.status().as_u16() {
            404 => None,
            status => {
                assert_eq!(status, 200);
                Some(response.bytes().await.unwrap().to_vec())
            }
        }
    }
}

async fn pass(State(relay): State<Arc<Relay>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method) {
        relay.writes.fetch_add(1, Ordering::Relaxed);
    }
    let url = format!("http://{}{}", relay.registry, parts.uri);
    // With the Host it came with, so that a Location leads back here.
    let passed = relay.http.request(parts.method, url).headers(parts.headers);
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    let answer = passed.body(body).send().await.unwrap();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    response
}
