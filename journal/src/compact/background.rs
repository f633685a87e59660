//! Packing, when there is time: a sealed segment is replaced by its packed copy.
//!
//! The writer seals a segment as it is, at the price of two syncs, and hands its name over. Packing costs ten times what
//! appending does, so it falls to a thread of the lowest priority: where all cores are taken, who writes and who waits come
//! first. The debt has a limit, [`UNHURRIED_BYTES`]; what is beyond it is packed by a second thread of the usual priority.
//!
//! Invariants:
//! - A copy takes the place of its segment only as a whole, synced, made of the very bytes that were sealed, and when reading it
//!   has given the same groups. It says with which digest they were sealed, so the chain of segments does not change.
//! - A segment that was removed meanwhile does not come back: whether it is there is looked at under `prune.lock`.
//! - What goes wrong costs the copy, never the segment. For want of room or files it is tried again with the next one, and
//!   whatever is left, when the journal is opened next.
//! - The writer waits for it only at its end: [`CLOSE_TIMEOUT`] for what is left, [`END_TIMEOUT`] for what is under way.
//!   A thread that the disk holds longer has the journal's lock until then.
//!
//! | crash while | a reader finds | the next open |
//! | --- | --- | --- |
//! | the copy is written | the segment, and a temporary file | removes the file, packs again |
//! | it is renamed | the one or the other, both whole | packs again, if it is the segment |

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::compactor::{PackError, Packer};
use crate::block::{Groups, decode_payload};
use crate::crypto::{Keyring, Random, Sealer};
use crate::directory::Directory;
use crate::files::{open_read, sync_dir};
use crate::lease::PruneLock;
use crate::lock::Lock;
use crate::segment::header::WholeHeader;
use crate::segment::link::Digest;
use crate::segment::load::{TailFact, load_open_segment};
use crate::segment::name::SegmentName;
use crate::segment::scan::{BlockFault, Blocks};
use crate::types::Group;

/// As much may wait for the thread of low priority.
const UNHURRIED_BYTES: u64 = 512 << 20;
/// A writer that is closed packs for so long; the rest waits for the next one.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// At the end, the step that is under way gets so long.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the end of the threads is looked for.
const END_POLL: Duration = Duration::from_millis(5);
/// So many times the segment's size must be free: a copy must not take the room that the writer needs.
const ROOM: u64 = 2;
/// As much is hashed at once.
const HASHED_BYTES: usize = 256 << 10;
/// The lowest priority (`nice`). In tests the usual one: they wait for it.
const NICE: i32 = if cfg!(test) { 0 } else { 19 };

/// A sealed segment that is not packed.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) name: SegmentName,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// Packs what it is given; ends its threads when it is dropped.
#[derive(Debug)]
pub(crate) struct Later(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    dir: Directory,
    /// Nobody else writes as long as something may be put in place.
    _lock: Arc<Lock>,
    keyring: Arc<Mutex<Keyring>>,
    random: Random,
    state: Mutex<State>,
    /// A thread has ended.
    ended: Condvar,
    stop: AtomicBool,
    /// There is little time left.
    closing: AtomicBool,
    /// By how much the segments have become smaller.
    saved: AtomicI64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Unpacked>,
    waiting_bytes: u64,
    /// What there was no room for, or no file.
    postponed: Vec<Unpacked>,
    unhurried: Option<JoinHandle<()>>,
    hurried: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Unhurried,
    Hurried,
}

impl State {
    fn thread(&mut self, pace: Pace) -> &mut Option<JoinHandle<()>> {
        match pace {
            Pace::Unhurried => &mut self.unhurried,
            Pace::Hurried => &mut self.hurried,
        }
    }

    fn add(&mut self, unpacked: Unpacked) {
        self.waiting_bytes += unpacked.bytes;
        self.waiting.push_back(unpacked);
    }

    fn take(&mut self) -> Option<Unpacked> {
        let next = self.waiting.pop_front()?;
        self.waiting_bytes -= next.bytes;
        Some(next)
    }

