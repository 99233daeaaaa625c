//! How long a lab takes to start, and each of its services to answer one request.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking; criterion's macros write undocumented functions"
)]

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use criterion::{Criterion, criterion_group, criterion_main};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::SystemTime;
use tokio::runtime::Runtime;
use towpath_lab::Lab;

fn start(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    criterion.bench_function("start", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { black_box(Lab::start().await.unwrap()) });
    });
}

fn requests(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let lab = runtime.block_on(Lab::start()).unwrap();
    let asker = Asker {
        http: Client::builder().no_proxy().user_agent("bench").build().unwrap(),
        lab: lab.environment().into_iter().collect(),
    };
    let mut group = criterion.benchmark_group("request");
    for (service, request) in runtime.block_on(asker.requests()) {
        group.bench_function(service, |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let answer = request.try_clone().unwrap().send().await.unwrap();
                black_box(answer.error_for_status().unwrap().bytes().await.unwrap())
            });
        });
    }
    group.finish();
}

struct Asker {
    http: Client,
    lab: BTreeMap<String, String>,
}

impl Asker {
    /// One plain read of each service.
    async fn requests(&self) -> Vec<(&'static str, RequestBuilder)> {
        let at = |key: &str, path: &str| format!("{}{path}", self.lab[key].trim_end_matches('/'));
        let host = |key: &str, path: &str| format!("http://{}{path}", self.lab[key]);
        let ecr = |operation: &str| {
            let target = format!("AmazonEC2ContainerRegistry_V20150921.{operation}");
            let headers = [
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", &target),
            ];
            self.signed(
                "ecr",
                Method::POST,
                &at("AWS_ENDPOINT_URL_ECR", "/"),
                &headers,
                "{}",
            )
        };
        let domains = at("AWS_ENDPOINT_URL_CODEARTIFACT", "/v1/domains");
        let password = answer(ecr("GetAuthorizationToken")).await;
        let password = password["authorizationData"][0]["authorizationToken"]
            .as_str()
            .unwrap();
        let pulled = self.http.get(host("TOWPATH_LAB_REGISTRY", "/v2/"));
        let anonymous = self.gallery_token().await;
        let gallery = host("TOWPATH_LAB_ECR_PUBLIC", GALLERY_MANIFEST);
        vec![
            ("ecr: DescribeRegistry", ecr("DescribeRegistry")),
            (
                "ecr: /v2/",
                pulled.header("authorization", format!("Basic {password}")),
            ),
            (
                "ecr public: manifest",
                self.http.get(gallery).bearer_auth(anonymous),
            ),
            (
                "codeartifact: ListDomains",
                self.signed("codeartifact", Method::POST, &domains, &[], ""),
            ),
            (
                "github: GET /user",
                self.http
                    .get(at("TOWPATH_LAB_GITHUB", "/user"))
                    .bearer_auth(&self.lab["TOWPATH_LAB_GITHUB_TOKEN"]),
            ),
            (
                "argocd: applications",
                self.http
                    .get(at("ARGOCD_SERVER", "/api/v1/applications"))
                    .bearer_auth(&self.lab["ARGOCD_AUTH_TOKEN"]),
            ),
            (
                "spacelift: stacks",
                self.stacks(&at("SPACELIFT_API_KEY_ENDPOINT", "/graphql")).await,
            ),
        ]
    }

    /// A signature holds for some minutes: one is enough for the whole bench.
    fn signed(
        &self,
        service: &str,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> RequestBuilder {
        let (id, secret) = (&self.lab["AWS_ACCESS_KEY_ID"], &self.lab["AWS_SECRET_ACCESS_KEY"]);
        let identity = Credentials::new(id, secret, None, None, "bench").into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.lab["AWS_REGION"])
            .name(service)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let content = SignableBody::Bytes(body.as_bytes());
        let signable = SignableRequest::new(method.as_str(), url, headers.iter().copied(), content).unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let mut request = self.http.request(method, url).body(body);
        for (name, value) in headers.iter().copied().chain(instructions.headers()) {
            request = request.header(name, value);
        }
        request
    }

    async fn gallery_token(&self) -> String {
        let gallery = format!("http://{}", self.lab["TOWPATH_LAB_ECR_PUBLIC"]);
        let refused = self
            .http
            .get(format!("{gallery}{GALLERY_MANIFEST}"))
            .send()
            .await
            .unwrap();
        let challenge = refused.headers()["www-authenticate"].to_str().unwrap().to_owned();
        let realm = challenge.split('"').nth(1).unwrap();
        let scope = "repository:docker/library/alpine:pull";
        let token = answer(self.http.get(realm).query(&[("scope", scope)])).await;
        token["token"].as_str().unwrap().to_owned()
    }

    async fn stacks(&self, url: &str) -> RequestBuilder {
        let login = json!({
            "query": "mutation($id: ID!, $secret: String!) { apiKeyUser(id: $id, secret: $secret) { jwt } }",
            "variables": { "id": self.lab["SPACELIFT_API_KEY_ID"], "secret": self.lab["SPACELIFT_API_KEY_SECRET"] },
        });
        let session = answer(self.http.post(url).json(&login)).await;
        let token = session["data"]["apiKeyUser"]["jwt"].as_str().unwrap();
        let stacks = json!({ "query": "{ stacks { id name state } }" });
        self.http.post(url).bearer_auth(token).json(&stacks)
    }
}

const GALLERY_MANIFEST: &str = "/v2/docker/library/alpine/manifests/3.20";

async fn answer(request: RequestBuilder) -> Value {
    request
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap()
        .json()
        .await
        .unwrap()
}

criterion_group!(benches, start, requests);
criterion_main!(benches);
