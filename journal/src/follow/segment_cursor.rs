//! The segment cursor: the open file of one segment, and a position in it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::FollowError;
use crate::block::{BLOCK_HEADER_LEN, BlockHeader, Groups, decode_payload};
use crate::crypto::{KeyFault, Keyring, Sealer};
use crate::error::{Damage, OpenError, ReadError, Span};
use crate::recover::check_header;
use crate::segment::header::{HeaderFault, TimelineFacts, WholeHeader};
use crate::segment::load::{TailFact, load_open_segment, read_tail};
use crate::segment::name::SegmentName;
use crate::segment::scan::{BlockFault, find_later_block, read_block_header, read_payload};
use crate::splices::Splices;
use crate::storage::{Folder, Storage, StoredFile};
use crate::types::{Group, Lsn, Micros, TimelineId};

/// A tail that stays as it is for so long is looked at more closely.
const STALLED: Duration = Duration::from_secs(5);

/// A position in the open file of one segment.
#[derive(Debug)]
pub(super) struct SegmentCursor {
    name: SegmentName,
    path: PathBuf,
    file: Box<dyn StoredFile>,
    whole: WholeHeader,
    sealer: Result<Option<Arc<Sealer>>, KeyFault>,
    position: u64,
    /// LSN with which the next block must begin, if known.
    expected: Option<Lsn>,
    complete_until: Micros,
    groups: Option<Groups>,
    block_position: u64,
    /// Where the blocks of a sealed segment end.
    end: Option<u64>,
    /// Size of the file when its footer was read.
    sealed_bytes: u64,
    /// Nothing is written to this file any more.
    last_look: bool,
    replaced: bool,
    stalled: Option<(u64, Instant)>,
}

/// What there is behind the last whole block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing yet.
    NotYet,
    /// The segment has ended; what was written before that is still to be read.
    LookAgain,
    /// The segment has ended, and all of it was read.
    Left,
    /// The same, but there is another file of its name, which may go on.
    Replaced,
}

