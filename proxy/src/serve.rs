//! Starts the data path, and ends it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use redtape_capture::DurabilityTracker;
use redtape_capture::tee::Tee;
use redtape_net::Connector;
use redtape_net::tls::TlsAcceptor;
use redtape_telemetry::{Metrics, Status};
use redtape_wire::command::CommandTable;
use redtape_wire::settings::Sharing;

use crate::commands::AdminCommands;
use crate::listen::{Acceptor, Listener};
use crate::live::Live;
use crate::parts::Parts;
use crate::upstream::Upstream;
use crate::worker::{ClientMemory, Pause, Shared, WorkerHandle};

/// What the data path works with.
#[derive(Debug)]
pub struct ProxySetup {
    /// Where clients are served.
    pub listeners: Vec<Listener>,
    /// Worker threads.
    pub workers: usize,
    /// Whether sessions share upstream connections.
    pub sharing: Sharing,
    /// Idle connections of clients are probed after this time.
    pub tcp_keepalive: Option<Duration>,
    /// Towards clients that speak TLS.
    pub acceptor: Option<Arc<TlsAcceptor>>,
    /// The server behind the proxy.
    pub upstream: Connector,
    /// What a reload changes.
    pub live: Arc<ArcSwap<Live>>,
    /// Where stamps go.
    pub tee: Arc<Tee>,
    /// The server's commands.
    pub table: Arc<ArcSwap<CommandTable>>,
    /// How far the journal is on the disk, and whether writes may pass.
    pub durability: Arc<DurabilityTracker>,
    /// Counted here.
    pub metrics: Metrics,
    /// Told here whether the upstream answers, and what clients do.
    pub status: Arc<Status>,
    /// Answers `REDTAPE.*`.
    pub admin: AdminCommands,
    /// What must not end unseen.
    pub parts: Parts,
}

impl ProxySetup {
    /// Starts the workers, then lets clients in.
    pub fn start(self) -> io::Result<Serving> {
        let shared = Arc::new(Shared {
            upstream: Upstream::new(self.upstream, self.metrics.clone(), self.status.clone())?,
            sharing: self.sharing,
            acceptor: self.acceptor,
            live: self.live,
            tee: self.tee,
            table: self.table,
            durability: self.durability,
            status: self.status,
            metrics: self.metrics,
            clients: AtomicUsize::new(0),
            client_memory: Arc::new(ClientMemory::new(self.workers)),
            pause: Pause::new(),
            admin: self.admin,
            admin_threads: Arc::default(),
            parts: self.parts,
        });
        let workers = (0..self.workers).map(|n| WorkerHandle::start(n, shared.clone())).collect::<Result<_, _>>()?;
        Ok(Serving(Acceptor::start(self.listeners, workers, shared, self.tcp_keepalive)?))
    }
}

/// A data path that serves clients.
#[derive(Debug)]
pub struct Serving(Acceptor);

impl Serving {
    /// Accepts no more, lets sessions finish what is under way, and ends the workers.
    pub fn drain(self) {
        self.0.drain();
    }
}
