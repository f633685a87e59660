//! Reads an undo file, entry by entry, in bounded memory: the window, and one entry.
//!
//! What is wrong with the file, in the order of the rows:
//!
//! | part | decision |
//! | --- | --- |
//! | its header is cut off by the end of the file | torn |
//! | header wrong, no sector missing in it | damaged |
//! | header right, its bytes are cut off by the end of the file | torn |
//! | checksum of the bytes wrong, no sector missing in them | damaged |
//! | header or bytes wrong, a sector missing, a later header says that this place was synced | damaged |
//! | the same, and no header says so | torn: it is what a power failure leaves of what was not synced |
//! | right, and not the next one, or encrypted for another place, or no entry | damaged |
//!
//! *Missing* sectors read as zeros. Torn begins with the entry of the part, not with the part. Damaged is an error; nothing is cut.

use std::path::{Path, PathBuf};

use super::entry::{EntryNumber, UndoEntry};
use super::error::UndoFileError;
use super::head::{self, UndoHead, WholeHead};
use super::part::{PART_BYTES, PART_HEADER_LEN, PartFault, PartHeader};
use super::window::Window;
use super::{MAX_ENTRY_BYTES, lock};
use crate::crypto::{Keyring, OVERHEAD};
use crate::directory::has_hole;
use crate::error::Damage;
use crate::files;
use crate::storage::StoredFile;

/// What is searched at once for a later header.
const SEARCH_BYTES: usize = 64 << 10;

/// Bytes at the end that are no whole entry: no sync has confirmed them, so the write that they stand for was not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// Where they begin.
    pub at: u64,
    /// How many there are.
    pub bytes: u64,
    /// What is wrong with the first of them.
    pub damage: Damage,
}

/// An entry with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEntry<'a> {
    /// Its number.
    pub number: EntryNumber,
    /// Where it stands in the file.
    pub position: u64,
    /// What it says.
    pub entry: UndoEntry<'a>,
}

/// Where reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadPosition {
    pub(super) at: u64,
    pub(super) number: u64,
}

/// An open undo file.
#[derive(Debug)]
pub struct UndoReader {
    path: PathBuf,
    window: Window,
    whole: WholeHead,
    next: ReadPosition,
    /// Up to where the last part said that the file was synced.
    synced: u64,
    /// The bytes of one entry.
    assembled: Vec<u8>,
    torn: Option<TornTail>,
    is_finished: bool,
}

/// What stands at a place.
enum Part {
    Whole { is_last: bool },
    Torn(Damage),
}

impl UndoReader {
    /// Opens a file that no process writes.
    pub fn open(path: &Path, keyring: &Keyring) -> Result<Self, UndoFileError> {
        let file = files::open_read(path).map_err(UndoFileError::io("open", path))?;
        lock::lock_to_read(path, &file)?;
        Self::of(path, Box::new(file), keyring)
    }

    /// Reads the head of an open file.
    pub(super) fn of(path: &Path, file: Box<dyn StoredFile>, keyring: &Keyring) -> Result<Self, UndoFileError> {
        let io = |e| UndoFileError::io("read", path)(e);
        let mut window = Window::new(file).map_err(io)?;
        let whole = head::decode(path, window.get(0, head::READ_BYTES).map_err(io)?, keyring)?;
        Ok(Self::with_head(path, window, whole))
    }

    fn with_head(path: &Path, window: Window, whole: WholeHead) -> Self {
        Self {
            path: path.to_owned(),
            window,
            next: ReadPosition { at: whole.len, number: 0 },
            synced: whole.len,
            whole,
            assembled: Vec::new(),
            torn: None,
            is_finished: false,
        }
    }

    /// Reads a file whose head is known.
    pub(super) fn of_writer(path: &Path, file: Box<dyn StoredFile>, whole: &WholeHead) -> Result<Self, UndoFileError> {
        let window = Window::new(file).map_err(UndoFileError::io("read", path))?;
        Ok(Self::with_head(path, window, whole.clone()))
    }

