//! What `redtape proxy` and `redtape follow` run: the parts, started in an order in which nothing can be missed.
//!
//! ```text
//! preflight ─► bind ─► open the journal ─► capture ─► housekeeping ─► data path ─► HTTP, TLS files, reload
//! ```
//!
//! The servers are asked first (a wrong URL or password changes nothing on the disk), then the journal is opened and
//! recovered, then capture begins, and only then are clients let in. A stop goes the other way: clients are drained,
//! then the journal is sealed.

mod config;
mod error;
mod health;
mod housekeeping;
mod http;
mod preflight;
mod process;
mod reload;
mod snapshot;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use redtape_capture::snapshot::SnapshotSlot;
use redtape_capture::tee::Tee;
use redtape_capture::{CaptureConfig, CaptureInputs, DurabilityTracker, Gate, open_journal};
use redtape_journal::{Catalog, Recovered, SyncPolicy};
use redtape_net::tls::TlsAcceptor;
use redtape_net::{Connector, tls};
use redtape_proxy::{AdminCommands, AdminSetup, ListenOptions, Listener, Parts, ProxySetup, Serving};
use redtape_telemetry::{Metrics, Status};
use redtape_wire::command::CommandTable;
use redtape_wire::settings::{Ack, ListenAddr};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

pub(crate) use self::config::Config;
pub(crate) use self::error::{ErrorKind, StartError};
use self::health::Health;
use self::housekeeping::Housekeeping;
use self::preflight::Found;
pub(crate) use self::reload::Reread;
use self::reload::{Handles, Reload};
pub(crate) use self::snapshot::{CreateError, take_snapshot};

/// Runs until `stop` resolves; then clients are drained and the tail of the journal is sealed. At SIGHUP,
/// `reread` gives the new settings; `lost_log_lines` is shown at `/metrics`.
///
/// A panic of any thread is a defect after which nothing can be promised, and a part that ends unbidden panics: the
/// process's panic hook must end the process.
pub(crate) fn run(
    config: Config,
    reread: Reread,
    lost_log_lines: Arc<AtomicU64>,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Started),
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(config, reread, lost_log_lines, stop, started))
}

/// What was started, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// Addresses on which clients are served.
    pub(crate) listen: Vec<ListenAddr>,
    /// Where `/metrics` is.
    pub(crate) metrics: Option<SocketAddr>,
}

async fn serve(
    config: Config,
    reread: Reread,
    lost_log_lines: Arc<AtomicU64>,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Started),
) -> Result<(), StartError> {
    // From here on a SIGHUP is a reload and not the end.
    let hangup = signal(SignalKind::hangup())?;
    process::prepare();
    for warning in config.check()? {
        tracing::warn!("{warning}");
    }
    let servers = Servers::of(&config)?;
    let Found { first_probe, facts, commands } = preflight::ask(&config, &servers).await?;
    let (listeners, http) = bind(&config).await?;

    let handles = Handles::of(&config);
    let capture_config = capture_config(&config, &servers, &handles);
    let opened = open_journal(&capture_config)?;
    let common = Common::new(&config, handles, commands, lost_log_lines)?;
    common.show_journal(&config, &opened.1);
    let admin = AdminCommands::new(admin_setup(&config, &servers, &facts.version, &common));

    let (stop_capture, capture_stop) = watch::channel(false);
    let (stop_housekeeping, housekeeping_stop) = watch::channel(false);
    // Dropped before those two, should the start fail from here on.
    let running = common.parts.running();
    let inputs = CaptureInputs {
        opened,
        first_probe,
        facts,
        tee: common.tee.clone(),
        table: common.table.clone(),
        metrics: common.metrics.clone(),
        status: common.status.clone(),
        durability: common.durability.clone(),
        stop: capture_stop,
    };
    let capture = start_capture(capture_config, inputs, &common.parts)?;
    let housekeeping = Housekeeping {
        dir: config.dir.clone(),
        source: servers.source().clone(),
        settings: common.handles.housekeeping.clone(),
        keyring: common.handles.keyring.clone(),
        metrics: common.metrics.clone(),
        status: common.status.clone(),
        snapshots: common.snapshots.clone(),
        stop: housekeeping_stop,
    }
    .start(&common.parts)?;

    let bound = Started {
        listen: listeners.iter().map(Listener::address).collect::<Result<_, _>>()?,
        metrics: http.as_ref().map(TcpListener::local_addr).transpose()?,
    };
    let clients = start_data_path(&config, &servers, &common, listeners, admin)?;
    let mut tasks = spawn_tasks(&config, &servers, &common, http, reread, hangup);
    for addr in &bound.listen {
        tracing::info!(%addr, upstream = %config.upstream, "serving clients");
    }
    started(&bound);
    stop.await;

    tracing::info!("stopping: clients are drained, then the journal is sealed");
    drop(running);
    tasks.shutdown().await;
    let _ = stop_housekeeping.send(true);
    if housekeeping.join().is_err() {
        tracing::error!("the housekeeping ended with a panic");
    }
    if let Some(clients) = clients {
        clients.drain();
    }
    // The capture listens for as long as it runs.
    let _ = stop_capture.send(true);
    if capture.join().is_err() {
        tracing::error!("the capture ended with a panic");
    }
    Ok(())
}

