//! Bytes that are meant to do harm: each is refused with the reason, quickly, and with little memory.

use super::made::{bytes, entry, files, image, index, named, write_layout};
use super::tars::{Tar, of_folder};
use serde_json::json;
use std::fs::File;
use std::path::Path;
use towpath_ecr::oci::{
    CopyOptions, DockerArchive, ImageSource, LARGEST_MANIFEST, Layout, OciArchive, OciArchiveWriter,
    Reference, copy,
};
use towpath_ecr::{Digest, Error, ErrorKind, Tag};

fn at(text: &str) -> Reference {
    text.parse::<Tag>().unwrap().into()
}

/// A layout in a tar, as it should be.
fn good() -> Tar {
    let folder = tempfile::tempdir().unwrap();
    let app = image("app", "amd64");
    let mut contents: Vec<_> = app.blobs().iter().map(bytes).collect();
    contents.push(app.manifest.bytes.clone());
    let contents: Vec<&[u8]> = contents.iter().map(AsRef::as_ref).collect();
    write_layout(folder.path(), &[named(&app.manifest, "1")], &contents);
    of_folder(folder.path())
}

async fn refusal(archive: &[u8]) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    std::fs::write(&path, archive).unwrap();
    let error = OciArchive::open(&path).await.unwrap_err();
    let other = DockerArchive::open(&path).await.unwrap_err();
    assert_eq!(error.kind(), other.kind(), "{error}\n{other}");
    assert_eq!(files(folder.path()), ["image.tar"], "nothing is unpacked");
    error
}

#[tokio::test]
async fn tars_that_mean_harm_are_refused() {
    let long = "n".repeat(2000);
    let whole = good().end();
    let (protocol, unsupported) = (ErrorKind::Protocol, ErrorKind::Unsupported);
    for (tar, kind, says) in [
        (
            good().file("../escape", b"x").end(),
            protocol,
            "out of the archive",
        ),
        (
            good().file("a/../../escape", b"x").end(),
            protocol,
            "out of the archive",
        ),
        (good().file("/etc/passwd", b"x").end(), protocol, "absolute"),
        (good().entry("/etc/", b'5', b"").end(), protocol, "absolute"),
        (
            good().entry("../up/", b'5', b"").end(),
            protocol,
            "out of the archive",
        ),
        (good().header(b"a\xff\xfe", b'0', b"", 0).end(), protocol, "UTF-8"),
        (
            good().pax(&[("path", "../escape")]).file("fine", b"x").end(),
            protocol,
            "out of the archive",
        ),
        (
            good().pax(&[("path", "/escape")]).file("fine", b"x").end(),
            protocol,
            "absolute",
        ),
        (
            good()
                .entry("././@LongLink", b'L', b"../escape\0")
                .file("fine", b"x")
                .end(),
            protocol,
            "out of the archive",
        ),
        (
            good()
                .entry("././@LongLink", b'L', long.as_bytes())
                .file("fine", b"x")
                .end(),
            protocol,
            "2000 bytes",
        ),
        (
            good().link("a", b'2', "/etc/passwd").end(),
            protocol,
            "link to \"/etc/passwd\"",
        ),
        (
            good().link("a/b", b'2', "../../x").end(),
            protocol,
            "out of the archive",
        ),
        (
            good().link("a/b", b'1', "../x").end(),
            protocol,
            "out of the archive",
        ),
        (
            good().link("a", b'1', "/etc/passwd").end(),
            protocol,
            "out of the archive",
        ),
        (good().link("a", b'2', "").end(), protocol, "out of the archive"),
        (
            good()
                .pax(&[("linkpath", "/etc/passwd")])
                .link("a", b'2', "fine")
                .end(),
            protocol,
            "out of the archive",
        ),
        (
            good().entry("null", b'3', b"").end(),
            protocol,
            "neither file, folder nor link",
        ),
        (
            good().entry("disk", b'4', b"").end(),
            protocol,
            "neither file, folder nor link",
        ),
        (
            good().entry("pipe", b'6', b"").end(),
            protocol,
            "neither file, folder nor link",
        ),
        (
            good().entry("what", b'Z', b"").end(),
            protocol,
            "neither file, folder nor link",
        ),
        (good().entry("holes", b'S', b"").end(), unsupported, "--sparse"),
        (
            good().pax(&[("GNU.sparse.major", "1")]).file("holes", b"x").end(),
            protocol,
            "--sparse",
        ),
        (good().file("oci-layout", b"{}").end(), protocol, "twice"),
        (good().file("./oci-layout", b"{}").end(), protocol, "twice"),
        (
            good().link("index.json", b'1', "oci-layout").end(),
            protocol,
            "twice",
        ),
        (
            good().pax(&[("size", "many")]).file("a", b"x").end(),
            protocol,
            "no number",
        ),
        (
            good().entry("pax", b'x', b"99 path=a\n").file("a", b"x").end(),
            protocol,
            "damaged",
        ),
        (
            good().entry("pax", b'x', b"5 a\n").file("a", b"x").end(),
            protocol,
            "damaged",
        ),
        (
            good().entry("pax", b'g', b"11 path=ab\n").file("a", b"x").end(),
            protocol,
            "global",
        ),
        (
            good().header(b"bomb", b'0', b"", 10 << 30).end(),
            protocol,
            "cut off or lies",
        ),
        (
            good().header(b"bomb", b'0', b"", u64::MAX).end(),
            protocol,
            "cut off or lies",
        ),
        (
            good()
                .pax(&[("size", "18446744073709551615")])
                .file("a", b"x")
                .end(),
            protocol,
            "cut off or lies",
        ),
        (good().0, protocol, "cut off"),
        (whole[..1000].to_vec(), protocol, "cut off"),
        (whole[..whole.len() - 1200].to_vec(), protocol, "cut off"),
        (b"".to_vec(), protocol, "cut off"),
        (b"no tar".to_vec(), protocol, "cut off"),
        (vec![b'x'; 4096], protocol, "not a tar"),
        ([&good().0[..], &[b'x'; 2048][..]].concat(), protocol, "damaged"),
        (super::made::gzip(&whole), unsupported, "gzip -d"),
        (
            [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0; 600][..]].concat(),
            unsupported,
            "zstd -d",
        ),
        ([&b"BZh9"[..], &[0; 600][..]].concat(), unsupported, "bzip2 -d"),
    ] {
        let error = refusal(&tar).await;
        assert!(
            error.kind() == kind && error.to_string().contains(says),
            "{says}: {error}"
        );
    }
}

