//! Logs, ApplicationSets and the exchange of tokens at the lab's Argo CD.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test uses its part of the world")]
mod lab_world;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use lab_world::{World, app};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use towpath_argocd::{
    ApplicationSetFilter, ApplicationSetOptions, ArgoCd, Cancellation, ListFilter, LogLine, LogRequest,
    Login, Result, Secret, TokenClaims, TokenExchange, WatchEvent, WatchFilter, wire,
};
use towpath_elements::ErrorKind;
use towpath_lab::Fault;
use towpath_lab::argocd::DexConnector;

const SOON: Duration = Duration::from_secs(20);

async fn read(client: &ArgoCd, request: &LogRequest) -> Vec<LogLine> {
    let lines = client.logs(&app(), request).await.unwrap();
    tokio::time::timeout(SOON, lines.try_collect())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn logs_are_read_to_their_end() {
    let (world, image, _) = World::deployed(false).await;
    let client = world.client();
    let all = read(&client, &LogRequest::default()).await;
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(
        all[0].content.starts_with("web starts from ") && all[0].time.is_some() && !all[0].pod.is_empty()
    );
    let of = |change: fn(&mut LogRequest)| {
        let mut request = LogRequest::default();
        change(&mut request);
        request
    };
    let digests = read(
        &client,
        &of(|request| request.filter = Some("RUNS sha256".into())),
    )
    .await;
    assert!(digests.len() == 2 && digests[0].content.ends_with(image.digest().unwrap().as_str()));
    let cased = |request: &mut LogRequest| {
        request.filter = Some("RUNS".into());
        request.match_case = true;
    };
    assert!(read(&client, &of(cased)).await.is_empty());
    assert_eq!(
        read(&client, &of(|request| request.filter = Some("!runs".into())))
            .await
            .len(),
        2
    );
    assert_eq!(
        read(&client, &of(|request| request.tail_lines = Some(1)))
            .await
            .len(),
        2
    );
    assert_eq!(
        read(
            &client,
            &of(|request| request.since = Some(Duration::from_secs(3600)))
        )
        .await
        .len(),
        4
    );
    let before = of(|request| request.until = Some("2001-01-01T00:00:00Z".parse().unwrap()));
    assert!(read(&client, &before).await.is_empty());
    let previous = read(&client, &of(|request| request.previous = true)).await;
    assert!(previous[0].content.contains("previous terminated container") && previous[0].pod.is_empty());
    let wrong = read(&client, &of(|request| request.container = Some("other".into()))).await;
    assert!(
        wrong[0].content.contains("container other is not valid"),
        "{wrong:?}"
    );

    let tree = client.resource_tree(&app()).await.unwrap();
    let of_kind = |kind: &str| LogRequest {
        of: tree.nodes.iter().find(|node| node.kind == kind).cloned(),
        ..LogRequest::default()
    };
    let pod = of_kind("Pod");
    let lines = read(&client, &pod).await;
    let name = &pod.of.as_ref().unwrap().name;
    assert!(
        lines.len() == 2 && lines.iter().all(|line| line.pod == *name),
        "{lines:?}"
    );
    assert_eq!(read(&client, &of_kind("Deployment")).await.len(), 4);
    let nothing = LogRequest {
        of: Some(wire::ResourceNode {
            kind: "StatefulSet".into(),
            name: "none".into(),
            ..wire::ResourceNode::default()
        }),
        ..LogRequest::default()
    };
    assert!(read(&client, &nothing).await.is_empty());

    // Lines are waited for until the pods are gone.
    let mut followed = client
        .logs(&app(), &of(|request| request.follow = true))
        .await
        .unwrap();
    for _ in 0..4 {
        followed.next().await.unwrap().unwrap();
    }
    world.lab.cluster().remove("Deployment", "shop", "web");
    let end = tokio::time::timeout(SOON, followed.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}

#[tokio::test]
async fn logs_that_may_not_be_read_are_told_before_the_stream() {
    let (world, ..) = World::deployed(false).await;
    let with = |actions: &[&str]| world.with(Login::Token(world.lab.project_token("default", "ci", actions)));
    let error = with(&["get"])
        .logs(&app(), &LogRequest::default())
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(
        error.is_denied() && error.detail().contains("logs, get, default/web"),
        "{error}"
    );
    with(&["get", "logs"])
        .logs(&app(), &LogRequest::default())
        .await
        .map(|_| ())
        .unwrap();
    let error = world
        .client()
        .logs(&"default/none".parse().unwrap(), &LogRequest::default())
        .await
        .map(|_| ())
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let nobody = world
        .with(Login::Anonymous)
        .logs(&app(), &LogRequest::default())
        .await;
    assert!(nobody.map(|_| ()).unwrap_err().is_unauthenticated());
}

fn set(world: &World, environments: &[&str]) -> wire::ApplicationSet {
    let elements: Vec<_> = environments
        .iter()
        .map(|one| json!({"env": one, "values": {"zone": "a"}}))
        .collect();
    let mut template = serde_json::to_value(world.spec(false).spec).unwrap();
    template["destination"]["namespace"] = "{{env}}-{{ values.zone }}".into();
    serde_json::from_value(json!({
        "metadata": {"name": "shop", "labels": {"team": "shop"}},
        "spec": {"generators": [{"list": {"elements": elements}}],
            "template": {"metadata": {"name": "web-{{env}}", "labels": {"env": "{{env}}"}}, "spec": template}},
    }))
    .unwrap()
}

fn names(apps: impl IntoIterator<Item = impl ToString>) -> Vec<String> {
    apps.into_iter().map(|app| app.to_string()).collect()
}

#[tokio::test]
async fn application_sets_generate_applications() {
    let world = World::start().await;
    world.commit(&world.image("one"));
    let client = world.client();
    let two = set(&world, &["dev", "prod"]);
    let generated = client.generate_applications(&two).await.unwrap();
    assert_eq!(
        names(generated.iter().map(|app| &app.metadata.name)),
        ["web-dev", "web-prod"]
    );
    assert_eq!(generated[1].spec.destination.namespace.as_deref(), Some("prod-a"));
    let dry = ApplicationSetOptions {
        dry_run: true,
        ..ApplicationSetOptions::default()
    };
    let tried = client.create_application_set(&two, dry).await.unwrap();
    assert_eq!(tried.status.resources.len(), 2);
    assert!(
        client
            .application_set("shop", None)
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(world.lab.applications().is_empty());

    let plain = ApplicationSetOptions::default();
    client.create_application_set(&two, plain).await.unwrap();
    client.create_application_set(&two, plain).await.unwrap();
    let made = client.application_set("shop", Some("argocd")).await.unwrap();
    assert_eq!(made.project(), Some("default"));
    assert!(
        made.status
            .conditions
            .iter()
            .any(|one| one.kind == "ErrorOccurred" && one.status == "False")
    );
    let app = client
        .application(&"default/web-prod".parse().unwrap())
        .await
        .unwrap();
    let owner = &app.metadata.owner_references[0];
    assert_eq!(
        (&owner.uid, app.metadata.labels["env"].as_str()),
        (made.metadata.uid.as_ref().unwrap(), "prod")
    );
    let children = client.application_set_children("shop", None).await.unwrap();
    assert_eq!(names(&children), ["default/web-dev", "default/web-prod"]);
    assert_eq!(
        client
            .application_set_tree("shop", None)
            .await
            .unwrap()
            .nodes
            .len(),
        2
    );
    assert_eq!(
        client.application_set_events("shop", None).await.unwrap()[0].reason,
        "ResourceCreated"
    );

    let filter = |selector: &str, project: &str| ApplicationSetFilter {
        selector: Some(selector.into()),
        projects: vec![project.into()],
        namespace: None,
    };
    for (filter, found) in [
        (ApplicationSetFilter::default(), 1),
        (filter("team=shop", "default"), 1),
        (filter("team=other", "default"), 0),
        (filter("team=shop", "other"), 0),
    ] {
        assert_eq!(
            client.application_sets(&filter).await.unwrap().len(),
            found,
            "{filter:?}"
        );
    }

    let error = client
        .create_application_set(&set(&world, &["prod"]), plain)
        .await
        .unwrap_err();
    assert!(error.is_conflict(), "{error}");
    let upsert = ApplicationSetOptions {
        upsert: true,
        ..plain
    };
    client
        .create_application_set(&set(&world, &["prod", "test"]), upsert)
        .await
        .unwrap();
    let go_on = Cancellation::new();
    client
        .wait_until_deleted(&"default/web-dev".parse().unwrap(), SOON, &go_on)
        .await
        .unwrap();
    let children = client.application_set_children("shop", None).await.unwrap();
    assert_eq!(names(&children), ["default/web-prod", "default/web-test"]);

    client.delete_application_set("shop", None).await.unwrap();
    for child in children {
        client.wait_until_deleted(&child, SOON, &go_on).await.unwrap();
    }
    assert!(
        client
            .delete_application_set("shop", None)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

async fn next(events: &mut SetEvents) -> Option<Result<WatchEvent<wire::ApplicationSet>>> {
    tokio::time::timeout(SOON, events.next()).await.unwrap()
}

type SetEvents = BoxStream<'static, Result<WatchEvent<wire::ApplicationSet>>>;

/// The next state of the set, for which this holds.
async fn until(
    events: &mut SetEvents,
    holds: impl Fn(&wire::ApplicationSet) -> bool,
) -> wire::ApplicationSet {
    loop {
        match next(events).await.unwrap().unwrap() {
            WatchEvent::Changed(set) if holds(&set) => return *set,
            WatchEvent::Changed(_) => {}
            gone => panic!("{gone:?}"),
        }
    }
}

#[tokio::test]
async fn application_sets_are_watched_over_cut_connections() {
    let world = World::start().await;
    world.commit(&world.image("one"));
    let client = world.client();
    let filter = WatchFilter {
        name: Some("shop".into()),
        namespace: Some("argocd".into()),
        ..WatchFilter::default()
    };
    let mut events = client.watch_application_sets(filter);
    let mut all = client.watch_application_sets(WatchFilter {
        selector: Some("team=shop".into()),
        projects: vec!["default".into()],
        ..WatchFilter::default()
    });
    let upsert = ApplicationSetOptions {
        upsert: true,
        ..ApplicationSetOptions::default()
    };
    let make = async |environments: &[&str]| {
        client
            .create_application_set(&set(&world, environments), upsert)
            .await
            .unwrap()
    };
    // One event a connection; the first is read when it comes, though nothing is there yet.
    world.lab.knobs().set(|knobs| knobs.cut_stream_after = Some(1));
    let (first, _) = tokio::join!(until(&mut events, |_| true), make(&["dev"]));
    assert_eq!(first.metadata.name, "shop");
    until(&mut events, |set| set.status.resources.len() == 1).await;
    make(&["dev", "prod"]).await;
    let second = until(&mut events, |set| set.status.resources.len() == 2).await;
    assert!(second.metadata.version_number() > first.metadata.version_number());
    until(&mut all, |set| set.status.resources.len() == 2).await;

    world.lab.knobs().set(|knobs| knobs.cut_stream_after = None);
    // Each connection is spent by now. Once a stream tells of a change, it has one that is not cut.
    let connected = |events: SetEvents| async {
        let mut events = events;
        until(&mut events, |set| {
            set.spec["generators"][0]["list"]["elements"] == json!([{"env": "prod", "values": {"zone": "a"}}])
        })
        .await;
        events
    };
    let ((mut events, mut all), _) = tokio::join!(
        async { tokio::join!(connected(events), connected(all)) },
        make(&["prod"])
    );
    client.delete_application_set("shop", None).await.unwrap();
    for events in [&mut events, &mut all] {
        loop {
            match next(events).await.unwrap().unwrap() {
                WatchEvent::Deleted(set) => break assert_eq!(set.metadata.name, "shop"),
                WatchEvent::Changed(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_watch_of_sets_ends_where_the_server_is_older_or_refuses() {
    let old = World::start_with(|config| config.version = "v3.3.9".into()).await;
    let current = World::start().await;
    let elsewhere = WatchFilter {
        namespace: Some("elsewhere".into()),
        ..WatchFilter::default()
    };
    for (client, filter, kind, why) in [
        (
            old.client(),
            WatchFilter::default(),
            ErrorKind::Unsupported,
            "needs Argo CD 3.4, and the server is v3.3.9",
        ),
        (current.client(), elsewhere, ErrorKind::Denied, "elsewhere"),
        (
            current.with(Login::Anonymous),
            WatchFilter::default(),
            ErrorKind::Unauthenticated,
            "",
        ),
    ] {
        let mut events = client.watch_application_sets(filter);
        let error = next(&mut events).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.detail().contains(why), "{error}");
        assert!(next(&mut events).await.is_none());
    }
    let asked = old
        .lab
        .requests()
        .count(&Method::GET, "/api/v1/stream/applicationsets");
    assert_eq!(asked, 0);
}

#[tokio::test]
async fn what_a_set_may_not_be_is_refused() {
    let world = World::start().await;
    let client = world.client();
    let changed = |pointer: &str, value: serde_json::Value| -> wire::ApplicationSet {
        let mut set = serde_json::to_value(set(&world, &["prod"])).unwrap();
        *set.pointer_mut(pointer).unwrap() = value;
        serde_json::from_value(set).unwrap()
    };
    for (set, why) in [
        (
            changed("/spec/generators/0", json!({"git": {}})),
            "\"git\" is not supported",
        ),
        (
            changed("/spec/template/spec/project", json!("{{env}}")),
            "templated `project`",
        ),
        (
            changed("/spec/template/spec/project", json!("none")),
            "does not exist",
        ),
        (
            changed("/spec/generators/0/list/elements/0/env", json!(7)),
            "parsing value",
        ),
        (changed("/spec/template/metadata/name", json!("same")), ""),
    ] {
        let made = client
            .create_application_set(&set, ApplicationSetOptions::default())
            .await;
        match why {
            "" => drop(made.unwrap()),
            why => {
                let error = made.unwrap_err();
                assert!(error.detail().contains(why), "{error}");
            }
        }
    }
    let role = world.with(Login::Token(world.lab.project_token("default", "ci", &["get"])));
    assert!(role.application_set("shop", None).await.unwrap_err().is_denied());
    assert!(
        role.application_sets(&ApplicationSetFilter::default())
            .await
            .unwrap()
            .is_empty()
    );
}

async fn with_dex() -> World {
    World::start_with(|config| {
        config.dex_connectors = vec![DexConnector {
            id: "ci".into(),
            issuer: "https://ci.example".into(),
            key: Secret::new("shared-with-the-issuer"),
        }];
    })
    .await
}

#[tokio::test]
async fn a_token_is_exchanged_once_for_many_and_again_when_it_is_refused() {
    let world = with_dex().await;
    let given = Arc::new(AtomicU32::new(0));
    let (count, subject) = (
        given.clone(),
        world.lab.subject_token("ci", "repo:acme/web", SOON).unwrap(),
    );
    let exchange = TokenExchange::new("ci", move || {
        count.fetch_add(1, Ordering::SeqCst);
        let subject = subject.clone();
        async move { Ok(subject) }
    });
    let client = world.with(Login::TokenExchange(exchange));
    let filter = ListFilter::default();
    let many = || futures_util::future::join_all((0..8).map(|_| client.applications(&filter)));
    assert!(many().await.into_iter().all(|list| list.is_ok()));
    let exchanges = || world.lab.requests().count(&Method::POST, "/api/dex/token");
    assert_eq!((exchanges(), given.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(client.user_info().await.unwrap().username, "repo:acme/web");

    let message = "invalid session: token is expired";
    let body = json!({"error": message, "code": 16, "message": message}).to_string();
    world.lab.faults().inject(Fault::respond(
        "/api/v1/applications",
        StatusCode::UNAUTHORIZED,
        body,
    ));
    client.applications(&filter).await.unwrap();
    assert_eq!((exchanges(), given.load(Ordering::SeqCst)), (2, 2));
}

#[tokio::test]
async fn a_refused_exchange_is_told() {
    let world = with_dex().await;
    let good = world.lab.subject_token("ci", "canary-user", SOON).unwrap();
    let expired = world
        .lab
        .subject_token("ci", "canary-user", Duration::ZERO)
        .unwrap();
    assert_eq!(TokenClaims::of(&good).unwrap().issuer, "https://ci.example");
    let provider_fails = TokenExchange::new("ci", || async {
        Err(towpath_argocd::Error::new(
            ErrorKind::Denied,
            "CI",
            "give",
            "a token",
        ))
    });
    for (exchange, kind, why) in [
        (
            TokenExchange::of("ci", expired),
            ErrorKind::Unauthenticated,
            "access_denied",
        ),
        (
            TokenExchange::of("ci", Secret::new("e30.canary.x")),
            ErrorKind::Unauthenticated,
            "access_denied",
        ),
        (
            TokenExchange::of("other", good.clone()),
            ErrorKind::Invalid,
            "connector does not exist",
        ),
        (
            TokenExchange::of("ci", Secret::new("")),
            ErrorKind::Invalid,
            "Missing subject_token",
        ),
        (
            TokenExchange::of("ci", good.clone()).token_type("strange"),
            ErrorKind::Unsupported,
            "subject_token_type",
        ),
        (provider_fails, ErrorKind::Denied, ""),
    ] {
        let client = world.with(Login::TokenExchange(exchange));
        let error = client.applications(&ListFilter::default()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.detail().contains(why), "{error}");
        assert!(!format!("{error:?} {client:?}").contains("canary"), "{error:?}");
    }
    let plain = World::start().await;
    let client = plain.with(Login::TokenExchange(TokenExchange::of("ci", good)));
    let error = client.applications(&ListFilter::default()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.detail().contains("no Dex"),
        "{error}"
    );
}
