//! Whether trying again can help.

use std::time::Duration;

/// What a caller may do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request will fail the same way.
    Never,
    /// Trying again later can help.
    Later,
    /// Trying again can help, but not before this time has passed.
    After(Duration),
    /// It could have helped, was tried, and is spent: outer loops stop here too.
    Spent,
}

impl Retry {
    /// Whether an outer loop may try again.
    pub fn can_help(self) -> bool {
        matches!(self, Retry::Later | Retry::After(_))
    }
}
