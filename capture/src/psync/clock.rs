//! Detects steps of the wall clock by comparison with a monotonic clock.
//!
//! The journal is ordered by LSN, and its times never go back, whatever the clock does. But a user who restores to a
//! time reads it off the stepped clock. So a step is logged, counted, and recorded as a mark behind the last write
//! before it.

use std::time::Duration;

use redtape_journal::{ClockStep, Mark, Micros, add_new_mark};
use tokio::time::Instant;

use super::Capture;

/// A smaller difference between two checks comes from gradual clock adjustment or a busy machine.
const STEP: i64 = 1_000_000;

/// A reading of the wall clock and of a monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClockWatch {
    wall: Micros,
    at: Instant,
}

impl ClockWatch {
    pub(super) fn start() -> Self {
        Self { wall: Micros::now(), at: Instant::now() }
    }

    /// By how many µs the wall clock stepped since the last check: forward, or (negative) back.
    fn look(&mut self, wall: Micros, at: Instant) -> Option<i64> {
        let passed = i64::try_from(at.saturating_duration_since(self.at).as_micros()).unwrap_or(i64::MAX);
        let step = wall.0.saturating_sub(self.wall.0).saturating_sub(passed);
        *self = Self { wall, at };
        (step.abs() >= STEP).then_some(step)
    }
}

impl Capture {
    /// Called at each probe while the stream is followed, at least twice a second if the server answers.
    pub(super) fn watch_clock(&mut self) {
        let wall = Micros::now();
        let Some(step) = self.clock.look(wall, Instant::now()) else { return };
        self.status.numbers.capture.clock_steps.inc();
        let name = ClockStep { by: step, to: wall }.to_string();
        let tail = self.recorder.tail().ts;
        if tail > wall {
            tracing::warn!(
                "the wall clock has stepped {}; order is not affected, but until it has passed {tail} every write is \
                 recorded with that time: restore by mark or LSN what is written till then (`mark:{name}`)",
                shown(step),
            );
        } else {
            tracing::warn!("the wall clock has stepped {} (`mark:{name}`)", shown(step));
        }
        if self.position.is_none() {
            return;
        }
        let (lsn, ts) = (self.recorder.durable_lsn(), self.recorder.complete_until().max(tail));
        if let Err(e) = add_new_mark(&self.config.dir, &Mark { name, ts, lsn }) {
            tracing::warn!("the clock's step cannot be marked in the journal: {e}");
        }
    }
}

/// As in `2h 0m 3s forward`.
fn shown(step: i64) -> String {
    let s = Duration::from_micros(step.unsigned_abs()).as_secs();
    let direction = if step < 0 { "back" } else { "forward" };
    format!("{}h {}m {}s {direction}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_step_is_detected() {
        let begun = Instant::now();
        let mut watch = ClockWatch { wall: Micros(5_000_000), at: begun };
        let mut look = |wall: i64, after_ms: u64| watch.look(Micros(wall), begun + Duration::from_millis(after_ms));
        assert_eq!(look(65_000_000, 60_000), None, "a minute");
        assert_eq!(look(65_900_000, 60_000), None, "set right by little");
        assert_eq!(look(7_266_000_000, 60_100), Some(7_200_000_000), "two hours forward");
        assert_eq!(look(7_267_000_000, 61_100), None);
        assert_eq!(look(67_000_000, 61_100), Some(-7_200_000_000), "and back");
    }

    #[test]
    fn a_clock_step_as_text() {
        assert_eq!(shown(-7_203_000_000), "2h 0m 3s back");
    }
}
