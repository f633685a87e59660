//! Counts the ticks for which a shared connection has stalled, without a clock.

/// Limit of ticks in which others were answered while a shared connection stalled.
pub(super) const STALLED_TICKS: u32 = 20;
/// The limit for a shared connection for writes while no write is answered anywhere.
pub(super) const PAUSED_TICKS: u32 = 240;

/// Ticks in which others were answered while a shared connection stalled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stall {
    any: u32,
    writes: u32,
}

/// What was answered since the last tick: on shared connections, on the witness, and writes on pinned connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) any: bool,
    /// A write that the server would delay during a pause.
    pub(super) writes: bool,
}

impl Stall {
    /// Counts a tick without progress; true = it has stalled for too long.
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

    /// The number of such ticks after which a shared connection is cut.
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
