//! Races about what the server says and when: other objects, caches that lag, streams that drop, servers that do not
//! answer, tokens that expire.

use crate::lab_world::{World, app, expected};
use crate::wire::{LONG, eventually};
use futures_util::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::time::Duration;
use towpath_argocd::{Deletion, DeliveryOutcome, Expected, ListFilter, Login, Secret};
use towpath_core::Cancellation;
use towpath_elements::Delivery;
use towpath_lab::Fault;
use towpath_lab::argocd::StreamCut;

#[tokio::test]
async fn r16_an_application_that_was_made_anew_is_another_one() {
    let (world, one, first) = World::deployed(true).await;
    world.lab.knobs().set(|knobs| knobs.lose_refresh = u32::MAX);
    let two = world.image("two");
    let second = world.commit(&two);
    let looks = || world.lab.requests().count(&Method::GET, "/applications/web");
    let before = looks();
    let scenario = async {
        eventually("a look", async || (looks() > before).then_some(())).await;
        // Nobody sees it being deleted.
        let unseen = Fault::respond("/applications", StatusCode::SERVICE_UNAVAILABLE, "")
            .method(Method::GET)
            .always();
        world.lab.faults().inject(unseen);
        let client = world.client();
        client.delete(&app(), Deletion::Orphan).await.unwrap();
        eventually("it is gone", async || {
            world.lab.application("web").is_none().then_some(())
        })
        .await;
        world.git(&["reset", "--quiet", "--hard", first.as_str()]);
        client.create(&world.spec(true)).await.unwrap();
        eventually("the new one is good", async || {
            let app = world.lab.application("web")?;
            (app["status"]["health"]["status"] == "Healthy" && app["status"]["sync"]["status"] == "Synced")
                .then_some(())
        })
        .await;
        world.lab.faults().clear();
        world.assert_looks_good_at(&world.seen().await, &first);
    };
    let client = world.client();
    let never = Cancellation::new();
    let (report, ()) = tokio::join!(client.wait(expected(&second, &two), &never), scenario);
    let report = report.unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::Replaced, "{report:?}");
    world.assert_runs(&one);
}

#[tokio::test]
async fn r17_the_list_and_the_stream_are_older_than_a_look() {
    let (world, one, first) = World::deployed(true).await;
    world.lab.advance(LONG);
    world
        .until("a poll", |app| app["status"]["sync"]["status"] == "Synced")
        .await;
    world.lab.knobs().set(|knobs| knobs.informer_lag = LONG);
    let two = world.image("two");
    let second = world.commit(&two);
    world.assert_live(&second, &two).await;

    // The list and the stream still say that the old one is well.
    let list = world.get("/api/v1/applications?name=web").await;
    world.assert_looks_good_at(&list["items"][0], &first);
    let path = format!("{}/api/v1/stream/applications?name=web", world.lab.url());
    let stream = reqwest::Client::builder().no_proxy().build().unwrap();
    let stream = stream
        .get(path)
        .header("accept", "text/event-stream")
        .bearer_auth(world.lab.token().expose());
    let mut events = stream.send().await.unwrap().bytes_stream();
    let text = eventually("an event", async || {
        let chunk = events.next().await.unwrap().unwrap();
        let text = String::from_utf8(chunk.to_vec()).unwrap();
        text.starts_with("data:").then_some(text)
    })
    .await;
    let event: serde_json::Value = serde_json::from_str(text.trim_start_matches("data:").trim()).unwrap();
    world.assert_looks_good_at(&event["result"]["application"], &first);
    world.assert_looks_good_at(&world.seen().await, &second);
    // The list that the client gives is the server's.
    let listed = world.client().applications(&ListFilter::default()).await.unwrap();
    assert_eq!(listed.items[0].status.sync.revision, first.as_str());

    // Later they have caught up.
    world.lab.advance(LONG);
    let list = world.get("/api/v1/applications?name=web").await;
    assert_eq!(list["items"][0]["status"]["sync"]["revision"], second.as_str());
    assert_ne!(one, two);
}

#[tokio::test]
async fn r18_a_stream_that_drops_and_is_cut_costs_time_only() {
    for within in [StreamCut::Event, StreamCut::Line, StreamCut::Character] {
        let (world, ..) = World::deployed(true).await;
        let note = json!({"metadata": {"annotations": {"note": "grüße"}}});
        world.client().patch(&app(), &note).await.unwrap();
        world.lab.knobs().set(|knobs| {
            knobs.cut_stream_after = Some(1);
            knobs.cut_stream_within = within;
        });
        let path = format!("{}/api/v1/stream/applications?name=web", world.lab.url());
        let stream = reqwest::Client::builder().no_proxy().build().unwrap();
        let stream = stream.get(path).bearer_auth(world.lab.token().expose());
        let mut chunks = stream.send().await.unwrap().bytes_stream();
        let (mut bytes, mut broke) = (Vec::new(), false);
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => bytes.extend(chunk),
                Err(_) => broke = true,
            }
        }
        assert_eq!(broke, within != StreamCut::Event, "{within:?}");
        assert_eq!(bytes.ends_with(b"\n"), within == StreamCut::Event);
        assert_eq!(
            std::str::from_utf8(&bytes).is_err(),
            within == StreamCut::Character
        );

        world.lab.knobs().set(|knobs| knobs.drop_watch_events = 5);
        let two = world.image("two");
        let commit = world.commit(&two);
        world.assert_live(&commit, &two).await;
    }
}

