//! Results of the comparisons made during one scan of a key queue, so that duplicates need not be compared again. Pure.

use smallvec::SmallVec;

use super::key_queue::{Fingerprint, Seen};

/// Fingerprints that are kept.
const FINGERPRINTS_MAX: usize = 8;
/// Pairs of fingerprint and connection kept for stamps that fit.
const FITTING_MAX: usize = 64;
/// Equal requests of one connection that are compared.
const SAME_MAX: usize = 8;

/// What follows for a stamp from others with the same fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It does not fit.
    Never,
    /// An older stamp of its connection must have its effect first.
    Behind,
    /// Enough stamps of its connection were compared.
    Enough,
}

/// Stamps with one fingerprint on one connection that fit.
struct Fitting {
    fingerprint: Fingerprint,
    connection: u64,
    /// How many more may be compared.
    left: usize,
    /// One of them must have its effect.
    certain: bool,
}

/// Results of one scan of a key queue.
#[derive(Default)]
pub(super) struct Known {
    never: SmallVec<[Fingerprint; FINGERPRINTS_MAX]>,
    fitting: SmallVec<[Fitting; FINGERPRINTS_MAX]>,
}

impl Known {
    /// What is known of this stamp.
    pub(super) fn of(&self, seen: Seen) -> Option<Said> {
        let fingerprint = seen.fingerprint?;
        if self.never.contains(&fingerprint) {
            return Some(Said::Never);
        }
        let same = |of: &&Fitting| of.fingerprint == fingerprint && of.connection == seen.connection;
        match self.fitting.iter().find(same)? {
            Fitting { certain: true, .. } => Some(Said::Behind),
            Fitting { left: 0, .. } => Some(Said::Enough),
            Fitting { .. } => None,
        }
    }

    /// Records the comparison of this stamp.
    pub(super) fn note(&mut self, seen: Seen, fits: bool, certain: bool) {
        let (Some(fingerprint), connection) = (seen.fingerprint, seen.connection) else { return };
        if !fits {
            if self.never.len() < FINGERPRINTS_MAX {
                self.never.push(fingerprint);
            }
            return;
        }
        let same = |of: &&mut Fitting| of.fingerprint == fingerprint && of.connection == connection;
        if let Some(before) = self.fitting.iter_mut().find(same) {
            before.left = before.left.saturating_sub(1);
            before.certain |= certain;
        } else if self.fitting.len() < FITTING_MAX {
            self.fitting.push(Fitting { fingerprint, connection, left: SAME_MAX, certain });
        }
    }
}
