//! What this process does at present: whether the server is recorded, whether it can be reached.
//!
//! The capture, the probes and the workers say what they find; the endpoints, `INFO` and the housekeeping read it here.
//! The gauges at `/metrics` that show the same are set here as well, so that they never say something else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Notify;

use crate::errors::Errors;
use crate::journal::{JournalStatus, Watermarks};
use crate::metrics::Metrics;
use crate::now_us;
use crate::numbers::Numbers;
use crate::recording::{CaptureState, Recording};

/// What this process does at present. Shared by all threads.
#[derive(Debug)]
pub struct Status {
    recording: ArcSwap<Recording>,
    /// Why the upstream cannot be reached; `None` = it can.
    unreachable: ArcSwapOption<String>,
    is_unreachable: AtomicBool,
    /// Held while the two above and the gauge change, so that all three say the same.
    reachability: Mutex<()>,
    /// Another history was found at the upstream's address: when, in microseconds since 1970, and which.
    replaced: ArcSwapOption<(i64, String)>,
    server_back: Notify,
    wants_base: AtomicBool,
    journal: JournalStatus,
    /// What the parts of redtape count and measure.
    pub numbers: Numbers,
    errors: Arc<Errors>,
    metrics: Metrics,
}

impl Status {
    /// Nothing is recorded yet, and the upstream is believed to answer.
    pub fn new(metrics: Metrics) -> Arc<Self> {
        let status = Self {
            recording: ArcSwap::from_pointee(Recording {
                state: CaptureState::Connecting,
                reason: None,
                since_us: now_us(),
            }),
            unreachable: ArcSwapOption::empty(),
            is_unreachable: AtomicBool::new(false),
            reachability: Mutex::new(()),
            replaced: ArcSwapOption::empty(),
            server_back: Notify::new(),
            wants_base: AtomicBool::new(false),
            journal: JournalStatus::default(),
            numbers: metrics.numbers(),
            errors: metrics.errors(),
            metrics,
        };
        status.metrics.capture_state(CaptureState::Connecting);
        status.metrics.upstream.up.set(1);
        Arc::new(status)
    }

    /// The capture is in this state now.
    pub fn capture(&self, state: CaptureState) {
        self.set(state, None);
    }

    /// The capture is in this state, and this is why it does not record.
    pub fn capture_because(&self, state: CaptureState, reason: String) {
        self.set(state, Some(reason));
    }

    fn set(&self, state: CaptureState, reason: Option<String>) {
        let before = self.recording.load();
        let since_us = if before.state == state { before.since_us } else { now_us() };
        // Why it ended stays true while it tries again.
        let keeps = state == CaptureState::Connecting;
        let reason = reason.or_else(|| before.reason.clone().filter(|_| keeps));
        self.recording.store(Arc::new(Recording { state, reason, since_us }));
        self.metrics.capture_state(state);
    }

    /// Whether writes are recorded.
    pub fn recording(&self) -> Arc<Recording> {
        self.recording.load_full()
    }

    /// The upstream answers.
    #[inline]
    pub fn upstream_answers(&self) {
        // The usual case takes no lock.
        if !self.is_unreachable.load(Ordering::Acquire) {
            return;
        }
        let _changes = self.lock();
        if self.is_unreachable.swap(false, Ordering::AcqRel) {
            self.unreachable.store(None);
            self.metrics.upstream.up.set(1);
            self.server_back.notify_one();
        }
    }

    /// No connection to the upstream comes about, or it does not answer.
    pub fn upstream_unreachable(&self, why: &str) {
        let _changes = self.lock();
        self.unreachable.store(Some(Arc::new(why.to_owned())));
        self.is_unreachable.store(true, Ordering::Release);
        self.metrics.upstream.up.set(0);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.reachability.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the upstream cannot be reached; `None` = it can.
    pub fn unreachable(&self) -> Option<Arc<String>> {
        self.unreachable.load_full()
    }

    /// Resolves when an upstream that could not be reached answers a probe, or a worker for its client.
    pub async fn server_back(&self) {
        self.server_back.notified().await;
    }

    /// Behind what was recorded lately a base is wanted, beside the stream.
    pub fn want_base(&self) {
        self.wants_base.store(true, Ordering::Release);
    }

    /// Whether one is wanted that was not begun yet.
    pub fn wants_base(&self) -> bool {
        self.wants_base.load(Ordering::Acquire)
    }

    /// One is being taken; what changes from here on wants another one.
    pub fn begins_base(&self) {
        self.wants_base.store(false, Ordering::Release);
    }

    /// The upstream's address leads to a server with another history.
    pub fn replaced(&self, what: String) {
        let now = now_us();
        self.metrics.upstream.replaced_seconds.set(now as f64 / 1e6);
        self.replaced.store(Some(Arc::new((now, what))));
    }

    /// When that was found last by this process, in microseconds since 1970, and what.
    pub fn last_replaced(&self) -> Option<Arc<(i64, String)>> {
        self.replaced.load_full()
    }
}

impl Status {
    /// The journal has come so far.
    pub fn set_watermarks(&self, to: Watermarks) {
        self.journal.set_watermarks(to);
        self.metrics.journal.captured_lsn.set(to.captured as i64);
        self.metrics.journal.written_lsn.set(to.written as i64);
        self.metrics.journal.durable_lsn.set(to.durable as i64);
    }

