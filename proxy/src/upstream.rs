//! Address and reachability of the upstream, shared by all workers.
//!
//! Names are resolved on a separate thread, at the start and after a failure: a worker never waits for DNS. All workers
//! share one back-off: while the server is away, each client gets the result at once.
//!
//! The result: if the server was never reached, the address is probably wrong, and the client gets an error. If it was
//! reached before, the connection is closed, as without the proxy: client libraries reconnect then, but would take an
//! error for the command's own answer.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redtape_net::Connector;
use redtape_telemetry::{Metrics, Status};
use redtape_wire::url::Endpoint;

/// Pause after a failed attempt: doubled from the first up to the second. Short, so that the first client finds a
/// server that is back.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
/// Pause after a lookup.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(2);

/// One address of the server.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Tcp(SocketAddr),
    Unix(String),
}

/// What to do for a client while the server is unreachable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// Send this error, without `-ERR`.
    Say(String),
    /// Close the connection.
    End,
}

/// The upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) connector: Connector,
    metrics: Metrics,
    status: Arc<Status>,
    targets: Arc<ArcSwap<Vec<Target>>>,
    /// The address that answered last.
    preferred: AtomicUsize,
    look_up: Option<SyncSender<()>>,
    was_reached: AtomicBool,
    is_down: AtomicBool,
    down: Mutex<Option<Down>>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    next_try: Instant,
    pause: Duration,
    why: String,
}

impl Upstream {
    /// Resolves the name without connecting.
    pub(crate) fn new(connector: Connector, metrics: Metrics, status: Arc<Status>) -> io::Result<Self> {
        let targets = Arc::new(ArcSwap::from_pointee(look_up(&connector.url.endpoint)?));
        let look_up = needs_dns(&connector.url.endpoint)
            .then(|| start_lookups(connector.url.endpoint.clone(), targets.clone()))
            .transpose()?;
        Ok(Self {
            connector,
            metrics,
            status,
            targets,
            preferred: AtomicUsize::new(0),
            look_up,
            was_reached: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            down: Mutex::new(None),
        })
    }

    /// The `attempt`-th address, counted from the one that answered last; `None` = all were tried.
    pub(crate) fn target(&self, attempt: usize) -> Option<Target> {
        let targets = self.targets.load();
        let n = targets.len();
        (attempt < n).then(|| targets[(self.preferred.load(Ordering::Relaxed) + attempt) % n].clone())
    }

    /// True if an attempt is allowed now.
    pub(crate) fn may_try(&self) -> Result<(), Unreachable> {
        if !self.is_down.load(Ordering::Relaxed) {
            return Ok(());
        }
        match &*self.lock() {
            Some(down) if Instant::now() < down.next_try => Err(self.unreachable(&down.why)),
            _ => Ok(()),
        }
    }

    /// The `attempt`-th address answered.
    pub(crate) fn answered(&self, attempt: usize) {
        if !self.was_reached.load(Ordering::Relaxed) {
            self.was_reached.store(true, Ordering::Relaxed);
        }
        if attempt > 0 {
            self.preferred.fetch_add(attempt, Ordering::Relaxed);
        }
        if self.is_down.load(Ordering::Relaxed)
            && let Some(down) = self.lock().take()
        {
            self.is_down.store(false, Ordering::Relaxed);
            self.status.upstream_answers();
            tracing::info!(
                upstream = self.connector.address(),
                away_seconds = down.since.elapsed().as_secs(),
                "upstream is back"
            );
        }
    }

    /// No address answered.
    pub(crate) fn failed(&self, why: &str) -> Unreachable {
        self.metrics.error("upstream_connect");
        self.status.upstream_unreachable(why);
        if let Some(look_up) = &self.look_up {
            // Full = a lookup is already requested.
            let _ = look_up.try_send(());
        }
        let mut guard = self.lock();
        let now = Instant::now();
        if guard.is_none() {
            tracing::warn!(
                upstream = self.connector.address(),
                error = why,
                "upstream is not reachable; {}",
                if self.was_reached.load(Ordering::Relaxed) {
                    "clients' connections end until it is, as without the proxy"
                } else {
                    "it never was: clients get an error until it is"
                }
            );
        }
        // Simultaneous attempts count as one failure.
        let again = guard.as_ref().is_some_and(|d| now < d.next_try);
        let pause = match &*guard {
            Some(d) if again => d.pause,
            Some(d) => (d.pause * 2).min(BACKOFF.1),
            None => BACKOFF.0,
        };
        let since = guard.as_ref().map_or(now, |d| d.since);
        *guard = Some(Down { since, next_try: now + pause, pause, why: why.to_owned() });
        self.is_down.store(true, Ordering::Relaxed);
        self.unreachable(why)
    }

    fn unreachable(&self, why: &str) -> Unreachable {
        if self.was_reached.load(Ordering::Relaxed) {
            return Unreachable::End;
        }
        // A client reads one line.
        let why = why.replace(['\r', '\n'], " ");
        Unreachable::Say(format!(
            "redtape: the upstream {} is not reachable ({why}); retry later",
            self.connector.address()
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Down>> {
        self.down.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn needs_dns(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Tcp { host, .. } if host.parse::<std::net::IpAddr>().is_err())
}

fn look_up(endpoint: &Endpoint) -> io::Result<Vec<Target>> {
    match endpoint {
        Endpoint::Unix(path) => Ok(vec![Target::Unix(path.clone())]),
        Endpoint::Tcp { host, port } => {
            let found: Vec<_> = (host.as_str(), *port).to_socket_addrs()?.map(Target::Tcp).collect();
            if found.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("no address for {host}")));
            }
            Ok(found)
        }
    }
}

/// Resolves the name on request, until the sender is gone.
fn start_lookups(endpoint: Endpoint, into: Arc<ArcSwap<Vec<Target>>>) -> io::Result<SyncSender<()>> {
    let (send, asked) = sync_channel(1);
    std::thread::Builder::new().name("lookup".to_owned()).spawn(move || {
        while asked.recv().is_ok() {
            match look_up(&endpoint) {
                Ok(found) => into.store(Arc::new(found)),
                Err(e) => tracing::warn!(error = %e, "the upstream's name cannot be looked up; its old address stays"),
            }
            // Limits the rate of DNS queries.
            std::thread::sleep(LOOK_UP_PAUSE);
        }
    })?;
    Ok(send)
}
