//! A step as the runner sees it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use towpath_actions::{Annotation, Environment, Error, SUMMARY_LIMIT, Secret, Step};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

const SHA: &str = "9fceb02d0ae598e95dc970b74767f19372d61af8";

struct Runner {
    folder: TempDir,
    variables: BTreeMap<String, String>,
    log: Log,
}

impl Runner {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut variables: BTreeMap<String, String> = [
            ("GITHUB_REPOSITORY", "acme/shop"),
            ("GITHUB_SHA", SHA),
            ("GITHUB_REF", "refs/heads/main"),
            ("GITHUB_RUN_ID", "42"),
            ("GITHUB_RUN_ATTEMPT", "2"),
            ("GITHUB_EVENT_NAME", "push"),
            ("GITHUB_API_URL", "https://ghe.example/api/v3"),
            ("GITHUB_SERVER_URL", "https://ghe.example"),
            ("GITHUB_WORKSPACE", "/runner/shop"),
            ("GITHUB_ACTOR", "mona"),
            ("GITHUB_JOB", "build"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for name in ["OUTPUT", "ENV", "STATE", "PATH", "STEP_SUMMARY", "EVENT_PATH"] {
            let path = folder.path().join(name);
            variables.insert(format!("GITHUB_{name}"), path.to_str().unwrap().to_owned());
        }
        std::fs::write(folder.path().join("EVENT_PATH"), r#"{"forced":false}"#).unwrap();
        Self {
            folder,
            variables,
            log: Log::default(),
        }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    fn step(&self) -> Step {
        Step::new(self.variables.clone().into_iter().collect(), self.log.clone())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

#[test]
fn inputs_follow_the_rules_of_the_runner() {
    let step = Runner::new()
        .set("INPUT_DRY-RUN", " True ")
        .set("INPUT_TWO_WORDS", "x")
        .set("INPUT_BLANK", "  ")
        .set("INPUT_LINES", "a\n\n b \n")
        .set("INPUT_REPO", "nonsense")
        .step();
    assert_eq!(step.boolean_input("dry-run").unwrap(), Some(true));
    assert_eq!(step.required_input("two words").unwrap(), "x");
    assert_eq!(step.input("blank").unwrap(), None);
    assert_eq!(step.input_lines("lines").unwrap(), ["a", "b"]);
    let said = step.required_input("blank").unwrap_err().to_string();
    assert!(said.contains("INPUT_BLANK"), "{said}");
    let said = step.boolean_input("repo").unwrap_err().to_string();
    assert!(said.contains("neither true nor false"), "{said}");
    let said = step
        .parsed_input::<towpath_actions::RepoSlug>("repo")
        .unwrap_err()
        .to_string();
    assert!(said.contains("repo") && said.contains("owner/name"), "{said}");
}

#[test]
fn the_files_get_one_record_each() {
    let runner = Runner::new().set("STATE_pid", "7");
    let step = runner.step();
    step.output("digest", "sha256:1\nadmin=true").unwrap();
    step.export_variable("COLOUR", "blue").unwrap();
    step.save_state("pid", "8").unwrap();
    step.add_path("/opt/bin").unwrap();
    assert_eq!(step.state("pid").unwrap(), Some("7"));
    let output = runner.file("OUTPUT");
    let lines: Vec<&str> = output.lines().collect();
    let delimiter = lines[0].strip_prefix("digest<<").unwrap();
    assert_eq!(lines, [lines[0], "sha256:1", "admin=true", delimiter]);
    assert!(runner.file("ENV").starts_with("COLOUR<<") && runner.file("STATE").starts_with("pid<<"));
    assert_eq!(runner.file("PATH"), "/opt/bin\n");
    for name in ["GITHUB_SHA", "runner_temp", "NODE_OPTIONS", "A=B", ""] {
        assert!(
            matches!(step.export_variable(name, "x"), Err(Error::Refused { .. })),
            "{name:?}"
        );
    }
    assert!(step.add_path("/a\n/b").is_err());
    let said = Runner::new()
        .without("GITHUB_OUTPUT")
        .step()
        .output("a", "b")
        .unwrap_err()
        .to_string();
    assert!(said.starts_with("GITHUB_OUTPUT is not set"), "{said}");
}

#[test]
fn a_summary_grows_to_its_limit_and_not_beyond() {
    let runner = Runner::new();
    let step = runner.step();
    step.summary("# Built").unwrap();
    let rest = "x".repeat(SUMMARY_LIMIT as usize - "# Built\n".len());
    assert!(matches!(
        step.summary(&rest),
        Err(Error::SummaryTooLarge { size, .. }) if size == SUMMARY_LIMIT + 1
    ));
    assert_eq!(runner.file("STEP_SUMMARY"), "# Built\n");
    step.summary(&rest[1..]).unwrap();
    assert_eq!(runner.file("STEP_SUMMARY").len() as u64, SUMMARY_LIMIT);
}

#[test]
fn commands_are_lines_that_the_runner_reads() {
    let runner = Runner::new().set("RUNNER_DEBUG", "1");
    let step = runner.step();
    step.mask(&Secret::new("first\r\n\n  \nsecond 100%")).unwrap();
    step.error(
        Annotation::new("no\nway")
            .title("a,b")
            .file("src/a.rs")
            .lines(3, 4)
            .columns(1, 2),
    )
    .unwrap();
    step.notice("done").unwrap();
    step.group("Build").unwrap().end().unwrap();
    step.debug("seen").unwrap();
    assert!(step.is_debug().unwrap());
    assert_eq!(
        runner.log.text(),
        "::add-mask::first\n::add-mask::second 100%25\n\
         ::error title=a%2Cb,file=src/a.rs,line=3,endLine=4,col=1,endColumn=2::no%0Away\n\
         ::notice::done\n::group::Build\n::endgroup::\n::debug::seen\n"
    );
}

#[test]
fn foreign_text_is_not_obeyed_and_our_commands_are_not_lost_in_it() {
    let runner = Runner::new();
    let step = runner.step();
    let stopped = step.stop_commands().unwrap();
    stopped.print("::error::forged").unwrap();
    assert!(matches!(
        step.notice("lost"),
        Err(Error::CommandsStopped { command: "notice" })
    ));
    drop(stopped);
    step.notice("seen").unwrap();
    let text = runner.log.text();
    let token = text
        .lines()
        .next()
        .unwrap()
        .strip_prefix("::stop-commands::")
        .unwrap();
    assert_eq!(
        text,
        format!("::stop-commands::{token}\n::error::forged\n::{token}::\n::notice::seen\n")
    );
}

#[test]
fn the_context_is_what_the_runner_says() {
    let context = Runner::new().step().context().unwrap();
    assert_eq!(context.repository.to_string(), "acme/shop");
    assert_eq!((context.sha.as_str(), context.attempt), (SHA, 2));
    assert_eq!(context.branch.as_ref().unwrap().as_str(), "main");
    assert_eq!(context.event["forced"], false);
    assert_eq!(context.workspace, PathBuf::from("/runner/shop"));
    assert_eq!(context.head_sha().unwrap(), context.sha);

    let runner = Runner::new()
        .set("GITHUB_REF", "refs/pull/7/merge")
        .set("GITHUB_HEAD_REF", "feature/x");
    let head = "1".repeat(40);
    let event = format!(r#"{{"pull_request":{{"head":{{"sha":"{head}"}}}}}}"#);
    std::fs::write(runner.folder.path().join("EVENT_PATH"), event).unwrap();
    let context = runner.step().context().unwrap();
    assert_eq!(context.head_sha().unwrap().as_str(), head);
    assert_eq!(context.branch.unwrap().as_str(), "feature/x");
}

#[test]
fn a_broken_context_says_which_variable_and_why() {
    for (runner, words) in [
        (Runner::new().without("GITHUB_SHA"), "GITHUB_SHA is not set"),
        (Runner::new().set("GITHUB_SHA", "main"), "GITHUB_SHA is malformed"),
        (
            Runner::new().set("GITHUB_RUN_ATTEMPT", "x"),
            "GITHUB_RUN_ATTEMPT is malformed",
        ),
        (
            Runner::new().set("GITHUB_API_URL", "/api"),
            "GITHUB_API_URL is malformed",
        ),
        (
            Runner::new().set("GITHUB_EVENT_PATH", "/nowhere/at/all"),
            "GITHUB_EVENT_PATH",
        ),
    ] {
        let said = runner.step().context().unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn nothing_shows_a_value_of_the_environment() {
    let environment = Environment::from([("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "canary")]);
    let step = Step::new(environment, std::io::sink());
    assert!(!format!("{step:?} {:#?}", step.environment()).contains("canary"));
}