    fn runs(&self) -> bool {
        [&self.unhurried, &self.hurried].into_iter().flatten().any(|thread| !thread.is_finished())
    }
}

impl Later {
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

    /// Has it packed some time.
    pub(crate) fn add(&self, unpacked: Unpacked) {
        let mut state = self.0.lock();
        for again in std::mem::take(&mut state.postponed) {
            state.add(again);
        }
        state.add(unpacked);
        self.0.wake(&mut state, Pace::Unhurried);
        if self.0.is_urgent(&state) {
            self.0.wake(&mut state, Pace::Hurried);
        }
    }

    /// By how much the segments have become smaller so far, in bytes.
    pub(crate) fn saved(&self) -> i64 {
        self.0.saved.load(Ordering::Relaxed)
    }

    /// Packs what waits, for a limited time; nothing is packed afterwards.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        self.0.closing.store(true, Ordering::Relaxed);
        if !state.waiting.is_empty() {
            self.0.wake(&mut state, Pace::Hurried);
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

impl Drop for Later {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until no thread runs, or that long.
    fn wait(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        while state.runs() && Instant::now() < deadline {
            state = self.ended.wait_timeout(state, END_POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sees to it that a thread of this pace runs.
    fn wake(self: &Arc<Self>, state: &mut State, pace: Pace) {
        if state.thread(pace).as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let shared = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("pack".to_owned()).spawn(move || shared.run(pace));
        match spawned {
            Ok(thread) => *state.thread(pace) = Some(thread),
            Err(e) => tracing::warn!("a thread that compresses sealed segments can't be started for now: {e}"),
        }
    }

    fn run(self: &Arc<Self>, pace: Pace) {
        if pace == Pace::Unhurried {
            // Where that is refused, it is as important as the others.
            let _ = rustix::process::setpriority_process(None, NICE);
        }
        loop {
            let mut state = self.lock();
            let wanted = match pace {
                Pace::Unhurried => !self.closing.load(Ordering::Relaxed),
                Pace::Hurried => self.is_urgent(&state),
            };
            let next = if wanted && !self.is_stopped() { state.take() } else { None };
            let Some(unpacked) = next else {
                // Under the lock: what is added from now on finds no thread, and starts one.
                state.thread(pace).take();
                self.ended.notify_all();
                return;
            };
            drop(state);
            self.pack(unpacked, pace);
        }
    }

    /// More waits than a thread of low priority should be left alone with.
    fn is_urgent(&self, state: &State) -> bool {
        self.closing.load(Ordering::Relaxed) || state.waiting_bytes > UNHURRIED_BYTES
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// At the end, one of low priority would hold up the others.
    fn go_on(&self, pace: Pace) -> Result<(), PackError> {
        let late = pace == Pace::Unhurried && self.closing.load(Ordering::Relaxed);
        if late || self.is_stopped() { Err(PackError::GivenUp) } else { Ok(()) }
    }

    fn pack(self: &Arc<Self>, unpacked: Unpacked, pace: Pace) {
        let Err(error) = self.replace(&unpacked, pace) else { return };
        let path = unpacked.path.display();
        match error {
            PackError::GivenUp if self.is_stopped() => {}
            PackError::GivenUp => {
                let mut state = self.lock();
                state.add(unpacked);
                self.wake(&mut state, Pace::Hurried);
            }
            PackError::Io(_) | PackError::NoRoom => {
                let mut state = self.lock();
                if state.postponed.is_empty() {
                    // Once for all of them.
                    tracing::warn!("{path} is not compressed for now: {error}");
                }
                state.postponed.push(unpacked);
            }
            error => tracing::warn!("{path} stays as it is, not compressed: {error}"),
        }
    }

    /// Puts the packed copy in the segment's place, if it is still there.
    fn replace(&self, unpacked: &Unpacked, pace: Pace) -> Result<(), PackError> {
        let Unpacked { name, path, .. } = unpacked;
        let file = match open_read(path) {
            // Removed by the retention.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let facts = load_open_segment(&file, *name, path, false).map_err(io::Error::other)?;
        let (Ok(whole), TailFact::Sealed(footer)) = (&facts.header, &facts.tail) else {
            return Err(PackError::Different);
        };
        if whole.header.packed || footer.tally.records == 0 {
            return Ok(());
        }
        let room = rustix::fs::fstatvfs(&file).map_err(io::Error::from)?;
        if room.f_bavail.saturating_mul(room.f_frsize) < facts.bytes.saturating_mul(ROOM) {
            return Err(PackError::NoRoom);
        }
        let keyring = self.keyring.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sealer = whole.header.unlock(&keyring)?;
        // What was written with an old key is read with the old key.
        let keyring = match &whole.header.cipher {
            None => Keyring::default(),
            Some(wrapped) => keyring.with_current(&wrapped.key_id).ok_or(PackError::NoKey)?,
        };
        footer.check_proof(sealer.as_deref())?;
        if self.hash(&file, footer.position, pace)? != footer.digest {
            return Err(PackError::Different);
        }
        let mut packer = Packer::create(&self.dir, &whole.header, &keyring, self.random)?;
        for block in Blocks::of(&file, whole, footer.blocks_end) {
            self.go_on(pace)?;
            let (block, stored) = block?;
            let payload = decode_payload(&block, stored, sealer.as_deref()).map_err(BlockFault::from)?;
            packer.push(&block, &payload)?;
        }
        self.go_on(pace)?;
        let copy = packer.finish(&footer.tally, Some(footer.digest))?;
        let original = Reading::new(&file, whole, footer.blocks_end, sealer);
        compare(original, copy.file(), unpacked, &keyring, || self.go_on(pace))?;

        let lock = loop {
            self.go_on(pace)?;
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

    fn hash(&self, file: &File, len: u64, pace: Pace) -> Result<Digest, PackError> {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = vec![0; HASHED_BYTES];
        let mut at = 0;
        while at < len {
            self.go_on(pace)?;
            let some = bytes.len().min((len - at) as usize);
            file.read_exact_at(&mut bytes[..some], at)?;
            hasher.update(&bytes[..some]);
            at += some as u64;
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

/// Reads the copy as a reader will, and compares each group.
fn compare(
    mut original: Reading<'_>,
    copy: &File,
    unpacked: &Unpacked,
    keyring: &Keyring,
    go_on: impl Fn() -> Result<(), PackError>,
) -> Result<(), PackError> {
    let facts = load_open_segment(copy, unpacked.name, &unpacked.path, false).map_err(io::Error::other)?;
    let (Ok(whole), TailFact::Sealed(footer)) = (&facts.header, &facts.tail) else {
        return Err(PackError::WrongCopy);
    };
    let mut copied = Reading::new(copy, whole, footer.blocks_end, whole.header.unlock(keyring)?);
    loop {
        go_on()?;
        match (original.next_group()?, copied.next_group()?) {
            (None, None) => return Ok(()),
            (one, other) if one == other => {}
            _ => return Err(PackError::WrongCopy),
        }
    }
}

/// The groups of a sealed segment, one after the other.
struct Reading<'a> {
    blocks: Blocks<'a>,
    sealer: Option<Arc<Sealer>>,
    groups: Option<Groups>,
}

impl<'a> Reading<'a> {
    fn new(file: &'a File, whole: &WholeHeader, end: u64, sealer: Option<Arc<Sealer>>) -> Self {
        Self { blocks: Blocks::of(file, whole, end), sealer, groups: None }
    }

    fn next_group(&mut self) -> Result<Option<Group>, PackError> {
        loop {
            if let Some(group) = self.groups.as_mut().and_then(Iterator::next) {
                return Ok(Some(group?));
            }
            let Some((block, stored)) = self.blocks.next().transpose()? else { return Ok(None) };
            let payload = decode_payload(&block, stored, self.sealer.as_deref()).map_err(BlockFault::from)?;
            self.groups = Some(Groups::new(block, payload));
        }
    }
}

#[cfg(test)]
#[path = "background_tests.rs"]
mod tests;
