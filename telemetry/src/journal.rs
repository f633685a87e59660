//! How far the journal is, and what of it can be restored.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// LSNs up to which the journal has come: `durable <= written <= captured`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Handed to the journal.
    pub captured: u64,
    /// Handed to the operating system.
    pub written: u64,
    /// Synced to the disk.
    pub durable: u64,
}

/// What is known of the journal. Times are microseconds since 1970; 0 = not known.
#[derive(Debug, Default)]
pub(crate) struct JournalStatus {
    captured: AtomicU64,
    written: AtomicU64,
    durable: AtomicU64,
    window_start: AtomicI64,
    window_end: AtomicI64,
    pruned_bytes: AtomicU64,
    pruned_segments: AtomicU64,
}

impl JournalStatus {
    pub(crate) fn set_watermarks(&self, to: Watermarks) {
        // In this order, a reader finds none ahead of the one that it follows.
        self.captured.store(to.captured, Ordering::Release);
        self.written.store(to.written, Ordering::Release);
        self.durable.store(to.durable, Ordering::Release);
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        let durable = self.durable.load(Ordering::Acquire);
        let written = self.written.load(Ordering::Acquire);
        Watermarks { captured: self.captured.load(Ordering::Acquire), written, durable }
    }

    pub(crate) fn set_window_start(&self, us: i64) {
        self.window_start.store(us, Ordering::Relaxed);
    }

    pub(crate) fn set_window_end(&self, us: i64) {
        self.window_end.store(us, Ordering::Relaxed);
    }

    pub(crate) fn window_end(&self) -> i64 {
        self.window_end.load(Ordering::Relaxed)
    }

    /// A window that has just begun may be known before its end.
    pub(crate) fn window(&self) -> Option<(i64, i64)> {
        let (from, to) = (self.window_start.load(Ordering::Relaxed), self.window_end());
        (from > 0 && to > 0).then_some((from, to.max(from)))
    }

    pub(crate) fn segment_pruned(&self, bytes: u64) {
        self.pruned_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pruned_segments.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn pruned_segments(&self) -> (u64, u64) {
        (self.pruned_bytes.load(Ordering::Relaxed), self.pruned_segments.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_two_ends() {
        let journal = JournalStatus::default();
        assert_eq!(journal.window(), None);
        journal.set_window_start(7);
        assert_eq!(journal.window(), None);
        journal.set_window_end(5);
        assert_eq!(journal.window(), Some((7, 7)), "it has just begun");
        journal.set_window_end(9);
        assert_eq!(journal.window(), Some((7, 9)));
    }

    #[test]
    fn a_reader_never_finds_a_watermark_ahead_of_the_one_that_it_follows() {
        let journal = JournalStatus::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..20_000).for_each(|n| {
                    journal.set_watermarks(Watermarks { captured: n + 2, written: n + 1, durable: n });
                });
            });
            for _ in 0..20_000 {
                let found = journal.watermarks();
                assert!(found.durable <= found.written && found.written <= found.captured, "{found:?}");
            }
        });
    }
}
