use crate::caller::{IN, lab};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;
use towpath_core::PackageId;
use towpath_lab::codeartifact::{CodeArtifact, CodeArtifactConfig, Origin, Status};

const LIBRARY: &str = r#"
[package]
name = "Demo_lib"
version = "0.1.0"
edition = "2021"
license = "MIT"
description = "A library"

[dependencies]
greeting = { version = "1", package = "towpath-greeting", optional = true, default-features = false }

[features]
default = ["polite"]
polite = ["dep:greeting"]
"#;

/// A folder with a Cargo home that knows one repository of the lab, and no other registry.
struct Workshop {
    root: TempDir,
    token: String,
}

impl Workshop {
    fn new(endpoint: &str, token: &str) -> Self {
        let workshop = Self {
            root: tempfile::tempdir().unwrap(),
            token: token.into(),
        };
        let config = format!(
            "[registries.lab]\nindex = \"sparse+{endpoint}\"\n\
             [source.crates-io]\nreplace-with = \"lab\"\n\
             [registry]\nglobal-credential-providers = [\"cargo:token\"]\n"
        );
        workshop.write("home/config.toml", &config);
        workshop
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path)
    }

    /// The archive of the library, as cargo packages it: the same source gives the same bytes.
    async fn packaged(&self) -> Vec<u8> {
        self.cargo_ok("library", &["package", "--no-verify"]).await;
        std::fs::read(self.path("library/target/package/Demo_lib-0.1.0.crate")).unwrap()
    }

    /// Whether cargo succeeded in this folder, and what it said.
    async fn cargo(&self, folder: &str, arguments: &[&str]) -> (bool, String) {
        let mut cargo = Command::new(env!("CARGO"));
        for (name, _) in std::env::vars().filter(|(name, _)| {
            name.starts_with("CARGO") || name.starts_with("RUSTC") || name.to_lowercase().ends_with("_proxy")
        }) {
            cargo.env_remove(name);
        }
        cargo.env_remove("RUSTFLAGS");
        cargo
            .env("CARGO_HOME", self.path("home"))
            .env("CARGO_REGISTRIES_LAB_TOKEN", &self.token);
        let output = cargo
            .args(arguments)
            .current_dir(self.path(folder))
            .output()
            .await
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    async fn cargo_ok(&self, folder: &str, arguments: &[&str]) -> String {
        let (good, said) = self.cargo(folder, arguments).await;
        assert!(good, "cargo {arguments:?}: {said}");
        said
    }

    fn library(&self) {
        self.write("library/Cargo.toml", LIBRARY);
        self.write(
            "library/src/lib.rs",
            "pub fn hello() -> String { greeting::greet(\"lab\") }\n",
        );
    }

    fn application(&self) {
        self.write(
            "application/Cargo.toml",
            "[package]\nname = \"application\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
             [dependencies]\nDemo_lib = { version = \"0.1\", registry = \"lab\" }\n",
        );
        self.write(
            "application/src/main.rs",
            "fn main() { println!(\"{}\", Demo_lib::hello()); }\n",
        );
    }
}

fn library_id() -> PackageId {
    PackageId::cargo("Demo_lib").unwrap()
}

const PUBLISH: &[&str] = &["publish", "--no-verify", "--registry", "lab"];

#[tokio::test]
async fn cargo_publishes_a_crate_and_builds_another_that_depends_on_it() {
    let (lab, caller) = lab().await;
    let (token, endpoint) = caller.cargo("libraries").await;
    let workshop = Workshop::new(&endpoint, &token);
    workshop.library();
    workshop.cargo_ok("library", PUBLISH).await;

    let packaged = workshop.packaged().await;
    let kept = lab.version("acme", "libraries", &library_id(), "0.1.0").unwrap();
    assert_eq!(kept.assets["Demo_lib-0.1.0.crate"].bytes, packaged);
    assert_eq!(kept.metadata.summary.as_deref(), Some("A library"));
    let entry = kept.metadata.index_entry.unwrap();
    assert_eq!(
        (&entry["v"], &entry["features2"]),
        (&json!(2), &json!({ "polite": ["dep:greeting"] }))
    );
    assert_eq!(entry["deps"][0]["package"], "towpath-greeting");
    let download = reqwest::Client::new().get(format!("{endpoint}api/v1/crates/Demo_lib/0.1.0/download"));
    let download = download.header("authorization", &token).send().await.unwrap();
    assert_eq!(download.bytes().await.unwrap(), packaged);

    let greeting = PackageId::cargo("towpath-greeting").unwrap();
    assert!(
        lab.version("acme", "libraries", &greeting, "1.0.0").is_none(),
        "nobody has fetched it yet"
    );
    workshop.application();
    workshop.cargo_ok("application", &["build"]).await;
    assert!(
        workshop
            .cargo_ok("application", &["run", "-q"])
            .await
            .contains("Hello, lab!")
    );
    for repository in ["libraries", "crates-io-store"] {
        let fetched = lab.version("acme", repository, &greeting, "1.0.0").unwrap();
        assert_eq!(
            fetched.origin,
            Origin::External {
                connection: "public:crates-io".into()
            }
        );
    }

    let about = format!("{IN}&format=cargo&package=Demo_lib&version=0.1.0");
    let path = format!("/v1/package/version/dependencies?{about}");
    let dependencies = caller.ok(Method::POST, &path, Value::Null).await;
    assert_eq!(
        dependencies["dependencies"],
        json!([{ "package": "towpath-greeting", "dependencyType": "regular", "versionRequirement": "^1" }])
    );
    let described = caller
        .ok(Method::GET, &format!("/v1/package/version?{about}"), Value::Null)
        .await;
    assert_eq!(
        described["packageVersion"]["licenses"],
        json!([{ "name": "MIT" }])
    );
}

#[tokio::test]
async fn a_version_that_exists_is_not_replaced_and_can_be_yanked() {
    let (lab, caller) = lab().await;
    let (token, endpoint) = caller.cargo("libraries").await;
    let workshop = Workshop::new(&endpoint, &token);
    workshop.library();
    workshop.cargo_ok("library", PUBLISH).await;
    let (good, said) = workshop.cargo("library", PUBLISH).await;
    assert!(!good && said.contains("already exists"), "{said}");

    // Cargo looks before it sends; a client that does not is stopped by the registry.
    let packaged = workshop.packaged().await;
    let other = other_archive("Demo_lib", "0.1.0");
    let put = async |name: &str, version: &str, archive: &[u8]| {
        let metadata = json!({ "name": name, "vers": version, "deps": [], "features": {} }).to_string();
        let mut body = (metadata.len() as u32).to_le_bytes().to_vec();
        body.extend(metadata.as_bytes());
        body.extend((archive.len() as u32).to_le_bytes());
        body.extend(archive);
        let request = reqwest::Client::new().put(format!("{endpoint}api/v1/crates/new"));
        let answer = request
            .header("authorization", &token)
            .body(body)
            .send()
            .await
            .unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let (status, body) = put("Demo_lib", "0.1.0", &other).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body.contains("\"detail\""), "{body}");
    assert_eq!(put("Demo_lib", "0.1.0", &packaged).await.0, StatusCode::OK);
    assert_eq!(
        put("Demo_lib", "0.2.0", &packaged).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        put("demo-lib", "0.2.0", &other_archive("demo-lib", "0.2.0"))
            .await
            .0,
        StatusCode::CONFLICT
    );
    assert_eq!(put("x", "1.0.0", b"no archive").await.0, StatusCode::BAD_REQUEST);
    let short = reqwest::Client::new().put(format!("{endpoint}api/v1/crates/new"));
    let short = short
        .header("authorization", &token)
        .body(vec![9, 0, 0, 0])
        .send()
        .await
        .unwrap();
    assert_eq!(short.status(), StatusCode::BAD_REQUEST);

    let status = || {
        lab.version("acme", "libraries", &library_id(), "0.1.0")
            .unwrap()
            .status
    };
    workshop
        .cargo_ok("library", &["yank", "--registry", "lab", "Demo_lib@0.1.0"])
        .await;
    assert_eq!(status(), Status::Unlisted);
    workshop.application();
    let (good, said) = workshop.cargo("application", &["fetch"]).await;
    assert!(!good && said.contains("yanked"), "{said}");
    workshop
        .cargo_ok(
            "library",
            &["yank", "--undo", "--registry", "lab", "Demo_lib@0.1.0"],
        )
        .await;
    assert_eq!(status(), Status::Published);
}

#[tokio::test]
async fn a_wrong_or_expired_token_is_cargos_authentication_error() {
    let (lab, caller) = lab().await;
    let (token, endpoint) = caller.cargo("libraries").await;
    lab.expire_tokens();
    let workshop = Workshop::new(&endpoint, &token);
    workshop.application();
    let (good, said) = workshop.cargo("application", &["fetch"]).await;
    assert!(!good && said.contains("token rejected"), "{said}");
}

#[tokio::test]
async fn a_crate_that_came_from_outside_is_not_published_to_by_default() {
    let (lab, caller) = lab().await;
    let (token, endpoint) = caller.cargo("libraries").await;
    let workshop = Workshop::new(&endpoint, &token);
    let url = format!("{endpoint}api/v1/crates/towpath-greeting/1.0.0/download");
    let fetched = reqwest::Client::new()
        .get(url)
        .header("authorization", &token)
        .send()
        .await
        .unwrap();
    assert_eq!(fetched.status(), StatusCode::OK);
    let manifest = LIBRARY
        .replace("Demo_lib", "towpath-greeting")
        .replace("0.1.0", "1.1.0");
    let manifest = manifest.split("[dependencies]").next().unwrap();
    workshop.write("ours/Cargo.toml", manifest);
    workshop.write("ours/src/lib.rs", "");
    let (good, said) = workshop.cargo("ours", PUBLISH).await;
    assert!(!good && said.contains("origin controls"), "{said}");

    let path = format!("/v1/package?{IN}&format=cargo&package=towpath-greeting");
    let restrictions = json!({ "restrictions": { "publish": "ALLOW", "upstream": "BLOCK" } });
    caller.ok(Method::POST, &path, restrictions).await;
    workshop.cargo_ok("ours", PUBLISH).await;
    let greeting = PackageId::cargo("towpath-greeting").unwrap();
    let versions = &lab.repository("acme", "libraries").unwrap().packages[&greeting].versions;
    let versions: BTreeMap<&str, bool> = versions
        .iter()
        .map(|version| {
            (
                version.version.as_str(),
                matches!(version.origin, Origin::External { .. }),
            )
        })
        .collect();
    assert_eq!(versions, BTreeMap::from([("1.0.0", true), ("1.1.0", false)]));
    // Upstreams are blocked now: what is new there is not seen here.
    seed(&lab, "towpath-greeting", "1.2.0");
    let index = reqwest::Client::new().get(format!("{endpoint}to/wp/towpath-greeting"));
    let index = index
        .header("authorization", &token)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(index.contains("1.1.0") && !index.contains("1.2.0"), "{index}");
}

#[tokio::test]
async fn crates_of_a_cargo_home_can_be_built_from_the_lab() {
    let (lab, caller) = lab().await;
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join("registry/cache/somewhere-0123");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::write(cache.join("cached-2.0.0.crate"), other_archive("cached", "2.0.0")).unwrap();
    let wanted = |name: &str| (name.to_owned(), "2.0.0".to_owned());
    let missing = lab
        .seed_from_cargo_home(home.path(), &[wanted("cached"), wanted("absent")])
        .unwrap();
    assert_eq!(missing, [wanted("absent")]);
    assert!(lab.seed_from_cargo_home(Path::new("/nowhere"), &[]).is_err());

    let (token, endpoint) = caller.cargo("libraries").await;
    let workshop = Workshop::new(&endpoint, &token);
    workshop.write(
        "user/Cargo.toml",
        "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ncached = \"2\"\n",
    );
    workshop.write("user/src/lib.rs", "");
    workshop.cargo_ok("user", &["fetch"]).await;
    assert!(
        lab.version("acme", "libraries", &PackageId::cargo("cached").unwrap(), "2.0.0")
            .is_some()
    );

    let other = CodeArtifact::start(CodeArtifactConfig::default()).await.unwrap();
    assert!(other.package_requests().is_empty(), "labs share nothing");
}

fn seed(lab: &CodeArtifact, name: &str, version: &str) -> bytes::Bytes {
    let manifest = format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n");
    lab.seed_source(&[("Cargo.toml", manifest.as_bytes()), ("src/lib.rs", b"// other\n")])
        .unwrap()
}

/// A crate that no `cargo package` has made.
fn other_archive(name: &str, version: &str) -> Vec<u8> {
    let manifest = format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\nedition = \"2021\"\n");
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(
        Vec::new(),
        flate2::Compression::fast(),
    ));
    for (path, text) in [("Cargo.toml", manifest.as_str()), ("src/lib.rs", "")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        tar.append_data(&mut header, format!("{name}-{version}/{path}"), text.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}
