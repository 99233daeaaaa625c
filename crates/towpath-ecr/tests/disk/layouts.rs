//! Layouts as other tools write them, and as many writers do at once.

use super::made::{bytes, entry, files, image, index, named, referrer, write_layout};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::sync::Arc;
use towpath_ecr::oci::{
    Blob, BlobSource, BlobStream, ImageSink, ImageSource, Layout, Manifest, Pushed, ReadBlob, Reference,
    media,
};
use towpath_ecr::{Digest, Error, ErrorKind, Result, Tag};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn at(text: &str) -> Reference {
    tag(text).into()
}

#[tokio::test]
async fn a_layout_of_another_tool_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let app = image("app", "amd64");
    let (signature, empty) = referrer(&app.manifest, "application/vnd.example.signature");
    // A manifest without a media type of its own, which the specification allows.
    let bare = serde_json::json!({ "schemaVersion": 2, "manifests": [entry(&app.manifest)] }).to_string();
    let bare = Manifest::read(media::OCI_INDEX, bare.into()).unwrap();
    let mut contents: Vec<Bytes> = app.blobs().iter().map(bytes).collect();
    contents.extend([
        app.manifest.bytes.clone(),
        signature.bytes.clone(),
        bare.bytes.clone(),
        bytes(&empty),
    ]);
    let contents: Vec<&[u8]> = contents.iter().map(AsRef::as_ref).collect();
    let entries = [
        named(&app.manifest, "1.4"),
        named(&bare, "registry.example/shop/web:1.4"),
        entry(&signature),
        serde_json::json!({ "mediaType": "application/vnd.example.unknown", "digest": empty.digest, "size": 2 }),
    ];
    write_layout(folder.path(), &entries, &contents);

    let layout = Layout::open(folder.path()).await.unwrap();
    let names: Vec<String> = layout
        .references()
        .await
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["1.4", "registry.example/shop/web:1.4"]);
    assert_eq!(layout.entries().await.unwrap().len(), 4);
    let read = layout.manifest(&at("1.4")).await.unwrap().unwrap();
    assert_eq!(read.bytes, app.manifest.bytes);
    assert!(layout.manifest(&at("1.5")).await.unwrap().is_none());
    let found = layout
        .resolve("registry.example/shop/web:1.4")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.digest().to_string(), bare.digest.to_string());
    let by_digest = layout
        .manifest(&bare.digest.clone().into())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (by_digest.media_type.as_str(), by_digest.bytes),
        (media::OCI_INDEX, bare.bytes.clone())
    );
    let blob = layout.blob(read.blobs()[1]).await.unwrap();
    assert_eq!(blob.bytes(1 << 20).await.unwrap(), bytes(&app.layers[0]));

    let found = ImageSource::referrers(&layout, &app.manifest.digest)
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].digest().to_string(), signature.digest.to_string());
    assert_eq!(
        found[0].artifact_type().as_ref().unwrap().to_string(),
        "application/vnd.example.signature"
    );
    assert_eq!(found[0].annotations().as_ref().unwrap()["made"], "by hand");
    assert!(
        ImageSource::referrers(&layout, &bare.digest)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn referrers_that_stand_under_the_tag_of_the_fallback_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let app = image("app", "amd64");
    // Without a subject of its own: the tag alone says what it refers to.
    let other = image("sbom", "amd64");
    let list = index(&[("amd64", &other)]);
    let name = app.manifest.digest.to_string().replace(':', "-");
    let contents = [
        app.manifest.bytes.clone(),
        other.manifest.bytes.clone(),
        list.bytes.clone(),
    ];
    let contents: Vec<&[u8]> = contents.iter().map(AsRef::as_ref).collect();
    write_layout(
        folder.path(),
        &[named(&app.manifest, "1"), named(&list, &name)],
        &contents,
    );
    let layout = Layout::open(folder.path()).await.unwrap();
    let found = ImageSource::referrers(&layout, &app.manifest.digest)
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].digest().to_string(), other.manifest.digest.to_string());
}

