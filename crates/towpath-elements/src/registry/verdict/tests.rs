use super::*;
use crate::registry::{Availability, Packages, PlatformImage};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn scan(status: ScanStatus, findings: Vec<Finding>) -> PlatformScan {
    let image = PlatformImage {
        platform: None,
        digest: Digest::sha256_of(b"x"),
    };
    let mut scan = PlatformScan::new(image, status);
    scan.completed = Some(Timestamp::UNIX_EPOCH);
    scan.findings = findings;
    scan
}

fn report(platforms: Vec<PlatformScan>) -> ScanReport {
    let digest = Digest::sha256_of(b"x");
    ScanReport::new(format!("quay.io/a/b@{digest}").parse().unwrap(), platforms)
}

fn complete(findings: Vec<Finding>) -> ScanReport {
    report(vec![scan(ScanStatus::Complete, findings)])
}

fn finding(severity: Severity) -> Finding {
    Finding::new("CVE-1", severity).in_package("zlib", "1.3")
}

#[test]
fn unknown_is_never_a_pass() {
    let policy = ScanPolicy::default();
    for status in [
        ScanStatus::Pending,
        ScanStatus::InProgress,
        ScanStatus::Unavailable("unsupported".into()),
        ScanStatus::Other("NEW".into()),
    ] {
        assert!(!policy.judge(&report(vec![scan(status, vec![])]), at(0)).passed);
    }
    let none = policy.judge(&report(vec![]), at(0));
    assert!(!none.passed && none.reasons.len() == 1);
    assert!(policy.judge(&complete(vec![]), at(0)).passed);
}

#[test]
fn a_missing_result_is_let_through_only_for_its_own_reason_and_time() {
    let mut policy = ScanPolicy::default();
    let why = NoResult::UnsupportedImage;
    let allowance = Allowance::new("made from scratch", at(100));
    policy.without_result.insert(why, allowance.clone());
    let mut missing = scan(ScanStatus::Unavailable("UNSUPPORTED_IMAGE".into()), vec![]);
    // The text alone is not enough: it comes from outside, and from older versions.
    assert!(!policy.judge(&report(vec![missing.clone()]), at(0)).passed);
    missing.no_result = Some(why);
    let verdict = policy.judge(&report(vec![missing.clone()]), at(99));
    assert!(verdict.passed);
    assert_eq!(verdict.scans[0].accepted, Some(allowance));
    assert_eq!(verdict.allowances[0].used, Use::Used(1));
    let late = policy.judge(&report(vec![missing.clone()]), at(100));
    assert!(!late.passed);
    assert_eq!(late.allowances[0].used, Use::Expired(1));
    for other in NoResult::ALL.into_iter().filter(|other| *other != why) {
        missing.no_result = Some(other);
        assert!(
            !policy.judge(&report(vec![missing.clone()]), at(0)).passed,
            "{other}"
        );
    }
    missing.no_result = Some(why);
    missing.status = ScanStatus::Other("NOVEL".into());
    assert!(
        !policy.judge(&report(vec![missing]), at(0)).passed,
        "an unknown word"
    );
}

#[test]
fn an_ungraded_finding_counts_as_the_worst() {
    let policy = ScanPolicy {
        refuse_from: Severity::Critical,
        ..Default::default()
    };
    let verdict = policy.judge(&complete(vec![finding(Severity::Undefined)]), at(0));
    assert_eq!(verdict.reasons.len(), 1);
}

