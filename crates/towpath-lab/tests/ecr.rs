//! ECR at wire level: raw JSON and plain HTTP, never our own client.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ecr_common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ecr_common::{INDEX, Lab, MANIFEST, code, code_of, error_of};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};
use towpath_core::Digest;
use towpath_lab::Fault;
use towpath_lab::ecr::{EcrConfig, Finding, ImageSeed, Upstream, UpstreamConfig, UpstreamKind};

#[tokio::test]
async fn a_signature_has_to_be_right() {
    let lab = Lab::start(EcrConfig::default()).await;
    let config = EcrConfig::default();
    let secret = config.secret_access_key.expose();
    for (key, secret, kind) in [
        (
            config.access_key_id.as_str(),
            "wrong",
            "InvalidSignatureException",
        ),
        ("AKIAUNKNOWN", secret, "UnrecognizedClientException"),
    ] {
        let (status, answer) = lab.signed("DescribeRegistry", &json!({}), key, secret).await;
        assert_eq!((status, &answer["__type"]), (StatusCode::FORBIDDEN, &json!(kind)));
        assert!(!answer.to_string().contains(config.secret_access_key.expose()));
    }
    let bare = lab.http.post(lab.ecr.api_url()).body("{}").send().await.unwrap();
    assert_eq!(bare.status(), StatusCode::FORBIDDEN);
    assert!(
        bare.text()
            .await
            .unwrap()
            .contains("MissingAuthenticationTokenException")
    );
    assert_eq!(
        lab.refused("MakeCoffee", json!({})).await,
        "UnknownOperationException"
    );
    assert_eq!(
        lab.refused("CreateRepository", json!({})).await,
        "SerializationException"
    );
}

#[tokio::test]
async fn repositories_are_made_listed_in_pages_and_deleted() {
    let lab = Lab::start(EcrConfig::default()).await;
    for name in ["team/a", "team/b", "team/c"] {
        lab.repository(name).await;
    }
    let again = lab
        .refused("CreateRepository", json!({"repositoryName": "team/a"}))
        .await;
    assert_eq!(again, "RepositoryAlreadyExistsException");
    let invalid = lab
        .refused("CreateRepository", json!({"repositoryName": "Team"}))
        .await;
    assert_eq!(invalid, "InvalidParameterException");
    let first = lab.call("DescribeRepositories", json!({"maxResults": 2})).await;
    let next = json!({"maxResults": 2, "nextToken": first["nextToken"]});
    let rest = lab.call("DescribeRepositories", next).await;
    assert_eq!(rest["repositories"][0]["repositoryName"], "team/c");
    assert_eq!(rest["nextToken"], Value::Null);
    let uri = format!("{}/team/c", lab.ecr.registry_host());
    assert_eq!(rest["repositories"][0]["repositoryUri"], uri);
    lab.push_image("team/a", "v1", b"layer").await;
    let full = lab
        .refused("DeleteRepository", json!({"repositoryName": "team/a"}))
        .await;
    assert_eq!(full, "RepositoryNotEmptyException");
    lab.call(
        "DeleteRepository",
        json!({"repositoryName": "team/a", "force": true}),
    )
    .await;
    let gone = lab
        .refused("DescribeRepositories", json!({"repositoryNames": ["team/a"]}))
        .await;
    assert_eq!(gone, "RepositoryNotFoundException");
    assert_eq!(lab.ecr.repositories().len(), 2);
}

#[tokio::test]
async fn tokens_let_in_expire_and_are_refused() {
    let lab = Lab::start(EcrConfig::default()).await;
    let answer = lab.call("GetAuthorizationToken", json!({})).await;
    let data = &answer["authorizationData"][0];
    assert_eq!(
        data["proxyEndpoint"],
        format!("http://{}", lab.ecr.registry_host())
    );
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let hours = (data["expiresAt"].as_f64().unwrap() - now.as_secs_f64()) / 3600.0;
    assert!((11.9..12.1).contains(&hours), "{hours}");
    let token = data["authorizationToken"].as_str().unwrap();
    assert!(STANDARD.decode(token).unwrap().starts_with(b"AWS:"));
    let base = format!("http://{}/v2/", lab.ecr.registry_host());
    let verbatim = |scheme: &str| {
        lab.http
            .get(&base)
            .header("authorization", format!("{scheme} {token}"))
    };
    assert_eq!(verbatim("Basic").send().await.unwrap().status(), StatusCode::OK);

    let wrong = lab.http.get(&base).basic_auth("AWS", Some("x"));
    for refused in [verbatim("Bearer"), lab.http.get(&base), wrong] {
        let response = refused.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let host = lab.ecr.registry_host();
        let challenge = format!("Basic realm=\"https://{host}/\",service=\"ecr.amazonaws.com\"");
        assert_eq!(response.headers()["www-authenticate"], challenge);
        assert_eq!(response.text().await.unwrap(), "Not Authorized\n");
    }
    lab.ecr.expire_tokens();
    let expired = verbatim("Basic").send().await.unwrap();
    assert!(!expired.headers().contains_key("www-authenticate"));
    let (status, code, message) = error_of(expired).await;
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    assert!(message.contains("Your authorization token has expired"));
}

