//! How far the journal is on the disk, for those who wait for it; and whether writes may pass.
//!
//! ```text
//! journal's thread ── synced ──┐
//! capture ── timeline, reached ┼─► position (replication id, offset) ─► workers, woken
//! capture ── failure, following┘   gate ─► workers, asked for each write
//! ```
//!
//! Invariant: whatever the server did in the history `replid` up to `offset` is synced, or was no write. An offset
//! says nothing without its history: a server that restarts counts anew.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mio::Waker;
use redtape_journal::{Lsn, Progress, ReplOffset, TimelineId};

/// Without a link to the server for so long, the journal counts as not following: a short interruption is
/// nothing that a client has to hear of.
const FOLLOW_GRACE: Duration = Duration::from_secs(3);

/// Up to where a history is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurablePosition {
    /// The server's replication id.
    pub replid: Arc<str>,
    /// Its replication offset.
    pub offset: ReplOffset,
}

impl DurablePosition {
    /// What the server had done at this offset of this history is on the disk.
    #[inline]
    pub fn covers(&self, replid: &str, offset: ReplOffset) -> bool {
        *self.replid == *replid && self.offset >= offset
    }
}

/// When writes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Never.
    Open,
    /// While the journal cannot be written.
    Journal,
    /// Also while it does not follow the server: what is written then cannot be acknowledged.
    Follow,
}

/// A worker that may wait for the position.
#[derive(Debug)]
pub struct Waiter {
    /// It waits.
    pub wants: AtomicBool,
    waker: Arc<Waker>,
}

