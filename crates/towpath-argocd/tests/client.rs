//! Every call of the client at the lab's Argo CD, with what comes of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "each test uses its part of the world")]
mod lab_world;

use lab_world::{World, app};
use serde_json::{Value, json};
use std::time::Duration;
use towpath_argocd::{
    ApiError, Application, Capabilities, CreateOptions, Deletion, Feature, ListFilter, Login, Refresh,
    SyncRequest, TokenClaims, wire,
};
use towpath_core::{Cancellation, requests};
use towpath_elements::ErrorKind;

const SOON: Duration = Duration::from_secs(20);

fn refusal(error: &towpath_argocd::Error) -> &ApiError {
    ApiError::of(error).unwrap_or_else(|| panic!("no refusal of the service: {error}"))
}

#[tokio::test]
async fn accounts_and_their_tokens() {
    let world = World::start().await;
    let client = world.client();
    let accounts = client.accounts().await.unwrap();
    let names: Vec<_> = accounts.iter().map(|account| account.name.as_str()).collect();
    assert_eq!(names, ["admin", "towpath"]);
    assert!(accounts[0].enabled && accounts[0].capabilities == ["login"]);

    let lifetime = Duration::from_secs(3600);
    let token = client
        .create_account_token("towpath", Some(lifetime), Some("ci"))
        .await
        .unwrap();
    let claims = TokenClaims::of(&token).unwrap();
    assert_eq!(
        (claims.subject.as_str(), claims.id.as_str()),
        ("towpath:apiKey", "ci")
    );
    assert_eq!(claims.remaining(claims.issued_at.unwrap()), Some(lifetime));
    let account = client.account("towpath").await.unwrap();
    let known = account.tokens.iter().find(|token| token.id == "ci").unwrap();
    assert_eq!(
        (known.issued_at, known.expires_at),
        (claims.issued_at, claims.expires_at)
    );
    let endless = client.create_account_token("towpath", None, None).await.unwrap();
    assert_eq!(TokenClaims::of(&endless).unwrap().expires_at, None);

    let other = world.with(Login::Token(token));
    assert_eq!(other.user_info().await.unwrap().username, "towpath");
    other.log_out().await.unwrap();
    // A bearer's session goes on: logging out takes nothing back.
    other.applications(&ListFilter::default()).await.unwrap();
    client.delete_account_token("towpath", "ci").await.unwrap();
    let error = other.applications(&ListFilter::default()).await.unwrap_err();
    assert!(
        error.is_unauthenticated() && error.advice().unwrap().contains("revoked"),
        "{error}"
    );

    let twice = client.delete_account_token("towpath", "ci").await.unwrap_err();
    assert!(
        twice.is_not_found() && twice.detail().contains("'ci' does not exist"),
        "{twice}"
    );
    let error = client
        .create_account_token("admin", None, None)
        .await
        .unwrap_err();
    assert!(
        error.detail().contains("does not have apiKey capability"),
        "{error}"
    );
    assert!(client.account("nobody").await.unwrap_err().is_not_found());
    let role = world.with(Login::Token(world.lab.project_token("default", "ci", &["get"])));
    let denied = role.account("towpath").await.unwrap_err();
    assert!(
        denied.is_denied() && denied.detail().contains("accounts, get, towpath"),
        "{denied}"
    );
    assert!(role.accounts().await.unwrap().is_empty());
}

