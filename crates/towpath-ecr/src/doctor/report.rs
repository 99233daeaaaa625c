//! What was found out, as values and as a list to read.

use std::fmt;
use towpath_core::ImageRef;

/// What was found out about an image that cannot be pulled.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The image that was asked about.
    #[serde(serialize_with = "as_text")]
    pub image: ImageRef,
    /// The image that was looked into: for one of an upstream, its name behind the cache.
    #[serde(serialize_with = "as_text")]
    pub looked_at: ImageRef,
    /// What was found, in the order in which it was looked at.
    pub findings: Vec<Observation>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Observation {
    /// What was looked at.
    pub checked: Checked,
    /// How it stands.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Checked {
    /// The caller's credentials, and whether the service gives a token for them.
    Credentials,
    /// The Region of the registry and that of the client.
    Region,
    /// The rule that connects a prefix with an upstream registry.
    PullThroughRule,
    /// Whether the service can reach the rule's upstream with the rule's credentials.
    UpstreamAccess,
    /// The image at the upstream.
    UpstreamImage,
    /// The template by which the cache makes a repository.
    CreationTemplate,
    /// The permission to bring an image in through the cache.
    Import,
    /// The repository.
    Repository,
    /// The image.
    Image,
    /// Whether the image is archived.
    Archive,
    /// Reading the manifest over `/v2/`, with the token.
    Pull,
    /// The layers of the image.
    Layers,
    /// Reading a layer over `/v2/`.
    Download,
}

/// How it stands with what was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// As it has to be.
    Ok,
    /// Not there, or not in the state that a pull needs.
    Missing,
    /// The caller may not do this.
    Denied,
    /// It cannot be found out.
    Unknown,
}

impl Diagnosis {
    /// What stands in the way, or may do so: all that is not as it has to be.
    pub fn problems(&self) -> impl Iterator<Item = &Observation> {
        self.findings
            .iter()
            .filter(|finding| finding.outcome != Outcome::Ok)
    }

    /// Whether nothing was found that stands in the way.
    pub fn is_healthy(&self) -> bool {
        self.problems().next().is_none()
    }

    /// What was found about one thing.
    pub fn finding(&self, checked: Checked) -> Option<&Observation> {
        self.findings.iter().find(|finding| finding.checked == checked)
    }
}

impl Observation {
    pub(super) fn advise(&mut self, advice: impl Into<String>) {
        self.advice = Some(advice.into());
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Credentials => "credentials",
            Self::Region => "Region",
            Self::PullThroughRule => "pull-through rule",
            Self::UpstreamAccess => "access to the upstream",
            Self::UpstreamImage => "image at the upstream",
            Self::CreationTemplate => "creation template",
            Self::Import => "permission to import",
            Self::Repository => "repository",
            Self::Image => "image",
            Self::Archive => "archive",
            Self::Pull => "pull",
            Self::Layers => "layers",
            Self::Download => "download",
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Denied => "denied",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.image)?;
        if self.looked_at != self.image {
            write!(f, ", cached as {}", self.looked_at)?;
        }
        for finding in &self.findings {
            write!(
                f,
                "\n  {:<8} {}: {}",
                finding.outcome, finding.checked, finding.detail
            )?;
            if let Some(advice) = &finding.advice {
                write!(f, "\n           -> {advice}")?;
            }
        }
        Ok(())
    }
}

fn as_text<S: serde::Serializer>(image: &ImageRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(image)
}
