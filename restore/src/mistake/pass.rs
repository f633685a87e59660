//! The pass: the records of a range, from the first one to the last.

use redtape_journal::{Catalog, Lsn, TimelineId};

use super::record::State;
use super::{Bounds, Meant, Mistake};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;

/// Records between two looks at the interrupt.
const EVERY: u64 = 4096;

/// The range of the journal.
#[derive(Debug, Clone, Copy)]
pub struct MistakeRange<'a> {
    /// The journal.
    pub catalog: &'a Catalog,
    /// The timeline.
    pub timeline: TimelineId,
    /// The records behind this one.
    pub after: Lsn,
    /// The last one.
    pub upto: Lsn,
}

/// Reads a range of the journal. `on_progress` receives the number of records read, from time to time.
pub fn find(
    range: MistakeRange<'_>,
    meant: Meant<'_>,
    bounds: Bounds,
    interrupt: &Interrupt,
    on_progress: &mut dyn FnMut(u64),
) -> Result<Mistake, RestoreError> {
    let MistakeRange { catalog, timeline, after, upto } = range;
    let mut state = State::new(meant, bounds);
    if after >= upto {
        return Ok(state.finish());
    }
    let mut told = after;
    interrupt.check()?;
    for group in catalog.groups(after, timeline) {
        let group = group?;
        let (Some(first), Some(last)) = (group.records.first(), group.records.last()) else { continue };
        if first.lsn > upto {
            break;
        }
        let last = last.lsn;
        state.group(&group);
        if last.0.saturating_sub(told.0) >= EVERY {
            told = last;
            interrupt.check()?;
            on_progress(last.0.saturating_sub(after.0));
        }
        // Later records are not read: they may be damaged.
        if last >= upto {
            break;
        }
    }
    Ok(state.finish())
}
