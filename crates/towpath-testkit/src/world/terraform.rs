//! As much of Terraform as a plan needs: the resources of the `.tf` files of a folder, and what changes between two sets.

use std::collections::BTreeMap;
use towpath_core::Digest;
use towpath_elements::infrastructure::{ChangeCounts, PlannedChange};

/// Resources by address, each with a digest of its block.
pub(super) type Resources = BTreeMap<String, Digest>;

/// The resources that the text of a `.tf` file declares: blocks that begin with `resource "type" "name" {` at the start
/// of a line and end with `}` at the start of a line, or on the line they begin on.
pub(super) fn resources(text: &str) -> Resources {
    let mut found = Resources::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("resource ") else {
            continue;
        };
        let mut labels = rest.split('"').skip(1).step_by(2);
        let (Some(kind), Some(name)) = (labels.next(), labels.next()) else {
            continue;
        };
        let mut block = vec![line];
        if !line.trim_end().ends_with('}') {
            for line in lines.by_ref() {
                block.push(line);
                if line.starts_with('}') {
                    break;
                }
            }
        }
        found.insert(format!("{kind}.{name}"), Digest::sha256_of(block.join("\n")));
    }
    found
}

/// What has to happen to `before` so that it becomes `after`, by address.
pub(super) fn changes(before: &Resources, after: &Resources) -> Vec<PlannedChange> {
    let mut addresses: Vec<_> = before.keys().chain(after.keys()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
        .into_iter()
        .filter_map(|address| {
            let action = match (before.get(address), after.get(address)) {
                (None, Some(_)) => "add",
                (Some(_), None) => "delete",
                (Some(before), Some(after)) if before != after => "change",
                _ => return None,
            };
            Some(PlannedChange {
                address: address.clone(),
                action: action.to_owned(),
            })
        })
        .collect()
}

pub(super) fn counts(changes: &[PlannedChange]) -> ChangeCounts {
    let of = |action: &str| changes.iter().filter(|change| change.action == action).count() as u64;
    ChangeCounts {
        add: of("add"),
        change: of("change"),
        delete: of("delete"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_difference_of_two_sets() {
        let before = resources("resource \"a\" \"x\" {}\nresource \"a\" \"y\" {\n  v = 1\n}\n");
        let after = resources("# more\nresource \"a\" \"y\" {\n  v = 2\n}\nresource \"a\" \"z\" {}\n");
        let plan = changes(&before, &after);
        let plan: Vec<_> = plan
            .iter()
            .map(|c| (c.address.as_str(), c.action.as_str()))
            .collect();
        assert_eq!(plan, [("a.x", "delete"), ("a.y", "change"), ("a.z", "add")]);
        assert!(changes(&after, &after).is_empty());
    }
}
