//! Capture: the replication stream, and what the join makes of it.

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGaugeVec};

use super::MetricsError;
use super::register::Registrar;
use crate::numbers::CaptureNumbers;

/// Metrics of the capture.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is described where it is registered, for the reader of /metrics too.
pub struct CaptureMetrics {
    pub(crate) state: IntGaugeVec,
    pub(crate) lag_seconds: Gauge,
    pub received_bytes: IntCounter,
    pub request_to_journal_seconds: Histogram,
    pub groups: IntCounterVec,
}

impl CaptureMetrics {
    pub(super) fn register(r: &Registrar<'_>, shown: &CaptureNumbers) -> Result<Self, MetricsError> {
        show(r, shown)?;
        Ok(Self {
            state: r.gauges("redtape_capture_state", "1 for the state that the capture is in", "state")?,
            lag_seconds: r.float(
                "redtape_tap_lag_seconds",
                "Age of the newest point in time up to which the journal is complete",
            )?,
            received_bytes: r
                .counter("redtape_tap_received_bytes_total", "Bytes of the replication stream received")?,
            request_to_journal_seconds: r.latency(
                "redtape_request_to_journal_seconds",
                "Time from forwarding a write to its effect being written to the journal",
            )?,
            groups: r.counters(
                "redtape_journal_groups_total",
                "Groups journaled, by who caused them",
                "origin",
                &["client", "expiry", "eviction", "outside", "unknown"],
            )?,
        })
    }
}

/// What the status holds.
fn show(r: &Registrar<'_>, shown: &CaptureNumbers) -> Result<(), MetricsError> {
    r.show_level(
        "redtape_tap_lag_bytes",
        "Bytes of the replication stream that the server has produced and the journal has not taken",
        &shown.lag_bytes,
    )?;
    r.show_level(
        "redtape_tap_offset",
        "Replication offset up to which everything has been handed to the journal",
        &shown.offset,
    )?;
    r.show_level("redtape_stamps_waiting", "Requests whose effect has not come yet", &shown.stamps_waiting)?;
    r.show_count(
        "redtape_stamps_dropped_total",
        "Requests whose effects will have no origin, because a queue was full",
        &shown.stamps_dropped,
    )?;
    r.show_count(
        "redtape_clock_steps_total",
        "Steps of the wall clock by over a second, forward or back; the journal's time never goes back",
        &shown.clock_steps,
    )?;
    r.show_level("redtape_backlog_bytes", "Size of the server's replication backlog", &shown.backlog_bytes)?;
    r.show_seconds(
        "redtape_backlog_covers_seconds",
        "Outage that the backlog covers at the present write rate; +Inf without writes",
        &shown.backlog_covers,
    )
}