#[tokio::test]
async fn projects_are_made_changed_and_deleted() {
    let world = World::start().await;
    let client = world.client();
    let policy = "p, proj:shop:ci, applications, sync, shop/*, allow";
    let project = |description: &str| -> wire::Project {
        serde_json::from_value(json!({
            "metadata": {"name": "shop"},
            "spec": {"description": description, "sourceRepos": ["*"],
                "destinations": [{"server": "*", "namespace": "*"}],
                "roles": [{"name": "ci", "policies": [policy]}]},
        }))
        .unwrap()
    };
    let made = client.create_project(&project("one")).await.unwrap();
    assert_eq!(made.metadata.name, "shop");
    client.create_project(&project("one")).await.unwrap();
    let error = client.create_project(&project("two")).await.unwrap_err();
    assert!(
        error.is_conflict() && error.detail().contains("Description"),
        "{error}"
    );
    client.upsert_project(&project("two")).await.unwrap();
    let error = client.replace_project(&made).await.unwrap_err();
    assert!(error.is_conflict() && refusal(&error).is_stale(), "{error}");
    let mut now = client.project("shop").await.unwrap();
    assert_eq!(now.spec["description"], "two");
    now.spec.insert("description".into(), "three".into());
    client.replace_project(&now).await.unwrap();
    let names: Vec<_> = client
        .projects()
        .await
        .unwrap()
        .into_iter()
        .map(|one| one.metadata.name)
        .collect();
    assert_eq!(names, ["default", "shop"]);
    let details = client.project_details("shop").await.unwrap();
    assert_eq!(details.project.spec["description"], "three");
    assert!(details.repositories.is_empty() && client.global_projects("shop").await.unwrap().is_empty());
    let events = client.project_events("shop").await.unwrap();
    assert_eq!(events.last().unwrap().reason, "ResourceUpdated");
    assert!(client.project_sync_windows("shop").await.unwrap().is_empty());
    world.lab.knobs().set(|knobs| knobs.sync_window_closed = true);
    assert_eq!(client.project_sync_windows("shop").await.unwrap()[0].kind, "deny");

    let minute = Some(Duration::from_secs(60));
    let token = client
        .create_project_token("shop", "ci", minute, Some("run"))
        .await
        .unwrap();
    let claims = TokenClaims::of(&token).unwrap();
    assert_eq!(
        (claims.subject.as_str(), claims.id.as_str()),
        ("proj:shop:ci", "run")
    );
    let role = world.with(Login::Token(token));
    assert_eq!(role.project("shop").await.unwrap().metadata.name, "shop");
    assert!(role.can_i("applications", "sync", "shop/web").await.unwrap());
    assert!(!role.can_i("applications", "delete", "shop/web").await.unwrap());
    assert!(role.delete_project("shop").await.unwrap_err().is_denied());
    let error = client
        .create_project_token("shop", "none", None, None)
        .await
        .unwrap_err();
    assert!(
        error.is_not_found() && error.detail().contains("role 'none'"),
        "{error}"
    );
    let issued = claims.issued_at.unwrap().as_second();
    client
        .delete_project_token("shop", "ci", issued, "run")
        .await
        .unwrap();
    client
        .delete_project_token("shop", "ci", issued, "run")
        .await
        .unwrap();
    assert!(role.project("shop").await.unwrap_err().is_unauthenticated());

    let error = client.delete_project("default").await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.detail().contains("reserved"),
        "{error}"
    );
    client.delete_project("shop").await.unwrap();
    assert!(client.project("shop").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn applications_are_made_replaced_and_patched() {
    let world = World::start().await;
    world.commit(&world.image("one"));
    let client = world.client();
    assert!(!client.application_exists(&app()).await.unwrap());
    let mut strange = world.spec(false);
    strange.spec.source.as_mut().unwrap().repo_url = "file:///nowhere".into();
    let error = client.create(&strange).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.detail().contains("not accessible"),
        "{error}"
    );
    let unchecked = CreateOptions {
        skip_validation: true,
        ..CreateOptions::default()
    };
    client.create_with(&strange, unchecked).await.unwrap();
    assert!(client.application_exists(&app()).await.unwrap());
    assert!(
        !client
            .application_exists(&"other/web".parse().unwrap())
            .await
            .unwrap()
    );

    let mut good = world.spec(false);
    good.metadata.labels.insert("team".into(), "shop".into());
    let replaced = client.replace(&app(), &good, true).await.unwrap();
    assert_eq!(replaced.metadata.labels["team"], "shop");
    let other: Application = "default/other".parse().unwrap();
    assert_eq!(
        client.replace(&other, &good, true).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let mut spec = replaced.spec.clone();
    spec.destination.namespace = Some("elsewhere".into());
    let spec = client.replace_spec(&app(), &spec, false).await.unwrap();
    assert_eq!(spec.destination.namespace.as_deref(), Some("elsewhere"));

    let steps = json!([
        {"op": "test", "path": "/metadata/labels/team", "value": "shop"},
        {"op": "replace", "path": "/metadata/labels/team", "value": "payment"},
    ]);
    let patched = client.json_patch(&app(), &steps).await.unwrap();
    assert_eq!(patched.metadata.labels["team"], "payment");
    let error = client.json_patch(&app(), &steps).await.unwrap_err();
    assert!(error.detail().contains("testing value"), "{error}");
    let (error, sent) = requests::count(client.json_patch(&app(), &json!({}))).await;
    assert_eq!((error.unwrap_err().kind(), sent), (ErrorKind::Invalid, 0));

    // Only what the server lets go alone can be chosen from a list.
    let filter = ListFilter {
        selector: Some("team=payment".into()),
        fields: vec!["items.metadata.name".into(), "items.metadata.uid".into()],
        ..ListFilter::default()
    };
    let listed = client.applications(&filter).await.unwrap();
    assert_eq!(
        (
            listed.items[0].metadata.name.as_str(),
            &listed.items[0].metadata.uid
        ),
        ("web", &None)
    );
    let refreshed = client.refreshed(&app(), Refresh::Normal, SOON).await.unwrap();
    assert_eq!(refreshed.spec.destination.namespace.as_deref(), Some("elsewhere"));
}

#[tokio::test]
async fn a_deletion_is_waited_for() {
    let (world, ..) = World::deployed(false).await;
    let client = world.client();
    let go_on = Cancellation::new();
    let error = client
        .wait_until_deleted(&app(), Duration::from_millis(50), &go_on)
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::TimedOut && error.detail().contains("not being deleted"),
        "{error}"
    );
    world.lab.knobs().set(|knobs| knobs.controller_down = true);
    client.delete(&app(), Deletion::Foreground).await.unwrap();
    let error = client
        .wait_until_deleted(&app(), Duration::from_millis(50), &go_on)
        .await
        .unwrap_err();
    assert!(error.detail().contains("resources-finalizer"), "{error}");
    let refused = client
        .sync_application(&app(), &SyncRequest::default())
        .await
        .unwrap_err();
    assert!(
        refusal(&refused).is_deleting() && refused.is_conflict(),
        "{refused}"
    );
    let stop = Cancellation::new();
    stop.cancel();
    assert!(
        client
            .wait_until_deleted(&app(), SOON, &stop)
            .await
            .unwrap_err()
            .is_cancelled()
    );
    let bare: Application = "web".parse().unwrap();
    let error = client.wait_until_deleted(&bare, SOON, &go_on).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let foreign = world.with(Login::Token(world.lab.project_token("other", "ci", &["get"])));
    assert!(
        foreign
            .wait_until_deleted(&app(), SOON, &go_on)
            .await
            .unwrap_err()
            .is_denied()
    );

    world.lab.knobs().set(|knobs| knobs.controller_down = false);
    client.wait_until_deleted(&app(), SOON, &go_on).await.unwrap();
    assert!(client.application(&app()).await.unwrap_err().is_not_found());
    assert!(world.lab.cluster().running().is_empty());
}

