//! The GraphQL face: validation, errors, tokens, searches.

use super::support::{Account, SECRET, config};
use base64::Engine as _;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_lab::spacelift::{Planner, StackSeed};

fn two_stacks() -> Vec<StackSeed> {
    vec![
        StackSeed::new("network", "acme/infra").with_worker_pool("shared-services"),
        StackSeed::new("shop", "acme/infra")
            .with_worker_pool("apps")
            .with_dependency("network"),
    ]
}

#[tokio::test]
async fn every_operation_of_a_delivery_is_valid_and_selects_only_what_is_there() {
    let account = Account::start(config(Planner::BuiltIn, two_stacks())).await;
    let (_, sha) = account.commit("main", &[("main.tf", "output \"a\" {\n  value = 1\n}\n")]);
    let text = include_str!("operations.graphql");
    let variables = json!({
        "id": "network", "secret": "wrong", "stack": "network", "run": "none", "runId": "none", "input": {"first": 5},
        "state": "PLANNING", "decision": "APPROVE", "command": "true", "sha": sha, "dep": "none", "pool": "apps",
        "ref": {"outputName": "a", "inputName": "b", "type": "ENVIRONMENT_VARIABLE", "triggerAlways": false},
        "dependency": "none", "status": "FINISHED", "drain": true,
    });
    let names = text
        .lines()
        .filter(|line| line.starts_with("query") || line.starts_with("mutation"));
    let names: Vec<&str> = names.map(|line| line.split([' ', '(']).nth(1).unwrap()).collect();
    assert_eq!(names.len(), 31);
    for name in names {
        let mut variables = variables.clone();
        if name == "StackDependencyCreate" {
            variables["input"] = json!({"stackId": "network", "dependsOnStackId": "shop"});
        }
        if name == "WorkerPool" {
            variables["id"] = json!("apps");
        }
        let answer = account
            .send(&json!({"query": text, "operationName": name, "variables": variables}))
            .await;
        let message = answer["errors"][0]["message"].as_str().unwrap_or_default();
        // A field error has a path; a document that is not valid has none.
        assert!(
            message.is_empty() || answer["errors"][0]["path"].is_array(),
            "{name}: {message}"
        );
        let expected = match name {
            "RunOwner"
            | "RunConfirm"
            | "RunDiscard"
            | "RunCancel"
            | "RunStop"
            | "RunRetry"
            | "RunPromote"
            | "RunReview"
            | "StackDependencyAddReference"
            | "WorkerDrainSet" => "not found",
            "TaskCreate" => "Mutation.taskCreate is not implemented by this lab",
            "StackDependencyCreate" => "stack dependency would make a cycle",
            _ => "",
        };
        assert_eq!(message, expected, "{name}");
    }
}

#[tokio::test]
async fn a_document_that_spacelift_would_refuse_is_refused() {
    let account = Account::start(config(Planner::BuiltIn, two_stacks())).await;
    for (document, said) in [
        ("{ stack(id: \"network\") { colour } }", "colour"),
        ("{ stack { id } }", "id"),
        (
            "mutation($s: String!) { runConfirm(stack: $s) { id } }",
            "String!",
        ),
        ("{ stacks { id ", "syntax"),
    ] {
        let answer = account.answer(document, json!({})).await;
        assert_eq!(answer.get("data"), None);
        let messages = answer["errors"].to_string();
        assert!(messages.contains(said), "{document}: {messages}");
    }
    assert!(
        account
            .refusal("query($id: ID!) { stack(id: $id) { id } }", json!({}))
            .await
            .contains("id")
    );
    let plain = "{ stack(id: \"network\") { spaceDetails { id } } }";
    assert_eq!(
        account.refusal(plain, json!({})).await,
        "Stack.spaceDetails is not implemented by this lab"
    );
    let introspection = account.ask("{ __type(name: \"Run\") { name } }", json!({})).await;
    assert_eq!(introspection["__type"]["name"], "Run");
}

#[tokio::test]
async fn aliases_fragments_directives_and_unions_work() {
    let account = Account::start(config(Planner::BuiltIn, two_stacks())).await;
    let document = "query($yes: Boolean!) {
        shop: stack(id: \"shop\") { ...Names workerPool { id } skipped: id @skip(if: $yes)
            vendorConfig { __typename ... on StackConfigVendorTerraform { workspace } } dependsOn { dependsOnStack { id } } }
        none: stack(id: \"none\") { id }
        __typename
    } fragment Names on Stack { id @include(if: $yes) label: name state namespace repository }";
    let data = account.ask(document, json!({"yes": true})).await;
    let shop = json!({"id": "shop", "label": "shop", "state": "NONE", "namespace": "acme", "repository": "infra",
                      "workerPool": {"id": "apps"},
                      "vendorConfig": {"__typename": "StackConfigVendorTerraform", "workspace": "default"},
                      "dependsOn": [{"dependsOnStack": {"id": "network"}}]});
    assert_eq!(data, json!({"shop": shop, "none": null, "__typename": "Query"}));
}

