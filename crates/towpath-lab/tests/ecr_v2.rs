//! `/v2/` and the layers of the JSON API at wire level: the protocol, and each deviation that ECR is known for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ecr_common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ecr_common::{CONFIG, INDEX, LAYER, Lab, MANIFEST, code, code_of, error_of};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use towpath_core::Digest;
use towpath_lab::ecr::EcrConfig;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const MIB: usize = 1024 * 1024;

async fn lab() -> Lab {
    let lab = Lab::start(EcrConfig::default()).await;
    lab.repository("team/app").await;
    lab
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}

/// Opens a session, and gives its Location.
async fn open(lab: &Lab) -> String {
    let started = lab
        .v2(Method::POST, "team/app/blobs/uploads/")
        .send()
        .await
        .unwrap();
    assert_eq!(started.status(), StatusCode::ACCEPTED);
    header(&started, "location").to_owned()
}

async fn patch(lab: &Lab, location: &str, range: &str, bytes: &'static [u8]) -> Response {
    let request = lab.v2(Method::PATCH, location).header("content-range", range);
    request.body(bytes).send().await.unwrap()
}

#[tokio::test]
async fn deviation_1_2_basic_is_the_only_way_in_and_the_refusal_is_plain_text() {
    let lab = lab().await;
    let url = format!("http://{}/v2/", lab.ecr.registry_host());
    let other_user = lab.http.get(&url).basic_auth("root", Some(&lab.password));
    let bearer = lab.http.get(&url).bearer_auth(&lab.password);
    let garbage = lab.http.get(&url).header("authorization", "Basic %%%");
    for request in [other_user, bearer, garbage, lab.http.get(&url)] {
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let challenge = header(&refused, "www-authenticate");
        assert!(challenge.starts_with("Basic realm=\"https://"), "{challenge}");
        assert!(header(&refused, "content-type").starts_with("text/plain"));
        assert_eq!(refused.text().await.unwrap(), "Not Authorized\n");
    }
    let head = lab.http.head(&url).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::UNAUTHORIZED);
    assert!(header(&head, "www-authenticate").starts_with("Basic"));
    let let_in = lab.get("").await;
    assert_eq!(header(&let_in, "docker-distribution-api-version"), "registry/2.0");
    // There is no token endpoint.
    assert_eq!(lab.get("token").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn deviation_3_a_token_that_ended_or_is_of_another_region_is_403_without_a_challenge() {
    let lab = lab().await;
    let elsewhere = EcrConfig {
        region: "us-east-1".into(),
        ..EcrConfig::default()
    };
    let elsewhere = Lab::start(elsewhere).await;
    let url = format!("http://{}/v2/", lab.ecr.registry_host());
    let foreign = lab.http.get(&url).basic_auth("AWS", Some(&elsewhere.password));
    let foreign = foreign.send().await.unwrap();
    assert!(!foreign.headers().contains_key("www-authenticate"));
    let (status, code, message) = error_of(foreign).await;
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    assert!(!message.contains("expired"), "{message}");

    lab.ecr.expire_tokens();
    let expired = lab.get("").await;
    assert!(!expired.headers().contains_key("www-authenticate"));
    let (status, code, message) = error_of(expired).await;
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    assert!(message.contains("expired"), "{message}");

    // A token that is made up is none, even where it looks like one.
    let forged = json!({"type": "DATA_KEY", "account": "123456789012", "region": "eu-west-1"});
    let forged = STANDARD.encode(forged.to_string());
    let forged = lab
        .http
        .get(&url)
        .basic_auth("AWS", Some(forged))
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn deviation_4_a_chunk_is_answered_201_with_its_range() {
    let lab = lab().await;
    let location = open(&lab).await;
    let first = patch(&lab, &location, "0-4", b"hello").await;
    assert_eq!(
        (first.status(), header(&first, "range")),
        (StatusCode::CREATED, "0-4")
    );
    // Without a Content-Range it is one that goes on.
    let streamed = lab
        .v2(Method::PATCH, &location)
        .body(", world")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (streamed.status(), header(&streamed, "range")),
        (StatusCode::CREATED, "0-11")
    );
    let progress = lab.get(&location).await;
    assert_eq!(
        (progress.status(), header(&progress, "range")),
        (StatusCode::NO_CONTENT, "0-11")
    );
    let digest = Digest::sha256_of("hello, world");
    let done = lab
        .v2(Method::PUT, &format!("{location}?digest={digest}"))
        .send()
        .await
        .unwrap();
    assert_eq!(done.status(), StatusCode::CREATED);
    assert_eq!(header(&done, "docker-content-digest"), digest.as_str());
    assert_eq!(header(&done, "location"), format!("/v2/team/app/blobs/{digest}"));
    assert_eq!(
        code_of(lab.get(&location).await).await,
        code(404, "BLOB_UPLOAD_UNKNOWN")
    );
}

#[tokio::test]
async fn deviation_5_a_manifest_is_stored_without_a_location() {
    let lab = lab().await;
    let bytes = lab.image("team/app", b"layer", json!({})).await;
    let digest = Digest::sha256_of(&bytes);
    for reference in ["v1", digest.as_str()] {
        let stored = lab.put("team/app", reference, MANIFEST, &bytes).await;
        assert_eq!(stored.status(), StatusCode::CREATED);
        assert_eq!(header(&stored, "docker-content-digest"), digest.as_str());
        assert!(!stored.headers().contains_key("location"));
    }
}

#[tokio::test]
async fn deviation_6_one_location_per_session_and_chunks_in_order() {
    let lab = lab().await;
    let location = open(&lab).await;
    let first = patch(&lab, &location, "0-4", b"hello").await;
    assert_eq!(header(&first, "location"), location);
    for (range, wrong) in [("0-4", "0"), ("7-8", "7")] {
        let (status, code, message) = error_of(patch(&lab, &location, range, b"x").await).await;
        assert_eq!((status, code.as_str()), (416, "BLOB_UPLOAD_INVALID"));
        let words = format!("First byte of the layer part is {wrong} instead of 5");
        assert!(message.contains(&words), "{message}");
    }
    for range in ["bytes 5-6", "5", "6-5", "x-y"] {
        let refused = patch(&lab, &location, range, b"x").await;
        assert_eq!(
            code_of(refused).await,
            code(416, "BLOB_UPLOAD_INVALID"),
            "{range}"
        );
    }
    let progress = lab.get(&location).await;
    assert_eq!(
        header(&progress, "range"),
        "0-4",
        "what was refused has not been taken"
    );
    assert_eq!(header(&progress, "location"), location);
    // The last chunk may come with the request that commits.
    let digest = Digest::sha256_of("hello!");
    let last = lab.v2(Method::PUT, &format!("{location}?digest={digest}"));
    let out_of_order = last.try_clone().unwrap().header("content-range", "0-0").body("!");
    assert_eq!(
        out_of_order.send().await.unwrap().status(),
        StatusCode::RANGE_NOT_SATISFIABLE
    );
    let in_order = last
        .header("content-range", "5-5")
        .body("!")
        .send()
        .await
        .unwrap();
    assert_eq!(in_order.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn sessions_are_cancelled_run_out_and_belong_to_one_repository() {
    let lab = lab().await;
    lab.repository("team/other").await;
    let location = open(&lab).await;
    let foreign = location.replace("team/app", "team/other");
    assert_eq!(
        code_of(lab.get(&foreign).await).await,
        code(404, "BLOB_UPLOAD_UNKNOWN")
    );
    let empty = lab.get(&location).await;
    assert_eq!(
        (empty.status(), header(&empty, "range")),
        (StatusCode::NO_CONTENT, "0-0")
    );
    let cancelled = lab.v2(Method::DELETE, &location).send().await.unwrap();
    assert_eq!(cancelled.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        code_of(lab.get(&location).await).await,
        code(404, "BLOB_UPLOAD_UNKNOWN")
    );

    let location = open(&lab).await;
    lab.ecr.expire_uploads();
    let late = patch(&lab, &location, "0-0", b"x").await;
    assert_eq!(code_of(late).await, code(404, "BLOB_UPLOAD_UNKNOWN"));

    // Without a digest nothing is committed, and the session stays.
    let location = open(&lab).await;
    let nameless = lab.v2(Method::PUT, &location).body("x").send().await.unwrap();
    assert_eq!(code_of(nameless).await, code(400, "DIGEST_INVALID"));
    assert_eq!(lab.get(&location).await.status(), StatusCode::NO_CONTENT);
    // A wrong one ends it, and leaves nothing.
    let wrong = Digest::sha256_of("other");
    let wrong = lab
        .v2(Method::PUT, &format!("{location}?digest={wrong}"))
        .body("x");
    assert_eq!(
        code_of(wrong.send().await.unwrap()).await,
        code(400, "DIGEST_INVALID")
    );
    assert!(lab.ecr.blob(&Digest::sha256_of("x")).is_none());
}

#[tokio::test]
async fn a_blob_in_one_post_is_there_at_once() {
    let lab = lab().await;
    let digest = Digest::sha256_of("whole");
    let post = lab.v2(Method::POST, &format!("team/app/blobs/uploads/?digest={digest}"));
    let stored = post.body("whole").send().await.unwrap();
    assert_eq!(stored.status(), StatusCode::CREATED);
    assert_eq!(
        header(&stored, "location"),
        format!("/v2/team/app/blobs/{digest}")
    );
    let again = lab
        .v2(Method::HEAD, &format!("team/app/blobs/{digest}"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (again.status(), header(&again, "content-length")),
        (StatusCode::OK, "5")
    );
    // Blobs are not deleted one by one, and are not shared between repositories by themselves.
    let delete = lab.v2(Method::DELETE, &format!("team/app/blobs/{digest}"));
    assert_eq!(
        code_of(delete.send().await.unwrap()).await,
        code(405, "UNSUPPORTED")
    );
    lab.repository("team/other").await;
    let elsewhere = lab.get(&format!("team/other/blobs/{digest}")).await;
    assert_eq!(code_of(elsewhere).await, code(404, "BLOB_UNKNOWN"));
}

#[tokio::test]
async fn deviation_7_an_immutable_tag_is_refused_to_its_own_digest() {
    let lab = Lab::start(EcrConfig::default()).await;
    let input = json!({"repositoryName": "team/app", "imageTagMutability": "IMMUTABLE"});
    lab.call("CreateRepository", input).await;
    lab.push_image("team/app", "v1", b"layer").await;
    let bytes = lab.image("team/app", b"layer", json!({})).await;
    let digest = Digest::sha256_of(&bytes);
    let (status, code, message) = error_of(lab.put("team/app", "v1", MANIFEST, &bytes).await).await;
    assert_eq!((status, code.as_str()), (400, "TAG_INVALID"));
    let words = "The image tag 'v1' already exists in the 'team/app' repository and cannot be overwritten";
    assert!(message.contains(words), "{message}");
    // By digest, and under a new tag, it is taken.
    for reference in [digest.as_str(), "v2"] {
        let stored = lab.put("team/app", reference, MANIFEST, &bytes).await;
        assert_eq!(stored.status(), StatusCode::CREATED);
    }
}

#[tokio::test]
async fn deviation_8_a_repository_has_to_be_there() {
    let lab = Lab::start(EcrConfig::default()).await;
    for (method, path) in [
        (Method::POST, "none/here/blobs/uploads/"),
        (Method::PUT, "none/here/manifests/v1"),
        (Method::GET, "none/here/manifests/v1"),
        (Method::GET, "none/here/tags/list"),
    ] {
        let request = lab.v2(method, path).header("content-type", MANIFEST);
        let (status, code, message) = error_of(request.body("{}").send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (404, "NAME_UNKNOWN"), "{path}");
        assert!(
            message.contains("The repository with name 'none/here' does not exist"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn deviation_9_a_mount_needs_the_setting_and_an_image_that_names_the_blob() {
    let lab = lab().await;
    lab.repository("team/to").await;
    lab.push_image("team/app", "v1", b"held").await;
    let held = Digest::sha256_of("held");
    let loose = lab.push_blob("team/app", b"loose").await;
    let mount = async |query: String| {
        let response = lab
            .v2(Method::POST, &format!("team/to/blobs/uploads/?{query}"))
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            header(&response, "location").to_owned(),
        )
    };
    let from_app = |digest: &Digest| format!("mount={digest}&from=team/app");
    // 202 is a session like any other.
    let (status, location) = mount(from_app(&held)).await;
    assert_eq!(status, 202);
    assert_eq!(lab.get(&location).await.status(), StatusCode::NO_CONTENT);
    lab.call(
        "PutAccountSetting",
        json!({"name": "BLOB_MOUNTING", "value": "ENABLED"}),
    )
    .await;
    assert_eq!(mount(from_app(&loose)).await.0, 202, "no image names it");
    assert_eq!(mount(format!("mount={held}")).await.0, 202, "from nowhere");
    assert_eq!(mount(format!("mount={held}&from=team/none")).await.0, 202);
    lab.ecr.deny_action("ecr:GetDownloadUrlForLayer");
    assert_eq!(mount(from_app(&held)).await.0, 202, "it may not be read");
    lab.ecr.allow_action("ecr:GetDownloadUrlForLayer");
    let (status, location) = mount(from_app(&held)).await;
    assert_eq!((status, location), (201, format!("/v2/team/to/blobs/{held}")));
    let got = lab.get(&format!("team/to/blobs/{held}")).await;
    assert_eq!(got.text().await.unwrap(), "held");
}

#[tokio::test]
async fn deviation_10_pages_have_1000_entries_at_most() {
    let lab = lab().await;
    for name in ["team/a", "team/b"] {
        lab.repository(name).await;
    }
    for tag in ["one", "three", "two"] {
        lab.push_image("team/app", tag, b"layer").await;
    }
    for (path, member, expected) in [
        ("_catalog", "repositories", ["team/a", "team/app", "team/b"]),
        ("team/app/tags/list", "tags", ["one", "three", "two"]),
    ] {
        for (n, bound) in [
            ("1001", "less than or equal to 1000"),
            ("0", "greater than or equal to 1"),
            ("x", "1000"),
        ] {
            let (status, code, message) = error_of(lab.get(&format!("{path}?n={n}")).await).await;
            assert_eq!((status, code.as_str()), (405, "UNSUPPORTED"));
            assert!(
                message.contains("'maxResults'") && message.contains(bound),
                "{message}"
            );
        }
        let (mut next, mut found, mut pages) = (format!("{path}?n=2"), Vec::new(), 0);
        while !next.is_empty() {
            let page = lab.get(&next).await;
            let link = header(&page, "link").to_owned();
            assert!(link.is_empty() || link.ends_with("; rel=\"next\""), "{link}");
            next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
            let body: Value = page.json().await.unwrap();
            found.extend(body[member].as_array().unwrap().clone());
            pages += 1;
        }
        assert_eq!((found, pages), (expected.map(Value::from).to_vec(), 2));
    }
}

#[tokio::test]
async fn deviation_11_a_manifest_that_is_disliked_is_405() {
    let lab = lab().await;
    let good = lab.image("team/app", b"layer", json!({})).await;
    let artifact = "application/vnd.oci.artifact.manifest.v1+json";
    let parameter = format!("{MANIFEST}; charset=utf-8");
    let lying = lab.image("team/app", b"layer", json!({"mediaType": INDEX})).await;
    for (media_type, bytes) in [
        (MANIFEST, &b"{"[..]),
        (MANIFEST, b"[]"),
        (MANIFEST, b"\xff"),
        (INDEX, &good),
        (parameter.as_str(), &good),
        (artifact, &good),
        (MANIFEST, &lying),
        ("text/plain", &good),
    ] {
        let (status, code, message) = error_of(lab.put("team/app", "v1", media_type, bytes).await).await;
        assert_eq!((status, code.as_str()), (405, "UNSUPPORTED"), "{media_type}");
        assert!(
            message.starts_with("Invalid parameter at 'ImageManifest'"),
            "{message}"
        );
    }
    let large = lab
        .put("team/app", "v1", MANIFEST, &vec![b' '; 4 * MIB + 1])
        .await;
    assert_eq!(code_of(large).await, code(405, "UNSUPPORTED"));
    let tag = lab.put("team/app", ".v1", MANIFEST, &good).await;
    assert_eq!(code_of(tag).await, code(400, "TAG_INVALID"));
    assert!(lab.ecr.repositories()[0].images.is_empty());
    assert_eq!(
        lab.put("team/app", "v1", MANIFEST, &good).await.status(),
        StatusCode::CREATED
    );
}

/// Pushes an artifact that refers to a subject.
async fn refer(lab: &Lab, subject: &Digest, kind: Option<&str>, number: usize) -> Digest {
    let mut more = json!({
        "subject": {"mediaType": MANIFEST, "digest": subject.as_str(), "size": 1},
        "annotations": {"number": number.to_string()},
    });
    if let Some(kind) = kind {
        more["artifactType"] = kind.into();
    }
    let bytes = lab.image("team/app", b"signature", more).await;
    let digest = Digest::sha256_of(&bytes);
    let stored = lab.put("team/app", digest.as_str(), MANIFEST, &bytes).await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    assert_eq!(
        header(&stored, "oci-subject"),
        subject.as_str(),
        "deviation 12: it is always sent"
    );
    digest
}

#[tokio::test]
async fn deviation_12_referrers_are_listed_filtered_and_paged() {
    let lab = lab().await;
    // The subject need not be there yet.
    let subject = Digest::sha256_of("to come");
    let none: Value = lab
        .get(&format!("team/app/referrers/{subject}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(none["manifests"], json!([]));
    assert_eq!(
        code_of(lab.get("team/app/referrers/latest").await).await,
        code(400, "DIGEST_INVALID")
    );

    let signature = refer(&lab, &subject, Some("a/signature"), 0).await;
    let plain = refer(&lab, &subject, None, 1).await;
    let response = lab.get(&format!("team/app/referrers/{subject}")).await;
    assert_eq!(header(&response, "content-type"), INDEX);
    assert!(!response.headers().contains_key("oci-filters-applied"));
    let index: Value = response.json().await.unwrap();
    let entry = |digest: &Digest| {
        let entries = index["manifests"].as_array().unwrap();
        entries
            .iter()
            .find(|entry| entry["digest"] == digest.as_str())
            .unwrap()
            .clone()
    };
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(entry(&signature)["artifactType"], "a/signature");
    assert_eq!(entry(&signature)["annotations"]["number"], "0");
    assert_eq!(
        entry(&plain)["artifactType"],
        CONFIG,
        "the config's type stands for it"
    );

    for number in 2..62 {
        refer(&lab, &subject, Some("a/sbom+json"), number).await;
    }
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut next = format!("team/app/referrers/{subject}?artifactType=a%2Fsbom%2Bjson");
    while !next.is_empty() {
        let page = lab.get(&next).await;
        assert_eq!(header(&page, "oci-filters-applied"), "artifactType");
        next = header(&page, "link")
            .trim_start_matches('<')
            .split('>')
            .next()
            .unwrap()
            .to_owned();
        let page: Value = page.json().await.unwrap();
        found.extend(page["manifests"].as_array().unwrap().clone());
        pages += 1;
    }
    assert_eq!((found.len(), pages), (60, 2));
    assert!(found.iter().all(|entry| entry["artifactType"] == "a/sbom+json"));
    found.dedup_by(|a, b| a["digest"] == b["digest"]);
    assert_eq!(found.len(), 60);
}

#[tokio::test]
async fn deviation_13_an_image_needs_its_layers_and_an_index_its_images() {
    let lab = lab().await;
    let bytes = lab.image("team/app", b"layer", json!({})).await;
    let absent = Digest::sha256_of("absent");
    let text = String::from_utf8(bytes.clone()).unwrap();
    let missing = text.replace(Digest::sha256_of("layer").as_str(), absent.as_str());
    let (status, code, message) =
        error_of(lab.put("team/app", "v1", MANIFEST, missing.as_bytes()).await).await;
    assert_eq!((status, code.as_str()), (400, "BLOB_UPLOAD_UNKNOWN"));
    assert!(
        message.starts_with(&format!("Layers with digests '[{absent}]' required for pushing")),
        "{message}"
    );
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": Digest::sha256_of(&bytes).as_str(), "size": bytes.len()},
    ]});
    let early = lab
        .put("team/app", "v1", INDEX, index.to_string().as_bytes())
        .await;
    assert_eq!(code_of(early).await.0, 400);
    lab.put("team/app", "child", MANIFEST, &bytes).await;
    let stored = lab
        .put("team/app", "v1", INDEX, index.to_string().as_bytes())
        .await;
    assert_eq!(stored.status(), StatusCode::CREATED);
    // What an index holds on to is not deleted before it.
    let child = format!("team/app/manifests/{}", Digest::sha256_of(&bytes));
    let refused = lab.v2(Method::DELETE, &child).send().await.unwrap();
    assert_eq!(code_of(refused).await.0, 405);
}

#[tokio::test]
async fn deviation_14_blobs_lie_behind_signed_addresses_that_want_no_credentials() {
    let lab = lab().await;
    let digest = lab.push_blob("team/app", b"hello, world").await;
    let blob = format!("team/app/blobs/{digest}");
    let still = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let url = format!("http://{}/v2/{blob}", lab.ecr.registry_host());
    let redirected = still
        .get(&url)
        .basic_auth("AWS", Some(&lab.password))
        .send()
        .await
        .unwrap();
    assert_eq!(redirected.status(), StatusCode::TEMPORARY_REDIRECT);
    let signed = header(&redirected, "location").to_owned();
    assert!(!signed.contains(lab.ecr.registry_host()), "{signed}");
    assert!(!signed.contains(&lab.password));

    let got = still.get(&signed).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "hello, world");
    let part = still
        .get(&signed)
        .header("range", "bytes=7-")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (part.status(), header(&part, "content-range")),
        (StatusCode::PARTIAL_CONTENT, "bytes 7-11/12")
    );
    let beyond = still
        .get(&signed)
        .header("range", "bytes=12-")
        .send()
        .await
        .unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    let twice = still
        .get(&signed)
        .basic_auth("AWS", Some(&lab.password))
        .send()
        .await
        .unwrap();
    assert_eq!(twice.status(), StatusCode::BAD_REQUEST);
    assert!(
        twice
            .text()
            .await
            .unwrap()
            .contains("Only one auth mechanism allowed")
    );
    let other = Digest::sha256_of("other");
    let tampered = signed.replace(digest.as_str(), other.as_str());
    for request in [still.get(tampered), still.head(&signed), still.put(&signed)] {
        assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    }
    let bare = signed.split('?').next().unwrap();
    assert_eq!(
        still.get(bare).send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );

    // HEAD stays with the registry, and a registry that does not redirect is possible, too.
    let head = still
        .head(&url)
        .basic_auth("AWS", Some(&lab.password))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (head.status(), header(&head, "content-length")),
        (StatusCode::OK, "12")
    );
    assert_eq!(header(&head, "docker-content-digest"), digest.as_str());
    let reads = lab.ecr.storage_requests().len();
    lab.ecr.redirect_blobs(false);
    let direct = lab
        .v2(Method::GET, &blob)
        .header("range", "bytes=0-4")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (direct.status(), direct.text().await.unwrap()),
        (StatusCode::PARTIAL_CONTENT, "hello".into())
    );
    assert_eq!(lab.ecr.storage_requests().len(), reads);

    let short = EcrConfig {
        download_url_life: Duration::ZERO,
        ..EcrConfig::default()
    };
    let short = Lab::start(short).await;
    short.repository("team/app").await;
    short.push_blob("team/app", b"hello, world").await;
    let ended = short.get(&blob).await;
    assert_eq!(ended.status(), StatusCode::FORBIDDEN);
    assert!(ended.text().await.unwrap().contains("Request has expired"));
}

#[tokio::test]
async fn deviation_15_an_image_pulled_by_tag_is_translated_for_who_wants_another_format() {
    let lab = lab().await;
    let oci = lab.push_image("team/app", "oci", b"layer").await;
    let docker = json!({
        "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "digest": Digest::sha256_of("{}").as_str(), "size": 2},
        "layers": [{"mediaType": DOCKER_LAYER, "digest": Digest::sha256_of("other").as_str(), "size": 5}],
    });
    lab.push_blob("team/app", b"other").await;
    lab.put(
        "team/app",
        "docker",
        DOCKER_MANIFEST,
        docker.to_string().as_bytes(),
    )
    .await;
    let pull = async |method: Method, reference: &str, accept: &str| {
        let path = format!("team/app/manifests/{reference}");
        lab.v2(method, &path)
            .header("accept", accept)
            .send()
            .await
            .unwrap()
    };
    for (tag, content, stored, wanted, layer, config) in [
        (
            "oci",
            "layer",
            MANIFEST,
            DOCKER_MANIFEST,
            DOCKER_LAYER,
            DOCKER_CONFIG,
        ),
        ("docker", "other", DOCKER_MANIFEST, MANIFEST, LAYER, CONFIG),
    ] {
        let translated = pull(Method::GET, tag, wanted).await;
        assert_eq!(header(&translated, "content-type"), wanted);
        let digest: Digest = header(&translated, "docker-content-digest").parse().unwrap();
        let head = pull(Method::HEAD, tag, wanted).await;
        assert_eq!(
            header(&head, "docker-content-digest"),
            digest.as_str(),
            "HEAD says the same"
        );
        assert_eq!(
            header(&head, "content-length"),
            header(&translated, "content-length")
        );
        let bytes = translated.bytes().await.unwrap();
        assert!(digest.matches(&bytes));
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            (&manifest["mediaType"], &manifest["layers"][0]["mediaType"]),
            (&json!(wanted), &json!(layer))
        );
        assert_eq!(manifest["config"]["mediaType"], config);
        assert_eq!(
            manifest["layers"][0]["digest"],
            Digest::sha256_of(content).as_str()
        );
        // Whoever takes both gets what was pushed; so does who asks for neither.
        for accept in [
            format!("{wanted}, {stored}"),
            "*/*".into(),
            "application/json".into(),
        ] {
            assert_eq!(
                header(&pull(Method::GET, tag, &accept).await, "content-type"),
                stored
            );
        }
        let by_digest = pull(Method::GET, digest.as_str(), wanted).await;
        assert_eq!(
            code_of(by_digest).await,
            code(404, "MANIFEST_UNKNOWN"),
            "the translation is not stored"
        );
    }
    let by_digest = pull(Method::GET, oci.as_str(), DOCKER_MANIFEST).await;
    assert_eq!(
        header(&by_digest, "content-type"),
        MANIFEST,
        "by digest nothing is translated"
    );
}

#[tokio::test]
async fn deviation_16_throttling_is_429() {
    let lab = lab().await;
    lab.ecr.throttle_registry(2);
    for _ in 0..2 {
        let (status, code, message) = error_of(lab.get("team/app/tags/list").await).await;
        assert_eq!(
            (status, code.as_str(), message.as_str()),
            (429, "TOOMANYREQUESTS", "Rate exceeded")
        );
    }
    assert_eq!(lab.get("team/app/tags/list").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn images_are_counted_by_digest_whatever_their_tags() {
    let lab = lab().await;
    let digest = lab.push_image("team/app", "one", b"layer").await;
    lab.push_image("team/app", "two", b"layer").await;
    lab.push_image("team/app", digest.as_str(), b"layer").await;
    let described = lab
        .call("DescribeImages", json!({"repositoryName": "team/app"}))
        .await;
    let details = described["imageDetails"].as_array().unwrap();
    assert_eq!(
        (details.len(), &details[0]["imageTags"]),
        (1, &json!(["one", "two"]))
    );
    // One tag goes, the image stays; the last one takes it along.
    for (tag, left) in [("one", 1), ("two", 0)] {
        let gone = lab
            .v2(Method::DELETE, &format!("team/app/manifests/{tag}"))
            .send()
            .await
            .unwrap();
        assert_eq!(gone.status(), StatusCode::ACCEPTED);
        assert_eq!(lab.ecr.repositories()[0].images.len(), left);
    }
}

#[tokio::test]
async fn head_says_what_get_does() {
    let lab = lab().await;
    lab.push_image("team/app", "v1", b"layer").await;
    lab.ecr.redirect_blobs(false);
    let layer = Digest::sha256_of("layer");
    for path in [
        "team/app/manifests/v1".to_owned(),
        "team/app/manifests/none".into(),
        format!("team/app/blobs/{layer}"),
        "team/app/tags/list".into(),
        "_catalog".into(),
    ] {
        let get = lab.get(&path).await;
        let head = lab.v2(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(get.status(), head.status(), "{path}");
        for name in [
            "content-type",
            "content-length",
            "docker-content-digest",
            "docker-distribution-api-version",
        ] {
            assert_eq!(header(&get, name), header(&head, name), "{path}: {name}");
        }
        assert!(head.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn layers_are_uploaded_in_parts_through_the_json_api() {
    let lab = lab().await;
    let name = json!({"repositoryName": "team/app"});
    let started = lab.call("InitiateLayerUpload", name.clone()).await;
    assert!(started["partSize"].as_u64().unwrap() >= 5 * MIB as u64);
    let id = started["uploadId"].as_str().unwrap().to_owned();
    let with = |id: &str, more: Value| {
        let mut input = json!({"repositoryName": "team/app", "uploadId": id});
        input
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        input
    };
    let part = |id: &str, first: usize, last: usize, bytes: &[u8]| {
        with(
            id,
            json!({"partFirstByte": first, "partLastByte": last, "layerPartBlob": STANDARD.encode(bytes)}),
        )
    };
    let complete = |id: &str, digest: &Digest| with(id, json!({"layerDigests": [digest.as_str()]}));
    let layer = vec![7_u8; 5 * MIB + 3];
    let digest = Digest::sha256_of(&layer);
    assert_eq!(
        lab.refused("CompleteLayerUpload", complete(&id, &digest)).await,
        "EmptyUploadException"
    );

    let sent = lab
        .call("UploadLayerPart", part(&id, 0, 5 * MIB - 1, &layer[..5 * MIB]))
        .await;
    assert_eq!(
        (&sent["lastByteReceived"], &sent["uploadId"]),
        (&json!(5 * MIB - 1), &json!(id))
    );
    // The first byte is not the next one; the bytes are not as many as said; there are none.
    for (first, last, bytes) in [
        (0, 4, &b"again"[..]),
        (5 * MIB, 5 * MIB + 9, b"abc"),
        (5 * MIB, 5 * MIB, b""),
    ] {
        let (status, refused) = lab.ask("UploadLayerPart", &part(&id, first, last, bytes)).await;
        assert_eq!(
            (status.as_u16(), &refused["__type"]),
            (400, &json!("InvalidLayerPartException"))
        );
        assert_eq!(refused["lastValidByteReceived"], 5 * MIB - 1);
        assert_eq!(
            (&refused["uploadId"], &refused["repositoryName"]),
            (&json!(id), &json!("team/app"))
        );
    }
    // `/v2/` sees the same session, and the last part may be small.
    let progress = lab.get(&format!("team/app/blobs/uploads/{id}")).await;
    assert_eq!(header(&progress, "range"), format!("0-{}", 5 * MIB - 1));
    lab.call(
        "UploadLayerPart",
        part(&id, 5 * MIB, 5 * MIB + 2, &layer[5 * MIB..]),
    )
    .await;
    let done = lab.call("CompleteLayerUpload", complete(&id, &digest)).await;
    assert_eq!(done["layerDigest"], digest.as_str());
    assert_eq!(lab.ecr.blob(&digest).unwrap(), layer);
    assert_eq!(
        lab.refused("CompleteLayerUpload", complete(&id, &digest)).await,
        "UploadNotFoundException"
    );
    let foreign = lab.call("InitiateLayerUpload", name.clone()).await["uploadId"]
        .as_str()
        .unwrap()
        .to_owned();
    lab.repository("team/other").await;
    let mut elsewhere = part(&foreign, 0, 0, b"x");
    elsewhere["repositoryName"] = "team/other".into();
    assert_eq!(
        lab.refused("UploadLayerPart", elsewhere).await,
        "UploadNotFoundException"
    );

    let upload = async |parts: &[&[u8]]| {
        let id = lab.call("InitiateLayerUpload", name.clone()).await["uploadId"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut first = 0;
        for bytes in parts {
            lab.call(
                "UploadLayerPart",
                part(&id, first, first + bytes.len() - 1, bytes),
            )
            .await;
            first += bytes.len();
        }
        id
    };
    let id = upload(&[b"small", b"small"]).await;
    let two = Digest::sha256_of("smallsmall");
    assert_eq!(
        lab.refused("CompleteLayerUpload", complete(&id, &two)).await,
        "LayerPartTooSmallException"
    );
    let id = upload(&[b"x"]).await;
    assert_eq!(
        lab.refused("CompleteLayerUpload", complete(&id, &two)).await,
        "InvalidLayerException"
    );
    let id = upload(&[&layer]).await;
    assert_eq!(
        lab.refused("CompleteLayerUpload", complete(&id, &digest)).await,
        "LayerAlreadyExistsException"
    );
    let nameless = with(&id, json!({"layerDigests": ["x"]}));
    assert_eq!(
        lab.refused("CompleteLayerUpload", nameless).await,
        "InvalidParameterException"
    );
    let nowhere = json!({"repositoryName": "team/none"});
    assert_eq!(
        lab.refused("InitiateLayerUpload", nowhere).await,
        "RepositoryNotFoundException"
    );
}

#[tokio::test]
async fn the_address_of_a_layer_works_without_credentials() {
    let lab = lab().await;
    let loose = lab.push_blob("team/app", b"loose").await;
    lab.push_image("team/app", "v1", b"layer").await;
    let ask = |digest: &str| json!({"repositoryName": "team/app", "layerDigest": digest});
    let layer = Digest::sha256_of("layer");
    let answer = lab.call("GetDownloadUrlForLayer", ask(layer.as_str())).await;
    assert_eq!(answer["layerDigest"], layer.as_str());
    let url = answer["downloadUrl"].as_str().unwrap();
    let got = lab.http.get(url).send().await.unwrap();
    assert_eq!(got.text().await.unwrap(), "layer");
    for (digest, refused) in [
        (loose.as_str(), "LayerInaccessibleException"),
        (Digest::sha256_of("none").as_str(), "LayersNotFoundException"),
        ("x", "InvalidParameterException"),
    ] {
        assert_eq!(lab.refused("GetDownloadUrlForLayer", ask(digest)).await, refused);
    }
}
