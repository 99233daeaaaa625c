//! Checks AWS Signature Version 4 on a request, by signing it again with the secret that belongs to its access key.
//!
//! Follows the "Signature Version 4 signing process" of the AWS General Reference; the errors are those of its list of
//! common errors.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::request::Parts;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::time::{Duration, SystemTime};
use subtle::ConstantTimeEq as _;
use towpath_core::Secret;

/// How far the clock of a client may be off.
const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

/// The one pair of keys of an account, and what requests have to be signed for.
#[derive(Clone, Debug)]
pub(super) struct Verifier {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
    pub(super) region: String,
    pub(super) service: &'static str,
}

/// Why a request is not believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Disbelief {
    pub(super) kind: &'static str,
    pub(super) message: String,
}

struct Authorization<'a> {
    access_key: &'a str,
    scope: [&'a str; 4],
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl Verifier {
    pub(super) fn verify(&self, request: &Parts, body: &[u8]) -> Result<(), Disbelief> {
        let text = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let Some(header) = text("authorization") else {
            return Err(disbelief(
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ));
        };
        let incomplete = |what: &str| disbelief("IncompleteSignatureException", what);
        let authorization = Authorization::parse(header).ok_or_else(|| {
            incomplete(
                "Authorization header requires AWS4-HMAC-SHA256 Credential, SignedHeaders and Signature",
            )
        })?;
        let date = text("x-amz-date")
            .ok_or_else(|| incomplete("Authorization header requires existence of 'X-Amz-Date'"))?;
        let time = time_of(date).ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'"))?;
        if authorization.access_key != self.access_key_id {
            return Err(disbelief(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ));
        }
        let wanted = [
            date.get(..8).unwrap_or_default(),
            &self.region,
            self.service,
            "aws4_request",
        ];
        if authorization.scope != wanted {
            return Err(invalid(format!(
                "Credential should be scoped to a valid region and service: found {}, expected {}",
                authorization.scope.join("/"),
                wanted.join("/")
            )));
        }
        let now = SystemTime::now();
        let skew = now.duration_since(time).unwrap_or_else(|error| error.duration());
        if skew > MAX_SKEW {
            return Err(invalid(format!(
                "Signature expired: {date} is more than {} minutes from the time of the server",
                MAX_SKEW.as_secs() / 60
            )));
        }
        if !authorization.signed_headers.contains(&"host") {
            return Err(invalid(
                "'Host' must be a 'SignedHeader' in the AWS Authorization.".into(),
            ));
        }
        let expected = self.sign(request, body, &authorization.signed_headers, time)?;
        if bool::from(expected.as_bytes().ct_eq(authorization.signature.as_bytes())) {
            Ok(())
        } else {
            Err(invalid(
                "The request signature we calculated does not match the signature you provided. Check your AWS \
                 Secret Access Key and signing method. Consult the service documentation for details."
                    .into(),
            ))
        }
    }

    fn sign(
        &self,
        request: &Parts,
        body: &[u8],
        names: &[&str],
        time: SystemTime,
    ) -> Result<String, Disbelief> {
        let unsignable =
            |error: &dyn std::fmt::Display| invalid(format!("the request cannot be signed: {error}"));
        let identity = Credentials::new(
            &self.access_key_id,
            self.secret_access_key.expose(),
            None,
            None,
            "lab",
        )
        .into();
        // The client said which headers it signed: exactly those, so none is left out here.
        let mut settings = SigningSettings::default();
        settings.excluded_headers = None;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(time)
            .settings(settings)
            .build()
            .map_err(|error| unsignable(&error))?
            .into();
        let headers = request.headers.iter().filter_map(|(name, value)| {
            let signed = names.contains(&name.as_str());
            signed.then_some((name.as_str(), value.to_str().ok()?))
        });
        let uri = request.uri.to_string();
        // The signer wants a host in the URI, though the one it signs is the one in the Host header.
        let uri = if uri.starts_with('/') {
            format!("http://signed-host{uri}")
        } else {
            uri
        };
        let signable = SignableRequest::new(request.method.as_str(), uri, headers, SignableBody::Bytes(body))
            .map_err(|error| unsignable(&error))?;
        let (_, signature) = sign(signable, &params)
            .map_err(|error| unsignable(&error))?
            .into_parts();
        Ok(signature)
    }
}

impl<'a> Authorization<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let fields = header.strip_prefix("AWS4-HMAC-SHA256")?;
        let field = |name: &str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let (access_key, scope) = field("Credential")?.split_once('/')?;
        let scope: Vec<&str> = scope.split('/').collect();
        Some(Self {
            access_key,
            scope: scope.try_into().ok()?,
            signed_headers: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
        })
    }
}

fn time_of(date: &str) -> Option<SystemTime> {
    let time = DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    let seconds = TimeZone::UTC.to_timestamp(time).ok()?.as_second();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn invalid(message: String) -> Disbelief {
    Disbelief {
        kind: "InvalidSignatureException",
        message,
    }
}

fn disbelief(kind: &'static str, message: &str) -> Disbelief {
    Disbelief {
        kind,
        message: message.to_owned(),
    }
}
