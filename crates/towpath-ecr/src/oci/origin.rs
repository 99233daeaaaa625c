//! Where a request may go, and where credentials may not follow it.

use std::net::IpAddr;
use url::{Host, Url};

/// Whether two URLs have the same scheme, host and port.
pub(super) fn same(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Whether the host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// `https`, or `http` on this machine.
pub(crate) fn is_secure(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

/// Whether an answer from `from` may send the client to `to`. A registry elsewhere must not reach into this machine or
/// its link, where services trust whoever can connect.
pub(super) fn may_lead(from: &Url, to: &Url) -> bool {
    let internal = is_loopback(to) || is_link_local(to);
    is_secure(to) && to.username().is_empty() && to.password().is_none() && (!internal || is_loopback(from))
}

fn is_link_local(url: &Url) -> bool {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => match address.to_ipv4_mapped() {
            Some(mapped) => IpAddr::V4(mapped),
            None => IpAddr::V6(address),
        },
        _ => return false,
    };
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_unspecified() || address.is_loopback(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80 || address.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_cannot_lead_inwards_or_out_of_tls() {
        let may = |from: &str, to: &str| may_lead(&from.parse::<Url>().unwrap(), &to.parse::<Url>().unwrap());
        assert!(may("https://quay.io", "https://cdn.quay.io/x"));
        assert!(may("http://127.0.0.1:5000", "http://localhost:9/x"));
        for to in [
            "http://cdn.quay.io/x",
            "http://127.0.0.1/x",
            "https://127.0.0.1/x",
            "https://169.254.169.254/latest",
            "https://[fe80::1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://0.0.0.0/",
            "file:///etc/passwd",
            "https://user:pass@quay.io/",
        ] {
            assert!(!may("https://quay.io", to), "{to}");
        }
    }
}
