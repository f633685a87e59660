//! Starts and stops the data path.

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

/// Inputs of the data path.
#[derive(Debug)]
pub struct ProxySetup {
    /// Where clients are served.
    pub listeners: Vec<Listener>,
    /// Worker threads.
    pub workers: usize,
    /// Whether sessions share upstream connections.
    pub sharing: Sharing,
    /// Interval of TCP keep-alive on idle client connections.
    pub tcp_keepalive: Option<Duration>,
    /// TLS for clients.
    pub acceptor: Option<Arc<TlsAcceptor>>,
    /// The server behind the proxy.
    pub upstream: Connector,
    /// Settings that a reload changes.
    pub live: Arc<ArcSwap<Live>>,
    /// Receives the stamps.
    pub tee: Arc<Tee>,
    /// The server's commands.
    pub table: Arc<ArcSwap<CommandTable>>,
    /// The durable position, and whether writes may pass.
    pub durability: Arc<DurabilityTracker>,
    /// Updated by the data path.
    pub metrics: Metrics,
    /// Updated with the upstream's state and the clients' activity.
    pub status: Arc<Status>,
    /// Answers `REDTAPE.*`.
    pub admin: AdminCommands,
    /// Parts of redtape whose end is fatal.
    pub parts: Parts,
}

impl ProxySetup {
    /// Starts the workers, then accepts clients.
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
    /// Stops accepting, lets sessions finish their requests, and ends the workers.
    pub fn drain(self) {
        self.0.drain();
    }
}
