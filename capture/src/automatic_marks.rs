//! Marks that redtape sets by itself, before writes that take much away ([`crate::accident`] tells which).
//!
//! A mark stands for the moment before a write that the journal already holds. It is set when that write is on the disk: a mark never
//! names what is not there, and no write is recorded, and marked, a second time. A thread of its own waits for that and appends the
//! mark; it begins with the first one. Nothing else ever waits for a mark.
//!
//! A crash between the sync of the write and that of its mark leaves the write without a mark; so does a journal that fails meanwhile.
//! The time and the LSN of the write still name the point in time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use redtape_journal::{Lsn, Mark, Writer, add_automatic_mark};

use crate::accident::{Accidents, Found, Losses};
use crate::join::Attributed;
use crate::options::ThresholdsHandle;

/// Marks that wait to be set; beyond that they are not set.
const WAITING_MAX: usize = 256;
/// How often the writer is asked whether the write is on the disk.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The end of the process waits so long for marks that wait.
const END_MAX: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub(crate) struct AutomaticMarks {
    dir: PathBuf,
    thresholds: ThresholdsHandle,
    accidents: Accidents,
    setter: Option<Setter>,
}

impl AutomaticMarks {
    /// For the journal at `dir`.
    pub(crate) fn new(dir: PathBuf, thresholds: ThresholdsHandle) -> Self {
        Self { dir, thresholds, accidents: Accidents::default(), setter: None }
    }

    /// Looks at a group that was pushed: `before` and `last` are the last records before it and of it.
    pub(crate) fn look(&mut self, attributed: &Attributed, (before, last): (Lsn, Lsn), writer: Option<&Writer>) {
        let Some(losses) = Losses::of(&attributed.group) else { return };
        let thresholds = self.thresholds.load();
        if !thresholds.enabled {
            return;
        }
        match self.accidents.look(&losses, &attributed.origin, (attributed.ts, before), &thresholds) {
            None => {}
            Some(Found::Mark(mark)) => {
                if let Some(writer) = writer {
                    self.set(Wanted { mark, on_disk: last, writer: writer.clone() });
                }
            }
            Some(Found::TooMany { command, limit }) => tracing::warn!(
                command,
                "no mark was set before this write, nor will be before the next ones of its kind: {limit} were set within an hour; \
                 where an application does so all day, raise mass-delete-keys"
            ),
        }
    }

    fn set(&mut self, wanted: Wanted) {
        if self.setter.is_none() {
            self.setter = Setter::start(self.dir.clone());
        }
        let name = wanted.mark.name.clone();
        if self.setter.as_ref().is_none_or(|setter| setter.queue.try_send(wanted).is_err()) {
            tracing::warn!("the mark {name} was not set: too many wait for the disk");
        }
    }

    /// The same for a journal that is opened again: what waits is judged by the old writer, and given up if that never synced it.
    pub(crate) fn reopened(&mut self) -> Self {
        let mut accidents = std::mem::take(&mut self.accidents);
        accidents.forget_clients();
        if let Some(setter) = self.setter.take() {
            setter.end();
        }
        Self { accidents, ..Self::new(self.dir.clone(), self.thresholds.clone()) }
    }

    /// The writer is closed: what is on the disk gets its mark, if that does not take long.
    pub(crate) fn close(&mut self) {
        if let Some(setter) = self.setter.take()
            && setter.end().recv_timeout(END_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            tracing::warn!("marks before the last writes may not have been set: the disk did not answer in time");
        }
    }
}

/// A mark, the last record of the write that it stands before, and who brings that to the disk.
struct Wanted {
    mark: Mark,
    on_disk: Lsn,
    writer: Writer,
}

/// The thread that sets marks.
#[derive(Debug)]
struct Setter {
    queue: SyncSender<Wanted>,
    closed: Arc<AtomicBool>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Setter {
    fn start(dir: PathBuf) -> Option<Self> {
        let (queue, wanted) = sync_channel::<Wanted>(WAITING_MAX);
        let (running, ended) = sync_channel(1);
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = closed.clone();
        let run = move || {
            let _running: SyncSender<()> = running;
            for wanted in wanted {
                wanted.set(&dir, &is_closed);
            }
        };
        match std::thread::Builder::new().name("marks".to_owned()).spawn(run) {
            Ok(_) => Some(Self { queue, closed, ended }),
            Err(e) => {
                tracing::warn!("marks cannot be set before destructive writes: {e}");
                None
            }
        }
    }

    /// Nothing more comes, and the writers are closed. Gives what tells when the thread has ended.
    fn end(self) -> Receiver<()> {
        self.closed.store(true, Ordering::SeqCst);
        self.ended
    }
}

impl Wanted {
    fn set(self, dir: &Path, is_closed: &AtomicBool) {
        let Self { mark, on_disk, writer } = self;
        let name = mark.name.clone();
        if !is_synced(&writer, on_disk, is_closed) {
            tracing::warn!("the mark {name} was not set: the write after it may not be in the journal");
            return;
        }
        match add_automatic_mark(dir, mark) {
            Ok(None) => {}
            Ok(Some(Mark { name, lsn, .. })) => {
                tracing::info!(
                    lsn = lsn.0,
                    "a mark was set before a destructive write: `--at 'mark:{name}'` restores what was there"
                );
            }
            Err(e) => tracing::warn!("the mark {name} was not set: {e}"),
        }
    }
}

/// Waits until the record is on the disk; false = it may never be.
fn is_synced(writer: &Writer, lsn: Lsn, is_closed: &AtomicBool) -> bool {
    loop {
        let ends = is_closed.load(Ordering::SeqCst) || writer.failed().is_some();
        let progress = writer.progress();
        if progress.durable_lsn >= lsn {
            return true;
        }
        if ends {
            return false;
        }
        // With `sync no`, and where syncs are far between, no other part requests it.
        if progress.written_lsn >= lsn {
            writer.sync_now();
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
