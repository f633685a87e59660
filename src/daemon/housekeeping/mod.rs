//! Housekeeping: scheduled snapshots, and the pruning of what retention no longer keeps.
//!
//! One thread looks at the clock once a second. When a snapshot is due, or a base is wanted behind a change of the replication id, and none is running, it takes one; the
//! last one's time is the journal's own, so that a restart changes nothing. It prunes after each snapshot
//! and now and then; `redtape_journal`'s `prune` says what goes and what a crash leaves. Settings are looked up
//! each time: SIGHUP changes them.
//!
//! What fails is logged, counted (`redtape_errors_total{kind="snapshot"|"prune"}`) and tried again.

mod schedule;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redtape_capture::KeyringHandle;
use redtape_capture::snapshot::{SnapshotRunning, SnapshotSlot, Taking, take};
use redtape_journal::{Catalog, ItemKind, Keyring, Micros, PruneError, PrunePlan, Retention, SnapshotKind, prune};
use redtape_net::Connector;
use redtape_proxy::Parts;
use redtape_telemetry::{CaptureState, Metrics, Status};
use tokio::sync::watch;

use self::schedule::Schedule;
pub(crate) use self::schedule::Settings;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);
/// A snapshot that failed is tried again after this time, at most.
const RETRY: Duration = Duration::from_mins(1);
/// So is a base behind a change of the replication id: until it stands, what lies between is labelled.
const BASE_RETRY: Duration = Duration::from_secs(10);
/// What it works on.
pub(crate) struct Housekeeping {
    /// The journal.
    pub(crate) dir: PathBuf,
    /// The server that is followed.
    pub(crate) source: Connector,
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) keyring: KeyringHandle,
    pub(crate) metrics: Metrics,
    pub(crate) status: Arc<Status>,
    /// The place of the one snapshot, scheduled or asked for.
    pub(crate) snapshots: SnapshotSlot,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What it remembers from look to look.
#[derive(Default)]
struct Memory {
    /// Point in time of the last snapshot, as far as it was looked up.
    last: Option<Micros>,
    /// After a failure, no snapshot before this.
    not_before: Option<Instant>,
    /// When retention is enforced next.
    prune_at: Option<Instant>,
    /// What was last said of the size limit, so that it is said once.
    said: (bool, bool),
    /// A process reads, and that was logged.
    waits: bool,
}

