//! What can be deleted from a repository, and what must stay although it has no tag.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures_util::{StreamExt, TryStreamExt};
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeSet;
use support::{World, assembly, attach};
use towpath_core::requests;
use towpath_ecr::oci::{Manifest, digest_of, media};
use towpath_ecr::{
    Batch, Digest, ErrorKind, ImageFilter, ImageId, ImageRef, Registry, RepositoryName, Result, StoredImage,
};
use towpath_lab::Fault;

/// Pushes an index of two platforms with this content, and a tag where one is given.
async fn pushed(world: &World, content: &str, tag: Option<&str>) -> ImageRef {
    let mut target = world.target("shop/web").await;
    if let Some(tag) = tag {
        target = target.tagged(tag.parse().unwrap());
    }
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("hello"), content).unwrap();
    let assembly = assembly(world.base().await, target, files.path());
    world.ecr.assemble(assembly).await.unwrap().image
}

/// An image's own digest and those of the manifests that it names.
async fn whole(world: &World, image: &ImageRef) -> BTreeSet<Digest> {
    let manifest = world.ecr.oci().manifest(image).await.unwrap().unwrap();
    let children = manifest.children().iter().map(|child| digest_of(child).unwrap());
    children.chain([manifest.digest.clone()]).collect()
}

/// An index around another one; about `subject`, where there is one.
async fn index_of(world: &World, image: &ImageRef, subject: Option<&ImageRef>) -> Manifest {
    let oci = world.ecr.oci();
    let inner = oci.manifest(image).await.unwrap().unwrap();
    let describe =
        |of: &Manifest| json!({ "mediaType": of.media_type, "digest": of.digest, "size": of.bytes.len() });
    let mut outer =
        json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [describe(&inner)] });
    if let Some(subject) = subject {
        outer["subject"] = describe(&oci.manifest(subject).await.unwrap().unwrap());
    }
    let outer = Manifest::read(media::OCI_INDEX, outer.to_string().into()).unwrap();
    oci.put_manifest(image, &outer).await.unwrap();
    outer
}

async fn unreferenced(world: &World, repository: &RepositoryName) -> Vec<StoredImage> {
    let images = world.ecr.unreferenced_images(repository);
    images.try_collect().await.unwrap()
}

async fn digests(world: &World, repository: &RepositoryName) -> BTreeSet<Digest> {
    let images = world.ecr.images(repository, ImageFilter::new());
    images.map_ok(|image| image.digest).try_collect().await.unwrap()
}

#[tokio::test]
async fn signatures_and_children_stay_and_only_what_nothing_holds_goes() {
    let world = World::with_rule().await;
    let repository: RepositoryName = "shop/web".parse().unwrap();
    let replaced = pushed(&world, "replaced", Some("1")).await;
    let live = pushed(&world, "live", Some("1")).await;
    let failed = pushed(&world, "its tag was never put", None).await;
    let sbom = attach(&world, &live).await;
    let child = whole(&world, &live).await;
    let child = live.at(child
        .iter()
        .find(|child| Some(*child) != live.digest())
        .unwrap()
        .clone());
    let of_child = attach(&world, &child).await;

    let gone = unreferenced(&world, &repository).await;
    let gone: BTreeSet<Digest> = gone.into_iter().map(|image| image.digest).collect();
    let mut expected = whole(&world, &replaced).await;
    expected.extend(whole(&world, &failed).await);
    assert_eq!((&gone, gone.len()), (&expected, 6));

    let digests_to_delete = world
        .ecr
        .unreferenced_images(&repository)
        .map_ok(|image| image.digest);
    let outcome: Result<Batch<ImageId>> = world
        .ecr
        .delete_images(&repository, digests_to_delete)
        .try_collect()
        .await;
    let outcome = outcome.unwrap();
    assert_eq!((outcome.done.len(), outcome.failed), (6, Vec::new()));
    let mut stays = whole(&world, &live).await;
    stays.extend([sbom, of_child]);
    assert_eq!(digests(&world, &repository).await, stays);
    assert!(unreferenced(&world, &repository).await.is_empty());
}

#[tokio::test]
async fn what_stays_below_an_index_stays_at_any_depth_and_costs_a_call_for_each() {
    let world = World::with_rule().await;
    let repository: RepositoryName = "shop/web".parse().unwrap();
    let inner = pushed(&world, "inner", None).await;
    let outer = index_of(&world, &inner, None).await;
    assert_eq!(unreferenced(&world, &repository).await.len(), 4);
    let oci = world.ecr.oci();
    oci.put_tag(&inner, &"outer".parse().unwrap(), &outer)
        .await
        .unwrap();
    let (left, sent) = requests::count(unreferenced(&world, &repository)).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(sent, 3, "the listing, the tagged index, the index below it");

    // A referrer holds on to what it names as well.
    let named = pushed(&world, "named", None).await;
    let about = index_of(&world, &named, Some(&inner)).await;
    assert_ne!(about.digest, *named.digest().unwrap());
    assert!(unreferenced(&world, &repository).await.is_empty());
}

#[tokio::test]
async fn an_index_that_cannot_be_read_ends_it_before_anything_is_chosen() {
    let world = World::with_rule().await;
    let repository: RepositoryName = "shop/web".parse().unwrap();
    pushed(&world, "live", Some("1")).await;
    pushed(&world, "loose", None).await;
    let nothing = r#"{"images":[],"failures":[]}"#;
    let fault = Fault::respond("BatchGetImage", StatusCode::OK, nothing);
    world.lab.api_faults().inject(fault.always());
    let told: Vec<Result<StoredImage>> = world.ecr.unreferenced_images(&repository).collect().await;
    let [Err(error)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("Unreported"), "{error}");
}
