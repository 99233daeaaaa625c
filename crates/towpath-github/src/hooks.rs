//! Webhooks of a repository (`/repos/{owner}/{repo}/hooks`).

use crate::client::GitHub;
use crate::connection::Request;
use crate::page::{Items, all, pages};
use crate::wire::{Hook, HookConfig, HookDelivery};
use futures_util::stream::BoxStream;
use http::Method;
use serde_json::json;
use std::sync::Arc;
use towpath_core::RepoSlug;
use towpath_elements::Result;

impl GitHub {
    /// Creates a webhook for these events, such as `push`.
    ///
    /// # Errors
    /// *Conflict* where the repository has one with the same address and events.
    pub async fn create_hook(
        &self,
        repository: &RepoSlug,
        config: &HookConfig,
        events: &[&str],
    ) -> Result<Hook> {
        let body = json!({ "name": "web", "active": true, "events": events, "config": config });
        let request = Request::repository(Method::POST, repository, ["hooks"])
            .doing("create a webhook of", repository)
            .body(&body)?;
        self.connection.json(&request).await
    }

    /// The webhooks of a repository.
    pub async fn hooks(&self, repository: &RepoSlug) -> Result<Vec<Hook>> {
        let request =
            Request::repository(Method::GET, repository, ["hooks"]).doing("list the webhooks of", repository);
        all(&self.connection, request, Items::Whole).await
    }

    /// What a webhook delivered in the last three days, the latest first. A receiver that was away reads here what it
    /// missed.
    pub fn hook_deliveries(
        &self,
        repository: &RepoSlug,
        hook: u64,
    ) -> BoxStream<'static, Result<HookDelivery>> {
        let request = Request::repository(
            Method::GET,
            repository,
            ["hooks", &hook.to_string(), "deliveries"],
        )
        .doing(
            "list the deliveries of",
            format!("webhook {hook} of {repository}"),
        );
        pages(Arc::clone(&self.connection), request, Items::Whole)
    }

    /// Sends a delivery again, with the same `X-GitHub-Delivery`.
    pub async fn redeliver(&self, repository: &RepoSlug, hook: u64, delivery: u64) -> Result<()> {
        let path = [
            "hooks",
            &hook.to_string(),
            "deliveries",
            &delivery.to_string(),
            "attempts",
        ];
        let request = Request::repository(Method::POST, repository, path).doing(
            "send again",
            format!("delivery {delivery} of webhook {hook} of {repository}"),
        );
        self.connection.answer(&request).await.map(drop)
    }
}
