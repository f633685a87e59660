//! What tests write and expect to read: groups that own their bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use crate::block::BlockBuilder;
use crate::catalog::Catalog;
use crate::crypto::{Keyring, Random};
use crate::directory::TEMPORARY;
use crate::error::{GroupTooLarge, OpenError};
use crate::open::{Environment, Journal, OpenOptions, Recovered};
use crate::segment::name::SegmentName;
use crate::types::{
    Group, GroupRef, KeysAt, Lsn, Micros, Origin, OriginKind, Record, RecordRef, ReplOffset, SyncPolicy, TimelineId,
};
use crate::writer::{TimelineStart, Writer};

/// A group to be written; time and offset are relative to the predecessor.
#[derive(Debug, Clone)]
pub(crate) struct OwnedGroup {
    pub(crate) ts_delta: u32,
    pub(crate) slack: u64,
    pub(crate) origin: Arc<Origin>,
    pub(crate) atomic: bool,
    pub(crate) offset_delta: u32,
    pub(crate) records: Vec<(u32, Vec<Vec<u8>>)>,
    /// Which arguments of each record are keys; those that are not there count as not known.
    pub(crate) keys: Option<Vec<usize>>,
}

impl OwnedGroup {
    /// One record with one argument, 10 µs and as many bytes after the predecessor.
    pub(crate) fn simple(arg: &[u8]) -> Self {
        Self {
            ts_delta: 10,
            slack: 0,
            origin: Arc::new(Origin::of(OriginKind::Outside)),
            atomic: false,
            offset_delta: arg.len() as u32,
            records: vec![(0, vec![arg.to_vec()])],
            keys: None,
        }
    }

    /// `SET key value`, likewise.
    pub(crate) fn set(db: u32, key: &[u8], value: &[u8]) -> Self {
        Self {
            records: vec![(db, vec![b"SET".to_vec(), key.to_vec(), value.to_vec()])],
            keys: Some(vec![1]),
            ..Self::simple(key)
        }
    }

    pub(crate) fn push(&self, builder: &mut BlockBuilder) -> Result<Lsn, GroupTooLarge> {
        let args: Vec<Vec<&[u8]>> = self.records.iter().map(|(_, a)| a.iter().map(Vec::as_slice).collect()).collect();
        let keys = self.keys.as_ref().map_or(KeysAt::Unknown, |keys| KeysAt::Arguments(keys));
        let records: Vec<RecordRef<'_>> =
            self.records.iter().zip(&args).map(|((db, _), args)| RecordRef { db: *db, args, keys }).collect();
        builder.push(&GroupRef {
            ts: Micros(builder.last_ts().0 + i64::from(self.ts_delta)),
            slack: self.slack,
            origin: &self.origin,
            atomic: self.atomic,
            end_offset: ReplOffset(builder.end_offset().0 + u64::from(self.offset_delta)),
            records: &records,
        })
    }

    /// How it must be read back when it begins at `lsn`, after `last` = (ts, offset).
    pub(crate) fn read_back(&self, lsn: Lsn, last: &mut (Micros, ReplOffset)) -> Group {
        last.0.0 += i64::from(self.ts_delta);
        last.1.0 += u64::from(self.offset_delta);
        let record = |(n, (db, args)): (usize, &(u32, Vec<Vec<u8>>))| Record {
            lsn: Lsn(lsn.0 + n as u64),
            db: *db,
            args: args.iter().map(|a| bytes::Bytes::copy_from_slice(a)).collect(),
            keys: self.keys.clone().filter(|keys| keys.iter().all(|at| *at < args.len())).map(Into::into),
        };
        Group {
            ts: last.0,
            slack: self.slack,
            origin: Arc::clone(&self.origin),
            atomic: self.atomic,
            end_offset: last.1,
            records: self.records.iter().enumerate().map(record).collect(),
        }
    }
}

fn any_origin() -> impl Strategy<Value = Origin> {
    let kind = prop_oneof![
        Just(OriginKind::Client),
        Just(OriginKind::Expiry),
        Just(OriginKind::Eviction),
        Just(OriginKind::Outside),
        Just(OriginKind::Unknown),
    ];
    (kind, "[a-c]{0,1}", "[a-b]{0,1}").prop_map(|(kind, addr, via)| Origin {
        kind,
        addr,
        user: String::new(),
        name: "é".repeat(via.len()),
        via,
    })
}

