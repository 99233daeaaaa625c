//! The path itself: four repositories are pushed, and the flows carry them through.

use crate::git::WorkingCopy;
use crate::live::{Failed, Live};
use crate::{Fault, Projects, Reach, fault};
use futures_util::StreamExt;
use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;
use towpath_argocd::wire::App;
use towpath_core::wait::Policy;
use towpath_core::{BranchName, Cancellation, CommitSha, Digest, ImageRef, RepoSlug, Secret};
use towpath_ecr::{Ecr, WantedRule};
use towpath_elements::ci::{CiRun, CiState, Conclusion};
use towpath_elements::source::Commit;
use towpath_elements::{Ci, Error, ErrorKind, Registry, Source};
use towpath_flow::{Cd, CiDocker, CiLibrary, Elements, Flow, FlowError, Runner, Spacelift, Step, manifest};
use towpath_github::GitHub;
use towpath_github::wire::{Merge, MergeMethod, NewPullRequest, NewRepository, NewReview, ReviewEvent};
use towpath_lab::{AUTHOR, Lab, ORGANIZATION, REVIEWER};

/// The deployment file that the sample's Application reads.
const DEPLOYMENT_FILE: &str = "apps/web/deployment.yaml";
const DEPLOYMENT_FOLDER: &str = "apps/web";
/// How often CI is looked at. The lab is near.
const CI_POLICY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(300));

/// Everything a run of the path needs.
pub struct Path<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// What is pushed.
    pub projects: &'a Projects,
    /// What is asked to fail.
    pub fail: Option<Fault>,
    /// The program that CI runs as its step, with the argument `ci` behind it.
    pub program: &'a FilePath,
    /// The record.
    pub live: Live,
    /// Who answers questions.
    pub approver: Arc<dyn towpath_flow::Approver>,
    /// What ends the run.
    pub cancellation: Cancellation,
}

impl fmt::Debug for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Path")
            .field("projects", &self.projects)
            .finish_non_exhaustive()
    }
}

/// How the path ended.
#[derive(Debug)]
pub enum Outcome {
    /// All thirteen steps are done.
    Complete,
    /// A human is asked and has not answered.
    Waiting(String),
    /// It stopped; each track that did says why.
    Stopped(Vec<Problem>),
}

/// Why a track of the path stopped.
#[derive(Debug)]
pub struct Problem {
    /// The step.
    pub step: Option<Step>,
    /// The cause.
    pub cause: String,
    /// What can be done about it.
    pub next: String,
    /// Whether it only waits for an answer.
    pub waiting: bool,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self {
            step: None,
            cause: error.to_string(),
            next: "Mend the cause and run it again.".into(),
            waiting: false,
        }
    }
}

impl From<FlowError> for Problem {
    fn from(error: FlowError) -> Self {
        let waiting = matches!(error.stop, towpath_flow::Stop::Waiting { .. });
        Self {
            step: error.stop.step(),
            cause: error.stop.to_string(),
            next: error.stop.next_move(),
            waiting,
        }
    }
}

type Track<T> = Result<T, Problem>;

/// What a push came to.
struct Pushed {
    commit: CommitSha,
    /// Whether the commit is new; otherwise the repository had the files already.
    is_new: bool,
}

/// The clients of one run.
struct Clients {
    author: GitHub,
    github: Arc<GitHub>,
    ecr: Arc<Ecr>,
    elements: Elements,
}

