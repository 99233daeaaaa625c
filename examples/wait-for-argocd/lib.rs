//! The arguments of `wait-for-argocd`, and what its exit code says.

use std::time::Duration;
use towpath_argocd::{DeliveryOutcome, DeliveryReport, Expected, ImageRef, Result};

/// How to call the program, and what it answers.
pub const USAGE: &str = "\
usage: wait-for-argocd PROJECT/APPLICATION COMMIT [IMAGE@DIGEST…] [--within SECONDS] [--settle SECONDS]

Reads ARGOCD_SERVER and ARGOCD_AUTH_TOKEN. Waits 600 seconds at most, for health that holds 10 seconds.
Exit codes: 0 live, 1 it failed, 2 wrong usage, 3 superseded, 4 timed out, 5 Argo CD cannot be asked, 130 interrupted.";

/// Reads the command line, without the program's name.
///
/// # Errors
/// One line that says which argument is wrong, and why.
pub fn arguments(arguments: impl IntoIterator<Item = String>) -> Result<Expected, String> {
    let mut rest = arguments.into_iter();
    let (mut within, mut settle, mut words) = (600, 10, Vec::new());
    while let Some(argument) = rest.next() {
        let seconds = match argument.as_str() {
            "--within" => &mut within,
            "--settle" => &mut settle,
            option if option.starts_with('-') => return Err(format!("there is no option {option}")),
            _ => {
                words.push(argument);
                continue;
            }
        };
        let value = rest.next().unwrap_or_default();
        *seconds = value
            .parse()
            .map_err(|_| format!("{argument} takes a number of seconds, not {value:?}"))?;
    }
    let [application, revision, images @ ..] = words.as_slice() else {
        return Err("name the application and the commit".into());
    };
    let image = |text: &String| -> Result<ImageRef, String> {
        let image: ImageRef = text.parse().map_err(|error| format!("{error}"))?;
        match image.digest() {
            Some(_) => Ok(image),
            None => Err(format!(
                "{image} has no digest: a tag may name another image by now"
            )),
        }
    };
    Ok(Expected {
        application: application.parse().map_err(|error| format!("{error}"))?,
        revision: revision.parse().map_err(|error| format!("{error}"))?,
        images: images.iter().map(image).collect::<Result<_, _>>()?,
        platform_digests: Vec::new(),
        within: Duration::from_secs(within),
        settle: Duration::from_secs(settle),
    })
}

/// What the program's exit code says about how the wait ended.
pub fn exit_code(result: &Result<DeliveryReport>) -> u8 {
    match result {
        Ok(report) => match report.outcome {
            DeliveryOutcome::Live => 0,
            DeliveryOutcome::Superseded => 3,
            DeliveryOutcome::TimedOut => 4,
            _ => 1,
        },
        Err(error) if error.is_cancelled() => 130,
        Err(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "9fceb02d0ae598e95dc970b74767f19372d61af8";

    fn read(line: &str) -> Result<Expected, String> {
        arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_wrong_argument_is_named() {
        for (line, problem) in [
            ("", "name the application and the commit"),
            ("shop/web", "name the application and the commit"),
            ("shop/web main", "\"main\" is not a valid commit SHA"),
            (&format!("shop/web {COMMIT} reg.example/web:1"), "no digest"),
            (&format!("shop/web {COMMIT} --within soon"), "\"soon\""),
            (&format!("shop/web {COMMIT} --settle"), "takes a number"),
            (&format!("shop/web {COMMIT} --verbose"), "no option --verbose"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(problem), "{line}: {error}");
        }
    }

    #[test]
    fn options_may_stand_anywhere() {
        let expected = read(&format!("--settle 0 shop/web {COMMIT} --within 5")).unwrap();
        assert_eq!(
            (expected.within, expected.settle),
            (Duration::from_secs(5), Duration::ZERO)
        );
        assert!(expected.images.is_empty());
    }
}
