//! GitHub Enterprise Server as a client sees it: plain HTTP and plain git.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod github_common;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use github_common::{World, done, git};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use towpath_core::Secret;
use towpath_lab::github::{DeliveryFault, GitHubConfig, Protection};

type Inbox = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// A receiver that refuses what is not signed.
async fn receiver(secret: &'static str) -> (String, Inbox) {
    async fn take(
        State((secret, inbox)): State<(&'static str, Inbox)>,
        headers: HeaderMap,
        body: Bytes,
    ) -> StatusCode {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(&body);
        let signature = headers["x-hub-signature-256"]
            .to_str()
            .unwrap()
            .strip_prefix("sha256=")
            .unwrap();
        if mac.verify_slice(&hex::decode(signature).unwrap()).is_err() {
            return StatusCode::UNAUTHORIZED;
        }
        inbox
            .lock()
            .unwrap()
            .push((headers, serde_json::from_slice(&body).unwrap()));
        StatusCode::OK
    }
    let inbox = Inbox::default();
    let router = Router::new()
        .route("/hook", post(take))
        .with_state((secret, Arc::clone(&inbox)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, inbox)
}

fn of_event(inbox: &Inbox, event: &str) -> Vec<Value> {
    let all = inbox.lock().unwrap();
    all.iter()
        .filter(|(headers, _)| headers["x-github-event"] == event)
        .map(|(_, body)| body.clone())
        .collect()
}

#[tokio::test]
async fn git_pushes_and_clones_and_strangers_see_nothing() {
    let world = World::start().await;
    let sha = world
        .push("main", &[("README.md", "hello\n"), ("src/a b.txt", "ü\n")])
        .await;
    assert_eq!(
        world.github.refs(&world.slug).await.unwrap()["refs/heads/main"],
        sha
    );
    let clone = world.folder.path().join("clone");
    let remote = world.remote("hubot");
    let here = world.folder.path().to_owned();
    let run = |remote: String| {
        let (here, clone) = (here.clone(), clone.clone());
        tokio::task::spawn_blocking(move || git(&here, &["clone", "-q", &remote, clone.to_str().unwrap()]))
    };
    let strange = run(world.remote("stranger")).await.unwrap();
    assert!(
        String::from_utf8_lossy(&strange.stderr).contains("not found"),
        "{strange:?}"
    );
    let anonymous = run(world.github.git_url(&world.slug)).await.unwrap();
    assert!(!anonymous.status.success());
    done(&run(remote).await.unwrap());
    assert_eq!(std::fs::read_to_string(clone.join("src/a b.txt")).unwrap(), "ü\n");

    let (status, body) = world
        .ask("stranger", Method::GET, &world.repo(""), Value::Null)
        .await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::NOT_FOUND, &json!("Not Found"))
    );
    let bad = world
        .request(Method::GET, "/user")
        .header("Authorization", "Bearer nobody")
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(bad.json::<Value>().await.unwrap()["message"], "Bad credentials");
}

