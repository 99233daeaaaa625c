//! The control plane of repositories and of the registry at wire level: policies, templates, tags, replication, signing,
//! settings, and what a caller without permissions is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod ecr_common;

use ecr_common::{Lab, MANIFEST, code_of, error_of};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use towpath_core::Digest;
use towpath_lab::Fault;
use towpath_lab::ecr::{EcrConfig, ImageSeed, Upstream, UpstreamConfig, UpstreamKind};

const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":"ecr:BatchGetImage"}]}"#;

async fn lab() -> Lab {
    Lab::start(EcrConfig::default()).await
}

#[tokio::test]
async fn repositories_have_encryption_tags_and_a_policy() {
    let lab = lab().await;
    let made = lab
        .call(
            "CreateRepository",
            json!({
                "repositoryName": "team/app",
                "tags": [{"Key": "team", "Value": "web"}],
                "encryptionConfiguration": {"encryptionType": "KMS", "kmsKey": "alias/images"},
            }),
        )
        .await;
    let arn = made["repository"]["repositoryArn"].as_str().unwrap().to_owned();
    assert_eq!(
        made["repository"]["encryptionConfiguration"],
        json!({"encryptionType": "KMS", "kmsKey": "arn:aws:kms:eu-west-1:123456789012:alias/images"})
    );

    lab.call(
        "TagResource",
        json!({"resourceArn": arn, "tags": [{"Key": "cost", "Value": "7"}]}),
    )
    .await;
    lab.call("UntagResource", json!({"resourceArn": arn, "tagKeys": ["team"]}))
        .await;
    let tags = lab.call("ListTagsForResource", json!({"resourceArn": arn})).await;
    assert_eq!(tags["tags"], json!([{"Key": "cost", "Value": "7"}]));
    let many: Vec<Value> = (0..50)
        .map(|n| json!({"Key": n.to_string(), "Value": ""}))
        .collect();
    for (tags, error) in [
        (json!(many), "TooManyTagsException"),
        (
            json!([{"Key": "aws:x", "Value": ""}]),
            "InvalidTagParameterException",
        ),
        (
            json!([{"Key": "a".repeat(129), "Value": ""}]),
            "InvalidTagParameterException",
        ),
    ] {
        let input = json!({"resourceArn": arn, "tags": tags});
        assert_eq!(lab.refused("TagResource", input).await, error);
    }
    let elsewhere = json!({"resourceArn": "arn:aws:ecr:eu-west-1:123456789012:repository/none"});
    assert_eq!(
        lab.refused("ListTagsForResource", elsewhere).await,
        "RepositoryNotFoundException"
    );

    let named = json!({"repositoryName": "team/app"});
    assert_eq!(
        lab.refused("GetRepositoryPolicy", named.clone()).await,
        "RepositoryPolicyNotFoundException"
    );
    let set = |text: &str| json!({"repositoryName": "team/app", "policyText": text});
    lab.call("SetRepositoryPolicy", set(POLICY)).await;
    let kept = lab.call("GetRepositoryPolicy", named.clone()).await;
    let kept = kept["policyText"].as_str().unwrap();
    // The service writes policies its own way, so bytes cannot be compared.
    assert_ne!(kept, POLICY);
    let kept: Value = serde_json::from_str(kept).unwrap();
    assert_eq!(
        kept["Statement"][0]["Principal"]["AWS"],
        "arn:aws:iam::210987654321:root"
    );
    for wrong in [
        "",
        "[]",
        "{",
        r#"{"Statement":[]}"#,
        r#"{"Statement":{"Effect":"Allow"}}"#,
        &" ".repeat(10_241),
    ] {
        assert_eq!(
            lab.refused("SetRepositoryPolicy", set(wrong)).await,
            "InvalidParameterException"
        );
    }
    lab.call("DeleteRepositoryPolicy", named.clone()).await;
    assert_eq!(
        lab.refused("DeleteRepositoryPolicy", named).await,
        "RepositoryPolicyNotFoundException"
    );
}

