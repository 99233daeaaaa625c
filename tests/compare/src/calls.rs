//! One call through each client beside the same request made by hand, against one lab: with a bare `reqwest`, or with
//! the bare AWS SDK where the client stands on that. The two take turns, and both read the answer.

use crate::Result;
use crate::report::{header, median, milliseconds, ratio, row, text};
use aws_sdk_ecr::config::{BehaviorVersion, Credentials, Region};
use reqwest::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use towpath_argocd::{ArgoCd, Delivery, Login};
use towpath_codeartifact::{CodeArtifact, CodeArtifactConfig};
use towpath_core::{
    Application, ArtifactRepository, BranchName, ImageRef, PackageId, RepoSlug, RepositoryName, Secret,
    StackId,
};
use towpath_ecr::{Ecr, EcrConfig, Registry};
use towpath_github::{Credential, GitHub, GitHubConfig, Source};
use towpath_lab::{Lab, REVIEWER, RequestLog};
use towpath_spacelift::{Infrastructure, Spacelift};

/// Calls before the first that counts: connections, tokens and caches are then there on both sides.
const WARM_UP: usize = 30;

/// What one comparison found.
struct Found {
    ours: Duration,
    bare: Duration,
    /// Requests per call.
    ours_requests: f64,
    bare_requests: f64,
}

pub(crate) async fn compare(rounds: usize) -> Result<()> {
    let lab = Lab::start().await?;
    let value = |key: &str| {
        let found = lab.environment().into_iter().find(|(name, _)| name == key);
        found
            .map(|(_, value)| value)
            .ok_or(format!("the lab has no {key}"))
    };
    let http = reqwest::Client::builder().no_proxy().build()?;
    text(&format!("One call, median of {rounds}, taking turns\n"));
    header([
        "call",
        "by hand",
        "Towpath",
        "ratio",
        "requests by hand",
        "requests",
    ]);

    let found = github(&lab, &http, rounds, &value("TOWPATH_LAB_GITHUB")?).await?;
    show("GitHub: `Source::head`", "reqwest", &found);
    let found = argocd(
        &lab,
        &http,
        rounds,
        &value("ARGOCD_SERVER")?,
        &value("ARGOCD_AUTH_TOKEN")?,
    )
    .await?;
    show("Argo CD: `Delivery::status`", "reqwest", &found);
    let key = (value("AWS_ACCESS_KEY_ID")?, value("AWS_SECRET_ACCESS_KEY")?);
    let aws = Aws {
        endpoint: value("AWS_ENDPOINT_URL_ECR")?,
        region: value("AWS_REGION")?,
        key,
    };
    let ecr = aws.towpath(&lab).await?;
    show(
        "ECR: `Registry::ensure_repository`",
        "SDK",
        &control_plane(&lab, &aws, &ecr, rounds).await?,
    );
    show(
        "ECR: `Registry::resolve`",
        "reqwest",
        &manifest(&lab, &http, &aws, &ecr, rounds).await?,
    );
    show(
        "CodeArtifact: `Artifacts::version` (absent)",
        "SDK",
        &codeartifact(&lab, &aws, &value("AWS_ENDPOINT_URL_CODEARTIFACT")?, rounds).await?,
    );
    let endpoint = value("SPACELIFT_API_KEY_ENDPOINT")?;
    let key = (value("SPACELIFT_API_KEY_ID")?, value("SPACELIFT_API_KEY_SECRET")?);
    show(
        "Spacelift: `Infrastructure::stack`",
        "reqwest",
        &spacelift(&lab, &http, rounds, &endpoint, &key).await?,
    );
    text("");
    Ok(())
}

fn show(call: &str, by_hand: &str, found: &Found) {
    row([
        call,
        &format!("{} ({by_hand})", milliseconds(found.bare)),
        &milliseconds(found.ours),
        &ratio(found.ours, found.bare),
        &format!("{:.2}", found.bare_requests),
        &format!("{:.2}", found.ours_requests),
    ]);
}

/// Times both, in turns, each of them first every other time. The log counts their requests.
async fn in_turns(
    rounds: usize,
    log: &RequestLog,
    ours: impl AsyncFn() -> Result<()>,
    bare: impl AsyncFn() -> Result<()>,
) -> Result<Found> {
    for _ in 0..WARM_UP {
        ours().await?;
        bare().await?;
    }
    let (mut our_side, mut bare_side) = (Side::default(), Side::default());
    for round in 0..rounds {
        if round % 2 == 0 {
            our_side.measure(log, &ours).await?;
            bare_side.measure(log, &bare).await?;
        } else {
            bare_side.measure(log, &bare).await?;
            our_side.measure(log, &ours).await?;
        }
    }
    Ok(Found {
        ours_requests: our_side.requests_per_call(),
        bare_requests: bare_side.requests_per_call(),
        ours: median(our_side.times),
        bare: median(bare_side.times),
    })
}

