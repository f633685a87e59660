//! What `redtape proxy` and `redtape follow` run: the parts, started in an order in which nothing can be missed.
//!
//! ```text
//! preflight ─► bind ─► open the journal ─► capture ─► housekeeping, key indexes ─► data path ─► HTTP, TLS files, reload
//! ```
//!
//! The servers are asked first (a wrong URL or password changes nothing on the disk), then the journal is opened and
//! recovered, then capture begins, and only then are clients let in. A stop goes the other way: clients are drained,
//! then the journal is sealed.

mod common;
mod config;
mod error;
mod get;
mod health;
mod housekeeping;
mod http;
mod key_index;
mod preflight;
mod process;
mod reload;
mod snapshot;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use redtape_capture::{CaptureConfig, CaptureInputs, open_journal};
use redtape_net::{Connector, tls};
use redtape_proxy::{AdminCommands, ListenOptions, Listener, Parts, Running, Serving};
use redtape_wire::settings::ListenAddr;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};

use self::common::{Common, Servers};
pub(crate) use self::config::Config;
pub(crate) use self::error::{ErrorKind, StartError};
use self::health::Health;
use self::key_index::{KeyIndexThread, StopKeyIndexes};
use self::preflight::Found;
use self::reload::Reload;
pub(crate) use self::reload::Reread;
pub(crate) use self::snapshot::{CreateError, take_snapshot};

/// What `redtape proxy` and `redtape follow` run.
pub(crate) struct Daemon {
    /// The settings of the start.
    pub(crate) config: Config,
    /// Gives the new ones at SIGHUP.
    pub(crate) reread: Reread,
    /// Shown at `/metrics`.
    pub(crate) lost_log_lines: Arc<AtomicU64>,
}

/// What was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    /// Addresses on which clients are served.
    pub(crate) listen: Vec<ListenAddr>,
    /// Where `/metrics` is.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Daemon {
    /// Runs until `stop` resolves; then clients are drained and the tail of the journal is sealed.
    ///
    /// A panic of any thread is a defect after which nothing can be promised, and a part that ends unbidden panics: the
    /// process's panic hook must end the process.
    pub(crate) fn run(self, stop: impl Future<Output = ()>, started: impl FnOnce(&Started)) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (running, bound) = self.start().await?;
            started(&bound);
            stop.await;
            running.stop().await;
            Ok(())
        })
    }

    async fn start(self) -> Result<(RunningParts, Started), StartError> {
        // From here on a SIGHUP is a reload and not the end.
        let hangup = signal(SignalKind::hangup())?;
        process::prepare();
        for warning in self.config.check()? {
            tracing::warn!("{warning}");
        }
        let servers = Servers::of(&self.config)?;
        let Found { first_probe, facts, commands } = preflight::ask(&self.config, &servers).await?;
        let (listeners, http) = bind(&self.config).await?;

        let common = Common::new(self.config, servers, commands, self.lost_log_lines)?;
        let capture_config = common.capture_config();
        let opened = open_journal(&capture_config)?;
        common.show_journal(&opened.1);
        let admin = AdminCommands::new(common.admin_setup(&facts.version));

        let (stop_capture, capture_stop) = watch::channel(false);
        let (stop_housekeeping, housekeeping_stop) = watch::channel(false);
        let stop_key_indexes = StopKeyIndexes::default();
        // Dropped before those three, should the start fail from here on.
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
        let housekeeping = common.housekeeping(housekeeping_stop).start(&common.parts)?;
        let key_indexes = common.key_indexes().start(&common.parts, &stop_key_indexes)?;

        let bound = Started {
            listen: listeners.iter().map(Listener::address).collect::<Result<_, _>>()?,
            metrics: http.as_ref().map(TcpListener::local_addr).transpose()?,
        };
        let clients = common.config.serves().then(|| common.data_path(listeners, admin).start()).transpose()?;
        let tasks = spawn_tasks(&common, http, self.reread, hangup);
        for addr in &bound.listen {
            tracing::info!(%addr, upstream = %common.config.upstream, "serving clients");
        }
        let capture = StoppableThread { name: "capture", stop: stop_capture, thread: capture };
        let housekeeping = StoppableThread { name: "housekeeping", stop: stop_housekeeping, thread: housekeeping };
        let key_indexes = KeyIndexThread { stop: stop_key_indexes, thread: key_indexes };
        Ok((RunningParts { running, tasks, housekeeping, key_indexes, clients, capture }, bound))
    }
}

/// The parts, in the order in which they are stopped.
struct RunningParts {
    running: Running,
    tasks: JoinSet<()>,
    housekeeping: StoppableThread,
    key_indexes: KeyIndexThread,
    /// `None` where no clients are served.
    clients: Option<Serving>,
    capture: StoppableThread,
}

impl RunningParts {
    async fn stop(mut self) {
        tracing::info!("stopping: clients are drained, then the journal is sealed");
        drop(self.running);
        self.tasks.shutdown().await;
        self.key_indexes.tell();
        self.housekeeping.stop();
        if let Some(clients) = self.clients {
            clients.drain();
        }
        self.capture.stop();
        // Last: it has had the time of all others.
        self.key_indexes.stop();
    }
}

struct StoppableThread {
    name: &'static str,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl StoppableThread {
    fn stop(self) {
        // The thread listens for as long as it runs.
        let _ = self.stop.send(true);
        if self.thread.join().is_err() {
            tracing::error!("the {} ended with a panic", self.name);
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

/// Starts the thread that follows the server and writes the journal.
fn start_capture(config: CaptureConfig, inputs: CaptureInputs, parts: &Parts) -> std::io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    parts.thread("capture", move || LocalSet::new().block_on(&runtime, redtape_capture::run(config, inputs)))
}

/// Starts what runs beside: the HTTP server, the watch on TLS files, the reload at SIGHUP.
fn spawn_tasks(common: &Common, http: Option<TcpListener>, reread: Reread, hangup: Signal) -> JoinSet<()> {
    let (mut tasks, servers, parts) = (JoinSet::new(), &common.servers, &common.parts);
    if let Some(http) = http {
        let (status, durability) = (common.status.clone(), common.durability.clone());
        let health = Health { status, durability, serves: common.config.serves() };
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
        config: common.config.clone(),
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
