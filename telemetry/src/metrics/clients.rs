//! Clients: what they send and get, and what they wait for.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::MetricsError;
use super::register::Registrar;

/// Metrics of the proxy's clients.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is described where it is registered, for the reader of /metrics too.
pub struct ClientMetrics {
    pub commands: IntCounter,
    pub received_bytes: IntCounter,
    pub sent_bytes: IntCounter,
    pub sessions: IntGauge,
    pub sessions_total: IntCounter,
    pub memory_bytes: IntGauge,
    pub shared_conns: IntGauge,
    pub ack_waiting: IntGauge,
    pub ack_seconds: Histogram,
}

impl ClientMetrics {
    pub(super) fn register(r: &Registrar<'_>) -> Result<Self, MetricsError> {
        Ok(Self {
            commands: r.counter("redtape_commands_total", "Commands received from clients")?,
            received_bytes: r.counter("redtape_client_received_bytes_total", "Bytes received from clients")?,
            sent_bytes: r.counter("redtape_client_sent_bytes_total", "Bytes sent to clients")?,
            sessions: r.gauge("redtape_sessions", "Clients connected now")?,
            sessions_total: r.counter("redtape_sessions_total", "Clients that ever connected")?,
            memory_bytes: r.gauge(
                "redtape_client_memory_bytes",
                "Bytes in the buffers of all clients, both directions; client-memory limits them",
            )?,
            shared_conns: r.gauge("redtape_lanes", "Upstream connections that sessions share, now")?,
            ack_waiting: r.gauge("redtape_ack_waiting", "Replies to writes that wait until the journal is synced")?,
            ack_seconds: r.latency(
                "redtape_ack_seconds",
                "With --ack journal: time from the server's reply to a write until it may go, as the write is synced",
            )?,
        })
    }
}
