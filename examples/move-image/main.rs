//! Moves an image and its signatures between two accounts: `cargo run --example move-image`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program speaks to its user"
)]

use move_image::lab::{Account, Error, signed_image};
use move_image::{Moved, USAGE, account, move_image};
use std::process::ExitCode;
use towpath_core::requests;
use towpath_ecr::ImageRef;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => between_lab_accounts().await,
        [image, target] => between_real_accounts(image, target).await,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn between_real_accounts(image: &str, target: &str) -> Result<(), Error> {
    let (image, target): (ImageRef, ImageRef) = (image.parse()?, target.parse()?);
    let (from, to) = (account("SOURCE_").await?, account("TARGET_").await?);
    print(&move_image(&from, &image, &to, &target).await?);
    Ok(())
}

async fn between_lab_accounts() -> Result<(), Error> {
    let from = Account::start("111111111111", "AKIASOURCESOURCESOUR").await?;
    let to = Account::start("222222222222", "AKIATARGETTARGETTARG").await?;
    let image = signed_image(&from).await?;
    let target = format!("{}/mirror/web:1.4", to.lab.registry_host()).parse()?;
    for run in ["first", "second"] {
        let (moved, requests) = requests::count(move_image(&from.ecr, &image, &to.ecr, &target)).await;
        println!("{run} run, {requests} requests:");
        print(&moved?);
    }
    let shared = from.credentials().intersection(&to.credentials()).count();
    println!("credentials that both accounts have seen: {shared}");
    Ok(())
}

fn print(moved: &Moved) {
    let copied = &moved.copied;
    println!("  {}", moved.image);
    println!(
        "  sent {} manifests and {} blobs of {} bytes",
        copied.manifests, copied.sent, copied.bytes
    );
    for referrer in &moved.referrers {
        let kind = referrer.artifact_type().as_ref().map(ToString::to_string);
        println!("  {} {}", kind.unwrap_or_default(), referrer.digest());
    }
    for part in &moved.scan.platforms {
        println!(
            "  scan of {}: {:?}, {} findings",
            part.image.digest,
            part.status,
            part.findings.len()
        );
    }
}