/// The servers that redtape connects to, and its own TLS towards clients.
struct Servers {
    upstream: Connector,
    follow: Option<Connector>,
    /// Towards clients, if TLS is served.
    acceptor: Option<Arc<TlsAcceptor>>,
}

impl Servers {
    /// Reads the TLS files.
    fn of(config: &Config) -> Result<Self, StartError> {
        let acceptor =
            config.tls.clone().filter(|_| !config.tls_listen.is_empty()).map(TlsAcceptor::new).transpose()?;
        Ok(Self {
            acceptor: acceptor.map(Arc::new),
            upstream: Connector::new(config.upstream.clone(), &config.upstream_tls)?,
            follow: config.follow.clone().map(|url| Connector::new(url, &config.follow_tls())).transpose()?,
        })
    }

    /// The server whose stream is recorded.
    fn source(&self) -> &Connector {
        self.follow.as_ref().unwrap_or(&self.upstream)
    }
}

/// What the parts have in common.
struct Common {
    handles: Handles,
    metrics: Metrics,
    status: Arc<Status>,
    tee: Arc<Tee>,
    table: Arc<ArcSwap<CommandTable>>,
    durability: Arc<DurabilityTracker>,
    snapshots: SnapshotSlot,
    parts: Parts,
}

impl Common {
    fn new(
        config: &Config,
        handles: Handles,
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
            handles,
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
    fn show_journal(&self, config: &Config, recovered: &Recovered) {
        if let Some(last) = &recovered.last {
            self.status.set_window_end(last.complete_until.0);
        }
        let Ok(catalog) = Catalog::open(&config.dir) else { return };
        if let Some(window) = catalog.windows().last() {
            self.status.set_window_start(window.from.0);
        }
        if housekeeping::lacks_base(&catalog) {
            self.status.want_base();
        }
    }
}

/// Binds the listeners for clients, and that of `/metrics`.
async fn bind(config: &Config) -> Result<(Vec<Listener>, Option<TcpListener>), StartError> {
    let options = ListenOptions {
        plain: config.listen.clone(),
        tls: config.tls_listen.clone(),
        unix_socket_mode: config.unix_socket_mode,
        proxy_protocol: config.proxy_protocol,
    };
    let listeners = Listener::bind_all(&options).map_err(|(addr, source)| StartError::Listen { addr, source })?;
    let Some(addr) = config.metrics else { return Ok((listeners, None)) };
    let failed = |source| StartError::Listen { addr: ListenAddr::Tcp(addr), source };
    Ok((listeners, Some(http::bind(addr).await.map_err(failed)?)))
}

fn capture_config(config: &Config, servers: &Servers, handles: &Handles) -> CaptureConfig {
    CaptureConfig {
        source: servers.source().clone(),
        upstream: servers.upstream.clone(),
        dir: config.dir.clone(),
        sync: config.sync,
        segment_bytes: config.segment_bytes,
        has_tee: config.serves(),
        accept_new_history: config.accept_new_history,
        address: config.recorded_address(),
        keyring: handles.keyring.clone(),
    }
}

fn admin_setup(config: &Config, servers: &Servers, server_version: &str, common: &Common) -> AdminSetup {
    AdminSetup {
        upstream: servers.upstream.clone(),
        follow: servers.follow.clone(),
        server_version: server_version.to_owned(),
        dir: config.dir.clone(),
        sync: config::sync(config.sync),
        never_syncs: config.sync == SyncPolicy::No,
        sharing: config.sharing,
        live: common.handles.live.clone(),
        keyring: common.handles.keyring.clone(),
        status: common.status.clone(),
        snapshots: common.snapshots.clone(),
    }
}

/// Starts the thread that follows the server and writes the journal.
fn start_capture(config: CaptureConfig, inputs: CaptureInputs, parts: &Parts) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    parts.thread("capture", move || LocalSet::new().block_on(&runtime, redtape_capture::run(config, inputs)))
}

