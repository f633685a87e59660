//! Appending to segments: the part of the writer that touches files. No threads here.
//!
//! Invariants: a segment is sealed and synced before the next one is created; a new segment's header
//! and name are synced before its first block is written; a block is written only if it continues
//! the history. After an error the appender is not used again. Sealed segments are compacted in the background ([`crate::compact`]).
//!
//! | crash while | a reader finds |
//! | --- | --- |
//! | writing a block | a torn tail, ignored; the next open cuts it |
//! | writing key filters | the same: all blocks are there |
//! | writing a footer | the same: blocks and filters were synced before it |
//! | extending the file of filters | see [`crate::filters_file`] |
//! | between footer and next segment | a sealed last segment |
//! | writing a new header | an unfinished file without data, ignored; the next open sets it aside |

use std::fs::{File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::block::{BLOCK_HEADER_LEN, Block, Compressor, LARGE_BLOCK_BYTES, decode_payload};
use crate::bloom::FilterBuilder;
use crate::compact::{Background, Uncompacted};
use crate::crypto::{Keyring, Random, Sealer};
use crate::directory::{Directory, TEMPORARY};
use crate::error::{AppendError, OpenError};
use crate::files;
use crate::files::{FILE_MODE, sync_dir};
use crate::filters_file::{FiltersFile, SyncedSegment};
use crate::lock::Lock;
use crate::recover::Resume;
use crate::segment::footer::Footer;
use crate::segment::header::{SegmentHeader, SourceHistory, TimelineFacts, WholeHeader, tag_of};
use crate::segment::link::{Link, hash_range};
use crate::segment::scan::{Blocks, Scan};
use crate::segment::tally::{Extent, Tally};
use crate::types::{LastPosition, Lsn, Micros, TimelineId};
use crate::writer::TimelineStart;

/// The end of the chain: what the next segment has to follow.
#[derive(Debug, Clone)]
struct ChainTip {
    timeline: TimelineFacts,
    /// What the next segment says of it.
    source: SourceHistory,
    extent: Extent,
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
    /// Over the keys of its blocks; written when it is sealed.
    filters: FilterBuilder,
    /// The same until then, for readers in other processes.
    filters_file: FiltersFile,
}

/// How segments are written.
#[derive(Debug, Clone)]
pub(crate) struct AppenderOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) compact: bool,
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
    /// It replaces the file of that name, which holds no record.
    Recreate,
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
    /// Compacts sealed segments; `None` if the options say no.
    background: Option<Background>,
    _lock: Arc<Lock>,
    journal_id: [u8; 16],
    options: AppenderOptions,
    /// Kept while no segment is in use; `None` before the first timeline.
    tip: Option<ChainTip>,
    active: Option<Active>,
    compressor: Compressor,
    journal_bytes: u64,
    segments: u64,
}

impl Appender {
    /// Goes on where recovery says. Syncs the segment in use. `uncompacted`: segments that an earlier writer left so.
    pub(crate) fn resume(
        dir: Directory,
        lock: Lock,
        journal_id: [u8; 16],
        options: AppenderOptions,
        resume: Resume,
        uncompacted: Vec<Uncompacted>,
        (journal_bytes, segments): (u64, u64),
    ) -> Result<Self, OpenError> {
        let mut tip = None;
        let mut active = None;
        match resume {
            Resume::Empty => {}
            Resume::After { header, footer } => {
                tip = Some(ChainTip {
                    source: header.source.after(),
                    timeline: header.timeline,
                    extent: footer.tally.extent,
                    complete_until: footer.tally.complete_until,
                    end_db: footer.tally.end_db,
                    link: footer.link(),
                });
            }
            Resume::In { path, whole, scan } => active = Some(Active::reopen(&dir, &options, path, whole, scan)?),
        }
        let compressor = Compressor::new().map_err(OpenError::io("compress for", dir.root()))?;
        let lock = Arc::new(lock);
        let background = options
            .compact
            .then(|| Background::new(&dir, Arc::clone(&lock), Arc::clone(&options.keyring), options.random));
        if let Some(background) = &background {
            for uncompacted in uncompacted {
                background.add(uncompacted);
            }
        }
        let mut appender = Self {
            dir,
            background,
            _lock: lock,
            journal_id,
            options,
            tip,
            active,
            compressor,
            journal_bytes,
            segments,
        };
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
        let tip = ChainTip { source, ..active.tip(active.header.prev_link) };
        self.recreate(tip).map_err(failed)
    }

