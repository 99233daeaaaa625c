//! Operations on the registry as a whole: tokens, account settings.

use super::super::Service;
use super::super::scan::seconds;
use super::Answer;
use super::error::ApiError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
pub(super) struct AccountSetting {
    name: String,
    value: Option<String>,
}

pub(super) fn get_authorization_token(service: &Service) -> Value {
    let (password, ends) = service.issue_token();
    json!({"authorizationData": [{
        "authorizationToken": STANDARD.encode(format!("AWS:{password}")),
        "expiresAt": seconds(ends),
        "proxyEndpoint": format!("http://{}", service.registry_host),
    }]})
}

pub(super) fn get_account_setting(service: &Service, input: AccountSetting) -> Answer {
    let standard = check(&input.name)?.first().copied();
    let store = service.store();
    let value = store.settings.get(&input.name).map(String::as_str).or(standard);
    Ok(json!({"name": input.name, "value": value}))
}

pub(super) fn put_account_setting(service: &Service, input: AccountSetting) -> Answer {
    let allowed = check(&input.name)?;
    let value = input.value.filter(|value| allowed.contains(&value.as_str()));
    let Some(value) = value else {
        let constraint = format!("Member must satisfy enum value set: [{}]", allowed.join(", "));
        return Err(ApiError::invalid("value", &constraint));
    };
    service.store().settings.insert(input.name.clone(), value.clone());
    Ok(json!({"name": input.name, "value": value}))
}

/// The values of a setting, the one it has from the start first.
fn check(name: &str) -> Result<&'static [&'static str], ApiError> {
    match name {
        "BASIC_SCAN_TYPE_VERSION" => Ok(&["AWS_NATIVE"]),
        "REGISTRY_POLICY_SCOPE" => Ok(&["V2"]),
        "BLOB_MOUNTING" => Ok(&["DISABLED", "ENABLED"]),
        _ => Err(ApiError::invalid(
            "name",
            "Member must be the name of an account setting",
        )),
    }
}
