//! What a registry asks for when it refuses: the `WWW-Authenticate` header (RFC 9110 §11.6.1).

use http::header::{HeaderMap, WWW_AUTHENTICATE};

/// One challenge: a scheme and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

/// What a Bearer challenge says: whom to ask for a token, and in whose name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenServer {
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

impl TokenServer {
    /// The first Bearer challenge of an answer, which may have several headers with several challenges each.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .find_map(Self::read)
    }

    pub(super) fn read(header: &str) -> Option<Self> {
        challenges(header).into_iter().find_map(|challenge| {
            let parameter = |wanted: &str| {
                let mut all = challenge.parameters.iter();
                all.find(|(name, _)| name.eq_ignore_ascii_case(wanted))
                    .map(|(_, value)| value.clone())
            };
            match challenge.scheme.eq_ignore_ascii_case("bearer") {
                true => Some(Self {
                    realm: parameter("realm")?,
                    service: parameter("service"),
                }),
                false => None,
            }
        })
    }
}

/// `Basic realm="x", Bearer realm="y",service=z` as a list. What does not fit the grammar ends it.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after_space = after.trim_start_matches([' ', '\t']);
        rest = match after_space.strip_prefix('=') {
            // A parameter of the challenge before it.
            Some(value) if !word.is_empty() => {
                let Some(challenge) = found.last_mut() else { break };
                let value = value.trim_start_matches([' ', '\t']);
                let (value, rest) = match value.strip_prefix('"') {
                    Some(quoted) => match unquote(quoted) {
                        Some(split) => split,
                        None => break,
                    },
                    None => {
                        let end = value.find(|c| !is_token(c)).unwrap_or(value.len());
                        (value[..end].to_owned(), &value[end..])
                    }
                };
                challenge.parameters.push((word.to_owned(), value));
                rest
            }
            None if !word.is_empty() => {
                found.push(Challenge {
                    scheme: word.to_owned(),
                    parameters: Vec::new(),
                });
                after
            }
            _ => break,
        };
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found
}

/// The characters of a token, and those of a token68 and a bare URL, which servers leave unquoted.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:?".contains(c)
}

/// The text up to the closing quote, and what follows it; `None` where there is none.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[at + 1..])),
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(realm: &str, service: Option<&str>) -> Option<TokenServer> {
        Some(TokenServer {
            realm: realm.into(),
            service: service.map(Into::into),
        })
    }

    #[test]
    fn challenges_are_read() {
        for (header, expected) in [
            (
                r#"bearer realm="https://auth.example/token?a=1,2" , service="reg \"x\"",scope=repository:a:pull"#,
                server("https://auth.example/token?a=1,2", Some("reg \"x\"")),
            ),
            (r#"Basic realm="https://x/""#, None),
            ("Bearer service=x", None),
            (
                r#"Basic realm="shop, Bearer realm=no", Bearer realm="https://y/t",service="z""#,
                server("https://y/t", Some("z")),
            ),
            (
                r#"Negotiate, Bearer realm = "https://y/t""#,
                server("https://y/t", None),
            ),
            (
                r#"Bearer realm="https://y/t", Basic realm="x", service="not ours""#,
                server("https://y/t", None),
            ),
            (
                "Bearer realm=https://y/t,service=z",
                server("https://y/t", Some("z")),
            ),
            (r#"Bearer realm="https://y/t"#, None),
            ("", None),
            ("=", None),
        ] {
            assert_eq!(TokenServer::read(header), expected, "{header}");
        }
    }

    #[test]
    fn several_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(
            WWW_AUTHENTICATE,
            http::HeaderValue::from_static("Basic realm=\"x\""),
        );
        headers.append(
            WWW_AUTHENTICATE,
            http::HeaderValue::from_static("Bearer realm=\"https://y/\""),
        );
        assert_eq!(TokenServer::of(&headers), server("https://y/", None));
    }

    proptest! {
        #[test]
        fn no_header_panics(text in ".*|Bearer .*|(Basic|Bearer)? ?[a-z]{1,3}=\"?[\\\\\"a-zé,= ]{0,20}") {
            let _ = TokenServer::read(&text);
        }
    }
}