    /// What the file says of itself.
    pub fn head(&self) -> &UndoHead {
        &self.whole.head
    }

    pub(super) fn whole_head(&self) -> &WholeHead {
        &self.whole
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub fn bytes(&self) -> u64 {
        self.window.len()
    }

    /// Bytes at the end that are no whole entry; known when all entries were read.
    pub fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// Whether the operation is finished; known when all entries were read.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Where the next entry begins, and which it is.
    pub(super) fn position(&self) -> ReadPosition {
        self.next
    }

    /// Reads on at another place.
    pub(super) fn go_to(&mut self, position: ReadPosition) {
        self.next = position;
        (self.synced, self.torn, self.is_finished) = (self.whole.len, None, false);
    }

    /// The next entry; `None` = there is no other whole one. After an error it goes on nowhere.
    pub fn next_entry(&mut self) -> Result<Option<StoredEntry<'_>>, UndoFileError> {
        match self.assemble()? {
            None => Ok(None),
            Some(begin) => self.decode(begin).map(Some),
        }
    }

    fn decode(&mut self, begin: ReadPosition) -> Result<StoredEntry<'_>, UndoFileError> {
        let damaged = UndoFileError::damaged(&self.path, begin.at);
        let number = EntryNumber(begin.number);
        let entry = match UndoEntry::decode(&self.assembled) {
            Ok(entry) => match entry.speaks_of() {
                Some((first, last)) if first > last || last >= number => {
                    let found = format!("{} to {}", first.0, last.0);
                    return Err(damaged(Damage::new(format!("entries before {}", number.0), found)));
                }
                _ => entry,
            },
            Err(damage) => return Err(damaged(damage)),
        };
        self.is_finished = entry == UndoEntry::Finished;
        Ok(StoredEntry { number, position: begin.at, entry })
    }

    /// Puts the next entry together; says where it begins.
    fn assemble(&mut self) -> Result<Option<ReadPosition>, UndoFileError> {
        let begin = self.next;
        if self.torn.is_some() || begin.at == self.window.len() {
            return Ok(None);
        }
        if self.is_finished {
            let damage = Damage::new("the end of a finished file", "more entries");
            return Err(UndoFileError::damaged(&self.path, begin.at)(damage));
        }
        self.assembled.clear();
        loop {
            match self.read_part(begin.at)? {
                Part::Whole { is_last: true } => return Ok(Some(begin)),
                Part::Whole { is_last: false } => {}
                Part::Torn(damage) => {
                    self.torn = Some(TornTail { at: begin.at, bytes: self.window.len() - begin.at, damage });
                    self.next = begin;
                    return Ok(None);
                }
            }
        }
    }

    /// Reads the part at the current place, of an entry that begins at `entry`.
    fn read_part(&mut self, entry: u64) -> Result<Part, UndoFileError> {
        let ReadPosition { at, number } = self.next;
        let (tag, path) = (self.whole.tag, &self.path);
        let io = |e| UndoFileError::io("read", path)(e);
        let bytes = self.window.get(at, PART_HEADER_LEN).map_err(io)?;
        if bytes.len() < PART_HEADER_LEN {
            return Ok(Part::Torn(Damage::new("the header of a part", format!("{} bytes", bytes.len()))));
        }
        let header = match PartHeader::decode(bytes, tag) {
            Ok(header) => header,
            Err(damage) => {
                let is_hole = has_hole(bytes, at);
                return self.torn_or_damaged(at, is_hole, damage);
            }
        };
        let len = header.len as usize;
        self.check_next(&header, entry).map_err(UndoFileError::damaged(path, at))?;
        let body = at + PART_HEADER_LEN as u64;
        let stored = self.window.get(body, len).map_err(io)?;
        if stored.len() < len {
            return Ok(Part::Torn(Damage::new(format!("a part of {len} bytes"), format!("{} of them", stored.len()))));
        }
        match header.open(tag, stored, self.whole.sealer.as_ref(), &mut self.assembled) {
            Ok(()) => {}
            Err(PartFault::Content(damage)) => return Err(UndoFileError::damaged(path, at)(damage)),
            Err(PartFault::Bytes(damage)) => {
                let is_hole = has_hole(stored, body);
                return self.torn_or_damaged(at, is_hole, damage);
            }
        }
        self.synced = header.synced;
        self.next = ReadPosition { at: body + len as u64, number: number + 1 };
        Ok(Part::Whole { is_last: header.is_last })
    }

    /// Whether a header that is right is that of the next part.
    fn check_next(&self, header: &PartHeader, entry: u64) -> Result<(), Damage> {
        if header.number != self.next.number {
            return Err(Damage::new(format!("part {}", self.next.number), format!("part {}", header.number)));
        }
        if !(self.synced..=entry).contains(&header.synced) {
            let expected = format!("a part behind a sync of {} to {entry} bytes", self.synced);
            return Err(Damage::new(expected, format!("one behind {}", header.synced)));
        }
        if self.assembled.len() as u64 + u64::from(header.len) > MAX_ENTRY_BYTES + OVERHEAD as u64 {
            return Err(Damage::new(format!("an entry of at most {MAX_ENTRY_BYTES} bytes"), "a longer one"));
        }
        Ok(())
    }

    fn torn_or_damaged(&mut self, at: u64, is_hole: bool, damage: Damage) -> Result<Part, UndoFileError> {
        if is_hole && !self.is_known_as_synced(at).map_err(UndoFileError::io("read", &self.path))? {
            return Ok(Part::Torn(damage));
        }
        Err(UndoFileError::damaged(&self.path, at)(damage))
    }

    /// Whether a later part says that `at` had been synced before it was written.
    fn is_known_as_synced(&mut self, at: u64) -> std::io::Result<bool> {
        let mut from = at + 1;
        while from + (PART_HEADER_LEN as u64) <= self.window.len() {
            let bytes = self.window.get(from, SEARCH_BYTES)?;
            for (n, header) in bytes.windows(PART_HEADER_LEN).enumerate() {
                let Some(&[is_last, 0, 0, 0]) = header[4..].first_chunk::<4>() else { continue };
                if is_last > 1 {
                    continue;
                }
                let is_behind = |header: &PartHeader| {
                    header.number > self.next.number && header.synced > at && header.synced <= from + n as u64
                };
                if PartHeader::decode(header, self.whole.tag).is_ok_and(|header| is_behind(&header)) {
                    return Ok(true);
                }
            }
            from += (bytes.len() + 1 - PART_HEADER_LEN) as u64;
        }
        Ok(false)
    }

    /// Whether the file ends as a finished one does, without reading what is before.
    pub(super) fn ends_as_finished(&mut self) -> Result<bool, UndoFileError> {
        let overhead = if self.whole.sealer.is_some() { OVERHEAD } else { 0 };
        let len = PART_HEADER_LEN + overhead + 1;
        let Some(at) = self.window.len().checked_sub(len as u64).filter(|at| *at >= self.whole.len) else {
            return Ok(false);
        };
        let (tag, sealer) = (self.whole.tag, self.whole.sealer.clone());
        let bytes = self.window.get(at, len).map_err(UndoFileError::io("read", &self.path))?;
        let (header, stored) = bytes.split_at(PART_HEADER_LEN);
        let Ok(header) = PartHeader::decode(header, tag) else { return Ok(false) };
        let mut entry = Vec::new();
        let is_whole =
            header.len as usize == stored.len() && header.open(tag, stored, sealer.as_ref(), &mut entry).is_ok();
        Ok(is_whole && matches!(UndoEntry::decode(&entry), Ok(UndoEntry::Finished)))
    }
}

// A part is read into the window as a whole.
const _: () = assert!(PART_BYTES + OVERHEAD < u32::MAX as usize);
