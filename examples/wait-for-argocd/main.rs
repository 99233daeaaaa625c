//! Waits until a commit and its images are live: `cargo run --example wait-for-argocd -- shop/web COMMIT IMAGE@DIGEST`.

use std::process::ExitCode;
use towpath_argocd::{ArgoCd, Cancellation, Delivery};
use wait_for_argocd::{USAGE, arguments, exit_code};

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program speaks to its user"
)]
#[tokio::main]
async fn main() -> ExitCode {
    let expected = match arguments(std::env::args().skip(1)) {
        Ok(expected) => expected,
        Err(problem) => {
            eprintln!("{problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let cancellation = Cancellation::new();
    let on_interrupt = cancellation.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            on_interrupt.cancel();
        }
    });
    let result = match ArgoCd::from_env().and_then(|builder| builder.build()) {
        Ok(argo) => argo.wait(expected, &cancellation).await,
        Err(error) => Err(error),
    };
    match &result {
        Ok(report) => println!("{:?}: {}", report.outcome, report.reason),
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::from(exit_code(&result))
}
