//! What governs Argo CD's applications, asked over the wire with plain requests: accounts, projects, ApplicationSets, logs,
//! the exchange of tokens, and the routes of older versions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Secret;
use towpath_lab::argocd::{ArgoCd, ArgoCdConfig, DexConnector};

struct Asked {
    argocd: ArgoCd,
    client: reqwest::Client,
}

impl Asked {
    async fn start(change: impl FnOnce(&mut ArgoCdConfig)) -> Self {
        let mut config = ArgoCdConfig::default();
        change(&mut config);
        Self {
            argocd: ArgoCd::start(config).await.unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.argocd.url());
        self.client
            .request(method.parse().unwrap(), url)
            .header("content-type", "application/json")
    }

    async fn with(&self, token: &Secret, method: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.request(method, path).bearer_auth(token.expose());
        let request = if method == "GET" {
            request
        } else {
            request.json(&body)
        };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.with(self.argocd.token(), method, path, body).await
    }
}

#[tokio::test]
async fn accounts_have_numbers_for_times_and_their_tokens_can_be_deleted() {
    let lab = Asked::start(|_| {}).await;
    let (_, made) = lab
        .ask(
            "POST",
            "/api/v1/account/towpath/token",
            json!({"expiresIn": 60, "id": "ci"}),
        )
        .await;
    let token = Secret::new(made["token"].as_str().unwrap());
    let (_, account) = lab.ask("GET", "/api/v1/account/towpath", Value::Null).await;
    let known = account["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["id"] == "ci")
        .unwrap();
    assert_eq!(
        known["expiresAt"].as_i64().unwrap() - known["issuedAt"].as_i64().unwrap(),
        60
    );
    let twice = lab
        .ask("POST", "/api/v1/account/towpath/token", json!({"id": "ci"}))
        .await;
    let text = "failed to update account with new token: account already has token with id 'ci'";
    assert_eq!(twice, (500, json!({"error": text, "code": 2, "message": text})));
    assert_eq!(
        lab.ask("DELETE", "/api/v1/account/towpath/token/ci", json!({}))
            .await
            .0,
        200
    );
    let (status, refused) = lab.with(&token, "GET", "/api/v1/account", Value::Null).await;
    assert_eq!((status, &refused["code"]), (401, &json!(16)));
    let (status, none) = lab.ask("GET", "/api/v1/account/none", Value::Null).await;
    assert_eq!((status, &none["code"]), (404, &json!(5)));
    let text = "failed to get account none: rpc error: code = NotFound desc = account 'none' does not exist";
    assert_eq!(none["message"], text);
}

#[tokio::test]
async fn projects_are_replaced_only_as_they_were_read() {
    let lab = Asked::start(|_| {}).await;
    let project = |version: &str| json!({"project": {"metadata": {"name": "shop", "resourceVersion": version}, "spec": {"sourceRepos": ["*"]}}});
    assert_eq!(lab.ask("POST", "/api/v1/projects", project("")).await.0, 200);
    let path = "/api/v1/projects/shop";
    let (status, body) = lab.ask("PUT", path, project("")).await;
    assert!(
        status == 400 && body["message"].as_str().unwrap().contains("must be specified"),
        "{body}"
    );
    let (status, body) = lab.ask("PUT", path, project("1")).await;
    assert!(
        status == 500 && body["message"].as_str().unwrap().contains("has been modified"),
        "{body}"
    );
    let (_, now) = lab.ask("GET", path, Value::Null).await;
    let version = now["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(lab.ask("PUT", path, project(version)).await.0, 200);
    let bad = |role: Value| {
        let spec = json!({"roles": role});
        json!({"project": {"metadata": {"name": "other"}, "spec": spec}})
    };
    let policy = |text: &str| json!([{"name": "ci", "policies": [text]}]);
    for (roles, status) in [
        (policy("p, proj:other:ci, applications, get, other/*, allow"), 200),
        (policy("p, proj:shop:ci, applications, get, other/*, allow"), 400),
        (policy("p, proj:other:ci, applications, get, shop/*, allow"), 400),
        (policy("nonsense"), 400),
        (json!([{"name": "ci"}, {"name": "ci"}]), 409),
    ] {
        let (answer, body) = lab.ask("POST", "/api/v1/projects", bad(roles)).await;
        assert_eq!(answer, status, "{body}");
    }
    assert_eq!(lab.ask("POST", "/api/v1/projects", json!({})).await.0, 400);
    assert_eq!(
        lab.ask("DELETE", "/api/v1/projects/default", json!({})).await.0,
        400
    );
    assert_eq!(lab.ask("DELETE", path, json!({})).await.0, 200);
    assert_eq!(lab.ask("DELETE", path, json!({})).await.0, 404);
}

#[tokio::test]
async fn streams_that_fail_before_they_begin_have_an_error_of_their_own_shape() {
    let lab = Asked::start(|_| {}).await;
    let none = "/api/v1/applications/none/logs?project=default";
    let (status, body) = lab.ask("GET", none, Value::Null).await;
    let message = "applications.argoproj.io \"none\" not found";
    let error = json!({"grpc_code": 5, "http_code": 404, "message": message, "http_status": "Not Found"});
    assert_eq!((status, body), (404, json!({"error": error})));
    let answer = lab.request("GET", none).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["message"], "no session information");
}

#[tokio::test]
async fn tokens_are_exchanged_as_a_form() {
    let lab = Asked::start(|config| {
        config.dex_connectors = vec![DexConnector {
            id: "ci".into(),
            issuer: "https://ci.example".into(),
            key: Secret::new("shared"),
        }];
    })
    .await;
    let subject = lab
        .argocd
        .subject_token("ci", "job", Duration::from_secs(60))
        .unwrap();
    assert!(
        lab.argocd
            .subject_token("none", "job", Duration::from_secs(60))
            .is_none()
    );
    let form = |connector: &str| {
        vec![
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange".to_owned(),
            ),
            ("connector_id", connector.to_owned()),
            ("scope", "openid federated:id".to_owned()),
            ("subject_token", subject.expose().to_owned()),
            (
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:id_token".to_owned(),
            ),
        ]
    };
    let url = format!("{}/api/dex/token", lab.argocd.url());
    let post = |connector: &str, user: &'static str| {
        let request = lab.client.post(&url).basic_auth(user, Some(""));
        request.form(&form(connector)).send()
    };
    let answer = post("ci", "argo-cd-cli").await.unwrap();
    let issued: Value = answer.json().await.unwrap();
    assert_eq!(
        (&issued["token_type"], &issued["expires_in"]),
        (&json!("bearer"), &json!(86400))
    );
    let token = Secret::new(issued["access_token"].as_str().unwrap());
    let (_, who) = lab
        .with(&token, "GET", "/api/v1/session/userinfo", Value::Null)
        .await;
    let issuer = format!("{}/api/dex", lab.argocd.url());
    assert_eq!(who, json!({"loggedIn": true, "username": "job", "iss": issuer}));
    for (connector, user, status, error) in [
        ("none", "argo-cd-cli", 400, "invalid_request"),
        ("ci", "somebody", 401, "invalid_client"),
    ] {
        let answer = post(connector, user).await.unwrap();
        assert_eq!(answer.status().as_u16(), status);
        assert_eq!(answer.json::<Value>().await.unwrap()["error"], error);
    }
}

