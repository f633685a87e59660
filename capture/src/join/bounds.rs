//! Bounds on when an effect ran, from probes of the server's replication offset.
//!
//! A probe is `ROLE` on a side connection: the server answered with offset O somewhere between
//! `sent` and `received`. An effect that ends behind O ran after `sent`; one that ends at or before
//! O ran before `received`. Offsets never go back within a timeline.

use std::collections::VecDeque;

use redtape_journal::{Micros, ReplOffset};

/// Probes that are kept while the stream is behind; beyond that every second one is dropped.
const PROBES_MAX: usize = 1 << 16;

/// One probe of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Probe {
    /// Just before `ROLE` was sent.
    pub sent: Micros,
    /// Just after its reply arrived.
    pub received: Micros,
    /// The server's replication offset.
    pub offset: ReplOffset,
    /// `expired_keys` plus expired hash fields, counted by the server since it started.
    pub expired: u64,
    /// `evicted_keys`.
    pub evicted: u64,
}

/// The probes that effects still to come may need.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    after: Micros,
    ahead: VecDeque<Probe>,
}

impl Bounds {
    pub(super) fn add(&mut self, probe: Probe) {
        if self.ahead.len() >= PROBES_MAX {
            let mut keep = false;
            self.ahead.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.ahead.push_back(probe);
    }

    /// When an effect that ends at `end` ran: (after, before if known). `end` lies behind the offset last given to
    /// [`Self::settle`].
    pub(super) fn of(&self, end: ReplOffset) -> (Micros, Option<Micros>) {
        let behind = self.ahead.partition_point(|p| p.offset < end);
        (self.sent_before(behind), self.ahead.get(behind).map(|p| p.received))
    }

    /// Send time of the last of the first `n` kept probes.
    fn sent_before(&self, n: usize) -> Micros {
        let last = n.checked_sub(1).and_then(|n| self.ahead.get(n));
        last.map_or(self.after, |p| self.after.max(p.sent))
    }

    /// Everything that ran before `at` ends at or before this offset; `None` = no probe bounds it.
    pub(super) fn end_before(&self, at: Micros) -> Option<ReplOffset> {
        self.ahead.get(self.ahead.partition_point(|p| p.sent < at)).map(|p| p.offset)
    }

    /// Everything that ran before this time ends at `processed` or before.
    pub(super) fn complete_until(&self, processed: ReplOffset) -> Option<Micros> {
        let until = self.sent_before(self.ahead.partition_point(|p| p.offset <= processed));
        (until.0 > 0).then_some(until)
    }

    /// Drops probes that no effect behind `processed` needs.
    pub(super) fn settle(&mut self, processed: ReplOffset) {
        let passed = self.ahead.partition_point(|p| p.offset <= processed);
        self.after = self.sent_before(passed);
        self.ahead.drain(..passed);
    }
}