#[test]
fn a_number_of_findings_may_be_allowed() {
    let policy = ScanPolicy {
        limits: BTreeMap::from([(Severity::High, 0), (Severity::Medium, 2)]),
        ..ScanPolicy::default()
    };
    let two = complete(vec![finding(Severity::Medium); 2]);
    let verdict = policy.judge(&two, at(0));
    assert!(verdict.passed);
    assert_eq!(verdict.count(|fate| *fate == Fate::Tolerated), 2);
    let three = complete(vec![finding(Severity::Medium); 3]);
    let verdict = policy.judge(&three, at(0));
    let digest = Digest::sha256_of(b"x");
    assert_eq!(
        verdict.reasons,
        [format!("{digest}: 3 findings are medium, at most 2 are allowed")]
    );
    assert_eq!(verdict.count(|fate| *fate == Fate::Refused), 3);
    // Each platform has its own number.
    let platforms = vec![two.platforms[0].clone(), two.platforms[0].clone()];
    assert!(policy.judge(&report(platforms), at(0)).passed);
    let high = policy.judge(&complete(vec![finding(Severity::High)]), at(0));
    assert!(high.reasons[0].ends_with("CVE-1 (high) in zlib 1.3"));
    // What has no number is judged by its severity.
    assert!(
        !policy
            .judge(&complete(vec![finding(Severity::Critical)]), at(0))
            .passed
    );
}

#[test]
fn an_allowance_ends() {
    let mut policy = ScanPolicy::default();
    policy
        .allowed
        .insert("CVE-1".into(), Allowance::new("not reachable", at(100)));
    policy
        .allowed
        .insert("CVE-2".into(), Allowance::new("gone", at(100)));
    let report = complete(vec![finding(Severity::Critical)]);
    let before = policy.judge(&report, at(99));
    assert!(before.passed);
    let allowed = Fate::Allowed {
        reason: "not reachable".into(),
        until: at(100),
    };
    assert_eq!(before.scans[0].findings[0].fate, allowed);
    let uses: Vec<Use> = before.allowances.iter().map(|one| one.used).collect();
    assert_eq!(uses, [Use::Used(1), Use::Unmatched]);
    let after = policy.judge(&report, at(100));
    assert!(
        after.reasons[0].ends_with("its allowance ended 1970-01-01T00:01:40Z"),
        "{:?}",
        after.reasons
    );
    let uses: Vec<Use> = after.allowances.iter().map(|one| one.used).collect();
    assert_eq!(uses, [Use::Expired(1), Use::Expired(0)]);
}

#[test]
fn an_allowance_for_one_package_is_for_no_other() {
    let mut policy = ScanPolicy::default();
    let allowance = Allowance::new("vendored", at(100)).for_package("zlib");
    policy.allowed.insert("CVE-1".into(), allowance);
    let mut elsewhere = finding(Severity::High);
    assert!(policy.judge(&complete(vec![elsewhere.clone()]), at(0)).passed);
    elsewhere.package = Some("libz".into());
    assert!(!policy.judge(&complete(vec![elsewhere.clone()]), at(0)).passed);
    elsewhere.package = None;
    let verdict = policy.judge(&complete(vec![elsewhere]), at(0));
    assert!(!verdict.passed && verdict.allowances[0].used == Use::Unmatched);
}

#[test]
fn what_a_scanner_does_not_say_lets_nothing_through() {
    let mut policy = ScanPolicy {
        fixable_only: true,
        packages: Packages::of_the_system(),
        ..Default::default()
    };
    let mut found = finding(Severity::High);
    assert!(
        !policy.judge(&complete(vec![found.clone()]), at(0)).passed,
        "nothing is said"
    );
    found.fix = Some(Availability::No);
    let verdict = policy.judge(&complete(vec![found.clone()]), at(0));
    assert!(verdict.passed);
    assert!(matches!(verdict.scans[0].findings[0].fate, Fate::Ignored(_)));
    found.fix = Some(Availability::Other("PERHAPS".into()));
    assert!(!policy.judge(&complete(vec![found.clone()]), at(0)).passed);
    found.package_manager = Some("NPM".into());
    assert!(
        policy.judge(&complete(vec![found.clone()]), at(0)).passed,
        "out of scope"
    );
    found.package_manager = Some("os".into());
    assert!(!policy.judge(&complete(vec![found.clone()]), at(0)).passed);
    policy.packages = Packages::Except(BTreeSet::from(["OS".to_owned()]));
    assert!(policy.judge(&complete(vec![found]), at(0)).passed);
}

