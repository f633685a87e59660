//! The journal as the capture uses it: attributed groups in, blocks to the writer, watermarks out.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use prometheus::local::LocalHistogram;
use redtape_journal::{
    Block, BlockBuilder, GroupRef, GroupTooLarge, Journal, Keyring, KeysAt, LARGE_BLOCK_BYTES, Lsn, MAX_QUEUED_BYTES,
    Micros, OpenError, RecordRef, Recovered, ReplOffset, SubmitError, TimelineId, TimelineStart, Writer, WriterFailure,
};
use redtape_telemetry::{Metrics, Status, Watermarks};
use redtape_wire::command::CommandTable;
use redtape_wire::effect::named_keys;
use tokio::sync::Notify;

use crate::automatic_marks::AutomaticMarks;
use crate::durability::DurabilityTracker;
use crate::group::Effect;
use crate::join::Attributed;
use crate::options::{CaptureConfig, KeyringHandle, Position, Tail, open_journal};

/// What the commands' side calls so, the journal's key filters understand.
const _: () = assert!(redtape_wire::effect::OTHERS_TOO == redtape_journal::OTHERS_TOO);

/// A block is handed over when it has grown to this size.
const BLOCK_BYTES: usize = 256 * 1024;
/// What comes so fast that a large block is there within this time is gathered, for so long at most; only where nobody waits for
/// the disk.
const GATHER: Duration = Duration::from_millis(20);
/// A slow disk has caught up when no more than this waits for it.
const DRAINED_BYTES: usize = MAX_QUEUED_BYTES / 4;
/// How often the writer is looked at that says nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Reports of the writer that wait to be looked at; beyond that the oldest goes.
const WRITTEN_MAX: usize = 256;
/// Requests whose way to the journal is being timed.
const TIMED_MAX: usize = 4096;

/// Why something was not handed to the journal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    /// The journal could not be opened again after a failure.
    #[error("it is not open")]
    NotOpen,
    /// The writer has stopped.
    #[error(transparent)]
    Stopped(WriterFailure),
    /// The writer does not take it.
    #[error(transparent)]
    Refused(SubmitError),
    /// A group that no block can hold.
    #[error(transparent)]
    TooLarge(#[from] GroupTooLarge),
    /// As much waits for the disk as may. What was given is kept.
    #[error("the disk is too slow: {} MiB wait for it", MAX_QUEUED_BYTES >> 20)]
    Slow,
}

/// See the module.
pub(crate) struct Recorder {
    writer: Option<Writer>,
    builder: BlockBuilder,
    /// When what the builder holds is handed over at the latest, if more may be gathered.
    gather_until: Option<Instant>,
    /// What the writer's full queue gave back; goes before all else.
    held_back: Option<Block>,
    tail: Tail,
    /// First offset and LSN of the present timeline.
    start: (ReplOffset, Lsn),
    complete_until: Micros,
    /// The base of the present timeline.
    base: Option<PathBuf>,
    progress: Arc<Notify>,
    /// What was written when.
    written: Arc<ArrayQueue<(Lsn, Micros)>>,
    timed: VecDeque<(Lsn, Micros)>,
    times: LocalHistogram,
    metrics: Metrics,
    status: Arc<Status>,
    durability: Arc<DurabilityTracker>,
    keyring: KeyringHandle,
    /// The keys that the writer has.
    keyring_in_use: Arc<Keyring>,
    /// What had been pruned when the writer counted its segments.
    pruned: (u64, u64),
    marks: AutomaticMarks,
}

