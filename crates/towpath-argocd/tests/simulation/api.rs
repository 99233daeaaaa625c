//! What a wait is answered, and who knows the history.

use super::controller::accept;
use super::*;

#[async_trait]
impl Backend for Simulation {
    async fn application(&self, _: &Application) -> Result<App> {
        self.enter().await?;
        self.state().app.clone().ok_or_else(|| self.gone())
    }

    async fn refreshed(&self, application: &Application, within: Duration) -> Result<App> {
        self.enter().await?;
        {
            let mut state = self.state();
            state.refresh = true;
            self.ask(&mut state, Level::Force);
        }
        let done = async {
            while self.state().refresh {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(within, done).await.is_err() {
            return Err(Error::new(ErrorKind::TimedOut, "Argo CD", "refresh", application));
        }
        self.state().app.clone().ok_or_else(|| self.gone())
    }

    async fn sync(&self, application: &Application, request: &SyncRequest) -> Result<App> {
        self.enter().await?;
        let mut state = self.state();
        let Some(app) = &state.app else {
            return Err(self.gone());
        };
        let refused = |http, code, message: &str| {
            let refusal = towpath_argocd::ApiError::new(http, Some(code), message);
            Err(Error::new(ErrorKind::Conflict, "Argo CD", "sync", application).caused_by(refusal))
        };
        if self.within(self.schedule.window) {
            return refused(403, 7, "cannot sync: blocked by sync window");
        }
        if app.operation.is_some() {
            return refused(400, 9, "another operation is already in progress");
        }
        let commit = request
            .revisions
            .first()
            .and_then(|text| CommitName::of(text))
            .unwrap_or(state.head);
        let operation = Operation {
            info: request
                .infos
                .iter()
                .map(|info| Info {
                    name: info.name.clone(),
                    value: info.value.clone(),
                })
                .collect(),
            ..operation(commit, false)
        };
        accept(self, &mut state, operation);
        state.app.clone().ok_or_else(|| self.gone())
    }

    async fn sync_windows(&self, _: &Application) -> Result<SyncWindows> {
        self.enter().await?;
        let closed = self.within(self.schedule.window);
        let window = SyncWindow {
            kind: "deny".into(),
            schedule: "* * * * *".into(),
            duration: "1h".into(),
            ..SyncWindow::default()
        };
        Ok(SyncWindows {
            active_windows: if closed { vec![window.clone()] } else { Vec::new() },
            assigned_windows: vec![window],
            can_sync: !closed,
        })
    }

    async fn desired_images(&self, _: &Application, revision: &CommitSha) -> Result<Vec<String>> {
        self.enter().await?;
        let commit = CommitName::of(revision.as_str()).unwrap_or(CommitName::Old);
        Ok(vec![
            image(self.image_of(commit), self.schedule.same_tag).to_string(),
        ])
    }

    async fn running_images(&self, _: &Application, _: &BTreeSet<String>) -> Result<Vec<RunningImage>> {
        self.enter().await?;
        let state = self.state();
        let pods = state.pods.iter().enumerate();
        Ok(pods
            .map(|(number, pod)| {
                let image = image(pod.image, self.schedule.same_tag);
                RunningImage {
                    pod: format!("shop/web-{number}"),
                    digest: image.digest().cloned().filter(|_| pod.ready),
                    image,
                    ready: pod.ready && !state.flapping,
                }
            })
            .collect())
    }

    fn changes(&self, _: &Application) -> Changes {
        let receiver = self.told.subscribe();
        stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let version = *receiver.borrow_and_update();
            Some((Ok(Change::to(Some(version))), receiver))
        })
        .boxed()
    }
}

/// Knows the history.
#[derive(Debug)]
pub(crate) struct History(pub(crate) Option<Overtaking>);

#[async_trait]
impl RevisionOracle for History {
    async fn contains(&self, _: &str, revision: &CommitSha, expected: &CommitSha) -> Result<bool> {
        let (Some(revision), Some(expected)) = (
            CommitName::of(revision.as_str()),
            CommitName::of(expected.as_str()),
        ) else {
            return Ok(false);
        };
        Ok(match (revision, expected) {
            (one, other) if one == other => true,
            (_, CommitName::Old) => true,
            (CommitName::Overtaking, CommitName::Expected) => self.0 != Some(Overtaking::ForcedBack),
            _ => false,
        })
    }
}
