//! Checks AWS Signature Version 4 on a request as an AWS service's front end does: it signs what arrived once more,
//! with the secret that belongs to the access key, and compares.
//!
//! Follows "Create a signed AWS API request" of the IAM user guide, and the common errors every service documents.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use std::time::SystemTime;
use subtle::ConstantTimeEq;
use towpath_core::Secret;

/// How far the time in a signature may be from the service's own, in seconds.
const CLOCK_SKEW: i64 = 300;
/// The header that carries the body's hash, where the client says it itself.
const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// What that header says when the body is not part of the signature.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Who may sign, and for which service.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    pub(crate) region: String,
    /// The signing name, such as `codeartifact`.
    pub(crate) service: &'static str,
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: Secret,
    /// Whether a signature may leave the body out, as the service's model allows for some uploads.
    pub(crate) unsigned_payload: bool,
}

/// Why a signature was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no signature.
    Missing,
    /// There is something like a signature, but it lacks what is said here.
    Incomplete(String),
    /// Nobody has this access key.
    UnknownKey,
    /// The signature is for another time, place or request.
    Mismatch(String),
    /// `x-amz-content-sha256` is not the hash of the body that came.
    Body,
}

impl Refusal {
    /// The error code, which each service writes in its own place, and the status.
    pub(crate) fn code(&self) -> (&'static str, StatusCode) {
        match self {
            Self::Missing => ("MissingAuthenticationTokenException", StatusCode::FORBIDDEN),
            Self::Incomplete(_) => ("IncompleteSignatureException", StatusCode::BAD_REQUEST),
            Self::UnknownKey => ("UnrecognizedClientException", StatusCode::FORBIDDEN),
            Self::Mismatch(_) | Self::Body => ("InvalidSignatureException", StatusCode::FORBIDDEN),
        }
    }

    /// What the service says about it.
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Missing => "Missing Authentication Token".into(),
            Self::Incomplete(what) | Self::Mismatch(what) => what.clone(),
            Self::UnknownKey => "The security token included in the request is invalid.".into(),
            Self::Body => "The x-amz-content-sha256 header is not the SHA-256 of the body.".into(),
        }
    }
}