    /// Replaces the segment in use, which holds no record, by one of the same name that follows `tip`.
    fn recreate(&mut self, tip: ChainTip) -> Result<(), AppendError> {
        let before = self.active.take().map_or(0, |active| active.len);
        self.create(tip, Begin::Recreate)?;
        self.segments -= 1;
        self.journal_bytes = self.journal_bytes.saturating_sub(before);
        Ok(())
    }

    /// The source goes on under another id: so does the timeline, in a segment that says so.
    pub(crate) fn change_source(&mut self, source_id: String) -> Result<(), AppendError> {
        let present = match (&self.active, &self.tip) {
            (Some(active), _) => &active.header.timeline.source_id,
            (None, Some(tip)) => &tip.timeline.source_id,
            (None, None) => return Err(AppendError::NoTimeline),
        };
        if *present == source_id {
            return Ok(());
        }
        if let Some(active) = self.active.as_ref().filter(|active| active.tally.records == 0) {
            // A second segment would have its name.
            let mut tip = active.tip(active.header.prev_link);
            tip.source = SourceHistory::ChangedHere { before: active.header.source_before().to_owned() };
            tip.timeline.source_id = source_id;
            return self.recreate(tip);
        }
        self.seal()?;
        let mut tip = self.tip.take().ok_or(AppendError::NoTimeline)?;
        let before = std::mem::replace(&mut tip.timeline.source_id, source_id);
        tip.source = SourceHistory::ChangedHere { before };
        self.create(tip, Begin::New)
    }

    /// Bytes in all segments, and their number.
    pub(crate) fn size(&self) -> (u64, u64) {
        let saved = self.background.as_ref().map_or(0, Background::saved);
        (self.journal_bytes.saturating_add_signed(-saved), self.segments)
    }

    /// How far what is written reaches.
    pub(crate) fn extent(&self) -> Option<Extent> {
        let active = self.active.as_ref().map(|a| a.tally.extent);
        active.or_else(|| self.tip.as_ref().map(|s| s.extent))
    }

    /// Up to when what is written is complete.
    pub(crate) fn complete_until(&self) -> Micros {
        let active = self.active.as_ref().map(|a| a.tally.complete_until);
        active.or_else(|| self.tip.as_ref().map(|s| s.complete_until)).unwrap_or_default()
    }

    /// The timeline in use; 0 before the first.
    pub(crate) fn timeline(&self) -> TimelineId {
        let active = self.active.as_ref().map(|a| a.header.timeline.id);
        active.or_else(|| self.tip.as_ref().map(|s| s.timeline.id)).unwrap_or_default()
    }

    pub(crate) fn last_position(&self) -> Option<LastPosition> {
        let tip = match &self.active {
            Some(active) => active.tip([0; 32]),
            None => self.tip.clone()?,
        };
        Some(LastPosition {
            timeline: tip.timeline.id,
            source_id: tip.timeline.source_id,
            last_lsn: Lsn(tip.extent.next_lsn.0 - 1),
            last_ts: tip.extent.last_ts,
            complete_until: tip.complete_until,
            end_offset: tip.extent.end_offset,
            db: tip.end_db,
        })
    }

    /// Writes a block, beginning a new segment where one is due. A large one is compressed before.
    pub(crate) fn append(&mut self, mut block: Block) -> Result<(), AppendError> {
        let large = block.payload().len() >= LARGE_BLOCK_BYTES;
        let compressed = if large {
            let compressed = self.compressor.compress(block.payload());
            compressed.map_err(AppendError::io("compress for", self.dir.root()))?.map(<[u8]>::len)
        } else {
            None
        };
        let len = (BLOCK_HEADER_LEN + compressed.unwrap_or(block.payload().len())) as u64;
        if self.active.as_ref().is_some_and(|active| active.is_full(len, self.options.segment_bytes)) {
            self.seal()?;
        }
        if self.active.is_none() {
            let tip = self.tip.take().ok_or(AppendError::NoTimeline)?;
            self.create(tip, Begin::New)?;
        }
        let active = self.active.as_mut().ok_or(AppendError::NoTimeline)?;
        active.take_keys(&block);
        if compressed.is_some() {
            block.store(self.compressor.output());
        }
        self.journal_bytes += active.write_block(block)?;
        Ok(())
    }

