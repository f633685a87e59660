//! Compaction in the background: each sealed segment for which that is worth its work is replaced by its packed copy.
//!
//! The writer seals a segment as it is, which costs two syncs, and hands its name over. Compaction costs ten times as much
//! as appending, so a thread of the lowest priority does it: clients and the writer come first where all cores are busy. At
//! most [`LOW_PRIORITY_BYTES`] wait for that thread; a second thread of the usual priority compacts what is beyond.
//!
//! Invariants:
//! - A copy replaces its segment as a whole, synced, after the sealed bytes were checked against their digest and the copy
//!   was read back and gave the same groups. It names the digest of the sealed segment, so the chain does not change.
//! - A segment that was removed meanwhile does not come back: `prune.lock` is held while that is checked.
//! - A failure costs the copy, never the segment. If the disk has no room, or no file can be opened, it is tried again with the
//!   next segment. What is left when the writer ends is compacted after the next open.
//! - The writer waits for this thread only when it is closed: [`CLOSE_TIMEOUT`] for all that is left, then [`END_TIMEOUT`] for
//!   the step under way. A thread that hangs on the disk for longer holds the journal's lock until it ends.
//!
//! | crash while | a reader finds | the next open |
//! | --- | --- | --- |
//! | the copy is written | the segment, and a temporary file | removes the file, compacts again |
//! | it is renamed | the segment or its copy, both whole | compacts again, if it is the segment |

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::compactor::{CompactError, Compactor};
use crate::block::decrypt;
use crate::crypto::{Keyring, Random};
use crate::directory::Directory;
use crate::files::{open_read, sync_dir};
use crate::lease::PruneLock;
use crate::lock::Lock;
use crate::segment::link::hash_range;
use crate::segment::load::{TailFact, load_open_segment};
use crate::segment::name::SegmentName;
use crate::segment::scan::Blocks;

/// So many bytes of segments may wait for the thread of low priority.
const LOW_PRIORITY_BYTES: u64 = 512 << 20;
/// How long a writer that is closed goes on compacting; the rest waits for the next writer.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the step under way may take at the end.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the end of the threads is polled.
const END_POLL: Duration = Duration::from_millis(5);
/// So many times the segment's size must be free on the disk, so that the copy never takes the space that the writer needs.
const ROOM: u64 = 2;
/// The lowest priority (`nice`). Tests use the usual one, because they wait for the thread.
const NICE: i32 = if cfg!(test) { 0 } else { 19 };

/// A sealed segment that has no packed copy yet.
#[derive(Debug)]
pub(crate) struct Uncompacted {
    pub(crate) name: SegmentName,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Compacts the segments handed to it; ends its threads when it is dropped.
#[derive(Debug)]
pub(crate) struct Background(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: Directory,
    /// No other writer opens the journal while a copy may still replace a segment.
    _lock: Arc<Lock>,
    keyring: Arc<Mutex<Keyring>>,
    random: Random,
    state: Mutex<State>,
    /// A thread has ended.
    ended: Condvar,
    stop: AtomicBool,
    /// The writer is being closed: time is limited.
    closing: AtomicBool,
    /// By how much the segments have become smaller.
    saved: AtomicI64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Uncompacted>,
    waiting_bytes: u64,
    /// Segments for which there was no room, or no file could be opened.
    postponed: Vec<Uncompacted>,
    low: Option<JoinHandle<()>>,
    usual: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    Low,
    Usual,
}

impl State {
    fn thread(&mut self, priority: Priority) -> &mut Option<JoinHandle<()>> {
        match priority {
            Priority::Low => &mut self.low,
            Priority::Usual => &mut self.usual,
        }
    }

    fn add(&mut self, uncompacted: Uncompacted) {
        self.waiting_bytes += uncompacted.bytes;
        self.waiting.push_back(uncompacted);
    }

    fn take(&mut self) -> Option<Uncompacted> {
        let next = self.waiting.pop_front()?;
        self.waiting_bytes -= next.bytes;
        Some(next)
    }

    fn runs(&self) -> bool {
        [&self.low, &self.usual].into_iter().flatten().any(|thread| !thread.is_finished())
    }
}

impl Background {
    pub(crate) fn new(dir: &Directory, lock: Arc<Lock>, keyring: Arc<Mutex<Keyring>>, random: Random) -> Self {
        Self(Arc::new(Shared {
            dir: dir.clone(),
            _lock: lock,
            keyring,
            random,
            state: Mutex::default(),
            ended: Condvar::new(),
            stop: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            saved: AtomicI64::new(0),
        }))
    }

    /// Queues a segment.
    pub(crate) fn add(&self, uncompacted: Uncompacted) {
        let mut state = self.0.lock();
        for again in std::mem::take(&mut state.postponed) {
            state.add(again);
        }
        state.add(uncompacted);
        self.0.wake(&mut state, Priority::Low);
        if self.0.is_urgent(&state) {
            self.0.wake(&mut state, Priority::Usual);
        }
    }

    /// By how much the segments have become smaller so far, in bytes.
    pub(crate) fn saved(&self) -> i64 {
        self.0.saved.load(Ordering::Relaxed)
    }

    /// Compacts what waits, for a limited time; nothing is compacted afterwards.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        self.0.closing.store(true, Ordering::Relaxed);
        if !state.waiting.is_empty() {
            self.0.wake(&mut state, Priority::Usual);
        }
        drop(state);
        self.0.wait(CLOSE_TIMEOUT);
        self.end();
    }