/// Lets clients in; `None` where none are served.
fn start_data_path(
    config: &Config,
    servers: &Servers,
    common: &Common,
    listeners: Vec<Listener>,
    admin: AdminCommands,
) -> std::io::Result<Option<Serving>> {
    if !config.serves() {
        return Ok(None);
    }
    let setup = ProxySetup {
        listeners,
        workers: config.workers,
        sharing: config.sharing,
        tcp_keepalive: config.tcp_keepalive,
        acceptor: servers.acceptor.clone(),
        upstream: servers.upstream.clone(),
        live: common.handles.live.clone(),
        tee: common.tee.clone(),
        table: common.table.clone(),
        durability: common.durability.clone(),
        metrics: common.metrics.clone(),
        status: common.status.clone(),
        admin,
        parts: common.parts.clone(),
    };
    setup.start().map(Some)
}

/// Starts what runs beside: the HTTP server, the watch on TLS files, the reload at SIGHUP.
fn spawn_tasks(
    config: &Config,
    servers: &Servers,
    common: &Common,
    http: Option<TcpListener>,
    reread: Reread,
    hangup: Signal,
) -> JoinSet<()> {
    let (mut tasks, parts) = (JoinSet::new(), &common.parts);
    if let Some(http) = http {
        let (status, durability) = (common.status.clone(), common.durability.clone());
        let health = Health { status, durability, serves: config.serves() };
        tasks.spawn(parts.clone().task("http", http::serve(http, health)));
    }
    let count_failure = {
        let metrics = common.metrics.clone();
        move || metrics.error("tls_reload")
    };
    if let Some(acceptor) = &servers.acceptor {
        tasks.spawn(parts.clone().task("tls files", tls::watch(acceptor.clone(), count_failure.clone())));
    }
    let handle = |connector: &Connector| connector.tls_handle().cloned();
    let (to_upstream, to_follow) = (handle(&servers.upstream), servers.follow.as_ref().and_then(handle));
    for handle in to_upstream.iter().chain(&to_follow) {
        tasks.spawn(parts.clone().task("tls files", tls::watch(handle.clone(), count_failure.clone())));
    }
    let reload = Reload {
        config: config.clone(),
        reread,
        handles: common.handles.clone(),
        acceptor: servers.acceptor.clone(),
        upstream: to_upstream,
        follow: to_follow,
        metrics: common.metrics.clone(),
    };
    tasks.spawn(parts.clone().task("reload", reload.at_each(hangup)));
    tasks
}
