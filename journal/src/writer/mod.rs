//! The writer: one thread that appends blocks in order, syncs by policy, and publishes how far it
//! is.
//!
//! ```text
//! submit ─► queue (bounded) ─► thread: append ─► sync ─► watermarks, callback
//!                                        └─► seal ─► compacted in the background
//! ```
//!
//! Invariants: `durable <= written`, both never go back within a timeline; blocks are written in the
//! order in which they were submitted. After a failed write or sync the writer is finished until
//! the journal is opened again: a retried sync can lie. Everything submitted later is refused, and
//! nothing that was not synced is ever reported as durable.
//!
//! Crash: what is behind `durable` may be lost or torn; what is before it is found by the next open.

mod append;
mod queue;
#[cfg(test)]
mod tests;
mod thread;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub(crate) use append::{Appender, AppenderOptions};
pub use queue::MAX_QUEUED_BYTES;
use queue::{End, Item, Queue};

use crate::block::Block;
use crate::crypto::Keyring;
use crate::error::{AppendError, SubmitError, WriterFailure};
use crate::types::{Lsn, Micros, ReplOffset, SyncPolicy, TimelineId};

/// The two watermarks at one point in time; `durable_* <= written_*`. Between a new timeline's beginning and its first
/// block both stand at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Last LSN handed to the page cache.
    pub written_lsn: Lsn,
    /// Last LSN on the device.
    pub durable_lsn: Lsn,
    /// Position in the source up to which all is written.
    pub written_offset: ReplOffset,
    /// Position in the source up to which all is durable.
    pub durable_offset: ReplOffset,
    /// Time of the last group written.
    pub written_ts: Micros,
    /// Time of the last group made durable.
    pub durable_ts: Micros,
    /// What is written is complete up to this time.
    pub complete_until: Micros,
    /// Timeline of both offsets; 0 before the first.
    pub timeline: TimelineId,
    /// How often what is written was synced.
    pub syncs: u64,
    /// The writer has stopped for good; see [`Writer::failed`].
    pub failed: bool,
    /// It has, and what was written but not synced may be lost although a later sync says otherwise.
    pub doubtful: bool,
}

/// What the writer has done so far; the first seven as in [`Progress`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// Last LSN handed to the page cache.
    pub written_lsn: Lsn,
    /// Last LSN on the device.
    pub durable_lsn: Lsn,
    /// Position in the source up to which all is written.
    pub written_offset: ReplOffset,
    /// Position in the source up to which all is durable.
    pub durable_offset: ReplOffset,
    /// Time of the last group written.
    pub written_ts: Micros,
    /// Time of the last group made durable.
    pub durable_ts: Micros,
    /// What is written is complete up to this time.
    pub complete_until: Micros,
    /// Bytes in all segments.
    pub journal_bytes: u64,
    /// Number of segments.
    pub segments: u64,
    /// Why the writer has stopped, if it has.
    pub last_error: Option<WriterFailure>,
}

/// How a timeline begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineStart {
    /// Its number; greater than the one before.
    pub timeline: TimelineId,
    /// Id of its source (Redis: the replication id).
    pub source_id: String,
    /// Position in the source at which it begins.
    pub offset: ReplOffset,
    /// Why, for a person to read.
    pub reason: String,
    /// When.
    pub ts: Micros,
}

/// What the thread publishes; one lock, so that the numbers belong together.
#[derive(Debug, Clone, Copy, Default)]
struct Published {
    progress: Progress,
    journal_bytes: u64,
    segments: u64,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Queue,
    published: Mutex<Published>,
}

/// Handle of the writer's thread; clones share it. Dropping the last one without
/// [`Writer::close`] writes and syncs what is queued but leaves the segment unsealed, as after a
/// crash.
#[derive(Debug, Clone)]
pub struct Writer {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    keyring: Arc<Mutex<Keyring>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(crate) fn spawn(appender: Appender, sync: SyncPolicy, on_progress: impl Fn(Progress) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let keyring = appender.keyring();
        let thread = thread::spawn(&shared, appender, sync, on_progress);
        Self { handle: Arc::new(Handle { shared, keyring, thread: Mutex::new(thread) }) }
    }

    /// Queues a block; waits while more than [`MAX_QUEUED_BYTES`] are queued.
    pub fn submit(&self, block: Block) -> Result<(), SubmitError> {
        self.push(Item::Block(block))
    }

    /// Queues a block without waiting; gives it back with the reason if it cannot be taken.
    #[expect(clippy::result_large_err, reason = "the caller gets its block back")]
    pub fn try_submit(&self, block: Block) -> Result<(), (Block, SubmitError)> {
        match self.handle.shared.queue.push(Item::Block(block), false) {
            Err((Item::Block(block), reason)) => Err((block, reason)),
            Ok(()) | Err((Item::Timeline(_) | Item::Source(_), _)) => Ok(()),
        }
    }

    /// Begins a timeline after the blocks submitted so far; blocks submitted later belong to it. It
    /// is durable before the next block is written.
    pub fn begin_timeline(&self, start: TimelineStart) -> Result<(), SubmitError> {
        self.push(Item::Timeline(start))
    }

    /// From here on, the timeline's source has another id: behind the blocks submitted so far, a segment begins that says so, in
    /// the same timeline. It is durable before the next block is written. Nothing happens if the id is the present one.
    pub fn change_source(&self, source_id: String) -> Result<(), SubmitError> {
        self.push(Item::Source(source_id))
    }

    fn push(&self, item: Item) -> Result<(), SubmitError> {
        self.handle.shared.queue.push(item, true).map_err(|(_, reason)| reason)
    }

    /// From now on, segments are begun with these keys; the one in use keeps its own.
    pub fn set_keyring(&self, keyring: Keyring) {
        *self.handle.keyring.lock().unwrap_or_else(PoisonError::into_inner) = keyring;
    }

    /// Asks for a sync soon of what was submitted so far, whatever the policy.
    pub fn sync_now(&self) {
        self.handle.shared.queue.ask_sync();
    }

    /// Bytes waiting to be written.
    pub fn queued_bytes(&self) -> usize {
        self.handle.shared.queue.bytes()
    }

    /// How far the writer is.
    pub fn watermarks(&self) -> Watermarks {
        let Published { progress: p, journal_bytes, segments } = self.handle.shared.read();
        Watermarks {
            written_lsn: p.written_lsn,
            durable_lsn: p.durable_lsn,
            written_offset: p.written_offset,
            durable_offset: p.durable_offset,
            written_ts: p.written_ts,
            durable_ts: p.durable_ts,
            complete_until: p.complete_until,
            journal_bytes,
            segments,
            last_error: self.failed(),
        }
    }

    /// How far it is, as the callback was told last.
    pub fn progress(&self) -> Progress {
        self.handle.shared.read().progress
    }

    /// Why the writer has stopped, if it has.
    pub fn failed(&self) -> Option<WriterFailure> {
        self.handle.shared.queue.failed()
    }

    /// Writes what is queued, seals, syncs, packs what is sealed for some seconds at most, ends the thread; other handles are
    /// refused from now on.
    pub fn close(self) -> Result<(), SubmitError> {
        self.handle.end(End::Seal);
        self.failed().map_or(Ok(()), |reason| Err(SubmitError::Failed(reason)))
    }
}

impl Shared {
    fn read(&self) -> Published {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, published: Published) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = published;
    }
}

impl Handle {
    fn end(&self, end: End) {
        self.shared.queue.ask_end(end);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The callback may own the last handle; a thread cannot wait for itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            self.shared.queue.fail(WriterFailure::new(AppendError::Panicked));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end(End::Leave);
    }
}
