//! Images at scale: listings as streams, batches with partial failures.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use std::collections::BTreeSet;
use support::{World, config, image};
use towpath_core::requests;
use towpath_ecr::oci::{Blob, Manifest, media};
use towpath_ecr::{
    Batch, Digest, Ecr, ErrorKind, FailureCode, ImageFilter, ImageId, ImageKey, ImageStatus,
    LayerAvailability, ReferrerFilter, RepositoryName, Result, StoredImage,
};
use towpath_lab::{Fault, ecr as lab};

async fn seeded(count: usize) -> (lab::Ecr, Ecr, RepositoryName) {
    let lab = lab::Ecr::start(lab::EcrConfig::default()).await.unwrap();
    lab.seed_images("shop/web", count).unwrap();
    let ecr = Ecr::new(&config(&lab)).await.unwrap();
    (lab, ecr, "shop/web".parse().unwrap())
}

async fn listed(ecr: &Ecr, repository: &RepositoryName, filter: ImageFilter) -> Vec<StoredImage> {
    ecr.images(repository, filter).try_collect().await.unwrap()
}

#[tokio::test]
async fn a_listing_has_every_image_once_in_pages_of_a_thousand() {
    let (lab, ecr, repository) = seeded(2500).await;
    let (images, sent) = requests::count(listed(&ecr, &repository, ImageFilter::new())).await;
    assert_eq!((images.len(), sent), (2500, 3));
    let tags: BTreeSet<&str> = images
        .iter()
        .flat_map(|image| &image.tags)
        .map(String::as_str)
        .collect();
    assert_eq!(tags.len(), 2500);
    let one = &images[0];
    let known = lab.image("shop/web", one.digest.as_str()).unwrap();
    assert_eq!(one.tags, known.tags);
    assert_eq!(one.media_type.as_deref(), Some(known.media_type.as_str()));
    assert_eq!(one.status, Some(ImageStatus::Active));
    // The protocol writes times as fractions of seconds, so the last millisecond may be lost.
    let apart = one.pushed.unwrap().as_millisecond() - known.pushed_at.as_millisecond();
    assert!(apart.abs() <= 1, "{apart}");
    assert!(one.size.unwrap() > known.manifest.len() as u64);
    assert_eq!(one.last_pull, None);

    let ids = ecr.image_ids(&repository, ImageFilter::new()).try_collect();
    let (ids, sent): (Result<Vec<ImageId>>, u64) = requests::count(ids).await;
    let ids = ids.unwrap();
    assert_eq!((ids.len(), sent), (2500, 3));
    assert!(ids.iter().all(|id| tags.contains(id.tag.as_deref().unwrap())));
}

#[tokio::test]
async fn a_listing_that_is_not_read_sends_nothing_and_one_that_is_left_sends_one_page_more_at_most() {
    let (lab, ecr, repository) = seeded(5000).await;
    let mut images = ecr.images(&repository, ImageFilter::new());
    assert!(lab.api_requests().all().is_empty());
    for _ in 0..10 {
        images.try_next().await.unwrap().unwrap();
    }
    drop(images);
    assert!(lab.api_requests().all().len() <= 2);
}

