//! Finding the place between two groups: segments by their sums, blocks by the index and by their
//! headers, and only in the last block group by group.

use std::sync::Arc;

use super::Cut;
use super::load::Entry;
use super::segment::{OpenSegment, corrupt};
use crate::error::{ReadError, Span};
use crate::segment::tally::Extent;
use crate::types::{Lsn, ReplOffset, TimelineId};

/// A place, and how far the timeline reaches in the source.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) cut: Cut,
    pub(super) end_offset: ReplOffset,
}

/// Finds the last group of a timeline with which the history is not yet `beyond`, which must not
/// become false again as the history goes on.
pub(super) fn find(
    entries: &[Arc<Entry>],
    timeline: TimelineId,
    beyond: impl Fn(&Extent) -> bool,
) -> Result<Found, ReadError> {
    let mut ours = entries.iter().filter(|e| e.header.timeline.id == timeline);
    let first = ours.clone().next().ok_or(ReadError::NoTimeline(timeline))?;
    let last = ours.clone().next_back().ok_or(ReadError::NoTimeline(timeline))?;
    let end_offset = last.tally.extent.end_offset;
    let start = &first.header;
    let mut before = Extent { next_lsn: start.first_lsn, last_ts: start.last_ts, end_offset: start.start_offset };
    let cut = |before: &Extent, next| {
        let began = before.next_lsn > start.first_lsn;
        // Without an earlier group in the journal, its beginning is all that is known.
        let pruned = start.start_offset > start.timeline.start_offset;
        let ts = if began || pruned { before.last_ts } else { start.timeline.start_ts };
        let (next_ts, next_slack) = match next {
            Some((ts, slack)) => (Some(ts), slack),
            None => (None, 0),
        };
        Cut { lsn: Lsn(before.next_lsn.0 - 1), ts, next_ts, next_slack }
    };
    for entry in &mut ours {
        if entry.tally.records == 0 {
            continue;
        }
        if !beyond(&entry.tally.extent) {
            before = entry.tally.extent;
            continue;
        }
        let mut segment = OpenSegment::open(entry)?;
        if let Some(extent) = segment.seek(&beyond)? {
            before = extent;
        }
        while let Some(block) = segment.next_header()? {
            if block.groups == 0 {
                continue;
            }
            // A block of the packed copy may hold later groups, too.
            if !beyond(&block.extent()) && !segment.is_later(Lsn(block.next_lsn().0 - 1)) {
                before = block.extent();
                continue;
            }
            let first = Extent {
                next_lsn: Lsn(block.first_lsn.0 + 1),
                last_ts: block.first_ts,
                end_offset: block.start_offset,
            };
            let mut groups = match segment.groups(&block) {
                Ok(groups) => groups,
                // Whatever it held is not wanted.
                Err(_) if beyond(&first) => {
                    return Ok(Found { cut: cut(&before, Some((block.first_ts, 0))), end_offset });
                }
                Err(error) => return Err(error),
            };
            while let Some(group) = groups.next() {
                let group = group.map_err(|damage| {
                    let span = Span { from_lsn: block.first_lsn, ..Span::default() };
                    corrupt(&segment.entry, block.position, span, damage)
                })?;
                let extent = Extent { next_lsn: groups.next_lsn(), last_ts: group.ts, end_offset: group.end_offset };
                if segment.is_later(Lsn(extent.next_lsn.0 - 1)) {
                    return Ok(Found { cut: cut(&before, None), end_offset });
                }
                if beyond(&extent) {
                    let next = Some((group.ts, group.slack));
                    return Ok(Found { cut: cut(&before, next), end_offset });
                }
                before = extent;
            }
        }
    }
    Ok(Found { cut: cut(&before, None), end_offset })
}