impl Path<'_> {
    /// Takes the path.
    ///
    /// # Errors
    /// Where it could not even begin: a client could not be made, a port could not be had.
    pub async fn take(&self) -> Result<Outcome, Error> {
        if let Some(fault) = self.fail {
            fault::prepare(fault, self.lab);
        }
        let listening = self.live.listen().await.map_err(|source| {
            Error::new(ErrorKind::Unavailable, "whole-path", "listen on", "127.0.0.1").caused_by(source)
        })?;
        let github = self.lab.github();
        github.set_variable("TOWPATH", &self.program.display().to_string());
        github.set_variable("TOWPATH_EVENTS", &listening.address.to_string());
        let clients = self.clients().await?;
        self.prepare(&clients).await?;
        let (library, service, infra) = tokio::join!(
            self.library(&clients),
            self.service(&clients),
            self.infrastructure(&clients)
        );
        drop(listening);
        let problems: Vec<Problem> = [library, service, infra]
            .into_iter()
            .filter_map(Result::err)
            .collect();
        Ok(match problems.as_slice() {
            [] => Outcome::Complete,
            some if some.iter().all(|problem| problem.waiting) => Outcome::Waiting(
                some.iter()
                    .map(|problem| problem.cause.clone())
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
            _ => Outcome::Stopped(problems),
        })
    }

    async fn clients(&self) -> Result<Clients, Error> {
        let reach = Reach::new(self.lab.environment());
        let token = |login| self.lab.github().token(login).unwrap_or_else(|| Secret::new(""));
        let github = Arc::new(reach.github(token(REVIEWER))?);
        let ecr = Arc::new(reach.ecr().await?);
        let elements = reach
            .elements(&github, &self.cancellation)
            .with_registry(Arc::clone(&ecr) as _)
            .with_delivery(Arc::new(reach.argocd(&github)?))
            .with_infrastructure(Arc::new(reach.spacelift()?));
        Ok(Clients {
            author: reach.github(token(AUTHOR))?,
            github,
            ecr,
            elements,
        })
    }

    /// What a platform team has set up long before: the rules of the cache, the deployment repository, the Application.
    async fn prepare(&self, clients: &Clients) -> Result<(), Error> {
        for (prefix, upstream) in [("ecr-public", "public.ecr.aws"), ("quay", "quay.io")] {
            let rule = WantedRule::new(prefix, upstream);
            clients.ecr.ensure_cache_rule(&rule).await?;
        }
        let deploy = repository("deploy")?;
        if clients
            .github
            .head(&deploy, &main_branch()?)
            .await
            .ok()
            .flatten()
            .is_none()
        {
            self.create(clients, &deploy).await?;
            self.push_all(&deploy, &self.projects.deploy, "Describe what runs")
                .await?;
            let argocd = Reach::new(self.lab.environment()).argocd(&clients.github)?;
            argocd
                .create(&application(&self.lab.github().git_url(&deploy))?)
                .await?;
        }
        Ok(())
    }

    async fn create(&self, clients: &Clients, slug: &RepoSlug) -> Result<(), Error> {
        if clients.author.repository(slug).await?.is_none() {
            let new = NewRepository::named(slug.name());
            clients.author.create_repository(ORGANIZATION, &new).await?;
        }
        Ok(())
    }

    fn working_copy<'b>(&'b self, folder: &'b FilePath, token: &'b Secret) -> WorkingCopy<'b> {
        WorkingCopy {
            folder,
            user: AUTHOR,
            token,
        }
    }

    fn author_token(&self) -> Secret {
        self.lab.github().token(AUTHOR).unwrap_or_else(|| Secret::new(""))
    }

    async fn push_all(&self, slug: &RepoSlug, folder: &FilePath, message: &str) -> Result<CommitSha, Error> {
        let (url, token) = (self.lab.github().git_url(slug), self.author_token());
        let copy = self.working_copy(folder, &token);
        copy.git(&["init", "--quiet", "--initial-branch", "main"]).await?;
        copy.git(&["add", "--all"]).await?;
        copy.git(&["commit", "--quiet", "--message", message]).await?;
        copy.git(&["push", "--quiet", &url, "main"]).await?;
        copy.head().await
    }

    /// Step 1 for one repository: branch, pull request, review by somebody else, merge. A repository that has the files
    /// already is left as it is.
    async fn push(&self, clients: &Clients, name: &str, folder: &FilePath) -> Track<Pushed> {
        let slug = repository(name)?;
        let title = format!("push {slug} by a reviewed pull request");
        let work = async {
            self.create(clients, &slug).await?;
            let (url, token) = (self.lab.github().git_url(&slug), self.author_token());
            let copy = self.working_copy(folder, &token);
            let main = main_branch()?;
            copy.git(&["init", "--quiet", "--initial-branch", "change"])
                .await?;
            if clients.author.head(&slug, &main).await?.is_none() {
                // A pull request needs something to be merged into.
                copy.git(&["commit", "--quiet", "--allow-empty", "--message", "Begin"])
                    .await?;
                copy.git(&["push", "--quiet", &url, "change:main"]).await?;
            } else {
                copy.git(&["fetch", "--quiet", &url, "main"]).await?;
                copy.git(&["reset", "--quiet", "--soft", "FETCH_HEAD"]).await?;
            }
            copy.git(&["add", "--all"]).await?;
            if copy.git(&["status", "--porcelain"]).await?.is_empty() {
                let head = copy.head().await?;
                let facts = [
                    ("commit".into(), format!("{slug}@{head}")),
                    ("push".into(), "nothing new".into()),
                ];
                return Ok((
                    facts.into(),
                    Pushed {
                        commit: head,
                        is_new: false,
                    },
                ));
            }
            copy.git(&["commit", "--quiet", "--message", &format!("Change {name}")])
                .await?;
            copy.git(&["push", "--quiet", "--force", &url, "change"]).await?;
            let head = copy.head().await?;
            let (number, merged) = self.merge(clients, &slug, &head).await?;
            let facts = [
                ("commit".into(), format!("{slug}@{merged}")),
                (
                    "pull request".into(),
                    format!("{slug}#{number}, approved by {REVIEWER}"),
                ),
            ];
            Ok::<_, Error>((
                facts.into(),
                Pushed {
                    commit: merged,
                    is_new: true,
                },
            ))
        };
        self.live
            .during(Step::Push, title, work)
            .await
            .map_err(|error| at(Step::Push, error))
    }

    async fn merge(
        &self,
        clients: &Clients,
        slug: &RepoSlug,
        head: &CommitSha,
    ) -> Result<(u64, CommitSha), Error> {
        let new = NewPullRequest {
            title: format!("Change {}", slug.name()),
            body: None,
            head: "change".into(),
            base: "main".into(),
        };
        let pull = clients.author.create_pull_request(slug, &new).await?;
        let review = NewReview {
            event: ReviewEvent::Approve,
            body: None,
            commit_id: Some(head.clone()),
        };
        clients.github.create_review(slug, pull.number, &review).await?;
        let merge = Merge {
            sha: head.clone(),
            merge_method: MergeMethod::Merge,
            commit_title: None,
        };
        let merged = clients
            .github
            .merge_pull_request(slug, pull.number, &merge)
            .await?;
        Ok((pull.number, merged.sha))
    }

    async fn library(&self, clients: &Clients) -> Track<()> {
        if self.fail == Some(Fault::CiFails) {
            fault::break_source(&self.projects.library).map_err(|source| {
                let folder = self.projects.library.display();
                Error::new(ErrorKind::Invalid, "whole-path", "break the source in", folder).caused_by(source)
            })?;
        }
        let pushed = self.push(clients, "library", &self.projects.library).await?;
        self.ci(clients, CiLibrary::NAME, "library", &pushed).await
    }

    async fn service(&self, clients: &Clients) -> Track<()> {
        let pushed = self.push(clients, "service", &self.projects.service).await?;
        if self.fail == Some(Fault::ArgocdBlind) {
            fault::blind(self.lab);
        }
        self.ci(clients, CiDocker::NAME, "service", &pushed).await?;
        let (revision, image, platform_digests) = self.promotion(clients, &pushed.commit).await?;
        let within = if self.fail == Some(Fault::ArgocdBlind) {
            5
        } else {
            90
        };
        let cd = Cd {
            application: "default/web".parse().map_err(Error::from)?,
            repository: repository("deploy")?,
            revision: revision.clone(),
            images: vec![image],
            platform_digests,
            within: Duration::from_secs(within),
            settle: Duration::from_millis(300),
        };
        let runner = Runner::new(clients.elements.clone()).with_progress(self.live.progress());
        runner.run(&format!("cd-{revision}"), &cd).await?;
        Ok(())
    }

    async fn infrastructure(&self, clients: &Clients) -> Track<()> {
        let Pushed { commit, .. } = self.push(clients, "infra", &self.projects.infra).await?;
        let flow = Spacelift {
            shared_services: "shared-services".parse().map_err(Error::from)?,
            apps: vec!["apps".parse().map_err(Error::from)?],
            within: Duration::from_secs(120),
            commit,
        };
        let runner = Runner::new(clients.elements.clone())
            .with_progress(self.live.progress())
            .with_approver(Shared(Arc::clone(&self.approver)));
        runner.run(&format!("spacelift-{}", flow.commit), &flow).await?;
        Ok(())
    }

    /// Step 2, and the wait for what CI does: its own process tells of steps 3 to 6. A commit whose run is over already is
    /// run again, and finds everything in its place.
    async fn ci(&self, clients: &Clients, flow: &str, name: &str, pushed: &Pushed) -> Track<()> {
        let slug = repository(name)?;
        let policy = Policy::every(CI_POLICY.0).within(CI_POLICY.1);
        let begun = async {
            let run = self.triggered(clients, &slug, pushed, &policy).await?;
            let facts = [(
                "run".into(),
                format!("{slug}: {} ({}, attempt {})", run.id, run.workflow, run.attempt),
            )];
            Ok::<_, Error>((facts.into(), run))
        };
        let title = format!("start CI of {slug}");
        let run = self
            .live
            .during(Step::TriggerCi, title, begun)
            .await
            .map_err(|error| at(Step::TriggerCi, error))?;
        let ended = towpath_core::wait::until(
            &policy,
            &self.cancellation,
            || clients.github.run(&slug, run.id),
            Error::retry,
            |now| match now.state {
                CiState::Completed(_) if now.attempt >= run.attempt => towpath_core::wait::Judgement::Met,
                _ => towpath_core::wait::Judgement::pending("the CI run to end"),
            },
        )
        .await;
        let towpath_core::wait::Outcome::Met(run) = ended else {
            let error = Error::new(
                ErrorKind::TimedOut,
                "CI",
                "wait for",
                format!("run {} of {slug}", run.id),
            );
            return Err(at(Step::TriggerCi, error));
        };
        match run.state {
            CiState::Completed(Conclusion::Success) => Ok(()),
            _ => Err(self.ci_problem(clients, flow, &slug, &run).await),
        }
    }

    async fn triggered(
        &self,
        clients: &Clients,
        slug: &RepoSlug,
        Pushed { commit, is_new }: &Pushed,
        policy: &Policy,
    ) -> Result<CiRun, Error> {
        let outcome = towpath_core::wait::until(
            policy,
            &self.cancellation,
            || async { Ok(clients.github.runs(slug, commit).await?.into_iter().next()) },
            Error::retry,
            |run: &Option<CiRun>| match run {
                Some(_) => towpath_core::wait::Judgement::Met,
                None => towpath_core::wait::Judgement::pending("the push to start a run"),
            },
        )
        .await;
        let towpath_core::wait::Outcome::Met(Some(mut run)) = outcome else {
            return Err(Error::new(ErrorKind::TimedOut, "CI", "find a run of", slug)
                .because(format!("the push of {} started none", commit.short())));
        };
        if !is_new && matches!(run.state, CiState::Completed(_)) {
            clients.github.rerun(slug, run.id).await?;
            run.attempt += 1;
        }
        Ok(run)
    }

    /// What CI's own steps said of the failure, else the end of the failed job's log.
    async fn ci_problem(&self, clients: &Clients, flow: &str, slug: &RepoSlug, run: &CiRun) -> Problem {
        let next = "Mend it in a new commit; what is done stays done.".to_owned();
        if let Some(Failed {
            step,
            reason,
            retryable,
        }) = self.live.failure(flow)
        {
            let next = match retryable {
                true => "Run CI again once the service answers; what is done stays done.".to_owned(),
                false => next,
            };
            return Problem {
                step: Some(step),
                cause: reason,
                next,
                waiting: false,
            };
        }
        let mut cause = format!("CI run {} of {slug} ended as {:?}", run.id, run.state);
        if let Ok(jobs) = clients.github.jobs(slug, run.id).await {
            for job in jobs
                .iter()
                .filter(|job| job.state != CiState::Completed(Conclusion::Success))
            {
                if let Ok(log) = clients.github.log(slug, job.id, 15).await {
                    cause.push_str(&format!("\nlog of job {}:\n{log}", job.name));
                }
            }
        }
        let failure = Error::new(ErrorKind::Invalid, "CI", "build", slug).because(&cause);
        let _ = self
            .live
            .during(Step::TriggerCi, format!("run CI of {slug}"), async {
                Err::<(towpath_flow::Evidence, ()), _>(failure)
            })
            .await;
        Problem {
            step: Some(Step::TriggerCi),
            cause,
            next,
            waiting: false,
        }
    }

    /// What CI promoted, read from the deployment repository: that is where everybody learns of it.
    async fn promotion(
        &self,
        clients: &Clients,
        commit: &CommitSha,
    ) -> Result<(CommitSha, ImageRef, Vec<Digest>), Error> {
        let (deploy, main) = (repository("deploy")?, main_branch()?);
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                "whole-path",
                "find the promotion of",
                commit.short(),
            )
        };
        let mut history = clients
            .github
            .history(&deploy, &main, Some(DEPLOYMENT_FILE.to_owned()));
        let mut promoted = None;
        while let Some(found) = history.next().await {
            let found: Commit = found?;
            if found.trailer("Source-Commit") == Some(commit.as_str()) {
                promoted = Some(found.sha);
                break;
            }
        }
        let promoted = promoted.ok_or_else(missing)?;
        let file = clients
            .github
            .file(&deploy, &promoted, DEPLOYMENT_FILE)
            .await?
            .ok_or_else(missing)?;
        let located = clients.ecr.locate(&"shop/web".parse()?).await?;
        let images = manifest::images_of(&file, &located).map_err(|problem| missing().because(problem))?;
        let image = images.into_iter().next().ok_or_else(missing)?;
        let resolved = clients.ecr.resolve(&image).await?.ok_or_else(missing)?;
        let platforms = resolved
            .platforms
            .into_iter()
            .map(|platform| platform.digest)
            .collect();
        Ok((promoted, image, platforms))
    }
}

