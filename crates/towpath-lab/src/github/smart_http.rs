//! Git over smart HTTP: each request is handed to `git http-backend` as a CGI child, after gitprotocol-http and
//! git-http-backend(1). Authentication comes first, since git asks without credentials and waits for a 401.

use super::events;
use super::hub::{Hub, Identity, Repository, token_of};
use crate::LabError;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio_util::io::{ReaderStream, StreamReader};

/// `GET /{owner}/{repo}/info/refs?service=…`
pub(super) async fn info_refs(
    State(hub): State<Arc<Hub>>,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let receive = match query.split('&').find_map(|pair| pair.strip_prefix("service=")) {
        Some("git-receive-pack") => true,
        Some("git-upload-pack") => false,
        _ => return (StatusCode::FORBIDDEN, "Please upgrade your git client.\n").into_response(),
    };
    serve(&hub, &owner, &name, "info/refs", receive, request).await
}

/// `POST /{owner}/{repo}/git-upload-pack`
pub(super) async fn upload_pack(
    State(hub): State<Arc<Hub>>,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(&hub, &owner, &name, "git-upload-pack", false, request).await
}

/// `POST /{owner}/{repo}/git-receive-pack`
pub(super) async fn receive_pack(
    State(hub): State<Arc<Hub>>,
    Path((owner, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    serve(&hub, &owner, &name, "git-receive-pack", true, request).await
}

async fn serve(
    hub: &Arc<Hub>,
    owner: &str,
    name: &str,
    service: &str,
    receive: bool,
    request: Request,
) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let identity = match header.map(|value| value.to_str().ok().and_then(token_of)) {
        None => None,
        Some(token) => match token.and_then(|token| hub.identity(&token)) {
            Some(identity) => Some(identity),
            None => {
                return challenge(
                    "Invalid username or token. Password authentication is not supported for Git operations.\n",
                );
            }
        },
    };
    let found = hub.find(owner, name.strip_suffix(".git").unwrap_or(name));
    let (identity, repository) = match (identity, found) {
        (identity, Some(repository)) if hub.allowed(identity.as_ref(), &repository, None) => {
            (identity, repository)
        }
        (None, _) => return challenge("Repository not found.\n"),
        (Some(_), _) => return (StatusCode::NOT_FOUND, "Repository not found.\n").into_response(),
    };
    if receive {
        let Some(who) = &identity else {
            return challenge("Write access needs credentials.\n");
        };
        if !hub.allowed(Some(who), &repository, Some("contents")) {
            let text = format!("Permission to {} denied to {}.\n", repository.slug, who.login);
            return (StatusCode::FORBIDDEN, text).into_response();
        }
    }
    let answered = if service == "git-receive-pack" {
        push(hub, &repository, identity, request).await
    } else {
        run(hub, &repository, service, identity.as_ref(), request).await
    };
    answered.unwrap_or_else(|error| {
        tracing::error!(%error, repository = %repository.slug, "git over HTTP failed");
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
    })
}

fn challenge(text: &str) -> Response {
    let headers = [(header::WWW_AUTHENTICATE, "Basic realm=\"GitHub\"")];
    (StatusCode::UNAUTHORIZED, headers, text.to_owned()).into_response()
}

/// A push: the refs are compared before and after, and what changed becomes events.
async fn push(
    hub: &Arc<Hub>,
    repository: &Arc<Repository>,
    identity: Option<Identity>,
    request: Request,
) -> Result<Response, LabError> {
    let failed = |error: super::git::GitError| failure(&error);
    let _one_writer = repository.writing.lock().await;
    let before = repository.git.refs().await.map_err(failed)?;
    let response = run(hub, repository, "git-receive-pack", identity.as_ref(), request).await?;
    // The answer is small, and the refs have moved for certain only once the child has ended.
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX)
        .await
        .map_err(|error| failure(&error))?;
    let after = repository.git.refs().await.map_err(failed)?;
    let actor = identity.map_or_else(String::new, |identity| identity.login);
    events::refs_moved(hub, repository, &before, &after, &actor)
        .await
        .map_err(failed)?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

fn failure(error: &dyn std::fmt::Display) -> LabError {
    LabError::Program {
        program: "git",
        reason: error.to_string(),
    }
}

/// Where `git http-backend` is; it is not on the PATH.
async fn backend(hub: &Hub) -> Result<PathBuf, LabError> {
    let found = hub.backend.get_or_try_init(|| async {
        let output = super::git::command()
            .arg("--exec-path")
            .output()
            .await
            .map_err(|error| failure(&error))?;
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("git-http-backend");
        if path.is_file() {
            Ok(path)
        } else {
            Err(failure(&format!(
                "it has no http-backend in {}; install the whole of git",
                path.display()
            )))
        }
    });
    found.await.cloned()
}

async fn run(
    hub: &Arc<Hub>,
    repository: &Repository,
    service: &str,
    identity: Option<&Identity>,
    request: Request,
) -> Result<Response, LabError> {
    let (parts, body) = request.into_parts();
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let mut command = tokio::process::Command::new(backend(hub).await?);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_PROJECT_ROOT", repository.git.path())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", text("git-protocol"))
        .env("PATH_INFO", format!("/{service}"))
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text("content-type"))
        .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if let Some(who) = identity {
        command.env("REMOTE_USER", &who.login);
    }
    if let Some(length) = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
    {
        command.env("CONTENT_LENGTH", length);
    }
    let mut child = command.spawn().map_err(|error| failure(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        let mut body = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
        tokio::spawn(async move {
            // A client that goes away, or a child that has read enough: either way the pipe is closed here.
            let _ = tokio::io::copy(&mut body, &mut stdin).await;
        });
    }
    let Some(stdout) = child.stdout.take() else {
        return Err(failure(&"http-backend has no output"));
    };
    answer(child, stdout).await
}

/// Turns the CGI answer into an HTTP answer: its head is read here, its body is streamed.
async fn answer(child: Child, stdout: ChildStdout) -> Result<Response, LabError> {
    let mut reader = BufReader::new(stdout);
    let mut response = Response::new(Body::empty());
    loop {
        let mut line = String::new();
        let read = (&mut reader)
            .take(16 * 1024)
            .read_line(&mut line)
            .await
            .map_err(|error| failure(&error))?;
        if read == 0 {
            return Err(failure(&"http-backend ended before its answer was complete"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(failure(&"http-backend wrote a header that is none"));
        };
        if name.eq_ignore_ascii_case("status") {
            let code = value
                .split_whitespace()
                .next()
                .and_then(|code| code.parse::<u16>().ok());
            *response.status_mut() = code
                .and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value.trim()),
        ) {
            response.headers_mut().append(name, value);
        }
    }
    let stream = futures_util::stream::unfold(
        (ReaderStream::new(reader), child),
        |(mut stream, mut child)| async move {
            match futures_util::StreamExt::next(&mut stream).await {
                Some(item) => Some((item, (stream, child))),
                None => {
                    // The refs have moved for certain only once the child has ended.
                    let _ = child.wait().await;
                    None::<(Result<Bytes, std::io::Error>, _)>
                }
            }
        },
    );
    *response.body_mut() = Body::from_stream(stream);
    Ok(response)
}
