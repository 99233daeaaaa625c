//! Content digests, by the OCI image specification, `descriptor.md`.

use crate::parse::word;
use sha2::Digest as _;

word! {
    /// `algorithm:encoded`, such as `sha256:` and 64 lower-case hexadecimal digits.
    ///
    /// Of the registered algorithms (`sha256`, `sha512`, `blake3`) the length and the digits are checked; an
    /// unregistered one is kept as the specification asks, but nothing can be verified against it.
    ///
    /// ```
    /// use towpath_core::Digest;
    /// let digest = Digest::sha256_of(b"");
    /// assert_eq!(digest.to_string(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    /// assert!("sha256:e3b0".parse::<Digest>().is_err());
    /// ```
    Digest, "digest", |text| {
        let Some((algorithm, encoded)) = text.split_once(':') else {
            return Err("write it as algorithm:encoded, such as sha256:… with 64 digits".into());
        };
        let component = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if !algorithm.split(['+', '.', '_', '-']).all(component) {
            return Err(format!("the algorithm {algorithm:?} is not lower-case letters and digits"));
        }
        let digits = match algorithm {
            "sha256" | "blake3" => 64,
            "sha512" => 128,
            _ => {
                return if !encoded.is_empty()
                    && encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
                {
                    Ok(None)
                } else {
                    Err("the encoded part must be letters, digits, =, _ and -".into())
                };
            }
        };
        if encoded.len() != digits {
            return Err(format!("{algorithm} takes {digits} digits, here are {}", encoded.len()));
        }
        match encoded.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            Some(c) => Err(format!("{c:?} is not a lower-case hexadecimal digit")),
            None => Ok(None),
        }
    }
}

impl Digest {
    /// The SHA-256 digest of some bytes.
    pub fn sha256_of(bytes: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// The part before the colon.
    pub fn algorithm(&self) -> &str {
        self.as_str()
            .split_once(':')
            .map_or("", |(algorithm, _)| algorithm)
    }

    /// The part after the colon.
    pub fn encoded(&self) -> &str {
        self.as_str().split_once(':').map_or("", |(_, encoded)| encoded)
    }

    /// A hasher of this digest's algorithm, or `None` where this crate cannot compute it.
    pub fn hasher(&self) -> Option<Hasher> {
        match self.algorithm() {
            "sha256" => Some(Hasher::sha256()),
            "sha512" => Some(Hasher(State::Sha512(sha2::Sha512::new()))),
            _ => None,
        }
    }

    /// Whether the bytes have this digest; `false` also where the algorithm cannot be computed.
    pub fn matches(&self, bytes: impl AsRef<[u8]>) -> bool {
        self.hasher().is_some_and(|mut hasher| {
            hasher.update(bytes.as_ref());
            hasher.finish() == *self
        })
    }
}

/// Computes a [`Digest`] piece by piece.
#[derive(Clone, Debug)]
pub struct Hasher(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Starts a SHA-256 digest.
    pub fn sha256() -> Self {
        Self(State::Sha256(sha2::Sha256::new()))
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            State::Sha256(state) => format!("sha256:{}", hex::encode(state.finalize())),
            State::Sha512(state) => format!("sha512:{}", hex::encode(state.finalize())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_refused_says_why() {
        for (text, reason) in [
            ("latest", "algorithm:encoded"),
            ("sha256:abc", "64 digits"),
            (&format!("sha256:{}", "A".repeat(64)), "lower-case"),
            ("SHA256:00", "algorithm"),
            ("md5+:00", "algorithm"),
            ("other:", "encoded"),
        ] {
            let error = text.parse::<Digest>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_digest_of_bytes_parses_and_matches(bytes: Vec<u8>) {
            let digest = Digest::sha256_of(&bytes);
            prop_assert_eq!(&digest.to_string().parse::<Digest>().unwrap(), &digest);
            prop_assert!(digest.matches(&bytes));
            prop_assert!(!digest.matches([&bytes[..], b"x"].concat()));
        }

        #[test]
        fn unregistered_algorithms_survive(text in "[a-z0-9]{1,8}([+._-][a-z0-9]{1,8}){0,2}x:[A-Za-z0-9=_-]{1,90}") {
            prop_assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Digest>();
        }
    }
}