#[tokio::test]
async fn an_upload_goes_on_where_it_was_cut() {
    let lab = Lab::start(EcrConfig::default()).await;
    let nowhere = lab
        .v2(Method::POST, "none/here/blobs/uploads/")
        .send()
        .await
        .unwrap();
    assert_eq!(code_of(nowhere).await, code(404, "NAME_UNKNOWN"));
    lab.repository("team/app").await;
    let started = lab
        .v2(Method::POST, "team/app/blobs/uploads/")
        .send()
        .await
        .unwrap();
    assert_eq!(started.status(), StatusCode::ACCEPTED);
    let location = started.headers()["location"].to_str().unwrap().to_owned();
    let chunk = async |range: &'static str, bytes: &'static str| {
        let request = lab.v2(Method::PATCH, &location).header("content-range", range);
        request.body(bytes).send().await.unwrap()
    };
    let first = chunk("0-4", "hello").await;
    assert_eq!(first.status(), StatusCode::CREATED, "as ECR answers");
    assert_eq!(first.headers()["location"], location.as_str());
    let (status, refused, message) = error_of(chunk("0-4", "hello").await).await;
    assert_eq!((status, refused.as_str()), (416, "BLOB_UPLOAD_INVALID"));
    assert!(message.contains("First byte of the layer part is 0 instead of 5"));
    let progress = lab.get(&location).await;
    assert_eq!(
        (progress.status().as_u16(), &progress.headers()["range"]),
        (204, &"0-4".parse().unwrap())
    );
    lab.ecr.answer_chunks_as_created(false);
    assert_eq!(chunk("5-6", ", ").await.status(), StatusCode::ACCEPTED);
    let digest = Digest::sha256_of("hello, world");
    let end = lab
        .v2(Method::PUT, &format!("{location}?digest={digest}"))
        .body("world");
    assert_eq!(end.send().await.unwrap().status(), StatusCode::CREATED);
    assert_eq!(lab.ecr.blob(&digest).unwrap(), b"hello, world");

    let blob = format!("team/app/blobs/{digest}");
    let part = lab
        .v2(Method::GET, &blob)
        .header("range", "bytes=7-")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 7-11/12");
    assert_eq!(part.text().await.unwrap(), "world");
    let head = lab.v2(Method::HEAD, &blob).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "12");

    let wrong = lab
        .v2(Method::POST, &format!("team/app/blobs/uploads/?digest={digest}"))
        .body("other");
    assert_eq!(
        code_of(wrong.send().await.unwrap()).await,
        code(400, "DIGEST_INVALID")
    );
    assert_eq!(
        code_of(lab.get(&location).await).await,
        code(404, "BLOB_UPLOAD_UNKNOWN")
    );
}

#[tokio::test]
async fn a_blob_is_mounted_only_where_the_service_would() {
    let lab = Lab::start(EcrConfig::default()).await;
    lab.repository("team/from").await;
    lab.repository("team/to").await;
    let loose = lab.push_blob("team/from", b"loose").await;
    lab.push_image("team/from", "v1", b"held").await;
    let held = Digest::sha256_of("held");
    let mount = async |digest: &Digest| {
        let path = format!("team/to/blobs/uploads/?mount={digest}&from=team/from");
        lab.v2(Method::POST, &path).send().await.unwrap().status()
    };
    assert_eq!(mount(&held).await, StatusCode::ACCEPTED);
    lab.call(
        "PutAccountSetting",
        json!({"name": "BLOB_MOUNTING", "value": "ENABLED"}),
    )
    .await;
    assert_eq!(mount(&loose).await, StatusCode::ACCEPTED);
    assert_eq!(mount(&held).await, StatusCode::CREATED);
    let check = json!({"repositoryName": "team/to", "layerDigests": [held.as_str(), loose.as_str(), "x"]});
    let answer = lab.call("BatchCheckLayerAvailability", check).await;
    assert_eq!(answer["layers"][0]["layerAvailability"], "AVAILABLE");
    assert_eq!(answer["layers"][1]["layerAvailability"], "UNAVAILABLE");
    assert_eq!(answer["failures"][0]["failureCode"], "InvalidLayerDigest");
}

