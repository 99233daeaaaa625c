//! Takes a reviewed commit through steps 1 to 13. The README says what to expect.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    whole_path::main().await
}
