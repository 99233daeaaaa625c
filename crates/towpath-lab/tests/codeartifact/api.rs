use crate::caller::{IN, failure, lab};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use towpath_core::{PackageFormat, PackageId, Secret};
use towpath_lab::codeartifact::{Origin, Status};

const TOOL: &str = "format=generic&namespace=acme&package=tool";

#[tokio::test]
async fn only_what_is_signed_with_the_right_key_is_answered() {
    let (lab, mut caller) = lab().await;
    let path = "/v1/domain?domain=acme&domain-owner=111122223333";
    let domain = &caller.ok(Method::GET, path, Value::Null).await["domain"];
    assert_eq!(domain["repositoryCount"], 2);
    assert_eq!(
        domain["arn"],
        "arn:aws:codeartifact:eu-west-1:111122223333:domain/acme"
    );

    let unsigned = reqwest::get(format!("{}{path}", lab.api_url())).await.unwrap();
    let (status, code, _) = failure(unsigned).await;
    assert_eq!(
        (status, code.as_str()),
        (403, "MissingAuthenticationTokenException")
    );
    caller.config.secret_access_key = Secret::new("another");
    let (status, code, body) = caller.fails(Method::GET, path, Value::Null).await;
    assert_eq!((status, code.as_str()), (403, "InvalidSignatureException"));
    assert!(body["message"].as_str().unwrap().contains("does not match"));
    caller.config.access_key_id = "AKIASOMEBODYELSE0000".into();
    let (status, code, _) = caller.fails(Method::GET, path, Value::Null).await;
    assert_eq!((status, code.as_str()), (403, "UnrecognizedClientException"));
}

#[tokio::test]
async fn errors_are_the_services_own() {
    let (_lab, caller) = lab().await;
    let connect = "/v1/repository/external-connection?domain=acme&repository=crates-io-store\
                   &external-connection=public:npmjs";
    let cases = [
        (
            Method::GET,
            "/v1/domain?domain=nobody",
            404,
            "ResourceNotFoundException",
        ),
        (
            Method::GET,
            "/v1/domain?domain=acme&domain-owner=999999999999",
            404,
            "ResourceNotFoundException",
        ),
        (Method::GET, "/v1/domain", 400, "ValidationException"),
        (Method::POST, "/v1/domain?domain=acme", 409, "ConflictException"),
        (Method::POST, "/v1/domain?domain=Acme", 400, "ValidationException"),
        (Method::GET, "/v1/nothing", 404, "UnknownOperationException"),
        (
            Method::POST,
            "/v1/authorization-token?domain=acme&duration=60",
            400,
            "ValidationException",
        ),
        (
            Method::POST,
            "/v1/repositories?max-results=0",
            400,
            "ValidationException",
        ),
        (
            Method::POST,
            "/v1/repositories?next-token=%21",
            400,
            "ValidationException",
        ),
        (Method::POST, connect, 402, "ServiceQuotaExceededException"),
    ];
    for (method, path, status, code) in cases {
        let (got, name, body) = caller.fails(method, path, json!({})).await;
        assert_eq!((got, name.as_str()), (status, code), "{path}: {body}");
        assert!(body["message"].is_string());
    }
    let (_, _, body) = caller
        .fails(Method::GET, "/v1/domain?domain=nobody", json!({}))
        .await;
    assert_eq!(
        (&body["resourceType"], &body["resourceId"]),
        (&json!("domain"), &json!("nobody"))
    );
    let broken = caller
        .send(Method::POST, "/v1/domain?domain=new-one", &[], b"{".to_vec())
        .await;
    assert_eq!(failure(broken).await.2["reason"], "CANNOT_PARSE");
}

