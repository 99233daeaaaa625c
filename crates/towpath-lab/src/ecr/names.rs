//! How tags, repository names and wildcard filters are spelled.

/// Whether a wildcard filter matches; `*` stands for any text.
pub(super) fn matches(filter: &str, text: &str) -> bool {
    let Some((head, rest)) = filter.split_once('*') else {
        return filter == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else {
            return false;
        };
        text = &text[at + part.len()..];
    }
    text.ends_with(tail)
}

/// Whether this is a tag by the distribution specification.
pub(super) fn is_tag(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 128
        && bytes
            .first()
            .is_some_and(|first| first.is_ascii_alphanumeric() || *first == b'_')
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// Whether this is a repository name by the model of the service: parts of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` with
/// slashes between them, 2 to 256 long.
pub(super) fn is_repository_name(text: &str) -> bool {
    let part = |part: &str| {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        part.bytes().next().is_some_and(word)
            && part.bytes().next_back().is_some_and(word)
            && separators
                .into_iter()
                .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
    };
    (2..=256).contains(&text.len()) && text.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_any_text() {
        for (filter, text, expected) in [
            ("*", "a/b", true),
            ("prod-*", "prod-1", true),
            ("prod-*", "dev-1", false),
            ("*-rc*", "1.0-rc2", true),
            ("a*b*c", "a-b-c", true),
            ("a*a", "a", false),
            ("team/app", "team/app", true),
            ("team", "team/app", false),
        ] {
            assert_eq!(matches(filter, text), expected, "{filter} on {text}");
        }
    }

    #[test]
    fn repository_names_are_those_of_the_model() {
        for name in ["ab", "team/app", "a1/b.c_d-e", "a__b--c"] {
            assert!(is_repository_name(name), "{name}");
        }
        for name in [
            "a",
            "Team/app",
            "team//app",
            "/app",
            "app/",
            "a..b",
            "a.-b",
            "a___b",
            "a-",
            "a b",
        ] {
            assert!(!is_repository_name(name), "{name}");
        }
    }
}
