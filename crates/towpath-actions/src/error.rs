//! What can go wrong in a step, in words for whoever reads its log.

use std::path::PathBuf;

/// The result of a call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in a step: one line that says what, where, and what to do. It carries no secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program does not run inside GitHub Actions.
    #[error(
        "this is not a step of GitHub Actions: GITHUB_ACTIONS is not \"true\"; run it in a workflow, or give an environment of your own to Step::new"
    )]
    NotInActions,
    /// A variable that the runner sets is missing.
    #[error("{name} is not set; {advice}")]
    Missing {
        /// The variable.
        name: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A variable holds something that it must not.
    #[error("{name} is malformed: {reason}")]
    Malformed {
        /// The variable.
        name: String,
        /// What is wrong with its value, and what to do.
        reason: String,
    },
    /// An input that the action needs was not given.
    #[error("the input {name} is required and was not given; add it under `with:`, or in a composite action under `env:` as INPUT_{}", name.replace(' ', "_").to_uppercase())]
    InputMissing {
        /// The input's name in `action.yml`.
        name: String,
    },
    /// An input holds something that the action cannot use.
    #[error("the input {name} is not valid: {reason}")]
    InputInvalid {
        /// The input's name in `action.yml`.
        name: String,
        /// What is wrong with its value, and what to do.
        reason: String,
    },
    /// A name or a value cannot be handed to the runner without being misread.
    #[error("cannot hand {what} to the runner: {reason}")]
    Refused {
        /// What was to be handed over, such as `the output "digest"`.
        what: String,
        /// Why it was refused.
        reason: String,
    },
    /// The summary of this step would be larger than the runner takes.
    #[error(
        "the step summary would be {size} bytes, and the runner takes at most {limit} for a step; write less, or upload the rest as an artifact"
    )]
    SummaryTooLarge {
        /// The size in bytes, with what the step has written so far.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A command was issued while commands are stopped; the runner would have printed it instead.
    #[error("the command {command} would be ignored, because commands are stopped; resume them first")]
    CommandsStopped {
        /// The command's name.
        command: &'static str,
    },
    /// A file of the runner cannot be read or written.
    #[error("cannot {action} {path}, the file that {variable} names: {source}", path = path.display())]
    File {
        /// `read` or `append to`.
        action: &'static str,
        /// The variable that names the file.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A command cannot be written to the step's output.
    #[error("cannot write a command to the step's output: {0}")]
    Output(#[from] std::io::Error),
    /// The runner gave no OIDC token.
    #[error("no OIDC token for the audience {audience:?} after {attempts} attempts: {reason}")]
    IdToken {
        /// The audience that was asked for.
        audience: String,
        /// How many requests were made.
        attempts: u32,
        /// What the last one ended with, and what to do.
        reason: String,
    },
}
