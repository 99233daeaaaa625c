//! Assembling images against the lab: bases and none, platforms, compressions, and what goes over the wire.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use serde_json::{Value, json as value};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use support::{World, json};
use towpath_core::requests;
use towpath_ecr::oci::Manifest;
use towpath_ecr::registry::{Assembly, Compression, Files, Layer, Platform};
use towpath_ecr::{Digest, ErrorKind};

/// A folder with a binary for each platform, and assets for both.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in [
        ("amd64/web", "for amd64"),
        ("arm64/web", "for arm64"),
        ("assets/index.html", "<html>"),
        ("assets/index.html.map", "left out"),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

fn from_scratch(project: &Path, target: towpath_ecr::ImageRef) -> Assembly {
    let both = ["amd64", "arm64"].map(Platform::linux);
    let mut assembly = Assembly::from_scratch(target, both.clone());
    let binaries = both.map(|platform| {
        let path = project.join(&platform.architecture).join("web");
        (platform, path)
    });
    let mut web = Files::per_platform(binaries, "/bin/");
    web.file_mode = Some(0o555);
    web.owner = Some((65532, 65532));
    let mut assets = Files::new(project.join("assets").as_path(), "/srv");
    assets.exclude = vec!["*.map".into()];
    assets.compression = Some(Compression::Gzip);
    assembly.layers = vec![Layer::Files(assets), Layer::Files(web)];
    assembly.compression = Compression::Zstd;
    assembly.config.entrypoint = Some(vec!["/bin/web".into()]);
    assembly.config.ports.insert("8080".into());
    assembly
}

/// The manifest, the configuration, and the entries of each layer, of one platform of the lab's `shop/web`.
fn platform(
    world: &World,
    made: &Manifest,
    architecture: &str,
) -> (Value, Value, Vec<Vec<(String, String)>>) {
    let child = made
        .children()
        .iter()
        .find(|child| child.platform().as_ref().unwrap().architecture().to_string() == architecture);
    let digest = child.unwrap().digest().to_string();
    let manifest = json(&world.lab.image("shop/web", &digest).unwrap().manifest);
    let blob = |descriptor: &Value| {
        let digest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
        world.lab.blob(&digest).unwrap()
    };
    let config = json(&blob(&manifest["config"]));
    let layers = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(config["rootfs"]["diff_ids"].as_array().unwrap());
    let layers = layers.map(|(layer, diff_id)| {
        let (bytes, mut tar) = (blob(layer), Vec::new());
        match layer["mediaType"].as_str().unwrap().rsplit('+').next().unwrap() {
            "gzip" => flate2::read::GzDecoder::new(&bytes[..])
                .read_to_end(&mut tar)
                .unwrap(),
            "zstd" => zstd::Decoder::new(&bytes[..])
                .unwrap()
                .read_to_end(&mut tar)
                .unwrap(),
            other => panic!("{other}"),
        };
        assert_eq!(Digest::sha256_of(&tar).as_str(), diff_id.as_str().unwrap());
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (entry.path().unwrap().display().to_string(), content)
        });
        entries.collect()
    });
    let layers = layers.collect();
    (manifest, config, layers)
}

#[tokio::test]
async fn an_image_from_scratch_has_each_platforms_own_files() {
    let world = World::start().await;
    let project = project();
    let target = world.target("shop/web").await.tagged("1".parse().unwrap());
    let assembly = from_scratch(project.path(), target);
    let made = world.ecr.assemble_image(&assembly).await.unwrap();
    assert_eq!(made.children().len(), 2);
    for architecture in ["amd64", "arm64"] {
        let (manifest, config, layers) = platform(&world, &made, architecture);
        let types = manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["mediaType"].as_str().unwrap());
        let types: Vec<&str> = types
            .map(|media_type| media_type.rsplit('+').next().unwrap())
            .collect();
        assert_eq!(types, ["gzip", "zstd"]);
        let entry = |path: &str, content: String| (path.to_owned(), content);
        assert_eq!(
            layers,
            [
                vec![
                    entry("srv", String::new()),
                    entry("srv/index.html", "<html>".into())
                ],
                vec![entry("bin/web", format!("for {architecture}"))],
            ]
        );
        assert_eq!(
            (&config["os"], &config["architecture"]),
            (&value!("linux"), &value!(architecture))
        );
        assert_eq!(config["config"]["ExposedPorts"], value!({"8080/tcp": {}}));
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        assert!(
            manifest["annotations"]
                .get("org.opencontainers.image.base.digest")
                .is_none()
        );
    }
}

