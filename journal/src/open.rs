//! Opening a journal for writing: lock, meta, recovery.
//!
//! Order, and what a crash in between leaves:
//!
//! 1. the directory and `lock`: an empty directory, opened as new;
//! 2. `meta`, put in place as a whole: from here on it is a journal;
//! 3. the folders: made again by the next open;
//! 4. sync of the last segment as it was found, sealed or not: what is reported as there is durable;
//! 5. recovery, as [`crate::recover`] decides: bytes reach the quarantine and are synced there before
//!    they are cut from a segment, so at worst they are in both places.
//!
//! Afterwards an unsealed last segment is continued; after a sealed one, the first block begins a
//! new segment.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::compact::{Uncompacted, remove_unfinished};
use crate::crypto::{Keyring, Random, random};
use crate::directory::Directory;
use crate::error::OpenError;
use crate::files;
use crate::files::{is_there, sync_dir};
use crate::filters_file;
use crate::lease::{PruneLock, ReadLease};
use crate::lock::Lock;
use crate::meta::{Meta, foreign_files};
use crate::recover::{Cut, Plan, Resume, corrupt, decide, torn_name};
use crate::segment::load::{SegmentFacts, TailFact, list_segments, load_segment};
use crate::snapshot::clean_snapshots;
use crate::splices::Splices;
use crate::storage::LocalDirectory;
use crate::types::{LastPosition, Micros, SyncPolicy, TimelineId};
use crate::writer::{Appender, AppenderOptions, Progress, Writer};

/// How much is copied at once into the quarantine.
const COPY_CHUNK: usize = 1 << 20;

/// How a journal is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// A segment is sealed before it grows over this size; only a single larger block makes it
    /// larger.
    pub segment_bytes: u64,
    /// When data is synced.
    pub sync: SyncPolicy,
    /// A sealed segment with many small blocks, or without key filters, is replaced by a copy in large, compressed blocks.
    pub compact: bool,
    /// Without keys, nothing is encrypted. With some, every file begun from now on is, with the current one.
    pub keyring: Keyring,
    /// Where the data comes from, without secrets; kept in `meta` when the journal is created.
    pub source: String,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            sync: SyncPolicy::default(),
            compact: true,
            keyring: Keyring::default(),
            source: String::new(),
        }
    }
}

/// What opening found and did.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// Id of the journal, 32 hex digits.
    pub journal_id: String,
    /// Where it ends; `None` if no timeline was begun yet.
    pub last: Option<LastPosition>,
    /// What was repaired or set aside, for a person to read.
    pub notes: Vec<String>,
    /// The journal is new.
    pub created: bool,
}

/// Where time and randomness come from; fixed in tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Environment {
    pub(crate) now: fn() -> Micros,
    pub(crate) new_id: fn() -> io::Result<[u8; 16]>,
    pub(crate) random: Random,
}

impl Default for Environment {
    fn default() -> Self {
        Self { now: Micros::now, new_id: random_id, random }
    }
}

fn random_id() -> io::Result<[u8; 16]> {
    let mut id = [0; 16];
    random(&mut id)?;
    Ok(id)
}

/// A journal opened for writing; holds the lock.
#[derive(Debug)]
pub struct Journal {
    appender: Appender,
    sync: SyncPolicy,
}

impl Journal {
    /// Opens the journal in `dir`, repairing a torn tail; an empty or missing directory becomes a
    /// new journal.
    pub fn create_or_open(dir: impl AsRef<Path>, options: OpenOptions) -> Result<(Self, Recovered), OpenError> {
        Self::open_in(Environment::default(), dir.as_ref(), options)
    }

