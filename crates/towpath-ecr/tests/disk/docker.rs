//! Docker archives: of several generations of `docker save`, and our own.

use super::made::{Made, bytes, config, files, image, index, layer, manifest, referrer};
use super::tars::Tar;
use serde_json::json;
use towpath_ecr::oci::{
    Blob, CopyOptions, DockerArchive, DockerArchiveWriter, ImageSink, ImageSource, Layout, OciArchive,
    Reference, copy,
};
use towpath_ecr::{Digest, ErrorKind, ImageRef, Tag};

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

fn hex(blob: &Blob) -> String {
    blob.digest.encoded().to_owned()
}

/// What Docker wrote for years: a folder for each layer, a link for a layer that is there already, `repositories`.
fn classic(app: &Made) -> Tar {
    let config = bytes(&app.config);
    let name = format!("{}.json", hex(&app.config));
    let list = json!([
        { "Config": name, "RepoTags": ["shop/web:1.4", "shop/web:latest"], "Layers": ["aa/layer.tar", "bb/layer.tar"] },
        { "Config": name, "RepoTags": ["shop/copy:1.4"], "Layers": ["cc/layer.tar", "dd/layer.tar"] },
    ]);
    Tar::default()
        .entry("aa/", b'5', b"")
        .file("aa/VERSION", b"1.0")
        .file("aa/layer.tar", &app.plain[0])
        .file("bb/layer.tar", &app.plain[1])
        .link("cc/layer.tar", b'2', "../aa/layer.tar")
        .link("dd/layer.tar", b'1', "bb/layer.tar")
        .file(&name, &config)
        .file("repositories", br#"{"shop/web":{"1.4":"bb"}}"#)
        .file("manifest.json", list.to_string().as_bytes())
}

#[tokio::test]
async fn the_classic_archive_is_read_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.tar");
    let app = image("app", "amd64");
    classic(&app).write(&path);
    let archive = DockerArchive::open(&path).await.unwrap();
    let [first, second] = archive.images() else {
        panic!("{:?}", archive.images())
    };
    let names: Vec<String> = first.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["docker.io/shop/web:1.4", "docker.io/shop/web:latest"]);
    assert_eq!(first.digest, second.digest, "the links lead to the same layers");

    let read = archive.manifest(&tag("latest").into()).await.unwrap().unwrap();
    let plain: Vec<Blob> = app.plain.iter().cloned().map(Blob::from_bytes).collect();
    let wanted = manifest(&app.config, &plain, "application/vnd.oci.image.layer.v1.tar");
    let (got, wanted): (serde_json::Value, serde_json::Value) = (
        serde_json::from_slice(&read.bytes).unwrap(),
        serde_json::from_slice(&wanted.bytes).unwrap(),
    );
    assert_eq!(got, wanted);
    let again = DockerArchive::open(&path).await.unwrap();
    assert_eq!(
        again.images(),
        archive.images(),
        "the manifest is the same every time"
    );
    for (descriptor, content) in read.blobs().iter().zip([
        bytes(&app.config).to_vec(),
        app.plain[0].clone(),
        app.plain[1].clone(),
    ]) {
        let blob = archive.blob(descriptor).await.unwrap();
        assert_eq!(blob.bytes(1 << 20).await.unwrap(), content);
    }

    // By full name; a tag that names one image only is enough.
    let name: ImageRef = "shop/web".parse().unwrap();
    assert_eq!(archive.resolve(Some(&name)).unwrap(), first.digest);
    let error = archive
        .resolve(Some(&"shop/other:1".parse().unwrap()))
        .unwrap_err();
    assert!(
        error.is_not_found() && error.to_string().contains("shop/web:1.4"),
        "{error}"
    );
    assert_eq!(archive.resolve(None).unwrap(), first.digest, "one image, twice");
    assert!(archive.manifest(&tag("none").into()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_tag_of_two_images_is_not_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.tar");
    let (one, two) = (config("amd64", &[]), config("arm64", &[]));
    let list = json!([
        { "Config": "1.json", "RepoTags": ["a:1"], "Layers": [] },
        { "Config": "2.json", "RepoTags": ["b:1"], "Layers": null },
        { "Config": "2.json", "RepoTags": null, "Layers": [] },
    ]);
    Tar::default()
        .file("1.json", &bytes(&one))
        .file("2.json", &bytes(&two))
        .file("manifest.json", list.to_string().as_bytes())
        .write(&path);
    let archive = DockerArchive::open(&path).await.unwrap();
    let error = archive.manifest(&tag("1").into()).await.unwrap_err();
    assert!(
        error.is_conflict() && error.to_string().contains("a:1"),
        "{error}"
    );
    assert!(archive.resolve(None).unwrap_err().is_conflict());
    assert_eq!(
        archive.resolve(Some(&"b:1".parse().unwrap())).unwrap(),
        archive.images()[1].digest
    );
    assert_eq!(archive.images()[2].names, []);
}

/// What newer Dockers write: a layout and a `manifest.json` in one archive, over the same blobs.
#[tokio::test]
async fn the_archive_of_both_kinds_is_read_as_either() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.tar");
    let app = image("app", "amd64");
    let blob = |blob: &Blob| format!("blobs/sha256/{}", hex(blob));
    let list = json!([{
        "Config": blob(&app.config), "RepoTags": ["shop/web:1.4"], "Layers": app.layers.iter().map(blob).collect::<Vec<_>>(),
    }]);
    let index = json!({ "schemaVersion": 2, "manifests": [super::made::named(&app.manifest, "1.4")] });
    let mut tar = Tar::default();
    for part in app.blobs() {
        tar = tar.file(&blob(&part), &bytes(&part));
    }
    tar.file(
        &format!("blobs/sha256/{}", app.manifest.digest.encoded()),
        &app.manifest.bytes,
    )
    .file("index.json", index.to_string().as_bytes())
    .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
    .file("manifest.json", list.to_string().as_bytes())
    .write(&path);

    let oci = OciArchive::open(&path).await.unwrap();
    let read = oci.manifest(&tag("1.4").into()).await.unwrap().unwrap();
    assert_eq!(read.digest, app.manifest.digest);
    let docker = DockerArchive::open(&path).await.unwrap();
    let made = docker.manifest(&tag("1.4").into()).await.unwrap().unwrap();
    // The layers are compressed here, and stay so.
    let parts = |manifest: &towpath_ecr::oci::Manifest| -> Vec<String> {
        manifest
            .blobs()
            .iter()
            .map(|part| format!("{} {}", part.media_type(), part.digest()))
            .collect()
    };
    assert_eq!(parts(&made), parts(&read));

    let copied = Layout::create(folder.path().join("copy")).await.unwrap();
    let options = CopyOptions::default();
    copy(&docker, &tag("1.4").into(), &copied, Some(&tag("1.4")), &options)
        .await
        .unwrap();
    let kept = copied.manifest(&tag("1.4").into()).await.unwrap().unwrap();
    assert_eq!(kept.bytes, made.bytes);
}

