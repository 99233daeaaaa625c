//! The variables of a step, as the runner set them or as a test gives them.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// The environment variables of a step.
///
/// `Debug` shows the names only: some values are tokens.
///
/// ```
/// use towpath_actions::Environment;
/// let environment = Environment::from([("INPUT_DRY-RUN", "true")]);
/// assert_eq!(environment.get("INPUT_DRY-RUN")?, Some("true"));
/// # Ok::<(), towpath_actions::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// The variables of this process. Those whose names are not UTF-8 are left out; the runner sets none.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .collect()
    }

    /// The value of a variable, or `None` where it is not set or empty; the runner makes no difference.
    ///
    /// # Errors
    /// [`Error::Malformed`] where the value is not UTF-8.
    pub fn get(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(value) => Ok(Some(value).filter(|value| !value.is_empty())),
                None => Err(Error::Malformed {
                    name: name.to_owned(),
                    reason: "it is not UTF-8".into(),
                }),
            },
        }
    }

    /// The value of a variable that must be there; `advice` says what to do where it is not.
    pub(crate) fn require(&self, name: &str, advice: &'static str) -> Result<&str> {
        self.get(name)?.ok_or_else(|| Error::Missing {
            name: name.to_owned(),
            advice,
        })
    }
}

impl<K: Into<String>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl<K: Into<String>, V: Into<OsString>, const N: usize> From<[(K, V); N]> for Environment {
    fn from(variables: [(K, V); N]) -> Self {
        variables.into_iter().collect()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
