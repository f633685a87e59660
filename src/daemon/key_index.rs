//! Key indexes of snapshots, made behind the capture's back: one at a time, the newest snapshot's first.
//!
//! A thread of the lowest priority looks whether the folder of snapshots has changed, no matter what has put one there (the capture,
//! the schedule, `redtape snapshot create`). It checks each index once, and makes those that are missing or damaged. One that is
//! damaged later is made again by the next start, or by the command that finds it so.
//!
//! - It rests as long as it works, so that it takes half a core at most, and the disk is never busy with it alone.
//! - It holds no lock while it reads: nothing waits for it to be removed. Only for the renaming it holds `prune.lock`.
//! - A stop waits for it last, and no longer than [`STOP_TIMEOUT`]. What it leaves then is a temporary file, which the next start removes.
//! - A failure is logged once for each snapshot. Without an index everything works; a command that wants single keys makes it.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use redtape_capture::KeyringHandle;
use redtape_journal::{Catalog, KeyIndexError, Keyring, SnapshotInfo, Workspace, check_key_index};
use redtape_proxy::Parts;
use redtape_restore::source::key_index::{BuildError, build};
use redtape_telemetry::Metrics;

/// How often it is looked whether there is another snapshot.
const TICK: Duration = Duration::from_secs(1);
/// What may end by itself (no room, a disk in trouble) is tried again after this time, and after twice as long each time it
/// fails again: each try reads the snapshot through.
const RETRY: Duration = Duration::from_mins(1);
const RETRY_MAX: Duration = Duration::from_hours(1);
/// Bytes worked on between two rests.
const WORK_BYTES: u64 = 4 << 20;
/// Longest rest: after a stall of the disk it does not wait as long again.
const REST_MAX: Duration = Duration::from_secs(1);
/// How long a stop waits.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
const STOP_POLL: Duration = Duration::from_millis(5);
/// The lowest priority (`nice`).
const NICE: i32 = 19;

/// What it works on.
pub(super) struct KeyIndexes {
    /// The journal.
    pub(super) dir: PathBuf,
    pub(super) keyring: KeyringHandle,
    pub(super) metrics: Metrics,
}

/// Tells the thread to stop; also when it is dropped.
#[derive(Default)]
pub(super) struct StopKeyIndexes(Arc<Stop>);

/// The thread.
pub(super) struct KeyIndexThread {
    pub(super) stop: StopKeyIndexes,
    pub(super) thread: JoinHandle<()>,
}

