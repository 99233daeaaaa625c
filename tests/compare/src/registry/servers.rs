//! docker-registry from Debian's package, and a proxy that counts bytes and breaks a connection.

use crate::Result;
use crate::child::Running;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a registry may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry with a folder of its own.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    log: PathBuf,
    seen: usize,
    _running: Running,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts an empty registry and waits until it answers.
    pub(super) async fn start(scratch: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(scratch)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let root = folder.path().join("root").display().to_string();
        let config = serde_json::json!({
            "version": 0.1,
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": root } },
            "http": { "addr": address.to_string() },
        });
        // JSON is YAML.
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config.to_string())?;
        let log = folder.path().join("log");
        let running = Running::logging(Command::new(program()?).arg("serve").arg(&file), &log)?;
        let began = Instant::now();
        while reqwest::get(format!("http://{address}/v2/")).await.is_err() {
            if began.elapsed() > PATIENCE {
                return Err(format!(
                    "docker-registry does not answer: {}",
                    std::fs::read_to_string(&log)?
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut server = Self {
            address,
            log,
            seen: 0,
            _running: running,
            _folder: folder,
        };
        server.requests()?;
        Ok(server)
    }

    /// The requests since the last look, by the registry's own access log.
    pub(super) fn requests(&mut self) -> Result<usize> {
        let log = std::fs::read_to_string(&self.log)?;
        let all = log
            .lines()
            .filter(|line| line.contains(" /v2/") && line.contains(" HTTP/1.1\""))
            .count();
        let new = all - self.seen;
        self.seen = all;
        Ok(new)
    }
}

/// What `tests/compare/install` has unpacked.
fn program() -> Result<PathBuf> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/compare/registry/usr/bin/docker-registry");
    match path.is_file() {
        true => Ok(path),
        false => Err("docker-registry is not unpacked; run tests/compare/install first".into()),
    }
}

/// Stands before a registry, counts what goes in, and breaks the connection once.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    sent: Arc<AtomicU64>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Proxy {
    /// A proxy that breaks the connection over which the byte number `cut` went in.
    pub(super) async fn start(registry: SocketAddr, cut: u64) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(forward(client, registry, Arc::clone(&counter), cut));
            }
        });
        Ok(Self {
            address,
            sent,
            serving,
        })
    }

    /// Bytes that went into the registry, heads of requests included.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Ends, and with it both connections, when either side does or the cut is due.
async fn forward(client: TcpStream, registry: SocketAddr, sent: Arc<AtomicU64>, cut: u64) -> Result<()> {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_registry, mut to_registry) = TcpStream::connect(registry).await?.into_split();
    let inwards = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let count = from_client.read(&mut piece).await?;
            if count == 0 {
                return std::io::Result::Ok(());
            }
            to_registry
                .write_all(piece.get(..count).unwrap_or_default())
                .await?;
            let before = sent.fetch_add(count as u64, Ordering::Relaxed);
            if (before..before + count as u64).contains(&cut) {
                return Ok(());
            }
        }
    };
    tokio::select! {
        done = inwards => done?,
        done = tokio::io::copy(&mut from_registry, &mut to_client) => { done?; }
    }
    Ok(())
}
