//! Each clause of the contract, and what goes wrong on the way, against the lab's CodeArtifact.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use flate2::{Compression, write::GzEncoder};
use futures_util::TryStreamExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use towpath_codeartifact::wait::Policy;
use towpath_codeartifact::*;
use towpath_core::{Retry, requests};
use towpath_lab::codeartifact::{CodeArtifact as Lab, CodeArtifactConfig as LabConfig, RepositoryConfig};
use towpath_lab::{Fault, LabError};

const PUBLISH: &str = "api/v1/crates/new";

struct Bench {
    lab: Lab,
    client: CodeArtifact,
    folder: TempDir,
}

async fn lab() -> Result<Lab, LabError> {
    let mut config = LabConfig::default();
    config.repositories.push(RepositoryConfig {
        domain: "acme".into(),
        name: "releases".into(),
        upstreams: Vec::new(),
        external_connection: None,
    });
    Lab::start(config).await
}

fn config(lab: &Lab) -> CodeArtifactConfig {
    let known = LabConfig::default();
    CodeArtifactConfig::from_env()
        .region(known.region.parse().unwrap())
        .endpoint(lab.api_url().parse().unwrap())
        .credentials(known.access_key_id, known.secret_access_key, None)
        .operation_timeout(Duration::from_secs(20))
        .retries(3, Duration::from_millis(1), Duration::from_secs(2))
        .publish_wait(Policy::every(Duration::from_millis(2)).within(Duration::from_secs(10)))
}

impl Bench {
    async fn new() -> Self {
        let lab = lab().await.unwrap();
        let client = CodeArtifact::new(config(&lab)).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { lab, client, folder }
    }

