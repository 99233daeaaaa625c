use super::*;
use crate::registry::{Allowance, NoResult, Platform, PlatformImage, ScanPolicy, Scanner, Score};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;
use towpath_core::Digest;

fn scan(architecture: &str, findings: Vec<Finding>) -> PlatformScan {
    let image = PlatformImage {
        platform: Some(Platform::linux(architecture)),
        digest: Digest::sha256_of(architecture),
    };
    let mut scan = PlatformScan::new(image, ScanStatus::Active);
    scan.completed = Some(Timestamp::UNIX_EPOCH);
    scan.scanner = Some(Scanner::Enhanced);
    scan.word = Some("ACTIVE".into());
    scan.findings = findings;
    scan
}

fn report(platforms: Vec<PlatformScan>) -> ScanReport {
    let digest = Digest::sha256_of("index");
    ScanReport::new(format!("quay.io/shop/web@{digest}").parse().unwrap(), platforms)
}

fn policy() -> ScanPolicy {
    let mut policy = ScanPolicy::default();
    let until = Timestamp::from_second(1_000_000).unwrap();
    let allowance = Allowance::new("not reachable | really", until);
    policy.allowed.insert("CVE-2".into(), allowance);
    let ended = Allowance::new("old", Timestamp::UNIX_EPOCH);
    policy.allowed.insert("CVE-9".into(), ended);
    policy
}

fn sample() -> ScanReport {
    let mut bad = Finding::new("CVE-1", Severity::Critical)
        .in_package("openssl", "3.0.1")
        .mended_in("3.0.2");
    bad.score = Score::new(9.8);
    bad.uri = Some("https://nvd.example/CVE-1".into());
    bad.description = Some("A flaw.\nIt is bad.".into());
    bad.file_path = Some("/usr/lib/lib ssl.so".into());
    let allowed = Finding::new("CVE-2", Severity::High).in_package("zlib", "1.3");
    let low = Finding::new("CVE-3", Severity::Low);
    let mut none = scan("riscv64", Vec::new());
    none.status = ScanStatus::Unavailable("UNSUPPORTED_IMAGE: no package manager".into());
    none.no_result = Some(NoResult::UnsupportedImage);
    report(vec![
        scan("amd64", vec![low.clone(), bad.clone(), allowed]),
        scan("arm64", vec![bad, low]),
        none,
    ])
}

fn judged(report: &ScanReport) -> ScanVerdict {
    policy().judge(report, Timestamp::from_second(60).unwrap())
}

#[test]
fn the_table_is_aligned_and_worst_first() {
    let report = sample();
    let verdict = judged(&report);
    let table = GateReport::new(&report, &verdict).unwrap().table();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("Scan of quay.io/shop/web@sha256:") && lines[0].ends_with(": refused"));
    let title = lines
        .iter()
        .position(|line| line.starts_with("SEVERITY"))
        .unwrap();
    let column = lines[title].find("PLATFORMS").unwrap();
    assert!(lines[title + 1].starts_with("critical  CVE-1    openssl  3.0.1    3.0.2"));
    assert_eq!(&lines[title + 1][column..column + 24], "linux/amd64, linux/arm64");
    assert!(lines[title + 1].ends_with("refused"));
    assert!(lines[title + 2].starts_with("low "), "{table}");
    assert!(lines[title + 3].contains("allowed until 1970-01-12T13:46:40Z: not reachable | really"));
    assert!(table.contains("expired; matches nothing"), "{table}");
    assert!(table.contains("linux/riscv64"), "{table}");
}

#[test]
fn markdown_reads_well_where_the_gate_opens() {
    let mut scan = scan("amd64", Vec::new());
    scan.completed = Some("2026-01-02T03:04:05.678901234Z".parse().unwrap());
    let report = report(vec![scan]);
    let verdict = ScanPolicy::default().judge(&report, Timestamp::now());
    let gate = GateReport::new(&report, &verdict).unwrap();
    let title = format!("### Scan of `{}`: passed\n\n| Platform |", report.image);
    assert!(gate.markdown().starts_with(&title), "{}", gate.markdown());
    for text in [gate.markdown(), gate.table()] {
        assert!(text.contains("2026-01-02T03:04:05Z"), "{text}");
    }
}

