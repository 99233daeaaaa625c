//! Races together: for every schedule of losses and delays, *live* means that the cluster runs what is expected, and it
//! comes in the end.

use crate::lab_world::{World, expected};
use crate::wire::LONG;
use std::time::Duration;
use towpath_argocd::DeliveryOutcome;
use towpath_core::Cancellation;
use towpath_elements::Delivery;
use towpath_lab::argocd::{HealthFlap, KnobSettings, StreamCut, SummaryImages};

/// Numbers that look random and are the same each time (a linear congruential generator, by Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn millis(&mut self, limit: u64) -> Duration {
        // Half of the times there is no delay at all.
        Duration::from_millis(self.below(2) * self.below(limit))
    }

    fn few(&mut self, limit: u64) -> u32 {
        self.below(limit).try_into().unwrap()
    }

    fn one_of<T>(&mut self, from: impl IntoIterator<Item = T>) -> T {
        let mut from: Vec<T> = from.into_iter().collect();
        let index = self.below(from.len() as u64) as usize;
        from.swap_remove(index)
    }

    /// Losses and delays that pass, or can be got around.
    fn turn(&mut self, knobs: &mut KnobSettings, automated: bool) {
        knobs.lose_refresh = self.few(4);
        knobs.delay_pickup = self.millis(200);
        knobs.operation_conflict = self.few(3);
        // What syncs on its own tries again; a sync that was asked for and fails is an outcome.
        knobs.fail_attempts = if automated { self.few(3) } else { 0 };
        knobs.stale_health_after_sync = self.millis(300);
        knobs.same_second_reconcile = self.below(2) == 1;
        knobs.informer_lag = self.millis(200);
        knobs.drop_watch_events = self.few(6);
        knobs.cut_stream_after = self.one_of([None, Some(1), Some(3)]);
        knobs.cut_stream_within = self.one_of([StreamCut::Event, StreamCut::Line, StreamCut::Character]);
        knobs.summary_images = self.one_of([
            SummaryImages::AsItIs,
            SummaryImages::Stale,
            SummaryImages::Doubled,
            SummaryImages::Empty,
        ]);
        knobs.health_flap = (self.below(2) == 1).then(|| HealthFlap {
            times: 1 + self.few(2),
            healthy_for: self.millis(50),
            degraded_for: Duration::from_millis(50),
        });
    }
}

#[tokio::test]
async fn whatever_comes_together_live_means_that_it_runs() {
    for seed in 1..=10 {
        let mut numbers = Numbers(seed);
        let automated = numbers.below(2) == 1;
        let (world, ..) = World::deployed(automated).await;
        let client = world.client_with(|policy| policy.degraded_grace = LONG);
        for name in ["two", "three"] {
            world.lab.knobs().set(|knobs| numbers.turn(knobs, automated));
            let knobs = world.lab.knobs().get();
            let image = world.image(name);
            let commit = world.commit(&image);
            let report = client
                .wait(expected(&commit, &image), &Cancellation::new())
                .await
                .unwrap();
            assert_eq!(
                report.outcome,
                DeliveryOutcome::Live,
                "{seed}: {report:?}, {knobs:?}"
            );
            world.assert_runs(&image);
        }
    }
}
