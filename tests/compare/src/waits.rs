//! Waits for Argo CD: from the moment in which the lab's cluster runs the new image on every replica until a wait says so.
//! Each way of waiting is a program of its own: this crate's wait, a poller that looks every second, and the rule of
//! `argocd app wait` on a stream for each application. The last two are told the commit, which the tools are not: without
//! it they would say so before anything has begun.

use crate::Result;
use crate::child::measure;
use crate::report::{header, mebibytes, row, text};
use futures_util::{StreamExt, future::join_all};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use towpath_argocd::wire::{App, HealthCode, SyncStatusCode};
use towpath_argocd::{
    Application, ArgoCd, Cancellation, CommitSha, DeliveryOutcome, Expected, ImageRef, Login, Refresh,
    Secret, WatchEvent, WatchFilter,
};
use towpath_core::RepoSlug;
use towpath_ecr::{Ecr, EcrConfig, Region, Registry};
use towpath_lab::{AUTHOR, Lab, LabConfig};

const WAYS: [(&str, &str); 3] = [
    ("wait-towpath", "Towpath"),
    ("wait-polling", "poller, 1 s"),
    ("wait-streaming", "`argocd app wait`, told the commit"),
];
/// How long health must hold; taken off the times of Towpath, which alone asks for it.
const SETTLE: Duration = Duration::from_millis(200);
const WITHIN: Duration = Duration::from_secs(300);
/// More than one refresh takes the lab.
const REFRESH: Duration = Duration::from_millis(50);
const CREATED_AT_ONCE: usize = 8;
const REFRESHED_AT_ONCE: usize = 4;

pub(crate) async fn compare(sizes: &[usize]) -> Result<()> {
    text(&format!(
        "Waits, one round; load {}\n",
        std::fs::read_to_string("/proc/loadavg")?.trim()
    ));
    header([
        "applications",
        "rule",
        "p50",
        "p99",
        "requests",
        "streams",
        "peak memory",
        "more memory per wait",
    ]);
    let mut alone = BTreeMap::new();
    for &size in sizes {
        let world = World::start(size).await?;
        // Containers take longer to start than all refreshes together, so that what is timed is the end of the waits and
        // not the lab's git processes.
        let start = Duration::from_secs(1) + REFRESH * u32::try_from(size)?;
        world.lab.argocd().cluster().set_delays(|delays| {
            delays.start = start;
            delays.progress_deadline = WITHIN;
        });
        for (round, (way, name)) in WAYS.into_iter().enumerate() {
            let (times, requests, streams, peak) = world.wait(way, round + 1).await?;
            let first = *alone.entry(way).or_insert(peak);
            let each = match size {
                1 => String::new(),
                _ => format!("{} KiB", peak.saturating_sub(first) / (size as u64 - 1)),
            };
            let at = |percent: usize| {
                let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
                format!("{} ms", times.get(index).copied().unwrap_or_default())
            };
            row([
                &size.to_string(),
                name,
                &at(50),
                &at(99),
                &requests.to_string(),
                &streams.to_string(),
                &mebibytes(peak),
                &each,
            ]);
        }
    }
    text("");
    Ok(())
}

struct World {
    lab: Lab,
    images: [ImageRef; 2],
    names: Vec<String>,
    folder: tempfile::TempDir,
}