#[tokio::test]
async fn words_of_repositories_are_checked() {
    let lab = lab().await;
    let filter = |text: &str| json!({"filterType": "WILDCARD", "filter": text});
    let six: Vec<Value> = (0..6).map(|n| filter(&n.to_string())).collect();
    for wrong in [
        json!({"encryptionConfiguration": {"encryptionType": "ROT13"}}),
        json!({"encryptionConfiguration": {"encryptionType": "AES256", "kmsKey": "alias/x"}}),
        json!({"imageTagMutability": "SOMETIMES"}),
        json!({"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"}),
        json!({"imageTagMutability": "IMMUTABLE", "imageTagMutabilityExclusionFilters": [filter("v*")]}),
        json!({"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": six}),
        json!({"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION", "imageTagMutabilityExclusionFilters": [filter("a/b")]}),
        json!({"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
            "imageTagMutabilityExclusionFilters": [{"filterType": "REGEX", "filter": "a"}]}),
    ] {
        let mut input = wrong;
        input["repositoryName"] = "team/app".into();
        let said = lab.refused("CreateRepository", input.clone()).await;
        assert_eq!(said, "InvalidParameterException", "{input}");
    }
    assert!(lab.ecr.repositories().is_empty());
}

#[tokio::test]
async fn the_registry_has_a_policy_replication_signing_and_settings() {
    let lab = lab().await;
    let none = json!({});
    assert_eq!(
        lab.refused("GetRegistryPolicy", none.clone()).await,
        "RegistryPolicyNotFoundException"
    );
    lab.call("PutRegistryPolicy", json!({"policyText": POLICY})).await;
    assert!(lab.call("GetRegistryPolicy", none.clone()).await["policyText"].is_string());
    lab.call("DeleteRegistryPolicy", none.clone()).await;
    assert_eq!(
        lab.refused("DeleteRegistryPolicy", none.clone()).await,
        "RegistryPolicyNotFoundException"
    );

    let destination = |region: &str| json!({"region": region, "registryId": "123456789012"});
    let rules = json!([{
        "destinations": [destination("us-east-1")],
        "repositoryFilters": [{"filter": "prod/", "filterType": "PREFIX_MATCH"}],
    }]);
    let put = |rules: Value| json!({"replicationConfiguration": {"rules": rules}});
    lab.call("PutReplicationConfiguration", put(rules.clone())).await;
    let described = lab.call("DescribeRegistry", none.clone()).await;
    assert_eq!(described["replicationConfiguration"]["rules"], rules);
    let many: Vec<Value> = (0..26).map(|n| destination(&format!("region-{n}"))).collect();
    for wrong in [
        json!([{"destinations": []}]),
        json!([{"destinations": [destination("eu-west-1")]}]),
        json!([{"destinations": many}]),
        json!(vec![json!({"destinations": [destination("us-east-1")]}); 11]),
    ] {
        let said = lab.refused("PutReplicationConfiguration", put(wrong)).await;
        assert_eq!(said, "ValidationException");
    }
    for wrong in [
        json!([{"destinations": [{"region": "us-east-1", "registryId": "1"}]}]),
        json!([{"destinations": [destination("US")]}]),
        json!([{"destinations": [destination("us-east-1")], "repositoryFilters": []}]),
        json!([{"destinations": [destination("us-east-1")],
            "repositoryFilters": [{"filter": "prod", "filterType": "WILDCARD"}]}]),
    ] {
        let said = lab.refused("PutReplicationConfiguration", put(wrong)).await;
        assert_eq!(said, "InvalidParameterException");
    }

    assert_eq!(
        lab.refused("GetSigningConfiguration", none.clone()).await,
        "SigningConfigurationNotFoundException"
    );
    let profile = "arn:aws:signer:eu-west-1:123456789012:/signing-profiles/images";
    let filters = json!([{"filter": "prod/*", "filterType": "WILDCARD_MATCH"}]);
    let signing = |arn: &str| {
        let rules = json!([{"signingProfileArn": arn, "repositoryFilters": filters}]);
        json!({"signingConfiguration": {"rules": rules}})
    };
    lab.call("PutSigningConfiguration", signing(profile)).await;
    let got = lab.call("GetSigningConfiguration", none.clone()).await;
    assert_eq!(
        got["signingConfiguration"],
        signing(profile)["signingConfiguration"]
    );
    let wrong = signing("arn:aws:signer:eu-west-1:123456789012:images");
    assert_eq!(
        lab.refused("PutSigningConfiguration", wrong).await,
        "InvalidParameterException"
    );
    lab.call("DeleteSigningConfiguration", none.clone()).await;
    assert_eq!(
        lab.refused("DeleteSigningConfiguration", none).await,
        "SigningConfigurationNotFoundException"
    );

    for (name, value, allowed) in [
        ("BLOB_MOUNTING", "ENABLED", true),
        ("REGISTRY_POLICY_SCOPE", "V2", true),
        ("REGISTRY_POLICY_SCOPE", "V1", false),
        ("BASIC_SCAN_TYPE_VERSION", "AWS_NATIVE", true),
        ("BASIC_SCAN_TYPE_VERSION", "CLAIR", false),
        ("COLOUR", "RED", false),
    ] {
        let (status, answer) = lab
            .ask("PutAccountSetting", &json!({"name": name, "value": value}))
            .await;
        assert_eq!(status == StatusCode::OK, allowed, "{name}: {answer}");
    }

    let role = json!({"principalArn": "arn:aws:iam::123456789012:role/scanner"});
    lab.call("RegisterPullTimeUpdateExclusion", role.clone()).await;
    assert_eq!(
        lab.refused("RegisterPullTimeUpdateExclusion", role.clone()).await,
        "ExclusionAlreadyExistsException"
    );
    let listed = lab.call("ListPullTimeUpdateExclusions", json!({})).await;
    assert_eq!(listed["pullTimeUpdateExclusions"], json!([role["principalArn"]]));
    lab.call("DeregisterPullTimeUpdateExclusion", role.clone()).await;
    assert_eq!(
        lab.refused("DeregisterPullTimeUpdateExclusion", role).await,
        "ExclusionNotFoundException"
    );
}