#[tokio::test]
async fn an_older_server_lacks_later_routes() {
    for (version, actions, diff, sets) in [
        ("v3.0.0", 404, 404, 404),
        ("v3.1.0-rc1", 405, 404, 404),
        ("v3.3.9", 405, 403, 404),
        ("v3.4.0", 405, 403, 200),
        ("v3.5.1+lab", 405, 403, 200),
        ("latest", 405, 403, 200),
    ] {
        let lab = Asked::start(|config| config.version = version.into()).await;
        for (path, status) in [
            ("applications/none/resource/actions/v2", actions),
            ("applications/none/server-side-diff", diff),
            ("stream/applicationsets", sets),
        ] {
            let request = lab.request("GET", &format!("/api/v1/{path}"));
            let answer = request
                .bearer_auth(lab.argocd.token().expose())
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status().as_u16(), status, "{version} {path}");
        }
    }
}

/// A set of no Applications.
fn set(name: &str, team: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"team": team}}, "spec": {
        "generators": [{"list": {"elements": []}}],
        "template": {"metadata": {"name": "{{env}}"}, "spec": {"project": "default", "destination": {}}}}})
}

/// A stream of newline-delimited events.
struct Watched {
    answer: reqwest::Response,
    seen: String,
}

impl Watched {
    async fn begin(lab: &Asked, query: &str) -> Self {
        Self::begin_as(lab, lab.argocd.token(), query).await
    }