#[tokio::test]
async fn r18_a_stream_that_drops_everything_costs_time_only() {
    let (world, ..) = World::deployed(false).await;
    world.lab.knobs().set(|knobs| knobs.drop_watch_events = u32::MAX);
    let two = world.image("two");
    let commit = world.commit(&two);
    world.assert_live(&commit, &two).await;
}

#[tokio::test]
async fn a_refresh_that_is_never_answered_does_not_keep_a_wait() {
    let (world, one, _) = World::deployed(true).await;
    world.lab.knobs().set(|knobs| knobs.refresh_hangs = true);
    let two = world.image("two");
    let second = world.commit(&two);
    let wanted = expected(&second, &two);
    world
        .assert_waits_for(&world.client(), &wanted, "to see commit")
        .await;
    world.assert_runs(&one);
    // The poll of the controller comes all the same.
    let client = world.client();
    let never = Cancellation::new();
    let (report, ()) = tokio::join!(client.wait(wanted, &never), world.two_polls(&two));
    assert_eq!(report.unwrap().outcome, DeliveryOutcome::Live);
    world.assert_runs(&two);
}

#[tokio::test]
async fn a_controller_that_is_down_is_waited_for_until_the_deadline() {
    let (world, one, first) = World::deployed(true).await;
    world.lab.knobs().set(|knobs| knobs.controller_down = true);
    let two = world.image("two");
    let second = world.commit(&two);
    world.lab.advance(LONG);
    let wanted = expected(&second, &two);
    world
        .assert_waits_for(&world.client(), &wanted, "to see commit")
        .await;
    world.assert_looks_good_at(&world.seen().await, &first);
    world.assert_runs(&one);
    world.lab.knobs().set(|knobs| knobs.controller_down = false);
    world.assert_live(&second, &two).await;
}

#[tokio::test]
async fn a_server_that_goes_away_for_a_while_is_waited_for() {
    let (world, ..) = World::deployed(true).await;
    let two = world.image("two");
    let second = world.commit(&two);
    let down = |fault: Fault| world.lab.faults().inject(fault.method(Method::GET).times(15));
    down(Fault::cut("/api/v1/"));
    down(Fault::respond(
        "/api/v1/",
        StatusCode::BAD_GATEWAY,
        "upstream is away",
    ));
    down(Fault::lose_answer("/api/v1/"));
    world.assert_live(&second, &two).await;
    let later = Expected {
        within: Duration::from_secs(60),
        ..expected(&second, &two)
    };
    let report = world.client().wait(later, &Cancellation::new()).await.unwrap();
    assert_eq!(report.outcome, DeliveryOutcome::Live, "{report:?}");
}

#[tokio::test]
async fn a_session_that_expires_during_a_wait_is_opened_again() {
    let (world, one, _) = World::deployed(true).await;
    let login = Login::Password {
        username: "admin".into(),
        password: Secret::new("lab-admin"),
    };
    let client = world.client_as(login, |_| {});
    let sessions = || {
        let requests = world.lab.requests();
        requests.count(&Method::POST, "/api/v1/session")
    };
    world.lab.knobs().set(|knobs| knobs.hold_comparisons = true);
    let two = world.image("two");
    let second = world.commit(&two);
    let scenario = async {
        eventually("a look", async || {
            (sessions() == 1 && world.lab.held_comparisons() > 0).then_some(())
        })
        .await;
        world.lab.advance(LONG * 25);
        eventually("another session", async || (sessions() == 2).then_some(())).await;
        world.assert_runs(&one);
        world.lab.knobs().set(|knobs| knobs.hold_comparisons = false);
    };
    let never = Cancellation::new();
    let (report, ()) = tokio::join!(client.wait(expected(&second, &two), &never), scenario);
    assert_eq!(report.unwrap().outcome, DeliveryOutcome::Live);
    world.assert_runs(&two);
}

#[tokio::test]
async fn a_token_that_expires_during_a_wait_ends_it() {
    let (world, one, _) = World::deployed(true).await;
    let token = world.lab.account_token("towpath", LONG);
    let client = world.client_as(Login::Token(token), |_| {});
    world.lab.knobs().set(|knobs| knobs.hold_comparisons = true);
    let two = world.image("two");
    let second = world.commit(&two);
    let scenario = async {
        eventually("a look", async || {
            (world.lab.held_comparisons() > 0).then_some(())
        })
        .await;
        world.lab.advance(LONG * 2);
    };
    let never = Cancellation::new();
    let (ended, ()) = tokio::join!(client.wait(expected(&second, &two), &never), scenario);
    let error = ended.unwrap_err();
    assert!(error.is_unauthenticated(), "{error}");
    assert!(error.to_string().contains("default/web"), "{error}");
    world.assert_runs(&one);
}
