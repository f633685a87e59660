//! Extracts the needed keys of a base into an RDB of the same version, byte for byte.
//!
//! The base is read once: its digest and checksum are compared before any action, and the positions of the needed keys
//! are recorded. Few bytes are kept in memory; otherwise the base is read again during sending, and its digest compared
//! once more before the last byte.
//!
//! Without a selection, function libraries are needed as well. The extracted keys may be followed by folded keys
//! ([`super::fold`]).
//!
//! A value of a module may belong to others ([`redtape_wire::effect`]): with one among the needed keys, the whole base
//! is used.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use redtape_journal::{Keyring, SnapshotInfo, SnapshotReader};
use redtape_wire::rdb::{
    Entry, Extent, Fault, KeyEntry, RdbSummary, RdbVersion, RdbWriter, ReadError, ValueType, Walker,
};

use super::BaseSearch;
use super::fold::{Fold, FoldedValues};
use super::needed::Needed;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::source::base::{open_base, wrong_digest};
use crate::source::journal_range::JournalRange;

/// Bytes of values that are held rather than read again.
const HELD_BYTES_MAX: u64 = 16 << 20;
/// Pieces that are noted; with more, the whole base is used.
const PIECES_MAX: usize = 4 << 20;
/// Bytes that are read at once, and made at once.
const CHUNK_BYTES: usize = 256 << 10;
/// How often the progress is told.
const TELL_EVERY: u64 = 4 << 20;

/// What was found in a base.
#[derive(Debug)]
pub(crate) struct FoundInBase {
    /// What the base says of itself.
    pub(crate) summary: RdbSummary,
    /// The needed keys; an error says why the whole base has to be used.
    pub(crate) keys: Result<SlicedBase, &'static str>,
    /// Bytes that were read.
    pub(crate) read_bytes: u64,
    /// How the keys were found; `None` = none is needed.
    pub(crate) search: Option<BaseSearch>,
}

/// Some keys of a base.
#[derive(Debug)]
pub(crate) struct SlicedBase {
    /// How many.
    pub(crate) keys: u64,
    /// Size of the RDB that is made of them.
    pub(crate) bytes: u64,
    keys_by_db: BTreeMap<u32, u64>,
    version: RdbVersion,
    pub(super) aux: Vec<(Vec<u8>, Vec<u8>)>,
    pieces: Vec<Piece>,
    /// The whole RDB, if it is small.
    pub(super) held: Option<Vec<u8>>,
}

/// Keys of one database that follow each other, or function libraries.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// `None`: function libraries, with their opcodes.
    db: Option<u32>,
    extent: Extent,
}

impl Piece {
    fn put(&self, writer: &mut RdbWriter<Vec<u8>>, bytes: &[u8]) -> io::Result<()> {
        match self.db {
            Some(db) => writer.entry(db, bytes),
            None => writer.encoded(bytes),
        }
    }
}

impl SlicedBase {
    /// A base of which nothing is known yet but its version.
    pub(super) fn empty(version: RdbVersion) -> Self {
        let keys_by_db = BTreeMap::new();
        Self { keys: 0, bytes: 0, keys_by_db, version, aux: Vec::new(), pieces: Vec::new(), held: None }
    }

    fn add(&mut self, db: u32, extent: Extent) {
        self.keys += 1;
        *self.keys_by_db.entry(db).or_default() += 1;
        self.add_piece(Some(db), extent);
    }

    /// A function library; the extent is that of its code.
    fn add_function(&mut self, code: Extent) {
        self.add_piece(None, Extent { offset: code.offset - 1, len: code.len + 1 });
    }

    fn add_piece(&mut self, db: Option<u32>, extent: Extent) {
        match self.pieces.last_mut() {
            Some(last) if last.db == db && last.extent.end() == extent.offset => last.extent.len += extent.len,
            _ => self.pieces.push(Piece { db, extent }),
        }
    }

    /// The highest database of these keys; `None` = it is not known any more.
    pub(crate) fn highest_db(&self) -> Option<u32> {
        if self.keys == 0 { Some(0) } else { self.pieces.iter().filter_map(|piece| piece.db).max() }
    }

    pub(super) fn writer(&self) -> io::Result<RdbWriter<Vec<u8>>> {
        let mut writer = RdbWriter::new(Vec::new(), self.version, None)?;
        for (name, value) in &self.aux {
            writer.aux(name, value)?;
        }
        Ok(writer)
    }

    /// How long the RDB will be.
    fn size(&self) -> io::Result<u64> {
        let mut writer = self.writer()?;
        for piece in &self.pieces {
            piece.put(&mut writer, &[])?;
        }
        let frame = writer.finish()?.len() as u64;
        Ok(frame + self.pieces.iter().map(|piece| piece.extent.len).sum::<u64>())
    }

