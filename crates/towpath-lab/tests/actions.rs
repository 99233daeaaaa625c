//! Actions as a workflow and a client see it: pushed files, real processes, the REST API.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod github_common;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use github_common::World;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use towpath_core::Secret;
use towpath_lab::github::{GitHubConfig, RunnerConfig};

const PATH: &str = ".github/workflows/ci.yml";

#[tokio::test]
async fn a_push_runs_real_processes_under_the_contract() {
    let runner = RunnerConfig {
        env: vec![("INSTALLED".into(), "tool".into())],
        ..RunnerConfig::default()
    };
    let world = World::with(
        GitHubConfig {
            runner,
            ..GitHubConfig::default()
        },
        true,
    )
    .await;
    world.github.set_secret("WORD", Secret::new("hunter2"));
    world.github.set_variable("COLOUR", "green");
    let workflow = r##"
name: CI
on: {push: {branches: [main]}}
env: {GREETING: hello}
jobs:
  build:
    runs-on: self-hosted
    outputs: {version: "${{ steps.version.outputs.version }}", leak: "x${{ secrets.WORD }}"}
    steps:
      - uses: actions/checkout@v4
      - id: version
        env: {WORD: "${{ secrets.WORD }}"}
        run: |
          test "$GITHUB_SHA" = "$(git rev-parse HEAD)"
          test "$(git rev-parse --abbrev-ref HEAD)" = main
          test "$INSTALLED" = tool && test -z "$CARGO_MANIFEST_DIR"
          printf 'version<<E\n1.%s\nE\n' "$(cat number)" >> "$GITHUB_OUTPUT"
          echo "# built with $WORD" >> "$GITHUB_STEP_SUMMARY"
          echo "LATER=yes" >> "$GITHUB_ENV"
          echo "the word: $WORD"
          echo "::warning file=number,line=2::odd"
      - run: test "$LATER-$GREETING-${{ vars.COLOUR }}" = yes-hello-green
      - uses: ./tool
        with: {who: world}
      - if: failure()
        run: exit 9
  use:
    needs: [build]
    runs-on: self-hosted
    steps:
      - run: test "${{ needs.build.outputs.version }}" = 1.7
"##;
    let action = "inputs: {who: {default: nobody}}\nruns:\n  using: composite\n  steps:\n    - shell: sh\n      run: test '${{ inputs.who }}' = world\n";
    let sha = world
        .push(
            "main",
            &[(PATH, workflow), ("number", "7"), ("tool/action.yml", action)],
        )
        .await;
    let run = world.completed(1).await.remove(0);
    let log = &run.jobs[0].log;
    assert_eq!(
        run.conclusion.as_deref(),
        Some("success"),
        "{log}\n{}",
        run.jobs[1].log
    );
    assert!(log.contains("the word: ***") && !log.contains("hunter2"), "{log}");
    assert_eq!(
        run.jobs[0].outputs.get("version").map(String::as_str),
        Some("1.7")
    );
    assert!(!run.jobs[0].outputs.contains_key("leak"));
    assert_eq!(run.jobs[0].steps[1].summary.trim(), "# built with ***");
    assert_eq!(run.jobs[0].steps[4].conclusion, "skipped");

    let runs = world
        .get(&format!("/actions/runs?head_sha={sha}&branch=main&event=push"))
        .await;
    assert_eq!(
        (&runs["total_count"], &runs["workflow_runs"][0]["conclusion"]),
        (&json!(1), &json!("success"))
    );
    let jobs = world.get(&format!("/actions/runs/{}/jobs", run.id)).await;
    assert_eq!(jobs["jobs"][1]["name"], "use");
    let (status, text) = world
        .ask(
            "mona",
            Method::GET,
            &world.repo(&format!("/actions/jobs/{}/logs", run.jobs[0].id)),
            Value::Null,
        )
        .await;
    assert!(status == StatusCode::OK && text.as_str().unwrap().contains("the word: ***"));
    let checks = world.get(&format!("/commits/{sha}/check-runs")).await;
    assert_eq!(checks["total_count"], 2);
    assert!(world.github.check_runs(&world.slug, &sha)[0].annotations[0]["message"] == "odd");

    let path = world.repo(&format!("/actions/runs/{}/rerun", run.id));
    assert_eq!(
        world.ask("mona", Method::POST, &path, Value::Null).await.0,
        StatusCode::CREATED
    );
    world
        .until("the second attempt ends", |github| {
            github
                .runs()
                .pop()
                .filter(|run| run.attempt == 2 && run.status == "completed")
        })
        .await;
    let first = world.get(&format!("/actions/runs/{}/attempts/1", run.id)).await;
    assert_eq!(
        (&first["run_attempt"], &first["conclusion"]),
        (&json!(1), &json!("success"))
    );
}