#[tokio::test]
async fn an_error_in_the_middle_ends_a_listing() {
    let (lab, ecr, repository) = seeded(3500).await;
    let mut images = ecr.images(&repository, ImageFilter::new());
    for _ in 0..1500 {
        images.try_next().await.unwrap().unwrap();
    }
    let gone = r#"{"__type":"RepositoryNotFoundException"}"#;
    lab.api_faults()
        .inject(Fault::respond("/", StatusCode::BAD_REQUEST, gone).always());
    let rest: Vec<Result<StoredImage>> = images.collect().await;
    let (last, before) = rest.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok));
    assert_eq!(last.as_ref().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn filters_tell_tagged_untagged_and_archived_images_apart() {
    let (_lab, ecr, repository) = seeded(6).await;
    let tags = ["seed-0", "seed-1"].map(|tag| Ok(tag.to_owned()));
    let all = listed(&ecr, &repository, ImageFilter::new()).await;
    // An image goes with its last tag, which is what untagging says.
    let gone: Batch<ImageId> = ecr
        .untag_images(&repository, stream::iter(tags))
        .try_collect()
        .await
        .unwrap();
    assert_eq!((gone.done.len(), gone.failed.len()), (2, 0));
    assert_eq!(
        all.len() - 2,
        listed(&ecr, &repository, ImageFilter::new().tagged()).await.len()
    );
    assert!(
        listed(&ecr, &repository, ImageFilter::new().untagged())
            .await
            .is_empty()
    );
    assert!(
        listed(
            &ecr,
            &repository,
            ImageFilter::new().status(ImageStatus::Archived)
        )
        .await
        .is_empty()
    );
}

#[tokio::test]
async fn images_are_described_by_the_hundred_and_missing_ones_are_told() {
    let (_lab, ecr, repository) = seeded(250).await;
    let missing = Digest::sha256_of("missing");
    let mut keys: Vec<ImageKey> = (0..250)
        .map(|number| ImageKey::Tag(format!("seed-{number}")))
        .collect();
    keys.insert(117, missing.clone().into());
    let described = ecr.describe_images(&repository, stream::iter(keys.clone()));
    let (described, sent) = requests::count(described.try_collect::<Vec<_>>()).await;
    let described = described.unwrap();
    assert!(described.iter().map(|(key, _)| key).eq(&keys));
    for (key, image) in described {
        match key {
            ImageKey::Digest(_) => assert_eq!(image, None),
            ImageKey::Tag(tag) => assert_eq!(image.unwrap().tags, [tag]),
        }
    }
    assert!(sent <= 3 + 14, "{sent}");
}

#[tokio::test]
async fn deleting_tells_what_went_and_what_did_not() {
    let (lab, ecr, repository) = seeded(1234).await;
    let missing = Digest::sha256_of("missing");
    let digests = ecr
        .images(&repository, ImageFilter::new())
        .map_ok(|image| image.digest)
        .chain(stream::iter([Ok(missing.clone())]));
    let deleting = ecr.delete_images(&repository, digests);
    let total: Batch<ImageId> = deleting.try_collect().await.unwrap();
    assert_eq!(total.done.len(), 1234);
    let [failure] = &total.failed[..] else {
        panic!("{:?}", total.failed)
    };
    assert_eq!(failure.subject, ImageKey::Digest(missing));
    assert_eq!(failure.code, FailureCode::ImageNotFound);
    assert!(!failure.reason.is_empty());
    assert!(lab.repositories()[0].images.is_empty());
}

#[tokio::test]
async fn an_index_goes_before_its_images_in_whatever_order_they_come() {
    let world = World::with_rule().await;
    let index = world.base().await;
    let repository = index.repository().clone();
    let all: Vec<Digest> = world.lab.repositories()[0]
        .images
        .iter()
        .map(|image| image.digest.clone())
        .collect();
    let (holder, children): (Vec<Digest>, Vec<Digest>) =
        all.into_iter().partition(|digest| Some(digest) == index.digest());
    let children_only = stream::iter(children.clone().into_iter().map(Ok));
    let refused: Batch<ImageId> = world
        .ecr
        .delete_images(&repository, children_only)
        .try_collect()
        .await
        .unwrap();
    assert!(refused.done.is_empty());
    assert_eq!(refused.failed.len(), children.len());
    for failure in &refused.failed {
        assert_eq!(failure.code, FailureCode::ImageReferencedByManifestList);
        assert!(failure.reason.contains(holder[0].as_str()), "{failure}");
    }
    let backwards = stream::iter(children.into_iter().chain(holder).map(Ok));
    let total: Batch<ImageId> = world
        .ecr
        .delete_images(&repository, backwards)
        .try_collect()
        .await
        .unwrap();
    assert_eq!((total.done.len(), total.failed.len()), (3, 0), "{total:?}");
}

#[tokio::test]
async fn an_error_of_the_input_ends_a_deletion_after_what_came_before_it() {
    let (lab, ecr, repository) = seeded(3).await;
    let digests: Vec<Result<Digest>> = lab.repositories()[0]
        .images
        .iter()
        .map(|image| Ok(image.digest.clone()))
        .collect();
    let broken = towpath_ecr::Error::new(ErrorKind::Unavailable, "a test", "read", "digests");
    let digests = digests.into_iter().chain([Err(broken)]);
    let outcomes: Vec<Result<Batch<ImageId>>> = ecr
        .delete_images(&repository, stream::iter(digests))
        .collect()
        .await;
    assert_eq!(outcomes.len(), 2);
    assert_eq!(outcomes[0].as_ref().unwrap().done.len(), 3);
    assert!(outcomes[1].is_err());
}

#[tokio::test]
async fn manifests_come_by_the_hundred_and_as_their_digests_say() {
    let (lab, ecr, repository) = seeded(150).await;
    let keys = (0..150).map(|number| ImageKey::Tag(format!("seed-{number}")));
    let keys = stream::iter(keys.chain([ImageKey::Tag("none".into())]));
    let manifests = ecr.image_manifests(&repository, keys, &[]);
    let (total, sent) = requests::count(manifests.try_collect::<Batch<_>>()).await;
    let total = total.unwrap();
    assert_eq!((total.done.len(), total.failed.len(), sent), (150, 1, 2));
    assert_eq!(total.failed[0].code, FailureCode::ImageNotFound);
    let tag = total.done[0].tag.as_deref().unwrap();
    assert_eq!(lab.image("shop/web", tag).unwrap().manifest, total.done[0].bytes);
}

#[tokio::test]
async fn layers_are_looked_for_by_the_hundred() {
    let (lab, ecr, repository) = seeded(1).await;
    let manifest = support::json(&lab.repositories()[0].images[0].manifest);
    let there: Digest = manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    let absent = Digest::sha256_of("absent");
    let layers = ecr.check_layers(&repository, stream::iter([there.clone(), absent.clone()]));
    let total: Batch<_, Digest> = layers.try_collect().await.unwrap();
    assert!(total.failed.is_empty());
    let states: Vec<_> = total
        .done
        .iter()
        .map(|layer| (&layer.digest, &layer.availability))
        .collect();
    assert!(states.contains(&(&there, &LayerAvailability::Available)));
    assert!(states.contains(&(&absent, &LayerAvailability::Unavailable)));
}

#[tokio::test]
async fn referrers_come_in_pages_that_the_sdk_does_not_turn() {
    const KIND: &str = "application/vnd.example.sbom";
    let (lab, ecr, repository) = seeded(1).await;
    let target = image(&format!("{}/shop/web:seed-0", lab.registry_host()));
    let subject = ecr.oci().manifest(&target).await.unwrap().unwrap();
    let blob = Blob::from_bytes("{}");
    ecr.oci().push_blob(&target, &blob).await.unwrap();
    let empty = serde_json::json!({
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": blob.digest, "size": blob.size,
    });
    let mut pushed = BTreeSet::new();
    for number in 0..60 {
        let artifact = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": KIND,
            "config": empty, "layers": [empty], "annotations": { "number": number.to_string() },
            "subject": {
                "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len(),
            },
        });
        let artifact = Manifest::read(media::OCI_MANIFEST, artifact.to_string().into()).unwrap();
        ecr.oci().put_manifest(&target, &artifact).await.unwrap();
        pushed.insert(artifact.digest);
    }
    let referrers = ecr.image_referrers(&repository, &subject.digest, ReferrerFilter::new());
    let (referrers, sent) = requests::count(referrers.try_collect::<Vec<_>>()).await;
    let referrers = referrers.unwrap();
    assert_eq!((referrers.len(), sent), (60, 2));
    assert!(referrers.iter().all(|referrer| pushed.contains(&referrer.digest)));
    assert!(
        referrers
            .iter()
            .all(|referrer| referrer.artifact_type.as_deref() == Some(KIND)
                && referrer.annotations.contains_key("number"))
    );
    let others = ReferrerFilter::new().artifact_type("application/vnd.example.other");
    let none = ecr.image_referrers(&repository, &subject.digest, others);
    assert!(none.try_collect::<Vec<_>>().await.unwrap().is_empty());
}