/// What is measured of one side.
#[derive(Default)]
struct Side {
    times: Vec<Duration>,
    requests: usize,
}

impl Side {
    async fn measure(&mut self, log: &RequestLog, call: &impl AsyncFn() -> Result<()>) -> Result<()> {
        let before = log.len();
        let began = Instant::now();
        call().await?;
        self.times.push(began.elapsed());
        self.requests += log.len() - before;
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of requests fit")]
    fn requests_per_call(&self) -> f64 {
        self.requests as f64 / self.times.len() as f64
    }
}

async fn github(lab: &Lab, http: &reqwest::Client, rounds: usize, api: &str) -> Result<Found> {
    let token = lab
        .github()
        .token(REVIEWER)
        .ok_or("the lab's GitHub has no token")?;
    let repository: RepoSlug = "acme/compare".parse()?;
    let new = json!({ "name": "compare", "private": true, "auto_init": true });
    let made = http
        .post(format!("{api}/orgs/acme/repos"))
        .bearer_auth(token.expose())
        .json(&new);
    made.header(USER_AGENT, "compare")
        .send()
        .await?
        .error_for_status()?;
    let config = GitHubConfig::new(api)?.with_credential(Credential::Token(token.clone()));
    let client = GitHub::new(config)?;
    let branch: BranchName = "main".parse()?;
    let url = format!("{api}/repos/acme/compare/git/ref/heads/main");
    let ours = async || match client.head(&repository, &branch).await? {
        Some(_) => Ok(()),
        None => Err("the branch is not there".into()),
    };
    let bare = async || {
        let request = http
            .get(&url)
            .bearer_auth(token.expose())
            .header(USER_AGENT, "compare");
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        answer["object"]["sha"]
            .as_str()
            .map(drop)
            .ok_or("the branch is not there".into())
    };
    in_turns(rounds, lab.github().requests(), ours, bare).await
}

async fn argocd(
    lab: &Lab,
    http: &reqwest::Client,
    rounds: usize,
    server: &str,
    token: &str,
) -> Result<Found> {
    let server = server.trim_end_matches('/');
    let app = json!({
        "metadata": { "name": "compare" },
        "spec": {
            "project": "default", "source": { "repoURL": format!("{}/acme/compare.git", lab.github().server_url()), "path": "." },
            "destination": { "server": "https://kubernetes.default.svc", "namespace": "compare" },
        },
    });
    let made = http
        .post(format!("{server}/api/v1/applications"))
        .bearer_auth(token)
        .json(&app);
    made.send().await?.error_for_status()?;
    let client = ArgoCd::builder(server, Login::Token(Secret::new(token)))?.build()?;
    let application: Application = "default/compare".parse()?;
    let url = format!("{server}/api/v1/applications/compare?project=default");
    // Until the first comparison is over the application changes by itself.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ours = async || client.status(&application).await.map(drop).map_err(Into::into);
    let bare = async || {
        let answer: Value = http
            .get(&url)
            .bearer_auth(token)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        answer["status"]["sync"]["status"]
            .as_str()
            .map(drop)
            .ok_or("no status".into())
    };
    in_turns(rounds, lab.argocd().requests(), ours, bare).await
}

/// How the lab's ECR is reached.
struct Aws {
    endpoint: String,
    region: String,
    key: (String, String),
}

impl Aws {
    fn sdk(&self) -> aws_sdk_ecr::Client {
        let (id, secret) = &self.key;
        let config = aws_sdk_ecr::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(&self.endpoint)
            .region(Region::new(self.region.clone()))
            .credentials_provider(Credentials::new(id, secret, None, None, "compare"))
            .build();
        aws_sdk_ecr::Client::from_conf(config)
    }

