//! What is, beside what is wanted, and what was done about it.

use std::fmt;

/// A setting that is not as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The setting, in a few words.
    pub setting: &'static str,
    /// What it is; `None` where there is none.
    pub found: Option<String>,
    /// What it is to be.
    pub wanted: String,
    /// Whether the service offers no way to change it.
    pub unchangeable: bool,
}

/// What keeps a thing from being as it is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Differences {
    /// Whether the thing is not there at all.
    pub missing: bool,
    /// The settings that differ.
    pub settings: Vec<Difference>,
}

/// A thing that is as it was wanted, and what it took.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Reconciled<T> {
    /// The thing, as it is now.
    pub now: T,
    /// Whether it was made. It is false where somebody else was faster.
    pub created: bool,
    /// The settings that were changed, as they were before. Empty where it was made: all settings are new then.
    pub changed: Vec<Difference>,
}

impl Difference {
    /// The difference between two values; `None` where there is none.
    pub(crate) fn between<T: PartialEq + fmt::Display>(
        setting: &'static str,
        found: Option<&T>,
        wanted: &T,
    ) -> Option<Self> {
        (found != Some(wanted)).then(|| Self {
            setting,
            found: found.map(ToString::to_string),
            wanted: wanted.to_string(),
            unchangeable: false,
        })
    }
}

impl Differences {
    /// Whether everything is as it is wanted.
    pub fn is_empty(&self) -> bool {
        !self.missing && self.settings.is_empty()
    }
}

impl<T> Reconciled<T> {
    pub(crate) fn unchanged(now: T) -> Self {
        Self {
            now,
            created: false,
            changed: Vec::new(),
        }
    }

    /// Whether anything was done.
    pub fn is_changed(&self) -> bool {
        self.created || !self.changed.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.as_deref().unwrap_or("none");
        write!(f, "{}: {found}, wanted {}", self.setting, self.wanted)?;
        match self.unchangeable {
            true => f.write_str(" (it cannot be changed)"),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing {
            return f.write_str("missing");
        }
        if self.settings.is_empty() {
            return f.write_str("as wanted");
        }
        for (position, difference) in self.settings.iter().enumerate() {
            if position > 0 {
                f.write_str("; ")?;
            }
            difference.fmt(f)?;
        }
        Ok(())
    }
}
