//! How many elements are asked for at once, whose length is unknown.

use super::cut::PieceLimits;

/// Elements that are asked for first.
const FIRST: usize = 16;

/// Grows while replies are small, shrinks when one was large. So one reply is too large where elements suddenly are longer,
/// and the next are not.
#[derive(Debug)]
pub(super) struct Portion {
    limits: PieceLimits,
    elements: usize,
}

impl Portion {
    pub(super) fn new(limits: PieceLimits) -> Self {
        Self { limits, elements: FIRST.min(limits.elements) }
    }

    /// Elements to ask for next.
    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    /// So many bytes came.
    pub(super) fn came(&mut self, bytes: usize) {
        if bytes > self.limits.bytes {
            // Down to what would have fitted, so that one reply is enough to learn it.
            let fit = self.elements.saturating_mul(self.limits.bytes) / bytes;
            self.elements = fit.max(1);
        } else if bytes <= self.limits.bytes / 2 {
            self.elements = (self.elements * 2).min(self.limits.elements).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_length_of_elements() {
        let mut portion = Portion::new(PieceLimits { bytes: 1000, elements: 100, ..PieceLimits::default() });
        assert_eq!(portion.elements(), 16);
        for want in [32, 64, 100, 100] {
            portion.came(500);
            assert_eq!(portion.elements(), want);
        }
        portion.came(900);
        assert_eq!(portion.elements(), 100);
        portion.came(100_000);
        assert_eq!(portion.elements(), 1);
        portion.came(1_000_000_000);
        assert_eq!(portion.elements(), 1);
    }
}