impl World {
    /// Applications that are live at a first commit. All deploy the same folder, each to a namespace of its own.
    async fn start(size: usize) -> Result<Self> {
        let mut config = LabConfig::default();
        // What a round takes, no poll may come in between.
        config.argocd.poll_interval = Duration::from_secs(3600);
        let lab = Lab::with(config).await?;
        let environment: BTreeMap<_, _> = lab.environment().into_iter().collect();
        let value = |name: &str| environment.get(name).ok_or(format!("the lab has no {name}"));
        let gallery = format!("http://{}", value("TOWPATH_LAB_ECR_PUBLIC")?);
        let config = EcrConfig::from_env()
            .region(Region::new(value("AWS_REGION")?)?)
            .endpoint(value("AWS_ENDPOINT_URL_ECR")?.parse()?)
            .credentials(
                value("AWS_ACCESS_KEY_ID")?,
                Secret::new(value("AWS_SECRET_ACCESS_KEY")?),
                None,
            )
            .upstream("public.ecr.aws".parse()?, gallery.parse()?);
        let ecr = Ecr::new(&config).await?;
        let base = ecr
            .resolve(&"public.ecr.aws/docker/library/alpine:3.20".parse()?)
            .await?;
        let base = base.ok_or("the gallery has no base image")?;
        let target = ecr.ensure_repository(&"shop/web".parse()?).await?;
        let index = ecr.copy(&base.image, &target).await?;
        let child = index.platforms.first().ok_or("the base image has no platforms")?;
        let images = [index.image.clone(), index.image.at(child.digest.clone())];
        lab.github().create_repository(&repository()?, true).await?;
        let names = (0..size).map(|number| format!("web-{number}")).collect();
        let folder = tempfile::tempdir()?;
        let world = Self {
            lab,
            images,
            names,
            folder,
        };
        world.commit(0).await?;
        let argo = world.client()?;
        futures_util::stream::iter(&world.names)
            .map(|name| world.create(&argo, name))
            .buffer_unordered(CREATED_AT_ONCE)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        world.wait("wait-towpath", 0).await?;
        Ok(world)
    }

    fn client(&self) -> Result<ArgoCd> {
        client(self.lab.argocd().url(), self.lab.argocd().token().expose())
    }

    async fn create(&self, argo: &ArgoCd, name: &str) -> Result<()> {
        let app = json!({"metadata": {"name": name}, "spec": {
            "project": "default",
            "source": {"repoURL": self.lab.github().git_url(&repository()?), "path": "prod", "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": name},
            "syncPolicy": {"automated": {}}}});
        argo.create(&serde_json::from_value(app)?).await?;
        Ok(())
    }

    async fn commit(&self, round: usize) -> Result<CommitSha> {
        let image = &self.images[round % 2];
        let manifest = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"round": round.to_string()}},
                "spec": {"containers": [{"name": "web", "image": image.to_string()}]}}}});
        let token = self.lab.github().token(AUTHOR).ok_or("the author has no token")?;
        let credentials = format!("http://{AUTHOR}:{}@", token.expose());
        let remote = self
            .lab
            .github()
            .git_url(&repository()?)
            .replace("http://", &credentials);
        let folder = self.folder.path().to_owned();
        // The lab serves the push from this runtime: it must not be blocked.
        tokio::task::spawn_blocking(move || {
            if round == 0 {
                git(&folder, &["init", "--quiet", "--initial-branch=main"])?;
                std::fs::create_dir(folder.join("prod"))?;
            }
            std::fs::write(folder.join("prod/web.json"), manifest.to_string())?;
            git(&folder, &["add", "--all"])?;
            git(&folder, &["commit", "--quiet", "--message=deploy"])?;
            git(&folder, &["push", "--quiet", &remote, "main"])?;
            Ok(git(&folder, &["rev-parse", "HEAD"])?.trim().parse()?)
        })
        .await?
    }

    fn head(&self) -> Result<CommitSha> {
        Ok(git(self.folder.path(), &["rev-parse", "HEAD"])?.trim().parse()?)
    }

    /// The sorted times in milliseconds, requests, streams, and the child's peak memory.
    async fn wait(&self, way: &str, round: usize) -> Result<(Vec<i64>, usize, usize, u64)> {
        let commit = match round {
            0 => self.head()?,
            _ => self.commit(round).await?,
        };
        let argocd = self.lab.argocd();
        let log = tempfile::NamedTempFile::new()?;
        let (requests, streams) = (argocd.requests().len(), self.streams());
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([
                way,
                argocd.url(),
                commit.as_str(),
                &self.images[round % 2].to_string(),
            ])
            .arg(self.names.len().to_string())
            .env("ARGOCD_AUTH_TOKEN", argocd.token().expose());
        let (succeeded, cost) = measure(&mut command, log.path()).await?;
        let said = std::fs::read_to_string(log.path())?;
        if !succeeded {
            return Err(format!("{way} failed: {said}").into());
        }
        let mut live: BTreeMap<String, Timestamp> = BTreeMap::new();
        for container in argocd.cluster().running() {
            let at = live.entry(container.namespace).or_insert(container.started_at);
            *at = (*at).max(container.started_at);
        }
        let settle = if way == "wait-towpath" {
            SETTLE.as_millis()
        } else {
            0
        };
        let mut times = Vec::new();
        for line in said.lines() {
            let (name, ended) = line.split_once(' ').ok_or("a line of the child has no time")?;
            let live = live.get(name).ok_or(format!("nothing runs for {name}"))?;
            let late = ended.parse::<Timestamp>()?.duration_since(*live);
            times.push(i64::try_from(late.as_millis() - i128::try_from(settle)?)?);
        }
        times.sort_unstable();
        Ok((
            times,
            argocd.requests().len() - requests,
            self.streams() - streams,
            cost.peak_kib,
        ))
    }

    fn streams(&self) -> usize {
        let requests = self.lab.argocd().requests();
        requests.count(&reqwest::Method::GET, "/api/v1/stream/applications")
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=Mona", "-c", "user.email=mona@acme.example"])
        .args(arguments)
        .current_dir(folder)
        .output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).into()),
    }
}

