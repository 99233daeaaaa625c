//! Where an image has got to, on four levels: what the manifests ask for, what was applied, what pods are scheduled with,
//! and what runs.

use crate::judge::Snapshot;
use std::fmt;
use towpath_core::ImageRef;
use towpath_elements::delivery::Expected;

/// Where an image has got to. The levels are in the order in which a deployment comes to be; each is proof only of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageEvidence {
    /// The image, by digest.
    pub image: ImageRef,
    /// Whether the manifests of the commit ask for it; `None` where they were not asked, or name its repository by tag.
    pub desired: Option<bool>,
    /// Whether the last sync applied it (servers from 3.1); `None` where the server does not say.
    pub applied: Option<bool>,
    /// Whether the server's summary of pod specifications has it, and no other of its repository; `None` where the summary
    /// names none by digest. Summaries lag.
    pub scheduled: Option<bool>,
    /// How many containers run it and are ready; `None` where the pods were not read.
    pub running: Option<usize>,
    /// How many containers of its repository run something else, or are not ready; `None` where the pods were not read.
    pub others: Option<usize>,
}

impl ImageEvidence {
    /// What a snapshot shows of an image. `desired` are the images of the commit's manifests, where they are known.
    pub fn of(
        snapshot: &Snapshot,
        desired: Option<&[String]>,
        image: &ImageRef,
        expected: &Expected,
    ) -> Self {
        let status = &snapshot.app.status;
        let applied: Vec<&str> = status
            .operation_state
            .iter()
            .flat_map(|state| &state.sync_result)
            .flat_map(|result| &result.resources)
            .flat_map(|resource| &resource.images)
            .map(String::as_str)
            .collect();
        let scheduled: Vec<&str> = status.summary.images.iter().map(String::as_str).collect();
        let desired: Option<Vec<&str>> = desired.map(|images| images.iter().map(String::as_str).collect());
        let name = image.name();
        let containers = snapshot
            .running
            .iter()
            .flatten()
            .filter(|one| one.image.name() == name);
        let (running, others): (Vec<_>, Vec<_>) = containers.partition(|one| {
            one.ready
                && one.digest.as_ref().is_some_and(|digest| {
                    Some(digest) == image.digest() || expected.platform_digests.contains(digest)
                })
        });
        Self {
            image: image.clone(),
            desired: desired.and_then(|images| only(image, &images)),
            applied: only(image, &applied),
            scheduled: only(image, &scheduled),
            running: snapshot.running.as_ref().map(|_| running.len()),
            others: snapshot.running.as_ref().map(|_| others.len()),
        }
    }
}

impl fmt::Display for ImageEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |level: Option<bool>| match level {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not known",
        };
        write!(
            f,
            "{}: desired {}, applied {}, scheduled {}, running ",
            self.image,
            word(self.desired),
            word(self.applied),
            word(self.scheduled),
        )?;
        match (self.running, self.others) {
            (Some(running), Some(others)) => write!(f, "in {running} containers and not in {others}"),
            _ => f.write_str("not known"),
        }
    }
}

/// Whether these name an image of the repository by its digest, and none of it by another; `None` where none does so by
/// digest.
fn only(image: &ImageRef, images: &[&str]) -> Option<bool> {
    let name = image.name();
    let digests: Vec<_> = images
        .iter()
        .filter_map(|text| text.parse::<ImageRef>().ok())
        .filter(|one| one.name() == name)
        .filter_map(|one| one.digest().cloned())
        .collect();
    (!digests.is_empty()).then(|| digests.iter().all(|digest| Some(digest) == image.digest()))
}

pub(crate) fn levels(
    snapshot: &Snapshot,
    desired: Option<&[String]>,
    image: &ImageRef,
    expected: &Expected,
) -> String {
    ImageEvidence::of(snapshot, desired, image, expected).to_string()
}

/// Why these images of manifests rule out what is expected, where they do: an expected repository that they do not name, or
/// name by another digest. A tag rules nothing out.
pub(crate) fn not_desired(expected: &Expected, images: &[String]) -> Option<String> {
    let desired: Vec<ImageRef> = images.iter().filter_map(|text| text.parse().ok()).collect();
    expected.images.iter().find_map(|wanted| {
        let name = wanted.name();
        let of_it: Vec<_> = desired.iter().filter(|one| one.name() == name).collect();
        if of_it.is_empty() {
            // Operators and charts make pods of what manifests name elsewhere.
            return None;
        }
        let other = of_it.iter().find(|one| {
            one.digest().is_some_and(|digest| {
                Some(digest) != wanted.digest() && !expected.platform_digests.contains(digest)
            })
        })?;
        Some(format!("its manifests ask for {other} and not for {wanted}"))
    })
}