#[tokio::test]
async fn manifests_keep_their_bytes_and_need_what_they_name() {
    let lab = Lab::start(EcrConfig::default()).await;
    lab.repository("team/app").await;
    let bytes = lab.image("team/app", b"layer", json!({})).await;
    let (there, absent) = (Digest::sha256_of("layer"), Digest::sha256_of("absent"));
    let missing = String::from_utf8(bytes.clone())
        .unwrap()
        .replace(there.as_str(), absent.as_str());
    let (status, refused, message) =
        error_of(lab.put("team/app", "v1", MANIFEST, missing.as_bytes()).await).await;
    assert_eq!((status, refused.as_str()), (400, "BLOB_UPLOAD_UNKNOWN"));
    assert!(
        message.contains("required for pushing image into repository with name 'team/app'"),
        "{message}"
    );
    let disliked = lab.put("team/app", "v1", MANIFEST, b"{").await;
    assert_eq!(code_of(disliked).await, code(405, "UNSUPPORTED"));

    let digest = Digest::sha256_of(&bytes);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": digest.as_str(), "size": bytes.len(),
         "platform": {"os": "linux", "architecture": "amd64"}}
    ]})
    .to_string();
    let early = lab.put("team/app", "v1", INDEX, index.as_bytes()).await;
    assert_eq!(code_of(early).await, code(400, "MANIFEST_BLOB_UNKNOWN"));
    let wrong = lab.put("team/app", absent.as_str(), MANIFEST, &bytes).await;
    assert_eq!(code_of(wrong).await, code(400, "DIGEST_INVALID"));

    let stored = lab.put("team/app", digest.as_str(), MANIFEST, &bytes).await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    assert!(
        !stored.headers().contains_key("location"),
        "the service sends none"
    );
    let stored = lab.put("team/app", "v1", INDEX, index.as_bytes()).await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    let got = lab.get("team/app/manifests/v1").await;
    assert_eq!(got.headers()["content-type"], INDEX);
    assert_eq!(
        got.headers()["docker-content-digest"],
        Digest::sha256_of(&index).as_str()
    );
    assert_eq!(got.text().await.unwrap(), index);
    let state = lab.ecr.image("team/app", "v1").unwrap();
    assert_eq!(
        (state.tags, state.manifest.as_ref()),
        (vec!["v1".to_owned()], index.as_bytes())
    );
    assert!(state.last_pull.is_some());

    let ids = json!([{"imageDigest": digest.as_str()}, {}, {"imageTag": "v1"}]);
    let input = json!({"repositoryName": "team/app", "imageIds": ids});
    let deleted = lab.call("BatchDeleteImage", input).await;
    assert_eq!(
        deleted["failures"][0]["failureCode"],
        "ImageReferencedByManifestList"
    );
    assert_eq!(deleted["failures"][1]["failureCode"], "MissingDigestAndTag");
    assert_eq!(deleted["imageIds"][0]["imageTag"], "v1");
    assert!(lab.ecr.image("team/app", "v1").is_none());
    let gone = lab.get("team/app/manifests/v1").await;
    assert_eq!(code_of(gone).await, code(404, "MANIFEST_UNKNOWN"));
}

