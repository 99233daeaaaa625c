//! Commits and branches, after git's own rules (`gitformat-hash-function-transition`, `git-check-ref-format`).

use crate::parse::word;

/// Which hash names a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashKind {
    /// 40 hexadecimal digits.
    Sha1,
    /// 64 hexadecimal digits.
    Sha256,
}

word! {
    /// The full name of a commit: 40 (SHA-1) or 64 (SHA-256) hexadecimal digits, kept in lower case.
    ///
    /// An abbreviated name and the all-zero name (git's "no commit") are refused.
    ///
    /// ```
    /// use towpath_core::CommitSha;
    /// let sha: CommitSha = "9FCEB02D0AE598E95DC970B74767F19372D61AF8".parse()?;
    /// assert_eq!(sha.short(), "9fceb02d0a");
    /// assert!("9fceb02".parse::<CommitSha>().is_err());
    /// # Ok::<(), towpath_core::ParseError>(())
    /// ```
    CommitSha, "commit SHA", |text| {
        if let Some((at, c)) = text.chars().enumerate().find(|(_, c)| !c.is_ascii_hexdigit()) {
            return Err(format!("character {c:?} at position {} is not a hexadecimal digit", at + 1));
        }
        match text.len() {
            40 | 64 if text.bytes().all(|byte| byte == b'0') => {
                Err("all zeros is git's name for no commit at all".into())
            }
            40 | 64 => Ok(text.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| text.to_ascii_lowercase())),
            found => Err(format!(
                "it has {found} digits; give the full name, 40 digits for SHA-1 or 64 for SHA-256"
            )),
        }
    }
}

impl CommitSha {
    /// Which hash the name comes from.
    pub fn kind(&self) -> HashKind {
        if self.as_str().len() == 40 {
            HashKind::Sha1
        } else {
            HashKind::Sha256
        }
    }

    /// The first ten digits, for people.
    pub fn short(&self) -> &str {
        &self.as_str()[..10]
    }
}

word! {
    /// The short name of a branch, such as `main` or `release/1.2`, by the rules of `git check-ref-format --branch`.
    BranchName, "branch name", |text| {
        let refuse = |reason: &str| Err(reason.to_owned());
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > 244 {
            return refuse("it is longer than 244 bytes");
        }
        if text == "@" || text == "HEAD" {
            return refuse("git keeps this name for itself");
        }
        if text.starts_with("refs/") {
            return refuse("give the short name, without refs/heads/");
        }
        if text.starts_with('-') || text.starts_with('/') || text.ends_with('/') || text.ends_with('.') {
            return refuse("it must not start with - or /, nor end with / or .");
        }
        if text.contains("..") || text.contains("//") || text.contains("@{") {
            return refuse("it must not contain .., // or @{");
        }
        if text.split('/').any(|part| part.starts_with('.') || part.ends_with(".lock")) {
            return refuse("no part of it may start with . or end with .lock");
        }
        match text.chars().find(|c| c.is_control() || " ~^:?*[\\".contains(*c)) {
            Some(c) => Err(format!("git does not allow {c:?} in it")),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_refused_says_why() {
        for (text, reason) in [
            ("", "0 digits"),
            ("9fceb02", "7 digits"),
            ("z".repeat(40).as_str(), "hexadecimal"),
            ("0".repeat(40).as_str(), "no commit"),
        ] {
            let error = text.parse::<CommitSha>().unwrap_err();
            assert!(error.reason().contains(reason), "{error}");
        }
        for branch in [
            "",
            "@",
            "a..b",
            "a b",
            "/a",
            "a/",
            "a.lock",
            ".a",
            "x/.y",
            "refs/heads/x",
            "a~1",
            "-x",
        ] {
            assert!(branch.parse::<BranchName>().is_err(), "{branch:?}");
        }
    }

    proptest! {
        #[test]
        fn a_commit_survives_the_round_trip(text in "[0-9a-f]{40}|[0-9a-f]{64}") {
            prop_assume!(text.bytes().any(|byte| byte != b'0'));
            let sha: CommitSha = text.parse().unwrap();
            prop_assert_eq!(sha.to_string(), text.clone());
            prop_assert_eq!(text.to_ascii_uppercase().parse::<CommitSha>().unwrap(), sha);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<CommitSha>();
            if let Ok(branch) = text.parse::<BranchName>() {
                prop_assert_eq!(branch.to_string(), text);
            }
        }
    }
}