impl Recorder {
    /// Takes the opened journal; gives where it ends. `sound`: what is in it is on the disk.
    pub(crate) fn start(
        opened: (Journal, Recovered),
        sound: bool,
        keyring: KeyringHandle,
        (metrics, status): (Metrics, Arc<Status>),
        durability: Arc<DurabilityTracker>,
        marks: AutomaticMarks,
    ) -> (Self, Option<Position>) {
        let (journal, recovered) = opened;
        for note in &recovered.notes {
            tracing::warn!("journal recovery: {note}");
        }
        let progress = Arc::new(Notify::new());
        let written = Arc::new(ArrayQueue::new(WRITTEN_MAX));
        let writer = journal.start({
            let (progress, written, durability) = (progress.clone(), written.clone(), durability.clone());
            move |p| {
                durability.synced(p);
                written.force_push((p.written_lsn, Micros::now()));
                progress.notify_one();
            }
        });
        let last = recovered.last.as_ref();
        let tail = last.map_or_else(Tail::default, |l| Tail { lsn: l.last_lsn, ts: l.last_ts, timeline: l.timeline });
        let offset = last.map_or(ReplOffset(0), |l| l.end_offset);
        let db = last.map_or(0, |l| l.db);
        // A repair begins a timeline of no source, so that a base is taken.
        let followed = last.filter(|l| !l.source_id.is_empty());
        let position = followed.map(|l| Position { timeline: l.timeline, replid: l.source_id.clone(), offset, db });
        if let Some(last) = last {
            durability.timeline(last.timeline, &last.source_id);
            if sound {
                durability.found(writer.progress());
            }
        }
        let recorder = Self {
            writer: Some(writer),
            builder: BlockBuilder::new(Lsn(tail.lsn.0 + 1), tail.ts, offset, db),
            gather_until: None,
            held_back: None,
            tail,
            start: (offset, Lsn(tail.lsn.0 + 1)),
            complete_until: last.map_or(Micros(0), |l| l.complete_until),
            base: None,
            progress,
            written,
            timed: VecDeque::new(),
            times: metrics.capture.request_to_journal_seconds.local(),
            pruned: status.pruned_segments(),
            metrics,
            status,
            durability,
            keyring,
            // Whatever it was opened with, the first block looks.
            keyring_in_use: Arc::default(),
            marks,
        };
        recorder.status.numbers.journal.timeline.set(i64::from(tail.timeline.0));
        (recorder, position)
    }

    /// After a failure: recovers what is on the disk and goes on from there.
    pub(crate) fn reopen(&mut self, config: &CaptureConfig, sound: bool) -> Result<Option<Position>, OpenError> {
        // The lock goes with the old writer; what it could not write is not there, so its error is no news.
        if let Some(old) = self.writer.take() {
            let _ = old.close();
        }
        let opened = open_journal(config)?;
        let began = opened.1.last.as_ref().is_some_and(|l| l.timeline >= self.tail.timeline);
        if let Some(base) = self.base.take().filter(|_| !began) {
            // Its timeline never began: an unusable full copy. What cannot be removed is set aside later.
            let _ = std::fs::remove_file(base.with_extension("json"));
            let _ = std::fs::remove_file(base);
        }
        let (fresh, position) = Self::start(
            opened,
            sound,
            self.keyring.clone(),
            (self.metrics.clone(), self.status.clone()),
            self.durability.clone(),
            self.marks.reopened(),
        );
        *self = fresh;
        Ok(position)
    }

    pub(crate) fn failed(&self) -> Option<RecordError> {
        match &self.writer {
            Some(writer) => writer.failed().map(RecordError::Stopped),
            None => Some(RecordError::NotOpen),
        }
    }