#[tokio::test]
async fn an_immutable_tag_is_refused_even_to_its_own_digest() {
    let lab = Lab::start(EcrConfig::default()).await;
    let input = json!({
        "repositoryName": "team/app",
        "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "dev-*"}],
    });
    lab.call("CreateRepository", input).await;
    lab.push_image("team/app", "v1", b"one").await;
    let bytes = lab.image("team/app", b"one", json!({})).await;
    let (status, refused, message) = error_of(lab.put("team/app", "v1", MANIFEST, &bytes).await).await;
    assert_eq!((status, refused.as_str()), (400, "TAG_INVALID"));
    assert!(message.contains("'v1' already exists in the 'team/app' repository"));
    lab.push_image("team/app", "dev-1", b"one").await;
    lab.push_image("team/app", "dev-1", b"two").await;

    let other = lab.image("team/app", b"two", json!({})).await;
    for (bytes, kind) in [
        (bytes, "ImageAlreadyExistsException"),
        (other, "ImageTagAlreadyExistsException"),
    ] {
        let manifest = String::from_utf8(bytes).unwrap();
        let input = json!({"repositoryName": "team/app", "imageTag": "v1", "imageManifest": manifest});
        assert_eq!(lab.refused("PutImage", input).await, kind);
    }
    let mutable = json!({"repositoryName": "team/app", "imageTagMutability": "MUTABLE"});
    lab.call("PutImageTagMutability", mutable).await;
    lab.push_image("team/app", "v1", b"two").await;
}

