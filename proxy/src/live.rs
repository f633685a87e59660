//! Settings that a reload changes while redtape runs, as the data path looks them up.

use std::time::Duration;

/// Settings that sessions look up whenever they need them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Clients at once.
    pub max_clients: usize,
    /// Clients that are idle for so long are disconnected.
    pub idle_timeout: Option<Duration>,
    /// TLS handshake and PROXY header must be through within this time.
    pub handshake_timeout: Duration,
    /// Bytes of replies that may pile up for one client.
    pub output_limit: usize,
    /// Bytes that the buffers of all clients may hold together.
    pub client_memory: Option<usize>,
    /// Who may run `REDTAPE.MARK`, `REDTAPE.SNAPSHOT` and `REDTAPE.GET`.
    pub admin_users: Vec<String>,
    /// Bytes of a snapshot that are received in a second; `None` = as fast as they come.
    pub snapshot_rate: Option<u64>,
}
