//! Texts of policies, compared by what they say (*Amazon ECR User Guide*, "Private repository policies" and "Private
//! registry permissions"; *AWS Identity and Access Management User Guide*, "Grammar of the IAM JSON policy language").

use crate::error::SERVICE;
use crate::lifecycle::LifecyclePolicy;
use serde_json::{Map, Value};
use std::fmt;
use towpath_elements::{Error, ErrorKind, Result};

/// The longest policy of a repository or a registry, in characters.
const MOST_PERMISSIONS: usize = 10_240;

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
        let text = text.into();
        let invalid = || Error::new(ErrorKind::Invalid, SERVICE, "read", "the policy");
        let length = text.chars().count();
        if length > MOST_PERMISSIONS {
            return Err(invalid()
                .because(format!(
                    "it has {length} characters, and the service takes {MOST_PERMISSIONS}"
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

    /// A lifecycle policy: the short form of [`LifecyclePolicy::from_json`], of which one can be made, too.
    ///
    /// # Errors
    /// As [`LifecyclePolicy::from_json`].
    pub fn lifecycle(text: impl Into<String>) -> Result<Self> {
        LifecyclePolicy::from_json(text).map(Self::from)
    }

    /// The text, as it was given or as the service has it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<LifecyclePolicy> for PolicyDocument {
    /// The same text. One that the service keeps and that is no JSON means itself.
    fn from(policy: LifecyclePolicy) -> Self {
        let text = policy.as_str().to_owned();
        let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()));
        Self {
            meaning: meaning(None, value),
            text,
        }
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
    fn a_lifecycle_policy_is_checked_and_compared_by_what_it_says() {
        use crate::LifecycleRule;
        let policy =
            |days| LifecyclePolicy::new(vec![LifecycleRule::untagged(1).expire_after_days(days)]).unwrap();
        let spaced = policy(14).as_str().replace(':', " :\n");
        assert_ne!(spaced, policy(14).as_str());
        assert_eq!(
            PolicyDocument::from(policy(14)),
            PolicyDocument::lifecycle(spaced).unwrap()
        );
        assert_ne!(PolicyDocument::from(policy(14)), PolicyDocument::from(policy(15)));
        let zero = policy(14)
            .as_str()
            .replace("\"rulePriority\":1", "\"rulePriority\":0");
        for text in [zero.as_str(), "{}", "no JSON"] {
            assert!(
                PolicyDocument::lifecycle(text).unwrap_err().is_invalid(),
                "{text}"
            );
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
    }
}