#[tokio::test]
async fn a_token_opens_the_endpoint_that_the_api_names_until_it_expires() {
    let (lab, caller) = lab().await;
    let before = jiff::Timestamp::now().as_second() as f64;
    let token = caller
        .ok(
            Method::POST,
            "/v1/authorization-token?domain=acme&duration=900",
            json!({}),
        )
        .await;
    let life = token["expiration"].as_f64().unwrap() - before;
    assert!((900.0..1000.0).contains(&life), "{life}");
    let (good, endpoint) = caller.cargo("libraries").await;
    assert!(endpoint.ends_with("/cargo/libraries/"), "{endpoint}");

    let get = async |token: Option<&str>, path: &str| {
        let mut request = reqwest::Client::new().get(format!("{endpoint}{path}"));
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        request.send().await.unwrap()
    };
    let refused = get(None, "config.json").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(refused.headers().contains_key("www-authenticate"));
    let config: Value = get(Some(&good), "config.json").await.json().await.unwrap();
    assert_eq!(config["auth-required"], true);
    assert_eq!(
        get(Some("wrong"), "config.json").await.status(),
        StatusCode::UNAUTHORIZED
    );

    let index = get(Some(&good), "to/wp/towpath-greeting").await;
    let tag = index.headers()["etag"].to_str().unwrap().to_owned();
    let lines = index.text().await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(lines.trim()).unwrap()["vers"],
        "1.0.0"
    );
    let again = reqwest::Client::new().get(format!("{endpoint}to/wp/towpath-greeting"));
    let again = again
        .header("authorization", &good)
        .header("if-none-match", tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    for elsewhere in [
        "to/wa/towpath-greeting",
        "to/wp/towpath-other",
        "x",
        "api/v1/crates/towpath-greeting/2.0.0/download",
    ] {
        assert_eq!(
            get(Some(&good), elsewhere).await.status(),
            StatusCode::NOT_FOUND,
            "{elsewhere}"
        );
    }

    lab.expire_tokens();
    assert_eq!(
        get(Some(&good), "config.json").await.status(),
        StatusCode::UNAUTHORIZED
    );
    lab.set_token_lifetime(Some(Duration::ZERO));
    let (dead, _) = caller.cargo("libraries").await;
    assert_eq!(
        get(Some(&dead), "config.json").await.status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_generic_version_is_published_asset_by_asset_and_read_back() {
    let (lab, caller) = lab().await;
    let at = format!("{TOOL}&version=1.0.0");
    let first = caller
        .publish(&format!("{at}&asset=a.txt&unfinished=true"), b"one")
        .await;
    let first: Value = first.json().await.unwrap();
    assert_eq!(
        (&first["status"], &first["asset"]["size"]),
        (&json!("Unfinished"), &json!(3))
    );
    let last: Value = caller
        .publish(&format!("{at}&asset=b.txt"), b"two")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(last["status"], "Published");
    assert_ne!(first["versionRevision"], last["versionRevision"]);

    // Once it is complete, the same bytes change nothing; other bytes and other assets conflict.
    let same: Value = caller
        .publish(&format!("{at}&asset=a.txt"), b"one")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(same["versionRevision"], last["versionRevision"]);
    for (asset, bytes) in [("a.txt", b"ONE"), ("c.txt", b"tri")] {
        let (status, code, _) = failure(caller.publish(&format!("{at}&asset={asset}"), bytes).await).await;
        assert_eq!((status, code.as_str()), (409, "ConflictException"), "{asset}");
    }
    let path = format!("/v1/package/version/publish?{IN}&{TOOL}&version=2.0.0&asset=a");
    let hash = hex::encode(Sha256::digest(b"announced"));
    let wrong = caller
        .send(
            Method::POST,
            &path,
            &[("x-amz-content-sha256", &hash)],
            b"sent".to_vec(),
        )
        .await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let silent = caller.send(Method::POST, &path, &[], b"sent".to_vec()).await;
    assert_eq!(silent.status(), StatusCode::BAD_REQUEST);

    let described = caller
        .ok(
            Method::GET,
            &format!("/v1/package/version?{IN}&{at}"),
            Value::Null,
        )
        .await;
    let described = &described["packageVersion"];
    assert_eq!(
        described["origin"]["domainEntryPoint"],
        json!({ "repositoryName": "libraries" })
    );
    assert_eq!(
        (&described["packageName"], &described["status"]),
        (&json!("tool"), &json!("Published"))
    );

    let path = format!("/v1/package/version/assets?{IN}&{at}&max-results=1");
    let assets = caller.ok(Method::POST, &path, json!({})).await;
    assert_eq!(
        assets["assets"][0]["hashes"]["SHA-256"],
        hex::encode(Sha256::digest(b"one"))
    );
    let path = format!("{path}&next-token={}", assets["nextToken"].as_str().unwrap());
    let assets = caller.ok(Method::POST, &path, json!({})).await;
    assert_eq!(
        (&assets["assets"][0]["name"], &assets["nextToken"]),
        (&json!("b.txt"), &Value::Null)
    );

    let path = format!("/v1/package/version/asset?{IN}&{at}&asset=b.txt");
    let file = caller.send(Method::GET, &path, &[], Vec::new()).await;
    assert_eq!(file.headers()["x-assetname"], "b.txt");
    assert_eq!(file.headers()["x-packageversion"], "1.0.0");
    assert_eq!(
        file.headers()["x-packageversionrevision"].to_str().unwrap(),
        last["versionRevision"]
    );
    assert_eq!(&file.bytes().await.unwrap()[..], b"two");

    let id = PackageId::new(PackageFormat::Generic, Some("acme"), "tool").unwrap();
    let kept = lab.version("acme", "libraries", &id, "1.0.0").unwrap();
    assert_eq!((kept.status, kept.assets.len()), (Status::Published, 2));
    assert_eq!(
        kept.origin,
        Origin::Internal {
            repository: "libraries".into()
        }
    );
}

#[tokio::test]
async fn versions_are_copied_changed_and_removed_one_by_one() {
    let (lab, caller) = lab().await;
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        let published = caller
            .publish(&format!("{TOOL}&version={version}&asset=a"), version.as_bytes())
            .await;
        assert_eq!(published.status(), StatusCode::OK);
    }
    caller
        .ok(
            Method::POST,
            "/v1/repository?domain=acme&repository=prod",
            json!({ "description": "d" }),
        )
        .await;
    let copy = format!(
        "/v1/package/versions/copy?domain=acme&source-repository=libraries&destination-repository=prod&{TOOL}"
    );
    let copied = caller
        .ok(Method::POST, &copy, json!({ "versions": ["1.0.0", "9.9.9"] }))
        .await;
    assert_eq!(copied["successfulVersions"]["1.0.0"]["status"], "Published");
    assert_eq!(copied["failedVersions"]["9.9.9"]["errorCode"], "NOT_FOUND");
    let again = caller
        .ok(
            Method::POST,
            &copy,
            json!({ "versionRevisions": { "1.0.0": "old" } }),
        )
        .await;
    assert_eq!(
        again["failedVersions"]["1.0.0"]["errorCode"],
        "MISMATCHED_REVISION"
    );
    let again = caller
        .ok(Method::POST, &copy, json!({ "versions": ["1.0.0"] }))
        .await;
    assert_eq!(again["failedVersions"]["1.0.0"]["errorCode"], "ALREADY_EXISTS");
    let again = caller
        .ok(
            Method::POST,
            &copy,
            json!({ "versions": ["1.0.0"], "allowOverwrite": true }),
        )
        .await;
    assert_eq!(again["failedVersions"], json!({}));
    let both = json!({ "versions": ["1.0.0"], "versionRevisions": { "1.0.0": "x" } });
    assert_eq!(caller.fails(Method::POST, &copy, both).await.0, 400);
    let id = PackageId::new(PackageFormat::Generic, Some("acme"), "tool").unwrap();
    let assets = |repository| lab.version("acme", repository, &id, "1.0.0").unwrap().assets;
    assert_eq!(assets("libraries"), assets("prod"));

    let change = |what: &str| format!("/v1/package/versions{what}?{IN}&{TOOL}");
    let archive =
        json!({ "versions": ["1.0.0", "1.1.0"], "targetStatus": "Archived", "expectedStatus": "Published" });
    let archived = caller
        .ok(Method::POST, &change("/update_status"), archive.clone())
        .await;
    assert_eq!(archived["successfulVersions"]["1.1.0"]["status"], "Archived");
    let archived = caller.ok(Method::POST, &change("/update_status"), archive).await;
    assert_eq!(
        archived["failedVersions"]["1.1.0"]["errorCode"],
        "MISMATCHED_STATUS"
    );
    let path = format!("/v1/package/version/asset?{IN}&{TOOL}&version=1.0.0&asset=a");
    assert_eq!(caller.fails(Method::GET, &path, Value::Null).await.0, 409);
    caller
        .ok(
            Method::POST,
            &change("/dispose"),
            json!({ "versions": ["1.0.0"] }),
        )
        .await;
    let back = json!({ "versions": ["1.0.0"], "targetStatus": "Published" });
    let back = caller.ok(Method::POST, &change("/update_status"), back).await;
    assert_eq!(back["failedVersions"]["1.0.0"]["errorCode"], "NOT_ALLOWED");
    let deleted = caller
        .ok(Method::POST, &change("/delete"), json!({ "versions": ["1.1.0"] }))
        .await;
    assert_eq!(deleted["successfulVersions"]["1.1.0"]["status"], "Deleted");

    let listed = caller.ok(Method::POST, &change(""), json!({})).await;
    let seen: Vec<String> = listed["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| format!("{} {}", version["version"], version["status"]))
        .collect();
    assert_eq!(seen, [r#""1.0.0" "Disposed""#, r#""2.0.0" "Published""#]);
    assert_eq!(listed["defaultDisplayVersion"], "2.0.0");
    let path = change("") + "&status=Disposed&sortBy=PUBLISHED_TIME";
    assert_eq!(
        caller.ok(Method::POST, &path, json!({})).await["versions"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn origin_controls_guard_a_package_before_it_exists() {
    let (_lab, caller) = lab().await;
    let path = format!("/v1/package?{IN}&{TOOL}");
    let block = json!({ "restrictions": { "publish": "BLOCK", "upstream": "ALLOW" } });
    caller.ok(Method::POST, &path, block).await;
    let refused = failure(caller.publish(&format!("{TOOL}&version=1&asset=a"), b"x").await).await;
    assert_eq!((refused.0, refused.1.as_str()), (403, "AccessDeniedException"));
    let half = json!({ "restrictions": { "publish": "ALLOW" } });
    assert_eq!(caller.fails(Method::POST, &path, half).await.0, 400);
    let allow = json!({ "restrictions": { "publish": "ALLOW", "upstream": "BLOCK" } });
    caller.ok(Method::POST, &path, allow.clone()).await;
    assert_eq!(
        caller
            .publish(&format!("{TOOL}&version=1&asset=a"), b"x")
            .await
            .status(),
        StatusCode::OK
    );
    let described = caller.ok(Method::GET, &path, Value::Null).await;
    assert_eq!(described["package"]["originConfiguration"], allow);
    let path = format!("/v1/packages?{IN}&publish=ALLOW&package-prefix=to");
    assert_eq!(
        caller.ok(Method::POST, &path, json!({})).await["packages"][0]["package"],
        "tool"
    );
    let path = format!("/v1/packages?{IN}&format=cargo");
    assert_eq!(
        caller.ok(Method::POST, &path, json!({})).await["packages"],
        json!([])
    );
}

#[tokio::test]
async fn lists_are_paged() {
    let (_lab, caller) = lab().await;
    for name in ["aa", "bb", "cc"] {
        let upstreams = json!({ "upstreams": [{ "repositoryName": "libraries" }] });
        caller
            .ok(
                Method::POST,
                &format!("/v1/repository?domain=acme&repository={name}"),
                upstreams,
            )
            .await;
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/domain/repositories?domain=acme&max-results=2{token}");
        let page = caller.ok(Method::POST, &path, json!({})).await;
        for repository in page["repositories"].as_array().unwrap() {
            seen.push(repository["name"].as_str().unwrap().to_owned());
        }
        match page["nextToken"].as_str() {
            Some(next) => token = format!("&next-token={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["aa", "bb", "cc", "crates-io-store", "libraries"]);
    let domains = caller
        .ok(Method::POST, "/v1/domains", json!({ "maxResults": 1 }))
        .await;
    assert_eq!(
        (&domains["domains"][0]["name"], &domains["nextToken"]),
        (&json!("acme"), &Value::Null)
    );
    let path = "/v1/repository?domain=acme&repository=aa";
    let updated = caller.ok(Method::PUT, path, json!({ "upstreams": [] })).await;
    assert_eq!(updated["repository"]["upstreams"], json!([]));
    let unknown = json!({ "upstreams": [{ "repositoryName": "none" }] });
    assert_eq!(caller.fails(Method::PUT, path, unknown).await.0, 404);
}
