//! Uploads of blobs: sessions, chunks in order, mounts.
//!
//! Follows "Pushing Blobs" of the distribution specification. The Location is the same for the whole session, and a chunk
//! that does not start where the last one ended is answered 416, as ECR does.

use super::super::Service;
use super::super::blobs::Upload;
use super::super::distribution::{CONTENT_DIGEST, Refused, parameter};
use super::digest_of;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use std::sync::atomic::Ordering;
use towpath_core::Digest;

/// `POST …/blobs/uploads/`: a mount, a whole blob, or a new session.
pub(super) async fn start(service: &Service, name: &str, request: Request) -> Result<Response, Refused> {
    service.create_on_push(name);
    service.with_repository(name, |_| ())?;
    let query = request.uri().query().map(ToOwned::to_owned);
    if let Some(digest) = parameter(query.as_deref(), "mount")
        && let Some(from) = parameter(query.as_deref(), "from")
        && mount(service, name, &digest_of(&digest)?, &from)
    {
        return Ok(created(name, &digest));
    }
    let mut upload = service.blobs.begin().map_err(|error| Refused::internal(&error))?;
    if let Some(digest) = parameter(query.as_deref(), "digest") {
        receive(&mut upload, request.into_body()).await?;
        return finish(service, name, upload, &digest);
    }
    let id = service.uploads.open(name, upload);
    Ok(progress(StatusCode::ACCEPTED, name, &id, 0))
}

/// Everything that happens at the Location of a session.
pub(super) async fn go_on(
    service: &Service,
    name: &str,
    id: &str,
    request: Request,
) -> Result<Response, Refused> {
    let session = service.uploads.find(name, id).ok_or_else(unknown)?;
    let mut guard = session.open.lock().await;
    let upload = guard.as_mut().map(|open| &mut open.upload).ok_or_else(unknown)?;
    match *request.method() {
        Method::GET | Method::HEAD => Ok(progress(StatusCode::NO_CONTENT, name, id, upload.received())),
        Method::DELETE => {
            service.uploads.close(id);
            *guard = None;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Method::PATCH => {
            check_order(request.headers(), upload)?;
            receive(upload, request.into_body()).await?;
            let status = if service.chunks_created.load(Ordering::Relaxed) {
                StatusCode::CREATED
            } else {
                StatusCode::ACCEPTED
            };
            Ok(progress(status, name, id, upload.received()))
        }
        Method::PUT => {
            let digest = parameter(request.uri().query(), "digest").unwrap_or_default();
            digest_of(&digest)?;
            check_order(request.headers(), upload)?;
            receive(upload, request.into_body()).await?;
            service.uploads.close(id);
            let open = guard.take().ok_or_else(unknown)?;
            finish(service, name, open.upload, &digest)
        }
        _ => Err(Refused::unsupported("The operation is unsupported.")),
    }
}

/// Whether the blob was mounted: only with the account setting on, by who may read it, from a repository with the same
/// encryption and an image that names the blob, and neither from nor into one of the cache.
fn mount(service: &Service, name: &str, digest: &Digest, from: &str) -> bool {
    if service.denies("ecr:GetDownloadUrlForLayer") {
        return false;
    }
    let mut store = service.store();
    let setting = store.settings.get("BLOB_MOUNTING");
    let enabled = setting.is_some_and(|value| value == "ENABLED");
    let (Some(source), Some(target)) = (store.repositories.get(from), store.repositories.get(name)) else {
        return false;
    };
    let mountable = enabled
        && source.pull_through.is_none()
        && target.pull_through.is_none()
        && source.encryption == target.encryption
        && source.blobs.contains(digest)
        && source.references(digest);
    if let Some(target) = store.repositories.get_mut(name).filter(|_| mountable) {
        target.blobs.insert(digest.clone());
    }
    mountable
}

/// A chunk that says where it starts must start where the last one ended.
fn check_order(headers: &HeaderMap, upload: &Upload) -> Result<(), Refused> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else {
        return Ok(());
    };
    let received = upload.received();
    let refused = |message| {
        Err(Refused::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "BLOB_UPLOAD_INVALID",
            message,
        ))
    };
    let bounds = range.to_str().ok().and_then(|text| {
        let (first, last) = text.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    });
    match bounds {
        Some((first, last)) if first == received && last >= first => Ok(()),
        Some((first, _)) if first != received => refused(format!(
            "First byte of the layer part is {first} instead of {received}"
        )),
        _ => refused("Content-Range must be first-last, both inclusive, in bytes".into()),
    }
}

/// Takes the bytes as they come. What has arrived when the connection is lost stays, so that it can be gone on with.
async fn receive(upload: &mut Upload, body: Body) -> Result<(), Refused> {
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            Refused::new(
                StatusCode::BAD_REQUEST,
                "BLOB_UPLOAD_INVALID",
                "the body ended before its length",
            )
        })?;
        upload.append(&chunk).map_err(|error| Refused::internal(&error))?;
    }
    Ok(())
}

fn finish(service: &Service, name: &str, upload: Upload, digest: &str) -> Result<Response, Refused> {
    let wanted = digest_of(digest)?;
    let kept = service
        .blobs
        .keep(upload, &wanted)
        .map_err(|error| Refused::internal(&error))?;
    if let Err(found) = kept {
        return Err(Refused::new(
            StatusCode::BAD_REQUEST,
            "DIGEST_INVALID",
            format!("Provided digest '{wanted}' did not match uploaded content, which has '{found}'"),
        ));
    }
    let mut store = service.store();
    let repository = store
        .repositories
        .get_mut(name)
        .ok_or_else(|| service.no_repository(name))?;
    repository.blobs.insert(wanted);
    Ok(created(name, digest))
}

fn created(name: &str, digest: &str) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/blobs/{digest}")),
        (CONTENT_DIGEST, digest.to_owned()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

fn progress(status: StatusCode, name: &str, id: &str, received: u64) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{name}/blobs/uploads/{id}")),
        (header::RANGE, format!("0-{}", received.saturating_sub(1))),
    ];
    let mut response = (status, headers).into_response();
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert("docker-upload-uuid", id);
    }
    response
}

fn unknown() -> Refused {
    Refused::new(
        StatusCode::NOT_FOUND,
        "BLOB_UPLOAD_UNKNOWN",
        "blob upload unknown to registry",
    )
}
