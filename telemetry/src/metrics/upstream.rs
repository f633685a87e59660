//! The upstream: whether it answers, and which server it is.

use prometheus::{Gauge, IntGauge};

use super::MetricsError;
use super::register::Registrar;

/// Metrics of the upstream.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is described where it is registered, for the reader of /metrics too.
pub struct UpstreamMetrics {
    pub(crate) up: IntGauge,
    pub is_replica: IntGauge,
    pub(crate) replaced_seconds: Gauge,
}

impl UpstreamMetrics {
    pub(super) fn register(r: &Registrar<'_>) -> Result<Self, MetricsError> {
        Ok(Self {
            up: r.gauge("redtape_upstream_up", "1 while the upstream answers")?,
            is_replica: r.gauge(
                "redtape_upstream_is_replica",
                "1 while the upstream is a replica of another server",
            )?,
            replaced_seconds: r.float(
                "redtape_server_replaced_seconds",
                "When the upstream's address was last found to lead to another history, Unix time; 0 = not since the start",
            )?,
        })
    }
}
