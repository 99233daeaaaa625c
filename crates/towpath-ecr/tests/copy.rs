//! Copying between registries: how many requests it takes, in which order, and what it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/memory.rs"]
mod memory;
#[path = "support/serve.rs"]
mod serve;

use memory::{Memory, image};
use serve::{Nobody, client, client_with};
use std::net::SocketAddr;
use towpath_core::requests;
use towpath_ecr::oci::{Copied, CopyOptions, Manifest, OciClient, Reference, copy, media};
use towpath_ecr::registry::Platform;
use towpath_ecr::{Digest, Result, Tag};

fn layer(seed: u32, words: u32) -> Vec<u8> {
    (0..words)
        .flat_map(|word| (word ^ (seed << 20)).to_le_bytes())
        .collect()
}

fn tag() -> Tag {
    "1".parse().unwrap()
}

fn options(change: impl FnOnce(&mut CopyOptions)) -> CopyOptions {
    let mut options = CopyOptions::default();
    change(&mut options);
    options
}

async fn copy_with(
    client: &OciClient,
    from: SocketAddr,
    reference: impl Into<Reference>,
    to: SocketAddr,
    options: &CopyOptions,
) -> Result<Copied> {
    let source = client.repository(&image(from, "from/app"));
    let sink = client.repository(&image(to, "to/app"));
    copy(&source, &reference.into(), &sink, Some(&tag()), options).await
}

#[tokio::test]
async fn a_copy_takes_the_fewest_requests_and_a_second_one_sends_nothing() {
    let (source, from) = Memory::start(false, true).await;
    let (target, to) = Memory::start(false, true).await;
    let manifest = source.seed(
        "from/app",
        "amd64",
        &[layer(1, 100), layer(2, 100), layer(3, 100)],
    );
    let client = client(Nobody);
    let plain = options(|options| options.referrers = false);
    for (options, listing) in [(plain, 0), (CopyOptions::default(), 1)] {
        target.asked();
        let copying = copy_with(&client, from, manifest.digest.clone(), to, &options);
        let (copied, count) = requests::count(copying).await;
        let copied = copied.unwrap();
        if listing == 0 {
            // Per blob: is it there, read, begin, send. Besides: the manifest, its tag and digest at the target, the tag.
            assert_eq!(count, 4 * 4 + 4);
            assert_eq!((copied.sent, copied.present, copied.manifests), (4, 0, 1));
            let asked = target.asked();
            assert_eq!(asked.last().unwrap(), "PUT /v2/to/app/manifests/1");
            assert_eq!(
                asked
                    .iter()
                    .filter(|asked| asked.contains("PUT /v2/to/app/manifests"))
                    .count(),
                1
            );
        } else {
            assert_eq!(
                (copied.sent, copied.present, copied.manifests, copied.bytes),
                (0, 0, 0, 0)
            );
        }
        let (again, count) =
            requests::count(copy_with(&client, from, manifest.digest.clone(), to, &options)).await;
        assert_eq!(count, 2 + listing);
        assert_eq!((again.unwrap().bytes, source.ranges().len()), (0, 0));
    }
    assert_eq!(target.manifest("to/app", "1").unwrap(), manifest.bytes);
}

#[tokio::test]
async fn parts_come_before_the_whole_and_nothing_goes_twice() {
    let (source, from) = Memory::start(false, true).await;
    let (target, to) = Memory::start(false, true).await;
    let shared = layer(9, 50_000);
    let amd = source.seed("from/app", "amd64", &[shared.clone(), layer(1, 100)]);
    let arm = source.seed("from/app", "arm64", &[shared.clone(), layer(2, 100)]);
    let index = source.seed_index("from/app", &[("amd64", &amd), ("arm64", &arm)]);
    let of_index = source.seed_referrer("from/app", &index);
    let of_part = source.seed_referrer("from/app", &arm);
    let of_referrer = source.seed_referrer("from/app", &of_index);
    let client = client(Nobody);
    let copied = copy_with(&client, from, index.digest.clone(), to, &CopyOptions::default())
        .await
        .unwrap();
    // Two configurations, three layers, and the one empty blob of all artifacts.
    assert_eq!((copied.sent, copied.manifests), (6, 7));
    let asked = target.asked();
    let at = |what: &str| {
        asked
            .iter()
            .position(|asked| asked == &format!("PUT /v2/to/app/manifests/{what}"))
            .unwrap()
    };
    let [whole, parts @ ..] = [&index, &amd, &arm].map(|manifest| at(manifest.digest.as_str()));
    assert!(parts.iter().all(|part| *part < whole));
    for referrer in [&of_index, &of_part, &of_referrer] {
        assert!(whole < at(referrer.digest.as_str()) && at(referrer.digest.as_str()) < at("1"));
    }
    assert_eq!(at("1"), asked.len() - 1);
    assert_eq!(target.received() as u64, copied.bytes);
    // A signature that came later comes along without anything else.
    let late = source.seed_referrer("from/app", &amd);
    let again = copy_with(&client, from, index.digest.clone(), to, &CopyOptions::default())
        .await
        .unwrap();
    assert_eq!((again.sent, again.manifests), (0, 1));
    assert!(target.manifest("to/app", late.digest.as_str()).is_some());
}

