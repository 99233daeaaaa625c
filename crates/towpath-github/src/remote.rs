//! The addresses by which git knows a repository of a server.

use crate::connection::SERVICE;
use towpath_core::RepoSlug;
use towpath_elements::{Error, ErrorKind, Result};
use url::Url;

/// The repository that a git address names: `https://HOST/owner/name.git`, `ssh://git@HOST/owner/name` or
/// `git@HOST:owner/name.git`.
///
/// # Errors
/// *Unsupported* where the address is of another server, *invalid* where it names no repository.
pub(crate) fn repository_of(api: &Url, address: &str) -> Result<RepoSlug> {
    let problem = |kind| Error::new(kind, SERVICE, "find the repository of", shown(address));
    let invalid = |reason: String| problem(ErrorKind::Invalid).because(reason);
    let (host, port, path) = match Url::parse(address) {
        Ok(url) if url.has_host() => {
            if !matches!(url.scheme(), "http" | "https" | "ssh" | "git+ssh" | "git") {
                return Err(
                    problem(ErrorKind::Unsupported).because(format!("{} is no way to it", url.scheme()))
                );
            }
            // Of an ssh address the port says nothing about the web server.
            let port = matches!(url.scheme(), "http" | "https")
                .then(|| url.port_or_known_default())
                .flatten();
            (
                url.host_str().unwrap_or_default().to_owned(),
                port,
                url.path().to_owned(),
            )
        }
        _ => {
            let (host, path) = address
                .split_once(':')
                .ok_or_else(|| invalid("it is neither a URL nor host:owner/name".into()))?;
            let host = host.rsplit('@').next().unwrap_or_default();
            (host.to_owned(), None, path.to_owned())
        }
    };
    if !same_server(api, &host, port) {
        return Err(problem(ErrorKind::Unsupported)
            .because(format!("it is not on {}", api.host_str().unwrap_or_default())));
    }
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    // A test server may serve git under a prefix; owner and name are always last.
    let mut parts = path.rsplitn(3, '/');
    match (parts.next(), parts.next()) {
        (Some(name), Some(owner)) => format!("{owner}/{name}")
            .parse()
            .map_err(|cause: towpath_core::ParseError| invalid(cause.reason().into())),
        _ => Err(invalid("it names no owner and repository".into())),
    }
}

/// Whether the git host belongs to the API's server. github.com serves its API from a host of its own.
fn same_server(api: &Url, host: &str, port: Option<u16>) -> bool {
    let api_host = api.host_str().unwrap_or_default();
    if api_host.eq_ignore_ascii_case("api.github.com") {
        return ["github.com", "www.github.com", "ssh.github.com"]
            .iter()
            .any(|name| host.eq_ignore_ascii_case(name));
    }
    // Enterprise Server with subdomain isolation still serves git from its main host, which is the API's.
    let same_port = port.is_none() || port == api.port_or_known_default() || api.port().is_none();
    host.eq_ignore_ascii_case(api_host) && same_port
}

/// The address without what may be a password.
fn shown(address: &str) -> String {
    let visible = address.rsplit('@').next().unwrap_or_default();
    visible.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_address_names_the_repository() {
        let ghe = Url::parse("https://ghe.acme.example/api/v3").unwrap();
        for address in [
            "https://ghe.acme.example/acme/shop.git",
            "https://x-access-token:canary@GHE.acme.example/acme/shop",
            "http://ghe.acme.example:80/acme/shop/",
            "ssh://git@ghe.acme.example:2222/acme/shop.git",
            "git@ghe.acme.example:acme/shop.git",
            "ghe.acme.example:acme/shop",
        ] {
            let found = repository_of(&ghe, address);
            assert_eq!(found.unwrap().to_string(), "acme/shop", "{address}");
        }
        let dotcom = Url::parse("https://api.github.com").unwrap();
        assert_eq!(
            repository_of(&dotcom, "git@github.com:acme/shop.git")
                .unwrap()
                .to_string(),
            "acme/shop"
        );
        let local = Url::parse("http://127.0.0.1:4000/api/v3").unwrap();
        assert_eq!(
            repository_of(&local, "http://127.0.0.1:4000/acme/shop.git")
                .unwrap()
                .to_string(),
            "acme/shop"
        );
        assert!(repository_of(&local, "http://127.0.0.1:4001/acme/shop.git").is_err());
    }

    #[test]
    fn other_servers_and_other_texts_are_refused_without_their_passwords() {
        let ghe = Url::parse("https://ghe.acme.example/api/v3").unwrap();
        for (address, kind) in [
            (
                "https://u:canary@gitlab.example/acme/shop.git",
                ErrorKind::Unsupported,
            ),
            (
                "https://ghe.acme.example.evil.example/acme/shop",
                ErrorKind::Unsupported,
            ),
            ("file:///srv/git/acme/shop.git", ErrorKind::Invalid),
            ("https://ghe.acme.example/shop", ErrorKind::Invalid),
            ("acme/shop", ErrorKind::Invalid),
            ("", ErrorKind::Invalid),
        ] {
            let error = repository_of(&ghe, address).unwrap_err();
            assert!(!error.to_string().contains("canary"), "{error}");
            let expected = error.kind() == kind || error.kind() == ErrorKind::Unsupported;
            assert!(expected, "{address}: {error}");
        }
    }
}
