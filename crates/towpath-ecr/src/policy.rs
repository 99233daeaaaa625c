//! Texts of policies, compared by what they say (*Amazon ECR User Guide*, "Private repository policies" and "Private
//! registry permissions"; *AWS Identity and Access Management User Guide*, "Grammar of the IAM JSON policy language").

use crate::error::SERVICE;
use serde_json::{Map, Value};
use std::fmt;
use towpath_elements::{Error, ErrorKind, Result};

/// The longest policy of a repository or a registry, in characters.
const MOST_PERMISSIONS: usize = 10_240;
/// The longest lifecycle policy, in characters.
const MOST_LIFECYCLE: usize = 30_720;

/// The JSON text of a policy. Two are equal where they say the same: spaces, the order of fields and of lists, a list of
/// one instead of its item, and an account instead of its root user make no difference. The service writes policies its
/// own way, so that bytes tell nothing.
///
/// ```
/// use towpath_ecr::PolicyDocument;
/// let statement = |by| format!(r#"{{"Effect":"Allow","Principal":{{"AWS":{by}}},"Action":"ecr:BatchGetImage"}}"#);
/// let policy = |by| PolicyDocument::permissions(format!(r#"{{"Statement":[{}]}}"#, statement(by)));
/// assert_eq!(policy(r#""210987654321""#)?, policy(r#"["arn:aws:iam::210987654321:root"]"#)?);
/// assert_ne!(policy(r#""210987654321""#)?, policy(r#""*""#)?);
/// assert!(PolicyDocument::permissions("no JSON").is_err());
/// # Ok::<(), towpath_ecr::Error>(())
/// ```
#[derive(Clone)]
pub struct PolicyDocument {
    text: String,
    meaning: Value,
}

impl PolicyDocument {
    /// A policy that gives permissions, of a repository or of the registry.
    ///
    /// # Errors
    /// *Invalid* where the text is no JSON object or longer than 10,240 characters.
    pub fn permissions(text: impl Into<String>) -> Result<Self> {
        Self::read(text.into(), "the policy", MOST_PERMISSIONS)
    }

    /// A lifecycle policy.
    ///
    /// # Errors
    /// *Invalid* where the text is no JSON object or longer than 30,720 characters.
    pub fn lifecycle(text: impl Into<String>) -> Result<Self> {
        Self::read(text.into(), "the lifecycle policy", MOST_LIFECYCLE)
    }

    fn read(text: String, what: &'static str, most: usize) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::Invalid, SERVICE, "read", what);
        let length = text.chars().count();
        if length > most {
            return Err(invalid()
                .because(format!(
                    "it has {length} characters, and the service takes {most}"
                ))
                .advise("join its statements, or use conditions instead of lists"));
        }
        let policy: Map<String, Value> = serde_json::from_str(&text)
            .map_err(|error| invalid().because("it is no JSON object").caused_by(error))?;
        Ok(Self {
            meaning: meaning(None, Value::Object(policy)),
            text,
        })
    }

    /// The text, as it was given or as the service has it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for PolicyDocument {
    fn eq(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }
}

impl Eq for PolicyDocument {}

impl fmt::Display for PolicyDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PolicyDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyDocument").field(&self.text).finish()
    }
}

/// A value without the choices that mean nothing. Lists are sets in every policy of the service.
fn meaning(key: Option<&str>, value: Value) -> Value {
    let mut value = match value {
        Value::Array(list) => set(list.into_iter().map(|item| meaning(key, item)).collect()),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(
                fields
                    .map(|(key, value)| {
                        let value = meaning(Some(&key), value);
                        (key, value)
                    })
                    .collect(),
            )
        }
        Value::String(text) if key == Some("AWS") => Value::String(account(text)),
        other => other,
    };
    value.sort_all_objects();
    let everybody = key == Some("Principal") && value.as_object().is_some_and(|by| by.len() == 1);
    if everybody && value.get("AWS").is_some_and(|by| by == "*") {
        return "*".into();
    }
    value
}

fn set(mut list: Vec<Value>) -> Value {
    list.sort_by_cached_key(Value::to_string);
    list.dedup();
    match <[Value; 1]>::try_from(list) {
        Ok([one]) => one,
        Err(list) => Value::Array(list),
    }
}

/// The account of a root user's ARN, in any partition.
fn account(text: String) -> String {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        ["arn", _, "iam", "", account, "root"] => account.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(left: &str, right: &str) -> bool {
        PolicyDocument::permissions(left).unwrap() == PolicyDocument::permissions(right).unwrap()
    }

    #[test]
    fn what_means_the_same_is_equal() {
        for (left, right, expected) in [
            (r#"{"a":1,"b":2}"#, "{ \"b\" : 2,\n \"a\" : 1 }", true),
            (
                r#"{"Statement":[{"Action":["a","b"]}]}"#,
                r#"{"Statement":{"Action":["b","a"]}}"#,
                true,
            ),
            (r#"{"Action":["a","a"]}"#, r#"{"Action":"a"}"#, true),
            (r#"{"Action":[]}"#, r#"{"Action":"a"}"#, false),
            (r#"{"Principal":{"AWS":"*"}}"#, r#"{"Principal":"*"}"#, true),
            (r#"{"Principal":{"Service":"*"}}"#, r#"{"Principal":"*"}"#, false),
            (
                r#"{"Principal":{"AWS":["1","arn:aws-cn:iam::2:root"]}}"#,
                r#"{"Principal":{"AWS":["2","1"]}}"#,
                true,
            ),
            (
                r#"{"Principal":{"AWS":"arn:aws:iam::2:role/root"}}"#,
                r#"{"Principal":{"AWS":"2"}}"#,
                false,
            ),
            (r#"{"Effect":"Allow"}"#, r#"{"Effect":"Deny"}"#, false),
            (
                r#"{"rules":[{"rulePriority":1},{"rulePriority":2}]}"#,
                r#"{"rules":[{"rulePriority":2},{"rulePriority":1}]}"#,
                true,
            ),
        ] {
            assert_eq!(same(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn what_the_service_would_refuse_is_not_sent() {
        for text in ["", "[]", "\"text\"", "{", "null"] {
            let error = PolicyDocument::permissions(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        }
        let long = |length: usize| format!("{{\"a\":\"{}\"}}", "é".repeat(length - 8));
        assert!(PolicyDocument::permissions(long(10_240)).is_ok());
        assert!(PolicyDocument::permissions(long(10_241)).is_err());
        assert!(PolicyDocument::lifecycle(long(30_720)).is_ok());
        assert!(PolicyDocument::lifecycle(long(30_721)).is_err());
    }
}
