//! A registry of the lab in front of Quay.io, which is open, and Docker Hub, which wants credentials.
#![allow(unreachable_pub, reason = "it is a module of a test program")]

use crate::support::{self, config, image};
use towpath_ecr::{
    CacheProblem, CredentialFault, Digest, Ecr, Error, RuleChange, RuleCredentials, Secret, WantedRule,
    WarmOptions,
};
use towpath_lab::ecr::{self as lab, ImageSeed, Upstream, UpstreamConfig, UpstreamKind};

pub const BASE: &str = "quay.io/acme/base:1";
pub const NGINX: &str = "nginx:1.27";
pub const IMPORT: &str = "ecr:BatchImportUpstreamImage";

pub fn secret(name: &str) -> String {
    format!("arn:aws:secretsmanager:eu-west-1:123456789012:secret:ecr-pullthroughcache/{name}-a1B2c3")
}

pub struct World {
    pub lab: lab::Ecr,
    pub quay: Upstream,
    pub hub: Upstream,
    /// Reaches Quay.io itself.
    pub ecr: Ecr,
}

impl World {
    pub async fn start() -> Self {
        let upstream = async |kind| Upstream::start(UpstreamConfig::new(kind)).await.unwrap();
        let (quay, hub) = (
            upstream(UpstreamKind::Quay).await,
            upstream(UpstreamKind::DockerHub).await,
        );
        quay.seed_image("acme/base", "1", &ImageSeed::base()).unwrap();
        hub.seed_image("library/nginx", "1.27", &ImageSeed::certificates())
            .unwrap();
        hub.add_account("acme", &Secret::new("access-token"));
        let settings = lab::EcrConfig {
            upstreams: [&quay, &hub]
                .map(|upstream| (upstream.kind().host().to_owned(), upstream.address()))
                .to_vec(),
            ..lab::EcrConfig::default()
        };
        let lab = lab::Ecr::start(settings).await.unwrap();
        lab.put_secret(&secret("hub"), "acme", &Secret::new("access-token"));
        let address = format!("http://{}", quay.address()).parse().unwrap();
        let config = config(&lab).upstream("quay.io".parse().unwrap(), address);
        let ecr = Ecr::new(&config).await.unwrap();
        Self { lab, quay, hub, ecr }
    }

    pub async fn with_rules() -> Self {
        let world = Self::start().await;
        world.rule(&WantedRule::new("quay", "quay.io")).await;
        world.rule(&Self::hub_rule("hub")).await;
        world
    }

    pub fn hub_rule(name: &str) -> WantedRule {
        WantedRule::new("docker-hub", "docker.io").with(RuleCredentials::secret(secret(name)))
    }

    pub async fn rule(&self, wanted: &WantedRule) -> RuleChange {
        self.ecr.ensure_cache_rule(wanted).await.unwrap().change
    }

    /// A client that does not reach the upstreams.
    pub async fn elsewhere(&self) -> Ecr {
        Ecr::new(&config(&self.lab)).await.unwrap()
    }

    pub async fn problem(&self, upstream: &str) -> CacheProblem {
        let error = self
            .ecr
            .warm(&image(upstream), &WarmOptions::default())
            .await
            .unwrap_err();
        problem(&error)
    }

    /// The digests of the children of an index of Quay.io, and of the blobs of the first of them.
    pub fn parts(&self) -> (Vec<Digest>, Vec<Digest>) {
        let repository = "quay/acme/base";
        let digests = |manifest: &[u8], names: &[&str]| -> Vec<Digest> {
            let manifest = support::json(manifest);
            let listed = names
                .iter()
                .flat_map(|name| manifest[*name].as_array().cloned().unwrap_or_default());
            listed
                .map(|one| one["digest"].as_str().unwrap().parse().unwrap())
                .collect()
        };
        let index = self.lab.image(repository, "1").unwrap().manifest;
        let children = digests(&index, &["manifests"]);
        let child = self.lab.image(repository, children[0].as_str()).unwrap().manifest;
        (children, digests(&child, &["layers"]))
    }
}

pub fn problem(error: &Error) -> CacheProblem {
    let problem = CacheProblem::of(error).unwrap_or_else(|| panic!("no problem of the cache: {error:?}"));
    assert_eq!(problem.kind(), error.kind(), "{error}");
    assert!(error.advice().is_some(), "{error}");
    problem.clone()
}

pub fn credential(fault: CredentialFault) -> CacheProblem {
    CacheProblem::Credential {
        rule: "docker-hub".into(),
        fault,
    }
}