#[tokio::test]
async fn images_tags_and_referrers_are_listed() {
    let lab = Lab::start(EcrConfig::default()).await;
    lab.repository("team/app").await;
    let subject = lab.push_image("team/app", "v1", b"one").await;
    lab.push_image("team/app", "v2", b"one").await;
    let untagged = Digest::sha256_of(lab.image("team/app", b"two", json!({})).await);
    lab.push_image("team/app", untagged.as_str(), b"two").await;
    let more = json!({
        "artifactType": "application/vnd.example.sbom",
        "subject": {"mediaType": MANIFEST, "digest": subject.as_str(), "size": 1},
        "annotations": {"made.by": "test"},
    });
    let sbom = lab.image("team/app", b"sbom", more).await;
    let pushed = lab
        .put("team/app", Digest::sha256_of(&sbom).as_str(), MANIFEST, &sbom)
        .await;
    assert_eq!(pushed.headers()["oci-subject"], subject.as_str());

    let path = format!("team/app/referrers/{subject}");
    let all: Value = lab.get(&path).await.json().await.unwrap();
    assert_eq!(
        all["manifests"][0]["artifactType"],
        "application/vnd.example.sbom"
    );
    assert_eq!(all["manifests"][0]["annotations"]["made.by"], "test");
    let filtered = lab.get(&format!("{path}?artifactType=other")).await;
    assert_eq!(filtered.headers()["oci-filters-applied"], "artifactType");
    assert_eq!(filtered.json::<Value>().await.unwrap()["manifests"], json!([]));

    let tags = lab.get("team/app/tags/list?n=1").await;
    assert_eq!(
        tags.headers()["link"],
        "</v2/team/app/tags/list?last=v1&n=1>; rel=\"next\""
    );
    assert_eq!(tags.json::<Value>().await.unwrap()["tags"], json!(["v1"]));

    let mut ids = Vec::new();
    let mut token = Value::Null;
    loop {
        let input = json!({"repositoryName": "team/app", "maxResults": 1, "nextToken": token});
        let page = lab.call("ListImages", input).await;
        ids.extend(page["imageIds"].as_array().unwrap().clone());
        token = page["nextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(
        ids.len(),
        4,
        "two tags of one image, and two images without: {ids:?}"
    );
    let filter = json!({"repositoryName": "team/app", "filter": {"tagStatus": "TAGGED"}});
    let details = lab.call("DescribeImages", filter).await;
    let details = details["imageDetails"].as_array().unwrap();
    assert_eq!(
        (details.len(), &details[0]["imageTags"]),
        (1, &json!(["v1", "v2"]))
    );
    let unknown = json!({"repositoryName": "team/app", "imageIds": [{"imageTag": "v9"}]});
    assert_eq!(
        lab.refused("DescribeImages", unknown).await,
        "ImageNotFoundException"
    );
    let ids = json!([{"imageTag": "v2"}, {"imageTag": "v9"}]);
    let got = lab
        .call(
            "BatchGetImage",
            json!({"repositoryName": "team/app", "imageIds": ids}),
        )
        .await;
    assert_eq!(got["images"][0]["imageId"]["imageDigest"], subject.as_str());
    assert_eq!(got["failures"][0]["failureCode"], "ImageNotFound");
}

#[tokio::test]
async fn a_pushed_image_is_scanned_and_an_index_is_not() {
    let lab = Lab::start(EcrConfig::default()).await;
    lab.repository("team/app").await;
    // Each state is made to last for ever, so that nothing here depends on speed.
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    let one = |n| Finding::new(format!("CVE-2026-{n:04}"), "HIGH", "zlib", "1.2").fixed_in("1.3");
    lab.ecr.set_findings("team/app", (0..3).map(one).collect());
    lab.ecr.set_scan_delays(hours(1), Duration::ZERO);
    let digest = lab.push_image("team/app", "v1", b"one").await;
    let id =
        json!({"repositoryName": "team/app", "imageId": {"imageDigest": digest.as_str()}, "maxResults": 2});
    let early = lab.refused("DescribeImageScanFindings", id.clone()).await;
    assert_eq!(early, "ScanNotFoundException");
    lab.ecr.set_scan_delays(Duration::from_millis(1), Duration::ZERO);
    let (answer, _) = lab.scanned("team/app", &digest).await;
    assert_eq!(answer["imageScanStatus"]["status"], "COMPLETE");
    let result = &answer["imageScanFindings"];
    assert_eq!(result["findingSeverityCounts"]["HIGH"], 3);
    assert_eq!(result["findings"][0]["name"], "CVE-2026-0000");
    assert!(result["imageScanCompletedAt"].is_f64());
    let page = lab.call("DescribeImageScanFindings", id.clone()).await;
    assert_eq!(page["imageScanFindings"]["findings"].as_array().unwrap().len(), 2);
    assert!(page["nextToken"].is_string());
    assert_eq!(
        lab.refused("StartImageScan", id.clone()).await,
        "LimitExceededException"
    );
    lab.ecr
        .set_scan_status(digest.as_str(), Some("UNSUPPORTED_IMAGE"));
    let forced = lab.call("DescribeImageScanFindings", id).await;
    assert_eq!(forced["imageScanStatus"]["status"], "UNSUPPORTED_IMAGE");
    assert_eq!(forced["imageScanFindings"], Value::Null);

    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    lab.put("team/app", "multi", INDEX, index.as_bytes()).await;
    lab.ecr.set_scan_delays(Duration::ZERO, Duration::ZERO);
    let id = json!({"repositoryName": "team/app", "imageId": {"imageTag": "multi"}});
    assert_eq!(
        lab.refused("DescribeImageScanFindings", id).await,
        "ScanNotFoundException"
    );
}

#[tokio::test]
async fn an_enhanced_scan_may_end_before_its_findings_are_there() {
    let lab = Lab::start(EcrConfig::default()).await;
    let filters = json!([{"filter": "team/*", "filterType": "WILDCARD"}]);
    let rules = json!([{"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": filters}]);
    let refused = json!({"scanType": "BASIC", "rules": rules});
    let refused = lab.refused("PutRegistryScanningConfiguration", refused).await;
    assert_eq!(refused, "InvalidParameterException");
    let enhanced = json!({"scanType": "ENHANCED", "rules": rules});
    lab.call("PutRegistryScanningConfiguration", enhanced).await;
    lab.repository("team/app").await;
    lab.repository("other").await;
    let unscanned = lab.push_image("other", "v1", b"one").await;
    lab.ecr
        .set_scan_delays(Duration::from_millis(5), Duration::from_secs(3600));
    let digest = lab.push_image("team/app", "v1", b"one").await;
    let finding = Finding::new("CVE-2026-0001", "CRITICAL", "openssl", "3");
    lab.ecr.set_findings(digest.as_str(), vec![finding]);
    let (answer, _) = lab.scanned("team/app", &digest).await;
    assert_eq!(answer["imageScanStatus"]["status"], "ACTIVE");
    assert_eq!(answer["imageScanFindings"]["enhancedFindings"], json!([]));
    lab.ecr.set_scan_delays(Duration::from_millis(5), Duration::ZERO);
    let (answer, _) = lab.scanned("team/app", &digest).await;
    let finding = &answer["imageScanFindings"]["enhancedFindings"][0];
    assert_eq!(
        finding["packageVulnerabilityDetails"]["vulnerabilityId"],
        "CVE-2026-0001"
    );
    assert_eq!(finding["fixAvailable"], "NO");
    let id = json!({"repositoryName": "other", "imageId": {"imageDigest": unscanned.as_str()}});
    assert_eq!(
        lab.refused("DescribeImageScanFindings", id).await,
        "ScanNotFoundException"
    );
    let names = json!({"repositoryNames": ["team/app", "nope"]});
    let batch = lab.call("BatchGetRepositoryScanningConfiguration", names).await;
    assert_eq!(
        batch["scanningConfigurations"][0]["scanFrequency"],
        "CONTINUOUS_SCAN"
    );
    assert_eq!(batch["failures"][0]["failureCode"], "REPOSITORY_NOT_FOUND");
}

async fn cached() -> (Lab, Upstream, Upstream) {
    let gallery = Upstream::start(UpstreamConfig::new(UpstreamKind::EcrPublic))
        .await
        .unwrap();
    let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay))
        .await
        .unwrap();
    gallery
        .seed_image("docker/library/alpine", "3.20", &ImageSeed::base())
        .unwrap();
    quay.seed_image("towpath/ca-certificates", "2026", &ImageSeed::certificates())
        .unwrap();
    let upstreams = [&gallery, &quay].map(|upstream| (upstream.kind().host().to_owned(), upstream.address()));
    let config = EcrConfig {
        upstreams: upstreams.to_vec(),
        ..EcrConfig::default()
    };
    let lab = Lab::start(config).await;
    for (prefix, url) in [("ecr-public", "public.ecr.aws"), ("quay", "quay.io")] {
        let rule = json!({"ecrRepositoryPrefix": prefix, "upstreamRegistryUrl": url});
        lab.call("CreatePullThroughCacheRule", rule).await;
    }
    (lab, gallery, quay)
}

