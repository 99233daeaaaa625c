//! The REST endpoints of webhooks, for repositories and organisations.

use super::hooks::{Delivery, Hook};
use super::hub::{Caller, Hub, Repository};
use super::reply::{ApiError, Input, Paging, Reply, answer, created, no_content, ok, time};
use axum::Router;
use axum::extract::{OriginalUri, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use towpath_core::Secret;

pub(super) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route(
            "/orgs/{org}/hooks",
            get(list_for_organization).post(create_for_organization),
        )
        .route("/repos/{owner}/{repo}/hooks", get(list).post(create))
        .route("/repos/{owner}/{repo}/hooks/{id}", get(one).delete(delete))
        .route("/repos/{owner}/{repo}/hooks/{id}/pings", post(ping))
        .route("/repos/{owner}/{repo}/hooks/{id}/deliveries", get(deliveries))
        .route(
            "/repos/{owner}/{repo}/hooks/{id}/deliveries/{delivery}",
            get(delivery),
        )
        .route(
            "/repos/{owner}/{repo}/hooks/{id}/deliveries/{delivery}/attempts",
            post(redeliver),
        )
}

#[derive(Debug, Deserialize)]
struct NewHook {
    config: HookConfig,
    #[serde(default = "push_only")]
    events: Vec<String>,
    #[serde(default = "yes")]
    active: bool,
}

#[derive(Debug, Deserialize)]
struct HookConfig {
    url: Option<String>,
    secret: Option<String>,
    content_type: Option<String>,
}

fn push_only() -> Vec<String> {
    vec!["push".into()]
}

fn yes() -> bool {
    true
}

impl NewHook {
    fn into_hook(self, id: u64, organization: Option<String>) -> Reply<Hook> {
        let invalid = |field: &str, message: &str| ApiError::validation("Hook", field, "custom", message);
        let url = self
            .config
            .url
            .ok_or_else(|| invalid("url", "Config must contain URL for webhooks"))?;
        match url::Url::parse(&url) {
            Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {}
            _ => return Err(invalid("url", "url must be an http or https address")),
        }
        let form = match self.config.content_type.as_deref() {
            Some("json") => false,
            None | Some("form") => true,
            Some(_) => return Err(invalid("content_type", "content_type must be json or form")),
        };
        Ok(Hook {
            id,
            url,
            secret: self.config.secret.map(Secret::new),
            events: self.events,
            form,
            active: self.active,
            created: jiff::Timestamp::now(),
            organization,
        })
    }
}

/// An administrator is whoever may write; the token of a job never is.
fn administered(hub: &Hub, caller: &Caller, owner: &str, repo: &str) -> Reply<Arc<Repository>> {
    Ok(hub.writable(caller, owner, repo, "administration")?.0)
}

fn api(hub: &Hub, repository: &Repository) -> String {
    format!("{}/repos/{}", hub.api(), repository.slug)
}

fn ping_payload(hub: &Hub, hook: &Hook, repository: &Repository) -> Value {
    json!({
        "zen": "Keep it logically awesome.", "hook_id": hook.id, "hook": hook.json(&api(hub, repository)),
        "repository": hub.repository_json(repository),
        "sender": hub.user_json(&hub.actor(repository.slug.owner())),
    })
}

async fn create(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Input(new): Input<NewHook>,
) -> Reply {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    let hook = new.into_hook(hub.next_id(), None)?;
    if repository
        .records()
        .hooks
        .iter()
        .any(|other| other.url == hook.url && other.events == hook.events)
    {
        return Err(ApiError::validation(
            "Hook",
            "url",
            "custom",
            "Hook already exists on this repository",
        ));
    }
    repository.records().hooks.push(hook.clone());
    hub.deliver(
        &hook,
        "ping",
        &repository,
        &ping_payload(&hub, &hook, &repository),
        None,
    );
    Ok(created(&hook.json(&api(&hub, &repository))))
}

async fn create_for_organization(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(org): Path<String>,
    Input(new): Input<NewHook>,
) -> Reply {
    let login = organization(&hub, &caller, &org)?;
    let hook = new.into_hook(hub.next_id(), Some(login.clone()))?;
    hub.hooks.add_for_organization(hook.clone());
    Ok(created(&hook.json(&format!("{}/orgs/{login}", hub.api()))))
}

