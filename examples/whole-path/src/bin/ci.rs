//! The step inside GitHub Actions, as a program of its own for tests. The example runs itself instead.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    whole_path::ci::main().await
}
