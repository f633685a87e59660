//! What the parts of the daemon have in common, and what each of them is given of it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use redtape_capture::snapshot::SnapshotSlot;
use redtape_capture::tee::Tee;
use redtape_capture::{CaptureConfig, DurabilityTracker, Gate};
use redtape_journal::{Catalog, Recovered, SyncPolicy};
use redtape_net::Connector;
use redtape_net::tls::TlsAcceptor;
use redtape_proxy::{AdminCommands, AdminSetup, Listener, Parts, ProxySetup};
use redtape_telemetry::{Metrics, Status};
use redtape_wire::command::CommandTable;
use redtape_wire::settings::Ack;
use tokio::sync::watch;

use super::config::{self, Config};
use super::error::StartError;
use super::get::{GetLimits, PastKeys};
use super::housekeeping::{self, Housekeeping};
use super::key_index::KeyIndexes;
use super::reload::Handles;

/// The servers that redtape connects to, and its own TLS towards clients.
pub(super) struct Servers {
    pub(super) upstream: Connector,
    pub(super) follow: Option<Connector>,
    /// Towards clients, if TLS is served.
    pub(super) acceptor: Option<Arc<TlsAcceptor>>,
}

impl Servers {
    /// Reads the TLS files.
    pub(super) fn of(config: &Config) -> Result<Self, StartError> {
        let acceptor =
            config.tls.clone().filter(|_| !config.tls_listen.is_empty()).map(TlsAcceptor::new).transpose()?;
        Ok(Self {
            acceptor: acceptor.map(Arc::new),
            upstream: Connector::new(config.upstream.clone(), &config.upstream_tls)?,
            follow: config.follow.clone().map(|url| Connector::new(url, &config.follow_tls())).transpose()?,
        })
    }

    /// The server whose stream is recorded.
    pub(super) fn source(&self) -> &Connector {
        self.follow.as_ref().unwrap_or(&self.upstream)
    }
}

/// What the parts have in common.
pub(super) struct Common {
    pub(super) config: Config,
    pub(super) servers: Servers,
    pub(super) handles: Handles,
    pub(super) metrics: Metrics,
    pub(super) status: Arc<Status>,
    pub(super) tee: Arc<Tee>,
    pub(super) table: Arc<ArcSwap<CommandTable>>,
    pub(super) durability: Arc<DurabilityTracker>,
    pub(super) snapshots: SnapshotSlot,
    pub(super) parts: Parts,
}

impl Common {
    pub(super) fn new(
        config: Config,
        servers: Servers,
        commands: Option<CommandTable>,
        lost_log_lines: Arc<AtomicU64>,
    ) -> Result<Self, StartError> {
        let metrics = Metrics::new(lost_log_lines).map_err(std::io::Error::other)?;
        let gate = match (config.ack, config.rejects_writes()) {
            (Ack::Journal, _) => Gate::Follow,
            (Ack::Upstream, true) => Gate::Journal,
            (Ack::Upstream, false) => Gate::Open,
        };
        Ok(Self {
            handles: Handles::of(&config),
            config,
            servers,
            status: Status::new(metrics.clone()),
            metrics,
            tee: Arc::default(),
            table: Arc::new(ArcSwap::from_pointee(commands.unwrap_or_else(CommandTable::builtin))),
            durability: Arc::new(DurabilityTracker::new(gate)),
            snapshots: SnapshotSlot::default(),
            parts: Parts::default(),
        })
    }

    /// Shows what can be restored before anything new is recorded.
    pub(super) fn show_journal(&self, recovered: &Recovered) {
        if let Some(last) = &recovered.last {
            self.status.set_window_end(last.complete_until.0);
        }
        let Ok(catalog) = Catalog::open(&self.config.dir) else { return };
        if let Some(window) = catalog.windows().last() {
            self.status.set_window_start(window.from.0);
        }
        if housekeeping::lacks_base(&catalog) {
            self.status.want_base();
        }
    }

    pub(super) fn capture_config(&self) -> CaptureConfig {
        let config = &self.config;
        CaptureConfig {
            source: self.servers.source().clone(),
            upstream: self.servers.upstream.clone(),
            dir: config.dir.clone(),
            sync: config.sync,
            segment_bytes: config.segment_bytes,
            has_tee: config.serves(),
            accept_new_history: config.accept_new_history,
            address: config.recorded_address(),
            keyring: self.handles.keyring.clone(),
            marks: self.handles.marks.clone(),
        }
    }

    pub(super) fn admin_setup(&self, server_version: &str) -> AdminSetup {
        let config = &self.config;
        AdminSetup {
            upstream: self.servers.upstream.clone(),
            follow: self.servers.follow.clone(),
            server_version: server_version.to_owned(),
            dir: config.dir.clone(),
            sync: config::sync(config.sync),
            never_syncs: config.sync == SyncPolicy::No,
            sharing: config.sharing,
            live: self.handles.live.clone(),
            keyring: self.handles.keyring.clone(),
            status: self.status.clone(),
            snapshots: self.snapshots.clone(),
            past: Some(Arc::new(PastKeys {
                dir: config.dir.clone(),
                keyring: self.handles.keyring.clone(),
                limits: GetLimits::in_force(),
            })),
        }
    }

    pub(super) fn housekeeping(&self, stop: watch::Receiver<bool>) -> Housekeeping {
        Housekeeping {
            dir: self.config.dir.clone(),
            source: self.servers.source().clone(),
            settings: self.handles.housekeeping.clone(),
            keyring: self.handles.keyring.clone(),
            metrics: self.metrics.clone(),
            status: self.status.clone(),
            snapshots: self.snapshots.clone(),
            stop,
        }
    }

    pub(super) fn key_indexes(&self) -> KeyIndexes {
        KeyIndexes {
            dir: self.config.dir.clone(),
            keyring: self.handles.keyring.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// What lets clients in.
    pub(super) fn data_path(&self, listeners: Vec<Listener>, admin: AdminCommands) -> ProxySetup {
        ProxySetup {
            listeners,
            workers: self.config.workers,
            sharing: self.config.sharing,
            tcp_keepalive: self.config.tcp_keepalive,
            acceptor: self.servers.acceptor.clone(),
            upstream: self.servers.upstream.clone(),
            live: self.handles.live.clone(),
            tee: self.tee.clone(),
            table: self.table.clone(),
            durability: self.durability.clone(),
            metrics: self.metrics.clone(),
            status: self.status.clone(),
            admin,
            parts: self.parts.clone(),
        }
    }
}