#[tokio::test]
async fn a_push_makes_a_repository_only_by_a_template() {
    let lab = lab().await;
    let start = async |name: &str| {
        let path = format!("{name}/blobs/uploads/");
        lab.v2(Method::POST, &path).send().await.unwrap().status()
    };
    let template = |prefix: &str, word: &str| json!({"prefix": prefix, "appliedFor": [word]});
    lab.call(
        "CreateRepositoryCreationTemplate",
        template("prod", "CREATE_ON_PUSH"),
    )
    .await;
    lab.call(
        "CreateRepositoryCreationTemplate",
        template("cache", "PULL_THROUGH_CACHE"),
    )
    .await;
    assert_eq!(start("prodigy/app").await, StatusCode::NOT_FOUND);
    assert_eq!(start("cache/app").await, StatusCode::NOT_FOUND);
    assert_eq!(start("prod/app").await, StatusCode::ACCEPTED);

    let mut nearer = template("prod/fixed", "CREATE_ON_PUSH");
    nearer["imageTagMutability"] = "IMMUTABLE".into();
    nearer["repositoryPolicy"] = POLICY.into();
    lab.call("CreateRepositoryCreationTemplate", nearer.clone()).await;
    assert_eq!(
        lab.refused("CreateRepositoryCreationTemplate", nearer).await,
        "TemplateAlreadyExistsException"
    );
    lab.push_image("prod/fixed/app", "v1", b"one").await;
    lab.push_image("prod/app", "v1", b"one").await;
    let made = lab
        .call(
            "DescribeRepositories",
            json!({"repositoryNames": ["prod/fixed/app", "prod/app"]}),
        )
        .await;
    assert_eq!(made["repositories"][0]["imageTagMutability"], "IMMUTABLE");
    assert_eq!(made["repositories"][1]["imageTagMutability"], "MUTABLE");
    lab.call("GetRepositoryPolicy", json!({"repositoryName": "prod/fixed/app"}))
        .await;

    // Keys and tags are the business of a role: without one nothing is made.
    let mut tagged = template("ROOT", "CREATE_ON_PUSH");
    tagged["resourceTags"] = json!([{"Key": "team", "Value": "web"}]);
    lab.call("CreateRepositoryCreationTemplate", tagged.clone()).await;
    assert_eq!(start("other/app").await, StatusCode::NOT_FOUND);
    lab.call(
        "UpdateRepositoryCreationTemplate",
        json!({"prefix": "ROOT", "customRoleArn": "arn:aws:iam::123456789012:role/templates"}),
    )
    .await;
    assert_eq!(start("other/app").await, StatusCode::ACCEPTED);

    let first = lab
        .call("DescribeRepositoryCreationTemplates", json!({"maxResults": 3}))
        .await;
    assert_eq!(first["repositoryCreationTemplates"].as_array().unwrap().len(), 3);
    let rest = json!({"maxResults": 3, "nextToken": first["nextToken"]});
    let rest = lab.call("DescribeRepositoryCreationTemplates", rest).await;
    assert_eq!(rest["repositoryCreationTemplates"].as_array().unwrap().len(), 1);
    lab.call("DeleteRepositoryCreationTemplate", json!({"prefix": "ROOT"}))
        .await;
    for operation in [
        "DeleteRepositoryCreationTemplate",
        "UpdateRepositoryCreationTemplate",
    ] {
        assert_eq!(
            lab.refused(operation, json!({"prefix": "ROOT"})).await,
            "TemplateNotFoundException"
        );
    }
    for wrong in [
        json!({"prefix": "UPPER", "appliedFor": ["REPLICATION"]}),
        json!({"prefix": "a", "appliedFor": ["SUNDAYS"]}),
        json!({"prefix": "a", "appliedFor": []}),
        json!({"prefix": "a", "appliedFor": ["REPLICATION"], "repositoryPolicy": "no"}),
    ] {
        let said = lab.refused("CreateRepositoryCreationTemplate", wrong).await;
        assert_eq!(said, "InvalidParameterException");
    }
}

