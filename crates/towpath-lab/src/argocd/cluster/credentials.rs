//! How a node gets its registry credentials: the ECR credential provider of EKS.
//!
//! It follows `GetAuthorizationToken` of the *Amazon ECR API Reference*: a JSON request signed with Signature
//! Version 4, and an answer whose `authorizationToken` is the Base64 text of a Basic authorization.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use towpath_core::Secret;
use url::Url;

/// A registry that the nodes of the cluster may pull from, and the ECR API that hands out its credentials.
#[derive(Clone, Debug)]
pub struct RegistryAccess {
    /// The registry as image references write it, such as `127.0.0.1:5000`.
    pub host: String,
    /// The endpoint of the ECR API.
    pub ecr_api: Url,
    /// The Region that requests are signed for.
    pub region: String,
    /// The access key id of the node's role.
    pub access_key: String,
    /// Its secret.
    pub secret_key: Secret,
}

#[derive(Debug)]
struct Token {
    basic: Secret,
    expires: Timestamp,
}

/// The tokens that a node holds, one for each registry, kept until shortly before they expire.
#[derive(Debug)]
pub(super) struct CredentialProvider {
    access: Vec<RegistryAccess>,
    tokens: Mutex<HashMap<String, Token>>,
}

impl CredentialProvider {
    pub(super) fn new(access: Vec<RegistryAccess>) -> Self {
        Self {
            access,
            tokens: Mutex::default(),
        }
    }

    /// The Basic credentials for a registry; `None` where none is configured for it.
    pub(super) async fn basic(
        &self,
        client: &reqwest::Client,
        host: &str,
        now: Timestamp,
    ) -> Result<Option<Secret>, String> {
        let Some(access) = self.access.iter().find(|access| access.host == host) else {
            return Ok(None);
        };
        if let Some(token) = self.lock().get(host)
            && token.expires > now
        {
            return Ok(Some(token.basic.clone()));
        }
        let token = ask(client, access).await?;
        let basic = token.basic.clone();
        self.lock().insert(host.to_owned(), token);
        Ok(Some(basic))
    }

    /// Forgets the token of a registry that has refused it.
    pub(super) fn forget(&self, host: &str) {
        self.lock().remove(host);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Token>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(client: &reqwest::Client, access: &RegistryAccess) -> Result<Token, String> {
    const BODY: &str = "{}";
    let failed = |what: String| format!("getting credentials for {} from ECR: {what}", access.host);
    let mut request = http::Request::post(access.ecr_api.as_str())
        .header("content-type", "application/x-amz-json-1.1")
        .header(
            "x-amz-target",
            "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
        )
        .body(BODY)
        .map_err(|error| failed(error.to_string()))?;
    let identity = Credentials::new(
        access.access_key.as_str(),
        access.secret_key.expose(),
        None,
        None,
        "lab-node",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&access.region)
        .name("ecr")
        // The registry does not go by the lab's clock.
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| failed(error.to_string()))?
        .into();
    let headers: Vec<(&str, &str)> = request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
        .collect();
    let signable = SignableRequest::new(
        "POST",
        access.ecr_api.as_str(),
        headers.into_iter(),
        SignableBody::Bytes(BODY.as_bytes()),
    )
    .map_err(|error| failed(error.to_string()))?;
    let (instructions, _) = sign(signable, &params)
        .map_err(|error| failed(error.to_string()))?
        .into_parts();
    instructions.apply_to_request_http1x(&mut request);
    let (parts, body) = request.into_parts();
    let answer = client
        .post(access.ecr_api.clone())
        .headers(parts.headers)
        .body(body)
        .send()
        .await
        .map_err(|error| failed(error.to_string()))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| failed(error.to_string()))?;
    if !status.is_success() {
        return Err(failed(format!("{status}: {text}")));
    }
    read(&text).ok_or_else(|| failed("the answer carries no authorizationData".into()))
}

fn read(text: &str) -> Option<Token> {
    let answer: Value = serde_json::from_str(text).ok()?;
    let data = answer.get("authorizationData")?.get(0)?;
    let basic = Secret::new(data.get("authorizationToken")?.as_str()?);
    let expires = Timestamp::from_second(data.get("expiresAt")?.as_f64()? as i64).ok()?;
    Some(Token { basic, expires })
}
