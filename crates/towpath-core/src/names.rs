//! The names that services give to their own things.

use crate::parse::{ParseError, only, text_traits, word};
use std::fmt;
use std::str::FromStr;

word! {
    /// An AWS account: twelve digits.
    AccountId, "AWS account", |text| {
        if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) { Ok(None) } else { Err("it must be 12 digits".into()) }
    }
}

word! {
    /// An AWS Region, such as `eu-west-1`.
    Region, "AWS Region", |text| {
        let parts: Vec<&str> = text.split('-').collect();
        let shaped = parts.len() >= 3
            && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
            && parts.last().is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()))
            && text.len() <= 32;
        if shaped { Ok(None) } else { Err("write it like eu-west-1".into()) }
    }
}

word! {
    /// A CodeArtifact domain: 2 to 50 lower-case letters, digits and hyphens, first a letter, last no hyphen.
    ArtifactDomain, "CodeArtifact domain", |text| {
        only(text, 2..=50, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-', "lower-case letters, digits and -")?;
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) || text.ends_with('-') {
            return Err("it must start with a letter and not end with -".into());
        }
        Ok(None)
    }
}

/// A CodeArtifact repository within its domain: `domain/repository`, or `domain/123456789012/repository` where another
/// account owns the domain.
///
/// ```
/// use towpath_core::ArtifactRepository;
/// let repository: ArtifactRepository = "acme/releases".parse()?;
/// assert_eq!((repository.domain().as_str(), repository.name()), ("acme", "releases"));
/// # Ok::<(), towpath_core::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ArtifactRepository {
    domain: ArtifactDomain,
    owner: Option<AccountId>,
    name: String,
}

impl ArtifactRepository {
    /// The domain, whose tokens and stored bytes all its repositories share.
    pub fn domain(&self) -> &ArtifactDomain {
        &self.domain
    }

    /// The account that owns the domain, where it is not the caller's own.
    pub fn owner(&self) -> Option<&AccountId> {
        self.owner.as_ref()
    }

    /// The repository within the domain.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for ArtifactRepository {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |reason: String| ParseError::new("CodeArtifact repository", text, reason);
        let parts: Vec<&str> = text.split('/').collect();
        let (domain, owner, name) = match parts[..] {
            [domain, name] => (domain, None, name),
            [domain, owner, name] => (
                domain,
                Some(AccountId::new(owner).map_err(|e| refuse(e.reason().to_owned()))?),
                name,
            ),
            _ => return Err(refuse("write it as domain/repository".into())),
        };
        let domain = ArtifactDomain::new(domain).map_err(|e| refuse(format!("domain: {}", e.reason())))?;
        only(
            name,
            2..=100,
            |c| c.is_ascii_alphanumeric() || "._-".contains(c),
            "letters, digits, ., _ and -",
        )
        .map_err(|reason| refuse(format!("repository: {reason}")))?;
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(refuse(
                "repository: it must start with a letter or a digit".into(),
            ));
        }
        Ok(Self {
            domain,
            owner,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for ArtifactRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => write!(f, "{}/{owner}/{}", self.domain, self.name),
            None => write!(f, "{}/{}", self.domain, self.name),
        }
    }
}

text_traits!(ArtifactRepository);

fn kubernetes_name(text: &str, longest: usize) -> Result<(), String> {
    only(
        text,
        1..=longest,
        |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.',
        "lower-case letters, digits, - and .",
    )?;
    if text
        .split('.')
        .any(|label| label.is_empty() || label.starts_with('-') || label.ends_with('-'))
    {
        return Err("each part between dots must start and end with a letter or a digit".into());
    }
    Ok(())
}

word! {
    /// The name of an Argo CD Application: a Kubernetes DNS subdomain of at most 253 characters.
    ApplicationName, "Argo CD application name", |text| kubernetes_name(text, 253).map(|()| None)
}

/// An Argo CD Application, with the project that lets the server tell "missing" from "forbidden", and its namespace
/// where that is not the control plane's: `name`, `project/name` or `project/namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Application {
    project: Option<String>,
    namespace: Option<String>,
    name: ApplicationName,
}

impl Application {
    /// The project (`AppProject`) the application belongs to.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// The Kubernetes namespace of the Application resource.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The application's name.
    pub fn name(&self) -> &ApplicationName {
        &self.name
    }
}

impl FromStr for Application {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |reason: String| ParseError::new("Argo CD application", text, reason);
        let parts: Vec<&str> = text.split('/').collect();
        let (project, namespace, name) = match parts[..] {
            [name] => (None, None, name),
            [project, name] => (Some(project), None, name),
            [project, namespace, name] => (Some(project), Some(namespace), name),
            _ => {
                return Err(refuse(
                    "write it as name, project/name or project/namespace/name".into(),
                ));
            }
        };
        for (part, value) in [("project", project), ("namespace", namespace)] {
            if let Some(value) = value {
                kubernetes_name(value, 63).map_err(|reason| refuse(format!("{part}: {reason}")))?;
            }
        }
        let name = ApplicationName::new(name).map_err(|error| refuse(format!("name: {}", error.reason())))?;
        Ok(Self {
            project: project.map(Into::into),
            namespace: namespace.map(Into::into),
            name,
        })
    }
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.project, &self.namespace].into_iter().flatten() {
            write!(f, "{part}/")?;
        }
        write!(f, "{}", self.name)
    }
}

text_traits!(Application);

fn slug(text: &str) -> Result<Option<String>, String> {
    only(
        text,
        1..=255,
        |c| c.is_ascii_alphanumeric() || c == '-' || c == '_',
        "letters, digits, - and _",
    )
    .map(|()| None)
}

word! {
    /// A Spacelift stack, by its slug.
    StackId, "Spacelift stack", slug
}

word! {
    /// A Spacelift run (a ULID where Spacelift made it; any letters and digits are taken).
    RunId, "Spacelift run", slug
}

/// A GitHub Actions workflow run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct CiRunId(pub u64);

impl fmt::Display for CiRunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_refused_says_why() {
        assert!(
            "acme"
                .parse::<ArtifactRepository>()
                .unwrap_err()
                .to_string()
                .contains("domain/repository")
        );
        assert!(
            "Acme/x1"
                .parse::<ArtifactRepository>()
                .unwrap_err()
                .to_string()
                .contains("domain:")
        );
        assert!("a/b/c/d".parse::<Application>().is_err());
        assert!(
            "Shop"
                .parse::<Application>()
                .unwrap_err()
                .to_string()
                .contains("name:")
        );
        assert!("eu".parse::<Region>().is_err());
        assert!("my stack".parse::<StackId>().is_err());
    }

    proptest! {
        #[test]
        fn applications_round_trip(text in "([a-z]{1,9}/){0,2}[a-z0-9]{1,20}(-[a-z0-9]{1,9})?") {
            prop_assert_eq!(text.parse::<Application>().unwrap().to_string(), text);
        }

        #[test]
        fn repositories_round_trip(text in "[a-z][a-z0-9]{1,9}/([0-9]{12}/)?[A-Za-z0-9][A-Za-z0-9._-]{1,20}") {
            prop_assert_eq!(text.parse::<ArtifactRepository>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Application>();
            let _ = text.parse::<ArtifactRepository>();
            let _ = text.parse::<Region>();
            let _ = text.parse::<StackId>();
        }
    }
}
