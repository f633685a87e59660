//! The data path and the capture: clients on one side, the server on the other, the journal beside.
//!
//! [`run`] starts everything in an order in which nothing can be missed: the server is asked first
//! (a wrong URL or password changes nothing on the disk), then the journal is opened and recovered,
//! then capture begins, and only then are clients let in.

mod commands;
mod config;
#[cfg(test)]
mod cost;
mod health;
mod housekeeping;
mod http;
mod listen;
mod live;
mod parts;
mod reload;
mod session;
mod take_snapshot;
mod upstream;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use arc_swap::ArcSwap;
use redtape_capture::tee::Tee;
use redtape_capture::{CaptureConfig, CaptureInputs, Durable, Gate, Judgement, LinkError, Prober, Recorded};
use redtape_journal::{KeyFault, OpenError, StoreError};
use redtape_net::tls::{TlsAcceptor, TlsError, TlsFailure};
use redtape_net::{Connector, tls};
use redtape_telemetry::{Metrics, Status};
use redtape_wire::command::CommandTable;
use tokio::sync::watch;

use crate::commands::Desk;
use crate::health::Health;
use crate::housekeeping::Housekeeping;
use crate::listen::{Acceptor, Listener};
use crate::live::Live;
use crate::parts::Parts;
use crate::reload::Reload;
use crate::upstream::Upstream;
use crate::worker::{ClientMemory, Pause, Shared, WorkerHandle};