#[tokio::test]
async fn the_first_pull_brings_the_whole_closure_in() {
    let (lab, gallery, quay) = cached().await;
    for (prefix, upstream, name, tag) in [
        ("ecr-public", &gallery, "docker/library/alpine", "3.20"),
        ("quay", &quay, "towpath/ca-certificates", "2026"),
    ] {
        let path = format!("{prefix}/{name}");
        let first = lab.get(&format!("{path}/manifests/{tag}")).await;
        assert_eq!(first.status(), StatusCode::OK);
        let digest = upstream.digest(name, tag).unwrap();
        assert_eq!(first.headers()["docker-content-digest"], digest.as_str());
        let index: Value = first.json().await.unwrap();
        let fetched = upstream.requests().len();
        for child in index["manifests"].as_array().unwrap() {
            let child = child["digest"].as_str().unwrap();
            let manifest: Value = lab
                .get(&format!("{path}/manifests/{child}"))
                .await
                .json()
                .await
                .unwrap();
            for layer in manifest["layers"].as_array().unwrap() {
                let layer: Digest = layer["digest"].as_str().unwrap().parse().unwrap();
                let got = lab.get(&format!("{path}/blobs/{layer}")).await;
                assert!(layer.matches(got.bytes().await.unwrap()));
                assert_eq!(lab.ecr.blob(&layer), upstream.blob(&layer));
            }
        }
        lab.get(&format!("{path}/manifests/{tag}")).await;
        assert_eq!(
            upstream.requests().len(),
            fetched,
            "later pulls come from the cache"
        );
    }
    let repositories = lab.ecr.repositories();
    let prefixes: Vec<_> = repositories
        .iter()
        .map(|found| found.pull_through.as_deref())
        .collect();
    assert_eq!(prefixes, [Some("ecr-public"), Some("quay")]);
    assert_eq!(repositories[0].images.len(), 3);
    let valid = json!({"ecrRepositoryPrefix": "quay"});
    assert_eq!(
        lab.call("ValidatePullThroughCacheRule", valid).await["isValid"],
        true
    );
}

