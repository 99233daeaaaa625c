//! The JSON API: `POST /` with `X-Amz-Target: AmazonEC2ContainerRegistry_V20150921.<operation>`, AWS JSON 1.1.
//!
//! Shapes, errors and constraints follow the service's public model. Every request has to be signed.

mod error;
mod image_status;
mod images;
mod layers;
mod lifecycle;
mod listing;
mod pages;
mod policies;
mod pull_through;
mod registry;
mod replication;
mod repositories;
mod scanning;
mod signing;
mod tags;
mod templates;

pub(super) use replication::{Destination, ReplicationConfiguration};
pub(super) use signing::SigningConfiguration;

use super::Service;
use super::manifest::MAX_BYTES;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use error::ApiError;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.";
const MEDIA_TYPE: &str = "application/x-amz-json-1.1";

/// What an operation answers.
type Answer = Result<Value, ApiError>;

/// The router of the API's port.
pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .fallback(serve)
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(service)
}

async fn serve(State(service): State<Arc<Service>>, request: Request) -> Response {
    let answer = answer(&service, request).await;
    let request_id = ("x-amzn-requestid", uuid::Uuid::new_v4().to_string());
    match answer {
        Ok(body) => {
            let headers = [(header::CONTENT_TYPE, MEDIA_TYPE)];
            (headers, [request_id], body.to_string()).into_response()
        }
        Err(error) => ([request_id], error).into_response(),
    }
}

async fn answer(service: &Service, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    // A manifest is JSON within JSON here, at worst with every byte escaped; a part of a layer is base64.
    let Ok(body) = to_bytes(body, (6 * MAX_BYTES).max(2 * layers::LARGEST_PART)).await else {
        return Err(ApiError::new(
            "SerializationException",
            "the request is too large or not complete",
        ));
    };
    service
        .verifier
        .verify(&parts.method, &parts.uri, &parts.headers, &body)?;
    let target = parts
        .headers
        .get("x-amz-target")
        .and_then(|value| value.to_str().ok());
    let operation = target.and_then(|target| target.strip_prefix(TARGET));
    match operation {
        Some(operation) if parts.method == Method::POST => {
            permit(service, operation, &body)?;
            dispatch(service, operation, &body).await
        }
        _ => Err(ApiError::unknown_operation()),
    }
}

/// Actions of IAM are called like the operations.
fn permit(service: &Service, operation: &str, body: &[u8]) -> Result<(), ApiError> {
    let input: Value = serde_json::from_slice(body).unwrap_or_default();
    let named = input
        .get("repositoryName")
        .or_else(|| input.pointer("/repositoryNames/0"));
    let repository = named.and_then(Value::as_str);
    match service.denial(&format!("ecr:{operation}"), repository) {
        Some(message) => Err(ApiError::new("AccessDeniedException", message)),
        None => Ok(()),
    }
}

async fn dispatch(service: &Service, operation: &str, body: &[u8]) -> Answer {
    match operation {
        "BatchCheckLayerAvailability" => layers::batch_check_availability(service, read(body)?),
        "BatchDeleteImage" => images::batch_delete(service, read(body)?),
        "BatchGetImage" => images::batch_get(service, read(body)?).await,
        "BatchGetRepositoryScanningConfiguration" => scanning::batch_get_configuration(service, read(body)?),
        "CompleteLayerUpload" => layers::complete_upload(service, read(body)?).await,
        "CreatePullThroughCacheRule" => pull_through::create(service, read(body)?),
        "CreateRepository" => repositories::create(service, read(body)?),
        "CreateRepositoryCreationTemplate" => templates::create(service, read(body)?),
        "DeleteLifecyclePolicy" => lifecycle::delete(service, read(body)?),
        "DeletePullThroughCacheRule" => pull_through::delete(service, read(body)?),
        "DeleteRegistryPolicy" => policies::delete_registry(service),
        "DeleteRepository" => repositories::delete(service, read(body)?),
        "DeleteRepositoryCreationTemplate" => templates::delete(service, read(body)?),
        "DeleteRepositoryPolicy" => policies::delete(service, read(body)?),
        "DeleteSigningConfiguration" => signing::delete(service),
        "DeregisterPullTimeUpdateExclusion" => signing::deregister(service, read(body)?),
        "DescribeImageReplicationStatus" => image_status::replication(service, read(body)?),
        "DescribeImages" => listing::describe(service, read(body)?),
        "DescribeImageScanFindings" => scanning::describe_findings(service, read(body)?),
        "DescribeImageSigningStatus" => image_status::signing(service, read(body)?),
        "DescribePullThroughCacheRules" => pull_through::describe(service, read(body)?),
        "DescribeRegistry" => Ok(replication::describe_registry(service)),
        "DescribeRepositories" => repositories::describe(service, read(body)?),
        "DescribeRepositoryCreationTemplates" => templates::describe(service, read(body)?),
        "GetAccountSetting" => registry::get_account_setting(service, read(body)?),
        "GetAuthorizationToken" => Ok(registry::get_authorization_token(service)),
        "GetDownloadUrlForLayer" => layers::get_download_url(service, read(body)?),
        "GetRegistryPolicy" => policies::get_registry(service),
        "GetRegistryScanningConfiguration" => Ok(scanning::get_configuration(service)),
        "GetRepositoryPolicy" => policies::get(service, read(body)?),
        "GetSigningConfiguration" => signing::get(service),
        "InitiateLayerUpload" => layers::initiate_upload(service, read(body)?),
        "ListPullTimeUpdateExclusions" => signing::list(service, read(body)?),
        "ListTagsForResource" => tags::list(service, read(body)?),
        "GetLifecyclePolicy" => lifecycle::get(service, read(body)?),
        "GetLifecyclePolicyPreview" => lifecycle::preview(service, read(body)?),
        "ListImageReferrers" => listing::referrers(service, read(body)?),
        "ListImages" => listing::list(service, read(body)?),
        "PutAccountSetting" => registry::put_account_setting(service, read(body)?),
        "PutImage" => images::put(service, read(body)?),
        "PutImageScanningConfiguration" => repositories::put_scanning(service, read(body)?),
        "PutImageTagMutability" => repositories::put_mutability(service, read(body)?),
        "PutRegistryPolicy" => policies::put_registry(service, read(body)?),
        "PutLifecyclePolicy" => lifecycle::put(service, read(body)?),
        "PutRegistryScanningConfiguration" => scanning::put_configuration(service, read(body)?),
        "PutReplicationConfiguration" => replication::put(service, read(body)?),
        "PutSigningConfiguration" => signing::put(service, read(body)?),
        "RegisterPullTimeUpdateExclusion" => signing::register(service, read(body)?),
        "SetRepositoryPolicy" => policies::set(service, read(body)?),
        "StartImageScan" => scanning::start(service, read(body)?),
        "TagResource" => tags::tag(service, read(body)?),
        "UntagResource" => tags::untag(service, read(body)?),
        "StartLifecyclePolicyPreview" => lifecycle::start_preview(service, read(body)?),
        "UpdateImageStorageClass" => image_status::update_storage_class(service, read(body)?),
        "UpdatePullThroughCacheRule" => pull_through::update(service, read(body)?),
        "UpdateRepositoryCreationTemplate" => templates::update(service, read(body)?),
        "UploadLayerPart" => layers::upload_part(service, read(body)?).await,
        "ValidatePullThroughCacheRule" => pull_through::validate(service, read(body)?).await,
        _ => Err(ApiError::unknown_operation()),
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::new("SerializationException", error.to_string()))
}