pub use crate::config::{
    Ack, ByteSize, Config, ConfigError, ListenAddr, OnJournalFailure, Period, Setting, Sharing, SocketMode, Switch,
    TimeOfDay,
};
pub use crate::reload::Reread;
pub use crate::take_snapshot::{CreateError, take_snapshot};
pub use redtape_capture::Mismatch;
pub use redtape_capture::snapshot::{SnapshotError, SnapshotTaken};

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server is not there.
    #[error("can't reach {address}: {why}. Is the server running there? Check --upstream (and --follow)")]
    Unreachable {
        /// Its address.
        address: String,
        /// What happened.
        why: String,
    },
    /// The server does not accept us.
    #[error("{address} refuses: {why}. {advice}")]
    Refused {
        /// Its address.
        address: String,
        /// Its words.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// `--follow` names a server that does not replicate the upstream.
    #[error(
        "{followed} (--follow) is not a replica of {upstream}: its data is another. Name a replica, or leave --follow out"
    )]
    Foreign {
        /// The server of `--follow`.
        followed: String,
        /// The upstream.
        upstream: String,
    },
    /// The journal is another server's.
    #[error(
        "{} is the journal of another server: {mismatch}. Nothing was changed. Correct --upstream or --dir; or give \
         --accept-new-history once, to record this server in this journal from now on",
        dir.display()
    )]
    OtherServer {
        /// The journal.
        dir: PathBuf,
        /// Both servers.
        mismatch: Box<Mismatch>,
    },
    /// What the journal says of its servers cannot be read.
    #[error(transparent)]
    Servers(#[from] StoreError),
    /// The options cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server is there, but no TLS connection to it comes about.
    #[error("can't connect to {address}: {why}")]
    Tls {
        /// Its address.
        address: String,
        /// What happened, and what to do.
        why: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// An address cannot be bound.
    #[error("can't listen on {addr}: {source}. Is another process using it?")]
    Listen {
        /// Which.
        addr: ListenAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// The operating system refuses threads or the like.
    #[error("can't start: {0}")]
    Os(#[from] std::io::Error),
}

const ADVICE_ACL: &str = "redtape needs a user with +psync +replconf on the server it follows and +role +info on the upstream; give its URL as redis://user:password@host or set REDTAPE_UPSTREAM_PASSWORD";

/// What is not covered where the upstream is a node of a cluster.
const CLUSTER: &str = "the upstream is a node of a cluster, of which redtape covers only this one: what is recorded, and can be restored, are the keys in its own slots; \
    replies that send clients to other nodes (MOVED, ASK, CLUSTER SLOTS, SHARDS and NODES) name those nodes' own addresses, so that clients go round redtape; \
    slots that move away and a failover to another node are not followed. Every node needs a redtape of its own";

/// Runs until `stop` resolves; then clients are drained and the tail of the journal is sealed. At SIGHUP,
/// `reread` gives the new settings; `lost_log_lines` is shown at `/metrics`.
///
/// A panic of any thread is a defect after which nothing can be promised, and a part that ends unbidden panics: the
/// caller's panic hook must end the process.
pub fn run(
    config: Config,
    reread: Reread,
    lost_log_lines: Arc<AtomicU64>,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Started),
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(start(config, reread, lost_log_lines, stop, started))
}

/// What was started, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Addresses on which clients are served.
    pub listen: Vec<ListenAddr>,
    /// Where `/metrics` is.
    pub metrics: Option<SocketAddr>,
}

async fn start(
    config: Config,
    reread: Reread,
    lost_log_lines: Arc<AtomicU64>,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Started),
) -> Result<(), StartError> {
    // From here on a SIGHUP is a reload and not the end.
    let hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    prepare_process();
    for warning in config.check()? {
        tracing::warn!("{warning}");
    }
    let acceptor = config.tls.clone().filter(|_| !config.tls_listen.is_empty()).map(TlsAcceptor::new).transpose()?;
    let acceptor = acceptor.map(Arc::new);
    let live = Arc::new(ArcSwap::from_pointee(Live::from(&config)));
    let housekeeping_settings = Arc::new(ArcSwap::from_pointee(housekeeping::Settings::from(&config)));
    let keyring = Arc::new(ArcSwap::from_pointee(config.keyring.clone()));
    let upstream = Connector::new(config.upstream.clone(), &config.upstream_tls)?;
    let follow = config.follow.clone().map(|url| Connector::new(url, &config.follow_tls())).transpose()?;
    let source = follow.clone().unwrap_or_else(|| upstream.clone());
    let (first_probe, facts, commands) = greet(&upstream).await?;
    may_follow(&source).await?;
    if follow.is_some() {
        is_replica_of(&source, &upstream, &facts).await?;
    }
    may_record(&config, &facts)?;
    let listeners = Listener::bind_all(&config).map_err(|(addr, source)| StartError::Listen { addr, source })?;
    let http = match config.metrics {
        Some(addr) => {
            let failed = |source| StartError::Listen { addr: ListenAddr::Tcp(addr), source };
            Some(http::bind(addr).await.map_err(failed)?)
        }
        None => None,
    };
    let capture_config = CaptureConfig {
        source,
        upstream: upstream.clone(),
        dir: config.dir.clone(),
        sync: config.sync,
        segment_bytes: config.segment_bytes,
        has_tee: config.serves(),
        accept_new_history: config.accept_new_history,
        address: config.recorded_address(),
        keyring: keyring.clone(),
    };
    let opened = redtape_capture::open_journal(&capture_config)?;
    let metrics = Metrics::new(lost_log_lines).map_err(std::io::Error::other)?;
    let status = Status::new(metrics.clone());
    if let Some(last) = &opened.1.last {
        metrics.journal.window_end_seconds.set(last.complete_until.0 as f64 / 1e6);
    }
    if let Ok(catalog) = redtape_journal::Catalog::open(&config.dir) {
        if let Some(window) = catalog.windows().last() {
            metrics.journal.window_start_seconds.set(window.from.0 as f64 / 1e6);
        }
        if housekeeping::lacks_base(&catalog) {
            status.want_base();
        }
    }
    let tee = Arc::new(Tee::default());
    let table = Arc::new(ArcSwap::from_pointee(commands.unwrap_or_else(CommandTable::builtin)));

    let durable = Arc::new(Durable::new(match (config.ack, config.rejects_writes()) {
        (Ack::Journal, _) => Gate::Follow,
        (Ack::Upstream, true) => Gate::Journal,
        (Ack::Upstream, false) => Gate::Open,
    }));
    let desk = Desk::new(
        &config,
        &facts,
        upstream.clone(),
        capture_config.source.clone(),
        live.clone(),
        keyring.clone(),
        metrics.clone(),
        status.clone(),
    );
    let (stop_capture, capture_stop) = watch::channel(false);
    let (stop_housekeeping, housekeeping_stop) = watch::channel(false);
    // Dropped before those two, should the start fail from here on.
    let parts = Parts::default();
    let running = parts.running();
    let capture_runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let capture_thread = parts.thread("capture", {
        let (tee, table, metrics, durable) = (tee.clone(), table.clone(), metrics.clone(), durable.clone());
        let status = status.clone();
        move || {
            let stop = capture_stop;
            let inputs = CaptureInputs { opened, first_probe, facts, tee, table, metrics, status, durable, stop };
            let run = redtape_capture::run(capture_config, inputs);
            tokio::task::LocalSet::new().block_on(&capture_runtime, run);
        }
    })?;

    let housekeeping = Housekeeping {
        dir: config.dir.clone(),
        source: follow.clone().unwrap_or_else(|| upstream.clone()),
        settings: housekeeping_settings.clone(),
        keyring: keyring.clone(),
        metrics: metrics.clone(),
        status: status.clone(),
        snapshot_runs: desk.snapshot_runs().clone(),
        stop: housekeeping_stop,
    }
    .start(&parts)?;

    let mut bound = Started { listen: Vec::new(), metrics: None };
    let shared = Arc::new(Shared {
        upstream: Upstream::new(upstream.clone(), metrics.clone(), status.clone())?,
        sharing: config.sharing,
        acceptor: acceptor.clone(),
        live: live.clone(),
        tee,
        table,
        durable: durable.clone(),
        metrics: metrics.clone(),
        clients: AtomicUsize::new(0),
        client_memory: Arc::new(ClientMemory::new(config.workers)),
        pause: Pause::new(),
        desk,
        desk_threads: Arc::default(),
        parts: parts.clone(),
    });
    bound.listen = listeners.iter().map(Listener::address).collect::<Result<_, _>>()?;
    let serving_clients = if config.serves() {
        let workers = (0..config.workers).map(|n| WorkerHandle::start(n, shared.clone())).collect::<Result<_, _>>()?;
        Some(Acceptor::start(listeners, workers, shared, config.tcp_keepalive)?)
    } else {
        None
    };
    let mut serving = tokio::task::JoinSet::new();
    if let Some(http) = http {
        bound.metrics = Some(http.local_addr()?);
        let health = Health { status, durable, serves: config.serves() };
        serving.spawn(parts.clone().task("http", http::serve(http, metrics.clone(), health)));
    }
    let tls_failed = {
        let metrics = metrics.clone();
        move || metrics.error("tls_reload")
    };
    if let Some(acceptor) = &acceptor {
        serving.spawn(parts.clone().task("tls files", tls::watch(acceptor.clone(), tls_failed.clone())));
    }
    let handle = |c: &Connector| c.tls_handle().cloned();
    let (to_upstream, to_follow) = (handle(&upstream), follow.as_ref().and_then(handle));
    for handle in to_upstream.iter().chain(&to_follow) {
        serving.spawn(parts.clone().task("tls files", tls::watch(handle.clone(), tls_failed.clone())));
    }
    let reload = Reload {
        config: config.clone(),
        reread,
        live,
        housekeeping: housekeeping_settings,
        keyring,
        acceptor,
        upstream: to_upstream,
        follow: to_follow,
        metrics,
    };
    serving.spawn(parts.clone().task("reload", reload.at_each(hangup)));
    for addr in &bound.listen {
        tracing::info!(%addr, upstream = %config.upstream, "serving clients");
    }
    started(&bound);
    stop.await;

    tracing::info!("stopping: clients are drained, then the journal is sealed");
    drop(running);
    serving.shutdown().await;
    let _ = stop_housekeeping.send(true);
    if housekeeping.join().is_err() {
        tracing::error!("the housekeeping ended with a panic");
    }
    if let Some(clients) = serving_clients {
        clients.drain();
    }
    // The capture listens for as long as it runs.
    let _ = stop_capture.send(true);
    if capture_thread.join().is_err() {
        tracing::error!("the capture ended with a panic");
    }
    Ok(())
}