#[tokio::test]
async fn an_image_goes_into_a_docker_archive_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::create(folder.path().join("images")).await.unwrap();
    let app = image("app", "amd64");
    app.put(&layout).await;
    let archive_of = async |name: &str| {
        let target = folder.path().join(name);
        let archive = DockerArchiveWriter::create(&target, &"shop/web".parse().unwrap())
            .await
            .unwrap();
        let from: Reference = app.manifest.digest.clone().into();
        for name in ["latest", "1.4"] {
            copy(
                &layout,
                &from,
                &archive,
                Some(&tag(name)),
                &CopyOptions::default(),
            )
            .await
            .unwrap();
        }
        assert!(!target.exists(), "there is no archive before it is whole");
        archive.finish().await.unwrap();
        std::fs::read(target).unwrap()
    };
    let (one, two) = (archive_of("one.tar").await, archive_of("two.tar").await);
    assert!(one == two, "the same image makes the same archive");
    assert!(
        files(folder.path())
            .iter()
            .all(|name| !name.contains(".towpath-"))
    );

    let archive = DockerArchive::open(folder.path().join("one.tar")).await.unwrap();
    let names: Vec<String> = archive.images()[0]
        .names
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["docker.io/shop/web:1.4", "docker.io/shop/web:latest"]);
    let read = archive.manifest(&tag("1.4").into()).await.unwrap().unwrap();
    let digests: Vec<String> = read
        .blobs()
        .iter()
        .map(|part| part.digest().to_string())
        .collect();
    let mut wanted = vec![app.config.digest.to_string()];
    wanted.extend(app.plain.iter().map(|plain| Digest::sha256_of(plain).to_string()));
    assert_eq!(
        digests, wanted,
        "the image has its ID, and its layers are uncompressed"
    );
    // And the archive gives the same archive.
    let target = folder.path().join("three.tar");
    let again = DockerArchiveWriter::create(&target, &"shop/web".parse().unwrap())
        .await
        .unwrap();
    for name in ["1.4", "latest"] {
        copy(
            &archive,
            &tag(name).into(),
            &again,
            Some(&tag(name)),
            &CopyOptions::default(),
        )
        .await
        .unwrap();
    }
    again.finish().await.unwrap();
    assert!(std::fs::read(target).unwrap() == one);
}

