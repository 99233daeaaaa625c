//! Image scans at wire level: their states, what is scanned and when, and what a scan knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ecr_common;

use ecr_common::Lab;
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Digest;
use towpath_lab::ecr::{EcrConfig, Finding};

const FINDINGS: &str = "DescribeImageScanFindings";

fn id(repository: &str, digest: &Digest) -> Value {
    json!({"repositoryName": repository, "imageId": {"imageDigest": digest.as_str()}})
}

/// A registry in which scans end at once.
async fn lab() -> Lab {
    let lab = Lab::start(EcrConfig::default()).await;
    lab.ecr.set_scan_delays(Duration::ZERO, Duration::ZERO);
    lab
}

async fn configure(lab: &Lab, kind: &str, rules: &[(&str, &str)]) {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(frequency, filter)| {
            let filters = [json!({"filter": filter, "filterType": "WILDCARD"})];
            json!({"scanFrequency": frequency, "repositoryFilters": filters})
        })
        .collect();
    let input = json!({"scanType": kind, "rules": rules});
    lab.call("PutRegistryScanningConfiguration", input).await;
}

fn names(answer: &Value, list: &str) -> Vec<String> {
    let found = answer["imageScanFindings"][list].as_array().unwrap();
    let name = |finding: &Value| {
        let name = finding["name"].as_str();
        let name = name.or(finding["packageVulnerabilityDetails"]["vulnerabilityId"].as_str());
        name.unwrap().to_owned()
    };
    found.iter().map(name).collect()
}

#[tokio::test]
async fn every_status_can_be_had_with_its_description() {
    let lab = lab().await;
    lab.repository("team/app").await;
    let digest = lab.push_image("team/app", "v1", b"one").await;
    lab.ecr
        .set_findings("team/app", vec![Finding::new("CVE-1", "LOW", "zlib", "1")]);
    for status in [
        "IN_PROGRESS",
        "COMPLETE",
        "FAILED",
        "UNSUPPORTED_IMAGE",
        "ACTIVE",
        "PENDING",
        "SCAN_ELIGIBILITY_EXPIRED",
        "FINDINGS_UNAVAILABLE",
        "LIMIT_EXCEEDED",
        "IMAGE_ARCHIVED",
        "IMAGE_SIZE_EXCEEDED",
        "A_WORD_OF_TOMORROW",
    ] {
        lab.ecr.set_scan_status(digest.as_str(), Some(status));
        let answer = lab.call(FINDINGS, id("team/app", &digest)).await;
        assert_eq!(answer["imageScanStatus"]["status"], status);
        let has_result = ["COMPLETE", "ACTIVE"].contains(&status);
        assert_eq!(answer["imageScanFindings"].is_object(), has_result, "{status}");
    }
}

#[tokio::test]
async fn what_no_rule_covers_is_scanned_on_request_once_a_day() {
    let lab = lab().await;
    configure(&lab, "BASIC", &[]).await;
    lab.repository("team/app").await;
    let digest = lab.push_image("team/app", "v1", b"one").await;
    let id = id("team/app", &digest);
    assert_eq!(lab.refused(FINDINGS, id.clone()).await, "ScanNotFoundException");
    let asked = json!({"repositoryNames": ["team/app"]});
    let coverage = lab
        .call("BatchGetRepositoryScanningConfiguration", asked.clone())
        .await;
    let found = &coverage["scanningConfigurations"][0];
    assert_eq!(
        (&found["scanFrequency"], &found["scanOnPush"]),
        (&json!("MANUAL"), &json!(false))
    );
    // A scan that was asked for is there at once, however long it takes.
    lab.ecr.set_scan_delays(Duration::from_secs(3600), Duration::ZERO);
    let started = lab.call("StartImageScan", id.clone()).await;
    assert_eq!(started["imageScanStatus"]["status"], "IN_PROGRESS");
    let seen = lab.call(FINDINGS, id.clone()).await;
    assert_eq!(seen["imageScanStatus"]["status"], "IN_PROGRESS");
    lab.ecr.set_scan_delays(Duration::ZERO, Duration::ZERO);
    let seen = lab.call(FINDINGS, id.clone()).await;
    assert_eq!(seen["imageScanStatus"]["status"], "COMPLETE");
    assert_eq!(
        lab.refused("StartImageScan", id.clone()).await,
        "LimitExceededException"
    );
    lab.ecr.set_scan_status("team/app", Some("IMAGE_ARCHIVED"));
    assert_eq!(
        lab.refused("StartImageScan", id.clone()).await,
        "ImageArchivedException"
    );
    lab.ecr.set_scan_status("team/app", None);
    configure(&lab, "ENHANCED", &[("CONTINUOUS_SCAN", "team/*")]).await;
    assert_eq!(lab.refused("StartImageScan", id).await, "ValidationException");
    let coverage = lab.call("BatchGetRepositoryScanningConfiguration", asked).await;
    assert_eq!(
        coverage["scanningConfigurations"][0]["scanFrequency"],
        "CONTINUOUS_SCAN"
    );
}

