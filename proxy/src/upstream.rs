//! Connections to the upstream server, and whether it answers at present.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connect::Connector;
use crate::metrics::Metrics;

pub(crate) use crate::connect::KEEPALIVE;

/// Pause after a failed attempt: doubled from the first up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Bytes both ways, whatever carries them.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// The upstream as sessions see it: one address, one back-off for all of them.
#[derive(Debug)]
pub(crate) struct Upstream {
    connector: Connector,
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
    pub(crate) fn new(connector: Connector, metrics: Metrics) -> Self {
        metrics.upstream_up.set(1);
        Self { connector, metrics, down: Mutex::new(None) }
    }

    /// Connects, unless it is known to be away and it is too early to try again.
    /// The error is a sentence for the client, without `-ERR`.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Stream + Send>, String> {
        if let Some(down) = &*self.lock()
            && Instant::now() < down.next_try
        {
            return Err(self.sentence(&down.why));
        }
        match self.connector.connect().await {
            Ok(stream) => {
                if let Some(down) = self.lock().take() {
                    self.metrics.upstream_up.set(1);
                    tracing::info!(
                        upstream = self.connector.address(),
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
                        upstream = self.connector.address(),
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
        format!("redtape: the upstream {} is not reachable ({why}); retry later", self.connector.address())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Down>> {
        self.down.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