    pub(crate) fn open_in(
        environment: Environment,
        dir: &Path,
        options: OpenOptions,
    ) -> Result<(Self, Recovered), OpenError> {
        let dir = Directory::new(dir);
        make_root(dir.root())?;
        refuse_other_directory(&dir)?;
        // What cannot be read is not touched, not even its lock.
        Meta::load(&dir)?;
        let lock = Lock::take(&dir)?;
        let (meta, created) = match Meta::load(&dir)? {
            Some(meta) => (meta, false),
            None => (create_meta(&dir, environment, options.source)?, true),
        };
        for folder in [dir.segments(), dir.snapshots(), dir.quarantine()] {
            files::ensure_folder(&folder).map_err(OpenError::io("create", &folder))?;
        }
        sync_dir(dir.root()).map_err(OpenError::io("sync", dir.root()))?;

        filters_file::remove(&dir);
        remove_unfinished(&dir).map_err(OpenError::io("clean", dir.segments()))?;
        PruneLock::prepare(&dir).map_err(OpenError::io("create", dir.prune_lock()))?;

        let journal_id = meta.id().unwrap_or_default();
        let _lease = ReadLease::take(&dir);
        let storage = LocalDirectory::new(&dir);
        let (names, others) = list_segments(&storage)?;
        let mut notes: Vec<String> =
            others.iter().map(|name| format!("segments/{name} is not part of the journal")).collect();
        let mut facts = Vec::with_capacity(names.len());
        for (n, (name, path)) in names.iter().enumerate() {
            facts.push(load_segment(&storage, *name, path, n + 1 == names.len())?);
        }
        let splices = Splices::load(&dir).map_err(OpenError::io("read", dir.splices()))?;
        let plan = decide(&facts, journal_id, &splices)?;
        if let Some(last) = facts.last() {
            check_keys(last, &options.keyring)?;
        }
        if let Some((_, path)) = names.last() {
            // Its writer may have been killed between the footer and its sync.
            files::open_read(path).and_then(|file| files::sync(&file)).map_err(OpenError::io("sync", path))?;
            sync_dir(&dir.segments()).map_err(OpenError::io("sync", dir.segments()))?;
        }
        let mut bytes: u64 = facts.iter().map(|f| f.bytes).sum();
        let mut segments = facts.len() as u64;
        if let Some(path) = &plan.set_aside {
            bytes -= facts.last().map_or(0, |f| f.bytes);
            segments -= 1;
            notes.push(set_aside(&dir, path)?);
        }
        if let Some(cut) = &plan.cut {
            bytes -= cut.bytes;
            notes.push(cut_tail(&dir, cut)?);
        }
        bytes -= take_footer_off(&plan)?;
        let folders = Directory::new(dir.root());
        let appender = Appender::resume(
            dir,
            lock,
            journal_id,
            AppenderOptions {
                segment_bytes: options.segment_bytes,
                compact: options.compact,
                keyring: Arc::new(Mutex::new(options.keyring)),
                now: environment.now,
                random: environment.random,
            },
            plan.resume,
            facts.iter().filter_map(uncompacted).collect(),
            (bytes, segments),
        )?;
        let last = appender.last_position();
        notes.extend(clean_snapshots(&folders, last.as_ref().map_or(TimelineId(0), |l| l.timeline))?);
        let recovered = Recovered { journal_id: meta.journal_id, last, notes, created };
        Ok((Self { appender, sync: options.sync }, recovered))
    }

    /// Spawns the writer's thread. `on_progress` is called in it after each move of a watermark,
    /// and once if the writer fails; it must return quickly.
    pub fn start(self, on_progress: impl Fn(Progress) + Send + 'static) -> Writer {
        Writer::spawn(self.appender, self.sync, on_progress)
    }
}

/// A sealed segment that its writer had no time to compact.
fn uncompacted(facts: &SegmentFacts) -> Option<Uncompacted> {
    let (Ok(whole), TailFact::Sealed(footer)) = (&facts.header, &facts.tail) else { return None };
    let wanted = !whole.header.packed && footer.wants_compaction();
    wanted.then(|| Uncompacted { name: facts.name, path: facts.path.clone(), bytes: facts.bytes })
}

/// Who cannot read the end of a journal does not write on: forgotten keys must not make it go on in clear.
fn check_keys(last: &SegmentFacts, keyring: &Keyring) -> Result<(), OpenError> {
    let Ok(whole) = &last.header else { return Ok(()) };
    let sealer = whole.header.unlock(keyring).map_err(|fault| OpenError::Key { file: last.path.clone(), fault })?;
    match &last.tail {
        TailFact::Sealed(footer) => {
            footer.check_proof(sealer.as_deref()).map_err(|damage| corrupt(last, footer.position, damage))
        }
        _ => Ok(()),
    }
}