    /// The writer has failed in a way after which what it wrote may be on no disk, whatever a later sync says.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.writer.as_ref().is_some_and(|w| w.progress().doubtful)
    }

    pub(crate) fn last_timeline(&self) -> TimelineId {
        self.tail.timeline
    }

    pub(crate) fn tail(&self) -> Tail {
        self.tail
    }

    /// Up to this time, all was handed to the writer.
    pub(crate) fn complete_until(&self) -> Micros {
        self.complete_until
    }

    pub(crate) fn progress(&self) -> Arc<Notify> {
        self.progress.clone()
    }

    /// A timeline begins; its base is on the disk.
    pub(crate) fn begin(&mut self, start: TimelineStart, base: PathBuf) -> Result<(), RecordError> {
        self.base = Some(base);
        self.use_keys();
        let writer = self.writer.as_ref().ok_or(RecordError::NotOpen)?;
        self.durability.timeline(start.timeline, &start.source_id);
        let (timeline, offset, ts) = (start.timeline, start.offset, start.ts.max(self.tail.ts));
        writer.begin_timeline(start).map_err(RecordError::Refused)?;
        if self.tail.timeline > TimelineId(0) {
            self.status.numbers.journal.gaps.inc();
        }
        self.tail = Tail { ts, timeline, ..self.tail };
        self.start = (offset, Lsn(self.tail.lsn.0 + 1));
        self.complete_until = ts;
        self.builder = BlockBuilder::new(self.start.1, ts, offset, 0);
        self.status.numbers.journal.timeline.set(i64::from(timeline.0));
        self.status.set_window_start(ts.0);
        Ok(())
    }

    /// From here on the history of the timeline has another id. What was pushed has gone to the writer before.
    pub(crate) fn change_source(&mut self, replid: &str) -> Result<(), RecordError> {
        self.use_keys();
        let writer = self.writer.as_ref().ok_or(RecordError::NotOpen)?;
        writer.change_source(replid.to_owned()).map_err(RecordError::Refused)?;
        self.durability.timeline(self.tail.timeline, replid);
        Ok(())
    }

    /// Takes a group; true = the block is large enough to be handed over. It must be, before the next is taken.
    pub(crate) fn push(&mut self, attributed: &Attributed, table: &CommandTable) -> Result<bool, RecordError> {
        let group = &attributed.group;
        let lsn = push_group(&mut self.builder, attributed, table)?;
        self.builder.set_db(group.end_db);
        self.marks.look(attributed, (self.tail.lsn, lsn), self.writer.as_ref());
        self.tail = Tail { lsn, ts: attributed.ts, ..self.tail };
        if let Some(at) = attributed.stamped
            && self.timed.len() < TIMED_MAX
        {
            self.timed.push_back((lsn, at));
        }
        Ok(self.builder.len_bytes() >= BLOCK_BYTES)
    }

    /// Hands over what was pushed, unless `rate`, in bytes a second, makes a large block of it within [`GATHER`].
    pub(crate) fn gather(&mut self, complete_until: Option<Micros>, rate: f64) -> Result<(), RecordError> {
        let now = Instant::now();
        if self.builder.is_empty() || rate * GATHER.as_secs_f64() < LARGE_BLOCK_BYTES as f64 {
            return self.flush(complete_until);
        }
        if now < *self.gather_until.get_or_insert(now + GATHER) {
            return Ok(());
        }
        self.flush(complete_until)
    }

    /// When what is gathered must be handed over.
    pub(crate) fn gather_until(&self) -> Option<Instant> {
        self.gather_until
    }

    /// Hands over what was pushed.
    pub(crate) fn flush(&mut self, complete_until: Option<Micros>) -> Result<(), RecordError> {
        self.gather_until = None;
        if self.builder.is_empty() {
            return Ok(());
        }
        self.complete_until = self.complete_until.max(complete_until.unwrap_or_default());
        let block = self.builder.finish(self.complete_until);
        self.submit(block)
    }

    /// Resolves when what was held back is with the writer.
    pub(crate) async fn drained(&mut self) -> Result<(), RecordError> {
        while let Some(block) = self.held_back.take() {
            match self.submit(block) {
                Err(RecordError::Slow) => self.some_progress().await,
                done => done?,
            }
        }
        // Not one block's room: else the next read would be too much again.
        while let Some(writer) = self.writer.as_ref().filter(|w| w.queued_bytes() > DRAINED_BYTES) {
            if let Some(why) = writer.failed() {
                return Err(RecordError::Stopped(why));
            }
            self.some_progress().await;
        }
        Ok(())
    }

    /// Syncs what little there is; gives how long that took, without what was under way before. Does not borrow the recorder.
    pub(crate) fn timed_sync(&self) -> impl Future<Output = Result<Duration, RecordError>> + use<> {
        let (writer, progress) = (self.writer.clone(), self.progress.clone());
        async move {
            let Some(writer) = writer else { return Err(RecordError::NotOpen) };
            let mut took = Duration::ZERO;
            // The first may be waiting for one that is under way.
            for _ in 0..2 {
                let (syncs, began) = (writer.progress().syncs, Instant::now());
                writer.sync_now();
                while writer.progress().syncs == syncs {
                    if let Some(why) = writer.failed() {
                        return Err(RecordError::Stopped(why));
                    }
                    let _ = tokio::time::timeout(LOOK_AGAIN, progress.notified()).await;
                }
                took = began.elapsed();
            }
            Ok(took)
        }
    }

    async fn some_progress(&self) {
        // A writer that panics wakes no waiter.
        let _ = tokio::time::timeout(LOOK_AGAIN, self.progress.notified()).await;
    }

    /// Everything that is no effect up to `offset` is known to be none: who waits for it waits for what was pushed.
    pub(crate) fn reached(&self, offset: ReplOffset) {
        self.durability.reached(self.tail.timeline, self.tail.lsn, offset);
    }

    /// After a failure: writes something and asks for a sync, to see whether that works again.
    pub(crate) fn try_disk(&mut self) -> Result<(), RecordError> {
        let block = self.builder.finish(self.complete_until);
        self.submit(block)?;
        self.sync_now();
        Ok(())
    }

    /// Nothing new up to `until`: keeps the end of the window moving.
    pub(crate) fn heartbeat(&mut self, until: Micros, offset: ReplOffset, db: u32) -> Result<(), RecordError> {
        if until <= self.complete_until {
            return Ok(());
        }
        self.flush(Some(until))?;
        self.complete_until = until;
        self.builder.set_db(db);
        self.builder.set_end_offset(offset);
        let block = self.builder.finish(until);
        self.submit(block)
    }

    /// Gives the writer the keys that a reload has brought: from the next file on it uses them.
    fn use_keys(&mut self) {
        let keyring = self.keyring.load();
        if *keyring != self.keyring_in_use
            && let Some(writer) = &self.writer
        {
            self.keyring_in_use = Arc::clone(&keyring);
            writer.set_keyring(Keyring::clone(&keyring));
        }
    }

    fn submit(&mut self, block: Block) -> Result<(), RecordError> {
        self.use_keys();
        let Some(writer) = &self.writer else { return Err(RecordError::NotOpen) };
        match writer.try_submit(block) {
            Ok(()) => Ok(()),
            Err((back, SubmitError::Full)) => {
                self.held_back = Some(back);
                Err(RecordError::Slow)
            }
            Err((_, e)) => Err(RecordError::Refused(e)),
        }
    }

    /// Asks for a sync whatever the policy.
    pub(crate) fn sync_now(&self) {
        if let Some(writer) = &self.writer {
            writer.sync_now();
        }
    }

    /// Up to where the present timeline is synced.
    pub(crate) fn durable_offset(&self) -> ReplOffset {
        let (offset, first) = self.start;
        match self.writer.as_ref().map(Writer::watermarks) {
            Some(w) if w.durable_lsn >= first => w.durable_offset.max(offset),
            _ => offset,
        }
    }

    /// The last record that is synced.
    pub(crate) fn durable_lsn(&self) -> Lsn {
        self.writer.as_ref().map_or(Lsn(0), |w| w.progress().durable_lsn)
    }

    /// Exports the watermarks; times what has arrived.
    pub(crate) fn export(&mut self) {
        let Some(w) = self.writer.as_ref().map(Writer::watermarks) else { return };
        while let Some((written, when)) = self.written.pop() {
            while let Some((_, at)) = self.timed.pop_front_if(|(lsn, _)| *lsn <= written) {
                self.times.observe((when.0 - at.0).max(0) as f64 / 1e6);
            }
        }
        self.times.flush();
        self.status.set_watermarks(Watermarks {
            captured: self.tail.lsn.0,
            written: w.written_lsn.0,
            durable: w.durable_lsn.0,
        });
        let (bytes, segments) = self.status.pruned_segments();
        self.status.numbers.journal.bytes.set(w.journal_bytes as i64 - (bytes - self.pruned.0) as i64);
        self.status.numbers.journal.segments.set(w.segments as i64 - (segments - self.pruned.1) as i64);
        // What the writer has not written yet cannot be restored.
        self.status.set_window_end(w.complete_until.0);
    }

    /// Writes what is queued and seals the tail.
    pub(crate) fn close(&mut self) {
        if let Some(writer) = self.writer.take() {
            match writer.close() {
                Ok(()) => tracing::info!(lsn = self.tail.lsn.0, "the journal is sealed"),
                Err(e) => tracing::error!(error = %e, "the journal could not be sealed; the next start recovers it"),
            }
        }
        self.marks.close();
    }
}