#[tokio::test]
async fn headers_conditions_and_pages() {
    let world = World::start().await;
    for n in 0..3 {
        world.push("main", &[("n.txt", &format!("{n}\n"))]).await;
    }
    let ask = |path: &str| {
        world
            .request(Method::GET, path)
            .header("Authorization", format!("Bearer {}", world.token("mona")))
    };
    let first = ask(&world.repo("/commits?sha=main&per_page=1&page=2"))
        .send()
        .await
        .unwrap();
    assert_eq!(first.headers()["x-github-enterprise-version"], "3.19.0");
    assert!(
        first.headers().contains_key("x-github-request-id")
            && first.headers().contains_key("x-ratelimit-reset")
    );
    let link = first.headers()["link"].to_str().unwrap().to_owned();
    let next = link
        .split(", ")
        .find(|link| link.contains("rel=\"next\""))
        .unwrap();
    let next = next.split(['<', '>']).nth(1).unwrap();
    assert!(
        next.starts_with(&world.github.api_url()) && next.contains("sha=main"),
        "{link}"
    );
    let last: Value = ask(next).send().await.unwrap().json().await.unwrap();
    assert_eq!(last[0]["parents"], json!([]));

    let path = world.repo("/branches/main");
    let read = ask(&path).send().await.unwrap();
    let tag = read.headers()["etag"].clone();
    let again = ask(&path).header("If-None-Match", tag).send().await.unwrap();
    assert_eq!(
        (again.status(), again.bytes().await.unwrap().len()),
        (StatusCode::NOT_MODIFIED, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reviewed_change_is_merged_and_everybody_is_told() {
    let world = World::start().await;
    let (url, inbox) = receiver("s3cret").await;
    let config = json!({"url": url, "secret": "s3cret", "content_type": "json"});
    let (status, hook) = world
        .post(
            "/hooks",
            json!({"config": config, "events": ["push", "pull_request"]}),
        )
        .await;
    assert_eq!(
        (status, &hook["config"]["secret"]),
        (StatusCode::CREATED, &json!("********"))
    );
    world.push("main", &[("a.txt", "1\n")]).await;
    let rules = Protection {
        required_approvals: 1,
        dismiss_stale_reviews: true,
        ..Protection::default()
    };
    world.github.protect(&world.slug, "main", rules).await.unwrap();
    world.push("topic", &[("b.txt", "1\n")]).await;
    let direct = world.git("work", &["push", "origin", "HEAD:refs/heads/main"]);
    assert!(
        String::from_utf8_lossy(&direct.stderr).contains("GH006"),
        "{direct:?}"
    );

    let (status, pull) = world
        .post("/pulls", json!({"title": "B", "head": "topic", "base": "main"}))
        .await;
    assert_eq!(
        (status, &pull["mergeable_state"]),
        (StatusCode::CREATED, &json!("blocked")),
        "{pull}"
    );
    let review = |login: &'static str| {
        let (world, path) = (&world, world.repo("/pulls/1/reviews"));
        async move {
            world
                .ask(login, Method::POST, &path, json!({"event": "APPROVE"}))
                .await
        }
    };
    assert_eq!(review("mona").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(review("hubot").await.0, StatusCode::OK);
    // A push after the approval makes it stale.
    let head = world.push("topic", &[("c.txt", "1\n")]).await;
    assert_eq!(world.get("/pulls/1/reviews").await[0]["state"], "DISMISSED");
    let merge = |body: Value| world.ask("mona", Method::PUT, "/repos/acme/shop/pulls/1/merge", body);
    assert_eq!(merge(json!({})).await.0, StatusCode::METHOD_NOT_ALLOWED);
    review("hubot").await;
    assert_eq!(
        merge(json!({"sha": "0".repeat(40)})).await.0,
        StatusCode::CONFLICT
    );
    let (status, merged) = merge(json!({"sha": head})).await;
    assert_eq!(
        (status, &merged["merged"]),
        (StatusCode::OK, &json!(true)),
        "{merged}"
    );
    let sha = merged["sha"].as_str().unwrap();
    assert_eq!(
        world.get("/commits/main").await["parents"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(world.get(&format!("/commits/{sha}/pulls")).await[0]["number"], 1);
    assert_eq!(
        world.get(&format!("/commits/{head}/pulls")).await[0]["merge_commit_sha"],
        sha
    );

    let told = world.until("the hooks arrive", |_| {
        let (pushes, pulls) = (of_event(&inbox, "push"), of_event(&inbox, "pull_request"));
        let closed = pulls.into_iter().find(|body| body["action"] == "closed")?;
        Some((pushes.into_iter().find(|body| body["after"] == sha)?, closed))
    });
    let (push, closed) = told.await;
    assert_eq!(closed["pull_request"]["merged"], true);
    assert_eq!(push["repository"]["full_name"], "acme/shop");
    let added: Vec<&Value> = push["commits"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|c| c["added"].as_array().unwrap())
        .collect();
    assert!(
        added.contains(&&json!("b.txt")) && added.contains(&&json!("c.txt")),
        "{added:?}"
    );
}

#[tokio::test]
async fn deliveries_are_dropped_doubled_and_sent_again() {
    let world = World::start().await;
    let (url, inbox) = receiver("k").await;
    world
        .github
        .add_hook(&world.slug, &url, Some(Secret::new("k")), &["push"]);
    world
        .github
        .inject_delivery_fault("/hook", DeliveryFault::Drop, 1);
    world.push("main", &[("a", "1")]).await;
    let lost = world
        .until("the drop is logged", |github| {
            github.deliveries().pop().filter(|d| d.error.is_some())
        })
        .await;
    assert!(of_event(&inbox, "push").is_empty());
    world
        .github
        .inject_delivery_fault("/hook", DeliveryFault::Duplicate, 1);
    let path = format!("/hooks/{}/deliveries/{}/attempts", lost.hook, lost.id);
    assert_eq!(world.post(&path, Value::Null).await.0, StatusCode::ACCEPTED);
    world
        .until("two arrive", |_| {
            (of_event(&inbox, "push").len() == 2).then_some(())
        })
        .await;
    for (headers, _) in inbox.lock().unwrap().iter() {
        assert_eq!(headers["x-github-delivery"], lost.guid.as_str());
    }
}

#[tokio::test]
async fn contents_are_written_only_over_what_was_read() {
    let world = World::start().await;
    let put = |path: &str, text: &str, sha: Value| {
        let body = json!({"message": "edit", "content": STANDARD.encode(text), "sha": sha});
        let path = world.repo(&format!("/contents/{path}"));
        let world = &world;
        async move { world.ask("mona", Method::PUT, &path, body).await }
    };
    let (status, first) = put("deploy/a%20b.yaml", "1\n", Value::Null).await;
    assert_eq!(status, StatusCode::CREATED, "{first}");
    let sha = first["content"]["sha"].clone();
    assert_eq!(
        put("deploy/a%20b.yaml", "2\n", Value::Null).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(
        put("deploy/a%20b.yaml", "2\n", sha.clone()).await.0,
        StatusCode::OK
    );
    let (status, stale) = put("deploy/a%20b.yaml", "3\n", sha).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(stale["message"].as_str().unwrap().contains("does not match"));
    let read = world.get("/contents/deploy/a%20b.yaml").await;
    assert_eq!(
        STANDARD.decode(read["content"].as_str().unwrap().trim()).unwrap(),
        b"2\n"
    );
    assert_eq!(world.get("/contents/deploy").await[0]["path"], "deploy/a b.yaml");
}

#[tokio::test]
async fn a_lost_race_for_a_branch_is_refused() {
    let world = World::start().await;
    let base = world.push("main", &[("a", "1\n")]).await;
    let commit = async |text: &str| {
        let tree = json!({"base_tree": base, "tree": [{"path": "dir/f", "mode": "100644", "type": "blob", "content": text}]});
        let (_, tree) = world.post("/git/trees", tree).await;
        let body = json!({"message": text, "tree": tree["sha"], "parents": [base]});
        world.post("/git/commits", body).await.1["sha"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (left, right) = (commit("left").await, commit("right").await);
    let path = world.repo("/git/refs/heads/main");
    let to =
        |sha: &str, force: bool| world.ask("mona", Method::PATCH, &path, json!({"sha": sha, "force": force}));
    let ((one, _), (two, _)) = tokio::join!(to(&left, false), to(&right, false));
    let mut both = [one, two];
    both.sort();
    assert_eq!(both, [StatusCode::OK, StatusCode::UNPROCESSABLE_ENTITY]);
    let winner = world.get("/git/ref/heads/main").await["object"]["sha"]
        .as_str()
        .unwrap()
        .to_owned();
    let loser = if winner == left { &right } else { &left };
    let compared = world.get(&format!("/compare/{winner}...{loser}")).await;
    assert_eq!(
        (&compared["status"], &compared["ahead_by"], &compared["behind_by"]),
        (&json!("diverged"), &json!(1), &json!(1))
    );
    assert_eq!(compared["files"][0]["filename"], "dir/f");
    assert_eq!(
        world.get(&format!("/compare/{base}...main")).await["status"],
        "ahead"
    );
    assert_eq!(to(loser, true).await.0, StatusCode::OK);
}

#[tokio::test]
async fn statuses_and_checks_add_up() {
    let world = World::start().await;
    let sha = world.push("main", &[("a", "1\n")]).await;
    let combined = format!("/commits/{sha}/status");
    assert_eq!(world.get(&combined).await["state"], "pending");
    let set = async |state: &str, context: &str| {
        world
            .post(
                &format!("/statuses/{sha}"),
                json!({"state": state, "context": context}),
            )
            .await
            .0
    };
    assert_eq!(set("failure", "build").await, StatusCode::CREATED);
    assert_eq!(world.get(&combined).await["state"], "failure");
    set("success", "build").await;
    let now = world.get(&combined).await;
    assert_eq!(
        (&now["state"], &now["total_count"]),
        (&json!("success"), &json!(1))
    );
    for list in [format!("/commits/{sha}/statuses"), format!("/statuses/{sha}")] {
        assert_eq!(world.get(&list).await.as_array().unwrap().len(), 2, "{list}");
    }
    let long = json!({"state": "success", "description": "x".repeat(141)});
    assert_eq!(
        world.post(&format!("/statuses/{sha}"), long).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );

    let note =
        json!({"path": "a", "start_line": 1, "end_line": 1, "annotation_level": "warning", "message": "m"});
    let run = |count: usize| json!({"name": "lint", "head_sha": sha, "output": {"title": "t", "summary": "s", "annotations": vec![note.clone(); count]}});
    assert_eq!(
        world.post("/check-runs", run(51)).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let (status, check) = world.post("/check-runs", run(50)).await;
    assert_eq!(
        (status, &check["output"]["annotations_count"]),
        (StatusCode::CREATED, &json!(50))
    );
    let path = world.repo(&format!("/check-runs/{}", check["id"]));
    world
        .ask(
            "mona",
            Method::PATCH,
            &path,
            json!({"conclusion": "success", "output": run(3)["output"]}),
        )
        .await;
    let checks = world.get(&format!("/commits/{sha}/check-runs")).await;
    assert_eq!(checks["check_runs"][0]["output"]["annotations_count"], 53);
    assert_eq!(checks["check_runs"][0]["conclusion"], "success");
}

#[tokio::test]
async fn the_rate_limit_and_the_user_agent_are_minded() {
    let world = World::with(
        GitHubConfig {
            rate_limit: 1,
            ..GitHubConfig::default()
        },
        false,
    )
    .await;
    let ask = || world.request(Method::GET, "/meta").send();
    assert_eq!(
        ask().await.unwrap().json::<Value>().await.unwrap()["installed_version"],
        "3.19.0"
    );
    let second = ask().await.unwrap();
    assert_eq!(
        (second.status(), &second.headers()["x-ratelimit-remaining"]),
        (StatusCode::FORBIDDEN, &"0".parse().unwrap())
    );
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let refused = bare
        .get(format!("{}/meta", world.github.api_url()))
        .send()
        .await
        .unwrap();
    assert!(refused.text().await.unwrap().contains("User-Agent"));
    let graphql = format!("{}/api/graphql", world.github.server_url());
    assert_eq!(
        world
            .request(Method::POST, &graphql)
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::NOT_FOUND
    );
}