fn at(step: Step, error: Error) -> Problem {
    Problem {
        step: Some(step),
        ..Problem::from(error)
    }
}

fn repository(name: &str) -> Result<RepoSlug, Error> {
    Ok(format!("{ORGANIZATION}/{name}").parse()?)
}

fn main_branch() -> Result<BranchName, Error> {
    Ok(BranchName::new("main")?)
}

fn application(repository_url: &str) -> Result<App, Error> {
    let app = serde_json::json!({
        "metadata": {"name": "web"},
        "spec": {
            "project": "default",
            "source": {"repoURL": repository_url, "path": DEPLOYMENT_FOLDER, "targetRevision": "main"},
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "shop"},
            "syncPolicy": {"automated": {"prune": true, "selfHeal": true}},
        },
    });
    serde_json::from_value(app).map_err(|error| {
        Error::new(ErrorKind::Invalid, "Argo CD", "describe", "the application").caused_by(error)
    })
}

/// A runner owns its approver; the path's is shared with its caller.
struct Shared(Arc<dyn towpath_flow::Approver>);

#[async_trait::async_trait]
impl towpath_flow::Approver for Shared {
    async fn decide(&self, question: &towpath_flow::Question) -> Option<towpath_flow::Decision> {
        self.0.decide(question).await
    }
}