impl Waiter {
    fn wake(&self) {
        if let Err(e) = self.waker.wake() {
            tracing::error!(error = %e, "cannot wake a worker");
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The last two timelines and their histories: one may begin while blocks of the other are still being written.
    histories: [Option<(TimelineId, Arc<str>)>; 2],
    progress: Progress,
    /// In this timeline, everything behind this LSN and up to this offset was no write.
    reached: Option<(TimelineId, Lsn, ReplOffset)>,
    failure: Option<String>,
    /// After a failure: the count of syncs in the first report of the new writer. A higher one ends the failure.
    syncs_after_failure: Option<u64>,
    /// `None` = the stream is being followed.
    disconnected_since: Option<Instant>,
}

/// How far the journal is on the disk, and whether writes may pass. Shared by capture and workers.
#[derive(Debug)]
pub struct DurabilityTracker {
    gate: Gate,
    position: ArcSwap<DurablePosition>,
    state: Mutex<State>,
    /// Something is wrong; what, is in `state`.
    doubtful: AtomicBool,
    waiters: Mutex<Vec<Arc<Waiter>>>,
}

impl DurabilityTracker {
    /// Nothing is followed yet.
    pub fn new(gate: Gate) -> Self {
        // Not following yet, and no grace for that.
        let long_ago = Instant::now().checked_sub(FOLLOW_GRACE).unwrap_or_else(Instant::now);
        Self {
            gate,
            position: ArcSwap::from_pointee(DurablePosition { replid: "".into(), offset: ReplOffset(0) }),
            state: Mutex::new(State { disconnected_since: Some(long_ago), ..State::default() }),
            doubtful: AtomicBool::new(true),
            waiters: Mutex::default(),
        }
    }

    /// Clients wait until replies are covered, so latency matters.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.gate == Gate::Follow
    }

    /// Writes may be refused.
    #[inline]
    pub fn gates_writes(&self) -> bool {
        self.gate != Gate::Open
    }

    /// Up to where all is durable.
    #[inline]
    pub fn position(&self) -> Arc<DurablePosition> {
        self.position.load_full()
    }

    /// A worker that will be woken when the position moves, whenever it `wants`.
    pub fn waiter(&self, waker: Arc<Waker>) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter { wants: AtomicBool::new(false), waker });
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&waiter));
        waiter
    }

    /// A timeline goes on or is about to begin: of which history it is.
    pub(crate) fn timeline(&self, id: TimelineId, replid: &str) {
        let mut state = self.lock();
        state.reached = None;
        if state.histories[1].as_ref().is_none_or(|(known, _)| *known != id) {
            state.histories.swap(0, 1);
        }
        state.histories[1] = Some((id, replid.into()));
    }

    /// The journal's writer has come so far.
    pub(crate) fn synced(&self, progress: Progress) {
        let mut state = self.lock();
        state.progress = progress;
        if progress.failed {
            state.failure.get_or_insert_with(|| "its writer has stopped".to_owned());
            state.syncs_after_failure = None;
        } else if state.failure.is_some() && *state.syncs_after_failure.get_or_insert(progress.syncs) < progress.syncs {
            (state.failure, state.syncs_after_failure) = (None, None);
        }
        self.renew(state);
    }

    /// A journal was opened: so much of it was there and is synced.
    pub(crate) fn found(&self, progress: Progress) {
        let mut state = self.lock();
        state.progress = progress;
        state.reached = None;
        self.renew(state);
    }

    /// All writes up to `offset` have an LSN up to `lsn`.
    pub(crate) fn reached(&self, timeline: TimelineId, lsn: Lsn, offset: ReplOffset) {
        let mut state = self.lock();
        if state.reached != Some((timeline, lsn, offset)) {
            state.reached = Some((timeline, lsn, offset));
            self.renew(state);
        }
    }

    /// The journal cannot be written; it is all right again when something was synced.
    pub(crate) fn report_failure(&self, why: &str) {
        let mut state = self.lock();
        state.failure = Some(why.to_owned());
        // The next writer counts anew.
        state.syncs_after_failure = None;
        self.doubtful.store(true, Ordering::Release);
    }

    /// Whether something must be synced before writes are let through.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// The server's stream is being followed, or not.
    pub(crate) fn following(&self, on: bool) {
        let mut state = self.lock();
        if on {
            state.disconnected_since = None;
        } else {
            state.disconnected_since.get_or_insert_with(Instant::now);
        }
        self.renew(state);
        if on {
            // Some may wait for this, and not for a position.
            self.wake(|_| true);
        }
    }

    /// The server's stream is being followed now.
    pub fn is_following(&self) -> bool {
        self.lock().disconnected_since.is_none()
    }

    /// Why a write must not pass now, if so: a sentence for the client, without the error's code.
    #[inline]
    pub fn refuses(&self) -> Option<String> {
        if self.gate == Gate::Open || !self.doubtful.load(Ordering::Acquire) {
            return None;
        }
        self.doubt()
    }

    #[cold]
    fn doubt(&self) -> Option<String> {
        let state = self.lock();
        if let Some(why) = &state.failure {
            // A client reads one line.
            let why = why.replace(['\r', '\n'], " ");
            return Some(format!("redtape: the journal cannot be written ({why}); writes are refused until it can"));
        }
        let disconnected =
            self.gate == Gate::Follow && state.disconnected_since.is_some_and(|at| at.elapsed() >= FOLLOW_GRACE);
        disconnected.then(|| {
            "redtape: the journal does not follow the server at present (a full copy is under way, or there is no \
             link to it); writes are refused until it does"
                .to_owned()
        })
    }

    /// Derives the position and wakes those who wait for it.
    fn renew(&self, state: MutexGuard<'_, State>) {
        self.doubtful.store(state.failure.is_some() || state.disconnected_since.is_some(), Ordering::Release);
        let progress = &state.progress;
        let history = state.histories.iter().flatten().find(|(id, _)| *id == progress.timeline);
        let Some((_, replid)) = history else { return };
        let mut offset = progress.durable_offset;
        if let Some((timeline, lsn, reached)) = state.reached
            && timeline == progress.timeline
            && progress.durable_lsn >= lsn
        {
            offset = offset.max(reached);
        }
        let position = DurablePosition { replid: Arc::clone(replid), offset };
        if *self.position.load_full() == position {
            return;
        }
        self.position.store(Arc::new(position));
        drop(state);
        self.wake(|waiter| waiter.wants.swap(false, Ordering::AcqRel));
    }

    fn wake(&self, who: impl Fn(&Waiter) -> bool) {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.iter().filter(|waiter| who(waiter)).for_each(|waiter| waiter.wake());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(timeline: u32, lsn: u64, offset: u64, syncs: u64) -> Progress {
        Progress {
            timeline: TimelineId(timeline),
            durable_lsn: Lsn(lsn),
            durable_offset: ReplOffset(offset),
            syncs,
            ..Progress::default()
        }
    }

    #[test]
    fn the_mark_is_of_the_history_that_is_on_the_disk() {
        let durability = DurabilityTracker::new(Gate::Follow);
        durability.timeline(TimelineId(1), "one");
        durability.synced(progress(1, 5, 500, 1));
        assert!(durability.position().covers("one", ReplOffset(500)));
        assert!(
            !durability.position().covers("one", ReplOffset(501))
                && !durability.position().covers("two", ReplOffset(3))
        );
        // The next one is named before anything of it is on the disk.
        durability.timeline(TimelineId(2), "two");
        durability.synced(progress(1, 6, 600, 2));
        assert!(durability.position().covers("one", ReplOffset(600)));
        durability.synced(progress(2, 6, 40, 3));
        assert!(
            durability.position().covers("two", ReplOffset(40)) && !durability.position().covers("one", ReplOffset(1))
        );
        // An unnamed source covers nothing.
        durability.synced(progress(3, 9, 90, 4));
        assert!(
            durability.position().covers("two", ReplOffset(40)) && !durability.position().covers("two", ReplOffset(41))
        );
    }

    #[test]
    fn the_end_of_a_stream_without_writes_is_durable_with_the_writes_before_it() {
        let durability = DurabilityTracker::new(Gate::Follow);
        durability.timeline(TimelineId(1), "one");
        durability.synced(progress(1, 5, 500, 1));
        durability.reached(TimelineId(1), Lsn(6), ReplOffset(700));
        assert_eq!(durability.position().offset, ReplOffset(500));
        durability.synced(progress(1, 6, 600, 2));
        assert_eq!(durability.position().offset, ReplOffset(700));
        durability.reached(TimelineId(1), Lsn(6), ReplOffset(714));
        assert_eq!(durability.position().offset, ReplOffset(714));
        // Another timeline's offsets are others.
        durability.timeline(TimelineId(2), "two");
        durability.synced(progress(2, 6, 10, 3));
        assert_eq!(durability.position().offset, ReplOffset(10));
    }

    #[test]
    fn writes_pass_only_where_they_may() {
        for (gate, at_first, failed) in
            [(Gate::Open, false, false), (Gate::Journal, false, true), (Gate::Follow, true, true)]
        {
            let durability = DurabilityTracker::new(gate);
            assert_eq!(durability.refuses().is_some(), at_first, "{gate:?} before the first copy");
            durability.following(true);
            assert_eq!(durability.refuses(), None, "{gate:?}");
            durability.following(false);
            assert_eq!(durability.refuses(), None, "{gate:?}: a short interruption");
            durability.following(true);
            durability.report_failure("No space left\r\non device");
            let refused = durability.refuses();
            assert_eq!(refused.is_some(), failed, "{gate:?}");
            assert!(refused.is_none_or(|s| s.contains("No space left  on device")));
            // A failed writer's last words change nothing, a sync does.
            durability.synced(Progress { failed: true, ..progress(1, 1, 1, 7) });
            assert_eq!(durability.refuses().is_some(), failed, "{gate:?}");
            // The next writer counts anew; what it says first, it says before it syncs.
            durability.synced(progress(1, 1, 1, 1));
            assert_eq!(durability.refuses().is_some(), failed, "{gate:?}");
            durability.synced(progress(1, 1, 1, 2));
            assert_eq!(durability.refuses(), None, "{gate:?}");
        }
    }

    #[test]
    fn a_waiter_is_woken_once() {
        let poll = mio::Poll::new().expect("a poll");
        let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).expect("a waker"));
        let durability = DurabilityTracker::new(Gate::Follow);
        durability.timeline(TimelineId(1), "one");
        let waiter = durability.waiter(waker);
        durability.synced(progress(1, 1, 1, 1));
        assert!(!waiter.wants.load(Ordering::Acquire));
        waiter.wants.store(true, Ordering::Release);
        // Nothing new, no waiter is woken.
        durability.synced(progress(1, 1, 1, 2));
        assert!(waiter.wants.load(Ordering::Acquire));
        durability.synced(progress(1, 2, 2, 3));
        assert!(!waiter.wants.load(Ordering::Acquire));
    }
}