pub(crate) fn any_group() -> impl Strategy<Value = OwnedGroup> {
    let arg = prop::collection::vec(any::<u8>(), 0..40);
    let record = (prop_oneof![0u32..16, any::<u32>()], prop::collection::vec(arg, 0..4));
    (
        prop_oneof![Just(0u32), 1u32..5, any::<u32>()],
        prop_oneof![Just(0u64), any::<u64>()],
        any_origin(),
        any::<bool>(),
        0u32..1000,
        prop::collection::vec(record, 1..4),
        prop::option::of(prop::collection::vec(0usize..3, 0..3)),
    )
        .prop_map(|(ts_delta, slack, origin, atomic, offset_delta, records, keys)| OwnedGroup {
            ts_delta,
            slack,
            origin: Arc::new(origin),
            atomic,
            offset_delta,
            records,
            keys,
        })
}

pub(crate) fn any_groups(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<OwnedGroup>> {
    prop::collection::vec(any_group(), size)
}

/// A clock that stands still.
pub(crate) const NOW: Micros = Micros(1_795_000_000_000_000);
/// The id of every journal in tests.
pub(crate) const JOURNAL_ID: [u8; 16] = *b"journal in tests";

pub(crate) fn options(segment_bytes: u64) -> OpenOptions {
    OpenOptions {
        segment_bytes,
        sync: SyncPolicy::No,
        compact: true,
        keyring: Keyring::default(),
        source: "redis://localhost".to_owned(),
    }
}

/// A directory in memory where there is one: thousands of syncs cost nothing there.
fn scratch_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A journal with what must be read from it.
pub(crate) struct Fixture {
    pub(crate) root: tempfile::TempDir,
    pub(crate) options: OpenOptions,
    pub(crate) writer: Option<Writer>,
    pub(crate) builder: BlockBuilder,
    /// For each timeline its groups.
    pub(crate) expected: Vec<(TimelineId, Vec<Group>)>,
    pub(crate) recovered: Recovered,
}

impl Fixture {
    /// A new journal without a timeline.
    pub(crate) fn new(segment_bytes: u64) -> Self {
        Self::with(options(segment_bytes))
    }

    /// The same, opened in another way.
    pub(crate) fn with(options: OpenOptions) -> Self {
        Self::with_random(options, counted)
    }

    pub(crate) fn with_random(options: OpenOptions, random: Random) -> Self {
        let root = scratch_dir();
        let (writer, recovered) = open_in(root.path(), options.clone(), random).unwrap();
        let builder = BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0);
        let expected = Vec::new();
        Self { root, options, writer: Some(writer), builder, expected, recovered }
    }

    /// A journal with timeline 1 and these blocks, closed.
    pub(crate) fn closed(segment_bytes: u64, blocks: &[Vec<OwnedGroup>]) -> Self {
        Self::closed_with(options(segment_bytes), blocks)
    }

    /// The same, opened in another way.
    pub(crate) fn closed_with(options: OpenOptions, blocks: &[Vec<OwnedGroup>]) -> Self {
        let mut fixture = Self::with(options);
        fixture.timeline();
        for block in blocks {
            fixture.block(block);
        }
        fixture.close();
        fixture
    }

    pub(crate) fn dir(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn writer(&self) -> &Writer {
        self.writer.as_ref().unwrap()
    }

    /// Begins the next timeline.
    pub(crate) fn timeline(&mut self) {
        self.timeline_because(&format!("reason {}", self.expected.len() + 1));
    }

    pub(crate) fn timeline_because(&mut self, reason: &str) {
        let id = TimelineId(self.expected.len() as u32 + 1);
        let offset = ReplOffset(1000 * u64::from(id.0));
        let start = TimelineStart {
            timeline: id,
            source_id: format!("source {id}"),
            offset,
            reason: reason.to_owned(),
            ts: Micros(self.builder.last_ts().0 + 5),
        };
        self.writer().begin_timeline(start).unwrap();
        let b = &self.builder;
        self.builder = BlockBuilder::new(b.next_lsn(), b.last_ts(), offset, 0);
        self.expected.push((id, Vec::new()));
    }

    /// Writes a block.
    pub(crate) fn block(&mut self, groups: &[OwnedGroup]) {
        let mut last = (self.builder.last_ts(), self.builder.end_offset());
        for group in groups {
            let lsn = self.builder.next_lsn();
            group.push(&mut self.builder).unwrap();
            let expected = group.read_back(lsn, &mut last);
            self.expected.last_mut().unwrap().1.push(expected);
        }
        let block = self.builder.finish(self.builder.last_ts());
        self.writer().submit(block).unwrap();
    }

    /// Waits until what was written is synced.
    pub(crate) fn sync(&self) {
        self.writer().sync_now();
        while self.writer().progress().durable_lsn.0 + 1 < self.builder.next_lsn().0 {
            std::thread::yield_now();
        }
    }

    pub(crate) fn close(&mut self) {
        self.writer.take().unwrap().close().unwrap();
    }

    /// Ends the writer as a crash does, but for what the kernel still has.
    pub(crate) fn kill(&mut self) {
        let writer = self.writer.take().unwrap();
        drop(writer);
    }

    /// Opens again; writing goes on where recovery says.
    pub(crate) fn reopen(&mut self) {
        let (writer, recovered) = open_with(self.root.path(), self.options.clone()).unwrap();
        self.writer = Some(writer);
        if let Some(last) = &recovered.last {
            let next = Lsn(last.last_lsn.0 + 1);
            self.builder = BlockBuilder::new(next, last.last_ts, last.end_offset, last.db);
        }
        self.recovered = recovered;
    }

    /// Forgets what a torn tail has cost: everything after the recovered position.
    pub(crate) fn forget_lost(&mut self) {
        let last = self.recovered.last.clone().unwrap();
        self.expected.retain(|(id, _)| *id <= last.timeline);
        for (_, groups) in &mut self.expected {
            groups.retain(|g| g.records[0].lsn <= last.last_lsn);
        }
    }

    /// Reads everything through a new catalog and compares.
    pub(crate) fn check(&self) {
        let catalog = Catalog::open_with(self.dir(), &self.options.keyring).unwrap();
        for (id, expected) in &self.expected {
            let read: Vec<Group> = catalog.groups(Lsn(0), *id).collect::<Result<_, _>>().unwrap();
            assert_eq!(&read, expected, "timeline {id}");
        }
    }

    /// The segments in the order of the history.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(self.dir().join("segments")).unwrap().map(|e| e.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|e| e == "seg"));
        paths.sort();
        paths
    }

    /// Whether each segment is packed, in their order.
    pub(crate) fn packed(&self) -> Vec<bool> {
        self.segments().iter().map(|path| std::fs::read(path).unwrap()[128] == 1).collect()
    }

    /// Waits until all segments but the one in use are.
    pub(crate) fn wait_until_packed(&self) {
        wait_until("packed", || self.packed().iter().rev().skip(1).all(|packed| *packed));
    }

    /// How many copies are being made, or were left.
    pub(crate) fn temporary(&self) -> usize {
        let names = std::fs::read_dir(self.dir().join("segments")).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(TEMPORARY)).count()
    }

    pub(crate) fn last_segment(&self) -> PathBuf {
        self.segments().pop().unwrap()
    }
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = std::time::Instant::now();
    while !is_so() {
        assert!(since.elapsed().as_secs() < 30, "not {what} after 30 s");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The name of the segment in this file.
pub(crate) fn name_of(path: &Path) -> SegmentName {
    SegmentName::parse(path.file_name().unwrap().to_str().unwrap()).unwrap()
}

/// "Randomness" that never comes twice in a process, and is the same in each.
#[expect(clippy::unnecessary_wraps, reason = "a `Random` may fail")]
pub(crate) fn counted(bytes: &mut [u8]) -> std::io::Result<()> {
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    let n = DRAWN.fetch_add(1, Ordering::Relaxed);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&n.to_le_bytes()).finalize_xof().fill(bytes);
    Ok(())
}

/// Keys of tests: `one`, then `two`; the last one is current.
pub(crate) fn keyring(ids: &[&str]) -> Keyring {
    let keys: Vec<String> = ids.iter().map(|id| format!("{id}:{}", blake3::hash(id.as_bytes()))).collect();
    Keyring::parse(&keys.join("\n")).unwrap()
}

/// Opens with the fixed clock and id.
pub(crate) fn open(dir: &Path, segment_bytes: u64) -> Result<(Writer, Recovered), OpenError> {
    open_with(dir, options(segment_bytes))
}

/// The same, in another way.
pub(crate) fn open_with(dir: &Path, options: OpenOptions) -> Result<(Writer, Recovered), OpenError> {
    open_in(dir, options, counted)
}

fn open_in(dir: &Path, options: OpenOptions, random: Random) -> Result<(Writer, Recovered), OpenError> {
    let environment = Environment { now: || NOW, new_id: || Ok(JOURNAL_ID), random };
    let (journal, recovered) = Journal::open_in(environment, dir, options)?;
    Ok((journal.start(|_| ()), recovered))
}
