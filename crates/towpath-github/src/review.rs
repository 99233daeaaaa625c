//! What reviewers said last, from everything they ever said.

use crate::wire::{PullRequestReview, ReviewWord};
use std::collections::BTreeMap;
use towpath_elements::source::{ReviewState, ReviewVerdict};

/// The latest verdict of each reviewer, in the order of the reviewers' names.
///
/// Comments are no verdicts, and reviews that were not sent do not count. A dismissed review stays the reviewer's latest
/// word: an older approval does not come back to life.
pub(crate) fn latest_verdicts(mut reviews: Vec<PullRequestReview>) -> Vec<ReviewVerdict> {
    // GitHub lists them oldest first; the sort is stable, so reviews of one second keep that order.
    reviews.sort_by_key(|review| review.submitted_at);
    let mut latest = BTreeMap::new();
    for review in reviews {
        let state = match review.state {
            ReviewWord::Commented | ReviewWord::Pending => continue,
            ReviewWord::Approved => ReviewState::Approved,
            ReviewWord::ChangesRequested => ReviewState::ChangesRequested,
            ReviewWord::Dismissed => ReviewState::Dismissed,
            ReviewWord::Other(word) => ReviewState::Other(word),
        };
        let by = review.user.map_or_else(|| "ghost".to_owned(), |user| user.login);
        latest.insert(
            by.to_ascii_lowercase(),
            ReviewVerdict {
                by,
                state,
                commit: review.commit_id,
                at: review.submitted_at,
            },
        );
    }
    latest.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn review(by: Option<&str>, state: &str, second: u32) -> PullRequestReview {
        serde_json::from_value(json!({
            "id": second,
            "user": by.map(|login| json!({ "login": login, "id": 1 })),
            "state": state,
            "commit_id": "0d1a26e67d8f5eaf1f6ba5c57fc3c7d91ac0fd1c",
            "submitted_at": format!("2026-11-01T10:00:{:02}Z", second % 60),
        }))
        .unwrap()
    }

    #[test]
    fn the_last_verdict_counts_and_comments_are_none() {
        let verdicts = latest_verdicts(vec![
            review(Some("ann"), "APPROVED", 1),
            review(Some("ann"), "COMMENTED", 2),
            review(Some("bob"), "APPROVED", 1),
            review(Some("Bob"), "CHANGES_REQUESTED", 2),
            review(Some("cy"), "APPROVED", 1),
            review(Some("cy"), "DISMISSED", 3),
            review(None, "approved", 1),
            review(Some("di"), "PENDING", 1),
            review(Some("ed"), "MAYBE", 1),
        ]);
        let found: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict.by.as_str(), verdict.state.clone()))
            .collect();
        assert_eq!(
            found,
            [
                ("ann", ReviewState::Approved),
                ("Bob", ReviewState::ChangesRequested),
                ("cy", ReviewState::Dismissed),
                ("ed", ReviewState::Other("MAYBE".into())),
                ("ghost", ReviewState::Approved),
            ]
        );
    }

    proptest! {
        #[test]
        fn nobody_has_two_verdicts_and_the_order_of_the_pages_does_not_matter(
            said in proptest::collection::vec((0..4u8, 0..5usize), 0..30),
        ) {
            let words = ["APPROVED", "CHANGES_REQUESTED", "COMMENTED", "DISMISSED", "PENDING"];
            let reviews: Vec<_> = said
                .iter()
                .zip(0..)
                .map(|((who, what), second)| review(Some(&format!("u{who}")), words[*what], second))
                .collect();
            let verdicts = latest_verdicts(reviews.clone());
            let names: std::collections::BTreeSet<_> = verdicts.iter().map(|verdict| &verdict.by).collect();
            prop_assert_eq!(names.len(), verdicts.len());
            prop_assert_eq!(latest_verdicts(reviews.into_iter().rev().collect()), verdicts);
        }
    }
}
