//! Deploys a commit and waits until its image runs: `deploy shop/web COMMIT IMAGE@DIGEST`, with `ARGOCD_SERVER` and
//! `ARGOCD_AUTH_TOKEN` set.
#![allow(clippy::print_stdout, reason = "a program speaks to its user")]

use std::{error::Error, time::Duration};
use towpath_argocd::{ArgoCd, Cancellation, DeliveryOutcome, Expected};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [application, commit, image] = words.as_slice() else {
        return Err("name the application, the commit and the image".into());
    };
    let expected = Expected {
        application: application.parse()?,
        revision: commit.parse()?,
        images: vec![image.parse()?],
        platform_digests: vec![],
        within: Duration::from_secs(600),
        settle: Duration::from_secs(10),
    };
    let waiter = ArgoCd::from_env()?
        .build()?
        .waiter()
        .on_progress(|now| println!("waiting for {}", now.waiting_for));
    let report = waiter.wait(expected, &Cancellation::new()).await?;
    println!("{:?}: {}", report.outcome, report.reason);
    if report.outcome == DeliveryOutcome::Live {
        Ok(())
    } else {
        Err("it is not live".into())
    }
}