#[tokio::test]
async fn what_the_cache_cannot_get_is_told_apart_where_the_service_does() {
    let (lab, gallery, quay) = cached().await;
    for path in [
        "ecr-public/docker/library/alpine/manifests/9",
        "ecr-public/nobody/nothing/manifests/1",
        "quay/nobody/nothing/manifests/1",
    ] {
        assert_eq!(
            code_of(lab.get(path).await).await,
            code(404, "MANIFEST_UNKNOWN"),
            "{path}"
        );
    }
    let ruleless = lab.get("no-rule/alpine/manifests/1").await;
    assert_eq!(code_of(ruleless).await, code(404, "NAME_UNKNOWN"));

    let throttled = Fault::respond("/manifests/", StatusCode::TOO_MANY_REQUESTS, "");
    gallery.faults().inject(throttled);
    let throttled = lab.get("ecr-public/docker/library/alpine/manifests/3.20").await;
    assert_eq!(code_of(throttled).await, code(429, "TOOMANYREQUESTS"));
    quay.faults().inject(Fault::cut("/blobs/").always());
    let ids = json!({"repositoryName": "quay/towpath/ca-certificates", "imageIds": [{"imageTag": "2026"}]});
    let missing = lab.refused("BatchGetImage", ids.clone()).await;
    assert_eq!(missing, "UnableToGetUpstreamImageException");
    assert!(lab.ecr.repositories().is_empty(), "nothing is left half filled");
    quay.faults().clear();
    let got = lab.call("BatchGetImage", ids).await;
    let digest = quay.digest("towpath/ca-certificates", "2026").unwrap();
    assert_eq!(got["images"][0]["imageId"]["imageDigest"], digest.as_str());

    let docker = json!({"ecrRepositoryPrefix": "hub", "upstreamRegistryUrl": "registry-1.docker.io"});
    let kind = lab.refused("CreatePullThroughCacheRule", docker).await;
    assert_eq!(kind, "UnsupportedUpstreamRegistryException");
    let rules = lab
        .call("DescribePullThroughCacheRules", json!({"maxResults": 1}))
        .await;
    assert!(rules["nextToken"].is_string());
    lab.call(
        "DeletePullThroughCacheRule",
        json!({"ecrRepositoryPrefix": "quay"}),
    )
    .await;
    let cached = lab.get("quay/towpath/ca-certificates/manifests/2026").await;
    assert_eq!(
        cached.status(),
        StatusCode::OK,
        "a rule that is deleted leaves its repositories"
    );
}

#[tokio::test]
async fn a_cached_tag_follows_its_upstream_once_it_is_old() {
    let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay))
        .await
        .unwrap();
    let seed = |text: &str| ImageSeed::new().file("text", text);
    let first = quay.seed_image("aa/b", "1", &seed("one")).unwrap();
    let config = EcrConfig {
        upstreams: vec![("quay.io".into(), quay.address())],
        cache_life: Duration::ZERO,
        ..EcrConfig::default()
    };
    let lab = Lab::start(config).await;
    let rule = json!({
        "ecrRepositoryPrefix": "qq",
        "upstreamRegistryUrl": "quay.io",
        "upstreamRepositoryPrefix": "aa",
    });
    lab.call("CreatePullThroughCacheRule", rule).await;
    let pull = async || {
        let response = lab.v2(Method::HEAD, "qq/b/manifests/1").send().await.unwrap();
        response.headers()["docker-content-digest"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(pull().await, first.as_str());
    let second = quay.seed_image("aa/b", "1", &seed("two")).unwrap();
    let down = Fault::respond("/v2/", StatusCode::BAD_GATEWAY, "");
    quay.faults().inject(down);
    assert_eq!(
        pull().await,
        first.as_str(),
        "an upstream that is down is not noticed"
    );
    assert_eq!(pull().await, second.as_str());
}

#[tokio::test]
async fn upstreams_want_tokens_of_their_own() {
    let (lab, gallery, quay) = cached().await;
    let quays = ",service=\"quay.io\",scope=\"repository:towpath/ca-certificates:pull\"";
    for (upstream, path, challenge) in [
        (
            &gallery,
            "docker/library/alpine",
            ",service=\"public.ecr.aws\",scope=\"aws\"",
        ),
        (&quay, "towpath/ca-certificates", quays),
    ] {
        let url = format!("http://{}/v2/{path}/tags/list", upstream.address());
        let response = lab.http.get(&url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let header = response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(header.starts_with("Bearer realm=\"http://127.0.0.1:"), "{header}");
        assert!(header.ends_with(challenge), "{header}");
        let basic = lab
            .http
            .get(&url)
            .basic_auth("AWS", Some(&lab.password))
            .send()
            .await
            .unwrap();
        assert_eq!(basic.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn throttling_is_scripted() {
    let lab = Lab::start(EcrConfig::default()).await;
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Rate exceeded"}]}"#;
    let fault = Fault::respond("/v2/", StatusCode::TOO_MANY_REQUESTS, body);
    lab.ecr.registry_faults().inject(fault);
    assert_eq!(code_of(lab.get("").await).await, code(429, "TOOMANYREQUESTS"));
    assert_eq!(lab.get("").await.status(), StatusCode::OK);
    let body = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
    let fault = Fault::respond("DescribeRegistry", StatusCode::BAD_REQUEST, body);
    lab.ecr.api_faults().inject(fault);
    assert_eq!(
        lab.refused("DescribeRegistry", json!({})).await,
        "ThrottlingException"
    );
    lab.call("DescribeRegistry", json!({})).await;
}
