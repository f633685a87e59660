//! Housekeeping: scheduled snapshots and retention.

use prometheus::{Gauge, IntCounterVec, IntGauge};

use super::MetricsError;
use super::register::Registrar;

/// Metrics of the housekeeping.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each is described where it is registered, for the reader of /metrics too.
pub struct HousekeepingMetrics {
    pub snapshots: IntCounterVec,
    pub snapshot_running: IntGauge,
    pub snapshot_last_seconds: Gauge,
    pub snapshot_duration_seconds: Gauge,
    pub snapshot_bytes: IntGauge,
    pub pruned_files: IntCounterVec,
    pub pruned_bytes: IntCounterVec,
    pub prune_last_seconds: Gauge,
    pub over_limit_bytes: IntGauge,
}

impl HousekeepingMetrics {
    pub(super) fn register(r: &Registrar<'_>) -> Result<Self, MetricsError> {
        Ok(Self {
            snapshots: r.counters(
                "redtape_snapshots_total",
                "Snapshots that were due, by what came of them",
                "result",
                &["taken", "failed", "skipped"],
            )?,
            snapshot_running: r.gauge("redtape_snapshot_running", "1 while a scheduled snapshot is being taken")?,
            snapshot_last_seconds: r.float(
                "redtape_snapshot_last_success_seconds",
                "Moment of the newest base or scheduled snapshot, Unix time; 0 = none known",
            )?,
            snapshot_duration_seconds: r
                .float("redtape_snapshot_duration_seconds", "How long the last scheduled snapshot took")?,
            snapshot_bytes: r.gauge("redtape_snapshot_bytes", "Size of the last scheduled snapshot")?,
            pruned_files: r.counters(
                "redtape_pruned_files_total",
                "Files that retention removed, by what they were",
                "kind",
                &["segment", "snapshot"],
            )?,
            pruned_bytes: r.counters(
                "redtape_pruned_bytes_total",
                "Bytes that retention removed, by what they were",
                "kind",
                &["segment", "snapshot"],
            )?,
            prune_last_seconds: r.float(
                "redtape_prune_last_success_seconds",
                "When retention was last enforced, Unix time; 0 = never",
            )?,
            over_limit_bytes: r.gauge(
                "redtape_journal_over_limit_bytes",
                "By how much segments and snapshots exceed journal-max-size, as nothing more may be removed",
            )?,
        })
    }
}