#[tokio::test]
async fn failures_say_why() {
    let world = World::start().await;
    let job = |step: &str| format!("on: push\njobs: {{a: {{runs-on: x, steps: [{step}]}}}}\n");
    let files = [
        (
            ".github/workflows/1.yml",
            job("{run: 'exit 3'}, {run: echo never}, {if: always(), run: echo cleaned}"),
        ),
        (".github/workflows/2.yml", job("{uses: some/action@v1}")),
        (
            ".github/workflows/3.yml",
            job("{run: 'echo ${{ fromJSON(github.x) }}'}"),
        ),
        (
            ".github/workflows/4.yml",
            "on: push\njobs: {a: {runs-on: x, strategy: {}, steps: []}}".to_owned(),
        ),
        (
            ".github/workflows/5.yml",
            job("{run: sleep 600, timeout-minutes: 0.001}"),
        ),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    world.push("main", &files).await;
    let runs = world.completed(5).await;
    let log = |at: usize| runs[at].jobs[0].log.as_str();
    assert!(
        log(0).contains("exit code 3") && !log(0).contains("never\n") && log(0).contains("cleaned"),
        "{}",
        log(0)
    );
    assert!(
        log(1).contains("Unable to resolve action some/action@v1"),
        "{}",
        log(1)
    );
    assert!(log(2).contains("fromJSON"), "{}", log(2));
    assert!(runs[3].error.as_ref().unwrap().contains("strategy"));
    assert!(log(4).contains("timed out"), "{}", log(4));
    let conclusions: Vec<_> = runs
        .iter()
        .map(|run| run.conclusion.as_deref().unwrap())
        .collect();
    assert_eq!(
        conclusions,
        ["failure", "failure", "failure", "startup_failure", "failure"]
    );
}

#[tokio::test]
async fn a_job_gets_an_identity_token_and_its_own_credentials() {
    let world = World::start().await;
    let workflow = r#"
on: [workflow_dispatch]
permissions: {id-token: write, contents: write}
jobs:
  a:
    runs-on: x
    steps:
      - uses: actions/checkout@v4
      - env: {FOLDER: "${{ inputs.folder }}", TOKEN: "${{ github.token }}"}
        run: |
          test -z "$GITHUB_TOKEN"
          echo "$TOKEN" > "$FOLDER/token"
          echo "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" > "$FOLDER/request"
          echo "$ACTIONS_ID_TOKEN_REQUEST_URL" > "$FOLDER/url"
          while ! test -e "$FOLDER/go"; do sleep 0.01; done
          echo x > new
          git add new
          git -c user.name=a -c user.email=a@b commit -q -m new
          git push -q origin HEAD
"#;
    let before = world.push("main", &[(PATH, workflow)]).await;
    let folder = world.folder.path().to_owned();
    let body = json!({"ref": "main", "inputs": {"folder": folder}});
    let path = "/actions/workflows/ci.yml/dispatches";
    let newer = json!({"ref": "main", "return_run_details": true});
    assert_eq!(world.post(path, newer).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(world.post(path, body).await.0, StatusCode::NO_CONTENT);
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name))
            .ok()
            .filter(|text| text.ends_with('\n'))
    };
    let url = world.until("the job asks", |_| read("url")).await;
    let request = read("request").unwrap();
    let ask = |token: &str| {
        let url = format!("{}&audience=sts.amazonaws.com", url.trim());
        world
            .request(Method::GET, &url)
            .header("Authorization", format!("Bearer {}", token.trim()))
            .send()
    };
    assert_eq!(ask("other").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let answer: Value = ask(&request).await.unwrap().json().await.unwrap();
    let jwt = answer["value"].as_str().unwrap();
    let keys = format!("{}/_services/token/.well-known/jwks", world.github.server_url());
    let keys: Value = world
        .request(Method::GET, &keys)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let part = |text: &Value| URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap();
    let key = RsaPublicKeyComponents {
        n: part(&keys["keys"][0]["n"]),
        e: part(&keys["keys"][0]["e"]),
    };
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
        .unwrap();
    let claims = signed.split_once('.').unwrap().1;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["sub"], "repo:acme/shop:ref:refs/heads/main");
    assert_eq!(
        (&claims["aud"], &claims["sha"]),
        (&json!("sts.amazonaws.com"), &json!(before))
    );

    std::fs::write(folder.join("go"), "").unwrap();
    let run = world.completed(1).await.remove(0);
    assert_eq!(run.conclusion.as_deref(), Some("success"), "{}", run.jobs[0].log);
    // What the token of a job pushes starts no run, and the token ends with the job.
    assert_ne!(
        world.github.refs(&world.slug).await.unwrap()["refs/heads/main"],
        before
    );
    let token = read("token").unwrap();
    let late = world
        .request(Method::GET, &world.repo(""))
        .header("Authorization", format!("token {}", token.trim()));
    assert_eq!(late.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&request).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_cancelled_run_leaves_no_process() {
    let world = World::start().await;
    let pid = world.folder.path().join("pid");
    let script = format!("trap '' INT; sleep 600 & echo $! > {}; wait", pid.display());
    world
        .push(
            "main",
            &[(
                PATH,
                &format!("on: push\njobs: {{a: {{runs-on: x, steps: [{{run: \"{script}\"}}]}}}}\n"),
            )],
        )
        .await;
    let child = world
        .until("the child starts", |_| {
            std::fs::read_to_string(&pid).ok().filter(|text| !text.is_empty())
        })
        .await;
    let run = world.github.runs().remove(0);
    let (status, _) = world
        .post(&format!("/actions/runs/{}/cancel", run.id), Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        world.completed(1).await[0].conclusion.as_deref(),
        Some("cancelled")
    );
    let alive = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    world.until("the child ends", |_| (!alive()).then_some(())).await;
}