/// What the process needs of the operating system, as far as it may have it.
fn prepare_process() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Two file descriptors for each client: as many as are allowed.
    let files = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).is_err() {
        tracing::warn!("can't raise the limit on open files; it is {:?}", files.current);
    }
    // A file size limit makes a write fail, as a full disk does, instead of ending the process.
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ)) {
        Ok(mut exceeded) => drop(tokio::spawn(async move { while exceeded.recv().await.is_some() {} })),
        Err(e) => tracing::warn!(error = %e, "can't handle SIGXFSZ"),
    }
}

/// `setrlimit(2)`: a file would grow beyond its limit.
const SIGXFSZ: i32 = 25;

/// Asks the upstream who it is; nothing is changed anywhere.
async fn greet(
    to: &Connector,
) -> Result<(redtape_capture::Probe, redtape_capture::ServerFacts, Option<CommandTable>), StartError> {
    let failed = |e: &redis::RedisError| {
        let address = to.address();
        if TlsFailure::is_in(e) {
            StartError::Tls { address, why: e.to_string() }
        } else if redtape_capture::is_unreachable(e) {
            StartError::Unreachable { address, why: e.to_string() }
        } else {
            let why = e.detail().map_or_else(|| e.to_string(), str::to_owned);
            StartError::Refused { address, why, advice: ADVICE_ACL }
        }
    };
    let mut prober = Prober::connect(to).await.map_err(|e| failed(&e))?;
    let probe = prober.probe().await.map_err(|e| failed(&e))?;
    let facts = prober.facts().await.map_err(|e| failed(&e))?;
    tracing::info!(upstream = to.address(), software = facts.software, version = facts.version, "upstream found");
    if facts.cluster {
        tracing::warn!(upstream = to.address(), "{CLUSTER}");
    }
    Ok((probe, facts, prober.commands().await))
}