#[tokio::test]
async fn a_repository_has_a_setting_of_its_own_for_the_basic_scanner_only() {
    let lab = lab().await;
    for (kind, scanned) in [("BASIC", true), ("ENHANCED", false)] {
        configure(&lab, kind, &[]).await;
        let name = format!("team/{}", kind.to_lowercase());
        let setting = json!({"repositoryName": name, "imageScanningConfiguration": {"scanOnPush": true}});
        lab.call("CreateRepository", setting).await;
        let digest = lab.push_image(&name, "v1", b"one").await;
        let asked = json!({"repositoryNames": [name]});
        let coverage = lab.call("BatchGetRepositoryScanningConfiguration", asked).await;
        assert_eq!(
            coverage["scanningConfigurations"][0]["scanOnPush"], scanned,
            "{kind}"
        );
        let (_, answer) = lab.ask(FINDINGS, &id(&name, &digest)).await;
        assert_eq!(answer["imageScanStatus"].is_object(), scanned, "{kind}: {answer}");
    }
}

#[tokio::test]
async fn an_enhanced_finding_names_every_package_and_whether_it_can_be_mended() {
    let lab = lab().await;
    configure(&lab, "ENHANCED", &[("SCAN_ON_PUSH", "*")]).await;
    lab.repository("team/app").await;
    let finding = Finding::new("CVE-1", "HIGH", "a", "1.0")
        .fixed_in("1.1")
        .installed_by("NPM", "/srv/package-lock.json")
        .scored(8.1)
        .also_in("b", "2.0", None);
    lab.ecr.set_findings("team/app", vec![finding]);
    let digest = lab.push_image("team/app", "v1", b"one").await;
    let answer = lab.call(FINDINGS, id("team/app", &digest)).await;
    assert_eq!(answer["imageScanStatus"]["status"], "COMPLETE");
    let found = &answer["imageScanFindings"]["enhancedFindings"][0];
    assert_eq!(
        (&found["fixAvailable"], &found["score"]),
        (&json!("PARTIAL"), &json!(8.1))
    );
    let details = &found["packageVulnerabilityDetails"];
    assert_eq!(details["cvss"][0]["baseScore"], 8.1);
    let packages = details["vulnerablePackages"].as_array().unwrap();
    assert_eq!(packages.len(), 2);
    assert_eq!(packages[0]["filePath"], "/srv/package-lock.json");
    assert_eq!(packages[1]["fixedInVersion"], "NotAvailable");
    assert_eq!(answer["imageScanFindings"]["findingSeverityCounts"]["HIGH"], 1);
}

#[tokio::test]
async fn an_enhanced_scan_may_have_its_time_before_its_findings() {
    let lab = lab().await;
    configure(&lab, "ENHANCED", &[("SCAN_ON_PUSH", "*")]).await;
    lab.repository("team/app").await;
    lab.ecr
        .set_findings("team/app", vec![Finding::new("CVE-1", "HIGH", "a", "1")]);
    lab.ecr.set_scan_delays(Duration::ZERO, Duration::from_secs(3600));
    let digest = lab.push_image("team/app", "v1", b"one").await;
    let late = lab.call(FINDINGS, id("team/app", &digest)).await;
    assert_eq!(late["imageScanStatus"]["status"], "COMPLETE");
    assert_eq!(late["imageScanFindings"]["imageScanCompletedAt"], Value::Null);
    lab.ecr.complete_before_findings(true);
    let early = lab.call(FINDINGS, id("team/app", &digest)).await;
    assert!(early["imageScanFindings"]["imageScanCompletedAt"].is_f64());
    assert_eq!(early["imageScanFindings"]["findingSeverityCounts"], json!({}));
    assert_eq!(names(&early, "enhancedFindings"), Vec::<String>::new());
}

