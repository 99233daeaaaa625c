//! Image references, by the grammar of `distribution/reference` (the one that Docker, containerd and Kubernetes use),
//! Docker Hub's short names included.

use crate::parse::{ParseError, text_traits, word};
use crate::{Digest, EcrHost};
use std::fmt;
use std::str::FromStr;

const HUB: &str = "docker.io";
const HUB_OFFICIAL: &str = "library/";
/// The limit of the whole name, registry and repository, in `distribution/reference`.
const LONGEST_NAME: usize = 255;

word! {
    /// A registry: a host name, IPv4 or bracketed IPv6 address, and a port where it is not the usual one. Kept in
    /// lower case; `index.docker.io` is kept as `docker.io`.
    RegistryHost, "registry", |text| {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (address, after) = rest.split_once(']').ok_or("the IPv6 address is not closed with ]")?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("{address:?} is not an IPv6 address"));
            }
            match after {
                "" => (text, None),
                _ => (text, Some(after.strip_prefix(':').ok_or("behind the IPv6 address only :port may follow")?)),
            }
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if let Some(port) = port
            && (port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
        {
            return Err(format!("{port:?} is not a port"));
        }
        if !host.starts_with('[') {
            if host.is_empty() {
                return Err("the host is empty".into());
            }
            for label in host.split('.') {
                let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
                if label.is_empty() || !label.bytes().all(inner) || label.starts_with('-') || label.ends_with('-') {
                    return Err(format!("{label:?} is not a part of a host name"));
                }
            }
        }
        let lower = text.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "index.docker.io" => Some(HUB.into()),
            _ if lower != text => Some(lower),
            _ => None,
        })
    }
}

impl RegistryHost {
    /// The host name or address, without a port.
    pub fn host(&self) -> &str {
        match self.0.rfind(':') {
            Some(colon) if !self.0[colon..].contains(']') => &self.0[..colon],
            _ => &self.0,
        }
    }

    /// The port, where one is given.
    pub fn port(&self) -> Option<u16> {
        self.0[self.host().len()..]
            .strip_prefix(':')
            .and_then(|port| port.parse().ok())
    }

    /// What the name says of an ECR private registry, or `None` where it is not one.
    pub fn ecr(&self) -> Option<EcrHost> {
        EcrHost::of(self.host())
    }

    /// Whether the host is this machine. Only such a registry may be spoken to without TLS unasked.
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

word! {
    /// A repository within a registry, such as `shop/web`: parts of lower-case letters and digits, separated within by
    /// one dot, one or two underscores or any number of hyphens, and between by slashes.
    RepositoryName, "repository name", |text| {
        if text.is_empty() {
            return Err("it is empty".into());
        }
        if text.len() > LONGEST_NAME {
            return Err(format!("it is longer than {LONGEST_NAME} characters"));
        }
        text.split('/').try_for_each(path_component).map(|()| None)
    }
}

fn path_component(part: &str) -> Result<(), String> {
    if part.is_empty() {
        return Err("a part between slashes is empty".into());
    }
    if part.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(format!("{part:?} must be lower case"));
    }
    if let Some(c) = part
        .chars()
        .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
    {
        return Err(format!("{c:?} is not allowed in {part:?}"));
    }
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    for separator in part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .filter(|s| !s.is_empty())
    {
        if !matches!(separator, "." | "_" | "__") && separator.bytes().any(|b| b != b'-') {
            return Err(format!(
                "{separator:?} is not a separator (one dot, one or two underscores, hyphens)"
            ));
        }
    }
    let bytes = part.as_bytes();
    if !alphanumeric(bytes[0]) || !alphanumeric(bytes[bytes.len() - 1]) {
        return Err(format!("{part:?} must start and end with a letter or a digit"));
    }
    Ok(())
}

word! {
    /// A tag: up to 128 letters, digits, underscores, dots and hyphens, the first no dot and no hyphen.
    Tag, "tag", |text| {
        crate::parse::only(text, 1..=128, |c| c.is_ascii_alphanumeric() || "_.-".contains(c), "letters, digits, _, . and -")?;
        if text.starts_with(['.', '-']) {
            return Err("it must not start with . or -".into());
        }
        Ok(None)
    }
}