async fn list_for_organization(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(org): Path<String>,
) -> Reply {
    let login = organization(&hub, &caller, &org)?;
    let owner = format!("{}/orgs/{login}", hub.api());
    Ok(ok(&hub
        .hooks
        .of_organization(&login)
        .iter()
        .map(|hook| hook.json(&owner))
        .collect()))
}

fn organization(hub: &Hub, caller: &Caller, org: &str) -> Reply<String> {
    let who = caller.known()?;
    let member = who.scope.is_none() && hub.account(&who.login).is_some_and(|account| account.member);
    hub.account(org)
        .filter(|account| account.organization && member)
        .map(|account| account.login)
        .ok_or_else(ApiError::not_found)
}

async fn list(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo)): Path<(String, String)>,
    Query(paging): Query<Paging>,
    OriginalUri(uri): OriginalUri,
) -> Reply {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    let hooks = repository.records().hooks.clone();
    let total = hooks.len();
    let base = api(&hub, &repository);
    let page: Value = paging.slice(hooks).iter().map(|hook| hook.json(&base)).collect();
    Ok(paging.link(ok(&page), &hub.base, &uri, total))
}

fn hook_of(repository: &Repository, id: u64) -> Reply<Hook> {
    let records = repository.records();
    records
        .hooks
        .iter()
        .find(|hook| hook.id == id)
        .cloned()
        .ok_or_else(ApiError::not_found)
}

async fn one(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, u64)>,
) -> Reply {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    Ok(ok(&hook_of(&repository, id)?.json(&api(&hub, &repository))))
}

async fn delete(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, u64)>,
) -> Reply {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    hook_of(&repository, id)?;
    repository.records().hooks.retain(|hook| hook.id != id);
    Ok(no_content())
}

async fn ping(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, u64)>,
) -> Reply {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    let hook = hook_of(&repository, id)?;
    hub.deliver(
        &hook,
        "ping",
        &repository,
        &ping_payload(&hub, &hook, &repository),
        None,
    );
    Ok(no_content())
}

fn delivery_json(delivery: &Delivery) -> Value {
    json!({
        "id": delivery.id, "guid": delivery.guid, "delivered_at": time(delivery.delivered),
        "redelivery": delivery.redelivery, "duration": delivery.duration.as_secs_f64(),
        "status": match (delivery.status, &delivery.error) {
            (Some(200..=299), _) => "OK".to_owned(),
            (Some(code), _) => format!("Invalid HTTP Response: {code}"),
            (None, Some(_)) => "failed to connect to host".to_owned(),
            (None, None) => "pending".to_owned(),
        },
        "status_code": delivery.status.unwrap_or(0), "event": delivery.event, "action": delivery.action,
        "installation_id": null, "repository_id": delivery.payload["repository"]["id"],
        "throttled_at": null,
    })
}

async fn deliveries(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id)): Path<(String, String, u64)>,
    Query(paging): Query<Paging>,
) -> Reply {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    hook_of(&repository, id)?;
    let mut all: Vec<Delivery> = hub
        .hooks
        .log()
        .into_iter()
        .filter(|delivery| delivery.hook == id)
        .collect();
    all.reverse();
    Ok(ok(&paging.slice(all).iter().map(delivery_json).collect()))
}

fn find_delivery(hub: &Hub, hook: u64, id: u64) -> Reply<Delivery> {
    let same = |delivery: &Delivery| delivery.hook == hook && delivery.id == id;
    hub.hooks
        .log()
        .into_iter()
        .find(same)
        .ok_or_else(ApiError::not_found)
}

async fn delivery(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id, delivery)): Path<(String, String, u64, u64)>,
) -> Reply {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    hook_of(&repository, id)?;
    let found = find_delivery(&hub, id, delivery)?;
    let mut body = delivery_json(&found);
    body["url"] = json!(found.url);
    body["request"] = json!({
        "headers": {"X-GitHub-Event": found.event, "X-GitHub-Delivery": found.guid},
        "payload": found.payload,
    });
    body["response"] = json!({"headers": {}, "payload": found.error});
    Ok(ok(&body))
}

async fn redeliver(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, repo, id, delivery)): Path<(String, String, u64, u64)>,
) -> Reply<Response> {
    let repository = administered(&hub, &caller, &owner, &repo)?;
    let hook = hook_of(&repository, id)?;
    let first = find_delivery(&hub, id, delivery)?;
    hub.deliver(&hook, &first.event, &repository, &first.payload, Some(first.guid));
    Ok(answer(StatusCode::ACCEPTED, &json!({})))
}
