//! Who may depend on whom.

use crate::workspace::{crates, locked, metadata, normal_build};
use cargo_metadata::DependencyKind;

/// The services' clients.
const CLIENTS: [&str; 5] = [
    "towpath-argocd",
    "towpath-codeartifact",
    "towpath-ecr",
    "towpath-github",
    "towpath-spacelift",
];

/// Which crates of the workspace each crate may depend on in a normal build: the table of `docs/architecture.md`.
const ARROWS: [(&str, &[&str]); 13] = [
    ("towpath-core", &[]),
    ("towpath-elements", &["towpath-core"]),
    ("towpath-http", &["towpath-core", "towpath-elements"]),
    ("towpath-actions", &["towpath-core"]),
    ("towpath-lab", &["towpath-core"]),
    ("towpath-testkit", &["towpath-core", "towpath-elements"]),
    ("towpath-flow", &["towpath-core", "towpath-elements"]),
    ("towpath-codeartifact", &["towpath-core", "towpath-elements"]),
    ("towpath-ecr", &["towpath-core", "towpath-elements"]),
    (
        "towpath-argocd",
        &["towpath-core", "towpath-elements", "towpath-http"],
    ),
    (
        "towpath-github",
        &["towpath-core", "towpath-elements", "towpath-http"],
    ),
    (
        "towpath-spacelift",
        &["towpath-core", "towpath-elements", "towpath-http"],
    ),
    (
        "towpath",
        &[
            "towpath-actions",
            "towpath-argocd",
            "towpath-codeartifact",
            "towpath-core",
            "towpath-ecr",
            "towpath-elements",
            "towpath-flow",
            "towpath-github",
            "towpath-http",
            "towpath-spacelift",
        ],
    ),
];

/// Whether a package, written `name version`, is of this name.
fn is(package: &str, name: &str) -> bool {
    package.split(' ').next() == Some(name)
}

#[test]
fn arrows_point_down() {
    let metadata = metadata();
    for package in crates(&metadata) {
        let name = package.name.as_str();
        let Some((_, allowed)) = ARROWS.iter().find(|(of, _)| *of == name) else {
            panic!(
                "{name} is in no row of ARROWS: say there, and in the table of docs/architecture.md, what it may \
                 depend on"
            );
        };
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let normal = dependency.kind != DependencyKind::Development;
            assert!(
                !normal || !to.starts_with("towpath") || allowed.contains(&to),
                "{name} may not depend on {to}: move what it needs down to a crate that both may use ({allowed:?}), or \
                 make it a dev-dependency if only tests need it"
            );
        }
    }
}

#[test]
fn clients_do_not_depend_on_each_other() {
    for client in CLIENTS {
        let build = normal_build(&["--package", client, "--all-features"]);
        for other in CLIENTS.into_iter().filter(|other| *other != client) {
            assert!(
                !build.iter().any(|package| is(package, other)),
                "{client} takes {other}: each service has a client of its own; what two of them share belongs in \
                 towpath-http or towpath-elements"
            );
        }
    }
}

#[test]
fn flows_reach_no_service_directly() {
    let build = normal_build(&["--package", "towpath-flow", "--all-features"]);
    for package in &build {
        let name = package.split(' ').next().unwrap_or_default();
        let banned = name.starts_with("aws-") || ["octocrab", "reqwest", "hyper"].contains(&name);
        assert!(
            !banned,
            "towpath-flow takes {package}: a flow acts through the traits of towpath-elements only; put the request \
             into the element's client, and a method into its trait if there is none yet"
        );
    }
}

#[test]
fn the_lab_knows_no_client() {
    let build = normal_build(&["--package", "towpath-lab", "--all-features"]);
    for package in &build {
        let ours = package.starts_with("towpath");
        assert!(
            !ours || is(package, "towpath-lab") || is(package, "towpath-core"),
            "towpath-lab takes {package}: the lab is written from the vendors' documents and shares no type with the \
             clients, so that a misreading fails instead of cancelling out; write the lab's own type"
        );
    }
    for sdk in [
        "octocrab",
        "graphql_client",
        "aws-sdk-ecr",
        "aws-sdk-codeartifact",
    ] {
        assert!(
            !build.iter().any(|package| is(package, sdk)),
            "towpath-lab takes {sdk}, which is what a client is made of; write the lab's own type"
        );
    }
}

#[test]
fn mocks_are_in_no_normal_build() {
    let metadata = metadata();
    for package in crates(&metadata) {
        let build = normal_build(&["--package", package.name.as_str()]);
        assert!(
            !build.iter().any(|package| is(package, "mockall")),
            "a normal build of {} takes mockall: keep it behind the feature `mock`, which is on in dev-dependencies \
             only",
            package.name
        );
    }
}

#[test]
fn aws_crates_leave_their_defaults_off() {
    // These have no features that bring an HTTP stack, or bring it only when asked.
    const HARMLESS: [&str; 3] = [
        "aws-credential-types",
        "aws-smithy-runtime-api",
        "aws-smithy-types",
    ];
    for package in &metadata().packages {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            assert!(
                !name.starts_with("aws-") || HARMLESS.contains(&name) || !dependency.uses_default_features,
                "{} takes {name} with its default features, which bring a second, older HTTP and TLS stack: set \
                 default-features = false in [workspace.dependencies] and name the features that are needed",
                package.name
            );
        }
    }
}

#[test]
fn there_is_one_http_and_tls_stack() {
    const OLD: [(&str, &str); 6] = [
        ("hyper", "0."),
        ("hyper-rustls", "0.24."),
        ("rustls", "0.21."),
        ("openssl", ""),
        ("openssl-sys", ""),
        ("native-tls", ""),
    ];
    for package in locked() {
        let old = OLD
            .iter()
            .any(|(name, version)| package.starts_with(&format!("{name} {version}")));
        assert!(
            !old,
            "Cargo.lock holds {package}, a second HTTP or TLS stack: see `cargo tree --workspace --invert` for who \
             brings it, and turn that feature off"
        );
    }
}
