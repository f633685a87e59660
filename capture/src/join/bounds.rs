//! Bounds on when an effect ran, from probes of the server's replication offset.
//!
//! A probe is `ROLE` on a side connection: the server answered with offset O somewhere between
//! `sent` and `received`. An effect that ends behind O ran after `sent`; one that ends at or before
//! O ran before `received`. Offsets never go back within a timeline.

use std::collections::VecDeque;

use redtape_journal::{Micros, ReplOffset};

/// Probes that are kept while the stream is behind; beyond that every second one is dropped.
const PROBES_MAX: usize = 1 << 16;

/// One look at the server.
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

    /// (ran after, ran before if known) for an effect that ends at `end`; asked in stream order.
    pub(super) fn of(&mut self, end: ReplOffset) -> (Micros, Option<Micros>) {
        while let Some(probe) = self.ahead.front()
            && probe.offset < end
        {
            self.after = self.after.max(probe.sent);
            self.ahead.pop_front();
        }
        (self.after, self.ahead.front().map(|p| p.received))
    }

    /// What ran before `at` ends here or before; `None` = nobody knows.
    pub(super) fn end_before(&self, at: Micros) -> Option<ReplOffset> {
        self.ahead.get(self.ahead.partition_point(|p| p.sent < at)).map(|p| p.offset)
    }

    /// The newest probe that says nothing behind `processed` existed when it was sent.
    pub(super) fn complete_until(&self, processed: ReplOffset) -> Option<Micros> {
        self.ahead
            .iter()
            .take_while(|p| p.offset <= processed)
            .map(|p| p.sent)
            .last()
            .or((self.after.0 > 0).then_some(self.after))
    }

    /// Drops what no effect behind `processed` needs any more.
    pub(super) fn settle(&mut self, processed: ReplOffset) {
        while self.ahead.len() > 1 && self.ahead[0].offset <= processed && self.ahead[1].offset <= processed {
            if let Some(probe) = self.ahead.pop_front() {
                self.after = self.after.max(probe.sent);
            }
        }
    }
}