/// The parts of `Authorization: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
struct Authorization<'a> {
    access_key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl Verifier {
    /// Accepts or refuses a request as it arrived. `body` must be all of it.
    pub(crate) fn verify(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), Refusal> {
        self.verify_at(method, uri, headers, body, Timestamp::now())
    }

    fn verify_at(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let authorization = headers.get("authorization").ok_or(Refusal::Missing)?;
        let claim = Authorization::parse(authorization.to_str().unwrap_or_default())?;
        let signed_at = self.check_scope(&claim, text(headers, "x-amz-date")?, now)?;
        let hash = self.payload_hash(headers, body)?;
        let expected = self.sign(method, uri, headers, &claim, &hash, signed_at)?;
        if bool::from(expected.as_bytes().ct_eq(claim.signature.as_bytes())) {
            Ok(())
        } else {
            Err(Refusal::Mismatch(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details."
                    .into(),
            ))
        }
    }

    fn check_scope(
        &self,
        claim: &Authorization<'_>,
        date: &str,
        now: Timestamp,
    ) -> Result<Timestamp, Refusal> {
        let signed_at = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
            .and_then(|time| TimeZone::UTC.to_timestamp(time))
            .map_err(|_| Refusal::Incomplete("X-Amz-Date must be like 20150830T123600Z.".into()))?;
        if claim.access_key_id != self.access_key_id {
            return Err(Refusal::UnknownKey);
        }
        if (claim.region, claim.service) != (self.region.as_str(), self.service) {
            return Err(Refusal::Mismatch(format!(
                "Credential should be scoped to a valid region and to service '{}'.",
                self.service
            )));
        }
        if !date.starts_with(claim.date) || claim.date.len() != 8 {
            return Err(Refusal::Mismatch(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP."
                    .into(),
            ));
        }
        let skew = now.as_second() - signed_at.as_second();
        if skew > CLOCK_SKEW {
            return Err(Refusal::Mismatch(format!(
                "Signature expired: {date} is too long ago."
            )));
        }
        if skew < -CLOCK_SKEW {
            return Err(Refusal::Mismatch(format!(
                "Signature not yet current: {date} is still to come."
            )));
        }
        Ok(signed_at)
    }

    /// The hash that the signature covers: the one the client says, checked against the body, or else the body's.
    fn payload_hash(&self, headers: &HeaderMap, body: &[u8]) -> Result<String, Refusal> {
        let actual = hex::encode(Sha256::digest(body));
        match headers
            .get(CONTENT_SHA256)
            .map(|value| value.to_str().unwrap_or_default())
        {
            None => Ok(actual),
            Some(UNSIGNED_PAYLOAD) if self.unsigned_payload => Ok(UNSIGNED_PAYLOAD.into()),
            Some(said) if said == actual => Ok(actual),
            Some(_) => Err(Refusal::Body),
        }
    }

    /// The signature that the request should have: over the headers that the client says it signed.
    fn sign(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        claim: &Authorization<'_>,
        hash: &str,
        signed_at: Timestamp,
    ) -> Result<String, Refusal> {
        for required in ["host", "x-amz-date"] {
            if !claim.signed_headers.contains(&required) {
                return Err(Refusal::Incomplete(format!(
                    "'{required}' must be a 'SignedHeader'."
                )));
            }
        }
        let mut signed = Vec::new();
        for name in &claim.signed_headers {
            text(headers, name)?;
            for value in headers.get_all(*name) {
                signed.push((*name, value.to_str().map_err(|_| unreadable(name))?));
            }
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("http://{}{path}", text(headers, "host")?);
        let mut settings = SigningSettings::default();
        settings.excluded_headers = None;
        let credentials = Credentials::new(
            &self.access_key_id,
            self.secret_access_key.expose(),
            None,
            None,
            "lab",
        );
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(SystemTime::try_from(signed_at).map_err(|_| cannot())?)
            .settings(settings)
            .build()
            .map_err(|_| cannot())?
            .into();
        let body = SignableBody::Precomputed(hash.to_owned());
        let request =
            SignableRequest::new(method.as_str(), &url, signed.into_iter(), body).map_err(|_| cannot())?;
        Ok(sign(request, &params).map_err(|_| cannot())?.into_parts().1)
    }
}

impl<'a> Authorization<'a> {
    fn parse(value: &'a str) -> Result<Self, Refusal> {
        let parts = value.strip_prefix("AWS4-HMAC-SHA256").ok_or(Refusal::Missing)?;
        let part = |name: &str| {
            let mut found = parts
                .split(',')
                .filter_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            found.next().ok_or_else(|| {
                Refusal::Incomplete(format!("Authorization header requires '{name}' parameter."))
            })
        };
        let scope: Vec<&str> = part("Credential")?.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = scope[..] else {
            return Err(Refusal::Incomplete(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.".into(),
            ));
        };
        Ok(Self {
            access_key_id,
            date,
            region,
            service,
            signed_headers: part("SignedHeaders")?.split(';').collect(),
            signature: part("Signature")?,
        })
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Refusal> {
    let value = headers
        .get(name)
        .ok_or_else(|| Refusal::Incomplete(format!("The header '{name}' is missing.")))?;
    value.to_str().map_err(|_| unreadable(name))
}

fn cannot() -> Refusal {
    Refusal::Incomplete("The request cannot be signed as it is.".into())
}

fn unreadable(name: &str) -> Refusal {
    Refusal::Incomplete(format!("The header '{name}' is not plain text."))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the IAM user guide: its signature was not made by the library that checks it here.
    #[test]
    fn the_documents_own_example_is_accepted() {
        let verifier = Verifier {
            region: "us-east-1".into(),
            service: "iam",
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
            unsigned_payload: false,
        };
        let uri: Uri = "/?Action=ListUsers&Version=2010-05-08".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("host", "iam.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20150830T123600Z".parse().unwrap());
        headers.insert(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8"
                .parse()
                .unwrap(),
        );
        headers.insert(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
                .parse()
                .unwrap(),
        );
        let then: Timestamp = "2015-08-30T12:36:10Z".parse().unwrap();
        let check =
            |headers: &HeaderMap, body: &[u8], at| verifier.verify_at(&Method::GET, &uri, headers, body, at);
        assert_eq!(check(&headers, b"", then), Ok(()));
        assert!(matches!(check(&headers, b"x", then), Err(Refusal::Mismatch(_))));
        let late = "2015-08-30T12:46:10Z".parse().unwrap();
        assert!(matches!(check(&headers, b"", late), Err(Refusal::Mismatch(_))));
        headers.insert(CONTENT_SHA256, "00".parse().unwrap());
        assert_eq!(check(&headers, b"", then), Err(Refusal::Body));
        headers.insert(CONTENT_SHA256, UNSIGNED_PAYLOAD.parse().unwrap());
        assert_eq!(check(&headers, b"", then), Err(Refusal::Body));
        headers.remove("content-type");
        assert!(check(&headers, b"", then).is_err());
        headers.insert(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=a/b".parse().unwrap(),
        );
        assert!(matches!(check(&headers, b"", then), Err(Refusal::Incomplete(_))));
        headers.remove("authorization");
        assert_eq!(check(&headers, b"", then), Err(Refusal::Missing));
    }
}
