//! What can keep a lab from starting.

use std::net::SocketAddr;

/// Why the lab did not start. Each says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A port was asked for that somebody else has.
    #[error("cannot listen on {address} for {service}: {source}; choose another port, or 0 for any free one")]
    Listen {
        /// The service that was to listen there.
        service: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder of the lab could not be made or read.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried, as in "cannot …".
        action: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program that the lab needs is missing or did not do its work.
    #[error("{program} did not work: {reason}")]
    Program {
        /// The program, such as `git`.
        program: &'static str,
        /// What went wrong, and what to do.
        reason: String,
    },
    /// A setting cannot be used as it was given.
    #[error("the {name} cannot be used: {reason}")]
    Setting {
        /// What was to be set.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