    /// How far the journal has come.
    pub fn watermarks(&self) -> Watermarks {
        self.journal.watermarks()
    }

    /// The present restorable window begins here, in microseconds since 1970.
    pub fn set_window_start(&self, us: i64) {
        self.journal.set_window_start(us);
        self.metrics.journal.window_start_seconds.set(us as f64 / 1e6);
    }

    /// The journal is complete up to here, in microseconds since 1970.
    pub fn set_window_end(&self, us: i64) {
        self.journal.set_window_end(us);
        self.metrics.journal.window_end_seconds.set(us as f64 / 1e6);
    }

    /// The present restorable window, in microseconds since 1970.
    pub fn window(&self) -> Option<(i64, i64)> {
        self.journal.window()
    }

    /// Age of the newest point in time up to which the journal is complete, in seconds; 0 before there is one.
    pub fn lag_seconds(&self) -> f64 {
        let complete = self.journal.window_end();
        if complete > 0 { ((now_us() - complete) as f64 / 1e6).max(0.0) } else { 0.0 }
    }

    /// Retention has removed a segment.
    pub fn segment_pruned(&self, bytes: u64) {
        self.journal.segment_pruned(bytes);
    }

    /// Bytes and number of the segments that were pruned since the start.
    pub fn pruned_segments(&self) -> (u64, u64) {
        self.journal.pruned_segments()
    }

    /// Errors since the start.
    pub fn errors(&self) -> &Errors {
        &self.errors
    }

    /// The page at `/metrics`.
    pub fn metrics_page(&self) -> String {
        // An age: it grows though nothing happens, above all when nothing happens.
        self.metrics.capture.lag_seconds.set(self.lag_seconds());
        self.metrics.page()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn why_recording_ended_stays_known_until_it_goes_on() {
        let status = Status::new(Metrics::new(Arc::default()).unwrap());
        assert_eq!(status.recording().reason, None);
        status.capture_because(CaptureState::Connecting, "the link ended".to_owned());
        status.capture(CaptureState::Connecting);
        assert_eq!(status.recording().reason.as_deref(), Some("the link ended"));
        status.capture_because(CaptureState::Failed, "the disk is full".to_owned());
        assert_eq!(status.recording().state, CaptureState::Failed);
        status.capture(CaptureState::Streaming);
        assert_eq!((status.recording().state, status.recording().reason.clone()), (CaptureState::Streaming, None));
    }

    #[test]
    fn the_gauge_and_the_reason_say_the_same() {
        let status = Status::new(Metrics::new(Arc::default()).unwrap());
        for round in 0..2000 {
            std::thread::scope(|scope| {
                scope.spawn(|| status.upstream_unreachable("refused"));
                scope.spawn(|| status.upstream_answers());
            });
            let reachable = status.unreachable().is_none();
            assert_eq!(status.metrics.upstream.up.get() == 1, reachable, "round {round}");
            assert_eq!(!status.is_unreachable.load(Ordering::Acquire), reachable, "round {round}");
        }
    }

    #[test]
    fn the_page_is_a_view_of_the_numbers() {
        let metrics = Metrics::new(Arc::default()).unwrap();
        let status = Status::new(metrics.clone());
        status.numbers.clients.sessions.inc();
        status.numbers.clients.commands.inc_by(3);
        status.numbers.clients.ack_waiting.add(4);
        status.numbers.clients.ack_waiting.add(-2);
        metrics.error("journal");
        status.numbers.capture.backlog_covers.set(2.5);
        status.numbers.journal.bytes.set(7);
        assert_eq!((status.errors().total(), status.errors().last().unwrap().kind.as_str()), (1, "journal"));
        // A page that is rendered again counts nothing twice.
        for page in [status.metrics_page(), status.metrics_page()] {
            for line in [
                "# TYPE redtape_commands_total counter",
                "redtape_commands_total 3",
                "redtape_sessions 1",
                "redtape_ack_waiting 2",
                "redtape_backlog_covers_seconds 2.5",
                "redtape_journal_bytes 7",
                "redtape_errors_total{kind=\"journal\"} 1",
            ] {
                assert!(page.lines().any(|l| l == line), "{line} in {page}");
            }
        }
    }

    #[test]
    fn a_backlog_that_covers_any_outage_is_shown_as_infinity() {
        let status = Status::new(Metrics::new(Arc::default()).unwrap());
        status.numbers.capture.backlog_covers.set(f64::INFINITY);
        let page = status.metrics_page();
        assert!(page.lines().any(|line| line == "redtape_backlog_covers_seconds +Inf"), "{page}");
        assert!(page.lines().all(|line| !line.ends_with(" inf")), "{page}");
    }

    #[tokio::test]
    async fn waiters_are_woken_when_the_server_answers_again() {
        let status = Status::new(Metrics::new(Arc::default()).unwrap());
        let called = async |status: &Status| {
            tokio::time::timeout(std::time::Duration::from_millis(20), status.server_back()).await.is_ok()
        };
        status.upstream_answers();
        assert!(!called(&status).await, "it was never away");
        status.upstream_unreachable("refused");
        assert_eq!(status.unreachable().as_deref().map(String::as_str), Some("refused"));
        status.upstream_answers();
        status.upstream_answers();
        assert!(status.unreachable().is_none() && called(&status).await);
        assert!(!called(&status).await, "once");
    }
}