pub(crate) fn push_group(
    builder: &mut BlockBuilder,
    attributed: &Attributed,
    table: &CommandTable,
) -> Result<Lsn, GroupTooLarge> {
    let group = &attributed.group;
    let push = |builder: &mut BlockBuilder, records: &[RecordRef<'_>]| {
        let group = GroupRef {
            ts: attributed.ts,
            slack: attributed.slack,
            origin: &attributed.origin,
            atomic: group.atomic,
            end_offset: group.end_offset,
            records,
        };
        builder.push(&group)
    };
    if let [effect] = &group.effects[..] {
        let args = effect.args();
        let keys = named_keys(table, &args);
        return push(builder, &[RecordRef { db: effect.db, args: &args, keys: lend(keys.as_deref()) }]);
    }
    // Arguments are lent one effect at a time; a group needs them all at once.
    let args: Vec<_> = group.effects.iter().map(Effect::args).collect();
    let keys: Vec<_> = args.iter().map(|args| named_keys(table, args)).collect();
    let records: Vec<_> = group
        .effects
        .iter()
        .zip(args.iter().zip(&keys))
        .map(|(e, (args, keys))| RecordRef { db: e.db, args, keys: lend(keys.as_deref()) })
        .collect();
    push(builder, &records)
}

fn lend(keys: Option<&[usize]>) -> KeysAt<'_> {
    keys.map_or(KeysAt::Unknown, KeysAt::Arguments)
}
