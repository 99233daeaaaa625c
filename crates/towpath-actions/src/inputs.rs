//! The inputs of an action: `INPUT_` and the name in upper case, blanks as `_`, hyphens kept.
//!
//! A composite action gets no such variables from the runner; pass them in its `env:`.

use crate::{Error, Result, Step};
use std::fmt;
use std::str::FromStr;

impl Step {
    /// An input, trimmed; `None` where it was not given or is blank.
    pub fn input(&self, name: &str) -> Result<Option<&str>> {
        let variable = format!("INPUT_{}", name.replace(' ', "_").to_uppercase());
        let value = self.environment().get(&variable)?.map(str::trim);
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// An input that must be there, trimmed.
    ///
    /// # Errors
    /// [`Error::InputMissing`] where it was not given or is blank.
    pub fn required_input(&self, name: &str) -> Result<&str> {
        self.input(name)?.ok_or_else(|| Error::InputMissing {
            name: name.to_owned(),
        })
    }

    /// An input as a type of the caller, such as [`RepoSlug`](crate::RepoSlug).
    ///
    /// # Errors
    /// [`Error::InputInvalid`] with the type's own words where it does not parse.
    pub fn parsed_input<T>(&self, name: &str) -> Result<Option<T>>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let parse = |value: &str| {
            value.parse().map_err(|error: T::Err| Error::InputInvalid {
                name: name.to_owned(),
                reason: error.to_string(),
            })
        };
        self.input(name)?.map(parse).transpose()
    }

    /// An input that is true or false, by the YAML 1.2 core schema: `true`, `True`, `TRUE`, `false`, `False`, `FALSE`.
    pub fn boolean_input(&self, name: &str) -> Result<Option<bool>> {
        match self.input(name)? {
            None => Ok(None),
            Some("true" | "True" | "TRUE") => Ok(Some(true)),
            Some("false" | "False" | "FALSE") => Ok(Some(false)),
            Some(other) => Err(Error::InputInvalid {
                name: name.to_owned(),
                reason: format!("{other:?} is neither true nor false; write true or false"),
            }),
        }
    }

    /// The lines of an input, trimmed, without blank ones.
    pub fn input_lines(&self, name: &str) -> Result<Vec<&str>> {
        let value = self.input(name)?.unwrap_or_default();
        Ok(value
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect())
    }
}
