//! Images of the lab's ECR at wire level: pages, storage classes, referrers, lifecycle policies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ecr_common;

use ecr_common::Lab;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;
use towpath_lab::ecr::EcrConfig;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn seeded(count: usize) -> Lab {
    let lab = Lab::start(EcrConfig::default()).await;
    lab.ecr.seed_images("shop/web", count).unwrap();
    lab
}

async fn done(lab: &Lab, operation: &str, input: Value) -> Value {
    let (status, answer) = lab.ask(operation, &input).await;
    assert_eq!(status, StatusCode::OK, "{operation}: {answer}");
    answer
}

async fn refused(lab: &Lab, operation: &str, input: Value) -> (String, String) {
    let (status, answer) = lab.ask(operation, &input).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{operation}: {answer}");
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    (text("__type"), text("message"))
}

fn rule(priority: u32, selection: Value) -> Value {
    json!({"rulePriority": priority, "selection": selection, "action": {"type": "expire"}})
}

fn policy(rules: &[Value]) -> String {
    json!({"rules": rules}).to_string()
}

/// The images that a policy marks, by their first tag, and the priority of the rule.
async fn marked(lab: &Lab, text: &str) -> BTreeSet<(String, u64)> {
    let start = json!({"repositoryName": "shop/web", "lifecyclePolicyText": text});
    done(lab, "StartLifecyclePolicyPreview", start).await;
    let preview = done(
        lab,
        "GetLifecyclePolicyPreview",
        json!({"repositoryName": "shop/web"}),
    )
    .await;
    assert_eq!(preview["status"], "COMPLETE");
    let results = preview["previewResults"].as_array().unwrap().iter();
    results
        .map(|result| {
            let tag = result["imageTags"][0].as_str().unwrap_or_default().to_owned();
            (tag, result["appliedRulePriority"].as_u64().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn pages_have_their_length_and_every_image_once() {
    let lab = seeded(2050).await;
    for (operation, list) in [("DescribeImages", "imageDetails"), ("ListImages", "imageIds")] {
        let (mut seen, mut lengths, mut token) = (BTreeSet::new(), Vec::new(), Value::Null);
        loop {
            let mut input = json!({"repositoryName": "shop/web", "maxResults": 1000});
            if token.is_string() {
                input["nextToken"] = token;
            }
            let page = done(&lab, operation, input).await;
            let items = page[list].as_array().unwrap();
            lengths.push(items.len());
            seen.extend(
                items
                    .iter()
                    .map(|item| item["imageDigest"].as_str().unwrap().to_owned()),
            );
            token = page["nextToken"].clone();
            if token.is_null() {
                break;
            }
        }
        assert_eq!((lengths, seen.len()), (vec![1000, 1000, 50], 2050));
    }
    for (field, value) in [
        ("maxResults", json!(1001)),
        ("nextToken", json!("?")),
        ("filter", json!({"tagStatus": "SOME"})),
        ("filter", json!({"imageStatus": "SOME"})),
        ("imageIds", json!([])),
    ] {
        let mut input = json!({"repositoryName": "shop/web"});
        input[field] = value;
        let (kind, _) = refused(&lab, "DescribeImages", input).await;
        assert_eq!(kind, "InvalidParameterException", "{field}");
    }
}

#[tokio::test]
async fn an_archived_image_is_listed_only_when_asked_for_and_cannot_be_pulled() {
    let lab = seeded(2).await;
    lab.ecr.set_restore_time(Duration::from_secs(3600));
    let class = |class: &str| json!({"repositoryName": "shop/web", "imageId": {"imageTag": "seed-0"}, "targetStorageClass": class});
    let answer = done(&lab, "UpdateImageStorageClass", class("ARCHIVE")).await;
    assert_eq!(answer["imageStatus"], "ARCHIVED");
    let (kind, _) = refused(&lab, "UpdateImageStorageClass", class("ARCHIVE")).await;
    assert_eq!(kind, "ImageStorageClassUpdateNotSupportedException");
    let (kind, _) = refused(&lab, "UpdateImageStorageClass", class("COLD")).await;
    assert_eq!(kind, "InvalidParameterException");
    for (status, count) in [
        (None, 1),
        (Some("ARCHIVED"), 1),
        (Some("ANY"), 2),
        (Some("ACTIVATING"), 0),
    ] {
        let mut input = json!({"repositoryName": "shop/web"});
        if let Some(status) = status {
            input["filter"] = json!({"imageStatus": status});
        }
        let page = done(&lab, "DescribeImages", input).await;
        assert_eq!(
            page["imageDetails"].as_array().unwrap().len(),
            count,
            "{status:?}"
        );
    }
    let ids = json!({"repositoryName": "shop/web", "imageIds": [{"imageTag": "seed-0"}]});
    let pulled = done(&lab, "BatchGetImage", ids).await;
    assert_eq!(pulled["failures"][0]["failureCode"], "ImageInaccessible");
    let answer = done(&lab, "UpdateImageStorageClass", class("STANDARD")).await;
    assert_eq!(answer["imageStatus"], "ACTIVATING");
    lab.ecr.set_restore_time(Duration::ZERO);
    let ids = json!({"repositoryName": "shop/web", "imageIds": [{"imageTag": "seed-0"}]});
    assert_eq!(done(&lab, "BatchGetImage", ids).await["failures"], json!([]));
}

#[tokio::test]
async fn rules_go_by_priority_and_an_image_belongs_to_the_first_that_selects_it() {
    let lab = seeded(6).await;
    for number in 0..6 {
        lab.ecr
            .set_age("shop/web", &format!("seed-{number}"), DAY * (6 - number));
    }
    // The first rule keeps two of what it selects; the second must not touch what the first one selected.
    let selected = |pattern: &str, count: u32| json!({"tagStatus": "tagged", "tagPatternList": [pattern], "countType": "imageCountMoreThan", "countNumber": count});
    let any = json!({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1});
    let text = policy(&[rule(10, any.clone()), rule(1, selected("seed-*", 2))]);
    let expected = (0..4).map(|number| (format!("seed-{number}"), 1)).collect();
    assert_eq!(marked(&lab, &text).await, expected);
    // What a rule before has selected still counts: five are younger than the oldest.
    let text = policy(&[rule(1, selected("seed-5", 9)), rule(2, any)]);
    let expected = (0..5).map(|number| (format!("seed-{number}"), 2)).collect();
    assert_eq!(marked(&lab, &text).await, expected);
    // By age, and by a tag for every entry of a list.
    let old =
        json!({"tagStatus": "any", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 4});
    let expected = (0..2).map(|number| (format!("seed-{number}"), 3)).collect();
    // An image of exactly so many days is just over them by the time that it is looked at.
    let marks = marked(&lab, &policy(&[rule(3, old)])).await;
    assert!(marks.is_superset(&expected) && marks.len() <= 3, "{marks:?}");
    let both = json!({
        "tagStatus": "tagged", "tagPrefixList": ["seed", "other"], "countType": "imageCountMoreThan", "countNumber": 1,
    });
    assert!(marked(&lab, &policy(&[rule(1, both)])).await.is_empty());
}

#[tokio::test]
async fn what_was_previewed_expires_when_the_policy_is_carried_out() {
    let lab = seeded(10).await;
    let any = json!({"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 4});
    let text = policy(&[rule(1, any)]);
    let (kind, _) = refused(&lab, "GetLifecyclePolicy", json!({"repositoryName": "shop/web"})).await;
    assert_eq!(kind, "LifecyclePolicyNotFoundException");
    let (kind, _) = refused(
        &lab,
        "GetLifecyclePolicyPreview",
        json!({"repositoryName": "shop/web"}),
    )
    .await;
    assert_eq!(kind, "LifecyclePolicyPreviewNotFoundException");
    lab.ecr.set_preview_delay(Duration::from_secs(3600));
    let start = json!({"repositoryName": "shop/web", "lifecyclePolicyText": text});
    done(&lab, "StartLifecyclePolicyPreview", start.clone()).await;
    let (kind, _) = refused(&lab, "StartLifecyclePolicyPreview", start).await;
    assert_eq!(kind, "LifecyclePolicyPreviewInProgressException");
    let running = done(
        &lab,
        "GetLifecyclePolicyPreview",
        json!({"repositoryName": "shop/web"}),
    )
    .await;
    assert_eq!(
        (&running["status"], &running["previewResults"]),
        (&json!("IN_PROGRESS"), &Value::Null)
    );
    lab.ecr.set_preview_delay(Duration::ZERO);
    let page = json!({"repositoryName": "shop/web", "maxResults": 4});
    let page = done(&lab, "GetLifecyclePolicyPreview", page).await;
    assert_eq!(page["summary"]["expiringImageTotalCount"], 6);
    assert_eq!(page["previewResults"].as_array().unwrap().len(), 4);
    assert!(page["nextToken"].is_string());
    let put = json!({"repositoryName": "shop/web", "lifecyclePolicyText": text});
    done(&lab, "PutLifecyclePolicy", put).await;
    assert_eq!(lab.ecr.run_lifecycle("shop/web").len(), 6);
    assert_eq!(lab.ecr.repositories()[0].images.len(), 4);
    let stored = done(&lab, "GetLifecyclePolicy", json!({"repositoryName": "shop/web"})).await;
    assert!(stored["lastEvaluatedAt"].is_number());
}

#[tokio::test]
async fn a_policy_that_breaks_a_rule_of_the_user_guide_is_refused() {
    let lab = seeded(1).await;
    let days = |status: &str| json!({"tagStatus": status, "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1});
    let mut no_unit = days("any");
    no_unit.as_object_mut().unwrap().remove("countUnit");
    let mut unit = days("any");
    unit["countType"] = json!("imageCountMoreThan");
    let mut transition = rule(1, days("any"));
    transition["action"] = json!({"type": "transition"});
    let many: Vec<Value> = (1..=51)
        .map(|priority| rule(priority, days("untagged")))
        .collect();
    for (text, reason) in [
        ("{}".to_owned(), "between 100 and 30720"),
        (
            policy(&[rule(1, days("any")), rule(2, days("untagged"))]),
            "highest rulePriority",
        ),
        (
            policy(&[rule(1, days("untagged")), rule(1, days("any"))]),
            "unique",
        ),
        (
            policy(&[rule(1, days("untagged")), rule(2, days("untagged"))]),
            "only one rule",
        ),
        (
            policy(&[rule(1, days("tagged"))]),
            "tagPatternList or tagPrefixList",
        ),
        (policy(&[rule(1, no_unit)]), "countUnit must be days"),
        (policy(&[rule(1, unit)]), "does not go with imageCountMoreThan"),
        (policy(&[transition]), "targetStorageClass"),
        (policy(&many), "between 1 and 50"),
    ] {
        let put = json!({"repositoryName": "shop/web", "lifecyclePolicyText": text});
        let (kind, message) = refused(&lab, "PutLifecyclePolicy", put).await;
        assert_eq!(kind, "InvalidParameterException");
        assert!(message.contains(reason), "{message} does not say {reason}");
    }
}
