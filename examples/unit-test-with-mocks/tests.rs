use super::*;
use towpath_core::Digest;
use towpath_elements::registry::ResolvedImage;
use towpath_elements::source::{PullRequest, Review, ReviewState, ReviewVerdict};
use towpath_elements::{MockRegistry, MockSource};

fn commit(digit: char) -> CommitSha {
    String::from(digit).repeat(40).parse().unwrap()
}

fn promotion() -> Promotion {
    Promotion {
        service: "acme/web".parse().unwrap(),
        commit: commit('a'),
        image: "localhost:5000/shop/web:1.4".parse().unwrap(),
        deployment: "acme/deploy".parse().unwrap(),
        branch: "main".parse().unwrap(),
        file: "live/web.image".into(),
    }
}

/// A source in which bob approved this commit of ann's pull request, which was merged at commit b.
fn reviewed(approved: char) -> MockSource {
    let mut source = MockSource::new();
    source.expect_review().returning(move |_, asked| {
        let verdict = ReviewVerdict {
            by: "bob".into(),
            state: ReviewState::Approved,
            commit: Some(commit(approved)),
            at: None,
        };
        let pull = PullRequest {
            number: 7,
            url: None,
            author: "ann".into(),
            head: commit('b'),
            verdicts: vec![verdict],
        };
        Ok(Review {
            commit: asked.clone(),
            pull_requests: vec![pull],
        })
    });
    source
}

/// A registry in which the tag names an image.
fn registry() -> MockRegistry {
    let mut registry = MockRegistry::new();
    registry.expect_resolve().returning(|image| {
        let digest = Digest::sha256_of("the image");
        Ok(Some(ResolvedImage {
            image: image.at(digest.clone()),
            digest,
            media_type: "application/vnd.oci.image.index.v1+json".into(),
            platforms: vec![],
            annotations: BTreeMap::new(),
        }))
    });
    registry
}

#[tokio::test]
async fn an_approval_of_an_older_commit_promotes_nothing() {
    // The mocks expect neither a look at the registry nor a commit: either would panic.
    let error = promote(&reviewed('c'), &MockRegistry::new(), &promotion())
        .await
        .unwrap_err();
    assert!(error.is_denied(), "{error}");
}

#[tokio::test]
async fn the_digest_is_written_not_the_tag() {
    let mut source = reviewed('b');
    source.expect_head().returning(|_, _| Ok(Some(commit('1'))));
    source.expect_file().returning(|_, _, _| Ok(None));
    source
        .expect_commit()
        .withf(|change| {
            let text = change.files["live/web.image"].clone().unwrap_or_default();
            change.expected_head == commit('1') && text.starts_with(b"localhost:5000/shop/web@sha256:")
        })
        .times(1)
        .returning(|_| Ok(commit('2')));
    let made = promote(&source, &registry(), &promotion()).await.unwrap();
    assert_eq!(made, commit('2'));
}

#[tokio::test]
async fn a_branch_that_moved_is_read_again() {
    let mut source = reviewed('b');
    let mut heads = ['1', '2'].into_iter();
    source
        .expect_head()
        .times(2)
        .returning(move |_, _| Ok(heads.next().map(commit)));
    source.expect_file().returning(|_, _, _| Ok(None));
    source.expect_commit().times(2).returning(|change| {
        if change.expected_head == commit('1') {
            return Err(Error::new(
                ErrorKind::Conflict,
                "GitHub",
                "commit to",
                "acme/deploy",
            ));
        }
        Ok(commit('3'))
    });
    let made = promote(&source, &registry(), &promotion()).await.unwrap();
    assert_eq!(made, commit('3'));
}

#[tokio::test]
async fn what_is_promoted_already_is_left_alone() {
    let mut source = reviewed('b');
    source.expect_head().returning(|_, _| Ok(Some(commit('1'))));
    source.expect_file().returning(|_, _, _| {
        let digest = Digest::sha256_of("the image");
        Ok(Some(format!("localhost:5000/shop/web@{digest}\n").into_bytes()))
    });
    let head = promote(&source, &registry(), &promotion()).await.unwrap();
    assert_eq!(head, commit('1'));
}

#[tokio::test]
async fn what_an_element_says_is_passed_on() {
    let mut source = MockSource::new();
    source.expect_review().returning(|_, commit| {
        Err(Error::new(
            ErrorKind::Unavailable,
            "GitHub",
            "read the review of",
            commit,
        ))
    });
    let error = promote(&source, &registry(), &promotion()).await.unwrap_err();
    assert!(error.is_unavailable() && error.retry().can_help());
}
