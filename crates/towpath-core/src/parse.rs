//! What every word of this crate says when it refuses a text.

use std::fmt;

/// A text that is not what it should be: which word was wanted, the text, and what is wrong with it.
///
/// The text is shown cut to 120 characters, escaped, and without the user information of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    what: &'static str,
    input: String,
    reason: String,
}

impl ParseError {
    /// Refuses `input` as a `what`, for `reason` (a lower-case fragment that says what to do).
    pub fn new(what: &'static str, input: &str, reason: impl Into<String>) -> Self {
        Self {
            what,
            input: showable(input),
            reason: reason.into(),
        }
    }

    /// The word that was wanted, such as `digest`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// The refused text, as it may be shown.
    pub fn input(&self) -> &str {
        &self.input
    }

    /// What is wrong with the text.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a valid {}: {}",
            self.input, self.what, self.reason
        )
    }
}

impl std::error::Error for ParseError {}

fn showable(input: &str) -> String {
    const LONGEST: usize = 120;
    let visible = match (input.find("://"), input.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://…{}", &input[..scheme], &input[at..]),
        _ => input.to_owned(),
    };
    if visible.chars().count() <= LONGEST {
        return visible;
    }
    visible.chars().take(LONGEST).chain(['…']).collect()
}

/// Declares a word: a newtype over `String` that only `$check` can let in.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses the text; the error says what is wrong with it.
            pub fn new(text: impl Into<String>) -> Result<Self, $crate::ParseError> {
                let text: String = text.into();
                let check: fn(&str) -> Result<Option<String>, String> = $check;
                match check(&text) {
                    Ok(None) => Ok(Self(text)),
                    Ok(Some(normalised)) => Ok(Self(normalised)),
                    Err(reason) => Err($crate::ParseError::new($what, &text, reason)),
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        $crate::parse::text_traits!($name);

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ParseError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }
    };
}

/// The conversions and the `Debug` that every word shares, on top of its `FromStr` and `Display`.
macro_rules! text_traits {
    ($name:ident) => {
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::ParseError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::ParseError;
            fn try_from(text: &str) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.to_string()
            }
        }
    };
}

pub(crate) use {text_traits, word};

/// Checks the characters of a word and its length in one go; the first offender is named.
pub(crate) fn only(
    text: &str,
    length: std::ops::RangeInclusive<usize>,
    allowed: fn(char) -> bool,
    described: &str,
) -> Result<(), String> {
    let count = text.chars().count();
    if text.is_empty() {
        return Err("it is empty".into());
    }
    if !length.contains(&count) {
        return Err(format!(
            "it has {count} characters, allowed are {} to {}",
            length.start(),
            length.end()
        ));
    }
    match text.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        Some((at, c)) => Err(format!(
            "character {c:?} at position {} is not allowed ({described})",
            at + 1
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        let error = ParseError::new("image reference", "https://user:hunter2@host/x", "no");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_long_text_is_cut() {
        let error = ParseError::new("digest", &"é".repeat(4000), "no");
        assert!(error.input().chars().count() <= 121);
    }
}