    fn elements(&self) -> &dyn Artifacts {
        &self.client
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A crate with this source, packed and ready.
    fn publication(&self, version: &str, source: &str) -> Publication {
        let file = self.file(&format!("demo-{version}.crate"), &packed(version, source));
        Publication {
            repository: libraries(),
            version: demo(version),
            files: vec![file],
        }
    }

    async fn bytes(&self, repository: &ArtifactRepository, version: &PackageVersion, asset: &str) -> Vec<u8> {
        let stream = self.elements().asset(repository, version, asset).await.unwrap();
        let parts: Vec<_> = stream.try_collect().await.unwrap();
        parts.concat()
    }
}

fn packed(version: &str, source: &str) -> Vec<u8> {
    let manifest = format!(
        "[package]\nname = \"demo\"\nversion = \"{version}\"\nedition = \"2024\"\nreadme = \"README.md\"\n\
         [dependencies.greeting]\nversion = \"1\"\npackage = \"towpath-greeting\"\n"
    );
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, text) in [
        ("Cargo.toml", manifest.as_str()),
        ("README.md", "# Demo"),
        ("src/lib.rs", source),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("demo-{version}/{path}"), text.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn libraries() -> ArtifactRepository {
    "acme/libraries".parse().unwrap()
}

fn releases() -> ArtifactRepository {
    "acme/releases".parse().unwrap()
}

fn demo(version: &str) -> PackageVersion {
    PackageId::cargo("demo").unwrap().at(version).unwrap()
}

fn retry_after(seconds: &'static str) -> (HeaderName, HeaderValue) {
    (
        HeaderName::from_static("retry-after"),
        HeaderValue::from_static(seconds),
    )
}

#[tokio::test]
async fn what_is_not_stored_is_none() {
    let bench = Bench::new().await;
    bench.lab.seed_crate(packed("1.0.0", "")).unwrap();
    let elements = bench.elements();
    // The upstream could give it; the repository does not hold it.
    assert_eq!(
        elements.version(&libraries(), &demo("1.0.0")).await.unwrap(),
        None
    );
    let nowhere = "acme/nowhere".parse().unwrap();
    let error = elements.version(&nowhere, &demo("1.0.0")).await.unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("nowhere"),
        "{error}"
    );
}

#[tokio::test]
async fn what_was_published_is_served_byte_for_byte() {
    let bench = Bench::new().await;
    let bytes = packed("1.0.0", "pub fn f() {}");
    let stored = bench
        .elements()
        .publish(bench.publication("1.0.0", "pub fn f() {}"))
        .await
        .unwrap();
    assert_eq!(stored.status, VersionStatus::Published);
    let [asset] = &stored.assets[..] else {
        panic!("{stored:?}")
    };
    assert_eq!(asset.digest, Some(Digest::sha256_of(&bytes)));
    assert_eq!(asset.size, Some(bytes.len() as u64));
    assert_eq!(
        bench.bytes(&libraries(), &demo("1.0.0"), &asset.name).await,
        bytes
    );
    let kept = bench
        .lab
        .version("acme", "libraries", demo("1.0.0").package(), "1.0.0")
        .unwrap();
    let entry = kept.metadata.index_entry.unwrap();
    let dependency = &entry["deps"][0];
    assert_eq!(
        (&dependency["name"], &dependency["package"]),
        (&"greeting".into(), &"towpath-greeting".into())
    );
    assert_eq!(
        dependency["registry"],
        "https://github.com/rust-lang/crates.io-index"
    );
    let missing = bench
        .elements()
        .asset(&libraries(), &demo("1.0.0"), "other")
        .await;
    assert!(missing.err().unwrap().is_not_found());
}

#[tokio::test]
async fn the_same_bytes_again_succeed() {
    let bench = Bench::new().await;
    let first = bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap();
    let second = bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap();
    assert_eq!(first, second);
    assert_eq!(bench.lab.package_requests().count(&Method::PUT, PUBLISH), 1);
}

#[tokio::test]
async fn other_bytes_are_a_conflict() {
    let bench = Bench::new().await;
    bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap();
    let error = bench
        .elements()
        .publish(bench.publication("1.0.0", "b"))
        .await
        .unwrap_err();
    assert!(error.is_conflict(), "{error}");
    for digest in [packed("1.0.0", "a"), packed("1.0.0", "b")].map(Digest::sha256_of) {
        assert!(error.to_string().contains(digest.as_str()), "{error}");
    }
    let stored = bench
        .elements()
        .version(&libraries(), &demo("1.0.0"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        stored.assets[0].digest,
        Some(Digest::sha256_of(packed("1.0.0", "a")))
    );
}

#[tokio::test]
async fn access_is_for_one_repository_and_format_and_is_asked_for_once() {
    let bench = Bench::new().await;
    let elements = bench.elements();
    let repository = libraries();
    let (cargo, again, npm) = tokio::join!(
        elements.access(&repository, PackageFormat::Cargo),
        elements.access(&repository, PackageFormat::Cargo),
        elements.access(&repository, PackageFormat::Npm),
    );
    let (cargo, again, npm) = (cargo.unwrap(), again.unwrap(), npm.unwrap());
    assert!(cargo.endpoint.as_str().ends_with("/cargo/libraries/") && cargo.endpoint == again.endpoint);
    assert!(npm.endpoint.as_str().ends_with("/npm/libraries/"));
    assert_eq!(cargo.token.expose(), npm.token.expose());
    assert_eq!(
        bench.lab.requests().count(&Method::POST, "authorization-token"),
        1
    );
    assert_eq!(bench.lab.requests().count(&Method::GET, "repository/endpoint"), 2);
}

#[tokio::test]
async fn a_token_is_replaced_before_it_ends_and_after_it_was_refused() {
    let bench = Bench::new().await;
    bench.lab.set_token_lifetime(Some(Duration::from_millis(1)));
    let first = bench
        .elements()
        .access(&libraries(), PackageFormat::Cargo)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    bench.lab.set_token_lifetime(None);
    let second = bench
        .elements()
        .access(&libraries(), PackageFormat::Cargo)
        .await
        .unwrap();
    assert_ne!(first.token.expose(), second.token.expose());
    bench.lab.expire_tokens();
    bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap();
    assert_eq!(
        bench.lab.requests().count(&Method::POST, "authorization-token"),
        3
    );
}

#[tokio::test]
async fn a_promotion_copies_the_bytes() {
    let bench = Bench::new().await;
    let version = demo("1.0.0");
    bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap();
    for _ in 0..2 {
        let promoted = bench
            .elements()
            .promote(&libraries(), &releases(), &version)
            .await
            .unwrap();
        let name = &promoted.assets[0].name;
        assert_eq!(
            bench.bytes(&releases(), &version, name).await,
            packed("1.0.0", "a")
        );
    }
    let error = bench
        .elements()
        .promote(&libraries(), &releases(), &demo("2.0.0"))
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let mut other = bench.publication("3.0.0", "a");
    bench.elements().publish(other.clone()).await.unwrap();
    other.repository = releases();
    std::fs::write(&other.files[0], packed("3.0.0", "b")).unwrap();
    bench.elements().publish(other).await.unwrap();
    let error = bench
        .elements()
        .promote(&libraries(), &releases(), &demo("3.0.0"))
        .await
        .unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("sha256:"),
        "{error}"
    );
    let elsewhere = "other/releases".parse().unwrap();
    let error = bench
        .elements()
        .promote(&libraries(), &elsewhere, &version)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn versions_are_all_listed() {
    let mut bench = Bench::new().await;
    bench.client = CodeArtifact::new(config(&bench.lab).page_size(2)).await.unwrap();
    let wanted: Vec<_> = (0..5).map(|minor| demo(&format!("1.{minor}.0"))).collect();
    for version in &wanted {
        bench
            .elements()
            .publish(bench.publication(version.version(), "a"))
            .await
            .unwrap();
    }
    let package = wanted[0].package();
    let (listed, requests) = requests::count(
        bench
            .elements()
            .versions(&libraries(), package)
            .try_collect::<Vec<_>>(),
    )
    .await;
    assert_eq!((listed.unwrap(), requests), (wanted.clone(), 3));
    let none: Vec<_> = bench
        .elements()
        .versions(&releases(), package)
        .try_collect()
        .await
        .unwrap();
    assert!(none.is_empty());
    let nowhere = "acme/nowhere".parse().unwrap();
    let error = bench
        .elements()
        .versions(&nowhere, package)
        .try_collect::<Vec<_>>()
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn generic_files_are_one_version() {
    let bench = Bench::new().await;
    let version = PackageId::new(PackageFormat::Generic, Some("acme"), "tool")
        .unwrap()
        .at("1")
        .unwrap();
    let mut publication = Publication {
        repository: libraries(),
        version: version.clone(),
        files: vec![bench.file("b.bin", b"two"), bench.file("a.bin", b"one")],
    };
    // The second upload fails; the version stays unfinished, and the next call finishes it.
    bench
        .lab
        .faults()
        .inject(Fault::respond("asset=b.bin", StatusCode::BAD_REQUEST, "{}"));
    let error = bench.elements().publish(publication.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let half = bench
        .elements()
        .version(&libraries(), &version)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(half.status, VersionStatus::Unfinished);
    for _ in 0..2 {
        let stored = bench.elements().publish(publication.clone()).await.unwrap();
        assert_eq!(
            (stored.status, stored.assets.len()),
            (VersionStatus::Published, 2)
        );
    }
    assert_eq!(bench.bytes(&libraries(), &version, "a.bin").await, b"one");
    bench.file("a.bin", b"other");
    let error = bench.elements().publish(publication.clone()).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains(Digest::sha256_of("one").as_str()),
        "{error}"
    );
    publication.version = PackageId::new(PackageFormat::Npm, None, "ui")
        .unwrap()
        .at("1.0.0")
        .unwrap();
    let error = bench.elements().publish(publication).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_file_of_something_else_is_refused_before_anything_is_sent() {
    let bench = Bench::new().await;
    let mut wrong = bench.publication("1.0.0", "a");
    wrong.version = demo("1.0.1");
    let error = bench.elements().publish(wrong.clone()).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("demo 1.0.0"),
        "{error}"
    );
    for files in [
        vec![bench.file("x.crate", b"not gzip")],
        vec![],
        vec!["/nowhere".into()],
    ] {
        let error = bench
            .elements()
            .publish(Publication {
                files,
                ..wrong.clone()
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert!(bench.lab.package_requests().is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_looked_after_before_anything_is_sent_again() {
    let bench = Bench::new().await;
    bench.lab.package_faults().inject(Fault::lose_answer(PUBLISH));
    bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap();
    assert_eq!(bench.lab.package_requests().count(&Method::PUT, PUBLISH), 1);
    bench.lab.package_faults().inject(Fault::cut(PUBLISH));
    bench
        .elements()
        .publish(bench.publication("1.1.0", "a"))
        .await
        .unwrap();
    assert_eq!(bench.lab.package_requests().count(&Method::PUT, PUBLISH), 3);
}

#[tokio::test]
async fn throttling_is_waited_out_or_said() {
    let bench = Bench::new().await;
    let throttled = || {
        let body = r#"{"message":"slow down"}"#;
        Fault::respond("package/version", StatusCode::TOO_MANY_REQUESTS, body).header(
            HeaderName::from_static("x-amzn-errortype"),
            HeaderValue::from_static("ThrottlingException"),
        )
    };
    let (name, soon) = retry_after("0");
    bench.lab.faults().inject(throttled().header(name, soon).times(2));
    let (repository, version) = (libraries(), demo("1.0.0"));
    let look = bench.elements().version(&repository, &version);
    let (found, requests) = requests::count(look).await;
    assert_eq!((found.unwrap(), requests), (None, 3));

    let (name, late) = retry_after("600");
    bench
        .lab
        .faults()
        .inject(throttled().header(name.clone(), late.clone()));
    let error = bench
        .elements()
        .version(&libraries(), &demo("1.0.0"))
        .await
        .unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(600)), "{error:?}");
    bench.lab.faults().clear();

    let busy = || Fault::respond(PUBLISH, StatusCode::TOO_MANY_REQUESTS, "");
    bench.lab.package_faults().inject(busy());
    bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap();
    bench.lab.package_faults().inject(busy().header(name, late));
    let error = bench
        .elements()
        .publish(bench.publication("1.1.0", "a"))
        .await
        .unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(600)), "{error:?}");
    bench.lab.package_faults().inject(busy().always());
    let error = bench
        .elements()
        .publish(bench.publication("1.1.0", "a"))
        .await
        .unwrap_err();
    assert!(
        error.is_rate_limited() && error.retry() == Retry::Spent,
        "{error:?}"
    );
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let bench = Bench::new().await;
    for (status, kind, words) in [
        (StatusCode::FORBIDDEN, ErrorKind::Denied, "origin"),
        (StatusCode::PAYMENT_REQUIRED, ErrorKind::Denied, "quota"),
        (StatusCode::UNAUTHORIZED, ErrorKind::Unauthenticated, "token"),
    ] {
        bench
            .lab
            .package_faults()
            .inject(Fault::respond(PUBLISH, status, "").times(2));
        let error = bench
            .elements()
            .publish(bench.publication("1.0.0", "a"))
            .await
            .unwrap_err();
        assert!(
            error.kind() == kind && error.to_string().contains(words),
            "{error}"
        );
        bench.lab.package_faults().clear();
    }
    let other_origin =
        r#"{"dl":"https://evil.example/dl","api":"https://evil.example","auth-required":true}"#;
    bench
        .lab
        .package_faults()
        .inject(Fault::respond("config.json", StatusCode::OK, other_origin));
    let error = bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("evil.example"),
        "{error}"
    );
}

#[tokio::test]
async fn only_this_machine_may_be_spoken_to_in_the_clear() {
    let lab = lab().await.unwrap();
    let error = CodeArtifact::new(config(&lab).endpoint("http://codeartifact.example/".parse().unwrap()))
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("https"),
        "{error}"
    );
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let bench = Bench::new().await;
    let access = bench
        .elements()
        .access(&libraries(), PackageFormat::Cargo)
        .await
        .unwrap();
    let wrong = config(&bench.lab).credentials(
        "AKIACANARY",
        Secret::new("secret-canary"),
        Some(Secret::new("session-canary")),
    );
    let shown = format!("{wrong:?}");
    let stranger = CodeArtifact::new(wrong).await.unwrap();
    let refused = stranger.version(&libraries(), &demo("1.0.0")).await.unwrap_err();
    assert!(refused.is_unauthenticated(), "{refused:?}");
    let token = access.token.expose();
    let body = format!(r#"{{"errors":[{{"detail":"bad {token}"}}]}}"#);
    bench
        .lab
        .package_faults()
        .inject(Fault::respond(PUBLISH, StatusCode::BAD_REQUEST, body));
    let echoed = bench
        .elements()
        .publish(bench.publication("1.0.0", "a"))
        .await
        .unwrap_err();
    let all = format!(
        "{shown} {refused:?} {stranger:?} {:?} {access:?} {echoed:?}",
        bench.client
    );
    for secret in ["secret-canary", "session-canary", token, "lab-secret-access-key"] {
        assert!(!all.contains(secret), "{all}");
    }
}
