//! Plain git, as anybody would use it.

use std::path::Path;
use std::process::Stdio;
use towpath_core::{CommitSha, Secret};
use towpath_elements::{Error, ErrorKind, Result};

/// A working copy, and who pushes from it.
#[derive(Debug)]
pub(crate) struct WorkingCopy<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) user: &'a str,
    pub(crate) token: &'a Secret,
}

impl WorkingCopy<'_> {
    /// Runs git here and gives what it printed. The token goes in by the environment: not in an argument, not in a URL.
    pub(crate) async fn git(&self, arguments: &[&str]) -> Result<String> {
        let error = |kind| {
            let verb = arguments.first().copied().unwrap_or_default();
            Error::new(kind, "git", format!("{verb} in"), self.folder.display())
        };
        let credentials = basic(self.user, self.token);
        let mut command = tokio::process::Command::new("git");
        command
            .current_dir(self.folder)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", self.user)
            .env("GIT_AUTHOR_EMAIL", format!("{}@acme.example", self.user))
            .env("GIT_COMMITTER_NAME", self.user)
            .env("GIT_COMMITTER_EMAIL", format!("{}@acme.example", self.user))
            .env("GIT_CONFIG_COUNT", "1")
            .env("GIT_CONFIG_KEY_0", "http.extraHeader")
            .env(
                "GIT_CONFIG_VALUE_0",
                format!("Authorization: Basic {}", credentials.expose()),
            );
        let output = command.output().await.map_err(|source| {
            error(ErrorKind::Invalid)
                .because("git cannot be started")
                .advise("install git")
                .caused_by(source)
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(error(ErrorKind::Invalid).because(credentials.redact(said.trim())))
    }

    /// The commit that is checked out.
    pub(crate) async fn head(&self) -> Result<CommitSha> {
        Ok(self.git(&["rev-parse", "HEAD"]).await?.parse()?)
    }
}

fn basic(user: &str, token: &Secret) -> Secret {
    use base64::Engine as _;
    let pair = format!("{user}:{}", token.expose());
    Secret::new(base64::engine::general_purpose::STANDARD.encode(pair))
}