#[tokio::test]
async fn what_becomes_known_later_is_found_where_the_scan_goes_on() {
    let lab = lab().await;
    lab.repository("once").await;
    let once = lab.push_image("once", "v1", b"one").await;
    configure(
        &lab,
        "ENHANCED",
        &[("CONTINUOUS_SCAN", "always"), ("SCAN_ON_PUSH", "enhanced")],
    )
    .await;
    lab.repository("always").await;
    lab.repository("enhanced").await;
    let always = lab.push_image("always", "v1", b"one").await;
    let enhanced = lab.push_image("enhanced", "v1", b"one").await;
    let before = lab.call(FINDINGS, id("always", &always)).await;
    for repository in ["once", "always", "enhanced"] {
        lab.ecr
            .publish_finding(repository, Finding::new("CVE-NEW", "CRITICAL", "zlib", "1"));
    }
    let after = lab.call(FINDINGS, id("always", &always)).await;
    assert_eq!(after["imageScanStatus"]["status"], "ACTIVE");
    assert_eq!(names(&after, "enhancedFindings"), ["CVE-NEW"]);
    let completed = |answer: &Value| answer["imageScanFindings"]["imageScanCompletedAt"].as_f64();
    assert!(completed(&after) >= completed(&before));
    let unchanged = lab.call(FINDINGS, id("once", &once)).await;
    assert_eq!(names(&unchanged, "findings"), Vec::<String>::new());
    let unchanged = lab.call(FINDINGS, id("enhanced", &enhanced)).await;
    assert_eq!(names(&unchanged, "enhancedFindings"), Vec::<String>::new());
    let later = lab.push_image("enhanced", "v2", b"two").await;
    let later = lab.call(FINDINGS, id("enhanced", &later)).await;
    assert_eq!(names(&later, "enhancedFindings"), ["CVE-NEW"]);
}

#[tokio::test]
async fn a_scanning_configuration_keeps_its_bounds() {
    let lab = lab().await;
    let rule = |frequency: &str, filter: &str, kind: &str| json!({"scanFrequency": frequency, "repositoryFilters": [{"filter": filter, "filterType": kind}]});
    let good = rule("SCAN_ON_PUSH", "team/*", "WILDCARD");
    let many = json!({
        "scanFrequency": "SCAN_ON_PUSH",
        "repositoryFilters": vec![json!({"filter": "a", "filterType": "WILDCARD"}); 101],
    });
    for (kind, rules) in [
        ("BASIC", json!([rule("CONTINUOUS_SCAN", "*", "WILDCARD")])),
        ("ENHANCED", json!([rule("MANUAL", "*", "WILDCARD")])),
        ("BASIC", json!([good, good, good])),
        ("BASIC", json!([many])),
        ("BASIC", json!([rule("SCAN_ON_PUSH", "*", "PREFIX_MATCH")])),
        ("BASIC", json!([rule("SCAN_ON_PUSH", "Team", "WILDCARD")])),
        ("BASIC", json!([rule("SCAN_ON_PUSH", "a//b", "WILDCARD")])),
        ("BASIC", json!([rule("SCAN_ON_PUSH", "", "WILDCARD")])),
        ("SOMETHING", json!([])),
    ] {
        let input = json!({"scanType": kind, "rules": rules});
        let refused = lab
            .refused("PutRegistryScanningConfiguration", input.clone())
            .await;
        assert_eq!(refused, "InvalidParameterException", "{input}");
    }
    for names in [json!([]), json!(vec!["a"; 26])] {
        let input = json!({"repositoryNames": names});
        let refused = lab
            .refused("BatchGetRepositoryScanningConfiguration", input)
            .await;
        assert_eq!(refused, "InvalidParameterException");
    }
    configure(&lab, "BASIC", &[("SCAN_ON_PUSH", "team/*"), ("MANUAL", "*")]).await;
    let read = lab.call("GetRegistryScanningConfiguration", json!({})).await;
    assert_eq!(read["scanningConfiguration"]["scanType"], "BASIC");
    assert_eq!(
        read["scanningConfiguration"]["rules"].as_array().unwrap().len(),
        2
    );
}
