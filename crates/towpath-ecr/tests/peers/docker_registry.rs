//! A docker-registry of the test's own: one that it may kill.

use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub(crate) struct DockerRegistry {
    child: Child,
    /// `host:port`.
    pub(crate) address: String,
    pub(crate) folder: TempDir,
}

impl DockerRegistry {
    /// Starts one, with more lines of configuration, and waits until it listens. It ends when it is dropped.
    pub(crate) async fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let configuration = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:0\"}}\n{more}",
            root.display()
        );
        let path = folder.path().join("registry.yml");
        std::fs::write(&path, configuration).unwrap();
        let mut child = Command::new(super::from_environment("TOWPATH_PEER_REGISTRY_PROGRAM"))
            .arg("serve")
            .arg(&path)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("docker-registry ended before it listened");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split('"').next().unwrap().to_owned();
            }
        };
        // It must not stop because nobody reads what it says.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            address,
            folder,
        }
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}
