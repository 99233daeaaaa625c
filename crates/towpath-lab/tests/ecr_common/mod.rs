//! A registry of the lab, spoken to with signed raw JSON and plain HTTP.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use towpath_core::Digest;
use towpath_lab::ecr::{Ecr, EcrConfig};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub struct Lab {
    pub ecr: Ecr,
    pub http: Client,
    pub password: String,
    region: String,
}

impl Lab {
    pub async fn start(config: EcrConfig) -> Self {
        let region = config.region.clone();
        let ecr = Ecr::start(config).await.unwrap();
        Self {
            region,
            password: ecr.issue_password().expose().to_owned(),
            ecr,
            http: Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub async fn signed(
        &self,
        operation: &str,
        input: &Value,
        key: &str,
        secret: &str,
    ) -> (StatusCode, Value) {
        let url = format!("{}/", self.ecr.api_url());
        let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
        let body = input.to_string();
        let identity = Credentials::new(key, secret, None, None, "test").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ecr")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", &target),
        ];
        let signed_body = SignableBody::Bytes(body.as_bytes());
        let signable = SignableRequest::new("POST", &url, headers.into_iter(), signed_body).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let mut request = self.http.post(&url).body(body.clone());
        for (name, value) in headers.into_iter().chain(instructions.headers()) {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        (
            status,
            serde_json::from_str(&response.text().await.unwrap()).unwrap(),
        )
    }

    pub async fn ask(&self, operation: &str, input: &Value) -> (StatusCode, Value) {
        let config = EcrConfig::default();
        let secret = config.secret_access_key.expose();
        self.signed(operation, input, &config.access_key_id, secret).await
    }

    pub async fn call(&self, operation: &str, input: Value) -> Value {
        let (status, answer) = self.ask(operation, &input).await;
        assert_eq!(status, StatusCode::OK, "{operation}: {answer}");
        answer
    }

    /// The type of the error that an operation answers.
    pub async fn refused(&self, operation: &str, input: Value) -> String {
        let (status, answer) = self.ask(operation, &input).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{operation}: {answer}");
        answer["__type"].as_str().unwrap().to_owned()
    }

    pub fn v2(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = path.strip_prefix("/v2/").unwrap_or(path);
        let url = format!("http://{}/v2/{path}", self.ecr.registry_host());
        self.http
            .request(method, url)
            .basic_auth("AWS", Some(&self.password))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.v2(Method::GET, path).send().await.unwrap()
    }

    pub async fn repository(&self, name: &str) {
        self.call("CreateRepository", json!({"repositoryName": name}))
            .await;
    }

    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let path = format!("{repository}/blobs/uploads/?digest={digest}");
        let response = self
            .v2(Method::POST, &path)
            .body(bytes.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        digest
    }

    pub async fn put(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Response {
        let path = format!("{repository}/manifests/{reference}");
        let request = self.v2(Method::PUT, &path).header("content-type", media_type);
        request.body(bytes.to_vec()).send().await.unwrap()
    }

    /// Pushes an image whose one layer has these bytes.
    pub async fn push_image(&self, repository: &str, reference: &str, layer: &[u8]) -> Digest {
        let bytes = self.image(repository, layer, json!({})).await;
        let response = self.put(repository, reference, MANIFEST, &bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        Digest::sha256_of(&bytes)
    }

    /// Pushes the blobs of an image, and gives its manifest.
    pub async fn image(&self, repository: &str, layer: &[u8], more: Value) -> Vec<u8> {
        self.push_blob(repository, layer).await;
        self.push_blob(repository, b"{}").await;
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": Digest::sha256_of("{}").as_str(), "size": 2},
            "layers": [{"mediaType": LAYER, "digest": Digest::sha256_of(layer).as_str(), "size": layer.len()}],
        });
        manifest
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        manifest.to_string().into_bytes()
    }

    /// Asks for the findings of an image until its scan is not under way any more; with the states it went through.
    pub async fn scanned(&self, repository: &str, digest: &Digest) -> (Value, Vec<String>) {
        let input = json!({"repositoryName": repository, "imageId": {"imageDigest": digest.as_str()}});
        let mut seen: Vec<String> = Vec::new();
        loop {
            let (_, answer) = self.ask("DescribeImageScanFindings", &input).await;
            let state = answer["imageScanStatus"]["status"]
                .as_str()
                .or(answer["__type"].as_str());
            let state = state.unwrap().to_owned();
            if seen.last() != Some(&state) {
                seen.push(state.clone());
            }
            if !["ScanNotFoundException", "IN_PROGRESS", "PENDING"].contains(&state.as_str()) {
                return (answer, seen);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub async fn error_of(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = |name: &str| body["errors"][0][name].as_str().unwrap().to_owned();
    (status, text("code"), text("message"))
}

/// Status and code.
pub async fn code_of(response: Response) -> (u16, String) {
    let (status, code, _) = error_of(response).await;
    (status, code)
}

pub fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