impl SegmentCursor {
    /// Opens the segment, before the block with this record if there is one. `None` = it is not there any more, or its
    /// header is not finished.
    pub(super) fn open(
        storage: &dyn Storage,
        name: SegmentName,
        journal_id: [u8; 16],
        keyring: &Keyring,
        next_lsn: Lsn,
    ) -> Result<Option<Self>, FollowError> {
        let path = storage.folder(Folder::Segments).join(name.to_string());
        let file = match storage.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(OpenError::io("open", &path))?,
        };
        let facts = load_open_segment(&*file, name, &path, false)?;
        if facts.header == Err(HeaderFault::Unfinished) {
            return Ok(None);
        }
        let whole = check_header(&facts, journal_id, None, &Splices::default())?.clone();
        let (mut position, mut expected, mut end) = (whole.len, Some(whole.header.first_lsn), None);
        match &facts.tail {
            TailFact::Sealed(footer) => {
                let index = &footer.tally.index;
                let n = index.partition_point(|entry| entry.extent.next_lsn <= next_lsn);
                if let Some(entry) = n.checked_sub(1).map(|n| index[n]) {
                    (position, expected) = (entry.position, None);
                }
                end = Some(footer.blocks_end);
            }
            TailFact::BadFooter { position, damage } if whole.header.packed => {
                return Err(ReadError::Corrupt {
                    file: path,
                    offset: *position,
                    span: Span { from_lsn: name.first_lsn, ..Span::default() },
                    damage: Box::new(damage.clone()),
                }
                .into());
            }
            // A user's value may end like a footer.
            TailFact::BadFooter { .. } | TailFact::Open(_) | TailFact::Unknown => {}
        }
        Ok(Some(Self {
            name,
            path,
            file,
            sealer: whole.header.unlock(keyring),
            complete_until: whole.header.complete_until,
            whole,
            position,
            expected,
            groups: None,
            block_position: position,
            end,
            sealed_bytes: facts.bytes,
            last_look: false,
            replaced: false,
            stalled: None,
        }))
    }

    pub(super) fn name(&self) -> SegmentName {
        self.name
    }

    pub(super) fn timeline(&self) -> TimelineId {
        self.name.timeline
    }

    pub(super) fn facts(&self) -> &TimelineFacts {
        &self.whole.header.timeline
    }

    /// Nothing that happened before this is still to come.
    pub(super) fn complete_until(&self) -> Micros {
        self.complete_until
    }

    /// The next group that ends at or behind `next_lsn`, if it is there as a whole.
    pub(super) fn next_group(&mut self, next_lsn: Lsn) -> Result<Option<Group>, ReadError> {
        loop {
            if let Some(groups) = &mut self.groups {
                match groups.next() {
                    Some(Ok(group)) if group.records.last().is_some_and(|r| r.lsn >= next_lsn) => {
                        return Ok(Some(group));
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(damage)) => {
                        let span = Span { from_lsn: groups.next_lsn(), from_ts: groups.last_ts(), ..Span::default() };
                        return Err(self.corrupt(self.block_position, span, damage));
                    }
                    None => self.groups = None,
                }
            }
            if !self.next_block(next_lsn)? {
                return Ok(None);
            }
        }
    }

    /// Takes the next block, if it is there as a whole.
    fn next_block(&mut self, next_lsn: Lsn) -> Result<bool, ReadError> {
        let len = match self.end {
            Some(end) => end,
            None => self.file.bytes().map_err(|e| self.io_error(e))?,
        };
        if self.position >= len {
            return Ok(false);
        }
        let block = match read_block_header(&*self.file, self.position, len, Some(self.whole.tag)) {
            Ok(block) => block,
            Err(fault) => return self.not_whole(fault),
        };
        let span = Span { from_lsn: block.first_lsn, from_ts: block.first_ts, ..Span::default() };
        if let Some(expected) = self.expected.filter(|expected| *expected != block.first_lsn) {
            let damage = Damage::new(format!("LSN {expected}"), format!("LSN {}", block.first_lsn));
            return Err(self.corrupt(self.position, span, damage));
        }
        if block.groups > 0 && block.next_lsn() > next_lsn {
            let payload = match read_payload(&*self.file, &block) {
                Ok(stored) => stored,
                Err(fault) => return self.not_whole(fault),
            };
            let sealer = self.sealer.as_ref().map(Option::as_deref);
            let sealer = sealer.map_err(|fault| ReadError::Key { file: self.path.clone(), fault: fault.clone() })?;
            let payload = decode_payload(&block, payload, sealer).map_err(|e| self.fault(&block, e.into()))?;
            self.groups = Some(Groups::new(block, payload));
        }
        self.block_position = self.position;
        self.position += block.len();
        self.expected = Some(block.next_lsn());
        self.complete_until = self.complete_until.max(block.complete_until);
        self.stalled = None;
        Ok(true)
    }

    /// At the end of a segment that may still be written, what is not whole is not there yet.
    fn not_whole(&self, fault: BlockFault) -> Result<bool, ReadError> {
        match fault {
            BlockFault::Io(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(self.io_error(e)),
            fault if self.end.is_some() => {
                let damage = match fault {
                    BlockFault::Damage(damage) => damage,
                    other => Damage::new("a whole block", other.to_string()),
                };
                let from_lsn = self.expected.unwrap_or(self.name.first_lsn);
                Err(self.corrupt(self.position, Span { from_lsn, ..Span::default() }, damage))
            }
            _ => Ok(false),
        }
    }

    /// Asked when there is no whole block at the place.
    pub(super) fn behind(
        &mut self,
        storage: &dyn Storage,
        has_next: impl FnOnce() -> Result<bool, OpenError>,
    ) -> Result<Behind, FollowError> {
        if self.last_look {
            self.check_end()?;
            return Ok(if self.replaced { Behind::Replaced } else { Behind::Left });
        }
        let has_next = has_next()?;
        let named = storage.look_at(&self.path).map_err(OpenError::io("look at", &self.path))?;
        let ours = self.file.version().map_err(|e| self.io_error(e))?;
        let other = named.is_some_and(|named| named.version.id != ours.id);
        // A sealed segment without a record is continued by the next writer.
        let reopened = self.end.is_some() && ours.bytes != self.sealed_bytes;
        if has_next || other || reopened {
            self.last_look = true;
            self.replaced = !has_next && (other || reopened);
            return Ok(Behind::LookAgain);
        }
        if self.end.is_none() {
            self.look_closer(ours.bytes)?;
        }
        Ok(Behind::NotYet)
    }

    /// A writer that lives finishes a block at once. If whole blocks follow what is not whole, it is damage.
    fn look_closer(&mut self, len: u64) -> Result<(), ReadError> {
        if len <= self.position {
            self.stalled = None;
            return Ok(());
        }
        match self.stalled {
            Some((seen, since)) if seen == len && since.elapsed() < STALLED => return Ok(()),
            Some((seen, _)) if seen == len => {}
            _ => {
                self.stalled = Some((len, Instant::now()));
                return Ok(());
            }
        }
        self.stalled = Some((len, Instant::now()));
        let later = find_later_block(&*self.file, self.position + 1, len, Some(self.whole.tag));
        match later.map_err(|e| self.io_error(e))? {
            Some(block) => Err(self.broken_tail(format!("a whole one only at {}", block.position))),
            None => Ok(()),
        }
    }

    /// A segment that was left for the next one ends with a block, or with filters and a footer.
    fn check_end(&self) -> Result<(), ReadError> {
        let len = self.file.bytes().map_err(|e| self.io_error(e))?;
        if self.end.is_some() || self.position >= len {
            return Ok(());
        }
        match read_tail(&*self.file, len, &self.whole, false).map_err(|e| self.io_error(e))? {
            TailFact::Sealed(footer) if footer.blocks_end == self.position => Ok(()),
            _ => Err(self.broken_tail("none, in a segment that has ended".to_owned())),
        }
    }

    fn broken_tail(&self, found: String) -> ReadError {
        let from_lsn = self.expected.unwrap_or(self.name.first_lsn);
        self.corrupt(self.position, Span { from_lsn, ..Span::default() }, Damage::new("a whole block", found))
    }

    fn fault(&self, block: &BlockHeader, fault: BlockFault) -> ReadError {
        match fault {
            BlockFault::Damage(damage) => {
                let span = Span { from_lsn: block.first_lsn, from_ts: block.first_ts, ..Span::default() };
                self.corrupt(block.position, span, damage)
            }
            BlockFault::Io(source) => self.io_error(source),
            BlockFault::UnknownCodec(codec) => ReadError::UnknownCodec {
                file: self.path.clone(),
                offset: block.position + BLOCK_HEADER_LEN as u64,
                lsn: block.first_lsn,
                codec,
            },
        }
    }

    fn corrupt(&self, offset: u64, span: Span, damage: Damage) -> ReadError {
        ReadError::Corrupt { file: self.path.clone(), offset, span, damage: Box::new(damage) }
    }

    fn io_error(&self, source: io::Error) -> ReadError {
        let lsn = self.expected.unwrap_or(self.name.first_lsn);
        ReadError::Io { file: self.path.clone(), offset: self.position, lsn, source }
    }
}
