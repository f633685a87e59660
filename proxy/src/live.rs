//! Settings that a reload changes at run time, as used by the data path.

use std::time::Duration;

/// Settings that sessions read at each use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Limit of concurrent clients.
    pub max_clients: usize,
    /// Idle clients are disconnected after this time.
    pub idle_timeout: Option<Duration>,
    /// Time limit of TLS handshake and PROXY header.
    pub handshake_timeout: Duration,
    /// Limit of reply bytes buffered for one client.
    pub output_limit: usize,
    /// Limit of the memory of all clients' buffers, in bytes.
    pub client_memory: Option<usize>,
    /// Users that may run `REDTAPE.MARK`, `REDTAPE.SNAPSHOT` and `REDTAPE.GET`.
    pub admin_users: Vec<String>,
    /// Rate limit for receiving a snapshot, in bytes per second; `None` = unlimited.
    pub snapshot_rate: Option<u64>,
}
