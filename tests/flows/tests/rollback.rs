//! Rollbacks of a deployment, and the hold that they leave behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use async_trait::async_trait;
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use towpath_core::{CommitSha, Digest, ImageRef, RepoSlug, requests};
use towpath_elements::{Error, ErrorKind};
use towpath_flow::effects::{Deployment, Promotion, RollBack, RolledBack, To, WriteBack, WrittenBack};
use towpath_flow::{Context, Effect, Flow, MemoryJournal, Runner, Step, Stop};
use towpath_testkit::world::Element;
use towpath_tests_flows::{Company, Crash, CrashingJournal, main_branch};

/// A deployment file with two services, and builds of one of them.
struct Shop {
    company: Company,
    deployment: Deployment,
    builds: Vec<CommitSha>,
}

const FILE: &str = "shop.yaml";
const REASON: &str = "orders are charged twice: see #12";

/// The file with these texts for the two images.
fn file(web: &str, api: &str, note: &str) -> String {
    format!(
        "# {note}\nspec:\n  containers:\n    - name: web\n      image: '{web}'  # by the flow\n    - name: api\n      \
         image: {api}\n"
    )
}

fn image(service: &str, build: usize) -> ImageRef {
    let digest = Digest::sha256_of(format!("{service} {build}"));
    format!("quay.io/acme/{service}:v{build}@{digest}")
        .parse()
        .unwrap()
}

impl Shop {
    /// With so many builds of the web, each newer than the one before, and none promoted.
    fn new(builds: usize) -> Self {
        let company = Company::new();
        let repository: RepoSlug = "acme/shop".parse().unwrap();
        let before = file("quay.io/acme/web:before", "quay.io/acme/api:before", "The shop.");
        company.world.create_repository(&repository, &[(FILE, &before)]);
        let builds = (0..builds).map(|_| company.change().service).collect();
        let deployment = Deployment {
            repository,
            branch: main_branch(),
            file: FILE.into(),
        };
        Self {
            company,
            deployment,
            builds,
        }
    }

    /// With the first builds promoted, one after the other; with the commits that did it.
    async fn with_promoted(builds: usize, promoted: usize) -> (Self, Vec<CommitSha>) {
        let shop = Self::new(builds);
        let mut commits = Vec::new();
        for build in 0..promoted {
            let written = shop.make(&shop.promotion(build)).await.unwrap();
            assert!(matches!(written, WrittenBack::Promoted(_)), "{written:?}");
            commits.push(written.commit().clone());
        }
        shop.company.world.forget_calls();
        (shop, commits)
    }

    /// Does as a runner does: asks first.
    async fn make<E: Effect>(&self, effect: &E) -> Result<E::Output, Error> {
        let elements = self.company.elements();
        match effect.observe(&elements).await? {
            Some(output) => Ok(output),
            None => effect.apply(&elements).await,
        }
    }

    fn promotion(&self, build: usize) -> WriteBack {
        WriteBack {
            deployment: self.deployment.clone(),
            image: image("web", build),
            source: self.company.service(),
            commit: self.builds[build].clone(),
            release_hold: None,
        }
    }

    fn release(&self, build: usize) -> WriteBack {
        WriteBack {
            release_hold: Some("charges are fixed".into()),
            ..self.promotion(build)
        }
    }

    fn roll_back(&self, undo: &CommitSha, to: To) -> RollBack {
        RollBack {
            deployment: self.deployment.clone(),
            image: image("web", 0),
            undo: undo.clone(),
            to,
            reason: REASON.into(),
        }
    }

    fn text(&self) -> String {
        let Deployment {
            repository, branch, ..
        } = &self.deployment;
        self.company.world.text(repository, branch, FILE).unwrap()
    }

    fn push(&self, path: &str, text: &str) -> CommitSha {
        let Deployment {
            repository, branch, ..
        } = &self.deployment;
        self.company
            .world
            .push(repository, branch, &[(path, text)], "By hand")
    }

    /// The build of the web that the file has.
    fn stands(&self) -> usize {
        let text = self.text();
        (0..self.builds.len())
            .find(|build| text.contains(&format!("'{}'", image("web", *build))))
            .unwrap_or_else(|| panic!("none of the builds: {text}"))
    }

    /// How often flows have committed.
    fn commits(&self) -> usize {
        let changes = self.company.world.changes();
        changes
            .iter()
            .filter(|call| (call.element, call.method) == (Element::Source, "commit"))
            .count()
    }