/// Refuses a server with another history than the upstream's, if it tells (else capture finds out).
async fn is_replica_of(
    source: &Connector,
    upstream: &Connector,
    facts: &redtape_capture::ServerFacts,
) -> Result<(), StartError> {
    let Ok(mut prober) = Prober::connect(source).await else { return Ok(()) };
    match prober.facts().await {
        Ok(found) if found.replid != facts.replid => {
            Err(StartError::Foreign { followed: source.address(), upstream: upstream.address() })
        }
        _ => Ok(()),
    }
}

/// Refuses a server that the journal does not record. One that loads its data is asked again by the capture.
fn may_record(config: &Config, facts: &redtape_capture::ServerFacts) -> Result<(), StartError> {
    let recorded = Recorded::load(&config.dir)?;
    if facts.is_loading {
        return Ok(());
    }
    match recorded.judge(facts, &config.recorded_address(), config.accept_new_history) {
        Judgement::Unrelated(mismatch) => {
            Err(StartError::OtherServer { dir: config.dir.clone(), mismatch: Box::new(mismatch) })
        }
        _ => Ok(()),
    }
}

/// Whether the server would let us follow it: everything of the handshake but `PSYNC` itself.
async fn may_follow(source: &Connector) -> Result<(), StartError> {
    match redtape_capture::Link::check(source).await {
        Ok(()) | Err(LinkError::Later { .. }) => Ok(()),
        Err(LinkError::Unreachable { address, source } | LinkError::Io { address, source }) => {
            let why = source.to_string();
            Err(if TlsFailure::is_in(&source) {
                StartError::Tls { address, why }
            } else {
                StartError::Unreachable { address, why }
            })
        }
        Err(LinkError::Refused { address, command, reply }) => {
            Err(StartError::Refused { address, why: format!("{command}: {reply}"), advice: ADVICE_ACL })
        }
    }
}

impl From<TlsError> for StartError {
    fn from(error: TlsError) -> Self {
        Self::Config(error.into())
    }
}

impl StartError {
    /// The exit code, from `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } | Self::Foreign { .. } | Self::Tls { .. } => 69,
            Self::Refused { .. } => 77,
            Self::Config(_) => 64,
            Self::Listen { .. } | Self::Os(_) => 71,
            Self::OtherServer { .. } => 65,
            Self::Servers(e) => io_code(&e.source),
            Self::Journal(e) => journal_code(e),
        }
    }
}

/// The exit code of a file that cannot be read or written.
fn io_code(error: &std::io::Error) -> u8 {
    if error.kind() == std::io::ErrorKind::PermissionDenied { 77 } else { 74 }
}

/// The exit code of a journal that cannot be opened.
pub(crate) fn journal_code(error: &OpenError) -> u8 {
    match error {
        OpenError::Locked { .. } => 75,
        OpenError::Io { source, .. } | OpenError::Sync { source, .. } => io_code(source),
        OpenError::Key { fault: KeyFault::Missing(_), .. } => 77,
        _ => 65,
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{NotFound, PermissionDenied};

    use super::*;

    #[test]
    fn a_file_without_the_right_to_it_has_an_exit_code_of_its_own() {
        for (kind, code) in [(PermissionDenied, 77), (NotFound, 74)] {
            let (action, path) = ("read", PathBuf::from("server"));
            let servers = StoreError { action, path: path.clone(), source: kind.into() };
            assert_eq!(StartError::from(servers).exit_code(), code, "{kind:?}");
            assert_eq!(journal_code(&OpenError::Sync { action, path: path.clone(), source: kind.into() }), code);
            assert_eq!(journal_code(&OpenError::Io { action, path, source: kind.into() }), code);
        }
    }
}
