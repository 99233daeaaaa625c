//! Where a request may go, and what it may carry there.

use crate::Call;
use url::{Host, Url};

/// Whether two URLs have scheme, host and port in common.
pub(crate) fn same(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Whether the host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A URL as it may be shown: without user, password, query and fragment.
pub(crate) fn showable(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Both fail only for a URL that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// The URL of a call: its target under the base, or by itself where it is absolute.
pub(crate) fn resolve(base: &Url, call: &Call) -> Result<Url, String> {
    let absolute = call.target.starts_with("https://") || call.target.starts_with("http://");
    let mut url = if absolute {
        Url::parse(&call.target).map_err(|cause| format!("its address is not a URL: {cause}"))?
    } else {
        let (path, query) = match call.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (call.target.as_str(), None),
        };
        let mut url = base.clone();
        url.set_path(&format!(
            "{}/{}",
            base.path().trim_end_matches('/'),
            path.trim_start_matches('/')
        ));
        url.set_query(query);
        url
    };
    if !call.segments.is_empty() {
        if let Some(odd) = call
            .segments
            .iter()
            .find(|part| matches!(part.as_str(), "" | "." | ".."))
        {
            return Err(format!("{odd:?} cannot be a part of an address"));
        }
        let mut path = url
            .path_segments_mut()
            .map_err(|()| "its address has no path".to_owned())?;
        path.pop_if_empty();
        path.extend(&call.segments);
    }
    if !call.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&call.query);
    }
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(base: &str, call: &Call) -> String {
        resolve(&Url::parse(base).unwrap(), call).unwrap().to_string()
    }

    #[test]
    fn a_path_stays_under_the_base_and_values_are_encoded() {
        let call = Call::get("api/v1/applications")
            .segment("a/b c")
            .query("project", "x&y");
        assert_eq!(
            resolved("https://cd.example/root/", &call),
            "https://cd.example/root/api/v1/applications/a%2Fb%20c?project=x%26y"
        );
        assert_eq!(
            resolved("https://cd.example", &Call::get("/x?y=1").query("z", "2")),
            "https://cd.example/x?y=1&z=2"
        );
        let base = Url::parse("https://cd.example").unwrap();
        assert!(resolve(&base, &Call::get("x").segment("..")).is_err());
        assert!(same(
            &base,
            &resolve(&base, &Call::get("//evil.example/x")).unwrap()
        ));
    }

    #[test]
    fn an_absolute_target_is_its_own() {
        assert_eq!(
            resolved("https://a.example/root", &Call::get("https://b.example/x?y=1")),
            "https://b.example/x?y=1"
        );
    }

    #[test]
    fn this_machine_is_known_by_every_name() {
        for (url, is) in [
            ("http://localhost:1", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:8080", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(url).unwrap()), is, "{url}");
        }
    }
}
