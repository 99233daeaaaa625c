//! A caller of the API that signs as the SDKs do, with keys that a test may spoil.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::SystemTime;
use towpath_lab::codeartifact::{CodeArtifact, CodeArtifactConfig};

/// The query that names the repository of most tests.
pub(crate) const IN: &str = "domain=acme&repository=libraries";

pub(crate) struct Caller {
    pub(crate) url: String,
    pub(crate) config: CodeArtifactConfig,
}

pub(crate) async fn lab() -> (CodeArtifact, Caller) {
    let config = CodeArtifactConfig::default();
    let lab = CodeArtifact::start(config.clone()).await.unwrap();
    let caller = Caller {
        url: lab.api_url(),
        config,
    };
    (lab, caller)
}

/// The status, the name and the body of an error.
pub(crate) async fn failure(response: Response) -> (u16, String, Value) {
    let code = response.headers()["x-amzn-errortype"]
        .to_str()
        .unwrap()
        .to_owned();
    (response.status().as_u16(), code, response.json().await.unwrap())
}

impl Caller {
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response {
        let url = format!("{}{path}", self.url);
        let secret = self.config.secret_access_key.expose();
        let identity = Credentials::new(&self.config.access_key_id, secret, None, None, "test").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.config.region)
            .name("codeartifact")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        // An SDK that is given the hash signs that, and does not hash the body again.
        let said = headers.iter().find(|(name, _)| *name == "x-amz-content-sha256");
        let content = match said {
            Some((_, hash)) => SignableBody::Precomputed((*hash).to_owned()),
            None => SignableBody::Bytes(&body),
        };
        let signable = SignableRequest::new(method.as_str(), &url, headers.iter().copied(), content).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let mut request = reqwest::Client::new().request(method, &url);
        for (name, value) in headers.iter().copied().chain(instructions.headers()) {
            request = request.header(name, value);
        }
        request.body(body).send().await.unwrap()
    }

    pub(crate) async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let response = self.send(method, path, &[], body).await;
        let status = response.status();
        let answer = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        serde_json::from_str(&answer).unwrap()
    }

    pub(crate) async fn fails(&self, method: Method, path: &str, body: Value) -> (u16, String, Value) {
        failure(self.send(method, path, &[], body.to_string().into_bytes()).await).await
    }

    pub(crate) async fn publish(&self, query: &str, asset: &[u8]) -> Response {
        let hash = hex::encode(Sha256::digest(asset));
        let path = format!("/v1/package/version/publish?{IN}&{query}");
        self.send(
            Method::POST,
            &path,
            &[("x-amz-content-sha256", &hash)],
            asset.to_vec(),
        )
        .await
    }

    /// A token of the domain, and the endpoint of a repository for Cargo.
    pub(crate) async fn cargo(&self, repository: &str) -> (String, String) {
        let path = "/v1/authorization-token?domain=acme";
        let token = self.ok(Method::POST, path, Value::Null).await;
        let path = format!("/v1/repository/endpoint?domain=acme&repository={repository}&format=cargo");
        let endpoint = self.ok(Method::GET, &path, Value::Null).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            text(&token["authorizationToken"]),
            text(&endpoint["repositoryEndpoint"]),
        )
    }
}