#[test]
fn an_old_result_does_not_count() {
    let policy = ScanPolicy {
        maximum_age: Some(Duration::from_secs(60)),
        ..Default::default()
    };
    let mut report = complete(vec![]);
    assert!(policy.judge(&report, at(60)).passed);
    assert!(!policy.judge(&report, at(61)).passed);
    report.platforms[0].completed = None;
    assert!(!policy.judge(&report, at(0)).passed);
}

#[test]
fn policies_and_verdicts_of_an_older_version_are_readable() {
    let policy: ScanPolicy = serde_json::from_value(serde_json::json!({
        "refuse_from": "critical",
        "fixable_only": true,
        "allowed": {"CVE-1": {"reason": "no", "until": "2026-01-01T00:00:00Z"}},
        "maximum_age": {"secs": 60, "nanos": 0},
    }))
    .unwrap();
    assert_eq!(policy.packages, Packages::All);
    assert_eq!(policy.maximum_age, Some(Duration::from_secs(60)));
    assert!(policy.limits.is_empty() && policy.without_result.is_empty());
    assert!(policy.allowed["CVE-1"].packages.is_empty());
    let verdict: ScanVerdict = serde_json::from_value(serde_json::json!({
        "passed": false,
        "reasons": ["linux/amd64: CVE-1 (high)"],
        "counts": {"high": 1},
        "platforms": ["linux/amd64"],
    }))
    .unwrap();
    assert_eq!(verdict.counts[&Severity::High], 1);
    assert!(verdict.scans.is_empty() && verdict.image.is_none());
    let mut policy = policy;
    policy.limits.insert(Severity::Undefined, 1);
    policy
        .without_result
        .insert(NoResult::NotCovered, Allowance::new("x", at(1)));
    policy.packages = Packages::of_the_system();
    let json = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<ScanPolicy>(&json).unwrap(), policy);
    let verdict = policy.judge(&complete(vec![finding(Severity::High)]), at(0));
    let json = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<ScanVerdict>(&json).unwrap(), verdict);
}

const SEVERITIES: [Severity; 6] = [
    Severity::Informational,
    Severity::Low,
    Severity::Medium,
    Severity::High,
    Severity::Critical,
    Severity::Undefined,
];

fn any_finding() -> impl Strategy<Value = Finding> {
    let manager = prop::option::of(prop::sample::select(vec!["OS", "NPM"]));
    let fix = prop::sample::select(vec![None, Some(Availability::Yes), Some(Availability::No)]);
    let package = prop::option::of(prop::sample::select(vec!["zlib", "openssl"]));
    (
        0..4u8,
        prop::sample::select(SEVERITIES.to_vec()),
        manager,
        fix,
        package,
    )
        .prop_map(|(number, severity, manager, fix, package)| {
            let mut finding = Finding::new(format!("CVE-{number}"), severity);
            finding.package_manager = manager.map(str::to_owned);
            finding.package = package.map(str::to_owned);
            finding.fix = fix;
            finding
        })
}

fn any_status() -> impl Strategy<Value = (ScanStatus, Option<NoResult>)> {
    let missing = prop::sample::select(NoResult::ALL.to_vec());
    prop_oneof![
        4 => Just((ScanStatus::Complete, None)),
        2 => Just((ScanStatus::Active, None)),
        1 => Just((ScanStatus::Pending, None)),
        1 => Just((ScanStatus::InProgress, None)),
        1 => Just((ScanStatus::Other("NOVEL".into()), None)),
        1 => missing.prop_map(|why| (ScanStatus::Unavailable(why.to_string()), Some(why))),
    ]
}

fn any_report() -> impl Strategy<Value = ScanReport> {
    let findings = prop::collection::vec(any_finding(), 0..6);
    let platform =
        (any_status(), findings, prop::option::of(0..200i64)).prop_map(|(status, findings, completed)| {
            let mut scan = scan(status.0, findings);
            scan.no_result = status.1;
            scan.completed = completed.map(at);
            scan
        });
    prop::collection::vec(platform, 0..4).prop_map(report)
}