    fn end(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        self.0.wait(END_TIMEOUT);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no thread runs, at most `timeout`.
    fn wait(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.runs() && Instant::now() < deadline {
            state = self.ended.wait_timeout(state, END_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Starts the thread of this priority, if it does not run.
    fn wake(self: &Arc<Self>, state: &mut State, priority: Priority) {
        if state.thread(priority).as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let shared = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("compact".to_owned()).spawn(move || shared.run(priority));
        match spawned {
            Ok(thread) => *state.thread(priority) = Some(thread),
            Err(e) => tracing::warn!("a thread that compresses sealed segments cannot be started for now: {e}"),
        }
    }

    fn run(self: &Arc<Self>, priority: Priority) {
        if priority == Priority::Low {
            // If the system refuses, it runs at the usual priority.
            let _ = rustix::process::setpriority_process(None, NICE);
        }
        loop {
            let mut state = self.lock();
            let wanted = match priority {
                Priority::Low => !self.closing.load(Ordering::Relaxed),
                Priority::Usual => self.is_urgent(&state),
            };
            let next = if wanted && !self.is_stopped() { state.take() } else { None };
            let Some(uncompacted) = next else {
                // Under the lock: what is added from now on finds no thread, and starts one.
                state.thread(priority).take();
                self.ended.notify_all();
                return;
            };
            drop(state);
            self.compact(uncompacted, priority);
        }
    }

    /// More waits than the thread of low priority can be left with.
    fn is_urgent(&self, state: &State) -> bool {
        self.closing.load(Ordering::Relaxed) || state.waiting_bytes > LOW_PRIORITY_BYTES
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// At the end, the thread of low priority gives up, as it would delay the close.
    fn go_on(&self, priority: Priority) -> Result<(), CompactError> {
        let late = priority == Priority::Low && self.closing.load(Ordering::Relaxed);
        if late || self.is_stopped() { Err(CompactError::GivenUp) } else { Ok(()) }
    }

    fn compact(self: &Arc<Self>, uncompacted: Uncompacted, priority: Priority) {
        let Err(error) = self.replace(&uncompacted, priority) else { return };
        let path = uncompacted.path.display();
        match error {
            CompactError::GivenUp if self.is_stopped() => {}
            CompactError::GivenUp => {
                let mut state = self.lock();
                state.add(uncompacted);
                self.wake(&mut state, Priority::Usual);
            }
            CompactError::Io(_) | CompactError::Open(_) | CompactError::NoRoom => {
                let mut state = self.lock();
                if state.postponed.is_empty() {
                    // One warning for all of them.
                    tracing::warn!("{path} is not compressed for now: {error}");
                }
                state.postponed.push(uncompacted);
            }
            error => tracing::warn!("{path} stays as it is, not compressed: {error}"),
        }
    }

    /// Replaces the segment by its packed copy, if it is still there.
    fn replace(&self, uncompacted: &Uncompacted, priority: Priority) -> Result<(), CompactError> {
        let Uncompacted { name, path, .. } = uncompacted;
        let file = match open_read(path) {
            // Removed by the retention.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let facts = load_open_segment(&file, *name, path, false)?;
        let (Ok(whole), TailFact::Sealed(footer)) = (&facts.header, &facts.tail) else {
            return Err(CompactError::Different);
        };
        if whole.header.packed || !footer.wants_compaction() {
            return Ok(());
        }
        let room = rustix::fs::fstatvfs(&file).map_err(io::Error::from)?;
        if room.f_bavail.saturating_mul(room.f_frsize) < facts.bytes.saturating_mul(ROOM) {
            return Err(CompactError::NoRoom);
        }
        let keyring = self.keyring.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sealer = whole.header.unlock(&keyring)?;
        // What was written with an old key is read with the old key.
        let keyring = match &whole.header.cipher {
            None => Keyring::default(),
            Some(wrapped) => keyring.with_current(&wrapped.key_id).ok_or(CompactError::NoKey)?,
        };
        footer.check_proof(sealer.as_deref())?;
        let mut compactor = Compactor::create(&self.dir, &whole.header, facts.bytes, &keyring, self.random)?;
        let mut hasher = blake3::Hasher::new();
        hash_range(&mut hasher, &file, 0..whole.len)?;
        for block in Blocks::of(&file, whole, footer.blocks_end) {
            self.go_on(priority)?;
            let (block, stored) = block?;
            hasher.update(&block.encode()).update(&stored);
            compactor.push(&block, &decrypt(&block, stored, sealer.as_deref())?)?;
        }
        hash_range(&mut hasher, &file, footer.blocks_end..footer.position)?;
        if *hasher.finalize().as_bytes() != footer.digest {
            return Err(CompactError::Different);
        }
        self.go_on(priority)?;
        let copy = compactor.finish(&footer.tally, Some(footer.digest))?;
        copy.check(&keyring, || self.go_on(priority))?;

        let lock = loop {
            self.go_on(priority)?;
            if let Some(lock) = PruneLock::take(&self.dir)? {
                break lock;
            }
        };
        let ours = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
            // Removed, or no longer ours to replace.
            Ok(_) | Err(_) => return Ok(()),
        }
        let bytes = copy.put(path)?;
        drop(lock);
        self.saved.fetch_add(facts.bytes as i64 - bytes as i64, Ordering::Relaxed);
        if let Err(e) = sync_dir(&self.dir.segments()) {
            tracing::warn!("the compressed copy of {} may be gone after a power loss: {e}", path.display());
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "background_tests.rs"]
mod tests;