#[tokio::test]
async fn unusual_tars_are_read() {
    let long = format!("{}/{}", "d".repeat(90), "n".repeat(120));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    let size = "3";
    let tar = good()
        .entry("pax_global_header", b'g', b"15 comment=abc\n")
        .pax(&[("path", &long), ("comment", "two\nlines\n30 path=../x")])
        .file("short", b"x")
        .entry("././@LongLink", b'L', format!("{long}2\0").as_bytes())
        .file("short", b"x")
        .pax(&[("size", size)])
        .header(b"sized", b'0', b"", 0);
    let mut tar = Tar([&tar.0[..], b"abc", &[0; 509][..]].concat());
    tar = tar
        .entry("sub/", b'5', b"")
        .file("sub/./file", b"y")
        .link("sub/link", b'2', "../sized");
    tar.write(&path);
    let archive = OciArchive::open(&path).await.unwrap();
    assert!(archive.manifest(&at("1")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_tar_is_not_read_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.tar");
    // As many headers as fit into 33 MB.
    let mut many = Tar::default();
    for number in 0..65_537 {
        many = many.header(format!("{number}").as_bytes(), b'5', b"", 0);
    }
    many.write(&path);
    let error = OciArchive::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("more than 65536 entries"), "{error}");

    // A long name of four gigabytes, all of which is there.
    std::fs::write(
        &path,
        Tar::default().header(b"././@LongLink", b'L', b"", 4 << 30).0,
    )
    .unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(5 << 30)
        .unwrap();
    let error = OciArchive::open(&path).await.unwrap_err();
    assert!(
        error.to_string().contains("extended header of 4294967296 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn ten_gigabytes_are_looked_at_and_not_read() {
    const HUGE: u64 = 10 << 30;
    let folder = tempfile::tempdir().unwrap();
    let app = image("app", "amd64");
    let path = folder.path().join("image.tar");
    // The layer's place in the archive holds ten gigabytes of nothing.
    let name = format!("blobs/sha256/{}", app.layers[1].digest.encoded());
    let mut tar = Tar::default();
    for part in [
        bytes(&app.config),
        bytes(&app.layers[0]),
        app.manifest.bytes.clone(),
    ] {
        tar = tar.file(
            &format!("blobs/sha256/{}", Digest::sha256_of(&part).encoded()),
            &part,
        );
    }
    let index = json!({ "schemaVersion": 2, "manifests": [named(&app.manifest, "1")] });
    let tar = tar
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string().as_bytes())
        .header(name.as_bytes(), b'0', b"", HUGE);
    let length = tar.0.len() as u64;
    std::fs::write(&path, tar.0).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length + HUGE + 1024)
        .unwrap();
    let archive = OciArchive::open(&path).await.unwrap();
    let target = folder.path().join("copy.tar");
    let writer = OciArchiveWriter::create(&target).await.unwrap();
    let error = copy(&archive, &at("1"), &writer, None, &CopyOptions::default())
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("10737418240 bytes"),
        "{error}"
    );
    drop(writer);

    // The same in a folder.
    let root = folder.path().join("images");
    let contents = [
        bytes(&app.config),
        bytes(&app.layers[0]),
        app.manifest.bytes.clone(),
    ];
    let contents: Vec<&[u8]> = contents.iter().map(AsRef::as_ref).collect();
    write_layout(&root, &[named(&app.manifest, "1")], &contents);
    File::create(root.join(&name)).unwrap().set_len(HUGE).unwrap();
    let layout = Layout::open(&root).await.unwrap();
    let error = layout.blob(app.manifest.blobs()[2]).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("10737418240 bytes"),
        "{error}"
    );
    assert!(!target.exists());
}