    async fn promotions(&self) -> Vec<Promotion> {
        let source = self.company.world.source();
        let found = self.deployment.promotions(source.as_ref(), &image("web", 0));
        found.try_collect().await.unwrap()
    }

    async fn newest_message(&self) -> String {
        let Deployment {
            repository, branch, ..
        } = &self.deployment;
        let mut history = self.company.world.source().history(repository, branch, None);
        history.try_next().await.unwrap().unwrap().message
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_image_goes_back_and_only_once() {
    let (shop, promoted) = Shop::with_promoted(2, 2).await;
    let api = WriteBack {
        image: image("api", 7),
        ..shop.promotion(1)
    };
    shop.make(&api).await.unwrap();
    let (web, api) = (image("web", 1).to_string(), image("api", 7).to_string());
    assert_eq!(shop.text(), file(&web, &api, "The shop."));
    shop.push(FILE, &file(&web, &api, "The shop, in spring."));
    shop.company.world.forget_calls();

    let roll_back = shop.roll_back(&promoted[1], To::Previous);
    let elements = shop.company.elements();
    let (rolled_back, sent) = requests::count(roll_back.apply(&elements)).await;
    let rolled_back = rolled_back.unwrap();
    assert_eq!(sent, 5, "head, file, history, the earlier file, commit");
    let first = image("web", 0);
    assert_eq!(
        shop.text(),
        file(&first.to_string(), &api, "The shop, in spring.")
    );
    assert_eq!((&rolled_back.undone, &rolled_back.image), (&promoted[1], &first));
    let expected = format!(
        "Roll back acme/web to {}\n\nSource-Commit: {}\nImage: quay.io/acme/web\nImage-Digest: {}\nRolled-Back: {}\n\
         Hold: {REASON}\n",
        shop.builds[0].short(),
        shop.builds[0],
        first.digest().unwrap(),
        promoted[1],
    );
    assert_eq!(shop.newest_message().await, expected);
    let newest = shop.promotions().await.remove(0);
    assert_eq!(
        newest,
        Promotion {
            commit: rolled_back.commit.clone(),
            source_commit: Some(shop.builds[0].clone()),
            digest: first.digest().cloned(),
            undoes: Some(promoted[1].clone()),
            hold: Some(REASON.into()),
        }
    );

    let (again, sent) = requests::count(roll_back.observe(&elements)).await;
    assert_eq!((again.unwrap(), sent), (Some(rolled_back.clone()), 3));
    assert_eq!(roll_back.apply(&elements).await.unwrap(), rolled_back);
    assert_eq!(shop.commits(), 1);
}

#[tokio::test(start_paused = true)]
async fn undoing_twice_goes_two_builds_back() {
    let (shop, promoted) = Shop::with_promoted(4, 3).await;
    let back = |undo: &CommitSha| shop.roll_back(undo, To::Previous);
    let first = shop.make(&back(&promoted[2])).await.unwrap();
    assert_eq!(shop.stands(), 1);
    let second = shop.make(&back(&first.commit)).await.unwrap();
    assert_eq!((shop.stands(), &second.undone), (0, &first.commit));
    let error = shop.make(&back(&second.commit)).await.unwrap_err();
    assert!(
        error.is_not_found() && error.detail().contains("no promotion before"),
        "{error}"
    );
    // What stood before a promotion is what a rollback had brought back.
    let third = shop.make(&shop.release(3)).await.unwrap();
    let rolled_back = shop.make(&back(third.commit())).await.unwrap();
    assert_eq!(shop.stands(), 0);
    assert!(
        shop.make(&back(&rolled_back.commit))
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert_eq!(shop.commits(), 4);
}

#[tokio::test(start_paused = true)]
async fn one_may_go_back_to_any_promotion_and_on_from_there() {
    let (shop, promoted) = Shop::with_promoted(3, 3).await;
    let to = |undo: &CommitSha, commit: &CommitSha| shop.roll_back(undo, To::Commit(commit.clone()));
    let oldest = shop.make(&to(&promoted[2], &promoted[0])).await.unwrap();
    assert_eq!((shop.stands(), &oldest.image), (0, &image("web", 0)));
    let error = shop
        .make(&shop.roll_back(&promoted[2], To::Previous))
        .await
        .unwrap_err();
    assert!(
        error.is_conflict() && error.detail().contains("another build"),
        "{error}"
    );
    let middle = shop.make(&to(&oldest.commit, &promoted[1])).await.unwrap();
    assert_eq!(shop.stands(), 1);
    let before = shop
        .make(&shop.roll_back(&middle.commit, To::Previous))
        .await
        .unwrap();
    assert_eq!(shop.stands(), 0);
    assert_eq!(shop.commits(), 3);

    for (commit, kind) in [
        (&before.commit, ErrorKind::Invalid),
        (&promoted[0], ErrorKind::Conflict),
        (&shop.builds[0], ErrorKind::NotFound),
    ] {
        let error = shop.make(&to(&before.commit, commit)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(shop.commits(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_held_image_is_promoted_only_by_a_release() {
    let (shop, promoted) = Shop::with_promoted(5, 3).await;
    let elements = shop.company.elements();
    let unheld = requests::count(shop.promotion(3).observe(&elements)).await.1;
    let rolled_back = shop
        .make(&shop.roll_back(&promoted[2], To::Previous))
        .await
        .unwrap();
    // The undone build, a newer one and an older one: each is refused, for no more requests than before.
    for build in [2, 3, 0] {
        let effect = shop.promotion(build);
        let (error, sent) = requests::count(effect.apply(&elements)).await;
        let error = error.unwrap_err();
        assert!(error.is_conflict() && sent < unheld, "{error}: {sent}");
        for said in [REASON, rolled_back.commit.as_str(), "release_hold"] {
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(effect.observe(&elements).await.unwrap_err().is_conflict());
    }
    // The one that stands is no change, by whatever tag it comes.
    let image = image("web", 1);
    let retagged = format!("quay.io/acme/web:other@{}", image.digest().unwrap());
    for image in [image, retagged.parse().unwrap()] {
        let same = WriteBack {
            image,
            ..shop.promotion(1)
        };
        let written = shop.make(&same).await.unwrap();
        assert_eq!(written, WrittenBack::Promoted(rolled_back.commit.clone()));
    }
    assert_eq!((shop.stands(), shop.commits()), (1, 1));
    // Another service in the file is not held.
    let api = WriteBack {
        image: "quay.io/acme/api:2@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            .parse()
            .unwrap(),
        ..shop.promotion(2)
    };
    shop.make(&api).await.unwrap();
    assert!(
        shop.make(&shop.promotion(3)).await.unwrap_err().is_conflict(),
        "held still"
    );

    let older = shop.make(&shop.release(0)).await.unwrap();
    assert_eq!(older, WrittenBack::Newer(rolled_back.commit.clone()));
    shop.make(&shop.release(3)).await.unwrap();
    assert_eq!(shop.stands(), 3);
    let message = shop.newest_message().await;
    assert!(
        message.ends_with("\nHold-Released: charges are fixed\n") && !message.contains("Hold:"),
        "{message}"
    );
    // With no hold there is nothing to release, and nothing is said of it.
    shop.make(&shop.release(4)).await.unwrap();
    assert_eq!(shop.stands(), 4);
    assert!(!shop.newest_message().await.contains("Hold"));
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_one_line() {
    let (shop, promoted) = Shop::with_promoted(2, 2).await;
    for reason in [
        "",
        " ",
        "bad\nHold-Released: no",
        "bad\rworse",
        "bad\u{2028}worse",
    ] {
        let roll_back = RollBack {
            reason: reason.into(),
            ..shop.roll_back(&promoted[1], To::Previous)
        };
        let release = WriteBack {
            release_hold: Some(reason.into()),
            ..shop.promotion(1)
        };
        for error in [
            shop.make(&roll_back).await.map(|_| ()),
            shop.make(&release).await.map(|_| ()),
        ] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Invalid, "{reason:?}");
        }
    }
    assert_eq!(shop.company.world.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn what_no_longer_stands_is_left_alone() {
    let (shop, promoted) = Shop::with_promoted(3, 3).await;
    let refused = async |undo: &CommitSha, said: &str| {
        let error = shop.make(&shop.roll_back(undo, To::Previous)).await.unwrap_err();
        assert!(error.is_conflict() && error.detail().contains(said), "{error}");
    };
    refused(&promoted[1], promoted[2].as_str()).await;
    // Somebody has written an image by hand: no promotion says so, and undoing one would lose it.
    shop.push(
        FILE,
        &file("quay.io/acme/web:hotfix", "quay.io/acme/api:2", "Hot."),
    );
    refused(&promoted[2], "quay.io/acme/web:hotfix").await;
    assert!(shop.text().contains("hotfix"));
    assert_eq!(shop.commits(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_came_before_there_is_no_way_back() {
    let (shop, promoted) = Shop::with_promoted(1, 1).await;
    let roll_back = shop.roll_back(&promoted[0], To::Previous);
    assert!(shop.make(&roll_back).await.unwrap_err().is_not_found());
    let other = RollBack {
        image: image("api", 0),
        ..roll_back
    };
    let error = shop.make(&other).await.unwrap_err();
    assert!(
        error.is_not_found() && error.detail().contains("200 commits"),
        "{error}"
    );
    assert_eq!(shop.commits(), 0);
}

/// A rollback as a flow of its own.
#[derive(Serialize, Deserialize)]
struct Undo(RollBack);

#[async_trait]
impl Flow for Undo {
    const NAME: &'static str = "undo";
    type Outcome = RolledBack;

    async fn run(&self, context: &Context<'_>) -> Result<RolledBack, Stop> {
        context.perform(Step::ReportBuild, &self.0).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_and_a_newer_build_race_and_nobodys_commit_is_lost() {
    let mut rolled_back_first = 0;
    for seed in 0..100 {
        let (shop, promoted) = Shop::with_promoted(3, 2).await;
        let before = shop
            .company
            .world
            .commit_count(&shop.deployment.repository, &main_branch());
        shop.company.world.jitter(seed);
        let (undo, newer) = (shop.roll_back(&promoted[1], To::Previous), shop.promotion(2));
        let people = async {
            for number in 0..20 {
                tokio::time::sleep(Duration::from_millis(97)).await;
                shop.push("notes.md", &number.to_string());
            }
        };
        let (one, two, newer, ()) =
            futures_util::join!(shop.make(&undo), shop.make(&undo), shop.make(&newer), people);
        // Both of the same rollback come to the same, unless the newer build came in between.
        let held = match (&one, &newer) {
            (Ok(_), Err(held)) => {
                assert!(
                    held.is_conflict() && held.detail().contains(REASON),
                    "seed {seed}: {held}"
                );
                assert_eq!(one.as_ref().unwrap(), two.as_ref().unwrap(), "seed {seed}");
                true
            }
            (Err(late), Ok(WrittenBack::Promoted(_))) => {
                assert!(late.is_conflict(), "seed {seed}: {late}");
                assert!(two.unwrap_err().is_conflict(), "seed {seed}");
                false
            }
            other => panic!("seed {seed}: {other:?}"),
        };
        rolled_back_first += usize::from(held);
        assert_eq!(shop.stands(), if held { 0 } else { 2 }, "seed {seed}");
        assert_eq!(shop.commits(), 1, "seed {seed}");
        let after = shop
            .company
            .world
            .commit_count(&shop.deployment.repository, &main_branch());
        assert_eq!(after - before, 20 + 1, "seed {seed}: no commit is lost");
    }
    assert!(
        (5..95).contains(&rolled_back_first),
        "both orders happen: {rolled_back_first} of 100"
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_entry_of_the_journal_rolls_back_once() {
    for crash in [Crash::Before, Crash::After] {
        for at in 0.. {
            let (shop, promoted) = Shop::with_promoted(2, 2).await;
            let journal = CrashingJournal::at(at, crash);
            let runner = Runner::new(shop.company.elements()).with_journal(journal.clone());
            let flow = Undo(shop.roll_back(&promoted[1], To::Previous));
            let rolled_back = loop {
                match runner.run("undo", &flow).await {
                    Ok(rolled_back) => break rolled_back,
                    Err(error) => assert!(matches!(error.stop, Stop::Journal(_)), "{error}"),
                }
            };
            assert_eq!((shop.stands(), shop.commits()), (0, 1), "{crash:?} entry {at}");
            assert_eq!(shop.promotions().await[0].commit, rolled_back.commit);
            if !journal.has_crashed() {
                assert!(at > 2, "there are more entries than {at}");
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn seeded_faults_roll_back_once() {
    for seed in 0..200 {
        let (shop, promoted) = Shop::with_promoted(2, 2).await;
        let runner = Runner::new(shop.company.elements()).with_journal(MemoryJournal::new());
        let flow = Undo(shop.roll_back(&promoted[1], To::Previous));
        shop.company.world.jitter(seed);
        shop.company.world.chaos(seed, 0.3);
        loop {
            match runner.run("undo", &flow).await {
                Ok(rolled_back) => {
                    assert_eq!(rolled_back.image, image("web", 0), "seed {seed}");
                    break;
                }
                Err(error) => match &error.stop {
                    Stop::Failed { failure, .. }
                        if matches!(failure.kind, ErrorKind::Unavailable | ErrorKind::RateLimited) => {}
                    _ => panic!("seed {seed}: {error}"),
                },
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!((shop.stands(), shop.commits()), (0, 1), "seed {seed}");
    }
}