#[tokio::test]
async fn a_folder_that_all_platforms_have_is_sent_once_and_a_second_run_sends_nothing() {
    let world = World::start().await;
    let (one, two) = (project(), project());
    let target = world.target("shop/web").await.tagged("1".parse().unwrap());
    let first = world
        .ecr
        .assemble_image(&from_scratch(one.path(), target.clone()))
        .await
        .unwrap();
    let log = world.lab.registry_requests().all();
    let sent = log
        .iter()
        .filter(|seen| seen.method == "PUT" && seen.path.contains("/uploads/"));
    let sent: Vec<&str> = sent
        .map(|seen| seen.path.rsplit("digest=").next().unwrap())
        .collect();
    // The assets once, a binary and a configuration for each platform.
    assert_eq!((sent.len(), sent.iter().collect::<BTreeSet<_>>().len()), (5, 5));

    // The same files elsewhere, later: the same image, and two looks at the registry.
    let again = from_scratch(two.path(), target);
    let (second, count) = requests::count(world.ecr.assemble_image(&again)).await;
    assert_eq!((second.unwrap().digest, count), (first.digest, 2));
    let log = world.lab.registry_requests().all();
    assert!(log[log.len() - 2..].iter().all(|seen| seen.method == "HEAD"));
}

#[tokio::test]
async fn one_platform_from_scratch_is_no_index() {
    let world = World::start().await;
    let project = project();
    let target = world.target("shop/web").await;
    let mut assembly = from_scratch(project.path(), target);
    assembly.platforms.truncate(1);
    let made = world.ecr.assemble_image(&assembly).await.unwrap();
    assert_eq!((made.children().len(), made.blobs().len()), (0, 3));
}

#[tokio::test]
async fn a_base_keeps_its_layers_below_a_platforms_own_files() {
    let world = World::with_rule().await;
    let project = project();
    let target = world.target("shop/web").await;
    let base = world.base().await;
    let mut assembly = from_scratch(project.path(), target);
    assembly.base = Some(base.clone());
    assembly.platforms.clear();
    assembly
        .config
        .remove_labels
        .insert("org.opencontainers.image.title".into());
    let made = world.ecr.assemble_image(&assembly).await.unwrap();
    let (manifest, config, layers) = platform(&world, &made, "arm64");
    assert_eq!(layers.len(), 4);
    assert_eq!(layers[1], [("etc/arch".to_owned(), "aarch64\n".to_owned())]);
    assert_eq!(layers[3], [("bin/web".to_owned(), "for arm64".to_owned())]);
    assert_eq!(config["config"]["Labels"], value!({}));
    let annotations = &manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.name"], base.name());
}

#[tokio::test]
async fn what_cannot_be_assembled_costs_no_upload() {
    let world = World::start().await;
    let project = project();
    let target = world.target("shop/web").await;
    let good = from_scratch(project.path(), target);
    let refused = async |edit: &dyn Fn(&mut Assembly)| {
        let mut assembly = good.clone();
        edit(&mut assembly);
        let error = world.ecr.assemble_image(&assembly).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        error.to_string()
    };
    let text = refused(&|it| it.platforms.clear()).await;
    assert!(text.contains("no base, and no platform"), "{text}");
    let text = refused(&|it| it.layers.clear()).await;
    assert!(text.contains("no layer"), "{text}");
    let text = refused(&|it| it.platforms.push(Platform::linux("amd64"))).await;
    assert!(text.contains("linux/amd64 is there twice"), "{text}");
    let text = refused(&|it| it.platforms.push(Platform::linux("s390x"))).await;
    assert!(text.contains("there are none for linux/s390x"), "{text}");
    let text = refused(&|it| it.config.ports = ["http".to_owned()].into()).await;
    assert!(text.contains("\"http\""), "{text}");
    std::os::unix::fs::symlink("/etc/shadow", project.path().join("assets/link")).unwrap();
    let text = refused(&|_| ()).await;
    assert!(text.contains("/etc/shadow, outside of the folder"), "{text}");
    assert!(world.lab.registry_requests().is_empty());
}
