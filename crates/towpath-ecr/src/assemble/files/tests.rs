use super::*;
use jiff::Timestamp;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use towpath_core::Digest;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    fs::create_dir_all(at("b/c")).unwrap();
    fs::write(at("b/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("b/run"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(at("a.txt"), "hello").unwrap();
    fs::write(at(&"n".repeat(150)), "long name").unwrap();
    symlink("../a.txt", at("b/link")).unwrap();
    symlink("/srv/app/a.txt", at("b/absolute")).unwrap();
    folder
}

fn packed(from: &Path, to: &str) -> Result<PackedLayer> {
    pack_now(&Files::new(from, to))
}

fn compressed(layer: &PackedLayer) -> Vec<u8> {
    let bytes = fs::read(layer.path()).unwrap();
    let (digest, size) = (Digest::sha256_of(&bytes), bytes.len() as u64);
    assert_eq!((&digest, size), (&layer.digest, layer.size));
    bytes
}

/// The tar inside a gzip layer, verified.
fn plain(layer: &PackedLayer) -> Vec<u8> {
    let mut plain = Vec::new();
    let bytes = compressed(layer);
    flate2::read::GzDecoder::new(&bytes[..])
        .read_to_end(&mut plain)
        .unwrap();
    assert_eq!(Digest::sha256_of(&plain), layer.diff_id);
    plain
}

/// `path mode owner:group time` of every entry.
fn entries(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        format!(
            "{} {:o} {}:{} {}",
            entry.path().unwrap().display(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap()
        )
    });
    entries.collect()
}

