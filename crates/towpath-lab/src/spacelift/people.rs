//! What people and API keys do to a run. The messages in quotes in Spacelift's issue trackers are used word for word;
//! the others are this lab's own, since Spacelift's are not public.

use super::run::{Review, RunState, RunType};
use super::world::{World, now, ulid};

impl World {
    /// The run that was named, or the one that holds the stack.
    fn run_or_blocker(&self, stack: &str, run: Option<&str>) -> Result<String, String> {
        let found = self.stack(stack).ok_or("unauthorized")?;
        let id = run
            .or(found.blocker.as_deref())
            .ok_or("stack has no blocking run")?;
        match self.run(id) {
            Some(run) if run.stack == stack => Ok(run.id.clone()),
            _ => Err("not found".into()),
        }
    }

    fn expect_state(&self, run: &str, action: &str, allowed: &[RunState]) -> Result<(), String> {
        let state = self.run(run).map_or(RunState::None, super::run::Run::state);
        if allowed.contains(&state) {
            return Ok(());
        }
        let state = serde_json::json!(state);
        Err(format!(
            "run in state {} cannot be {action}",
            state.as_str().unwrap_or_default()
        ))
    }

    pub(super) fn confirm(
        &mut self,
        stack: &str,
        run: Option<&str>,
        note: Option<String>,
        by: &str,
    ) -> Result<String, String> {
        let run = self.run_or_blocker(stack, run)?;
        self.expect_state(&run, "confirmed", &[RunState::Unconfirmed])?;
        if self.run(&run).is_some_and(super::run::Run::needs_approval) {
            return Err("run cannot be confirmed: it still needs approval".into());
        }
        self.transition(&run, RunState::Confirmed, note, Some(by.into()));
        Ok(run)
    }

    pub(super) fn discard(
        &mut self,
        stack: &str,
        run: Option<&str>,
        note: Option<String>,
        by: &str,
    ) -> Result<String, String> {
        let run = self.run_or_blocker(stack, run)?;
        let allowed = [RunState::Unconfirmed, RunState::Queued, RunState::Ready];
        self.expect_state(&run, "discarded", &allowed)?;
        self.transition(&run, RunState::Discarded, note, Some(by.into()));
        Ok(run)
    }

    pub(super) fn discard_all(
        &mut self,
        stack: &str,
        note: Option<&str>,
        by: &str,
    ) -> Result<Vec<String>, String> {
        self.stack(stack).ok_or("unauthorized")?;
        let waiting = |state| matches!(state, RunState::Unconfirmed | RunState::Queued | RunState::Ready);
        let runs = self
            .runs
            .iter()
            .filter(|run| run.stack == stack && waiting(run.state()));
        let runs: Vec<String> = runs.map(|run| run.id.clone()).collect();
        if runs.is_empty() {
            return Err("no runs found that can be discarded".into());
        }
        for run in &runs {
            self.transition(
                run,
                RunState::Discarded,
                note.map(ToOwned::to_owned),
                Some(by.into()),
            );
        }
        Ok(runs)
    }

    pub(super) fn cancel(
        &mut self,
        stack: &str,
        run: &str,
        note: Option<String>,
        by: &str,
    ) -> Result<String, String> {
        let run = self.run_or_blocker(stack, Some(run))?;
        self.expect_state(&run, "canceled", &[RunState::Queued, RunState::Ready])?;
        self.transition(&run, RunState::Canceled, note, Some(by.into()));
        Ok(run)
    }

    /// Asks the worker to stop. The run is STOPPED once the worker did, so the answer still shows the old state.
    pub(super) fn stop(
        &mut self,
        stack: &str,
        run: &str,
        note: Option<String>,
        by: &str,
    ) -> Result<String, String> {
        let run = self.run_or_blocker(stack, Some(run))?;
        let allowed = [RunState::Preparing, RunState::Initializing, RunState::Planning];
        self.expect_state(&run, "stopped", &allowed)?;
        if let Some(run) = self.run_mut(&run) {
            run.stop = true;
            let text = note.map_or_else(String::new, |note| format!(": {note}"));
            run.comments
                .push((by.to_owned(), now(), format!("stop requested{text}")));
        }
        Ok(run)
    }

    pub(super) fn replan(
        &mut self,
        stack: &str,
        run: &str,
        targets: Vec<String>,
        by: &str,
    ) -> Result<String, String> {
        let run = self.run_or_blocker(stack, Some(run))?;
        self.expect_state(&run, "replanned", &[RunState::Unconfirmed])?;
        if let Some(run) = self.run_mut(&run) {
            run.targets = targets;
        }
        self.transition(&run, RunState::ReplanRequested, None, Some(by.into()));
        self.hand_over_outputs(&run);
        Ok(run)
    }

    pub(super) fn review(
        &mut self,
        stack: &str,
        run: Option<&str>,
        approves: bool,
        note: Option<String>,
        by: &str,
    ) -> Result<Review, String> {
        let run = self.run_or_blocker(stack, run)?;
        let allowed = [RunState::Queued, RunState::Unconfirmed, RunState::PendingReview];
        self.expect_state(&run, "reviewed", &allowed)?;
        let Some(found) = self.run_mut(&run) else {
            return Err("not found".into());
        };
        let review = Review {
            id: ulid(),
            author: by.to_owned(),
            approves,
            note: note.clone(),
            state: found.state(),
            at: now(),
        };
        found.reviews.push(review.clone());
        if !approves && found.approval {
            self.transition(&run, RunState::Failed, note, Some(by.into()));
        }
        Ok(review)
    }

    /// A newer push on a branch ends the proposed runs of the older ones there.
    pub(super) fn supersede(&mut self, stack: &str, branch: &str) {
        let older: Vec<_> = self
            .runs
            .iter()
            .filter(|run| {
                run.stack == stack && run.kind == RunType::Proposed && run.branch.as_deref() == Some(branch)
            })
            .map(|run| (run.id.clone(), run.state()))
            .collect();
        for (run, state) in older {
            if matches!(state, RunState::Queued | RunState::Ready) {
                self.transition(
                    &run,
                    RunState::Canceled,
                    Some("Superseded by a newer push".into()),
                    None,
                );
            } else if let Some(run) = self.run_mut(&run) {
                run.stop = true;
            }
        }
    }
}
