//! What travels the path: the sample, or the caller's own folders.

use crate::Args;
use std::path::{Path, PathBuf};
use towpath_elements::{Error, ErrorKind, Result};

const WORKFLOW: &str = include_str!("../sample/workflow.yml");

/// The sample's files, so that the program needs nothing but itself.
const LIBRARY: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../sample/library/Cargo.toml")),
    ("src/lib.rs", include_str!("../sample/library/src/lib.rs")),
];
const SERVICE: &[(&str, &str)] = &[
    ("towpath.toml", include_str!("../sample/service/towpath.toml")),
    ("rootfs/bin/web", include_str!("../sample/service/rootfs/bin/web")),
    (
        "rootfs/etc/web.conf",
        include_str!("../sample/service/rootfs/etc/web.conf"),
    ),
];
const DEPLOY: &[(&str, &str)] = &[
    (
        "apps/web/deployment.yaml",
        include_str!("../sample/deploy/apps/web/deployment.yaml"),
    ),
    (
        "apps/web/service.yaml",
        include_str!("../sample/deploy/apps/web/service.yaml"),
    ),
];
const INFRA: &[(&str, &str)] = &[
    (
        "shared-services/main.tf",
        include_str!("../sample/infra/shared-services/main.tf"),
    ),
    ("apps/main.tf", include_str!("../sample/infra/apps/main.tf")),
];

/// What a folder has for its own tools, and a repository has not. The last three stand in crates that were unpacked from a
/// registry, and cargo refuses to pack them again.
const LEFT_OUT: &[&str] = &[
    "target",
    ".git",
    ".terraform",
    ".cargo_vcs_info.json",
    ".cargo-ok",
    "Cargo.toml.orig",
];

/// The four repositories that are pushed, each as a folder with its files.
#[derive(Debug)]
pub struct Projects {
    /// The library.
    pub library: PathBuf,
    /// The service.
    pub service: PathBuf,
    /// The deployment repository.
    pub deploy: PathBuf,
    /// The infrastructure.
    pub infra: PathBuf,
    /// The caller's own crate, where one was given: what it depends on must be made available.
    pub own_library: Option<PathBuf>,
    _folder: tempfile::TempDir,
}

impl Projects {
    /// Lays the four folders out below a temporary one. `registry` is where images will be.
    ///
    /// # Errors
    /// *Invalid* where a folder of the caller's is missing or is not what it should be.
    pub fn lay_out(args: &Args, registry: &str) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| unwritable(&std::env::temp_dir(), error))?;
        let [library, service, deploy, infra] =
            ["library", "service", "deploy", "infra"].map(|name| folder.path().join(name));
        match &args.library {
            Some(own) => {
                expect_file(own, "Cargo.toml", "a crate")?;
                copy(own, &library)?;
            }
            None => write_all(&library, LIBRARY)?,
        }
        write(&library.join(".github/workflows/ci.yml"), WORKFLOW)?;
        match &args.service {
            Some(own) if own.join("towpath.toml").is_file() => copy(own, &service)?,
            Some(own) => {
                copy(own, &service.join("rootfs/app"))?;
                write(&service.join("towpath.toml"), SERVICE[0].1)?;
            }
            None => write_all(&service, SERVICE)?,
        }
        write(&service.join(".github/workflows/ci.yml"), WORKFLOW)?;
        for (path, text) in DEPLOY {
            write(&deploy.join(path), &text.replace("REGISTRY", registry))?;
        }
        match &args.infra {
            Some(own) if own.join("shared-services").is_dir() && own.join("apps").is_dir() => {
                copy(own, &infra)?
            }
            Some(own) => {
                // One folder of Terraform is what is shared; the sample's apps follow it.
                expect_terraform(own)?;
                copy(own, &infra.join("shared-services"))?;
                write(&infra.join(INFRA[1].0), INFRA[1].1)?;
            }
            None => write_all(&infra, INFRA)?,
        }
        Ok(Self {
            library,
            service,
            deploy,
            infra,
            own_library: args.library.clone(),
            _folder: folder,
        })
    }
}

pub(crate) fn invalid(folder: &Path, reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "whole-path", "use", folder.display()).because(reason)
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Invalid, "whole-path", "write or read", path.display()).because(error)
}

fn expect_file(folder: &Path, name: &str, what: &str) -> Result<()> {
    if !folder.is_dir() {
        return Err(invalid(folder, "there is no such folder").advise("check the path"));
    }
    match folder.join(name).is_file() {
        true => Ok(()),
        false => {
            Err(invalid(folder, format!("it has no {name}")).advise(format!("name the folder of {what}")))
        }
    }
}

fn expect_terraform(folder: &Path) -> Result<()> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| invalid(folder, error).advise("name a folder with Terraform files"))?;
    let has_terraform = entries.flatten().any(|entry| {
        entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "tf")
    });
    match has_terraform {
        true => Ok(()),
        false => Err(invalid(
            folder,
            "it has no .tf file, and not the folders shared-services and apps",
        )
        .advise("name a folder with Terraform files, or with those two folders")),
    }
}

fn write_all(folder: &Path, files: &[(&str, &str)]) -> Result<()> {
    files
        .iter()
        .try_for_each(|(path, text)| write(&folder.join(path), text))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let written = || -> std::io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
        if text.starts_with("#!") {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    };
    written().map_err(|error| unwritable(path, error))
}

/// Copies a folder: files with their permissions, and links as links.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return Err(invalid(from, "there is no such folder").advise("check the path"));
    }
    copy_tree(from, to).map_err(|(path, error)| unwritable(&path, error))
}

fn copy_tree(from: &Path, to: &Path) -> std::result::Result<(), (PathBuf, std::io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    std::fs::create_dir_all(to).map_err(at(to))?;
    for entry in std::fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (source, name) = (entry.path(), entry.file_name());
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let target = to.join(&name);
        let kind = entry.file_type().map_err(at(&source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let goal = std::fs::read_link(&source).map_err(at(&source))?;
            std::os::unix::fs::symlink(goal, &target).map_err(at(&target))?;
        } else {
            std::fs::copy(&source, &target).map_err(at(&source))?;
        }
    }
    Ok(())
}