#[tokio::test]
async fn what_a_docker_archive_cannot_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("app.tar");
    let create = async || {
        DockerArchiveWriter::create(&target, &"shop/web".parse().unwrap())
            .await
            .unwrap()
    };
    let app = image("app", "amd64");

    let archive = create().await;
    app.put(&archive).await;
    let error = archive
        .put_tag(&tag("1"), &index(&[("amd64", &app)]))
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.advice().unwrap().contains("platform"),
        "{error}"
    );
    let (signature, empty) = referrer(&app.manifest, "application/vnd.example.signature");
    archive.put_blob(&empty).await.unwrap();
    let error = archive.put_manifest(&signature).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.to_string().contains("not that of an image"),
        "{error}"
    );
    let descriptor = serde_json::from_value(super::made::entry(&signature)).unwrap();
    let error = archive
        .put_referrer(&app.manifest.digest, &signature, &descriptor)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    drop(archive);
    assert!(files(folder.path()).is_empty());

    let error = create().await.finish().await.unwrap_err();
    assert!(error.to_string().contains("no image"), "{error}");

    // A layer that becomes larger than it may, decompressed.
    let bomb = made_of(vec![vec![0; 1 << 20]], &[]);
    assert!(bomb.layers[0].size < 50_000);
    let archive = create().await.largest_layer(100_000);
    bomb.put(&archive).await;
    let error = archive.finish().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Invalid && error.to_string().contains("100000"),
        "{error}"
    );

    // A layer that is not what the configuration says.
    let lie = made_of(vec![layer("app", "honest")], &[layer("app", "another")]);
    let archive = create().await;
    lie.put(&archive).await;
    let error = archive.finish().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("configuration says"),
        "{error}"
    );

    // A layer that is cut off within its compression.
    let mut cut = made_of(vec![layer("app", "honest")], &[]);
    let half = bytes(&cut.layers[0]);
    cut.layers = vec![Blob::from_bytes(half.slice(..half.len() / 2))];
    cut.manifest = manifest(
        &cut.config,
        &cut.layers,
        "application/vnd.oci.image.layer.v1.tar+gzip",
    );
    let archive = create().await;
    cut.put(&archive).await;
    let error = archive.finish().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("decompressed"),
        "{error}"
    );
    assert!(files(folder.path()).is_empty(), "{:?}", files(folder.path()));
}

/// An image of these layers, whose configuration may tell of others.
fn made_of(plain: Vec<Vec<u8>>, told: &[Vec<u8>]) -> Made {
    let layers: Vec<Blob> = plain
        .iter()
        .map(|plain| Blob::from_bytes(super::made::gzip(plain)))
        .collect();
    let config = config("amd64", if told.is_empty() { &plain } else { told });
    Made {
        manifest: manifest(&config, &layers, "application/vnd.oci.image.layer.v1.tar+gzip"),
        config,
        layers,
        plain,
    }
}
