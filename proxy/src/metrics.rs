//! The numbers at `/metrics`, in Prometheus's text form and base units.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use redtape_journal::Micros;

use crate::status::CaptureState;

/// Every metric that redtape exports; made once, shared by all threads.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // Each field is described where it is registered, for the reader of /metrics too.
pub(crate) struct Metrics {
    registry: Registry,
    last_error: Arc<ArcSwapOption<(String, Micros)>>,
    /// Counted where lines are written.
    lost_log_lines: Arc<AtomicU64>,
    log_lines_lost: IntCounter,
    pub commands: IntCounter,
    pub client_received_bytes: IntCounter,
    pub client_sent_bytes: IntCounter,
    pub sessions: IntGauge,
    pub sessions_total: IntCounter,
    pub client_memory_bytes: IntGauge,
    pub tap_lag_bytes: IntGauge,
    pub tap_lag_seconds: Gauge,
    pub tap_received_bytes: IntCounter,
    pub tap_offset: IntGauge,
    pub request_to_journal_seconds: Histogram,
    pub captured_lsn: IntGauge,
    pub written_lsn: IntGauge,
    pub durable_lsn: IntGauge,
    pub window_start_seconds: Gauge,
    pub window_end_seconds: Gauge,
    pub journal_bytes: IntGauge,
    pub journal_segments: IntGauge,
    pub timeline: IntGauge,
    pub gaps: IntGauge,
    pub lanes: IntGauge,
    pub capture_state: IntGaugeVec,
    pub groups: IntCounterVec,
    pub errors: IntCounterVec,
    pub stamps_waiting: IntGauge,
    pub stamps_dropped: IntCounter,
    pub clock_steps: IntCounter,
    pub backlog_bytes: IntGauge,
    pub backlog_covers_seconds: Gauge,
    pub ack_waiting: IntGauge,
    pub ack_seconds: Histogram,
    pub upstream_up: IntGauge,
    pub upstream_is_replica: IntGauge,
    pub server_replaced_seconds: Gauge,
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

impl Metrics {
    /// Registers everything.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let r = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let m = IntCounter::new(name, help)?;
            r.register(Box::new(m.clone()))?;
            Ok(m)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let m = IntGauge::new(name, help)?;
            r.register(Box::new(m.clone()))?;
            Ok(m)
        };
        let float = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let m = Gauge::new(name, help)?;
            r.register(Box::new(m.clone()))?;
            Ok(m)
        };
        let counters = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let m = IntCounterVec::new(Opts::new(name, help), &[label])?;
            r.register(Box::new(m.clone()))?;
            Ok(m)
        };
        let capture_state =
            IntGaugeVec::new(Opts::new("redtape_capture_state", "1 for the state that the capture is in"), &["state"])?;
        r.register(Box::new(capture_state.clone()))?;
        let buckets =
            vec![0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
        let request_to_journal_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "redtape_request_to_journal_seconds",
                "Time from forwarding a write to its effect being written to the journal",
            )
            .buckets(buckets.clone()),
        )?;
        r.register(Box::new(request_to_journal_seconds.clone()))?;
        let ack_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "redtape_ack_seconds",
                "With --ack journal: time from the server's reply to a write until it may go, as the write is synced",
            )
            .buckets(buckets),
        )?;
        r.register(Box::new(ack_seconds.clone()))?;
        let build =
            IntGaugeVec::new(Opts::new("redtape_build_info", "Always 1; the version is the label"), &["version"])?;
        r.register(Box::new(build.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            last_error: Arc::default(),
            lost_log_lines: Arc::default(),
            log_lines_lost: counter(
                "redtape_log_lines_lost_total",
                "Log lines that are missing, as stderr was not read or could not be written",
            )?,
            commands: counter("redtape_commands_total", "Commands received from clients")?,
            client_received_bytes: counter("redtape_client_received_bytes_total", "Bytes received from clients")?,
            client_sent_bytes: counter("redtape_client_sent_bytes_total", "Bytes sent to clients")?,
            sessions: gauge("redtape_sessions", "Clients connected now")?,
            sessions_total: counter("redtape_sessions_total", "Clients that ever connected")?,
            client_memory_bytes: gauge(
                "redtape_client_memory_bytes",
                "Bytes in the buffers of all clients, both directions; client-memory limits them",
            )?,
            tap_lag_bytes: gauge(
                "redtape_tap_lag_bytes",
                "Bytes of the replication stream that the server has produced and the journal has not taken",
            )?,
            tap_lag_seconds: float(
                "redtape_tap_lag_seconds",
                "Age of the newest moment up to which the journal is complete",
            )?,
            tap_received_bytes: counter(
                "redtape_tap_received_bytes_total",
                "Bytes of the replication stream received",
            )?,
            tap_offset: gauge(
                "redtape_tap_offset",
                "Replication offset up to which everything has been handed to the journal",
            )?,
            request_to_journal_seconds,
            captured_lsn: gauge("redtape_journal_captured_lsn", "LSN of the last record handed to the journal")?,
            written_lsn: gauge("redtape_journal_written_lsn", "LSN of the last record handed to the operating system")?,
            durable_lsn: gauge("redtape_journal_durable_lsn", "LSN of the last record synced to the disk")?,
            window_start_seconds: float(
                "redtape_window_start_seconds",
                "Start of the present restorable window, Unix time; 0 = none",
            )?,
            window_end_seconds: float(
                "redtape_journal_complete_until_seconds",
                "Everything that ran before this Unix time is in the journal: the end of the restorable window; 0 = none",
            )?,
            journal_bytes: gauge("redtape_journal_bytes", "Bytes of all segments")?,
            journal_segments: gauge("redtape_journal_segments", "Segments")?,
            timeline: gauge("redtape_timeline", "Number of the present timeline; it grows at each gap")?,
            gaps: gauge("redtape_journal_gaps", "Gaps between the restorable windows of the journal")?,
            lanes: gauge("redtape_lanes", "Upstream connections that sessions share, now")?,
            capture_state,
            groups: counters("redtape_journal_groups_total", "Groups journaled, by who caused them", "origin")?,
            errors: counters("redtape_errors_total", "Errors, by kind", "kind")?,
            stamps_waiting: gauge("redtape_stamps_waiting", "Requests whose effect has not come yet")?,
            stamps_dropped: counter(
                "redtape_stamps_dropped_total",
                "Requests whose effects will have no origin, because a queue was full",
            )?,
            clock_steps: counter(
                "redtape_clock_steps_total",
                "Steps of the wall clock by over a second, forward or back; the journal's time never goes back",
            )?,
            backlog_bytes: gauge("redtape_backlog_bytes", "Size of the server's replication backlog")?,
            backlog_covers_seconds: float(
                "redtape_backlog_covers_seconds",
                "Outage that the backlog covers at the present write rate; +Inf without writes",
            )?,
            ack_waiting: gauge("redtape_ack_waiting", "Replies to writes that wait until the journal is synced")?,
            ack_seconds,
            upstream_up: gauge("redtape_upstream_up", "1 while the upstream answers")?,
            upstream_is_replica: gauge(
                "redtape_upstream_is_replica",
                "1 while the upstream is a replica of another server",
            )?,
            server_replaced_seconds: float(
                "redtape_server_replaced_seconds",
                "When the upstream's address was last found to lead to another history, Unix time; 0 = not since the start",
            )?,
            snapshots: counters("redtape_snapshots_total", "Snapshots that were due, by what came of them", "result")?,
            snapshot_running: gauge("redtape_snapshot_running", "1 while a scheduled snapshot is being taken")?,
            snapshot_last_seconds: float(
                "redtape_snapshot_last_success_seconds",
                "Moment of the newest base or scheduled snapshot, Unix time; 0 = none known",
            )?,
            snapshot_duration_seconds: float(
                "redtape_snapshot_duration_seconds",
                "How long the last scheduled snapshot took",
            )?,
            snapshot_bytes: gauge("redtape_snapshot_bytes", "Size of the last scheduled snapshot")?,
            pruned_files: counters(
                "redtape_pruned_files_total",
                "Files that retention removed, by what they were",
                "kind",
            )?,
            pruned_bytes: counters(
                "redtape_pruned_bytes_total",
                "Bytes that retention removed, by what they were",
                "kind",
            )?,
            prune_last_seconds: float(
                "redtape_prune_last_success_seconds",
                "When retention was last enforced, Unix time; 0 = never",
            )?,
            over_limit_bytes: gauge(
                "redtape_journal_over_limit_bytes",
                "By how much segments and snapshots exceed journal-max-size, as nothing more may be removed",
            )?,
            registry: r,
        };
        for kind in [
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
        ] {
            metrics.errors.with_label_values(&[kind]);
        }
        for origin in ["client", "expiry", "eviction", "outside", "unknown"] {
            metrics.groups.with_label_values(&[origin]);
        }
        for result in ["taken", "failed", "skipped"] {
            metrics.snapshots.with_label_values(&[result]);
        }
        for kind in ["segment", "snapshot"] {
            metrics.pruned_files.with_label_values(&[kind]);
            metrics.pruned_bytes.with_label_values(&[kind]);
        }
        Ok(metrics)
    }

    /// Shows how many log lines were lost.
    pub(crate) fn with_log(self, lost_log_lines: Arc<AtomicU64>) -> Self {
        Self { lost_log_lines, ..self }
    }

    /// Shows the capture's state, which [`crate::status::Status`] holds.
    pub(crate) fn capture_state(&self, now: CaptureState) {
        for state in CaptureState::ALL {
            self.capture_state.with_label_values(&[state.name()]).set(i64::from(state == now));
        }
    }

    /// Bytes and number of the segments that were pruned since the start.
    pub(crate) fn pruned_segments(&self) -> (u64, u64) {
        let of = |counters: &IntCounterVec| counters.with_label_values(&["segment"]).get();
        (of(&self.pruned_bytes), of(&self.pruned_files))
    }

    /// Counts an error.
    pub(crate) fn error(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
        self.last_error.store(Some(Arc::new((kind.to_owned(), Micros::now()))));
    }

    /// Errors so far, of all kinds.
    pub(crate) fn errors_total(&self) -> u64 {
        use prometheus::core::Collector as _;
        let families = self.errors.collect();
        families
            .iter()
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .map(|m| m.get_counter().get_value() as u64)
            .sum()
    }

    /// Kind and time of the last error.
    pub(crate) fn last_error(&self) -> Option<Arc<(String, Micros)>> {
        self.last_error.load_full()
    }

    /// Age of the newest moment up to which the journal is complete, in seconds; 0 before there is one.
    pub(crate) fn lag_seconds(&self) -> f64 {
        let complete = self.window_end_seconds.get();
        if complete > 0.0 { (Micros::now().0 as f64 / 1e6 - complete).max(0.0) } else { 0.0 }
    }

    /// The page.
    pub(crate) fn page(&self) -> String {
        // An age: it grows though nothing happens, above all when nothing happens.
        self.tap_lag_seconds.set(self.lag_seconds());
        let lost = self.lost_log_lines.load(Ordering::Relaxed);
        self.log_lines_lost.inc_by(lost.saturating_sub(self.log_lines_lost.get()));
        let mut page = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            Ok(()) => String::from_utf8_lossy(&page).into_owned(),
            Err(e) => format!("# {e}\n"),
        }
    }
}
