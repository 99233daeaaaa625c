//! How a wait ended, as a result.

use crate::error::SERVICE;
use towpath_core::wait::Outcome;
use towpath_elements::{Error, ErrorKind, Result};

/// What was waited for, or why it did not come.
pub(crate) fn settle<T>(outcome: Outcome<T, Error>, attempted: &'static str, subject: &str) -> Result<T> {
    let error = |kind| Error::new(kind, SERVICE, attempted, subject);
    match outcome {
        Outcome::Met(seen) => Ok(seen),
        Outcome::Failed { reason, .. } => Err(error(ErrorKind::Conflict).because(reason)),
        Outcome::TimedOut {
            waiting_for,
            elapsed,
            error: last,
            ..
        } => {
            let late = error(ErrorKind::TimedOut).because(format!(
                "still waiting for {waiting_for} after {} s",
                elapsed.as_secs()
            ));
            Err(match last {
                Some(last) => late.caused_by(last),
                None => late,
            })
        }
        Outcome::Cancelled { .. } => Err(error(ErrorKind::Cancelled)),
        Outcome::Blind { error, .. } => Err(error),
        _ => {
            Err(error(ErrorKind::Protocol).because("the wait ended in a way that this version does not know"))
        }
    }
}
