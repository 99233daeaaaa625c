//! One HTTP server of the lab: a loopback port, a router, a log of what was asked, and the faults in front of it.

use crate::LabError;
use crate::faults::{Effect, Faults};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use towpath_core::Digest;

/// A port that is taken, before there is a router to serve on it (the router often has to know its own address).
#[derive(Debug)]
pub(crate) struct Bound {
    service: &'static str,
    listener: TcpListener,
    address: SocketAddr,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    log: RequestLog,
    faults: Faults,
    _task: AbortOnDropHandle<()>,
}

/// One request that a server has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// The path and the query, as they were sent.
    pub path: String,
    /// The status of the answer; `None` where the answer was lost on purpose.
    pub status: Option<StatusCode>,
    /// `X-Amz-Target`, where the request had one: the operation of an AWS JSON service.
    pub target: Option<String>,
    /// The SHA-256 of the `Authorization` header, where the request had one: tells credentials apart and keeps none.
    pub authorization: Option<Digest>,
}

/// What a server was asked, oldest first. Cheap to clone; every clone is the same log.
#[derive(Clone, Debug, Default)]
pub struct RequestLog(Arc<Mutex<Vec<Seen>>>);

impl RequestLog {
    /// Everything so far.
    pub fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests there were so far.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing has been asked yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests had this method and a path that contains this text.
    pub fn count(&self, method: &Method, path_contains: &str) -> usize {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .filter(|seen| seen.method == method && seen.path.contains(path_contains))
            .count()
    }

    fn push(&self, seen: Seen) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }
}

impl Bound {
    /// Takes a port on 127.0.0.1; 0 takes any free one.
    pub(crate) async fn new(service: &'static str, port: u16) -> Result<Self, LabError> {
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let refused = |source| LabError::Listen {
            service,
            address: wanted,
            source,
        };
        let listener = TcpListener::bind(wanted).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self {
            service,
            listener,
            address,
        })
    }

    /// The address that was taken.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `router` there until the result is dropped.
    pub(crate) fn serve(self, router: Router) -> Server {
        let (log, faults) = (RequestLog::default(), Faults::default());
        let router = router.layer(middleware::from_fn_with_state(
            (log.clone(), faults.clone()),
            record,
        ));
        let (listener, service) = (self.listener, self.service);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(service, %error, "lab server ended");
            }
        });
        Server {
            address: self.address,
            log,
            faults,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

impl Server {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn log(&self) -> &RequestLog {
        &self.log
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }
}

async fn record(State((log, faults)): State<(RequestLog, Faults)>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request
        .uri()
        .path_and_query()
        .map_or_else(String::new, ToString::to_string);
    let target = request
        .headers()
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok())
        .map(ToOwned::to_owned);
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| Digest::sha256_of(value.as_bytes()));
    let seen = |status| Seen {
        method: method.clone(),
        path: path.clone(),
        status,
        target: target.clone(),
        authorization: authorization.clone(),
    };
    let matched = match &target {
        Some(target) => format!("{path} {target}"),
        None => path.clone(),
    };
    let response = match faults.meet(&method, &matched) {
        None => next.run(request).await,
        Some(Effect::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            next.run(request).await
        }
        Some(Effect::Respond {
            status,
            headers,
            body,
        }) => {
            let mut response = (status, body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value);
            }
            response
        }
        Some(Effect::LoseAnswer) => {
            next.run(request).await;
            log.push(seen(None));
            return broken();
        }
        Some(Effect::Cut) => {
            log.push(seen(None));
            return broken();
        }
    };
    log.push(seen(Some(response.status())));
    response
}

/// An answer that closes the connection before it is complete: no client can take it for an answer.
fn broken() -> Response {
    let lost = futures_util::stream::once(async {
        Err::<bytes::Bytes, _>(std::io::Error::new(
            std::io::ErrorKind::ConnectionReset,
            "cut by a scripted fault",
        ))
    });
    let mut response = Response::new(Body::from_stream(lost));
    response
        .headers_mut()
        .insert("content-length", axum::http::HeaderValue::from_static("1"));
    response
}
