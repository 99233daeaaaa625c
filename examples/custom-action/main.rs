//! A custom GitHub Action in Rust: checks that a tag names an image in Amazon ECR, and gives its digest.
//!
//! `action.yml` says how a workflow calls it. Credentials and Region come from where every AWS tool takes them.

use std::process::ExitCode;
use towpath_actions::{Annotation, Secret, Step};
use towpath_ecr::{Ecr, EcrConfig, Registry, RepositoryName, Tag, TagMutability};

#[expect(
    clippy::print_stderr,
    reason = "the last resort where the runner cannot be told"
)]
#[tokio::main]
async fn main() -> ExitCode {
    let problem = match Step::from_env() {
        Ok(step) => match check(&step).await {
            Ok(()) => return ExitCode::SUCCESS,
            // The annotation is for people; the exit code is what fails the step.
            Err(error) => step
                .error(Annotation::new(error.to_string()).title("Cannot be promoted"))
                .err(),
        },
        Err(error) => Some(error),
    };
    if let Some(error) = problem {
        eprintln!("{error}");
    }
    ExitCode::FAILURE
}

#[expect(clippy::print_stdout, reason = "the log of the step is its standard output")]
async fn check(step: &Step) -> Result<(), Box<dyn std::error::Error>> {
    let repository: RepositoryName = step.required_input("repository")?.parse()?;
    let tag: Tag = step.required_input("tag")?.parse()?;
    let ecr = Ecr::new(&EcrConfig::from_env()).await?;
    if step.boolean_input("mask_registry")?.unwrap_or(true) {
        // Before anything can print it.
        step.mask(&Secret::new(ecr.registry().await?.to_string()))?;
    }

    let image = ecr.locate(&repository).await?.tagged(tag.clone());
    println!("Looking for {image}");
    let Some(found) = ecr.resolve(&image).await? else {
        return Err(
            format!("{repository} has no image with the tag {tag}; push it first, or check the tag").into(),
        );
    };
    let described = ecr.repository(&repository).await?;
    if described.is_none_or(|described| described.tag_mutability != TagMutability::Immutable) {
        let message = format!("The tag {tag} of {repository} may be moved: deploy the digest, not the tag.");
        step.warning(Annotation::new(message).title("Movable tag"))?;
    }

    step.output("digest", found.digest.as_str())?;
    let mut summary = format!(
        "### `{repository}:{tag}`\n\nDigest: `{}`\n\n| Platform | Digest |\n|---|---|\n",
        found.digest
    );
    for one in &found.platforms {
        let platform = one.platform.as_ref().map_or("–".to_owned(), ToString::to_string);
        summary.push_str(&format!("| {platform} | `{}` |\n", one.digest));
    }
    step.summary(&summary)?;
    Ok(())
}
