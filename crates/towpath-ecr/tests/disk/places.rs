//! Images that go from place to place, and how places are named.

use super::made::{bytes, files, image, index, referrer};
use super::support::World;
use towpath_ecr::oci::{
    CopyOptions, ImagePlace, ImageSink, ImageSource, Layout, OciArchive, OciArchiveWriter, Reference, copy,
};
use towpath_ecr::{Digest, ErrorKind, Tag};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

/// Two platforms, a signature of the whole, one of a part, and an SBOM of the signature's index.
async fn fill(sink: &dyn ImageSink) -> (Digest, Vec<Digest>) {
    let (amd, arm) = (image("app", "amd64"), image("app", "arm64"));
    amd.put(sink).await;
    arm.put(sink).await;
    let both = index(&[("amd64", &amd), ("arm64", &arm)]);
    sink.put_manifest(&both).await.unwrap();
    sink.put_tag(&tag("1.4"), &both).await.unwrap();
    let mut all = vec![
        both.digest.clone(),
        amd.manifest.digest.clone(),
        arm.manifest.digest.clone(),
    ];
    for (subject, kind) in [
        (&both, "signature"),
        (&both, "sbom"),
        (&arm.manifest, "signature"),
    ] {
        let (referrer, blob) = referrer(subject, &format!("application/vnd.example.{kind}"));
        sink.put_blob(&blob).await.unwrap();
        let descriptor = serde_json::from_value(super::made::entry(&referrer)).unwrap();
        sink.put_referrer(&subject.digest, &referrer, &descriptor)
            .await
            .unwrap();
        all.push(referrer.digest);
    }
    (both.digest, all)
}

#[tokio::test]
async fn an_image_and_its_signatures_pass_every_place_unchanged() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let options = CopyOptions::default();
    let reference: Reference = tag("1.4").into();

    let first = Layout::create(at("first")).await.unwrap();
    let (top, all) = fill(&first).await;
    let one = world.ecr.oci().repository(&world.target("one").await);
    let two = world.ecr.oci().repository(&world.target("two").await);
    copy(&first, &reference, &one, Some(&tag("1.4")), &options)
        .await
        .unwrap();
    let writer = OciArchiveWriter::create(at("image.tar")).await.unwrap();
    copy(&one, &reference, &writer, Some(&tag("1.4")), &options)
        .await
        .unwrap();
    writer.finish().await.unwrap();
    let archive = OciArchive::open(at("image.tar")).await.unwrap();
    copy(&archive, &reference, &two, Some(&tag("1.4")), &options)
        .await
        .unwrap();
    let last = Layout::create(at("last")).await.unwrap();
    let copied = copy(&two, &reference, &last, Some(&tag("1.4")), &options)
        .await
        .unwrap();

    assert_eq!(copied.manifest.digest, top);
    for digest in &all {
        let before = first.manifest(&digest.clone().into()).await.unwrap().unwrap();
        let after = last.manifest(&digest.clone().into()).await.unwrap().unwrap();
        assert_eq!(before.bytes, after.bytes);
    }
    let in_layout = |root| -> Vec<String> {
        files(root)
            .into_iter()
            .filter(|name| name.starts_with("blobs/"))
            .collect()
    };
    assert_eq!(in_layout(&at("first")), in_layout(&at("last")));
    for source in [&first as &dyn ImageSource, &one, &archive, &two, &last] {
        let mut kinds: Vec<String> = source
            .referrers(&top)
            .await
            .unwrap()
            .iter()
            .map(|found| found.artifact_type().as_ref().unwrap().to_string())
            .collect();
        kinds.sort();
        assert_eq!(
            kinds,
            [
                "application/vnd.example.sbom",
                "application/vnd.example.signature"
            ],
            "{}",
            source.name()
        );
    }

    // A second time nothing is sent.
    let again = copy(&first, &reference, &last, Some(&tag("1.4")), &options)
        .await
        .unwrap();
    assert_eq!((again.sent, again.bytes, again.manifests), (0, 0, 0));
}

#[tokio::test]
async fn the_same_images_make_the_same_archive() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("image.tar");
    let (one, two) = (image("one", "amd64"), image("two", "amd64"));
    let mut written = Vec::new();
    for order in [[&one, &two], [&two, &one]] {
        let writer = OciArchiveWriter::create(&target).await.unwrap();
        for made in order {
            made.put(&writer).await;
            let name = if made.manifest.digest == one.manifest.digest {
                "one"
            } else {
                "two"
            };
            writer.put_tag(&tag(name), &made.manifest).await.unwrap();
        }
        writer.finish().await.unwrap();
        written.push(std::fs::read(&target).unwrap());
        assert_eq!(files(folder.path()), ["image.tar"]);
    }
    assert!(written[0] == written[1]);
    for entry in tar::Archive::new(&written[0][..]).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!(
            (
                header.mtime().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap()
            ),
            (0, 0, 0)
        );
    }
    let archive = OciArchive::open(&target).await.unwrap();
    let names: Vec<String> = archive
        .references()
        .await
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names.len(), 2);
    let read = archive.manifest(&tag("two").into()).await.unwrap().unwrap();
    let blob = archive.blob(read.blobs()[2]).await.unwrap();
    assert_eq!(blob.bytes(1 << 20).await.unwrap(), bytes(&two.layers[1]));
}