#[tokio::test]
async fn a_name_moves_and_what_is_unknown_stays() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("images");
    let layout = Layout::create(&root).await.unwrap();
    let (old, new) = (image("old", "amd64"), image("new", "arm64"));
    old.put(&layout).await;
    layout.put_tag(&tag("1"), &old.manifest).await.unwrap();
    layout.put_tag(&tag("latest"), &old.manifest).await.unwrap();
    // Another tool's words in the list.
    let path = root.join("index.json");
    let mut list: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    list["x-other"] = 1.into();
    std::fs::write(&path, list.to_string()).unwrap();

    new.put(&layout).await;
    layout.put_tag(&tag("latest"), &new.manifest).await.unwrap();
    let list: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        list,
        serde_json::json!({
            "schemaVersion": 2, "mediaType": media::OCI_INDEX, "x-other": 1,
            "manifests": [named(&old.manifest, "1"), named(&new.manifest, "latest")],
        })
    );
    assert_eq!(
        layout.digest(&at("latest")).await.unwrap(),
        Some(new.manifest.digest.clone())
    );

    // An index takes the place of the parts that nobody named.
    let both = index(&[("amd64", &old), ("arm64", &new)]);
    let third = image("third", "amd64");
    third.put(&layout).await;
    layout.put_manifest(&both).await.unwrap();
    layout.put_tag(&tag("both"), &both).await.unwrap();
    let names: Vec<String> = layout
        .references()
        .await
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["1", "latest", "both"]);
    assert_eq!(
        layout.entries().await.unwrap().len(),
        4,
        "the third image has no name"
    );
    // And once more, nothing changes.
    let before = std::fs::read(&path).unwrap();
    layout.put_tag(&tag("both"), &both).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn writers_do_not_lose_each_others_images() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let app = image("app", "amd64");
    let put = |number: usize| {
        let (root, app) = (root.clone(), app.clone());
        // Each with a handle of its own, as processes have.
        tokio::spawn(async move {
            let layout = Layout::create(&root).await?;
            for blob in app.blobs() {
                layout.put_blob(&blob).await?;
            }
            layout.put_tag(&tag(&format!("v{number}")), &app.manifest).await
        })
    };
    for writer in (0..24).map(put).collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }
    let layout = Layout::open(&root).await.unwrap();
    let mut names: Vec<String> = layout
        .references()
        .await
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    let mut wanted: Vec<String> = (0..24).map(|number| format!("v{number}")).collect();
    wanted.sort();
    assert_eq!(names, wanted);
    assert_eq!(files(&root).len(), 2 + 4, "{:?}", files(&root));
}

/// Bytes that come in pieces, and then what the test wants.
#[derive(Debug)]
struct Pieces {
    first: Vec<Bytes>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    End,
    Fail,
    Hang,
}

#[async_trait::async_trait]
impl ReadBlob for Pieces {
    async fn read(&self, _offset: u64) -> Result<BlobStream> {
        let first = stream::iter(self.first.clone()).map(Ok);
        Ok(match self.then {
            Then::End => first.boxed(),
            Then::Fail => first
                .chain(stream::iter([Err(Error::new(
                    ErrorKind::Unavailable,
                    "a test",
                    "read",
                    "it",
                ))]))
                .boxed(),
            Then::Hang => first.chain(stream::pending()).boxed(),
        })
    }
}

