//! The scan gate at the lab: the wait that knows an end from a claim of one, and the verdict on what it brings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use http::StatusCode;
use std::collections::BTreeMap;
use std::time::Duration;
use support::World;
use towpath_ecr::registry::{
    Allowance, Coverage, Fate, GateReport, NoResult, ScanPolicy, ScanReport, ScanStatus, Scanner, Severity,
    Use,
};
use towpath_ecr::wait::Policy;
use towpath_ecr::{
    Cancellation, Ecr, ErrorKind, ImageRef, Registry, RegistryExt, Result, ScanFrequency, ScanRule,
    ScanSettings, ScanningConfiguration,
};
use towpath_lab::Fault;
use towpath_lab::ecr::Finding;

const HOUR: Duration = Duration::from_secs(3600);

/// A registry whose scans end at once, and a client that is this patient.
async fn world(settle: Duration, grace: Duration) -> World {
    let mut world = World::with_rule().await;
    world.lab.set_scan_delays(Duration::ZERO, Duration::ZERO);
    let mut settings = ScanSettings::default();
    settings.settle = settle;
    settings.grace = grace;
    let upstream = format!("http://{}", world.quay.address()).parse().unwrap();
    let config = support::config(&world.lab)
        .upstream("quay.io".parse().unwrap(), upstream)
        .scanning(settings);
    world.ecr = Ecr::new(&config).await.unwrap();
    world
}

async fn configure(ecr: &Ecr, scanner: Scanner, rules: &[ScanFrequency]) {
    let rules = rules
        .iter()
        .map(|frequency| ScanRule::new(frequency.clone(), ["*"]));
    let wanted = ScanningConfiguration::new(scanner, rules.collect());
    assert_eq!(ecr.set_scanning_configuration(&wanted).await.unwrap(), wanted);
}

/// So long a pause that a second look would be too late.
fn one_look() -> Policy {
    Policy::every(HOUR).within(2 * HOUR)
}

fn patient() -> Policy {
    Policy::every(Duration::from_millis(5)).within(Duration::from_secs(120))
}

async fn wait(ecr: &Ecr, image: &ImageRef, policy: Policy) -> Result<ScanReport> {
    ecr.wait_for_scan(image, &policy, &Cancellation::new()).await
}

/// The message of a wait that is given up soon.
async fn gives_up(ecr: &Ecr, image: &ImageRef) -> String {
    let soon = Policy::every(Duration::from_millis(10)).within(Duration::from_millis(200));
    let error = wait(ecr, image, soon).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    error.to_string()
}

/// How often each operation was called, from a place in the log on.
fn operations(world: &World, from: usize) -> BTreeMap<String, usize> {
    let all = world.lab.api_requests().all();
    let targets = all[from..].iter().filter_map(|seen| seen.target.as_deref());
    targets.fold(BTreeMap::new(), |mut counts, target| {
        let name = target.rsplit('.').next().unwrap().to_owned();
        *counts.entry(name).or_default() += 1;
        counts
    })
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.map(|(name, count)| (name.to_owned(), count)).into()
}