    async fn towpath(&self, lab: &Lab) -> Result<Ecr> {
        let (id, secret) = &self.key;
        let config = EcrConfig::from_env()
            .region(self.region.parse()?)
            .endpoint(self.endpoint.parse()?)
            .credentials(id, Secret::new(secret.as_str()), None)
            .upstream(
                "public.ecr.aws".parse()?,
                format!("http://{}", lab.ecr_public().address()).parse()?,
            );
        Ok(Ecr::new(&config).await?)
    }
}

async fn control_plane(lab: &Lab, aws: &Aws, ecr: &Ecr, rounds: usize) -> Result<Found> {
    let repository: RepositoryName = "compare/app".parse()?;
    ecr.ensure_repository(&repository).await?;
    let sdk = aws.sdk();
    let ours = async || {
        ecr.ensure_repository(&repository)
            .await
            .map(drop)
            .map_err(Into::into)
    };
    let bare = async || {
        let answer = sdk
            .describe_repositories()
            .repository_names("compare/app")
            .send()
            .await?;
        answer
            .repositories()
            .first()
            .map(drop)
            .ok_or("the repository is not there".into())
    };
    in_turns(rounds, lab.ecr().api_requests(), ours, bare).await
}

async fn manifest(lab: &Lab, http: &reqwest::Client, aws: &Aws, ecr: &Ecr, rounds: usize) -> Result<Found> {
    let target = ecr.locate(&"compare/app".parse()?).await?;
    let upstream: ImageRef = "public.ecr.aws/docker/library/alpine:3.20".parse()?;
    let upstream = ecr
        .resolve(&upstream)
        .await?
        .ok_or("the upstream image is not there")?;
    let image = target.tagged("1".parse()?);
    ecr.copy(&upstream.image, &image).await?;
    let token = aws.sdk().get_authorization_token().send().await?;
    let token = token
        .authorization_data()
        .first()
        .and_then(|data| data.authorization_token());
    let authorization = format!("Basic {}", token.ok_or("no authorization token")?);
    let url = format!("http://{}/v2/compare/app/manifests/1", lab.ecr().registry_host());
    let ours = async || match ecr.resolve(&image).await? {
        Some(_) => Ok(()),
        None => Err("the image is not there".into()),
    };
    let bare = async || {
        let request = http.get(&url).header(AUTHORIZATION, &authorization);
        let request = request.header(ACCEPT, "application/vnd.oci.image.index.v1+json");
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        answer["manifests"]
            .as_array()
            .map(drop)
            .ok_or("not an index".into())
    };
    in_turns(rounds, lab.ecr().registry_requests(), ours, bare).await
}

async fn codeartifact(lab: &Lab, aws: &Aws, endpoint: &str, rounds: usize) -> Result<Found> {
    use towpath_codeartifact::sdk;
    let (id, secret) = &aws.key;
    let config = CodeArtifactConfig::from_env()
        .region(aws.region.parse()?)
        .endpoint(endpoint.parse()?)
        .credentials(id, Secret::new(secret.as_str()), None);
    let client = CodeArtifact::new(config).await?;
    let config = sdk::Config::builder()
        .behavior_version(sdk::config::BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(sdk::config::Region::new(aws.region.clone()))
        .credentials_provider(sdk::config::Credentials::new(id, secret, None, None, "compare"))
        .build();
    let bare_client = sdk::Client::from_conf(config);
    let repository: ArtifactRepository = "acme/libraries".parse()?;
    let version = PackageId::cargo("towpath-greeting")?.at("9.9.9")?;
    let ours = async || match client.version(&repository, &version).await? {
        None => Ok(()),
        Some(_) => Err("the version is there".into()),
    };
    let bare = async || {
        let request = bare_client
            .describe_package_version()
            .domain("acme")
            .repository("libraries");
        let request = request
            .format(sdk::types::PackageFormat::Cargo)
            .package("towpath-greeting");
        match request
            .package_version("9.9.9")
            .send()
            .await
            .map_err(sdk::error::SdkError::into_service_error)
        {
            Err(error) if error.is_resource_not_found_exception() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => Err("the version is there".into()),
        }
    };
    in_turns(rounds, lab.codeartifact().requests(), ours, bare).await
}

async fn spacelift(
    lab: &Lab,
    http: &reqwest::Client,
    rounds: usize,
    endpoint: &str,
    (id, secret): &(String, String),
) -> Result<Found> {
    let client = Spacelift::with_api_key(endpoint, id, Secret::new(secret.as_str()))?.build()?;
    let stack: StackId = "shared-services".parse()?;
    let url = format!("{}/graphql", endpoint.trim_end_matches('/'));
    let exchange = json!({
        "query": "mutation($id: ID!, $secret: String!) { apiKeyUser(id: $id, secret: $secret) { jwt } }",
        "variables": { "id": id, "secret": secret },
    });
    let answer: Value = http
        .post(&url)
        .json(&exchange)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let token = answer["data"]["apiKeyUser"]["jwt"]
        .as_str()
        .ok_or("no token")?
        .to_owned();
    // The very document that the client sends.
    let document = include_str!("../../../crates/towpath-spacelift/graphql/stacks/get_stack.graphql");
    let body = json!({
        "query": document,
        "operationName": "GetStack",
        "variables": { "id": "shared-services" },
    });
    let ours = async || client.stack(&stack).await.map(drop).map_err(Into::into);
    let bare = async || {
        let request = http.post(&url).bearer_auth(&token).json(&body);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        answer["data"]["stack"]["id"]
            .as_str()
            .map(drop)
            .ok_or("no such stack".into())
    };
    in_turns(rounds, lab.spacelift().requests(), ours, bare).await
}