#[test]
fn markdown_gives_nothing_a_meaning() {
    let evil = "CVE|`x`<img src=x onerror=1> @team\n# [a](javascript:b) \\| _*~";
    let mut finding = Finding::new(evil, Severity::High).in_package(evil, evil);
    finding.uri = Some("javascript:alert(1)".into());
    let report = report(vec![scan("amd64", vec![finding])]);
    let verdict = judged(&report);
    let markdown = GateReport::new(&report, &verdict).unwrap().markdown();
    for line in markdown.lines().filter(|line| line.contains("CVE&#124;")) {
        assert!(!line.contains(['<', '`', '@', '\\', '[', '*']), "{line}");
        if line.starts_with('|') {
            assert_eq!(line.matches('|').count(), 8, "{line}");
        }
    }
    assert!(!markdown.contains("javascript:alert"));
    let sample = sample();
    let verdict = judged(&sample);
    let markdown = GateReport::new(&sample, &verdict).unwrap().markdown();
    assert!(
        markdown.contains("| [CVE-1](<https://nvd.example/CVE-1>) | openssl |"),
        "{markdown}"
    );
}

#[test]
fn markdown_stays_within_a_summary_and_says_what_it_left_out() {
    let wide = "&".repeat(CELLS);
    let findings = (0..5000).map(|number| {
        Finding::new(format!("CVE-{number:05}"), Severity::Low).in_package(wide.clone(), wide.clone())
    });
    let mut findings: Vec<Finding> = findings.collect();
    findings.push(Finding::new("CVE-WORST", Severity::Critical));
    let report = report(vec![scan("amd64", findings)]);
    let verdict = judged(&report);
    let markdown = GateReport::new(&report, &verdict).unwrap().markdown();
    assert!(markdown.len() <= 1024 * 1024 && markdown.len() > 1000 * 1024);
    assert!(markdown.contains("| critical | CVE-WORST |"));
    assert!(markdown.ends_with("of 5001 findings do not fit; the worst are above.\n"));
}

const CELLS: usize = 400;

#[test]
fn json_has_what_its_documentation_says() {
    let report = sample();
    let verdict = judged(&report);
    let json: Value = serde_json::from_str(&GateReport::new(&report, &verdict).unwrap().json()).unwrap();
    assert_eq!(
        (&json["format"], &json["version"]),
        (&"towpath-scan-gate".into(), &1.into())
    );
    assert_eq!(json["passed"], false);
    assert_eq!(
        json["counts"],
        serde_json::json!({"critical": 2, "high": 1, "low": 2})
    );
    let first = &json["findings"][0];
    assert_eq!(
        (&first["name"], &first["fate"], &first["score"]),
        (&"CVE-1".into(), &"refused".into(), &9.8.into())
    );
    assert_eq!(first["platform"], "linux/amd64");
    assert_eq!(json["platforms"][2]["no_result"], "UNSUPPORTED_IMAGE");
    let allowed = &json["findings"][4];
    assert_eq!(
        (&allowed["fate"], &allowed["until"]),
        (&"allowed".into(), &"1970-01-12T13:46:40Z".into())
    );
    assert_eq!(json["allowances"][0]["used"], "used");
    assert_eq!(json["allowances"][1]["used"], "expired");
}

/// What the schema requires of the objects that are written, and what GitHub does.
fn is_sarif(sarif: &Value) {
    assert_eq!(sarif["version"], "2.1.0");
    let runs = sarif["runs"].as_array().unwrap();
    assert!(runs.len() <= 20);
    for run in runs {
        let driver = &run["tool"]["driver"];
        assert!(driver["name"].is_string());
        let rules = driver["rules"].as_array().unwrap();
        for rule in rules {
            assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string());
            let number: f64 = rule["properties"]["security-severity"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((0.0..=10.0).contains(&number));
            assert!(rule["help"]["text"].is_string());
        }
        let results = run["results"].as_array().unwrap();
        assert!(results.len() <= 25_000);
        for result in results {
            let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
            assert_eq!(rule["id"], result["ruleId"]);
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
            assert!(["error", "warning", "note", "none"].contains(&result["level"].as_str().unwrap()));
            for location in result["locations"].as_array().unwrap() {
                let uri = location["physicalLocation"]["artifactLocation"]["uri"]
                    .as_str()
                    .unwrap();
                let base = url::Url::parse("https://base.example/").unwrap();
                assert_eq!(base.join(uri).unwrap().as_str(), format!("{base}{uri}"));
                assert_eq!(location["physicalLocation"]["region"]["startLine"], 1);
            }
            assert!(result["partialFingerprints"]["primaryLocationLineHash"].is_string());
            for suppression in result["suppressions"].as_array().into_iter().flatten() {
                assert_eq!(
                    (&suppression["kind"], &suppression["status"]),
                    (&"external".into(), &"accepted".into())
                );
                assert!(suppression["justification"].is_string());
            }
        }
        for invocation in run["invocations"].as_array().unwrap() {
            assert!(invocation["executionSuccessful"].is_boolean());
        }
    }
}