#[tokio::test]
async fn a_repository_that_no_rule_covers_ends_the_wait_at_once() {
    let world = world(HOUR, HOUR).await;
    configure(&world.ecr, Scanner::Basic, &[]).await;
    let pushed = world.assembled("shop/web", "1").await;
    let from = world.lab.api_requests().len();
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    assert_eq!(
        operations(&world, from),
        counts([
            ("BatchGetRepositoryScanningConfiguration", 1),
            ("DescribeImageScanFindings", 2),
            ("DescribeImages", 1),
            ("GetRegistryScanningConfiguration", 1),
        ])
    );
    assert_eq!(report.coverage, Coverage::Uncovered);
    for scan in &report.platforms {
        assert_eq!(scan.no_result, Some(NoResult::NotCovered));
        assert!(scan.standing().contains("start_scan"), "{}", scan.standing());
    }
    let verdict = ScanPolicy::default().judge(&report, jiff::Timestamp::now());
    assert!(!verdict.passed);
    assert!(verdict.reasons[0].contains("no rule"), "{:?}", verdict.reasons);

    let started = world.ecr.start_scan(&pushed).await.unwrap();
    assert_eq!(started.len(), 2, "each runnable platform");
    let report = wait(&world.ecr, &pushed, patient()).await.unwrap();
    assert!(
        report
            .platforms
            .iter()
            .all(|scan| scan.status == ScanStatus::Complete)
    );
    let from = world.lab.api_requests().len();
    let error = world.ecr.start_scan(&pushed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert!(
        !error.retry().can_help() && error.to_string().contains("24 hours"),
        "{error}"
    );
    assert_eq!(
        operations(&world, from),
        counts([("StartImageScan", 2)]),
        "no retry"
    );
    configure(&world.ecr, Scanner::Enhanced, &[ScanFrequency::Continuous]).await;
    let error = world.ecr.start_scan(&pushed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let covered = world
        .ecr
        .scan_coverage(&"shop/web".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(covered, Coverage::Covered("CONTINUOUS_SCAN".into()));
    let missing = world.ecr.scan_coverage(&"no/such".parse().unwrap()).await;
    assert!(missing.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_image_that_is_older_than_its_rule_is_waited_for_no_longer_than_the_grace() {
    let impatient = world(HOUR, Duration::ZERO).await;
    configure(&impatient.ecr, Scanner::Basic, &[]).await;
    let pushed = impatient.assembled("shop/web", "1").await;
    configure(&impatient.ecr, Scanner::Basic, &[ScanFrequency::OnPush]).await;
    let report = wait(&impatient.ecr, &pushed, patient()).await.unwrap();
    assert_eq!(report.coverage, Coverage::Covered("SCAN_ON_PUSH".into()));
    assert_eq!(report.platforms[0].no_result, Some(NoResult::NeverBegan));
    assert!(report.platforms[0].pushed.is_some());

    let patient = world(HOUR, HOUR).await;
    patient.lab.set_scan_delays(HOUR, Duration::ZERO);
    let pushed = patient.assembled("shop/web", "1").await;
    let error = gives_up(&patient.ecr, &pushed).await;
    assert!(error.contains("linux/amd64 (not begun"), "{error}");
}

#[tokio::test]
async fn an_early_end_is_believed_when_it_has_settled() {
    let eager = world(HOUR, HOUR).await;
    configure(&eager.ecr, Scanner::Enhanced, &[ScanFrequency::OnPush]).await;
    eager.lab.set_scan_delays(Duration::ZERO, HOUR);
    eager.lab.complete_before_findings(true);
    let finding = Finding::new("CVE-1", "CRITICAL", "openssl", "3.0").fixed_in("3.1");
    eager.lab.set_findings("shop/web", vec![finding]);
    let pushed = eager.assembled("shop/web", "1").await;
    let error = gives_up(&eager.ecr, &pushed).await;
    assert!(error.contains("its findings may be on their way"), "{error}");

    // The findings arrive. One look is not enough for them; two that agree are.
    eager.lab.set_scan_delays(Duration::ZERO, Duration::ZERO);
    let first = eager.ecr.scan(&pushed).await.unwrap();
    assert!(first.platforms.iter().all(|scan| !scan.has_ended()), "{first:?}");
    let from = eager.lab.api_requests().len();
    let second = eager.ecr.scan_again(&first).await.unwrap();
    assert_eq!(
        operations(&eager, from),
        counts([("DescribeImageScanFindings", 2)])
    );
    for scan in &second.platforms {
        assert_eq!(
            (&scan.status, &scan.scanner),
            (&ScanStatus::Complete, &Some(Scanner::Enhanced))
        );
        assert_eq!(scan.findings[0].fixed_in.as_deref(), Some("3.1"));
    }
    assert!(
        !ScanPolicy::default()
            .judge(&second, jiff::Timestamp::now())
            .passed
    );
    let from = eager.lab.api_requests().len();
    assert_eq!(eager.ecr.scan_again(&second).await.unwrap(), second);
    assert_eq!(
        operations(&eager, from),
        counts([]),
        "what has ended is not asked for"
    );

    // Old enough, an empty result is one.
    let world = world(Duration::ZERO, HOUR).await;
    configure(&world.ecr, Scanner::Enhanced, &[ScanFrequency::Continuous]).await;
    let pushed = world.assembled("shop/web", "1").await;
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    assert!(
        report
            .platforms
            .iter()
            .all(|scan| scan.status == ScanStatus::Active)
    );
    assert!(
        ScanPolicy::default()
            .judge(&report, jiff::Timestamp::now())
            .passed
    );
}

#[tokio::test]
async fn each_word_of_the_service_is_told_apart_and_none_of_them_passes() {
    let world = world(HOUR, HOUR).await;
    let pushed = world.assembled("shop/web", "1").await;
    let policy = ScanPolicy::default();
    for why in NoResult::ALL {
        if matches!(why, NoResult::NotCovered | NoResult::NeverBegan) {
            continue;
        }
        world.lab.set_scan_status("shop/web", Some(why.as_str()));
        let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
        for scan in &report.platforms {
            assert_eq!(scan.no_result, Some(why));
            assert_eq!(scan.word.as_deref(), Some(why.as_str()));
            assert!(scan.description.as_deref().is_some_and(|text| !text.is_empty()));
        }
        let now = jiff::Timestamp::now();
        assert!(!policy.judge(&report, now).passed, "{why}");
        let until = now + Duration::from_secs(60);
        let mut lenient = policy.clone();
        lenient.without_result.insert(why, Allowance::new("known", until));
        assert!(lenient.judge(&report, now).passed, "{why}");
        assert!(!lenient.judge(&report, until).passed, "{why}");
    }
    for word in ["IN_PROGRESS", "PENDING", "A_WORD_OF_TOMORROW"] {
        world.lab.set_scan_status("shop/web", Some(word));
        assert!(gives_up(&world.ecr, &pushed).await.contains(word), "{word}");
    }
    world.lab.set_scan_status("shop/web", None);
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    assert!(policy.judge(&report, jiff::Timestamp::now()).passed);
}

#[tokio::test]
async fn one_platform_without_a_result_closes_the_gate_and_is_asked_for_alone() {
    let world = world(HOUR, HOUR).await;
    let pushed = world.assembled("shop/web", "1").await;
    let parts = world.ecr.resolve(&pushed).await.unwrap().unwrap().platforms;
    let late = &parts[1];
    world
        .lab
        .set_scan_status(late.digest.as_str(), Some("IN_PROGRESS"));
    let first = world.ecr.scan(&pushed).await.unwrap();
    assert!(first.platforms[0].has_ended() && !first.platforms[1].has_ended());
    assert!(!ScanPolicy::default().judge(&first, jiff::Timestamp::now()).passed);
    let (from, read) = (
        world.lab.api_requests().len(),
        world.lab.registry_requests().len(),
    );
    let second = world.ecr.scan_again(&first).await.unwrap();
    assert_eq!(
        operations(&world, from),
        counts([("DescribeImageScanFindings", 1)])
    );
    assert_eq!(
        world.lab.registry_requests().len(),
        read,
        "the index is read once"
    );
    assert!(!second.platforms[1].has_ended());
    world.lab.set_scan_status(late.digest.as_str(), None);
    let from = world.lab.api_requests().len();
    let third = world.ecr.scan_again(&second).await.unwrap();
    assert_eq!(
        operations(&world, from),
        counts([("DescribeImageScanFindings", 1)])
    );
    assert!(ScanPolicy::default().judge(&third, jiff::Timestamp::now()).passed);
}

#[tokio::test]
async fn a_count_that_the_list_does_not_reach_is_no_end() {
    let world = world(Duration::ZERO, HOUR).await;
    let pushed = world.assembled("shop/web", "1").await;
    let short = serde_json::json!({
        "imageScanStatus": {"status": "COMPLETE"},
        "imageScanFindings": {
            "imageScanCompletedAt": 1_700_000_000.0,
            "findingSeverityCounts": {"CRITICAL": 1, "LOW": 1},
            "findings": [{"name": "CVE-1", "severity": "LOW"}],
        },
    });
    let fault = Fault::respond("DescribeImageScanFindings", StatusCode::OK, short.to_string());
    world.lab.api_faults().inject(fault.always());
    let error = gives_up(&world.ecr, &pushed).await;
    assert!(
        error.contains("0 of 1 findings that are critical are listed"),
        "{error}"
    );
    world.lab.api_faults().clear();
    assert!(wait(&world.ecr, &pushed, one_look()).await.is_ok());
}

#[tokio::test]
async fn pages_are_long_and_every_one_is_read() {
    let world = world(Duration::ZERO, HOUR).await;
    configure(&world.ecr, Scanner::Enhanced, &[ScanFrequency::OnPush]).await;
    let findings = (0..1001)
        .map(|number| Finding::new(format!("CVE-{number}"), "LOW", "a", "1").also_in("b", "2", Some("3")));
    world.lab.set_findings("shop/web", findings.collect());
    let pushed = world.assembled("shop/web", "1").await;
    let from = world.lab.api_requests().len();
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    let expected = [
        ("DescribeImageScanFindings", 4),
        ("GetRegistryScanningConfiguration", 1),
    ];
    assert_eq!(operations(&world, from), counts(expected));
    for scan in &report.platforms {
        assert_eq!(scan.findings.len(), 2002, "a row for each package");
    }
    let mut policy = ScanPolicy::default();
    policy.limits.insert(Severity::Low, 2001);
    assert!(!policy.judge(&report, jiff::Timestamp::now()).passed);
    policy.limits.insert(Severity::Low, 2002);
    assert!(policy.judge(&report, jiff::Timestamp::now()).passed);
}

#[tokio::test]
async fn a_caller_who_may_not_read_the_configuration_waits_longer_and_no_worse() {
    let denied = |world: &World| {
        let body = r#"{"__type":"AccessDeniedException","message":"no"}"#;
        for operation in [
            "GetRegistryScanningConfiguration",
            "BatchGetRepositoryScanningConfiguration",
            "DescribeImages",
        ] {
            let fault = Fault::respond(operation, StatusCode::BAD_REQUEST, body);
            world.lab.api_faults().inject(fault.always());
        }
    };
    let eager = world(HOUR, HOUR).await;
    let pushed = eager.assembled("shop/web", "1").await;
    denied(&eager);
    // It may be the enhanced scanner that has found nothing yet.
    assert!(gives_up(&eager.ecr, &pushed).await.contains("on their way"));
    let world = world(Duration::ZERO, Duration::ZERO).await;
    let pushed = world.assembled("shop/web", "1").await;
    denied(&world);
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    assert_eq!(
        (&report.configured, &report.coverage),
        (&None, &Coverage::Unknown)
    );
    assert_eq!(report.platforms[0].status, ScanStatus::Complete);
    world.lab.set_scan_delays(HOUR, Duration::ZERO);
    assert!(gives_up(&world.ecr, &pushed).await.contains("not begun"));
}

#[tokio::test]
async fn what_is_listed_tells_the_scanner_whatever_is_configured() {
    let world = world(Duration::ZERO, HOUR).await;
    configure(&world.ecr, Scanner::Enhanced, &[ScanFrequency::OnPush]).await;
    let finding = Finding::new("CVE-1", "UNTRIAGED", "zlib", "1.3");
    world.lab.set_findings("shop/web", vec![finding]);
    let pushed = world.assembled("shop/web", "1").await;
    configure(&world.ecr, Scanner::Basic, &[ScanFrequency::OnPush]).await;
    let report = wait(&world.ecr, &pushed, patient()).await.unwrap();
    assert_eq!(report.configured, Some(Scanner::Basic));
    for scan in &report.platforms {
        assert_eq!(scan.word.as_deref(), Some("COMPLETE"));
        assert_eq!(scan.scanner, Some(Scanner::Enhanced));
        assert_eq!(scan.findings[0].severity, Severity::Undefined);
    }
    assert!(
        !ScanPolicy::default()
            .judge(&report, jiff::Timestamp::now())
            .passed
    );
}

#[tokio::test]
async fn a_weakness_that_becomes_known_later_closes_a_gate_that_was_open() {
    let world = world(Duration::ZERO, HOUR).await;
    configure(&world.ecr, Scanner::Enhanced, &[ScanFrequency::Continuous]).await;
    let pushed = world.assembled("shop/web", "1").await;
    let policy = ScanPolicy::default();
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    assert!(policy.judge(&report, jiff::Timestamp::now()).passed);
    world
        .lab
        .publish_finding("shop/web", Finding::new("CVE-NEW", "HIGH", "zlib", "1.3"));
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    let verdict = policy.judge(&report, jiff::Timestamp::now());
    assert_eq!(verdict.reasons.len(), 2, "{:?}", verdict.reasons);
    let strict = ScanPolicy {
        maximum_age: Some(HOUR),
        ..ScanPolicy::default()
    };
    let late = jiff::Timestamp::now() + 2 * HOUR;
    let verdict = strict.judge(&report, late);
    assert!(
        verdict.reasons[0].contains("old, at most"),
        "{:?}",
        verdict.reasons
    );
}

#[tokio::test]
async fn a_report_of_the_service_is_written_in_every_form() {
    let world = world(Duration::ZERO, HOUR).await;
    configure(&world.ecr, Scanner::Enhanced, &[ScanFrequency::OnPush]).await;
    world.lab.set_findings(
        "shop/web",
        vec![
            Finding::new("CVE-1", "CRITICAL", "left-pad", "1.0")
                .installed_by("NPM", "/srv/package-lock.json")
                .scored(9.8)
                .fixed_in("1.1")
                .also_in("right-pad", "1.0", None),
            Finding::new("CVE-2", "HIGH", "zlib", "1.3"),
        ],
    );
    let pushed = world.assembled("shop/web", "1").await;
    let report = wait(&world.ecr, &pushed, one_look()).await.unwrap();
    let now = jiff::Timestamp::now();
    let mut policy = ScanPolicy {
        fixable_only: true,
        ..ScanPolicy::default()
    };
    let allowance = Allowance::new("only in the tests", now + HOUR).for_package("left-pad");
    policy.allowed.insert("CVE-1".into(), allowance);
    let verdict = policy.judge(&report, now);
    // The one package is allowed; what has no fix is ignored, in the other package and elsewhere.
    assert!(verdict.passed, "{:?}", verdict.reasons);
    assert_eq!(verdict.allowances[0].used, Use::Used(2));
    assert_eq!(verdict.count(|fate| matches!(fate, Fate::Ignored(_))), 4);
    let written = GateReport::new(&report, &verdict).unwrap();
    assert!(written.table().contains("enhanced"));
    assert!(
        written
            .markdown()
            .contains("https://vulnerabilities.example/CVE-1")
    );
    let json: serde_json::Value = serde_json::from_str(&written.json()).unwrap();
    assert_eq!(json["findings"].as_array().unwrap().len(), 6);
    let sarif: serde_json::Value = serde_json::from_str(&written.sarif()).unwrap();
    let rules = &sarif["runs"][0]["tool"]["driver"]["rules"];
    assert_eq!(rules[0]["properties"]["security-severity"], "9.8");
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["suppressions"].is_array()));
}