fn make_root(root: &Path) -> Result<(), OpenError> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new(".").to_owned(),
        Some(parent) => parent.to_owned(),
        None => path.to_owned(),
    };
    // The journal is not there after a power loss if one of the folders above it is not.
    let missing = root.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).count();
    files::create_folders(root).map_err(OpenError::io("create", root))?;
    for path in root.ancestors().take(missing) {
        sync_dir(&parent(path)).map_err(OpenError::io("sync", &parent(path)))?;
    }
    // The process that made it may have been killed before it synced the parent, which may not be readable to this one.
    let _ = sync_dir(&parent(root));
    Ok(())
}

/// A directory without `meta` may hold what an interrupted creation leaves, and nothing else.
fn refuse_other_directory(dir: &Directory) -> Result<(), OpenError> {
    if is_there(&dir.meta()) {
        return Ok(());
    }
    match foreign_files(dir)? {
        None => Ok(()),
        Some(found) => Err(OpenError::NotAJournal { dir: dir.root().to_owned(), found }),
    }
}

fn create_meta(dir: &Directory, environment: Environment, source: String) -> Result<Meta, OpenError> {
    let id = (environment.new_id)().map_err(OpenError::io("draw an id for", dir.root()))?;
    let meta = Meta::new(id, (environment.now)(), source);
    meta.store(dir)?;
    Ok(meta)
}

fn set_aside(dir: &Directory, path: &Path) -> Result<String, OpenError> {
    let to = dir.quarantine_path(&torn_name(path, 0));
    std::fs::rename(path, &to).map_err(OpenError::io("move to quarantine", path))?;
    for folder in [dir.quarantine(), dir.segments()] {
        sync_dir(&folder).map_err(OpenError::io("sync", &folder))?;
    }
    Ok(format!(
        "{} was being created when the writer stopped; it held no data and is now {}",
        path.display(),
        to.display()
    ))
}

fn cut_tail(dir: &Directory, cut: &Cut) -> Result<String, OpenError> {
    let to = dir.quarantine_path(&torn_name(&cut.path, cut.at));
    if let Err(e) = copy_tail(&cut.path, cut.at, &to) {
        // Half a copy is worth nothing, and the space is wanted: the disk is full, most likely.
        let _ = std::fs::remove_file(&to);
        return Err(OpenError::io("copy to quarantine", &cut.path)(e));
    }
    sync_dir(&dir.quarantine()).map_err(OpenError::io("sync", dir.quarantine()))?;
    shorten(&cut.path, cut.at)?;
    Ok(format!(
        "{} had a torn tail: cut {} bytes at offset {} ({}); they are kept in {}",
        cut.path.display(),
        cut.bytes,
        cut.at,
        cut.damage,
        to.display()
    ))
}

fn copy_tail(from: &Path, start: u64, to: &Path) -> io::Result<()> {
    let from = files::open_read(from)?;
    let len = from.metadata()?.len();
    let to = files::create_new(to)?;
    let mut chunk = vec![0; COPY_CHUNK.min((len - start) as usize)];
    let mut at = start;
    while at < len {
        let n = chunk.len().min((len - at) as usize);
        from.read_exact_at(&mut chunk[..n], at)?;
        to.write_all_at(&chunk[..n], at - start)?;
        at += n as u64;
    }
    files::sync(&to)
}

/// Returns how many bytes that were. A footer holds nothing of its own, so it is not kept.
fn take_footer_off(plan: &Plan) -> Result<u64, OpenError> {
    match &plan.resume {
        Resume::In { path, scan, .. } if plan.unseal => {
            let len = std::fs::metadata(path).map_err(OpenError::io("read", path))?.len();
            shorten(path, scan.end)?;
            Ok(len - scan.end)
        }
        _ => Ok(0),
    }
}

fn shorten(path: &Path, len: u64) -> Result<(), OpenError> {
    let file = files::open_write(path).map_err(OpenError::io("open", path))?;
    file.set_len(len).and_then(|()| files::sync(&file)).map_err(OpenError::io("shorten", path))
}
