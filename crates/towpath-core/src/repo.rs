//! Repositories on GitHub, by the rules of GitHub Enterprise Server.

use crate::parse::{ParseError, only, text_traits};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// `owner/name`. Compared without regard to case, as GitHub does, and shown as it was written.
///
/// ```
/// use towpath_core::RepoSlug;
/// let slug: RepoSlug = "acme/shop".parse()?;
/// assert_eq!((slug.owner(), slug.name()), ("acme", "shop"));
/// assert_eq!(slug, "Acme/Shop".parse()?);
/// # Ok::<(), towpath_core::ParseError>(())
/// ```
#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RepoSlug {
    owner: String,
    name: String,
}

impl RepoSlug {
    /// The user or organisation.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The repository within its owner.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for RepoSlug {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |reason: String| ParseError::new("repository", text, reason);
        let (owner, name) = text
            .split_once('/')
            .ok_or_else(|| refuse("write it as owner/name".into()))?;
        if name.contains('/') {
            return Err(refuse(
                "write it as owner/name, with one slash and no host".into(),
            ));
        }
        only(
            owner,
            1..=39,
            |c| c.is_ascii_alphanumeric() || c == '-' || c == '_',
            "letters, digits, - and _",
        )
        .map_err(|reason| refuse(format!("owner: {reason}")))?;
        if owner.starts_with('-') {
            return Err(refuse("owner: it starts with -".into()));
        }
        only(
            name,
            1..=100,
            |c| c.is_ascii_alphanumeric() || "-_.".contains(c),
            "letters, digits, -, _ and .",
        )
        .map_err(|reason| refuse(format!("name: {reason}")))?;
        if name == "." || name == ".." {
            return Err(refuse("name: it is a directory".into()));
        }
        if name.to_ascii_lowercase().ends_with(".git") {
            return Err(refuse("name: leave the .git away".into()));
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for RepoSlug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl PartialEq for RepoSlug {
    fn eq(&self, other: &Self) -> bool {
        self.owner.eq_ignore_ascii_case(&other.owner) && self.name.eq_ignore_ascii_case(&other.name)
    }
}

impl Eq for RepoSlug {}

impl Hash for RepoSlug {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.owner.to_ascii_lowercase().hash(state);
        self.name.to_ascii_lowercase().hash(state);
    }
}

text_traits!(RepoSlug);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_refused_says_why() {
        for (text, reason) in [
            ("shop", "owner/name"),
            ("a/b/c", "one slash"),
            ("https://ghe/acme/shop", "one slash"),
            ("/shop", "owner: it is empty"),
            ("acme/", "name: it is empty"),
            ("acme/..", "directory"),
            ("acme/shop.git", ".git"),
            ("ac me/shop", "position 3"),
        ] {
            let error = text.parse::<RepoSlug>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(text in "[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9_-]{1,100}") {
            prop_assert_eq!(text.parse::<RepoSlug>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<RepoSlug>();
        }
    }
}