async fn layout_with(change: impl FnOnce(&Path)) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let app = image("app", "amd64");
    write_layout(
        folder.path(),
        &[named(&app.manifest, "1")],
        &[&app.manifest.bytes],
    );
    change(folder.path());
    match Layout::open(folder.path()).await {
        Err(error) => error,
        Ok(layout) => layout.manifest(&at("1")).await.unwrap_err(),
    }
}

#[tokio::test]
async fn layouts_that_are_none_are_refused() {
    let app = image("app", "amd64");
    let write = |name: &'static str, text: &'static str| {
        move |root: &Path| std::fs::write(root.join(name), text).unwrap()
    };
    let error = layout_with(write("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#)).await;
    assert!(
        error.kind() == ErrorKind::Unsupported && error.to_string().contains("2.0.0"),
        "{error}"
    );
    let error = layout_with(write("oci-layout", "{}")).await;
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("imageLayoutVersion"),
        "{error}"
    );
    let error = layout_with(write("index.json", "[")).await;
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("index.json"),
        "{error}"
    );
    let error = layout_with(write("index.json", r#"{"schemaVersion":2}"#)).await;
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    let error = layout_with(|root| std::fs::remove_file(root.join("oci-layout")).unwrap()).await;
    assert!(error.is_not_found(), "{error}");
    let error = layout_with(|root| std::fs::remove_file(root.join("index.json")).unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    let error = layout_with(|root| {
        let file = File::options().write(true).open(root.join("index.json")).unwrap();
        file.set_len(LARGEST_MANIFEST + 1).unwrap();
    })
    .await;
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("4194305 bytes"),
        "{error}"
    );
    let error = layout_with(|root| std::fs::remove_dir_all(root.join("blobs")).unwrap()).await;
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("not there"),
        "{error}"
    );
    let name = app.manifest.digest.encoded().to_owned();
    let error = layout_with(|root| {
        let path = root.join("blobs/sha256").join(&name);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
    })
    .await;
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("not a file"),
        "{error}"
    );
    let error = layout_with(|root| {
        let path = root.join("blobs/sha256").join(&name);
        std::fs::write(
            &path,
            std::fs::read_to_string(&path).unwrap().replace("amd", "arm") + " ",
        )
        .unwrap();
    })
    .await;
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("digest"),
        "{error}"
    );
    let error = layout_with(|root| {
        let mut lie = named(&app.manifest, "1");
        lie["size"] = 7.into();
        write_layout(root, &[lie], &[&app.manifest.bytes]);
    })
    .await;
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("7 bytes"),
        "{error}"
    );
    let error = layout_with(|root| {
        let mut lie = named(&app.manifest, "1");
        lie["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
        write_layout(root, &[lie], &[&app.manifest.bytes]);
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    let other = image("other", "amd64");
    let error = layout_with(|root| {
        write_layout(
            root,
            &[named(&app.manifest, "1"), named(&other.manifest, "1")],
            &[&app.manifest.bytes],
        );
    })
    .await;
    assert!(
        error.is_conflict() && error.to_string().contains(&other.manifest.digest.to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn indexes_that_run_in_a_circle_come_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let app = image("app", "amd64");
    // Indexes within indexes, and one that claims to hold the list that holds it.
    let mut contents = vec![app.manifest.bytes.clone()];
    let mut top = index(&[("amd64", &app)]);
    for _ in 0..50 {
        contents.push(top.bytes.clone());
        let deeper = json!({ "schemaVersion": 2, "manifests": [entry(&top), entry(&top)] }).to_string();
        top = towpath_ecr::oci::Manifest::read(&top.media_type, deeper.into()).unwrap();
    }
    contents.push(top.bytes.clone());
    let contents: Vec<&[u8]> = contents.iter().map(AsRef::as_ref).collect();
    write_layout(folder.path(), &[named(&top, "1")], &contents);
    let layout = Layout::open(folder.path()).await.unwrap();
    assert!(layout.referrers(&app.manifest.digest).await.unwrap().is_empty());
    let target = tempfile::tempdir().unwrap();
    let writer = OciArchiveWriter::create(target.path().join("image.tar"))
        .await
        .unwrap();
    let error = copy(&layout, &at("1"), &writer, None, &CopyOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    drop(writer);
    assert!(files(target.path()).is_empty());

    let own = folder.path().join("index.json");
    let circle = json!({ "schemaVersion": 2, "manifests": [named(&top, "1")] }).to_string();
    let inner = folder.path().join("blobs/sha256").join(top.digest.encoded());
    std::fs::write(&own, &circle).unwrap();
    std::fs::write(&inner, &circle).unwrap();
    let layout = Layout::open(folder.path()).await.unwrap();
    let error = layout.referrers(&app.manifest.digest).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("digest"),
        "{error}"
    );
}

#[tokio::test]
async fn docker_archives_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.tar");
    let app = image("app", "amd64");
    let config = bytes(&app.config);
    let list = |layers: serde_json::Value| {
        json!([{ "Config": "c.json", "RepoTags": ["a:1"], "Layers": layers }]).to_string()
    };
    let base = || {
        Tar::default()
            .file("c.json", &config)
            .file("1.tar", &app.plain[0])
            .file("2.tar", &app.plain[1])
    };
    let names = json!(["1.tar", "2.tar"]);
    let huge = format!("[{}]", vec![r#"{"Config":"c.json"}"#; 1_001].join(","));
    for (tar, says) in [
        (base(), "no manifest.json"),
        (base().file("manifest.json", b"{}"), "manifest.json"),
        (
            base().file("manifest.json", list(json!(["1.tar"])).as_bytes()),
            "describes 2 layers",
        ),
        (
            base().file("manifest.json", list(json!(["1.tar", "3.tar"])).as_bytes()),
            "3.tar",
        ),
        (
            base().file("manifest.json", list(json!(["1.tar", "../2.tar"])).as_bytes()),
            "../2.tar",
        ),
        (
            base().file(
                "manifest.json",
                list(names.clone()).replace("c.json", "/etc/passwd").as_bytes(),
            ),
            "/etc/passwd",
        ),
        (
            base().file(
                "manifest.json",
                list(names.clone()).replace("a:1", "A:1").as_bytes(),
            ),
            "lower case",
        ),
        (
            base().file(
                "manifest.json",
                list(names.clone()).replace("c.json", "1.tar").as_bytes(),
            ),
            "1.tar",
        ),
        (
            base().file("manifest.json", huge.as_bytes()),
            "more than 1000 images",
        ),
        (
            base()
                .link("manifest.json", b'2', "a")
                .link("a", b'2', "manifest.json"),
            "leads nowhere",
        ),
        (base().link("manifest.json", b'2', "gone"), "not there"),
        (
            base().file("manifest.json", &vec![b' '; (LARGEST_MANIFEST + 1) as usize]),
            "4194305 bytes",
        ),
    ] {
        tar.write(&path);
        let error = DockerArchive::open(&path).await.unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
    }

    // A layer that is not what the configuration says shows when it is read.
    let list = list(json!(["2.tar", "1.tar"]));
    base().file("manifest.json", list.as_bytes()).write(&path);
    let archive = DockerArchive::open(&path).await.unwrap();
    let root = folder.path().join("images");
    let layout = Layout::create(&root).await.unwrap();
    let error = copy(
        &archive,
        &at("1"),
        &layout,
        Some(&"1".parse().unwrap()),
        &CopyOptions::default(),
    )
    .await
    .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Protocol && error.to_string().contains("digest"),
        "{error}"
    );
    assert!(layout.entries().await.unwrap().is_empty());
}