    /// Seals the segment in use and begins the timeline's first one.
    pub(crate) fn begin_timeline(&mut self, start: TimelineStart) -> Result<(), AppendError> {
        self.seal()?;
        let before = self.tip.take();
        if let Some(before) = &before
            && start.timeline <= before.timeline.id
        {
            let current = before.timeline.id;
            return Err(AppendError::TimelineBack { new: start.timeline, current });
        }
        let extent = Extent {
            next_lsn: before.as_ref().map_or(Lsn(1), |b| b.extent.next_lsn),
            last_ts: before.as_ref().map_or(Micros(0), |b| b.extent.last_ts),
            end_offset: start.offset,
        };
        let tip = ChainTip {
            timeline: TimelineFacts {
                id: start.timeline,
                source_id: start.source_id,
                reason: start.reason,
                start_offset: start.offset,
                start_ts: start.ts,
            },
            source: SourceHistory::Unchanged,
            extent,
            complete_until: start.ts,
            end_db: 0,
            link: before.map_or([0; 32], |b| b.link),
        };
        self.create(tip, Begin::New)
    }

    fn create(&mut self, tip: ChainTip, begin: Begin) -> Result<(), AppendError> {
        let header = SegmentHeader {
            journal_id: self.journal_id,
            first_lsn: tip.extent.next_lsn,
            timeline: tip.timeline,
            source: tip.source,
            prev_link: tip.link,
            created: (self.options.now)(),
            last_ts: tip.extent.last_ts,
            complete_until: tip.complete_until,
            start_offset: tip.extent.end_offset,
            start_db: tip.end_db,
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

    /// Lets searches in other processes know the keys of what is synced.
    pub(crate) fn extend_filters_file(&mut self) {
        if let Some(active) = self.active.as_mut().filter(|active| !active.unsynced) {
            active.extend_filters_file();
        }
    }

    /// Seals the segment in use, if there is one: writes its footer, and syncs it.
    pub(crate) fn seal(&mut self) -> Result<(), AppendError> {
        if let Some(active) = self.active.take() {
            let before = active.len;
            let (path, name) = (active.path.clone(), active.header.name());
            let Sealed { tip, bytes, wants_compaction } = active.seal()?;
            self.tip = Some(tip);
            self.journal_bytes = (self.journal_bytes + bytes).saturating_sub(before);
            if let Some(background) = self.background.as_ref().filter(|_| wants_compaction) {
                background.add(Uncompacted { name, path, bytes });
            }
        }
        Ok(())
    }

    /// Compacts what is sealed, as far as there is time. The appender is not used again.
    pub(crate) fn compact_rest(&self) {
        self.background.iter().for_each(Background::close);
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
            Begin::Recreate => replace_file(dir, &path, &bytes)?,
        };
        sync_dir(&dir.segments()).map_err(AppendError::io("sync", &dir.segments()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let tally = Tally::begin(&header);
        let len = bytes.len() as u64;
        let filters = FilterBuilder::new(options.segment_bytes);
        let filters_file = FiltersFile::new(dir, len);
        let tag = tag_of(&bytes);
        Ok(Self { file, path, header, tag, tally, hasher, len, unsynced: false, sealer, filters, filters_file })
    }

    /// Reads it once, for its digest and its filters.
    fn reopen(
        dir: &Directory,
        options: &AppenderOptions,
        path: PathBuf,
        whole: WholeHeader,
        scan: Scan,
    ) -> Result<Self, OpenError> {
        let mut file = files::open_write(&path).map_err(OpenError::io("open", &path))?;
        files::sync(&file).map_err(OpenError::io("sync", &path))?;
        let sealer =
            whole.header.unlock(&options.keyring()).map_err(|fault| OpenError::Key { file: path.clone(), fault })?;
        let read = OpenError::io("read", &path);
        let (mut hasher, mut filters) = (blake3::Hasher::new(), FilterBuilder::new(options.segment_bytes));
        let mut filters_file = FiltersFile::new(dir, whole.len);
        let mut tally = Tally::begin(&whole.header);
        let mut go_through = || -> io::Result<()> {
            hash_range(&mut hasher, &file, 0..whole.len)?;
            for block in Blocks::of(&file, &whole, scan.end) {
                let (block, stored) = block.map_err(io::Error::other)?;
                hasher.update(&block.encode()).update(&stored);
                let opens = tally.opens_interval(&block, block.position);
                filters.begin_block(block.position, opens);
                if opens {
                    filters_file.begin_interval(&tally, block.checksum());
                }
                match decode_payload(&block, stored, sealer.as_deref()) {
                    Ok(payload) => filters.add_payload(&block, &payload),
                    // A damaged one, or of a later version: it is not ruled out.
                    Err(_) => filters.add(None),
                }
                tally.add(&block, block.position);
                let (header, tag, sealer) = (&whole.header, whole.tag, sealer.as_deref());
                filters_file.extend(SyncedSegment { header, tag, tally: &tally, filters: &filters, sealer });
            }
            // Here writing goes on.
            file.seek(SeekFrom::Start(scan.end)).map(drop)
        };
        go_through().map_err(read)?;
        let WholeHeader { header, tag, .. } = whole;
        let tally = scan.tally;
        let len = scan.end;
        Ok(Self { file, path, header, tag, tally, hasher, len, unsynced: false, sealer, filters, filters_file })
    }

    /// A block that takes so many bytes belongs into the next segment. The filters are part of a segment's size.
    fn is_full(&self, block_bytes: u64, segment_bytes: u64) -> bool {
        self.tally.records > 0 && self.len + self.filters.built_bytes() + block_bytes > segment_bytes
    }

    /// Takes the keys of a block into the filters before it is written.
    fn take_keys(&mut self, block: &Block) {
        self.filters.begin_block(self.len, self.tally.opens_interval(&block.header, self.len));
        self.filters.add_payload(&block.header, block.payload());
    }

    fn write_block(&mut self, mut block: Block) -> Result<u64, AppendError> {
        self.tally.check_next(&block.header).map_err(AppendError::OutOfOrder)?;
        block.header.behind_unsynced = self.unsynced;
        self.unsynced = true;
        let bytes = block.place(self.len, self.tag, self.sealer.as_deref());
        self.file.write_all(bytes).map_err(AppendError::io("append to", &self.path))?;
        self.hasher.update(bytes);
        let len = bytes.len() as u64;
        if self.tally.opens_interval(&block.header, self.len) {
            self.filters_file.begin_interval(&self.tally, block.header.checksum());
        }
        self.tally.add(&block.header, self.len);
        self.len += len;
        Ok(len)
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        files::sync_data(&self.file).map_err(AppendError::io("sync", &self.path))?;
        self.unsynced = false;
        Ok(())
    }

    fn extend_filters_file(&mut self) {
        let Self { header, tag, tally, filters, sealer, filters_file, .. } = self;
        filters_file.extend(SyncedSegment { header, tag: *tag, tally, filters, sealer: sealer.as_deref() });
    }

    /// The chain tip behind this segment.
    fn tip(&self, link: Link) -> ChainTip {
        ChainTip {
            timeline: self.header.timeline.clone(),
            source: self.header.source.after(),
            extent: self.tally.extent,
            complete_until: self.tally.complete_until,
            end_db: self.tally.end_db,
            link,
        }
    }

    /// Returns the chain tip, the size of the sealed file, and whether there is something to compact.
    fn seal(mut self) -> Result<Sealed, AppendError> {
        let blocks_end = self.len;
        // One without a record may be continued, and has none.
        let filters = (self.tally.records > 0).then(|| {
            let filters = std::mem::replace(&mut self.filters, FilterBuilder::new(0));
            filters.encode(blocks_end, self.sealer.as_deref())
        });
        if let Some((_, pages)) = &filters {
            self.file.write_all(pages).map_err(AppendError::io("append to", &self.path))?;
            self.hasher.update(pages);
            self.len += pages.len() as u64;
        }
        // A footer is believed without a look at the blocks and the filters: it must not reach the disk before them.
        self.sync()?;
        let digest = *self.hasher.finalize().as_bytes();
        let mut footer = Footer {
            tally: self.tally.clone(),
            filters: filters.map(|(places, _)| places),
            blocks_end,
            digest,
            copy_of: None,
            position: self.len,
            segment_tag: self.tag,
            proof: None,
        };
        footer.prove(self.sealer.as_deref());
        let tip = self.tip(footer.link());
        let bytes = footer.encode();
        let written = self.file.write_all(&bytes).and_then(|()| files::sync(&self.file));
        written.map_err(AppendError::io("seal", &self.path))?;
        // From here on, a reader finds the footer.
        self.filters_file.end();
        Ok(Sealed { tip, bytes: self.len + bytes.len() as u64, wants_compaction: footer.wants_compaction() })
    }
}

/// What became of a segment.
struct Sealed {
    tip: ChainTip,
    bytes: u64,
    wants_compaction: bool,
}

fn create_file(path: &Path, header: &[u8]) -> Result<File, AppendError> {
    let mut file = files::create_new(path).map_err(AppendError::io("create", path))?;
    file.write_all(header).and_then(|()| files::sync(&file)).map_err(AppendError::io("write", path))?;
    Ok(file)
}

/// Replaces a segment that holds no record. At any point in time there is the old file or the new one.
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
