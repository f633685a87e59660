//! Connections to the upstream server, and whether it answers at present.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use redtape_wire::url::{Endpoint, RedisUrl};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::metrics::Metrics;

/// A connection attempt that takes longer has failed.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that does not acknowledge sent bytes for so long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are probed after this time, clients' too (Redis's `tcp-keepalive`).
pub(crate) const KEEPALIVE: Duration = Duration::from_mins(5);
/// Pause after a failed attempt: doubled from the first up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Bytes both ways, whatever carries them.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Opens a connection.
pub(crate) async fn connect(url: &RedisUrl) -> io::Result<Box<dyn Stream + Send>> {
    let connecting = async {
        Ok::<Box<dyn Stream + Send>, io::Error>(match &url.endpoint {
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let socket = socket2::SockRef::from(&stream);
                socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
                socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))?;
                Box::new(stream)
            }
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))
    })?
}

/// The upstream as sessions see it: one address, one back-off for all of them.
#[derive(Debug)]
pub(crate) struct Upstream {
    url: RedisUrl,
    metrics: Metrics,
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
    /// Nothing is connected yet.
    pub(crate) fn new(url: RedisUrl, metrics: Metrics) -> Self {
        metrics.upstream_up.set(1);
        Self { url, metrics, down: Mutex::new(None) }
    }

    /// Connects, unless it is known to be away and it is too early to try again.
    /// The error is a sentence for the client, without `-ERR`.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream + Send>, String> {
        if let Some(down) = &*self.lock()
            && Instant::now() < down.next_try
        {
            return Err(self.sentence(&down.why));
        }
        match connect(&self.url).await {
            Ok(stream) => {
                if let Some(down) = self.lock().take() {
                    self.metrics.upstream_up.set(1);
                    tracing::info!(
                        upstream = self.url.address(),
                        away_seconds = down.since.elapsed().as_secs(),
                        "upstream is back"
                    );
                }
                Ok(stream)
            }
            Err(e) => {
                self.metrics.error("upstream_connect");
                self.metrics.upstream_up.set(0);
                let mut guard = self.lock();
                let now = Instant::now();
                let why = e.to_string();
                if guard.is_none() {
                    tracing::warn!(
                        upstream = self.url.address(),
                        error = why,
                        "upstream is not reachable; clients get an error until it is"
                    );
                }
                let pause = guard.as_ref().map_or(BACKOFF.0, |d| (d.pause * 2).min(BACKOFF.1));
                let since = guard.as_ref().map_or(now, |d| d.since);
                let sentence = self.sentence(&why);
                *guard = Some(Down { since, next_try: now + pause, pause, why });
                Err(sentence)
            }
        }
    }

    fn sentence(&self, why: &str) -> String {
        format!("redtape: the upstream {} is not reachable ({why}); retry later", self.url.address())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Down>> {
        self.down.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