#[tokio::test]
async fn one_platform_is_copied_alone() {
    let (source, from) = Memory::start(false, false).await;
    let (target, to) = Memory::start(false, false).await;
    let amd = source.seed("from/app", "amd64", &[layer(1, 100)]);
    let arm = source.seed("from/app", "arm64", &[layer(2, 100)]);
    let index = source.seed_index("from/app", &[("amd64", &amd), ("arm64", &arm)]);
    let client = client(Nobody);
    let wanted = |architectures: &[&str]| {
        let platforms = architectures
            .iter()
            .map(|architecture| Platform::linux(*architecture));
        options(|options| options.platforms = platforms.collect())
    };
    let copying = |reference: &Manifest, wanted: CopyOptions| {
        let (client, reference) = (client.clone(), reference.digest.clone());
        async move { copy_with(&client, from, reference, to, &wanted).await }
    };
    let copied = copying(&index, wanted(&["arm64"])).await.unwrap();
    assert_eq!((copied.manifest.digest, copied.sent), (arm.digest.clone(), 2));
    assert_eq!(target.manifest("to/app", "1").unwrap(), arm.bytes);
    assert!(target.manifest("to/app", index.digest.as_str()).is_none());
    // A single image says in its configuration what it is for.
    assert_eq!(
        copying(&amd, wanted(&["amd64"])).await.unwrap().manifest.digest,
        amd.digest
    );
    for (reference, platforms, reason) in [
        (&index, vec!["s390x"], "it has linux/amd64, linux/arm64"),
        (&amd, vec!["arm64"], "it has linux/amd64"),
        (&index, vec!["amd64", "arm64"], "an index names all its parts"),
    ] {
        let error = copying(reference, wanted(&platforms)).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_cut_copy_reads_and_sends_only_what_is_missing() {
    let (source, from) = Memory::start(false, true).await;
    let (target, to) = Memory::start(false, true).await;
    let large = layer(1, 500_000);
    let manifest = source.seed("from/app", "amd64", std::slice::from_ref(&large));
    let size = large.len();
    for (chunk, fewest) in [(None, 1), (Some(700_000), 3)] {
        let (target, to) = match chunk {
            None => (target.clone(), to),
            Some(_) => Memory::start(false, true).await,
        };
        let client = client_with(Nobody, |settings| {
            settings.chunk = chunk;
            settings.parallel = 1;
        });
        // The configuration goes first; it is small.
        let parallel = options(|options| options.parallel = 1);
        let config = manifest.blobs()[0].size() as usize;
        let sink = client.repository(&image(to, "to/app"));
        let blob = client.repository(&image(from, "from/app"));
        let blob = towpath_ecr::oci::ImageSource::blob(&blob, manifest.blobs()[0])
            .await
            .unwrap();
        towpath_ecr::oci::ImageSink::put_blob(&sink, &blob).await.unwrap();
        target.cut_next_upload_after(size / 4);
        source.asked();
        let before = source.ranges().len();
        copy_with(&client, from, manifest.digest.clone(), to, &parallel)
            .await
            .unwrap();
        let kept = source.ranges()[before..].to_vec();
        assert_eq!(kept.len(), 1, "{kept:?}");
        // What the registry said it had is neither read nor sent again.
        let offset: usize = kept[0]
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap();
        assert!(offset >= size / 4);
        assert_eq!(target.received(), size + config);
        let digest = Digest::sha256_of(&large);
        let read = source
            .asked()
            .iter()
            .filter(|asked| asked.contains(&format!("GET /v2/from/app/blobs/{digest}")))
            .count();
        // In parts, too, the source is read once, and once more after the cut.
        assert_eq!(read, 2);
        let patches = target
            .asked()
            .iter()
            .filter(|asked| asked.starts_with("PATCH"))
            .count();
        assert!(patches >= fewest, "{patches}");
    }
}

#[tokio::test]
async fn within_a_registry_blobs_are_mounted_or_sent() {
    for mounts in [true, false] {
        let (memory, address) = Memory::start(mounts, true).await;
        let manifest = memory.seed("from/app", "amd64", &[layer(1, 100)]);
        let client = client(Nobody);
        let copied = copy_with(
            &client,
            address,
            manifest.digest,
            address,
            &CopyOptions::default(),
        )
        .await
        .unwrap();
        let expected = match mounts {
            true => (2, 0),
            false => (0, 2),
        };
        assert_eq!((copied.mounted, copied.sent), expected);
        assert_eq!(memory.received() as u64, copied.bytes);
    }
}

#[tokio::test]
async fn sources_that_lie_are_refused_before_anything_is_tagged() {
    let (source, from) = Memory::start(false, true).await;
    let (target, to) = Memory::start(false, true).await;
    let part = source.seed("from/app", "amd64", &[layer(1, 100)]);
    let index = |media_type: &str, digest: &Digest, size: usize| {
        let text = serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_INDEX,
            "manifests": [{ "mediaType": media_type, "digest": digest, "size": size }],
        })
        .to_string();
        let digest = Digest::sha256_of(&text);
        source.put_manifest("from/app", digest.as_str(), media::OCI_INDEX, &text);
        (digest, text.len())
    };
    let size = part.bytes.len();
    let mut nested = index(media::OCI_MANIFEST, &part.digest, size);
    for _ in 0..5 {
        nested = index(media::OCI_INDEX, &nested.0, nested.1);
    }
    let missing = Digest::sha256_of("missing");
    // What is served for a digest is something else.
    let other = Digest::sha256_of("other");
    source.put_manifest(
        "from/app",
        other.as_str(),
        media::OCI_MANIFEST,
        std::str::from_utf8(&part.bytes).unwrap(),
    );
    // They are said to be there, so that only their number is wrong.
    let many = {
        let parts: Vec<_> = (0..10_001)
            .map(|at| {
                let digest = Digest::sha256_of(format!("{at}"));
                serde_json::json!({ "mediaType": media::OCI_MANIFEST, "digest": digest, "size": 1 })
            })
            .collect();
        let index =
            serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": parts });
        let text = index.to_string();
        let digest = Digest::sha256_of(&text);
        source.put_manifest("from/app", digest.as_str(), media::OCI_INDEX, &text);
        target.put_manifest("to/app", digest.as_str(), media::OCI_INDEX, &text);
        digest
    };
    for (digest, reason) in [
        (
            index(media::OCI_MANIFEST, &part.digest, size + 1).0,
            "bytes, its descriptor says",
        ),
        (
            index(media::DOCKER_MANIFEST, &part.digest, size).0,
            "its descriptor says application/vnd.docker",
        ),
        (index(media::OCI_MANIFEST, &missing, size).0, "has no sha256:"),
        (
            index(media::OCI_MANIFEST, &other, size).0,
            "the bytes have the digest",
        ),
        (nested.0, "nested more than 4 deep"),
        (many, "more than 10000 parts"),
    ] {
        let subject = format!("from/app@{digest}");
        let error = copy_with(&client(Nobody), from, digest, to, &CopyOptions::default())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        if error.attempted() == "copy" {
            assert!(error.subject().ends_with(&subject), "{error}");
        }
        assert!(target.manifest("to/app", "1").is_none());
    }
}

#[tokio::test]
async fn a_referrer_that_refers_to_something_else_is_refused() {
    let (source, from) = Memory::start(false, false).await;
    let (_, to) = Memory::start(false, false).await;
    let app = source.seed("from/app", "amd64", &[layer(1, 100)]);
    let other = source.seed("from/app", "arm64", &[layer(2, 100)]);
    // The list of the tag schema is anybody's to write.
    let list = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::OCI_INDEX,
        "manifests": [{ "mediaType": other.media_type, "digest": other.digest, "size": other.bytes.len() }],
    });
    let name = app.digest.as_str().replace(':', "-");
    source.put_manifest("from/app", &name, media::OCI_INDEX, &list.to_string());
    let error = copy_with(
        &client(Nobody),
        from,
        app.digest.clone(),
        to,
        &CopyOptions::default(),
    )
    .await
    .unwrap_err();
    assert!(error.to_string().contains("and does not"), "{error}");
    let without = options(|options| options.referrers = false);
    copy_with(&client(Nobody), from, app.digest, to, &without)
        .await
        .unwrap();
}