    async fn begin_as(lab: &Asked, token: &Secret, query: &str) -> Self {
        let request = lab.request("GET", &format!("/api/v1/stream/applicationsets?{query}"));
        let answer = request.bearer_auth(token.expose()).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json");
        Self {
            answer,
            seen: String::new(),
        }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.seen.split_once('\n') {
                let event = serde_json::from_str(line).unwrap();
                self.seen = rest.to_owned();
                return Some(event);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.answer.chunk());
            let chunk = chunk.await.unwrap().unwrap()?;
            self.seen.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// What changed, and how.
    async fn change(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let set = &event["result"]["applicationSet"];
        (text(&event["result"]["type"]), text(&set["metadata"]["name"]))
    }

    async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(60), self.next())
            .await
            .is_err()
    }
}

#[tokio::test]
async fn application_sets_are_watched_as_applications_are() {
    let lab = Asked::start(|config| config.keep_alive = Duration::from_millis(20)).await;
    let path = "/api/v1/applicationsets";
    let said = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    let (_, first) = lab.ask("POST", path, set("first", "a")).await;
    let version = first["metadata"]["resourceVersion"].as_str().unwrap().to_owned();

    let mut all = Watched::begin(&lab, "").await;
    let mut second = Watched::begin(&lab, "name=second").await;
    let mut team = Watched::begin(&lab, "selector=team%3Db&projects=default").await;
    let mut later = Watched::begin(&lab, &format!("resourceVersion={version}")).await;
    let mut known = Watched::begin(&lab, &format!("name=first&resourceVersion={version}")).await;
    let mut other = Watched::begin(&lab, "projects=other").await;
    let role = lab.argocd.project_token("default", "ci", &["get"]);
    let mut hidden = Watched::begin_as(&lab, &role, "").await;
    assert_eq!(all.change().await, said("ADDED", "first"));
    assert_eq!(known.change().await, said("ADDED", "first"));

    lab.ask("POST", path, set("second", "b")).await;
    for watched in [&mut all, &mut second, &mut team, &mut later] {
        assert_eq!(watched.change().await, said("ADDED", "second"));
        assert_eq!(watched.change().await, said("MODIFIED", "second"));
    }
    // The same again is no change.
    lab.ask("POST", path, set("second", "b")).await;
    assert!(all.is_silent().await);

    let mut names = Watched::begin(&lab, "name=second&fields=result.applicationSet.metadata.name").await;
    let expected = json!({"result": {"applicationSet": {"metadata": {"name": "second"}}}});
    assert_eq!(names.next().await.unwrap(), expected);
    lab.argocd.knobs().set(|knobs| knobs.drop_watch_events = 1);
    let mut lossy = Watched::begin(&lab, "name=first").await;
    assert!(lossy.is_silent().await);

    let (status, _) = lab.ask("DELETE", &format!("{path}/second"), json!({})).await;
    assert_eq!(status, 200);
    for watched in [&mut all, &mut second, &mut team, &mut later] {
        assert_eq!(watched.change().await, said("DELETED", "second"));
    }
    // Of the fields that it asked for, none has changed.
    for watched in [&mut names, &mut known, &mut other, &mut hidden] {
        assert!(watched.is_silent().await);
    }

    lab.argocd.knobs().set(|knobs| knobs.cut_stream_after = Some(1));
    let mut cut = Watched::begin(&lab, "").await;
    assert_eq!(cut.change().await, said("ADDED", "first"));
    assert_eq!(cut.next().await, None);
    let (status, body) = lab
        .ask(
            "GET",
            "/api/v1/stream/applicationsets?name=first&appSetNamespace=elsewhere",
            Value::Null,
        )
        .await;
    assert_eq!((status, body["error"]["grpc_code"].as_i64()), (403, Some(7)));
    lab.argocd.knobs().set(|knobs| knobs.cut_stream_after = None);

    let request = lab
        .request("GET", "/api/v1/stream/applicationsets?appSetNamespace=argocd")
        .header("accept", "text/event-stream");
    let token = lab.argocd.token();
    let mut answer = request.bearer_auth(token.expose()).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("\n:\n") {
        let chunk = tokio::time::timeout(Duration::from_secs(20), answer.chunk()).await;
        seen.push_str(std::str::from_utf8(&chunk.unwrap().unwrap().unwrap()).unwrap());
    }
    let (added, _) = seen
        .strip_prefix("data: ")
        .unwrap()
        .split_once(" \n\n\n")
        .unwrap();
    let event: Value = serde_json::from_str(added).unwrap();
    assert_eq!(event["result"]["applicationSet"]["metadata"]["name"], "first");
}