#[tokio::test]
async fn a_version_is_not_kept_where_it_could_not_be_read() {
    let world = World::start_with(|config| config.version = "v2.11.3".into()).await;
    let client = world.client();
    let down = towpath_lab::Fault::respond("/api/version", reqwest::StatusCode::BAD_GATEWAY, "down").times(4);
    world.lab.faults().inject(down);
    assert_eq!(
        client.capabilities().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let capabilities: &Capabilities = client.capabilities().await.unwrap();
    assert!(capabilities.warning().unwrap().contains("2.12"));
    assert!(capabilities.has(Feature::MultiSourceSync) && !capabilities.has(Feature::AutomatedEnabled));
    let (_, sent) = requests::count(client.capabilities()).await;
    assert_eq!(sent, 0);
}

#[tokio::test]
async fn children_of_an_application_are_found_once_each() {
    let world = World::start().await;
    let child = |name: &str| {
        format!(
            "{{apiVersion: argoproj.io/v1alpha1, kind: Application, metadata: {{name: {name}, namespace: argocd}}}}\n"
        )
    };
    for (folder, names) in [
        ("child", ["web", "grandchild"]),
        ("grandchild", ["child", "ghost"]),
    ] {
        std::fs::create_dir_all(world.repository().join(folder)).unwrap();
        let text = names.map(child).join("---\n");
        std::fs::write(world.repository().join(folder).join("apps.yaml"), text).unwrap();
    }
    world.commit_text(&child("child"));
    let client = world.client();
    for name in ["web", "child", "grandchild"] {
        let mut spec = world.spec(false);
        spec.metadata.name = name.into();
        if name != "web" {
            spec.spec.source.as_mut().unwrap().path = Some(name.into());
        }
        client.create(&spec).await.unwrap();
        let address = format!("default/{name}").parse().unwrap();
        client.refreshed(&address, Refresh::Normal, SOON).await.unwrap();
    }
    let children = client.children(&app()).await.unwrap();
    let children: Vec<_> = children.iter().map(ToString::to_string).collect();
    // What is not there yet has no project, and what leads back is not followed.
    assert_eq!(children, ["default/child", "default/grandchild", "ghost"]);
    assert!(
        client
            .children(&"default/none".parse().unwrap())
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn the_matrix_of_missing_and_forbidden() {
    let (world, ..) = World::deployed(false).await;
    let get = |project: &str| world.with(Login::Token(world.lab.project_token(project, "ci", &["get"])));
    let (all, own, foreign) = (world.client(), get("default"), get("other"));
    for (who, client, address, expected, code) in [
        ("all", &all, "none", ErrorKind::NotFound, 7),
        ("foreign", &foreign, "web", ErrorKind::NotFound, 7),
        ("foreign", &foreign, "default/web", ErrorKind::NotFound, 7),
        ("all", &all, "default/none", ErrorKind::NotFound, 5),
        ("own", &own, "default/none", ErrorKind::NotFound, 5),
        ("all", &all, "other/web", ErrorKind::NotFound, 5),
        ("foreign", &foreign, "other/web", ErrorKind::NotFound, 5),
        ("all", &all, "default/elsewhere/web", ErrorKind::NotFound, 7),
    ] {
        let error = client.application(&address.parse().unwrap()).await.unwrap_err();
        let said = refusal(&error);
        assert_eq!(
            (error.kind(), said.code),
            (expected, Some(code)),
            "{who} {address}: {error}"
        );
        assert_eq!(said.is_bare_denial(), code == 7, "{who} {address}");
        assert_eq!(said.is_not_found(), code == 5, "{who} {address}");
    }
    own.application(&app()).await.unwrap();
    // A denial with details proves that it exists.
    let denied = own
        .sync_application(&app(), &SyncRequest::default())
        .await
        .unwrap_err();
    assert!(
        denied.is_denied() && !refusal(&denied).is_bare_denial(),
        "{denied}"
    );
    assert!(
        denied.detail().contains("applications, sync, default/web"),
        "{denied}"
    );
    let value: Value = serde_json::to_value(all.application(&app()).await.unwrap()).unwrap();
    assert_eq!(value["metadata"]["name"], "web");
}
