//! Tracks up to which time the link was read, which limits the effects that can still come.

use redtape_journal::Micros;

/// A worker that is busy for longer, in µs, is not waited for, nor is a link that is never empty.
const BUSY_MAX: i64 = 100_000;

/// How far the link was read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Everything readable at this time was taken in.
    heard: Micros,
    /// The value of `heard` at the previous read, if that emptied the link: what was read last arrived later.
    pub(super) quiet: Micros,
    /// The link was empty at `heard`.
    emptied: bool,
}

impl Reading {
    /// Records a read at `looked` or later. `emptied`: nothing is left; `fresh`: something came, and no part of it
    /// earlier.
    pub(super) fn read(&mut self, looked: Micros, emptied: bool, fresh: bool) {
        if fresh && self.emptied {
            self.quiet = self.heard;
        }
        // What is left in the socket may be as old as what was read.
        let heard = if emptied { looked } else { self.heard.max(Micros(looked.0 - BUSY_MAX)) };
        (self.heard, self.emptied) = (heard, emptied);
    }

    /// Up to this time both the link and the tee (`told`) were taken in.
    pub(super) fn upto(&self, told: Micros) -> Micros {
        self.heard.min(told).max(Micros(self.heard.0 - BUSY_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_not_emptied_says_nothing_of_what_is_left() {
        let mut reading = Reading::default();
        reading.read(Micros(1_000_000), true, true);
        assert_eq!(reading.upto(Micros(2_000_000)), Micros(1_000_000));
        reading.read(Micros(1_050_000), false, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_000_000), Micros(1_000_000)));
        // A link that is never empty does not delay groups for ever.
        reading.read(Micros(1_500_000), false, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_500_000 - BUSY_MAX), Micros(1_000_000)));
        reading.read(Micros(1_600_000), true, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_600_000), Micros(1_000_000)));
    }
}