#[tokio::test]
async fn an_expired_token_is_told_in_three_ways() {
    let mut account = Account::start(config(Planner::BuiltIn, two_stacks())).await;
    let claims = account.token.split('.').nth(1).unwrap();
    let claims: Value =
        serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert!(claims["iat"].is_f64() && claims["exp"].is_f64() && claims["aud"].as_array().unwrap().len() == 1);
    assert!(account.ask("{ viewer { id } }", json!({})).await["viewer"]["id"].is_string());
    account.spacelift.expire_tokens();
    for _ in 0..2 {
        let lists = "query { viewer { id } stacks { id } searchStacks(input: {}) { edges { node { id } } } }";
        let lists = account.ask(lists, json!({})).await;
        assert_eq!(
            lists,
            json!({"viewer": null, "stacks": [], "searchStacks": {"edges": []}})
        );
        assert_eq!(
            account.refusal("{ stack(id: \"shop\") { id } }", json!({})).await,
            "unauthorized"
        );
        assert_eq!(
            account
                .refusal("mutation { stackLock(id: \"shop\") { id } }", json!({}))
                .await,
            "unauthorized"
        );
        account.token.clear();
    }
}

#[tokio::test]
async fn a_token_lives_as_long_as_configured_and_a_bad_key_is_null() {
    let mut short = config(Planner::BuiltIn, two_stacks());
    short.token_lifetime = Duration::ZERO;
    let account = Account::start(short).await;
    assert_eq!(
        account.ask("{ viewer { id } }", json!({})).await["viewer"],
        Value::Null
    );
    let bad = account
        .ask(
            "mutation { apiKeyUser(id: \"x\", secret: \"y\") { jwt } }",
            json!({}),
        )
        .await;
    assert_eq!(bad["apiKeyUser"], Value::Null);
}

#[tokio::test]
async fn searches_page_and_filter() {
    let account = Account::start(config(Planner::BuiltIn, two_stacks())).await;
    let document = "query($i: SearchInput!) { searchStacks(input: $i) { edges { node { id } } pageInfo { endCursor hasNextPage } } }";
    let first = account.ask(document, json!({"i": {"first": 1}})).await["searchStacks"].clone();
    assert_eq!(
        first["pageInfo"],
        json!({"endCursor": "network", "hasNextPage": true})
    );
    let second = account
        .ask(document, json!({"i": {"first": 1, "after": "network"}}))
        .await["searchStacks"]
        .clone();
    assert_eq!(second["edges"][0]["node"]["id"], "shop");
    let pool = json!({"field": "workerPool", "constraint": {"stringMatches": ["apps"]}, "exclude": true});
    let other = account.ask(document, json!({"i": {"predicates": [pool]}})).await["searchStacks"].clone();
    assert_eq!(other["edges"], json!([{"node": {"id": "network"}}]));
}

#[tokio::test]
async fn a_webhook_must_be_signed_and_readable() {
    let account = Account::start(config(Planner::BuiltIn, two_stacks())).await;
    let body = json!({"ref": "refs/heads/main", "before": "x", "after": "y", "repository": {"full_name": "acme/infra"}});
    assert_eq!(account.deliver(&body, "another secret").await, 401);
    assert_eq!(account.deliver(&json!({"no": "push"}), SECRET).await, 400);
    assert_eq!(account.deliver(&body, SECRET).await, 422);
    assert!(account.spacelift.runs().is_empty());
}

#[tokio::test]
async fn stacks_are_made_changed_locked_and_deleted() {
    let account = Account::start(config(Planner::BuiltIn, two_stacks())).await;
    let create = "mutation($i: StackInput!) { stackCreate(input: $i, manageState: true) { id projectRoot autodeploy } }";
    let input = json!({"name": "Data Lake", "administrative": false, "branch": "main", "repository": "infra",
                       "namespace": "acme", "projectRoot": "/lake/"});
    let made = account.ask(create, json!({"i": input})).await;
    assert_eq!(
        made["stackCreate"],
        json!({"id": "data-lake", "projectRoot": "lake", "autodeploy": false})
    );
    let lock = "mutation { stackLock(id: \"shop\", note: \"mine\") { lockedBy lockNote } }";
    assert_eq!(
        account.ask(lock, json!({})).await["stackLock"]["lockNote"],
        "mine"
    );
    assert!(
        account
            .refusal(lock, json!({}))
            .await
            .contains("already locked by api::")
    );
    account.spacelift.lock("shop", Some("grace"));
    let trigger = "mutation { runTrigger(stack: \"shop\", commitSha: \"9fceb02d0ae598e95dc970b74767f19372d61af8\") { id } }";
    assert_eq!(
        account.refusal(trigger, json!({})).await,
        "stack is locked by grace"
    );
    account
        .ask("mutation { stackDelete(id: \"data-lake\") { id } }", json!({}))
        .await;
    assert_eq!(account.spacelift.stacks().len(), 2);
}
