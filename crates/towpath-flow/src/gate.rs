//! The gate of the review: what must be true before a build goes on. An answer that is missing never opens it.
//!
//! The gate of the scan is [`ScanPolicy`](towpath_elements::registry::ScanPolicy).

use serde::{Deserialize, Serialize};
use towpath_elements::source::Review;

/// Who must have reviewed a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewPolicy {
    /// How many people besides the author must have approved exactly what was merged. 0 asks for no review.
    pub approvals: usize,
}

impl Default for ReviewPolicy {
    /// One approval.
    fn default() -> Self {
        Self { approvals: 1 }
    }
}

impl ReviewPolicy {
    /// Judges a commit's review; the error says what is missing.
    ///
    /// # Errors
    /// What was seen, where it does not satisfy the policy.
    pub fn judge(&self, review: &Review) -> Result<String, String> {
        if self.approvals == 0 {
            return Ok("no review is asked for".to_owned());
        }
        let mut seen = Vec::new();
        for pull in &review.pull_requests {
            let (approvers, objectors) = (pull.approvers(), pull.objectors());
            if approvers.len() >= self.approvals && objectors.is_empty() {
                return Ok(format!(
                    "pull request #{} approved by {}",
                    pull.number,
                    approvers.join(", ")
                ));
            }
            seen.push(format!(
                "pull request #{} has {} of {} approvals of its last commit {}{}",
                pull.number,
                approvers.len(),
                self.approvals,
                pull.head.short(),
                if objectors.is_empty() {
                    String::new()
                } else {
                    format!(", and {} objects", objectors.join(", "))
                },
            ));
        }
        Err(if seen.is_empty() {
            format!("no merged pull request brought {} in", review.commit.short())
        } else {
            seen.join("; ")
        })
    }
}