/// A name for an image: registry, repository, and a tag, a digest, both or neither.
///
/// A short name is read as Docker reads it, and shown in full. No tag is assumed where none is written.
///
/// ```
/// use towpath_core::ImageRef;
/// let image: ImageRef = "nginx:1.27".parse()?;
/// assert_eq!(image.to_string(), "docker.io/library/nginx:1.27");
/// let image: ImageRef = "localhost:5000/shop/web".parse()?;
/// assert_eq!((image.registry().as_str(), image.tag()), ("localhost:5000", None));
/// # Ok::<(), towpath_core::ParseError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ImageRef {
    registry: RegistryHost,
    repository: RepositoryName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// A repository in a registry, without tag and digest.
    pub fn new(registry: RegistryHost, repository: RepositoryName) -> Self {
        Self {
            registry,
            repository,
            tag: None,
            digest: None,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &RegistryHost {
        &self.registry
    }

    /// The repository within the registry.
    pub fn repository(&self) -> &RepositoryName {
        &self.repository
    }

    /// The tag, where one is written.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, where one is written. It wins over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// This repository at a digest, and no tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// This repository at a tag, and no digest.
    #[must_use]
    pub fn tagged(&self, tag: Tag) -> Self {
        Self {
            tag: Some(tag),
            digest: None,
            ..self.clone()
        }
    }

    /// The same tag and digest in another registry and repository.
    #[must_use]
    pub fn renamed(&self, registry: RegistryHost, repository: RepositoryName) -> Self {
        Self {
            registry,
            repository,
            ..self.clone()
        }
    }

    /// What a registry is asked for: the digest, else the tag, else `latest`.
    pub fn reference(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag.as_str(),
            (None, None) => "latest",
        }
    }

    /// Registry and repository, as in `docker.io/library/nginx`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl FromStr for ImageRef {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |reason: String| ParseError::new("image reference", text, reason);
        let inner = |error: ParseError| refuse(format!("{}: {}", error.what(), error.reason()));
        if text.is_empty() {
            return Err(refuse("it is empty".into()));
        }
        if text.contains("://") {
            return Err(refuse("leave the scheme away".into()));
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse(
                "64 hexadecimal digits are an image ID; write name@sha256:…".into(),
            ));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(inner)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rfind(':') {
            Some(colon) if !rest[colon..].contains('/') && !rest[colon..].contains(']') => {
                // `host:5000` alone is a name and a tag too: a registry is one only in front of a slash.
                (
                    &rest[..colon],
                    Some(rest[colon + 1..].parse::<Tag>().map_err(inner)?),
                )
            }
            _ => (rest, None),
        };
        let is_registry = |part: &str| {
            part.contains(['.', ':', '['])
                || part == "localhost"
                || part.bytes().any(|b| b.is_ascii_uppercase())
        };
        let (registry, repository) = match name.split_once('/') {
            Some((first, path)) if is_registry(first) => (first, path),
            _ => (HUB, name),
        };
        if registry.bytes().any(|b| b.is_ascii_uppercase()) && !registry.contains(['.', ':', '[']) {
            return Err(refuse(format!(
                "repository name: {registry:?} must be lower case"
            )));
        }
        let registry = RegistryHost::new(registry).map_err(inner)?;
        let repository = match registry.as_str() == HUB && !repository.contains('/') {
            true => RepositoryName::new(format!("{HUB_OFFICIAL}{repository}")),
            false => RepositoryName::new(repository),
        };
        let image = Self {
            registry,
            repository: repository.map_err(inner)?,
            tag,
            digest,
        };
        if image.name().len() > LONGEST_NAME {
            return Err(refuse(format!(
                "registry and repository are longer than {LONGEST_NAME} characters"
            )));
        }
        Ok(image)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

text_traits!(ImageRef);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_names_are_read_as_docker_reads_them() {
        for (written, full) in [
            ("nginx", "docker.io/library/nginx"),
            ("bitnami/nginx:1", "docker.io/bitnami/nginx:1"),
            ("docker.io/nginx", "docker.io/library/nginx"),
            ("index.docker.io/nginx", "docker.io/library/nginx"),
            ("localhost/nginx", "localhost/nginx"),
            ("localhost:5000/nginx:tag", "localhost:5000/nginx:tag"),
            ("nginx:5000", "docker.io/library/nginx:5000"),
            ("Registry.Example.COM/a/b", "registry.example.com/a/b"),
            ("[::1]:5000/a:t", "[::1]:5000/a:t"),
            ("127.0.0.1:5000/a__b-c.d", "127.0.0.1:5000/a__b-c.d"),
            ("quay.io/x/y---z", "quay.io/x/y---z"),
        ] {
            assert_eq!(written.parse::<ImageRef>().unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, reason) in [
            ("", "empty"),
            ("https://quay.io/x", "scheme"),
            ("Nginx", "lower case"),
            ("quay.io/Nginx", "lower case"),
            ("Shop/web", "lower case"),
            ("quay.io/a//b", "empty"),
            ("quay.io/", "empty"),
            ("a_.b", "separator"),
            ("a___b", "separator"),
            ("-a", "start and end"),
            ("a:", "tag"),
            ("a:-x", "tag"),
            ("a@sha256:12", "64 digits"),
            ("a b", "not allowed"),
            ("host:99999/a", "not a port"),
            ("[::1/a", "registry"),
            (&"a".repeat(64), "image ID"),
            (&format!("a/{}", "b".repeat(260)), "longer"),
        ] {
            let error = text.parse::<ImageRef>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    #[test]
    fn host_and_port_come_apart() {
        let host = RegistryHost::new("[::1]:5000").unwrap();
        assert_eq!(
            (host.host(), host.port(), host.is_loopback()),
            ("[::1]", Some(5000), true)
        );
        let host = RegistryHost::new("[::1]").unwrap();
        assert_eq!((host.host(), host.port()), ("[::1]", None));
        let host = RegistryHost::new("example.com:443").unwrap();
        assert_eq!(
            (host.host(), host.port(), host.is_loopback()),
            ("example.com", Some(443), false)
        );
    }

    proptest! {
        #[test]
        fn round_trip(
            registry in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){1,3}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"),
            digest in proptest::option::of("sha256:[0-9a-f]{64}"),
        ) {
            prop_assume!(registry != HUB);
            let mut text = format!("{registry}/{path}");
            if let Some(tag) = &tag { text.push_str(&format!(":{tag}")); }
            if let Some(digest) = &digest { text.push_str(&format!("@{digest}")); }
            let image: ImageRef = text.parse().unwrap();
            prop_assert_eq!(image.to_string(), text);
            prop_assert_eq!(image.tag().map(ToString::to_string), tag);
            prop_assert_eq!(image.digest().map(ToString::to_string), digest);
        }

        #[test]
        fn what_is_shown_is_read_back_as_the_same(text in ".{0,80}|[a-zA-Z0-9.:/@_\\[\\]-]{0,80}") {
            if let Ok(image) = text.parse::<ImageRef>() {
                prop_assert_eq!(image.to_string().parse::<ImageRef>().unwrap(), image);
            }
        }
    }
}
