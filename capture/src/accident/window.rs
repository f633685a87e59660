//! How many keys one client takes away in a stretch of time, and with which write that began.
//!
//! The stretch is counted in slices: what is counted never lies further apart than the time that is set, and what lies within seven
//! eighths of it is surely counted. So memory does not depend on the settings.

use redtape_journal::{Lsn, Micros};
use smallvec::SmallVec;

use super::Loss;
use crate::options::Thresholds;

/// Slices of the time that is looked at.
const SLICES: i64 = 8;
/// An accident is over when the client has been below the threshold for so long, in µs.
const QUIET: i64 = 60_000_000;

/// A write that takes something away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) loss: Loss,
    pub(super) ts: Micros,
    /// The last record before it.
    pub(super) before: Lsn,
}

/// What was taken away in one slice, which begins with its first write.
#[derive(Debug, Clone)]
struct Slice {
    first: First,
    keys: u64,
}

/// See the module.
#[derive(Debug, Default, Clone)]
pub(super) struct Window {
    /// Oldest first.
    slices: SmallVec<[Slice; SLICES as usize]>,
    /// When the threshold was last reached.
    reached: Option<Micros>,
}

impl Window {
    /// Adds a write, none of which is older than the one before; gives the first write of an accident that begins with it.
    pub(super) fn add(&mut self, write: First, keys: u64, thresholds: &Thresholds) -> Option<First> {
        let (now, time) = (write.ts.0, i64::try_from(thresholds.mass_time.as_micros()).unwrap_or(i64::MAX));
        self.slices.retain(|slice| now - slice.first.ts.0 <= time);
        match self.slices.last_mut() {
            Some(last) if now - last.first.ts.0 <= time / SLICES => last.keys = last.keys.saturating_add(keys),
            _ => self.slices.push(Slice { first: write, keys }),
        }
        let sum = self.slices.iter().fold(0_u64, |sum, slice| sum.saturating_add(slice.keys));
        if thresholds.mass_keys == 0 || sum < thresholds.mass_keys {
            return None;
        }
        let goes_on = self.reached.replace(write.ts).is_some_and(|reached| now - reached.0 < QUIET);
        self.slices.first().filter(|_| !goes_on).map(|slice| slice.first)
    }
}