#[tokio::test]
async fn a_denied_action_is_named_by_the_api_and_sometimes_hidden_by_the_registry() {
    let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay))
        .await
        .unwrap();
    quay.seed_image("acme/base", "1", &ImageSeed::base()).unwrap();
    let lab = Lab::start(EcrConfig {
        upstreams: vec![("quay.io".into(), quay.address())],
        ..EcrConfig::default()
    })
    .await;
    lab.repository("team/app").await;
    lab.push_image("team/app", "v1", b"one").await;

    lab.ecr.deny_action("ecr:DescribeRepositories");
    let (status, answer) = lab
        .ask("DescribeRepositories", &json!({"repositoryNames": ["team/app"]}))
        .await;
    assert_eq!(
        (status, &answer["__type"]),
        (StatusCode::BAD_REQUEST, &json!("AccessDeniedException"))
    );
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("not authorized to perform: ecr:DescribeRepositories on resource: arn:aws:ecr:")
    );
    lab.ecr.allow_action("ecr:DescribeRepositories");
    lab.call("DescribeRepositories", json!({})).await;

    for (action, method, path) in [
        (
            "ecr:BatchGetImage",
            Method::GET,
            "team/app/manifests/v1".to_owned(),
        ),
        (
            "ecr:InitiateLayerUpload",
            Method::POST,
            "team/app/blobs/uploads/".to_owned(),
        ),
        ("ecr:PutImage", Method::PUT, "team/app/manifests/v2".to_owned()),
        (
            "ecr:GetDownloadUrlForLayer",
            Method::GET,
            format!("team/app/blobs/{}", Digest::sha256_of("one")),
        ),
    ] {
        lab.ecr.deny_action(action);
        let request = lab.v2(method, &path).header("content-type", MANIFEST);
        let (status, code, message) = error_of(request.send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "DENIED"), "{action}");
        assert!(message.contains(action), "{message}");
        lab.ecr.allow_action(action);
    }

    let rule = json!({"ecrRepositoryPrefix": "quay", "upstreamRegistryUrl": "quay.io"});
    lab.call("CreatePullThroughCacheRule", rule).await;
    for action in ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"] {
        lab.ecr.deny_action(action);
        let answer = code_of(lab.get("quay/acme/base/manifests/1").await).await;
        assert_eq!(answer, ecr_common::code(404, "NAME_UNKNOWN"), "{action}");
        lab.ecr.allow_action(action);
    }
    assert_eq!(
        lab.get("quay/acme/base/manifests/1").await.status(),
        StatusCode::OK
    );
    lab.ecr.deny_action("ecr:BatchImportUpstreamImage");
    let answer = code_of(lab.get("quay/acme/base/manifests/2").await).await;
    assert_eq!(answer, ecr_common::code(404, "MANIFEST_UNKNOWN"));
    assert_eq!(
        lab.get("quay/acme/base/manifests/1").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_pull_through_the_cache_makes_its_repository_by_the_template() {
    let quay = Upstream::start(UpstreamConfig::new(UpstreamKind::Quay))
        .await
        .unwrap();
    quay.seed_image("acme/base", "1", &ImageSeed::base()).unwrap();
    let lab = Lab::start(EcrConfig {
        upstreams: vec![("quay.io".into(), quay.address())],
        ..EcrConfig::default()
    })
    .await;
    let rule = json!({"ecrRepositoryPrefix": "quay", "upstreamRegistryUrl": "quay.io"});
    lab.call("CreatePullThroughCacheRule", rule).await;
    lab.call(
        "CreateRepositoryCreationTemplate",
        json!({
            "prefix": "quay",
            "appliedFor": ["PULL_THROUGH_CACHE"],
            "encryptionConfiguration": {"encryptionType": "KMS"},
            "resourceTags": [{"Key": "from", "Value": "quay"}],
        }),
    )
    .await;
    let answer = code_of(lab.get("quay/acme/base/manifests/1").await).await;
    assert_eq!(answer, ecr_common::code(404, "NAME_UNKNOWN"));
    lab.call(
        "UpdateRepositoryCreationTemplate",
        json!({"prefix": "quay", "customRoleArn": "arn:aws:iam::123456789012:role/templates"}),
    )
    .await;
    assert_eq!(
        lab.get("quay/acme/base/manifests/1").await.status(),
        StatusCode::OK
    );
    let made = lab.call("DescribeRepositories", json!({})).await;
    assert_eq!(
        made["repositories"][0]["encryptionConfiguration"]["encryptionType"],
        "KMS"
    );
    let arn = made["repositories"][0]["repositoryArn"].clone();
    let tags = lab.call("ListTagsForResource", json!({"resourceArn": arn})).await;
    assert_eq!(tags["tags"], json!([{"Key": "from", "Value": "quay"}]));
}

#[tokio::test]
async fn one_operation_can_be_throttled() {
    let lab = lab().await;
    let body = r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#;
    lab.ecr
        .api_faults()
        .inject(Fault::respond("DescribeRegistry", StatusCode::BAD_REQUEST, body));
    lab.call("DescribeRepositories", json!({})).await;
    assert_eq!(
        lab.refused("DescribeRegistry", json!({})).await,
        "ThrottlingException"
    );
    lab.call("DescribeRegistry", json!({})).await;
}
