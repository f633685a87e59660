//! Appending to segments: the part of the writer that touches files. No threads here.
//!
//! Invariants: a segment is sealed and synced before the next one is created; a new segment's header
//! and name are synced before its first block is written; a block is written only if it continues
//! the history. After an error the appender is not used again. Sealed segments are packed behind its back ([`crate::compact`]).
//!
//! | crash while | a reader finds |
//! | --- | --- |
//! | writing a block | a torn tail, ignored; the next open cuts it |
//! | writing a footer | the same: all blocks are there, and were synced before it |
//! | between footer and next segment | a sealed last segment |
//! | writing a new header | an unfinished file without data, ignored; the next open sets it aside |

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::block::Block;
use crate::compact::{Later, Unpacked};
use crate::crypto::{Keyring, Random, Sealer};
use crate::directory::{Directory, TEMPORARY};
use crate::error::{Damage, OpenError};
use crate::files;
use crate::files::{FILE_MODE, Failure, sync_dir};
use crate::lock::Lock;
use crate::recover::Resume;
use crate::segment::footer::Footer;
use crate::segment::header::{SegmentHeader, SourceHistory, TimelineFacts, WholeHeader, tag_of};
use crate::segment::link::Link;
use crate::segment::scan::Scan;
use crate::segment::tally::{Reach, Tally};
use crate::types::{LastPosition, Lsn, Micros, TimelineId};
use crate::writer::TimelineStart;

/// Why something couldn't be appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// What was written before may be on no disk, whatever a later sync says.
    #[error("cannot {action} {}: a sync failed: {source}", path.display())]
    Sync { action: &'static str, path: PathBuf, source: io::Error },
    #[error("a block was submitted out of order: {0}")]
    OutOfOrder(Damage),
    #[error("a block was submitted before a timeline was begun")]
    NoTimeline,
    #[error("timeline {new} was begun after timeline {current}")]
    TimelineBack { new: TimelineId, current: TimelineId },
}

impl AppendError {
    /// Whether what was written before can no longer be relied upon. After a failed sync, the kernel may call pages clean that
    /// never reached the disk; and what does not follow on was made of something else than what is there.
    pub(super) fn leaves_doubt(&self) -> bool {
        match self {
            // Nothing was said to be on the disk that may not be there.
            Self::Io { .. } => false,
            Self::Sync { .. } | Self::OutOfOrder(_) | Self::NoTimeline | Self::TimelineBack { .. } => true,
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| match Failure::from(error) {
            Failure::Sync(source) => Self::Sync { action, path, source },
            Failure::Io(source) => Self::Io { action, path, source },
            Failure::WrongKind { found, wanted } => {
                let source = io::Error::other(format!("it is {found}, not {wanted}"));
                Self::Io { action, path, source }
            }
        }
    }

    /// The same as an error of the opening.
    fn while_opening(self, path: &Path) -> OpenError {
        match self {
            Self::Io { action, path, source } => OpenError::Io { action, path, source },
            Self::Sync { action, path, source } => OpenError::Sync { action, path, source },
            other => {
                OpenError::Io { action: "change the keys of", path: path.to_owned(), source: io::Error::other(other) }
            }
        }
    }
}

/// Where the history stands between two segments.
#[derive(Debug, Clone)]
struct Stand {
    timeline: TimelineFacts,
    /// What the next segment says of it.
    source: SourceHistory,
    reach: Reach,
    complete_until: Micros,
    end_db: u32,
    link: Link,
}

/// The segment in use.
#[derive(Debug)]
struct Active {
    file: File,
    path: PathBuf,
    header: SegmentHeader,
    tag: u32,
    tally: Tally,
    hasher: blake3::Hasher,
    len: u64,
    /// Blocks were written since the last sync.
    unsynced: bool,
    /// Encrypts its blocks, if it is encrypted.
    sealer: Option<Arc<Sealer>>,
}

/// How segments are written.
#[derive(Debug, Clone)]
pub(crate) struct AppenderOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) pack: bool,
    /// Replaced while the writer runs; looked at when a file is begun.
    pub(crate) keyring: Arc<Mutex<Keyring>>,
    pub(crate) now: fn() -> Micros,
    pub(crate) random: Random,
}

/// How a segment is begun.
#[derive(Debug, Clone, Copy)]
enum Begin {
    /// There is no file of that name.
    New,
    /// In the place of one that holds no record.
    Anew,
}

