//! Following a journal that another process writes: its groups as they come, across segments, restarts and timelines.
//!
//! ```text
//! segments/ ─► listing ─► cursor (one open file, a place in it) ─► whole blocks ─► groups
//!              (next.rs)   (segment_cursor.rs)
//! ```
//!
//! A follower asks again and again ([`Follower::next`]); an answer is given at once. It holds one file open and no lock:
//! pruning and the writer never wait for it. What is removed before it came there is declared ([`Note::Removed`]).
//!
//! Invariants:
//! - Each group is given once, whole and in order; LSNs that are not given are declared.
//! - A block counts once it is whole, by the checksums of its header and its payload. A tail that is not whole is one that is
//!   being written, for as long as nothing whole follows it.
//! - A segment is left only when nothing can be written to it any more: its successor or its packed copy is there, and it
//!   was read to its end after that was seen.
//!
//! | the writer | the follower |
//! | --- | --- |
//! | appends a block | reads it where it stands |
//! | seals, puts the packed copy in place | reads the file that it holds to its end: it has all that the copy has |
//! | begins the next segment | goes on there |
//! | begins a timeline | says so ([`Note::Timeline`]), goes on there |
//! | dies, leaves a torn tail | waits; the next writer cuts it and goes on in the same file |
//! | begins a segment anew under its name (other keys, no record) | opens it again |

mod next;
mod segment_cursor;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use next::Listing;
use segment_cursor::{Behind, SegmentCursor};

use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::error::{OpenError, ReadError};
use crate::meta::{Meta, not_a_journal};
use crate::segment::name::SegmentName;
use crate::storage::{LocalDirectory, Storage};
use crate::types::{Group, Lsn, Micros, TimelineId};

/// What a follower has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The next group.
    Group {
        /// In which timeline.
        timeline: TimelineId,
        /// The group.
        group: Group,
    },
    /// Something that is no group, in its place between them.
    Note(Note),
}

/// Why the groups before and after this do not simply follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A new history began. Between the two points in time nothing is known, if any time lies between them.
    Timeline {
        /// Its number.
        id: TimelineId,
        /// Why it was begun.
        reason: String,
        /// The one before was complete up to here.
        complete_until: Micros,
        /// When it was begun.
        start_ts: Micros,
    },
    /// These records were removed from the journal before they could be given.
    Removed {
        /// The first of them.
        from: Lsn,
        /// The last of them.
        to: Lsn,
    },
}

/// Why following ends.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// A segment is not what it should be.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A group cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Follows a journal; see the module.
#[derive(Debug)]
pub struct Follower {
    storage: Arc<dyn Storage>,
    journal_id: [u8; 16],
    keyring: Keyring,
    /// The first record that was not given yet.
    next_lsn: Lsn,
    /// The timeline of the last segment; `None` before the first.
    timeline: Option<TimelineId>,
    complete_until: Micros,
    listing: Listing,
    /// The segment in turn.
    at: Option<SegmentName>,
    cursor: Option<SegmentCursor>,
    /// The last segment was read, but is there under its name as another file.
    again: bool,
}

impl Follower {
    /// Begins behind `after`; `timeline`: the one that the caller has seen last, if any, so that a later one is announced.
    pub fn open(
        dir: impl AsRef<Path>,
        keyring: &Keyring,
        after: Lsn,
        timeline: Option<TimelineId>,
    ) -> Result<Self, OpenError> {
        let dir = Directory::new(dir);
        let Some(meta) = Meta::load(&dir)? else { return Err(not_a_journal(&dir)) };
        Ok(Self {
            storage: Arc::new(LocalDirectory::new(&dir)),
            journal_id: meta.id().unwrap_or_default(),
            keyring: keyring.clone(),
            next_lsn: Lsn(after.0.saturating_add(1)),
            timeline,
            complete_until: Micros(0),
            listing: Listing::default(),
            at: None,
            cursor: None,
            again: false,
        })
    }

    /// What comes next; `None` = nothing for now.
    #[expect(clippy::should_implement_trait, reason = "it does not end: after `None` there may be more")]
    pub fn next(&mut self) -> Result<Option<Followed>, FollowError> {
        loop {
            let Some(cursor) = &mut self.cursor else {
                match self.enter()? {
                    Entered::Nothing => return Ok(None),
                    Entered::Segment => continue,
                    Entered::Note(note) => return Ok(Some(Followed::Note(note))),
                }
            };
            if let Some(group) = cursor.next_group(self.next_lsn)? {
                self.next_lsn = group.records.last().map_or(self.next_lsn, |r| Lsn(r.lsn.0 + 1));
                return Ok(Some(Followed::Group { timeline: cursor.timeline(), group }));
            }
            self.complete_until = self.complete_until.max(cursor.complete_until());
            let name = cursor.name();
            let has_next =
                |listing: &mut Listing, storage: &dyn Storage| listing.after(storage, name).map(|n| n.is_some());
            match cursor.behind(&*self.storage, || has_next(&mut self.listing, &*self.storage))? {
                Behind::NotYet => return Ok(None),
                // Between the last look into the file and this one, more may have been written.
                Behind::LookAgain => {}
                Behind::Left => self.cursor = None,
                Behind::Replaced => {
                    self.cursor = None;
                    self.again = true;
                }
            }
        }
    }

    /// Opens the segment in which the next record is, or will be.
    fn enter(&mut self) -> Result<Entered, FollowError> {
        let name = match self.at {
            Some(at) if self.again => Some(at),
            Some(at) => self.listing.after(&*self.storage, at)?,
            None => self.listing.holding(&*self.storage, self.next_lsn)?,
        };
        let Some(name) = name else { return Ok(Entered::Nothing) };
        let opened = SegmentCursor::open(&*self.storage, name, self.journal_id, &self.keyring, self.next_lsn)?;
        let Some(cursor) = opened else {
            // Removed since it was listed, or not finished yet.
            self.again = false;
            self.listing.forget();
            return Ok(Entered::Nothing);
        };
        if name.first_lsn > self.next_lsn {
            let from = std::mem::replace(&mut self.next_lsn, name.first_lsn);
            // The segment itself is opened with the next call.
            return Ok(Entered::Note(Note::Removed { from, to: Lsn(name.first_lsn.0 - 1) }));
        }
        let facts = cursor.facts();
        let before = self.timeline.replace(facts.id);
        let note = before.filter(|before| *before != facts.id).map(|_| Note::Timeline {
            id: facts.id,
            reason: facts.reason.clone(),
            complete_until: self.complete_until,
            start_ts: facts.start_ts,
        });
        self.complete_until = self.complete_until.max(cursor.complete_until());
        self.at = Some(name);
        self.again = false;
        self.cursor = Some(cursor);
        Ok(note.map_or(Entered::Segment, Entered::Note))
    }
}

enum Entered {
    Nothing,
    Segment,
    Note(Note),
}