    /// Size of the RDB with folded keys.
    pub(crate) fn bytes_with(&self, fold: Option<&Fold>) -> u64 {
        self.bytes + fold.map_or(0, |fold| fold.bytes(&self.keys_by_db))
    }

    /// The RDB; `fold`: with these keys of the journal.
    pub(crate) fn open<'a>(
        &'a self,
        base: &SnapshotInfo,
        keyring: &Keyring,
        range: &JournalRange,
        fold: Option<&Arc<Fold>>,
    ) -> Result<Box<dyn Read + 'a>, RestoreError> {
        if let (Some(held), None) = (&self.held, fold) {
            return Ok(Box::new(&held[..]));
        }
        let from = open_base(&range.catalog, base, keyring)?;
        let folded = fold.map(|fold| fold.values(range, &self.keys_by_db));
        let pieces = PieceReader::new(self, from, base.manifest.blake3.clone(), folded);
        Ok(Box::new(pieces.map_err(RestoreError::io("read", &base.path))?))
    }
}

/// Finds the needed keys; `whole`: also what is needed beside keys.
pub(crate) fn find(
    range: &JournalRange,
    base: &SnapshotInfo,
    keyring: &Keyring,
    (needed, whole): (&Needed, bool),
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<FoundInBase, RestoreError> {
    let damaged = |problem: String| RestoreError::Base { path: base.path.clone(), problem };
    let failed = |error: ReadError| match error.fault {
        Fault::Io(e) if e.kind() != io::ErrorKind::InvalidData => RestoreError::io("read", &base.path)(e),
        fault => damaged(ReadError { at: error.at, fault }.to_string()),
    };
    let mut file = open_base(&range.catalog, base, keyring)?;
    observer.on(&Event::Step { name: "reading the base", total: base.manifest.bytes, unit: Unit::Bytes });
    let walked = Walker::new(&mut file).map_err(Stopped::At);
    let walked = walked.and_then(|mut walker| walk(&mut walker, (needed, whole), interrupt, observer));
    let mut found = match walked {
        Ok(found) => found,
        Err(Stopped::Interrupted(error)) => return Err(error),
        Err(Stopped::At(error)) => {
            // Invalid content is mostly damage.
            let changed =
                io::copy(&mut file, &mut io::sink()).ok().and_then(|_| wrong_digest(&file, &base.manifest.blake3));
            return Err(changed.map_or_else(|| failed(error), damaged));
        }
    };
    observer.on(&Event::StepDone);
    // Of a base of which nothing is needed, only the front was read.
    if !needed.is_nothing()
        && let Some(problem) = wrong_digest(&file, &base.manifest.blake3)
    {
        return Err(damaged(problem));
    }
    if let Ok(keys) = &mut found.keys {
        keys.bytes = keys.size().map_err(RestoreError::io("read", &base.path))?;
        if keys.bytes <= HELD_BYTES_MAX {
            let mut held = Vec::with_capacity(keys.bytes as usize);
            keys.open(base, keyring, range, None)?.read_to_end(&mut held).map_err(|e| damaged(e.to_string()))?;
            keys.held = Some(held);
        }
    }
    Ok(found)
}

/// Why a key's value cannot be used alone.
pub(super) fn module_value(key: &KeyEntry<'_>) -> Option<&'static str> {
    let module = key.value_type == ValueType::Module2 || key.metadata.is_some();
    module.then_some("the base holds values of modules among the keys that are needed")
}

enum Stopped {
    At(ReadError),
    Interrupted(RestoreError),
}

fn walk(
    walker: &mut Walker<&mut SnapshotReader>,
    (needed, whole): (&Needed, bool),
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<FoundInBase, Stopped> {
    let version = walker.version();
    let mut keys = Ok(SlicedBase::empty(version));
    let mut summary = RdbSummary { version, bytes: 0, checksum_present: false, aux: Vec::new() };
    let (mut front, mut told) = (true, 0);
    while let Some(entry) = walker.next_entry().map_err(Stopped::At)? {
        let refused = match entry {
            Entry::Aux { name, value: Some(value) } if front => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                summary.aux.push((text(name), text(value)));
                if let Ok(keys) = &mut keys {
                    keys.aux.push((name.to_vec(), value.to_vec()));
                }
                None
            }
            Entry::SelectDb(_) => {
                front = false;
                None
            }
            Entry::Aux { .. } if front && whole => Some("the base has a field that is too long to be held"),
            Entry::Function(code) if whole => {
                if let Ok(keys) = &mut keys {
                    keys.add_function(code);
                }
                None
            }
            Entry::ModuleAux { .. } if whole => Some("the base holds data of modules beside its keys"),
            Entry::SlotImport { .. } => Some("the base was made while slots were imported"),
            Entry::Key(key) if needed.needs(key.db, key.key) => {
                if let Ok(keys) = &mut keys {
                    keys.add(key.db, key.entry);
                }
                module_value(&key)
            }
            Entry::End(end) => {
                (summary.bytes, summary.checksum_present) = (end.bytes, end.crc64.is_some());
                None
            }
            _ => None,
        };
        if let Some(reason) = refused {
            keys = Err(reason);
        } else if keys.as_ref().is_ok_and(|keys| keys.pieces.len() > PIECES_MAX) {
            keys = Err("the needed keys of the base lie in too many places");
        }
        if walker.offset() - told >= TELL_EVERY {
            told = walker.offset();
            observer.on(&Event::At(told));
            interrupt.check().map_err(Stopped::Interrupted)?;
        }
        if !front && needed.is_nothing() {
            break;
        }
    }
    let read_bytes = walker.offset();
    let search = (!needed.is_nothing()).then_some(BaseSearch::WholeBase);
    Ok(FoundInBase { summary, keys, read_bytes, search })
}

/// Makes the RDB while it is read.
struct PieceReader<'a> {
    pieces: std::slice::Iter<'a, Piece>,
    piece: Option<Piece>,
    /// Pieces may be small: the base is read in larger ones.
    from: BufReader<SnapshotReader>,
    /// Of the base, how far it was read.
    position: u64,
    digest: String,
    /// What follows the base.
    folded: Option<FoldedValues>,
    /// `None` behind the end.
    writer: Option<RdbWriter<Vec<u8>>>,
    out: Vec<u8>,
    given: usize,
}

impl<'a> PieceReader<'a> {
    fn new(
        keys: &'a SlicedBase,
        from: SnapshotReader,
        digest: String,
        folded: Option<FoldedValues>,
    ) -> io::Result<Self> {
        let mut writer = keys.writer()?;
        let out = std::mem::take(writer.get_mut());
        Ok(Self {
            pieces: keys.pieces.iter(),
            piece: None,
            from: BufReader::with_capacity(CHUNK_BYTES, from),
            position: 0,
            digest,
            folded,
            writer: Some(writer),
            out,
            given: 0,
        })
    }

    /// Makes the next bytes.
    fn fill(&mut self) -> io::Result<()> {
        (self.out, self.given) = (Vec::new(), 0);
        let Some(writer) = &mut self.writer else { return Ok(()) };
        while writer.get_mut().len() < CHUNK_BYTES
            && let Some(mut piece) = self.piece.take().or_else(|| self.pieces.next().copied())
        {
            let from = &mut self.from;
            pass(from, piece.extent.offset - self.position, |_| Ok(()))?;
            let room = (CHUNK_BYTES - writer.get_mut().len()) as u64;
            let len = piece.extent.len.min(room);
            pass(from, len, |bytes| piece.put(writer, bytes))?;
            self.position = piece.extent.offset + len;
            piece.extent = Extent { offset: self.position, len: piece.extent.len - len };
            self.piece = (piece.extent.len > 0).then_some(piece);
        }
        self.out = std::mem::take(writer.get_mut());
        if self.out.is_empty() { self.fill_folded() } else { Ok(()) }
    }

    fn fill_folded(&mut self) -> io::Result<()> {
        let (Some(folded), Some(writer)) = (&mut self.folded, &mut self.writer) else { return self.finish() };
        let Some(values) = folded.next()? else {
            self.folded = None;
            return self.finish();
        };
        writer.encoded(&values)?;
        self.out = std::mem::take(writer.get_mut());
        Ok(())
    }

    /// The base must be unchanged.
    fn finish(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        if self.position > 0 {
            io::copy(&mut self.from, &mut io::sink())?;
            if let Some(problem) = wrong_digest(self.from.get_ref(), &self.digest) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
        }
        self.out = writer.finish()?;
        Ok(())
    }
}

/// Gives the next bytes to `to`, as they come.
fn pass(from: &mut impl BufRead, mut left: u64, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    while left > 0 {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        to(&bytes[..len])?;
        from.consume(len);
        left -= len as u64;
    }
    Ok(())
}

impl Read for PieceReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.given == self.out.len() && self.writer.is_some() {
            self.fill()?;
        }
        let n = out.len().min(self.out.len() - self.given);
        out[..n].copy_from_slice(&self.out[self.given..self.given + n]);
        self.given += n;
        Ok(n)
    }
}
