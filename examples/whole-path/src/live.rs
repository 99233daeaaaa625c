//! What happens, as it happens: events of this process and of the CI steps, in one record.

use jiff::Timestamp;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use towpath_core::requests;
use towpath_flow::{Event, Evidence, Happening, Progress, RunRecord, Step};

/// The record of a run, and whoever watches it. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    record: Arc<Mutex<RunRecord>>,
    watcher: Arc<dyn Fn(&Event) + Send + Sync>,
    /// Where and why each flow failed last.
    failures: Arc<Mutex<HashMap<String, (Step, String)>>>,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Live")
    }
}

impl Live {
    /// A record of this name, in which nothing has happened, and somebody who hears of every event.
    pub fn new(run: &str, watcher: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self {
            record: Arc::new(Mutex::new(RunRecord::new(run))),
            watcher: Arc::new(watcher),
            failures: Arc::default(),
        }
    }

    /// Takes in an event.
    pub fn tell(&self, event: &Event) {
        if let Happening::Failed { reason, .. } = &event.happening {
            let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            failures.insert(event.flow.clone(), (event.step, reason.clone()));
        }
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take_in(event);
        (self.watcher)(event);
    }

    /// Where and why a flow failed, if it did.
    pub fn failure(&self, flow: &str) -> Option<(Step, String)> {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(flow)
            .cloned()
    }

    /// The record as it stands.
    pub fn record(&self) -> RunRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What runners tell their events to.
    pub fn progress(&self) -> Progress {
        let live = self.clone();
        Progress::new(move |event| live.tell(event))
    }

    /// Does something that belongs to a step and is no flow's effect, and records how it went.
    ///
    /// # Errors
    /// What was done said.
    pub async fn during<T, E: std::fmt::Display>(
        &self,
        step: Step,
        title: impl Into<String>,
        work: impl Future<Output = Result<(Evidence, T), E>>,
    ) -> Result<T, E> {
        let title = title.into();
        let event = |happening| Event {
            at: Timestamp::now(),
            flow: "path".into(),
            step,
            title: title.clone(),
            happening,
        };
        self.tell(&event(Happening::Started));
        match requests::count(work).await {
            (Ok((evidence, value)), requests) => {
                self.tell(&event(Happening::Done {
                    evidence,
                    already: false,
                    requests,
                }));
                Ok(value)
            }
            (Err(error), requests) => {
                self.tell(&event(Happening::Failed {
                    reason: error.to_string(),
                    requests,
                }));
                Err(error)
            }
        }
    }

    /// Listens on loopback for the events of CI steps, which run in processes of their own.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn listen(&self) -> std::io::Result<Listening> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let live = self.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let live = live.clone();
                tokio::spawn(async move {
                    let mut lines = BufReader::new(stream).lines();
                    while let Ok(Some(line)) = lines.next_line().await {
                        if let Ok(event) = serde_json::from_str::<Event>(&line) {
                            live.tell(&event);
                        }
                    }
                });
            }
        });
        Ok(Listening {
            address,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

/// An open ear, until it is dropped.
#[derive(Debug)]
pub struct Listening {
    /// Where it listens.
    pub address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

/// Sends events to the process that watches the path.
#[derive(Debug)]
pub struct Reporter {
    sender: mpsc::UnboundedSender<Event>,
    task: tokio::task::JoinHandle<()>,
}

impl Reporter {
    /// Connects to where somebody listens; without an address, or where nobody does, events go nowhere.
    pub async fn connect(address: Option<&str>) -> Self {
        let mut stream = match address {
            Some(address) => TcpStream::connect(address).await.ok(),
            None => None,
        };
        let (sender, mut receiver) = mpsc::unbounded_channel::<Event>();
        let task = tokio::spawn(async move {
            while let Some(event) = receiver.recv().await {
                let (Some(open), Ok(mut line)) = (&mut stream, serde_json::to_vec(&event)) else {
                    continue;
                };
                line.push(b'\n');
                if open.write_all(&line).await.is_err() {
                    stream = None;
                }
            }
            if let Some(open) = &mut stream {
                let _ = open.shutdown().await;
            }
        });
        Self { sender, task }
    }

    /// What runners tell their events to.
    pub fn progress(&self) -> Progress {
        let sender = self.sender.clone();
        Progress::new(move |event| {
            let _ = sender.send(event.clone());
        })
    }

    /// Sends what is left. Every [`progress`](Self::progress) must be dropped before.
    pub async fn finish(self) {
        drop(self.sender);
        let _ = self.task.await;
    }
}