fn repository() -> Result<RepoSlug> {
    Ok("acme/deploy".parse()?)
}

fn client(url: &str, token: &str) -> Result<ArgoCd> {
    Ok(ArgoCd::builder(url, Login::Token(Secret::new(token)))?.build()?)
}

/// What a child does: waits for all, and prints when each wait ended.
pub(crate) async fn wait(way: &str, words: &[String]) -> Result<()> {
    let [url, commit, image, size] = words else {
        return Err("a wait takes a server, a commit, an image and a number".into());
    };
    let (commit, image): (CommitSha, ImageRef) = (commit.parse()?, image.parse()?);
    let argo = client(url, &std::env::var("ARGOCD_AUTH_TOKEN")?)?;
    let refreshing = tokio::sync::Semaphore::new(REFRESHED_AT_ONCE);
    let waits = (0..size.parse::<usize>()?).map(|number| {
        let (argo, commit, image, refreshing) = (&argo, &commit, &image, &refreshing);
        async move {
            let name = format!("web-{number}");
            let app: Application = format!("default/{name}").parse()?;
            match way {
                "wait-towpath" => {
                    let expected = Expected {
                        application: app,
                        revision: commit.clone(),
                        images: vec![image.clone()],
                        platform_digests: Vec::new(),
                        within: WITHIN,
                        settle: SETTLE,
                    };
                    let report = argo.waiter().wait(expected, &Cancellation::new()).await?;
                    if report.outcome != DeliveryOutcome::Live {
                        return Err(format!("{name}: {report:?}").into());
                    }
                }
                "wait-polling" => {
                    refresh(argo, &app, refreshing).await?;
                    while !looks_live(&argo.application(&app).await?, commit) {
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
                _ => {
                    let mut events = argo.watch(WatchFilter::of(&app));
                    refresh(argo, &app, refreshing).await?;
                    while let Some(event) = events.next().await {
                        if let WatchEvent::Changed(app) = event?
                            && looks_live(&app, commit)
                        {
                            break;
                        }
                    }
                }
            }
            text(&format!("{name} {}", Timestamp::now()));
            Ok(())
        }
    });
    join_all(waits).await.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(())
}

async fn refresh(argo: &ArgoCd, app: &Application, turns: &tokio::sync::Semaphore) -> Result<()> {
    let _turn = turns.acquire().await?;
    argo.refreshed(app, Refresh::Normal, WITHIN).await?;
    Ok(())
}

/// The conditions of `argocd app wait`, and the commit.
fn looks_live(app: &App, commit: &CommitSha) -> bool {
    let status = &app.status;
    let finished = status
        .operation_state
        .as_ref()
        .and_then(|state| state.finished_at);
    app.operation.is_none()
        && status.sync.revision == commit.as_str()
        && status.sync.status == SyncStatusCode::Synced
        && status.health.status == HealthCode::Healthy
        && status.reconciled_at >= finished
}