#[test]
fn sarif_has_what_its_schema_requires() {
    let report = sample();
    let verdict = judged(&report);
    let sarif: Value = serde_json::from_str(&GateReport::new(&report, &verdict).unwrap().sarif()).unwrap();
    is_sarif(&sarif);
    let run = &sarif["runs"][0];
    let ids: Vec<_> = run["tool"]["driver"]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["id"].as_str())
        .collect();
    assert_eq!(ids, [Some("CVE-1"), Some("CVE-2"), Some("CVE-3")]);
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 5, "a result for each platform");
    assert_eq!(
        results[4]["suppressions"][0]["justification"],
        "allowed until 1970-01-12T13:46:40Z: not reachable | really"
    );
    assert_eq!(
        results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
        "shop/web/linux/amd64/usr/lib/lib%20ssl.so"
    );
    let notes = run["invocations"][0]["toolExecutionNotifications"]
        .as_array()
        .unwrap();
    assert_eq!(run["invocations"][0]["executionSuccessful"], false);
    assert!(
        notes[0]["message"]["text"]
            .as_str()
            .unwrap()
            .contains("UNSUPPORTED_IMAGE")
    );
}

#[test]
fn sarif_keeps_the_worst_of_too_many() {
    let mut findings: Vec<Finding> = (0..25_000)
        .map(|number| Finding::new(format!("CVE-{number}"), Severity::Low))
        .collect();
    findings.push(Finding::new("CVE-WORST", Severity::Undefined));
    let report = report(vec![scan("amd64", findings)]);
    let verdict = judged(&report);
    let sarif: Value = serde_json::from_str(&GateReport::new(&report, &verdict).unwrap().sarif()).unwrap();
    is_sarif(&sarif);
    let run = &sarif["runs"][0];
    assert_eq!(run["results"].as_array().unwrap().len(), 25_000);
    assert_eq!(run["results"][0]["ruleId"], "CVE-WORST");
    let note = &run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"];
    assert!(note.as_str().unwrap().starts_with("1 of 25001"));
}

#[test]
fn a_verdict_on_another_report_is_refused() {
    let report = sample();
    let mut other = report.clone();
    other.platforms[0].findings.pop();
    let verdict = judged(&other);
    let error = GateReport::new(&report, &verdict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn the_order_of_the_service_changes_nothing() {
    let report = sample();
    let mut turned = report.clone();
    for scan in &mut turned.platforms {
        scan.findings.reverse();
    }
    let (verdict, turned_verdict) = (judged(&report), judged(&turned));
    assert_eq!(verdict.reasons, turned_verdict.reasons);
    let (one, other) = (
        GateReport::new(&report, &verdict).unwrap(),
        GateReport::new(&turned, &turned_verdict).unwrap(),
    );
    assert_eq!(one.table(), other.table());
    assert_eq!(one.markdown(), other.markdown());
    assert_eq!(one.json(), other.json());
    assert_eq!(one.sarif(), other.sarif());
}

proptest! {
    #[test]
    fn no_text_of_a_scanner_breaks_a_format(
        texts in prop::collection::vec("\\PC{0,20}|[\\x00-\\x7f]{0,20}", 5),
    ) {
        let mut finding = Finding::new(&*texts[0], Severity::High).in_package(&*texts[1], &*texts[2]);
        finding.uri = Some(texts[3].clone());
        finding.description = Some(texts[4].clone());
        finding.file_path = Some(texts[4].clone());
        let report = report(vec![scan("amd64", vec![finding])]);
        let verdict = judged(&report);
        let gate = GateReport::new(&report, &verdict).unwrap();
        let sarif: Value = serde_json::from_str(&gate.sarif()).unwrap();
        is_sarif(&sarif);
        prop_assert!(serde_json::from_str::<Value>(&gate.json()).is_ok());
        let table = gate.table();
        prop_assert!(table.chars().all(|c| c == '\n' || !c.is_control()));
        // Head, reason, empty, title, platform, empty, title, finding, empty, title and two allowances.
        prop_assert_eq!(table.lines().count(), 12);
        let markdown = gate.markdown();
        let row = markdown.lines().find(|line| line.starts_with("| high |")).unwrap();
        prop_assert_eq!(row.matches('|').count(), 8, "{}", row);
    }
}
