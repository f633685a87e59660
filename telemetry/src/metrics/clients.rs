//! Clients: what they send and get, and what they wait for.

use prometheus::Histogram;

use super::MetricsError;
use super::register::Registrar;
use crate::numbers::ClientNumbers;

/// Metrics of the proxy's clients.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is described where it is registered, for the reader of /metrics too.
pub struct ClientMetrics {
    pub ack_seconds: Histogram,
}

impl ClientMetrics {
    pub(super) fn register(r: &Registrar<'_>, shown: &ClientNumbers) -> Result<Self, MetricsError> {
        show(r, shown)?;
        Ok(Self {
            ack_seconds: r.latency(
                "redtape_ack_seconds",
                "With --ack journal: time from the server's reply to a write until it may go, as the write is synced",
            )?,
        })
    }
}

/// What the status holds.
fn show(r: &Registrar<'_>, shown: &ClientNumbers) -> Result<(), MetricsError> {
    r.show_level("redtape_sessions", "Clients connected now", &shown.sessions)?;
    r.show_count("redtape_sessions_total", "Clients that ever connected", &shown.sessions_total)?;
    r.show_count("redtape_commands_total", "Commands received from clients", &shown.commands)?;
    r.show_count("redtape_client_received_bytes_total", "Bytes received from clients", &shown.received_bytes)?;
    r.show_count("redtape_client_sent_bytes_total", "Bytes sent to clients", &shown.sent_bytes)?;
    r.show_level(
        "redtape_client_memory_bytes",
        "Bytes in the buffers of all clients, both directions; client-memory limits them",
        &shown.memory_bytes,
    )?;
    r.show_level("redtape_lanes", "Upstream connections that sessions share, now", &shown.shared_conns)?;
    r.show_level("redtape_ack_waiting", "Replies to writes that wait until the journal is synced", &shown.ack_waiting)
}