#[tokio::test]
async fn a_copy_that_fails_leaves_the_old_archive() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("image.tar");
    std::fs::write(&target, "the old one").unwrap();
    let layout = Layout::create(folder.path().join("images")).await.unwrap();
    let app = image("app", "amd64");
    app.put(&layout).await;
    layout.put_tag(&tag("1"), &app.manifest).await.unwrap();
    let layer = folder
        .path()
        .join("images/blobs/sha256")
        .join(app.layers[1].digest.encoded());
    let size = app.layers[1].size as usize;
    std::fs::write(layer, vec![b'x'; size]).unwrap();

    let from: ImagePlace = format!("oci:{}:1", folder.path().join("images").display())
        .parse()
        .unwrap();
    let world = World::start().await;
    for to in ["oci-archive", "docker-archive"] {
        let to: ImagePlace = format!("{to}:{}:shop-web", target.display()).parse().unwrap();
        let error = from
            .copy_to(&to, world.ecr.oci(), &CopyOptions::default())
            .await
            .unwrap_err();
        assert!(
            error.kind() == ErrorKind::Protocol && error.to_string().contains("digest"),
            "{error}"
        );
        assert_eq!(std::fs::read(&target).unwrap(), b"the old one");
    }
    let left: Vec<String> = files(folder.path())
        .into_iter()
        .filter(|name| name.contains(".towpath-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn places_are_named_as_elsewhere() {
    for text in [
        "docker://quay.io/shop/web:1.4",
        "oci:build/images",
        "oci:build/images:1.4",
        "oci-archive:/tmp/image.tar:registry.example/shop/web:1.4",
        "docker-archive:image.tar",
        "docker-archive:image.tar:docker.io/shop/web:1.4",
    ] {
        assert_eq!(text.parse::<ImagePlace>().unwrap().to_string(), text);
    }
    for (text, says) in [
        ("", "transports"),
        ("quay.io/shop/web", "transports"),
        ("dir:here", "transports"),
        ("docker://", "empty"),
        ("docker://Shop", "lower case"),
        ("oci:", "path is empty"),
        ("oci-archive::1", "path is empty"),
        ("oci:images:", "nothing behind"),
        ("docker-archive:image.tar:Web", "as an image reference: "),
    ] {
        let error = text.parse::<ImagePlace>().unwrap_err();
        assert!(
            error.kind() == ErrorKind::Invalid && error.to_string().contains(says),
            "{text}: {error}"
        );
    }
}

#[tokio::test]
async fn an_image_is_copied_by_the_names_of_places() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("images")).await.unwrap();
    let (top, _) = fill(&layout).await;
    let at = |transport: &str, rest: &str| -> ImagePlace {
        format!("{transport}:{}/{rest}", folder.path().display())
            .parse()
            .unwrap()
    };
    let registry: ImagePlace = format!("docker://{}:1.4", world.target("shop").await)
        .parse()
        .unwrap();
    let oci = world.ecr.oci();
    let options = CopyOptions::default();
    let way = [
        at("oci", "images:1.4"),
        registry.clone(),
        at("oci-archive", "image.tar:release"),
        at("oci", "other:v1"),
    ];
    for pair in way.windows(2) {
        let copied = pair[0].copy_to(&pair[1], oci, &options).await.unwrap();
        assert_eq!(copied.manifest.digest, top, "{} to {}", pair[0], pair[1]);
    }
    let mut single = CopyOptions::default();
    single.platforms = vec![towpath_ecr::registry::Platform::linux("arm64")];
    single.referrers = false;
    let saved = at("docker-archive", "saved.tar:shop/web:1.4");
    registry.copy_to(&saved, oci, &single).await.unwrap();
    let (source, reference) = saved.open(oci).await.unwrap();
    assert!(source.manifest(&reference).await.unwrap().is_some());

    for (from, to, kind, says) in [
        (
            at("oci", "images:2"),
            registry.clone(),
            ErrorKind::NotFound,
            "there is no such image in it; there is \"1.4\"",
        ),
        (
            at("oci", "images"),
            registry.clone(),
            ErrorKind::Conflict,
            "images in it",
        ),
        (
            at("oci", "none:1"),
            registry.clone(),
            ErrorKind::NotFound,
            "Layout::create makes a layout",
        ),
        (
            at("oci-archive", "none.tar"),
            registry.clone(),
            ErrorKind::NotFound,
            "none.tar",
        ),
        (
            at("oci-archive", "saved.tar"),
            registry.clone(),
            ErrorKind::NotFound,
            "docker-archive:",
        ),
        (
            at("docker-archive", "image.tar"),
            registry.clone(),
            ErrorKind::NotFound,
            "oci-archive:",
        ),
        (
            registry.clone(),
            at("docker-archive", "x.tar"),
            ErrorKind::Invalid,
            "no name",
        ),
        (registry.clone(), at("oci", "y:a/b:1"), ErrorKind::Invalid, "tag"),
    ] {
        let error = from.copy_to(&to, oci, &options).await.unwrap_err();
        assert!(
            error.kind() == kind && error.to_string().contains(says),
            "{from} to {to}: {error}"
        );
    }
    let left = files(folder.path());
    assert!(
        left.iter()
            .all(|name| !name.contains(".towpath-") && !name.starts_with('x') && !name.starts_with('y'))
    );
}
