//! How far the link was read: what a time says about the effects that can still come.

use redtape_journal::Micros;

/// A worker that is busy for longer, in µs, is not waited for: what it knows comes too late. Nor is a link that is never empty.
const BUSY_MAX: i64 = 100_000;

/// How far the link was read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// All that could be read then was taken in.
    heard: Micros,
    /// The same of the read before, if it emptied the link: what was read last came after this.
    pub(super) quiet: Micros,
    /// The link was empty at `heard`.
    emptied: bool,
}

impl Reading {
    /// The link was read, at `looked` or later; `emptied`: nothing is left; `fresh`: something came, and no part of it before.
    pub(super) fn read(&mut self, looked: Micros, emptied: bool, fresh: bool) {
        if fresh && self.emptied {
            self.quiet = self.heard;
        }
        // What is left may be as old as what was read.
        let heard = if emptied { looked } else { self.heard.max(Micros(looked.0 - BUSY_MAX)) };
        (self.heard, self.emptied) = (heard, emptied);
    }

    /// Everything up to then was taken in: of the link, and of what workers know.
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
        // One that is never empty holds nothing up for ever.
        reading.read(Micros(1_500_000), false, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_500_000 - BUSY_MAX), Micros(1_000_000)));
        reading.read(Micros(1_600_000), true, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_600_000), Micros(1_000_000)));
    }
}