impl AppenderOptions {
    fn keyring(&self) -> Keyring {
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Appends blocks and timelines; holds the journal's lock.
#[derive(Debug)]
pub(crate) struct Appender {
    dir: Directory,
    /// Packs sealed segments, if they shall be.
    later: Option<Later>,
    _lock: Arc<Lock>,
    journal_id: [u8; 16],
    options: AppenderOptions,
    /// Kept while no segment is in use; `None` before the first timeline.
    stand: Option<Stand>,
    active: Option<Active>,
    journal_bytes: u64,
    segments: u64,
}

impl Appender {
    /// Goes on where recovery says. Syncs the segment in use. `unpacked`: what an earlier writer left.
    pub(crate) fn resume(
        dir: Directory,
        lock: Lock,
        journal_id: [u8; 16],
        options: AppenderOptions,
        resume: Resume,
        unpacked: Vec<Unpacked>,
        (journal_bytes, segments): (u64, u64),
    ) -> Result<Self, OpenError> {
        let mut stand = None;
        let mut active = None;
        match resume {
            Resume::Empty => {}
            Resume::After { header, footer } => {
                stand = Some(Stand {
                    source: header.source.after(),
                    timeline: header.timeline,
                    reach: footer.tally.reach,
                    complete_until: footer.tally.complete_until,
                    end_db: footer.tally.end_db,
                    link: footer.link(),
                });
            }
            Resume::In { path, whole, scan } => active = Some(Active::reopen(&options, path, whole, scan)?),
        }
        let lock = Arc::new(lock);
        let later =
            options.pack.then(|| Later::new(&dir, Arc::clone(&lock), Arc::clone(&options.keyring), options.random));
        if let Some(later) = &later {
            for unpacked in unpacked {
                later.add(unpacked);
            }
        }
        let mut appender =
            Self { dir, later, _lock: lock, journal_id, options, stand, active, journal_bytes, segments };
        appender.change_keys()?;
        Ok(appender)
    }

    /// The keys that are used from the next file on.
    pub(crate) fn keyring(&self) -> Arc<Mutex<Keyring>> {
        Arc::clone(&self.options.keyring)
    }

    /// A segment that was begun with another key than the present one, or with none, is not continued.
    fn change_keys(&mut self) -> Result<(), OpenError> {
        let wanted = self.options.keyring();
        let Some(active) = &self.active else { return Ok(()) };
        if active.header.cipher.as_ref().map(|cipher| cipher.key_id.as_str()) == wanted.current() {
            return Ok(());
        }
        let path = active.path.clone();
        let failed = |e: AppendError| e.while_opening(&path);
        if active.tally.records > 0 {
            return self.seal().map_err(failed);
        }
        // It holds nothing that was secret.
        let source = active.header.source.clone();
        let stand = Stand { source, ..active.stand(active.header.prev_link) };
        self.begin_anew(stand).map_err(failed)
    }

    /// Begins the segment in use anew under its name; it holds no record, and `stand` all that it says.
    fn begin_anew(&mut self, stand: Stand) -> Result<(), AppendError> {
        let before = self.active.take().map_or(0, |active| active.len);
        self.create(stand, Begin::Anew)?;
        self.segments -= 1;
        self.journal_bytes = self.journal_bytes.saturating_sub(before);
        Ok(())
    }

    /// The source goes on under another id: so does the timeline, in a segment that says so.
    pub(crate) fn change_source(&mut self, source_id: String) -> Result<(), AppendError> {
        let present = match (&self.active, &self.stand) {
            (Some(active), _) => &active.header.timeline.source_id,
            (None, Some(stand)) => &stand.timeline.source_id,
            (None, None) => return Err(AppendError::NoTimeline),
        };
        if *present == source_id {
            return Ok(());
        }
        if let Some(active) = self.active.as_ref().filter(|active| active.tally.records == 0) {
            // A second segment would have its name.
            let mut stand = active.stand(active.header.prev_link);
            stand.source = SourceHistory::ChangedHere { before: active.header.source_before().to_owned() };
            stand.timeline.source_id = source_id;
            return self.begin_anew(stand);
        }
        self.seal()?;
        let mut stand = self.stand.take().ok_or(AppendError::NoTimeline)?;
        let before = std::mem::replace(&mut stand.timeline.source_id, source_id);
        stand.source = SourceHistory::ChangedHere { before };
        self.create(stand, Begin::New)
    }

    /// Bytes in all segments, and their number.
    pub(crate) fn size(&self) -> (u64, u64) {
        let saved = self.later.as_ref().map_or(0, Later::saved);
        (self.journal_bytes.saturating_add_signed(-saved), self.segments)
    }

    /// How far what is written reaches.
    pub(crate) fn reach(&self) -> Option<Reach> {
        let active = self.active.as_ref().map(|a| a.tally.reach);
        active.or_else(|| self.stand.as_ref().map(|s| s.reach))
    }

    /// The timeline in use; 0 before the first.
    pub(crate) fn timeline(&self) -> TimelineId {
        let active = self.active.as_ref().map(|a| a.header.timeline.id);
        active.or_else(|| self.stand.as_ref().map(|s| s.timeline.id)).unwrap_or_default()
    }

    pub(crate) fn last_position(&self) -> Option<LastPosition> {
        let stand = match &self.active {
            Some(active) => active.stand([0; 32]),
            None => self.stand.clone()?,
        };
        Some(LastPosition {
            timeline: stand.timeline.id,
            source_id: stand.timeline.source_id,
            last_lsn: Lsn(stand.reach.next_lsn.0 - 1),
            last_ts: stand.reach.last_ts,
            complete_until: stand.complete_until,
            end_offset: stand.reach.end_offset,
            db: stand.end_db,
        })
    }

    /// Writes a block, beginning a new segment where one is due.
    pub(crate) fn append(&mut self, block: Block) -> Result<(), AppendError> {
        let due = self.active.as_ref().is_some_and(|active| {
            active.tally.records > 0 && active.len + block.header.len() > self.options.segment_bytes
        });
        if due {
            self.seal()?;
        }
        if self.active.is_none() {
            let stand = self.stand.take().ok_or(AppendError::NoTimeline)?;
            self.create(stand, Begin::New)?;
        }
        let active = self.active.as_mut().ok_or(AppendError::NoTimeline)?;
        self.journal_bytes += active.write_block(block)?;
        Ok(())
    }

    /// Seals the segment in use and begins the timeline's first one.
    pub(crate) fn begin_timeline(&mut self, start: TimelineStart) -> Result<(), AppendError> {
        self.seal()?;
        let before = self.stand.take();
        if let Some(before) = &before
            && start.timeline <= before.timeline.id
        {
            let current = before.timeline.id;
            return Err(AppendError::TimelineBack { new: start.timeline, current });
        }
        let reach = Reach {
            next_lsn: before.as_ref().map_or(Lsn(1), |b| b.reach.next_lsn),
            last_ts: before.as_ref().map_or(Micros(0), |b| b.reach.last_ts),
            end_offset: start.offset,
        };
        let stand = Stand {
            timeline: TimelineFacts {
                id: start.timeline,
                source_id: start.source_id,
                reason: start.reason,
                start_offset: start.offset,
                start_ts: start.ts,
            },
            source: SourceHistory::Unchanged,
            reach,
            complete_until: start.ts,
            end_db: 0,
            link: before.map_or([0; 32], |b| b.link),
        };
        self.create(stand, Begin::New)
    }

    fn create(&mut self, stand: Stand, begin: Begin) -> Result<(), AppendError> {
        let header = SegmentHeader {
            journal_id: self.journal_id,
            first_lsn: stand.reach.next_lsn,
            timeline: stand.timeline,
            source: stand.source,
            prev_link: stand.link,
            created: (self.options.now)(),
            last_ts: stand.reach.last_ts,
            complete_until: stand.complete_until,
            start_offset: stand.reach.end_offset,
            start_db: stand.end_db,
            packed: false,
            cipher: None,
        };
        let active = Active::create(&self.dir, &self.options, header, begin)?;
        self.journal_bytes += active.len;
        self.segments += 1;
        self.active = Some(active);
        Ok(())
    }

    /// Makes what is written durable.
    pub(crate) fn sync(&mut self) -> Result<(), AppendError> {
        match &mut self.active {
            Some(active) => active.sync(),
            None => Ok(()),
        }
    }

    /// Seals the segment in use, if there is one: writes its footer, and syncs it.
    pub(crate) fn seal(&mut self) -> Result<(), AppendError> {
        if let Some(active) = self.active.take() {
            let before = active.len;
            // Without a record it may have to be continued, see `recover`.
            let packable = active.tally.records > 0;
            let (path, name) = (active.path.clone(), active.header.name());
            let (stand, bytes) = active.seal()?;
            self.stand = Some(stand);
            self.journal_bytes = (self.journal_bytes + bytes).saturating_sub(before);
            if let Some(later) = self.later.as_ref().filter(|_| packable) {
                later.add(Unpacked { name, path, bytes });
            }
        }
        Ok(())
    }

    /// What is sealed is packed now, as far as there is time. The appender is not used again.
    pub(crate) fn pack_rest(&self) {
        self.later.iter().for_each(Later::close);
    }

    /// At the end of the writer's life: seals the segment in use, unless it holds no record. That
    /// one stays open and is continued, as the next segment would have the same name.
    pub(crate) fn finish(&mut self) -> Result<(), AppendError> {
        if self.active.as_ref().is_some_and(|active| active.tally.records == 0) {
            return self.sync();
        }
        self.seal()
    }
}

impl Active {
    fn create(
        dir: &Directory,
        options: &AppenderOptions,
        mut header: SegmentHeader,
        begin: Begin,
    ) -> Result<Self, AppendError> {
        let path = dir.segments().join(header.name().to_string());
        let keyring = options.keyring();
        let sealer = header.lock(&keyring, options.random).map_err(AppendError::io("draw a key for", &path))?;
        let bytes = header.encode();
        let file = match begin {
            Begin::New => create_file(&path, &bytes)?,
            Begin::Anew => replace_file(dir, &path, &bytes)?,
        };
        sync_dir(&dir.segments()).map_err(AppendError::io("sync", &dir.segments()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let tally = Tally::begin(&header);
        let len = bytes.len() as u64;
        Ok(Self { file, path, header, tag: tag_of(&bytes), tally, hasher, len, unsynced: false, sealer })
    }

    fn reopen(options: &AppenderOptions, path: PathBuf, whole: WholeHeader, scan: Scan) -> Result<Self, OpenError> {
        let mut file = files::open_write(&path).map_err(OpenError::io("open", &path))?;
        files::sync(&file).map_err(OpenError::io("sync", &path))?;
        let mut hasher = blake3::Hasher::new();
        // Leaves the file's cursor at the end of the blocks, where writing goes on.
        hasher.update_reader(Read::by_ref(&mut file).take(scan.end)).map_err(OpenError::io("read", &path))?;
        let sealer =
            whole.header.unlock(&options.keyring()).map_err(|fault| OpenError::Key { file: path.clone(), fault })?;
        let WholeHeader { header, tag, .. } = whole;
        Ok(Self { file, path, header, tag, tally: scan.tally, hasher, len: scan.end, unsynced: false, sealer })
    }

    fn write_block(&mut self, mut block: Block) -> Result<u64, AppendError> {
        self.tally.check_next(&block.header).map_err(AppendError::OutOfOrder)?;
        block.header.behind_unsynced = self.unsynced;
        self.unsynced = true;
        let bytes = block.place(self.len, self.tag, self.sealer.as_deref());
        self.file.write_all(bytes).map_err(AppendError::io("append to", &self.path))?;
        self.hasher.update(bytes);
        let len = bytes.len() as u64;
        self.tally.add(&block.header, self.len);
        self.len += len;
        Ok(len)
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        files::sync_data(&self.file).map_err(AppendError::io("sync", &self.path))?;
        self.unsynced = false;
        Ok(())
    }

    /// Where the history stands at the end of this segment.
    fn stand(&self, link: Link) -> Stand {
        Stand {
            timeline: self.header.timeline.clone(),
            source: self.header.source.after(),
            reach: self.tally.reach,
            complete_until: self.tally.complete_until,
            end_db: self.tally.end_db,
            link,
        }
    }

    /// Returns where the history stands, and the size of the sealed file.
    fn seal(mut self) -> Result<(Stand, u64), AppendError> {
        // A footer is believed without a look at the blocks: it must not reach the disk before them.
        self.sync()?;
        let digest = *self.hasher.finalize().as_bytes();
        let mut footer = Footer {
            tally: self.tally.clone(),
            filters: None,
            blocks_end: self.len,
            digest,
            copy_of: None,
            position: self.len,
            segment_tag: self.tag,
            proof: None,
        };
        footer.prove(self.sealer.as_deref());
        let stand = self.stand(footer.link());
        let bytes = footer.encode();
        let written = self.file.write_all(&bytes).and_then(|()| files::sync(&self.file));
        written.map_err(AppendError::io("seal", &self.path))?;
        Ok((stand, self.len + bytes.len() as u64))
    }
}

fn create_file(path: &Path, header: &[u8]) -> Result<File, AppendError> {
    let mut file = files::create_new(path).map_err(AppendError::io("create", path))?;
    file.write_all(header).and_then(|()| files::sync(&file)).map_err(AppendError::io("write", path))?;
    Ok(file)
}

/// Begins a segment anew that holds no record. At any moment there is the old file or the new one.
fn replace_file(dir: &Directory, path: &Path, header: &[u8]) -> Result<File, AppendError> {
    let replace = || -> io::Result<File> {
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(dir.segments())?;
        file.write_all(header)?;
        files::sync(file.as_file())?;
        file.persist(path).map_err(|e| e.error)
    };
    replace().map_err(AppendError::io("replace", path))
}
