//! When a shared connection that makes no progress has stalled for too long: counted in ticks, without a clock.

/// Ticks in which a stalled shared connection may see others answered.
pub(super) const STALLED_TICKS: u32 = 20;
/// The same for a shared connection for writes, as long as no write is answered anywhere.
pub(super) const PAUSED_TICKS: u32 = 240;

/// Ticks in which others were answered while a shared connection stalled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stall {
    any: u32,
    writes: u32,
}

/// What was answered since the last tick: on shared connections, to the witness, and of what came by pinned
/// connections the writes that were done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) any: bool,
    /// A write that would wait while the server pauses writes.
    pub(super) writes: bool,
}

impl Stall {
    /// One more tick without progress; true = it has stalled for too long.
    pub(super) fn tick(&mut self, served: Served, for_writes: bool) -> bool {
        self.any += u32::from(served.any);
        self.writes += u32::from(served.writes);
        if for_writes { self.writes >= STALLED_TICKS || self.any >= PAUSED_TICKS } else { self.any >= STALLED_TICKS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Served = Served { any: false, writes: false };
    const READS: Served = Served { any: true, writes: false };
    const WRITES: Served = Served { any: true, writes: true };

    /// After how many such ticks a shared connection is cut.
    fn cut_after(served: Served, for_writes: bool) -> Option<u32> {
        let mut stall = Stall::default();
        (1..=2 * PAUSED_TICKS).find(|_| stall.tick(served, for_writes))
    }

    #[test]
    fn a_shared_connection_is_cut_only_when_others_are_answered() {
        for (served, for_writes, after) in [
            (NOBODY, false, None),
            (NOBODY, true, None),
            (READS, false, Some(STALLED_TICKS)),
            (READS, true, Some(PAUSED_TICKS)),
            (WRITES, false, Some(STALLED_TICKS)),
            (WRITES, true, Some(STALLED_TICKS)),
        ] {
            assert_eq!(cut_after(served, for_writes), after, "{served:?}, for writes: {for_writes}");
        }
    }

    #[test]
    fn one_answer_to_others_behind_a_long_stop_is_not_enough() {
        let mut stall = Stall::default();
        assert!((0..1000).all(|_| !stall.tick(NOBODY, false)));
        assert!(!stall.tick(READS, false));
    }
}