fn blob(promised: &[u8], first: &[&'static [u8]], then: Then) -> Blob {
    let first = first.iter().map(|piece| Bytes::from_static(piece)).collect();
    let mut blob = Blob::from_bytes(promised.to_vec());
    blob.source = BlobSource::Other(Arc::new(Pieces { first, then }));
    blob
}

#[tokio::test]
async fn blobs_that_lie_or_break_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).await.unwrap();
    let empty = files(folder.path());
    for (blob, kind, says) in [
        (blob(b"abc", &[b"ab"], Then::End), ErrorKind::Protocol, "2 bytes"),
        (
            blob(b"abc", &[b"abc", b"d"], Then::End),
            ErrorKind::Protocol,
            "more bytes",
        ),
        (
            blob(b"abc", &[b"ab", b"d"], Then::End),
            ErrorKind::Protocol,
            "digest",
        ),
        (
            blob(b"abc", &[b"ab"], Then::Fail),
            ErrorKind::Unavailable,
            "a test",
        ),
    ] {
        let error = layout.put_blob(&blob).await.unwrap_err();
        assert!(
            error.kind() == kind && error.to_string().contains(says),
            "{error}"
        );
        assert_eq!(files(folder.path()), empty, "{error}");
    }
    let strange = Blob {
        digest: format!("blake3:{}", "0".repeat(64)).parse().unwrap(),
        ..Blob::from_bytes("abc")
    };
    let error = layout.put_blob(&strange).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(files(folder.path()), empty);
}

#[tokio::test]
async fn a_put_that_is_given_up_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).await.unwrap();
    let empty = files(folder.path());
    let hanging = blob(b"abc", &[b"ab"], Then::Hang);
    let mut put = Box::pin(layout.put_blob(&hanging));
    // Until the file is there, and the put waits for more bytes.
    while files(folder.path()) == empty {
        assert!(futures_util::poll!(&mut put).is_pending());
        tokio::task::yield_now().await;
    }
    drop(put);
    // Where the file was just being opened, the thread that did so takes it away.
    let gone = async {
        while files(folder.path()) != empty {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_there_is_not_written_again_and_what_is_cut_off_is() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).await.unwrap();
    let app = image("app", "amd64");
    app.put(&layout).await;
    assert_eq!(layout.put_blob(&app.layers[0]).await.unwrap(), Pushed::Present);
    assert_eq!(
        layout.digest(&app.manifest.digest.clone().into()).await.unwrap(),
        Some(app.manifest.digest.clone())
    );
    let path = folder
        .path()
        .join("blobs/sha256")
        .join(app.layers[0].digest.encoded());
    std::fs::write(&path, b"cut").unwrap();
    assert_eq!(
        layout.digest(&app.manifest.digest.clone().into()).await.unwrap(),
        None,
        "an image without a part is not there"
    );
    assert_eq!(layout.put_blob(&app.layers[0]).await.unwrap(), Pushed::Sent);
    assert_eq!(std::fs::read(&path).unwrap(), bytes(&app.layers[0]));
}

#[tokio::test]
async fn a_manifest_comes_after_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).await.unwrap();
    let empty = files(folder.path());
    let app = image("app", "amd64");
    let error = layout.put_manifest(&app.manifest).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("is not there"),
        "{error}"
    );
    let error = layout
        .put_tag(&tag("1"), &index(&[("amd64", &app)]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(files(folder.path()), empty);
    assert!(layout.entries().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_with_other_files_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
    let error = Layout::create(folder.path()).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("thesis.tex"),
        "{error}"
    );
    assert_eq!(files(folder.path()), ["thesis.tex"]);
}

#[tokio::test]
async fn a_referrer_must_name_its_subject() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path()).await.unwrap();
    let app = image("app", "amd64");
    app.put(&layout).await;
    let (signature, empty) = referrer(&app.manifest, "application/vnd.example.signature");
    layout.put_blob(&empty).await.unwrap();
    let descriptor = serde_json::from_value(entry(&signature)).unwrap();
    let other = Digest::sha256_of("other");
    let error = layout
        .put_referrer(&other, &signature, &descriptor)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    layout
        .put_referrer(&app.manifest.digest, &signature, &descriptor)
        .await
        .unwrap();
    let found = ImageSink::referrers(&layout, &app.manifest.digest).await.unwrap();
    assert_eq!(found.len(), 1);
}