impl Housekeeping {
    /// Runs until `stop` says so; what is in work is given up then, and nothing of it stays.
    pub(crate) fn start(self, parts: &Parts) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        parts.thread("housekeeping", move || runtime.block_on(self.run()))
    }

    async fn run(self) {
        let (mut memory, mut stop) = (Memory::default(), self.stop.clone());
        loop {
            tokio::select! {
                _ = stop.wait_for(|on| *on) => return,
                () = tokio::time::sleep(TICK) => {}
            }
            let settings = **self.settings.load();
            tokio::select! {
                _ = stop.wait_for(|on| *on) => return,
                () = self.snapshot_if_due(&settings, &mut memory) => {}
            }
            if settings.retention.is_set() && memory.prune_at.is_none_or(|at| Instant::now() >= at) {
                self.prune(&settings.retention, &mut memory);
                memory.prune_at = Some(Instant::now() + settings.prune_every());
            }
        }
    }

    async fn snapshot_if_due(&self, settings: &Settings, memory: &mut Memory) {
        // While nothing is captured, a snapshot would fit nowhere; other alarms say so.
        let must_wait = memory.not_before.is_some_and(|at| Instant::now() < at);
        if must_wait || self.status.recording().state != CaptureState::Streaming {
            return;
        }
        if self.status.wants_base() {
            return self.take_base(settings, memory).await;
        }
        let Some(schedule) = settings.schedule else { return };
        let is_time = |last| schedule.next_due(Micros::now(), last) <= Micros::now();
        if !is_time(memory.last) {
            return;
        }
        // A base may have been taken since it was looked up.
        memory.last = self.last_snapshot();
        if !is_time(memory.last) {
            return;
        }
        let Some(running) = self.snapshots.begin() else {
            tracing::warn!("a snapshot is due, but another one is still running: this one is skipped");
            self.metrics.housekeeping.snapshots.with_label_values(&["skipped"]).inc();
            memory.last = Some(Micros::now());
            return;
        };
        let pause = match schedule {
            Schedule::Every(period) => period.min(RETRY),
            Schedule::At(_) => RETRY,
        };
        self.take(SnapshotKind::Scheduled, running, pause, settings, memory).await;
    }

    /// Behind a change of the replication id, beside the stream. Who takes a snapshot meanwhile is waited for.
    async fn take_base(&self, settings: &Settings, memory: &mut Memory) {
        let Some(running) = self.snapshots.begin() else { return };
        self.status.begins_base();
        if !self.take(SnapshotKind::Base, running, BASE_RETRY, settings, memory).await {
            self.status.want_base();
        }
    }

    /// Whether it was taken; a failure is tried again after `pause`.
    async fn take(
        &self,
        kind: SnapshotKind,
        running: SnapshotRunning,
        pause: Duration,
        settings: &Settings,
        memory: &mut Memory,
    ) -> bool {
        self.metrics.housekeeping.snapshot_running.set(1);
        let _not_running = scope_end(|| self.metrics.housekeeping.snapshot_running.set(0));
        let begun = Instant::now();
        let keyring = Keyring::clone(&self.keyring.load());
        let taken = take(&self.dir, &self.source, Taking { kind, rate: settings.rate, keyring }).await;
        drop(running);
        let what = if kind == SnapshotKind::Base { "base" } else { "scheduled snapshot" };
        match taken {
            Ok(taken) => {
                let seconds = begun.elapsed().as_secs_f64();
                tracing::info!(lsn = taken.lsn.0, bytes = taken.bytes, seconds, "{what} taken");
                self.metrics.housekeeping.snapshots.with_label_values(&["taken"]).inc();
                self.metrics.housekeeping.snapshot_duration_seconds.set(seconds);
                self.metrics.housekeeping.snapshot_bytes.set(taken.bytes as i64);
                self.metrics.housekeeping.snapshot_last_seconds.set(taken.ts.0 as f64 / 1e6);
                (memory.last, memory.prune_at) = (Some(taken.ts), None);
                true
            }
            Err(error) => {
                self.metrics.error("snapshot");
                self.metrics.housekeeping.snapshots.with_label_values(&["failed"]).inc();
                tracing::error!(%error, again_in_seconds = pause.as_secs(), "the {what} failed");
                memory.not_before = Some(Instant::now() + pause);
                false
            }
        }
    }

    /// The moment of the newest base or scheduled snapshot. What was taken by hand does not shift the schedule.
    fn last_snapshot(&self) -> Option<Micros> {
        let catalog = Catalog::open(&self.dir).ok()?;
        let ours = catalog.snapshots().iter().filter(|s| s.manifest.kind != SnapshotKind::Manual);
        let last = ours.map(|s| s.manifest.ts).max();
        self.metrics.housekeeping.snapshot_last_seconds.set(last.map_or(0.0, |ts| ts.0 as f64 / 1e6));
        last
    }

    fn prune(&self, retention: &Retention, memory: &mut Memory) {
        let mut on_removed = |item: &redtape_journal::PruneItem| {
            let is_segment = item.kind == ItemKind::Segment;
            if is_segment {
                self.status.segment_pruned(item.bytes);
            }
            let kind = if is_segment { "segment" } else { "snapshot" };
            self.metrics.housekeeping.pruned_bytes.with_label_values(&[kind]).inc_by(item.bytes);
            self.metrics.housekeeping.pruned_files.with_label_values(&[kind]).inc();
        };
        match prune(&self.dir, retention, Micros::now(), &mut on_removed, &|| *self.stop.borrow()) {
            Ok(plan) => {
                memory.waits = false;
                self.pruned(&plan, memory);
            }
            Err(PruneError::Stopped) => {}
            Err(error @ (PruneError::InUse { .. } | PruneError::Busy { .. })) => {
                if !std::mem::replace(&mut memory.waits, true) {
                    tracing::warn!("retention waits: {error}");
                }
            }
            Err(error) => {
                self.metrics.error("prune");
                tracing::error!(%error, "what is older than the retention cannot be removed");
            }
        }
    }

    fn pruned(&self, plan: &PrunePlan, memory: &mut Memory) {
        self.metrics.housekeeping.prune_last_seconds.set(Micros::now().0 as f64 / 1e6);
        let over = plan.shortfall.map_or(0, |s| s.bytes - s.limit);
        self.metrics.housekeeping.over_limit_bytes.set(over as i64);
        if let (false, Some(window)) = (plan.is_empty(), plan.windows_after.last()) {
            self.status.set_window_start(window.from.0);
            tracing::info!(
                files = plan.removed().count(),
                bytes = plan.bytes_before - plan.bytes_after,
                restorable_from = %window.from,
                "pruned by retention"
            );
        }
        let (cut_short, short) = (plan.cut_short && plan.promised_from.is_some(), over > 0);
        if cut_short && !memory.said.0 {
            tracing::warn!(
                "journal-max-size removes points in time that retention would keep: raise it, or lower retention"
            );
        }
        if short && !memory.said.1 {
            tracing::warn!(
                over_bytes = over,
                "journal-max-size cannot be met: the last base and everything after it stay; take snapshots more often"
            );
        }
        // The first runs into it whenever the journal grows: once is enough.
        memory.said = (memory.said.0 || cut_short, short);
    }
}

/// A base behind the last change of the replication id is missing: the process may have ended before it was taken.
pub(crate) fn lacks_base(catalog: &Catalog) -> bool {
    let timelines = catalog.timelines();
    let Some(timeline) = timelines.last() else { return false };
    let Some(change) = timeline.source_changes.last() else { return false };
    !catalog
        .snapshots()
        .iter()
        .map(|s| &s.manifest)
        .any(|m| m.timeline == timeline.id && m.source_id == change.after && m.offset >= change.offset)
}

/// Runs `end` when dropped, also when what is waited for is given up.
fn scope_end<F: Fn()>(end: F) -> impl Drop {
    struct End<F: Fn()>(F);
    impl<F: Fn()> Drop for End<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    End(end)
}