#[derive(Default)]
struct Stop {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn set(&self) {
        *self.is_set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits, at most so long; whether it is set.
    fn wait(&self, time: Duration) -> bool {
        let is_set = self.is_set.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(is_set, time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl KeyIndexThread {
    /// Tells it to stop, and does not wait.
    pub(super) fn tell(&self) {
        self.stop.0.set();
    }

    /// Waits until it has stopped, but for no longer than [`STOP_TIMEOUT`].
    pub(super) fn stop(self) {
        self.tell();
        let deadline = Instant::now() + STOP_TIMEOUT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(STOP_POLL);
        }
    }
}

impl Drop for StopKeyIndexes {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// A snapshot: a name may be used twice.
type Id = (PathBuf, String);

/// What is remembered from look to look.
#[derive(Default)]
struct Memory {
    /// Those that had a sound index.
    sound: HashSet<Id>,
    /// Those that get none.
    given_up: HashSet<Id>,
    /// Those that are tried again, and when.
    later: HashMap<Id, Instant>,
    /// How long they were put off.
    waits: HashMap<Id, Duration>,
    warned: HashSet<Id>,
    /// Those whose damaged index was told of.
    damaged: HashSet<Id>,
    /// The keys at the last look.
    keyring: Option<Arc<Keyring>>,
    /// When the folder was changed last: at the last look after which there was nothing to do, and a tick ago.
    changed: Option<SystemTime>,
    seen: Option<SystemTime>,
}

impl Memory {
    /// Of what is gone, nothing.
    fn forget_all_but(&mut self, there: &HashSet<Id>) {
        for ids in [&mut self.sound, &mut self.given_up, &mut self.warned, &mut self.damaged] {
            ids.retain(|id| there.contains(id));
        }
        self.later.retain(|id, _| there.contains(id));
        self.waits.retain(|id, _| there.contains(id));
    }

    fn made(&mut self, id: Id) {
        self.later.remove(&id);
        self.waits.remove(&id);
        self.warned.remove(&id);
        self.damaged.remove(&id);
        self.sound.insert(id);
    }

    fn put_off(&mut self, id: Id) {
        let wait = self.waits.get(&id).map_or(RETRY, |wait| (*wait * 2).min(RETRY_MAX));
        self.later.insert(id.clone(), Instant::now() + wait);
        self.waits.insert(id, wait);
    }
}

impl KeyIndexes {
    pub(super) fn start(self, parts: &Parts, stop: &StopKeyIndexes) -> std::io::Result<JoinHandle<()>> {
        let stop = Arc::clone(&stop.0);
        parts.thread("key index", move || self.run(&stop))
    }

    fn run(self, stop: &Stop) {
        // If the system refuses, it runs at the usual priority.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut memory = Memory::default();
        while !stop.wait(TICK) {
            self.look_at_keys(&mut memory);
            let changed = std::fs::metadata(self.dir.join("snapshots")).and_then(|folder| folder.modified()).ok();
            let is_time = memory.later.values().any(|at| *at <= Instant::now());
            if changed == memory.changed && !is_time {
                continue;
            }
            // The clock of a file system may stand still for a moment: what changes in it is seen by one look more.
            let is_settled = changed == std::mem::replace(&mut memory.seen, changed);
            if self.look(&mut memory, stop) {
                memory.changed = changed.filter(|_| is_settled);
            }
        }
    }

    /// With other keys, those that were given up for want of one are tried again.
    fn look_at_keys(&self, memory: &mut Memory) {
        let keyring = self.keyring.load_full();
        if memory.keyring.as_ref().is_some_and(|before| !Arc::ptr_eq(before, &keyring)) {
            memory.given_up.clear();
            memory.changed = None;
        }
        memory.keyring = Some(keyring);
    }

    /// Sees to the newest snapshot that needs it; true if there was none.
    fn look(&self, memory: &mut Memory, stop: &Stop) -> bool {
        let keyring = self.keyring.load_full();
        // Other parts of the daemon tell of a journal that cannot be read.
        let Ok(catalog) = Catalog::open_with(&self.dir, &keyring) else { return false };
        let snapshots = catalog.snapshots().to_vec();
        // It holds pruning off.
        drop(catalog);
        let id = |snapshot: &SnapshotInfo| (snapshot.path.clone(), snapshot.manifest.blake3.clone());
        let there: HashSet<Id> = snapshots.iter().map(id).collect();
        memory.forget_all_but(&there);
        let is_due = |snapshot: &&SnapshotInfo| {
            let id = id(snapshot);
            // The index may have been removed.
            let is_done = memory.given_up.contains(&id) || (snapshot.key_index_bytes > 0 && memory.sound.contains(&id));
            !is_done && memory.later.get(&id).is_none_or(|at| *at <= Instant::now())
        };
        let Some(snapshot) = snapshots.iter().rev().find(is_due) else { return true };
        let id = id(snapshot);
        let mut tell_damage = |error: &KeyIndexError| {
            if memory.damaged.insert(id.clone()) {
                tracing::warn!("{error}; it is made again");
            }
        };
        match make(snapshot, &keyring, stop, &mut tell_damage) {
            Ok(()) => memory.made(id),
            Err(BuildError::Index(KeyIndexError::Stopped | KeyIndexError::Gone { .. })) => {
                // With the snapshot, or with the daemon, this ends.
                memory.put_off(id);
            }
            Err(error) => self.failed(&error, id, memory),
        }
        false
    }

    fn failed(&self, error: &BuildError, id: Id, memory: &mut Memory) {
        use KeyIndexError as E;
        let (again, advice) = match error {
            BuildError::Index(E::Busy { .. }) => (true, "it is tried again"),
            BuildError::Index(E::NoRoom { .. } | E::Io { .. }) => {
                (true, "make room or see to the disk; it is tried again from time to time")
            }
            BuildError::Index(E::Base { .. }) => (false, "run `redtape journal verify`, and take another snapshot"),
            BuildError::Index(E::Key { .. }) => (false, "give that key, or remove the snapshot when it is not needed"),
            _ => (false, "single keys of it are found by reading all of it"),
        };
        let is_new = memory.warned.insert(id.clone());
        if is_new && !matches!(error, BuildError::Index(E::Busy { .. })) {
            self.metrics.error("key_index");
            tracing::warn!(snapshot = %id.0.display(), "no key index was made: {error}; {advice}");
        }
        if again {
            memory.put_off(id);
        } else {
            memory.later.remove(&id);
            memory.given_up.insert(id);
        }
    }
}

/// Makes the index of a snapshot, unless it has one that is sound.
fn make(
    snapshot: &SnapshotInfo,
    keyring: &Keyring,
    stop: &Stop,
    tell_damage: &mut dyn FnMut(&KeyIndexError),
) -> Result<(), BuildError> {
    let pace = Pace::new(snapshot, stop);
    let go_on = |bytes| pace.go_on(bytes);
    match check_key_index(snapshot, keyring, &go_on) {
        Ok(()) => return Ok(()),
        Err(KeyIndexError::Missing { .. }) => {}
        Err(error) if error.is_made_again() => tell_damage(&error),
        Err(error) => return Err(error.into()),
    }
    let begun = Instant::now();
    let written = build(snapshot, keyring, Workspace::Journal, &go_on)?;
    let (bytes, seconds) = (written.bytes(), begun.elapsed().as_secs_f64());
    written.put_in_place(&|| pace.go_on(0))?;
    tracing::info!(snapshot = %snapshot.path.display(), bytes, seconds, "key index made");
    Ok(())
}

/// Work and rest in turn.
struct Pace<'a> {
    stop: &'a Stop,
    snapshot: &'a SnapshotInfo,
    worked: Cell<u64>,
    since: Cell<Instant>,
}

impl<'a> Pace<'a> {
    fn new(snapshot: &'a SnapshotInfo, stop: &'a Stop) -> Self {
        Self { stop, snapshot, worked: Cell::new(0), since: Cell::new(Instant::now()) }
    }

    /// False when it is time to stop, or when the snapshot was removed.
    fn go_on(&self, bytes: u64) -> bool {
        self.worked.set(self.worked.get() + bytes);
        if self.worked.get() < WORK_BYTES {
            return !self.stop.wait(Duration::ZERO);
        }
        let is_stopped = self.stop.wait(self.since.get().elapsed().min(REST_MAX));
        self.worked.set(0);
        self.since.set(Instant::now());
        !is_stopped && self.snapshot.path.exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_is_tried_less_often_and_forgotten_with_its_snapshot() {
        let (mut memory, id) = (Memory::default(), (PathBuf::from("1.rdb"), "digest".to_owned()));
        let mut waits = Vec::new();
        for _ in 0..8 {
            memory.put_off(id.clone());
            waits.push(memory.waits[&id].as_secs() / 60);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        memory.forget_all_but(&HashSet::from([id.clone()]));
        assert!(memory.later.contains_key(&id));
        memory.made(id.clone());
        assert!(memory.sound.contains(&id) && memory.later.is_empty() && memory.waits.is_empty());
        memory.put_off(id.clone());
        assert_eq!(memory.waits[&id], RETRY);
        memory.forget_all_but(&HashSet::new());
        assert!(memory.later.is_empty() && memory.waits.is_empty() && memory.sound.is_empty());
    }
}
