//! Splices: places where [`crate::repair()`] has joined what was left of a journal, and what is lost there.
//!
//! A segment's header names the segment before by its link, and its LSN follows on. Where a repair has
//! replaced or removed what was in between, that cannot hold any more, and the segments behind are not
//! written anew for it. Instead the file `splices` says which two links may meet, and what is missing. It is
//! bound to both, so it hides nothing but what was told when the repair was made.
//!
//! Lines as in `marks`; the file is replaced as a whole, and only by a repair. A damaged line is as none: then the
//! journal is refused again, and repaired again.

use std::io;

use serde::{Deserialize, Serialize};

use crate::directory::Directory;
use crate::error::Span;
use crate::files;
use crate::hex::hex;
use crate::jsonl::{decode, store};
use crate::segment::header::SegmentHeader;
use crate::segment::link::Link;
use crate::types::{Lsn, Micros, TimelineId};

/// One place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Splice {
    /// The segment behind it.
    pub(crate) first_lsn: Lsn,
    pub(crate) timeline: TimelineId,
    /// Link of the segment before it, hex.
    pub(crate) before: String,
    /// The link that the segment behind it names, hex.
    pub(crate) named: String,
    /// `None` = nothing is missing.
    pub(crate) lost: Option<LostRecords>,
    /// What had happened, for a person to read.
    pub(crate) why: String,
    /// When it was repaired.
    pub(crate) repaired: Micros,
}

/// Records that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostRecords {
    pub(crate) from_lsn: Lsn,
    /// Inclusive.
    pub(crate) to_lsn: Lsn,
    /// Time of the last group before them.
    pub(crate) from_ts: Micros,
    /// Time of the first group behind them, as far as it is known.
    pub(crate) to_ts: Option<Micros>,
}

impl LostRecords {
    pub(crate) fn span(&self) -> Span {
        Span { from_lsn: self.from_lsn, to_lsn: Some(self.to_lsn), from_ts: self.from_ts, to_ts: self.to_ts }
    }
}

/// All of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Splices {
    pub(crate) all: Vec<Splice>,
    /// Offsets of lines that are damaged.
    pub(crate) wrong: Vec<u64>,
}

impl Splices {
    pub(crate) fn load(dir: &Directory) -> io::Result<Self> {
        let bytes = match files::read(&dir.splices()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let mut splices = Self::default();
        let mut offset = 0;
        for line in bytes.split_inclusive(|&b| b == b'\n') {
            match decode(line.strip_suffix(b"\n").unwrap_or(line)) {
                Some(splice) => splices.all.push(splice),
                None => splices.wrong.push(offset),
            }
            offset += line.len() as u64;
        }
        Ok(splices)
    }

    /// Puts them in place.
    pub(crate) fn store(&self, dir: &Directory) -> io::Result<()> {
        store(&dir.splices(), &self.all)
    }

    /// The one that says that a segment with this header may follow the one with this link.
    pub(crate) fn find(&self, header: &SegmentHeader, before: &Link) -> Option<&Splice> {
        let (before, named) = (hex(before), hex(&header.prev_link));
        self.all.iter().rev().find(|splice| {
            splice.first_lsn == header.first_lsn
                && splice.timeline == header.timeline.id
                && splice.before == before
                && splice.named == named
        })
    }
    /// Whether it was told that a segment with this header may follow the one with this link, and whether with a loss.
    pub(crate) fn explains(&self, header: &SegmentHeader, before: &Link, lost: bool) -> bool {
        self.find(header, before).is_some_and(|splice| splice.lost.is_some() == lost)
    }
}
