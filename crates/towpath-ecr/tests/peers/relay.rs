//! A relay in front of a registry, which counts the bytes that pass and can cut one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Where to cut: after this many bytes towards the registry, or from it, over all connections.
#[derive(Clone, Copy)]
pub(crate) enum Cut {
    Up(u64),
    Down(u64),
}

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

struct Counts {
    cut: Cut,
    done: AtomicBool,
    up: AtomicU64,
    down: AtomicU64,
}

impl Relay {
    pub(crate) async fn start(registry: &str, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let counts = Arc::new(Counts {
            cut,
            done: AtomicBool::new(false),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let relay = Self {
            address: listener.local_addr().unwrap(),
            counts: Arc::clone(&counts),
        };
        let registry = registry.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&registry).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&counts)));
            }
        });
        relay
    }

    /// Bytes that went to the registry, and that came from it, headers included.
    pub(crate) fn passed(&self) -> (u64, u64) {
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (of(&self.counts.up), of(&self.counts.down))
    }

    pub(crate) fn has_cut(&self) -> bool {
        self.counts.done.load(Ordering::SeqCst)
    }
}

async fn pass(client: TcpStream, server: TcpStream, counts: Arc<Counts>) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let (up, down) = match counts.cut {
        Cut::Up(at) => (at, u64::MAX),
        Cut::Down(at) => (u64::MAX, at),
    };
    let muted = Arc::new(AtomicBool::new(false));
    let upward = {
        let (counts, muted) = (Arc::clone(&counts), Arc::clone(&muted));
        tokio::spawn(async move {
            let way = Way {
                count: &counts.up,
                limit: up,
                done: &counts.done,
                muted: &muted,
            };
            way.carry(client_read, server_write).await;
        })
    };
    let way = Way {
        count: &counts.down,
        limit: down,
        done: &counts.done,
        muted: &muted,
    };
    // Where the way up was cut, this lasts until the registry has put away what it got: only then may the client see
    // that the connection is gone, so that it is settled how far the upload came.
    way.carry(server_read, client_write).await;
    upward.abort();
}

/// One direction of a connection.
struct Way<'a> {
    count: &'a AtomicU64,
    limit: u64,
    done: &'a AtomicBool,
    /// Set once the connection was cut: nothing passes any more.
    muted: &'a AtomicBool,
}

impl Way<'_> {
    /// Carries bytes over until there are none, or until the cut.
    async fn carry(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if self.muted.load(Ordering::SeqCst) {
                continue;
            }
            let before = self.count.load(Ordering::SeqCst);
            let cut = before + read as u64 >= self.limit && !self.done.swap(true, Ordering::SeqCst);
            let passed = if cut { (self.limit - before) as usize } else { read };
            self.count.fetch_add(passed as u64, Ordering::SeqCst);
            let gone = to.write_all(&buffer[..passed]).await.is_err();
            if cut {
                self.muted.store(true, Ordering::SeqCst);
            }
            if cut || gone {
                break;
            }
        }
        let _ = to.shutdown().await;
    }
}
