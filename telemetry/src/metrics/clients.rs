//! Clients: what they send and get, and what they wait for.

use prometheus::{Histogram, IntGauge};

use super::MetricsError;
use super::register::Registrar;
use crate::numbers::{ClientNumbers, Count, Level};

/// Metrics of the proxy's clients.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is described where it is registered, for the reader of /metrics too.
pub struct ClientMetrics {
    pub commands: Count,
    pub received_bytes: Count,
    pub sent_bytes: Count,
    pub sessions: Level,
    pub sessions_total: Count,
    pub memory_bytes: IntGauge,
    pub shared_conns: Level,
    pub ack_waiting: IntGauge,
    pub ack_seconds: Histogram,
}

impl ClientMetrics {
    pub(super) fn register(r: &Registrar<'_>, held: ClientNumbers) -> Result<Self, MetricsError> {
        let ClientNumbers { sessions, sessions_total, commands, shared_conns } = held;
        let (received_bytes, sent_bytes) = (Count::default(), Count::default());
        r.show_count("redtape_commands_total", "Commands received from clients", &commands)?;
        r.show_count("redtape_client_received_bytes_total", "Bytes received from clients", &received_bytes)?;
        r.show_count("redtape_client_sent_bytes_total", "Bytes sent to clients", &sent_bytes)?;
        r.show_level("redtape_sessions", "Clients connected now", &sessions)?;
        r.show_count("redtape_sessions_total", "Clients that ever connected", &sessions_total)?;
        r.show_level("redtape_lanes", "Upstream connections that sessions share, now", &shared_conns)?;
        Ok(Self {
            commands,
            received_bytes,
            sent_bytes,
            sessions,
            sessions_total,
            shared_conns,
            memory_bytes: r.gauge(
                "redtape_client_memory_bytes",
                "Bytes in the buffers of all clients, both directions; client-memory limits them",
            )?,
            ack_waiting: r.gauge("redtape_ack_waiting", "Replies to writes that wait until the journal is synced")?,
            ack_seconds: r.latency(
                "redtape_ack_seconds",
                "With --ack journal: time from the server's reply to a write until it may go, as the write is synced",
            )?,
        })
    }
}