fn any_policy() -> impl Strategy<Value = ScanPolicy> {
    let severity = || prop::sample::select(SEVERITIES.to_vec());
    let allowance = (0..200i64, any::<bool>()).prop_map(|(until, scoped)| {
        let allowance = Allowance::new("known", at(until));
        if scoped {
            allowance.for_package("zlib")
        } else {
            allowance
        }
    });
    let packages = prop::sample::select(vec![
        Packages::All,
        Packages::of_the_system(),
        Packages::Except(BTreeSet::from(["OS".to_owned()])),
    ]);
    let allowed =
        prop::collection::btree_map((0..4u8).prop_map(|n| format!("CVE-{n}")), allowance.clone(), 0..3);
    let without = prop::collection::btree_map(prop::sample::select(NoResult::ALL.to_vec()), allowance, 0..3);
    let age = prop::option::of((0..200u64).prop_map(Duration::from_secs));
    let limits = prop::collection::btree_map(severity(), 0..4usize, 0..4);
    (severity(), limits, any::<bool>(), packages, allowed, age, without).prop_map(
        |(refuse_from, limits, fixable_only, packages, allowed, maximum_age, without_result)| ScanPolicy {
            refuse_from,
            limits,
            fixable_only,
            packages,
            allowed,
            maximum_age,
            without_result,
        },
    )
}

proptest! {
    #[test]
    fn no_pass_without_a_usable_result_on_every_platform(
        report in any_report(), policy in any_policy(), now in 0..200i64,
    ) {
        let verdict = policy.judge(&report, at(now));
        prop_assert_eq!(verdict.passed, verdict.reasons.is_empty());
        let usable = |scan: &PlatformScan| {
            let young = policy.maximum_age.is_none_or(|limit| {
                scan.completed.is_some_and(|completed| at(now) <= completed.checked_add(limit).unwrap())
            });
            matches!(scan.status, ScanStatus::Complete | ScanStatus::Active) && young
        };
        let accepted = |scan: &PlatformScan| {
            let allowance = scan.no_result.and_then(|why| policy.without_result.get(&why));
            allowance.is_some_and(|allowance| at(now) < allowance.until)
        };
        let all = report.platforms.iter().all(|scan| usable(scan) || accepted(scan));
        if report.platforms.is_empty() || !all {
            prop_assert!(!verdict.passed);
        }
    }

    #[test]
    fn one_finding_more_never_opens_the_gate(
        mut report in any_report(), policy in any_policy(), now in 0..200i64,
        more in any_finding(), place in any::<prop::sample::Index>(),
    ) {
        let before = policy.judge(&report, at(now));
        if !report.platforms.is_empty() {
            let place = place.index(report.platforms.len());
            report.platforms[place].findings.push(more);
        }
        let after = policy.judge(&report, at(now));
        prop_assert!(before.passed || !after.passed, "{:?}", after);
    }

    #[test]
    fn an_allowance_that_has_ended_changes_nothing(
        report in any_report(), policy in any_policy(), now in 0..200i64,
    ) {
        let with = policy.judge(&report, at(now));
        let mut without = policy;
        without.allowed.retain(|_, allowance| at(now) < allowance.until);
        without.without_result.retain(|_, allowance| at(now) < allowance.until);
        let without = without.judge(&report, at(now));
        prop_assert_eq!(with.passed, without.passed);
        prop_assert_eq!(&with.scans, &without.scans);
    }

    #[test]
    fn a_verdict_survives_its_journal(report in any_report(), policy in any_policy(), now in 0..200i64) {
        let verdict = policy.judge(&report, at(now));
        let json = serde_json::to_string(&verdict).unwrap();
        prop_assert_eq!(serde_json::from_str::<ScanVerdict>(&json).unwrap(), verdict);
        let json = serde_json::to_string(&report).unwrap();
        prop_assert_eq!(serde_json::from_str::<ScanReport>(&json).unwrap(), report);
    }
}
