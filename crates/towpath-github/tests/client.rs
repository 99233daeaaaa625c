//! How the client treats requests, answers and refusals, against servers that each test writes itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod fixture;

use fixture::{Fixture, TOKEN, json, reply};
use futures_util::TryStreamExt;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use towpath_github::ci::{CiState, StartRun};
use towpath_github::source::{Ancestry, Change, Report, ReportState};
use towpath_github::{Ci, CiRunId, CommitSha, ErrorKind, RepoSlug, RevisionOracle, Source};

fn shop() -> RepoSlug {
    "acme/shop".parse().unwrap()
}

fn sha(digit: char) -> CommitSha {
    digit.to_string().repeat(40).parse().unwrap()
}

#[tokio::test]
async fn requests_carry_what_github_wants_and_are_counted() {
    let server = Fixture::serve(|_, _| json(200, json!({"installed_version": "3.19.1"}))).await;
    let (meta, sent) = towpath_core::requests::count(server.client().meta()).await;
    assert_eq!(
        (meta.unwrap().installed_version.as_deref(), sent),
        (Some("3.19.1"), 1)
    );
    let seen = server.seen().remove(0);
    assert_eq!(seen.line(), "GET /meta");
    assert_eq!(seen.headers["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(seen.headers["accept"], "application/vnd.github+json");
    assert_eq!(seen.headers.get_all("x-github-api-version").iter().count(), 1);
    assert!(
        seen.headers["user-agent"]
            .to_str()
            .unwrap()
            .starts_with("towpath/")
    );
}

#[tokio::test]
async fn pages_are_followed_by_query_only_and_a_circle_ends() {
    // The server believes that it is called something else, as one behind a proxy does.
    let server = Fixture::serve(|seen, _| {
        let page = if seen.query.contains("page=2&") || seen.query.ends_with("page=2") {
            2
        } else {
            1
        };
        let link = r#"<https://ghe.internal/repositories/1/branches?per_page=100&page=2>; rel="next""#;
        let branch = json!([{"name": format!("b{page}"), "commit": {"sha": "1".repeat(40)}}]).to_string();
        let headers: &[(&str, &str)] = &[("link", link)];
        reply(200, if page == 1 { headers } else { &[] }, branch)
    })
    .await;
    let branches = server.client().branches(&shop()).await.unwrap();
    assert_eq!(
        branches
            .iter()
            .map(|branch| branch.name.as_str())
            .collect::<Vec<_>>(),
        ["b1", "b2"]
    );
    let seen = server.seen();
    assert_eq!(seen[1].path, "/api/v3/repos/acme/shop/branches");
    assert_eq!(seen[1].query, "per_page=100&page=2");
    assert!(seen[1].headers.contains_key("authorization"));

    let circle = Fixture::serve(|_, _| reply(200, &[("link", "</x?page=2>; rel=\"next\"")], "[]")).await;
    let error = circle.client().branches(&shop()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(circle.seen().len() <= 3);
}

#[tokio::test]
async fn every_form_of_a_rate_limit_says_how_long_to_wait() {
    let reset = "Mon, 23 Nov 2026 10:00:00 GMT";
    type Case<'a> = (u16, &'a [(&'a str, &'a str)], &'a str, u64);
    let cases: [Case<'_>; 5] = [
        (403, &[("retry-after", "7")], "{}", 7),
        (
            403,
            &[
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1795428030"),
                ("date", reset),
            ],
            r#"{"message":"API rate limit exceeded for user ID 1."}"#,
            30,
        ),
        (
            403,
            &[],
            r#"{"message":"You have exceeded a secondary rate limit. Please wait."}"#,
            60,
        ),
        (429, &[("retry-after", "90")], "{}", 90),
        (
            403,
            &[],
            r#"{"message":"You have triggered an abuse detection mechanism."}"#,
            60,
        ),
    ];
    for (status, headers, body, seconds) in cases {
        let headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let body = body.to_owned();
        let server = Fixture::serve(move |_, _| {
            let headers: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            reply(status, &headers, body.clone())
        })
        .await;
        let error = server.client().user().await.unwrap_err();
        assert!(error.is_rate_limited(), "{error}");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(seconds)), "{error}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_server_said_and_never_the_token() {
    let cases = [
        (
            401,
            json!({"message": format!("Bad credentials {TOKEN}")}),
            ErrorKind::Unauthenticated,
            "Bad credentials",
        ),
        (
            403,
            json!({"message": "Resource not accessible by integration"}),
            ErrorKind::Denied,
            "statuses=write",
        ),
        (
            404,
            json!({"message": "Not Found", "documentation_url": "https://docs"}),
            ErrorKind::NotFound,
            "token may see",
        ),
        (
            422,
            json!({"message": "Validation Failed", "errors": [
                {"resource": "Repository", "field": "name", "code": "custom", "message": "name already exists on this account"}
            ]}),
            ErrorKind::Conflict,
            "Repository.name: name already exists",
        ),
        (
            422,
            json!({"message": "No commit found for SHA: x"}),
            ErrorKind::NotFound,
            "No commit",
        ),
        (
            405,
            json!({"message": "Pull Request is not mergeable"}),
            ErrorKind::Conflict,
            "not mergeable",
        ),
    ];
    for (status, body, kind, text) in cases {
        let body = body.to_string();
        let server = Fixture::serve(move |_, _| {
            reply(
                status,
                &[
                    ("x-github-request-id", "C0DE:7"),
                    ("x-accepted-github-permissions", "statuses=write"),
                ],
                body.clone(),
            )
        })
        .await;
        let client = server.client();
        let error = client
            .create_user_repository(&towpath_github::wire::NewRepository::named("x"))
            .await
            .unwrap_err();
        let shown = format!("{error} {error:?} {client:?}");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(
            shown.contains(text) && shown.contains("request C0DE:7"),
            "{shown}"
        );
        assert!(
            !shown.contains("canary") && !shown.contains("https://docs"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn reads_are_tried_again_and_writes_are_not() {
    let server = Fixture::serve(|seen, before| match seen.method.as_str() {
        "GET" if before < 2 => json(502, json!({})),
        "GET" => json(200, json!({"login": "ann"})),
        _ => json(502, json!({"message": "Server Error"})),
    })
    .await;
    assert_eq!(server.client().user().await.unwrap().login, "ann");
    let error = server
        .client()
        .create_user_repository(&towpath_github::wire::NewRepository::named("x"))
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(
        server.lines(),
        ["GET /user", "GET /user", "GET /user", "POST /user/repos"]
    );
}

#[tokio::test]
async fn a_missing_branch_is_none_and_a_missing_repository_is_an_error() {
    let server = Fixture::serve(|seen, _| match seen.line().as_str() {
        "GET /repos/acme/shop" => json(200, json!({"full_name": "acme/shop"})),
        "GET /repos/acme/empty/git/ref/heads/main" => {
            json(409, json!({"message": "Git Repository is empty."}))
        }
        "GET /repos/acme/shop/git/ref/heads/feature/x" => json(
            200,
            json!({"ref": "refs/heads/feature/x", "object": {"sha": "a".repeat(40), "type": "commit"}}),
        ),
        _ => json(404, json!({"message": "Not Found"})),
    })
    .await;
    let github = server.client();
    let main = "main".parse().unwrap();
    assert_eq!(
        github.head(&shop(), &"feature/x".parse().unwrap()).await.unwrap(),
        Some(sha('a'))
    );
    assert_eq!(github.head(&shop(), &main).await.unwrap(), None);
    assert_eq!(
        github.head(&"acme/empty".parse().unwrap(), &main).await.unwrap(),
        None
    );
    let error = github
        .head(&"acme/gone".parse().unwrap(), &main)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn a_file_is_its_bytes_and_a_directory_is_none() {
    let server = Fixture::serve(|seen, _| match seen.line().as_str() {
        "GET /repos/acme/shop/contents/a%20b/x.bin" => reply(
            200,
            &[("content-type", "application/vnd.github.raw+json; charset=utf-8")],
            vec![0, 255, b'\n'],
        ),
        "GET /repos/acme/shop/contents/dir" => json(200, json!([{"name": "x"}])),
        line if line.ends_with(&format!("/commits/{}", "a".repeat(40))) => {
            json(200, json!({"sha": "a".repeat(40), "commit": {"message": ""}}))
        }
        _ => json(404, json!({"message": "Not Found"})),
    })
    .await;
    let github = server.client();
    let file = async |commit: char, path: &str| github.file(&shop(), &sha(commit), path).await;
    assert_eq!(file('a', "a b/x.bin").await.unwrap(), Some(vec![0, 255, b'\n']));
    assert_eq!(file('a', "dir").await.unwrap(), None);
    assert_eq!(file('a', "missing").await.unwrap(), None);
    assert!(file('b', "missing").await.unwrap_err().is_not_found());
    assert_eq!(
        file('a', "../../../user").await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn a_review_pages_through_every_review_of_the_merged_pull_requests() {
    let server = Fixture::serve(|seen, _| {
        let review = |by: &str, state: &str, at: u32| {
            json!({"id": at, "user": {"login": by}, "state": state, "commit_id": "b".repeat(40),
                   "submitted_at": format!("2026-11-01T10:00:{at:02}Z")})
        };
        let side = |name: &str, digit: &str| json!({"ref": name, "sha": digit.repeat(40)});
        match (seen.path.rsplit('/').next().unwrap(), seen.query.contains("&page=2")) {
            ("pulls", _) => json(
                200,
                json!([
                    {"number": 7, "state": "closed", "user": {"login": "ann"}, "head": side("x", "b"),
                     "base": side("main", "c"), "merged_at": "2026-11-01T11:00:00Z",
                     "html_url": "https://ghe/acme/shop/pull/7"},
                    {"number": 8, "state": "open", "user": null, "head": side("y", "d"), "base": side("main", "c"),
                     "merged_at": null},
                ]),
            ),
            ("reviews", false) => reply(
                200,
                &[("link", "<https://ghe/api/v3/x?per_page=100&page=2>; rel=\"next\"")],
                json!([review("bob", "APPROVED", 1), review("cy", "APPROVED", 2)]).to_string(),
            ),
            ("reviews", true) => {
                json(200, json!([review("bob", "DISMISSED", 3), review("cy", "COMMENTED", 4)]))
            }
            _ => json(404, json!({})),
        }
    })
    .await;
    let review = server.client().review(&shop(), &sha('a')).await.unwrap();
    assert_eq!(review.pull_requests.len(), 1);
    let pull = &review.pull_requests[0];
    assert_eq!(
        (pull.number, pull.author.as_str(), pull.approvers()),
        (7, "ann", vec!["cy"])
    );
    assert!(!server.lines().iter().any(|line| line.contains("pulls/8")));
}

/// The Git data API with one branch, as far as a commit needs it. `patch` answers the move of the branch.
async fn git_data(
    executable: bool,
    patch: impl Fn(&mut String, &str) -> fixture::Reply + Send + Sync + 'static,
) -> Fixture {
    let head = std::sync::Mutex::new("a".repeat(40));
    Fixture::serve(move |seen, _| {
        let mut head = head.lock().unwrap();
        let line = seen.line();
        let mode = if executable { "100755" } else { "100644" };
        match line.strip_prefix("GET /repos/acme/shop/").or(line.strip_prefix("POST /repos/acme/shop/")) {
            Some("git/ref/heads/main") => json(200, json!({"object": {"sha": *head}})),
            Some("git/trees") => json(201, json!({"sha": "7".repeat(40)})),
            Some("git/blobs") => json(201, json!({"sha": "8".repeat(40)})),
            Some("git/commits") => json(201, json!({"sha": "c".repeat(40), "tree": {"sha": "7".repeat(40)}})),
            Some(path) if path.starts_with("git/commits/") => {
                json(200, json!({"sha": "a".repeat(40), "tree": {"sha": "6".repeat(40)}}))
            }
            Some(path) if path.starts_with("git/trees/") => json(
                200,
                json!({"tree": [{"path": "run.sh", "mode": mode, "type": "blob", "sha": "5".repeat(40)}], "truncated": false}),
            ),
            Some(path) if path.starts_with("compare/") => {
                let ours = path.contains(&"c".repeat(40)) && *head == "d".repeat(40);
                json(200, json!({"status": if ours { "ahead" } else { "diverged" }}))
            }
            None if line == "PATCH /repos/acme/shop/git/refs/heads/main" => {
                let to = seen.json()["sha"].as_str().unwrap().to_owned();
                patch(&mut head, &to)
            }
            _ => json(404, json!({"message": line})),
        }
    })
    .await
}

fn change() -> Change {
    Change {
        repository: shop(),
        branch: "main".parse().unwrap(),
        expected_head: sha('a'),
        files: BTreeMap::from([
            ("run.sh".to_owned(), Some(b"echo".to_vec())),
            ("logo.bin".to_owned(), Some(vec![0xff, 0])),
            ("never-there".to_owned(), None),
        ]),
        message: "Deploy\n\nBuild-Id: 7\n".into(),
    }
}

#[tokio::test]
async fn a_commit_keeps_modes_and_names_no_author() {
    let server = git_data(true, |head, to| {
        *head = to.to_owned();
        json(200, json!({"object": {"sha": to}}))
    })
    .await;
    assert_eq!(server.client().commit(change()).await.unwrap(), sha('c'));
    let posted = |what: &str| {
        let line = format!("POST /repos/acme/shop/git/{what}");
        server
            .seen()
            .iter()
            .find(|seen| seen.line() == line)
            .unwrap()
            .json()
    };
    assert_eq!(
        posted("trees"),
        json!({"base_tree": "6".repeat(40), "tree": [
            {"path": "logo.bin", "mode": "100644", "type": "blob", "sha": "8".repeat(40)},
            {"path": "run.sh", "mode": "100755", "type": "blob", "content": "echo"},
        ]})
    );
    assert_eq!(
        posted("commits"),
        json!({"message": "Deploy\n\nBuild-Id: 7\n", "tree": "7".repeat(40), "parents": ["a".repeat(40)]})
    );
    let patch = server.seen().pop().unwrap();
    assert_eq!(patch.json(), json!({"sha": "c".repeat(40), "force": false}));
}

#[tokio::test]
async fn a_branch_that_moved_is_a_conflict_before_or_during_the_commit() {
    let server = git_data(false, |head, _| {
        *head = "e".repeat(40);
        json(422, json!({"message": "Update is not a fast forward"}))
    })
    .await;
    let error = server.client().commit(change()).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("eeeeeeeeee"),
        "{error}"
    );
    let before = server.seen().len();
    let error = server.client().commit(change()).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert_eq!(
        server.seen().len(),
        before + 1,
        "nothing is written onto a branch that has moved"
    );
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_found_on_the_branch() {
    // Lost for good; and lost once, with somebody else's commit on top before the second attempt.
    let lost = git_data(false, |head, to| {
        *head = to.to_owned();
        None
    })
    .await;
    assert_eq!(lost.client().commit(change()).await.unwrap(), sha('c'));
    let overtaken = git_data(false, |head, _| {
        if *head == "a".repeat(40) {
            *head = "d".repeat(40);
            None
        } else {
            json(422, json!({"message": "Update is not a fast forward"}))
        }
    })
    .await;
    assert_eq!(overtaken.client().commit(change()).await.unwrap(), sha('c'));
    let guarded = git_data(false, |_, _| json(422, json!({"message": "Changes must be made through a pull request.", "errors": ["protected branch hook declined"]}))).await;
    let error = guarded.client().commit(change()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn the_same_report_is_written_once_and_a_lost_answer_is_looked_for() {
    let stored = std::sync::Mutex::new(Vec::<serde_json::Value>::new());
    let server = Fixture::serve(move |seen, _| {
        let mut stored = stored.lock().unwrap();
        if seen.method == "POST" {
            let mut status = seen.json();
            status["id"] = json!(stored.len());
            stored.retain(|old| old["context"] != status["context"]);
            stored.push(status);
            return None;
        }
        json(200, json!({"state": "success", "sha": "a".repeat(40), "total_count": stored.len(), "statuses": *stored}))
    })
    .await;
    let github = server.client();
    let report = Report {
        repository: shop(),
        commit: sha('a'),
        context: "towpath/image".into(),
        state: ReportState::Success,
        description: "ü".repeat(200),
        url: Some("https://ci.acme.example".parse().unwrap()),
    };
    github.report(report.clone()).await.unwrap();
    github
        .report(Report {
            context: "Towpath/Image".into(),
            ..report.clone()
        })
        .await
        .unwrap();
    let posts = server
        .lines()
        .iter()
        .filter(|line| line.starts_with("POST"))
        .count();
    assert_eq!(posts, 1);
    let reports = github.reports(&shop(), &sha('a')).await.unwrap();
    assert_eq!((reports.len(), reports[0].description.chars().count()), (1, 140));
    assert_eq!(reports[0].url, report.url);
    github
        .report(Report {
            state: ReportState::Failure,
            ..report
        })
        .await
        .unwrap();
    assert_eq!(
        github.reports(&shop(), &sha('a')).await.unwrap()[0].state,
        ReportState::Failure
    );
}

#[tokio::test]
async fn histories_that_never_met_have_diverged() {
    let server = Fixture::serve(|seen, _| {
        let status = if seen.path.contains(&format!("{}...", "a".repeat(40))) {
            "ahead"
        } else {
            ""
        };
        if status.is_empty() {
            json(404, json!({"message": "No common ancestor between b and a."}))
        } else {
            json(200, json!({"status": status, "commits": []}))
        }
    })
    .await;
    let github = server.client();
    assert_eq!(
        github.ancestry(&shop(), &sha('a'), &sha('b')).await.unwrap(),
        Ancestry::Ahead
    );
    assert_eq!(
        github.ancestry(&shop(), &sha('b'), &sha('a')).await.unwrap(),
        Ancestry::Diverged
    );
    let url = format!("http://{}/acme/shop.git", server.host);
    assert!(github.contains(&url, &sha('b'), &sha('a')).await.unwrap());
    let other = github
        .contains("https://gitlab.example/acme/shop.git", &sha('b'), &sha('a'))
        .await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Unsupported);
}

fn run(id: u64, title: &str) -> serde_json::Value {
    json!({"id": id, "name": "CI", "display_title": title, "head_sha": "a".repeat(40), "event": "workflow_dispatch",
           "status": "queued", "conclusion": null, "run_attempt": 1, "created_at": "2026-11-01T10:00:00Z"})
}

fn start() -> StartRun {
    StartRun {
        repository: shop(),
        workflow: "ci.yml".into(),
        branch: "main".parse().unwrap(),
        inputs: BTreeMap::from([("request".to_owned(), "b7e1f3c2-marker".to_owned())]),
    }
}

#[tokio::test]
async fn a_dispatch_names_its_run_or_the_run_is_looked_for() {
    let dotcom = Fixture::serve(|seen, _| match seen.method.as_str() {
        "GET" => json(200, json!({"total_count": 0, "workflow_runs": []})),
        _ => json(
            200,
            json!({"workflow_run_id": 42, "run_url": "x", "html_url": "y"}),
        ),
    })
    .await;
    assert_eq!(dotcom.client().start(start()).await.unwrap(), CiRunId(42));

    let enterprise = Fixture::serve(|seen, before| match (seen.method.as_str(), before) {
        ("POST", _) if seen.json().get("return_run_details").is_some() => json(
            422,
            json!({"message": "Invalid request.\n\n\"return_run_details\" is not a permitted key."}),
        ),
        ("POST", _) => reply(204, &[], ""),
        (_, 0..4) => json(200, json!({"workflow_runs": [run(5, "old")]})),
        _ => json(
            200,
            json!({"workflow_runs": [run(8, "other"), run(7, "CI b7e1f3c2-marker"), run(5, "old")]}),
        ),
    })
    .await;
    assert_eq!(enterprise.client().start(start()).await.unwrap(), CiRunId(7));

    let crowded = Fixture::serve(|seen, before| match (seen.method.as_str(), before) {
        ("POST", _) => reply(204, &[], ""),
        (_, 0) => json(200, json!({"workflow_runs": []})),
        _ => json(200, json!({"workflow_runs": [run(8, "CI"), run(7, "CI")]})),
    })
    .await;
    assert!(crowded.client().start(start()).await.unwrap_err().is_conflict());
}

#[tokio::test]
async fn a_log_is_followed_to_its_store_without_the_token() {
    let store = Fixture::serve(|_, _| reply(200, &[], "\u{feff}one\ntwo\nthree\n")).await;
    let address = format!(
        "http://localhost:{}/log?sig=s",
        store.host.split(':').nth(1).unwrap()
    );
    let server = Fixture::serve(move |_, _| reply(302, &[("location", &address)], "")).await;
    let log = server.client().log(&shop(), 7, 2).await.unwrap();
    assert_eq!(log, "two\nthree");
    assert!(!store.seen()[0].headers.contains_key("authorization"));
    let gone = Fixture::serve(|_, _| json(410, json!({"message": "Server Error"}))).await;
    assert!(gone.client().log(&shop(), 7, 2).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn runs_of_other_commits_are_left_out() {
    let server = Fixture::serve(|_, _| {
        let mut other = run(9, "x");
        other["head_sha"] = json!("b".repeat(40));
        let mut odd = run(8, "y");
        odd["status"] = json!("dreaming");
        json(
            200,
            json!({"total_count": 3, "workflow_runs": [run(7, "z"), other, odd]}),
        )
    })
    .await;
    let runs = server.client().runs(&shop(), &sha('a')).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.id.0).collect::<Vec<_>>(), [8, 7]);
    assert_eq!(runs[0].state, CiState::Other("dreaming".into()));
}

#[tokio::test]
async fn history_is_a_stream_that_stops_where_its_reader_does() {
    let server = Fixture::serve(|seen, _| {
        assert!(seen.query.contains("path=live%2Fa.yaml"), "{}", seen.query);
        reply(
            200,
            &[("link", "<https://x/y?page=2>; rel=\"next\"")],
            json!([{"sha": "a".repeat(40), "commit": {"message": "m", "committer": {"date": "2026-11-01T10:00:00Z"}}}])
                .to_string(),
        )
    })
    .await;
    let mut history = server
        .client()
        .history(&shop(), &"main".parse().unwrap(), Some("live/a.yaml".into()));
    let first = history.try_next().await.unwrap().unwrap();
    assert_eq!((first.sha, first.at.is_some()), (sha('a'), true));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_client_outlives_the_runtime_of_its_first_request() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let serving = tokio::runtime::Runtime::new().unwrap();
    let server = serving.block_on(Fixture::serve(|_, _| json(200, json!({}))));
    let github = server.client();
    let first = runtime();
    first.block_on(github.meta()).unwrap();
    drop(first);
    runtime().block_on(github.meta()).unwrap();
    assert_eq!(server.seen().len(), 2);
}
