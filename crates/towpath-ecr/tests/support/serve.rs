//! Servers of a few lines, and clients of them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use futures_util::StreamExt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use towpath_ecr::oci::{OciClient, OciSettings, RegistryCredentials};
use towpath_ecr::{ImageRef, RegistryHost, Result, Secret};

/// What a server saw: method, path with query, headers, and how many bytes of the body.
pub type Seen = Arc<Mutex<Vec<(Method, String, HeaderMap, Bytes)>>>;

/// Serves with a function of the request, its body up to where it broke, and how many came before.
pub async fn serve<F>(answer: F) -> (SocketAddr, Seen)
where
    F: Fn(&Method, &str, &HeaderMap, &Bytes) -> Response + Clone + Send + Sync + 'static,
{
    let seen = Seen::default();
    let app = Router::new()
        .fallback(move |State(seen): State<Seen>, request: Request| {
            let answer = answer.clone();
            async move {
                let (head, body) = request.into_parts();
                let mut bytes = Vec::new();
                let mut body = body.into_data_stream();
                while let Some(Ok(piece)) = body.next().await {
                    bytes.extend_from_slice(&piece);
                }
                let (path, bytes) = (head.uri.to_string(), Bytes::from(bytes));
                let reply = answer(&head.method, &path, &head.headers, &bytes);
                seen.lock()
                    .unwrap()
                    .push((head.method, path, head.headers, bytes));
                reply
            }
        })
        .with_state(Arc::clone(&seen));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, seen)
}

/// Gives the canary to every registry that asks.
#[derive(Debug)]
pub struct Canary;

#[async_trait::async_trait]
impl RegistryCredentials for Canary {
    async fn basic(&self, _registry: &RegistryHost, _refused: Option<&Secret>) -> Result<Option<Secret>> {
        Ok(Some(Secret::new("Y2FuYXJ5OmNhbmFyeQ==")))
    }
}

#[derive(Debug)]
pub struct Nobody;

#[async_trait::async_trait]
impl RegistryCredentials for Nobody {
    async fn basic(&self, _registry: &RegistryHost, _refused: Option<&Secret>) -> Result<Option<Secret>> {
        Ok(None)
    }
}

pub fn client(credentials: impl RegistryCredentials + 'static) -> OciClient {
    client_with(credentials, |_| {})
}

/// A client that loses no time, with what a test changes in its settings.
pub fn client_with(
    credentials: impl RegistryCredentials + 'static,
    change: impl FnOnce(&mut OciSettings),
) -> OciClient {
    let mut settings = OciSettings::default();
    settings.first_pause = Duration::from_millis(1);
    settings.longest_pause = Duration::from_millis(4);
    settings.idle_timeout = Duration::from_secs(20);
    change(&mut settings);
    OciClient::new("the registry", Arc::new(credentials), settings).unwrap()
}

pub fn repository(address: SocketAddr) -> ImageRef {
    format!("{address}/shop/web").parse().unwrap()
}

pub fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}
