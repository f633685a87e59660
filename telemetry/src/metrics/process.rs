//! The process itself: its version, its errors, its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounter, IntCounterVec};

use super::MetricsError;
use super::register::Registrar;
use crate::errors::Errors;

/// Every kind of error that is counted from the start.
const ERRORS: [&str; 24] = [
    "upstream_connect",
    "upstream_lost",
    "client_protocol",
    "client_tls",
    "proxy_header",
    "output_limit",
    "client_memory",
    "max_clients",
    "tap_link",
    "tap_refused",
    "foreign_history",
    "server_refused",
    "server_replaced",
    "journal",
    "journal_reject",
    "journal_slow",
    "ack_barrier",
    "ack_timeout",
    "probe",
    "tls_reload",
    "config_reload",
    "snapshot",
    "prune",
    "key_index",
];

/// Metrics of the process.
#[derive(Debug, Clone)]
pub(super) struct ProcessMetrics {
    errors: IntCounterVec,
    /// The status's: how many there were, and the last one.
    seen: Arc<Errors>,
    /// Counted where lines are written.
    lost_log_lines: Arc<AtomicU64>,
    log_lines_lost: IntCounter,
}

impl ProcessMetrics {
    pub(super) fn register(r: &Registrar<'_>, lost_log_lines: Arc<AtomicU64>) -> Result<Self, MetricsError> {
        let build = r.gauges("redtape_build_info", "Always 1; the version is the label", "version")?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            errors: r.counters("redtape_errors_total", "Errors, by kind", "kind", &ERRORS)?,
            seen: Arc::default(),
            lost_log_lines,
            log_lines_lost: r.counter(
                "redtape_log_lines_lost_total",
                "Log lines that are missing, as stderr was not read or could not be written",
            )?,
        })
    }

    pub(super) fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
        self.seen.add(kind);
    }

    pub(super) fn seen(&self) -> Arc<Errors> {
        Arc::clone(&self.seen)
    }

    pub(super) fn count_lost_log_lines(&self) {
        let lost = self.lost_log_lines.load(Ordering::Relaxed);
        self.log_lines_lost.inc_by(lost.saturating_sub(self.log_lines_lost.get()));
    }
}