#[test]
fn the_same_files_make_the_same_layer() {
    let (one, two) = (folder(), folder());
    fs::set_permissions(two.path().join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    let first = packed(one.path(), "/srv/app").unwrap();
    let second = packed(two.path(), "/srv/app/").unwrap();
    assert_eq!((&first.digest, &first.diff_id), (&second.digest, &second.diff_id));
    // Written down, so that a change of a dependency cannot change everybody's digests unseen.
    assert_eq!(
        first.diff_id.as_str(),
        "sha256:e79606116d5eba02fa12ded52145001a275fe931283e700cb3d25e243b432603"
    );
    let long = "n".repeat(150);
    assert_eq!(
        entries(&plain(&first)),
        [
            "srv/app 755 0:0 0".to_owned(),
            "srv/app/a.txt 644 0:0 0".to_owned(),
            "srv/app/b 755 0:0 0".to_owned(),
            "srv/app/b/absolute 777 0:0 0".to_owned(),
            "srv/app/b/c 755 0:0 0".to_owned(),
            "srv/app/b/link 777 0:0 0".to_owned(),
            "srv/app/b/run 755 0:0 0".to_owned(),
            format!("srv/app/{long} 644 0:0 0"),
        ]
    );
}

#[test]
fn compression_changes_the_blob_and_not_what_is_in_it() {
    let folder = folder();
    let mut files = Files::new(folder.path(), "/srv");
    let gzip = pack_now(&files).unwrap();
    files.compression = Some(Compression::Zstd);
    let zstd = pack_now(&files).unwrap();
    files.compression = Some(Compression::None);
    let none = pack_now(&files).unwrap();
    assert_eq!(zstd::decode_all(&compressed(&zstd)[..]).unwrap(), plain(&gzip));
    assert_eq!(compressed(&none), plain(&gzip));
    assert_eq!((&none.digest, &zstd.diff_id), (&gzip.diff_id, &gzip.diff_id));
    let types = [gzip, zstd, none].map(|layer| layer.media_type.rsplit('.').next().unwrap());
    assert_eq!(types, ["tar+gzip", "tar+zstd", "tar"]);
}

#[test]
fn owners_modes_times_and_what_is_left_out_are_chosen() {
    let folder = folder();
    let mut files = Files::new(folder.path(), "/");
    files.exclude = vec!["n*".into(), "/b/c".into(), "absolute".into()];
    files.owner = Some((65532, 100));
    files.file_mode = Some(0o555);
    files.folder_mode = Some(0o750);
    files.modified = Some(Timestamp::new(1_700_000_000, 999_999_999).unwrap());
    assert_eq!(
        entries(&plain(&pack_now(&files).unwrap())),
        [
            "a.txt 555 65532:100 1700000000",
            "b 750 65532:100 1700000000",
            "b/link 777 65532:100 1700000000",
            "b/run 555 65532:100 1700000000",
        ]
    );
    files.file_mode = Some(0o10_000);
    assert!(
        pack_now(&files)
            .unwrap_err()
            .to_string()
            .contains("10000 is no mode")
    );
    files.file_mode = None;
    files.modified = Some(Timestamp::new(-1, 0).unwrap());
    assert!(pack_now(&files).unwrap_err().to_string().contains("before 1970"));
    files.modified = None;
    files.exclude = vec!["[a-z]".into()];
    assert!(pack_now(&files).unwrap_err().to_string().contains("[a-z]"));
}

#[test]
fn a_single_file_has_the_path_or_lies_below_it() {
    let folder = folder();
    let run = folder.path().join("b/run");
    let renamed = entries(&plain(&packed(&run, "/usr/bin/web").unwrap()));
    assert_eq!(renamed, ["usr/bin/web 755 0:0 0"]);
    let below = entries(&plain(&packed(&run, "/usr/bin/").unwrap()));
    assert_eq!(below, ["usr/bin/run 755 0:0 0"]);
    assert!(
        packed(&run, "/usr/.wh.bin")
            .unwrap_err()
            .to_string()
            .contains(".wh.")
    );
    let mut files = Files::new(&run, "/");
    files.exclude = vec!["*".into()];
    assert!(pack_now(&files).unwrap_err().to_string().contains("single file"));
}

#[test]
fn what_is_refused_says_why() {
    let error = packed(Path::new("/no/such/folder"), "/app").unwrap_err();
    assert!(error.to_string().contains("/no/such/folder") && error.to_string().contains("no such folder"));
    let folder = tempfile::tempdir().unwrap();
    let with = |to: &str| packed(folder.path(), to).unwrap_err().to_string();
    assert!(with("app").contains("absolute"));
    assert!(with("/app/../etc").contains(".."));
    symlink("../../etc/passwd", folder.path().join("x")).unwrap();
    assert!(with("/app").contains("outside"));
    fs::remove_file(folder.path().join("x")).unwrap();
    fs::write(folder.path().join(".wh.etc"), "").unwrap();
    assert!(with("/app").contains(".wh."));
    fs::remove_file(folder.path().join(".wh.etc")).unwrap();
    let strange = folder.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
    fs::write(&strange, "").unwrap();
    assert!(with("/app").contains("not UTF-8"));
    fs::remove_file(strange).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
    assert!(with("/app").contains("socket"));
    assert!(
        packed(Path::new("/dev/null"), "/app")
            .unwrap_err()
            .to_string()
            .contains("device")
    );
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let folder = folder();
    let path = folder.path().join("a.txt");
    let files = Files::new(folder.path(), "/");
    let packer = Packer::new(Compression::None, Look::default()).unwrap();
    let mut tree = Tree {
        root: folder.path(),
        prefix: String::new(),
        files: &files,
        packer,
    };
    let seen = fs::symlink_metadata(&path).unwrap();
    tree.file(&path, "a.txt", &seen).unwrap();
    // Another file has taken its place since the folder was listed.
    fs::write(folder.path().join("other"), "hello").unwrap();
    fs::rename(folder.path().join("other"), &path).unwrap();
    let error = tree.file(&path, "a.txt", &seen).unwrap_err();
    assert!(error.to_string().contains("changed while it was read"), "{error}");
}

#[test]
fn folders_may_be_deep_and_names_long() {
    let folder = tempfile::tempdir().unwrap();
    let names = vec!["d".repeat(12); 250];
    let deep = folder.path().join(names.join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("x".repeat(255)), "at the end").unwrap();
    let layer = packed(folder.path(), "/srv").unwrap();
    let plain = plain(&layer);
    let mut archive = tar::Archive::new(&plain[..]);
    let (mut deepest, mut text) = (0, String::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        deepest = entry.path().unwrap().components().count();
        entry.read_to_string(&mut text).unwrap();
    }
    assert_eq!((deepest, text.as_str()), (252, "at the end"));
}

#[test]
fn a_platform_without_files_is_named() {
    let (amd64, arm64) = (Platform::linux("amd64"), Platform::linux("arm64"));
    let files = Files::per_platform(
        [(amd64.clone(), "a".into()), (arm64.clone(), "b".into())],
        "/bin/web",
    );
    let mut v8 = arm64;
    v8.variant = Some("v8".into());
    let on = |platform: &Platform| on_platform(&files, platform, Compression::Zstd).unwrap();
    assert_eq!(on(&amd64).from, FilesFrom::from("a"));
    assert_eq!(on(&v8).from, FilesFrom::from("b"));
    assert_eq!(on(&v8).compression, Some(Compression::Zstd));
    let error = on_platform(&files, &Platform::linux("s390x"), Compression::Gzip).unwrap_err();
    assert!(error.to_string().contains("none for linux/s390x"), "{error}");
}

#[test]
fn links_are_followed_by_their_words() {
    let inside = |below: &str, to: &str| stays_inside(Path::new("srv/app"), Path::new(below), Path::new(to));
    assert!(inside("a/b", "../c"));
    assert!(inside("a", "/srv/app/x/../y"));
    assert!(!inside("a", "../c"));
    assert!(!inside("a/b", "../../../app/c"));
    assert!(!inside("a", "/srv/other"));
    assert!(!inside("a", "/srv/app/../other"));
}
