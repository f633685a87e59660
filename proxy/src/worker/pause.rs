//! Whether clients are paused (`CLIENT PAUSE`): then the server answers some requests of a connection and not the ones
//! before them, so that nobody may stand behind another's.
//!
//! What passes by here is known at once; a pause from elsewhere shows as a shared connection that stalls. One of
//! writes alone stalls no reads: they have shared connections of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A longer pause counts as this long; then shared connections that stall tell.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// One that was asked for and not granted yet counts so long.
const ASKED_MAX: Duration = Duration::from_millis(200);

/// See the module. One for all workers.
#[derive(Debug)]
pub(crate) struct Pause {
    base: Instant,
    /// Milliseconds after `base`; 0 = none.
    until: AtomicU64,
}

impl Pause {
    pub(crate) fn new() -> Self {
        Self { base: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Clients are paused now.
    #[inline]
    pub(super) fn holds(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && now < self.base + Duration::from_millis(until)
    }

    /// A pause is asked for: whether it is granted is known in a moment.
    pub(super) fn asked(&self, millis: u64, now: Instant) {
        self.begin(Duration::from_millis(millis).min(ASKED_MAX), now);
    }

    /// The server has begun a pause, or ended it (0).
    pub(super) fn agreed(&self, millis: u64, now: Instant) {
        if millis == 0 {
            self.until.store(0, Ordering::Relaxed);
        } else {
            self.begin(Duration::from_millis(millis).min(PAUSE_MAX), now);
        }
    }

    fn begin(&self, time: Duration, now: Instant) {
        let until = u64::try_from((now + time).duration_since(self.base).as_millis()).unwrap_or(u64::MAX);
        // As in the server, a shorter one does not end a longer one.
        self.until.fetch_max(until, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_holds() {
        let (pause, now) = (Pause::new(), Instant::now() + Duration::from_millis(5));
        assert!(!pause.holds(now));
        pause.asked(1 << 40, now);
        assert!(pause.holds(now) && !pause.holds(now + ASKED_MAX + Duration::from_millis(2)));
        pause.agreed(5000, now);
        pause.agreed(10, now);
        assert!(pause.holds(now + Duration::from_millis(4900)) && !pause.holds(now + Duration::from_millis(5100)));
        pause.agreed(0, now);
        assert!(!pause.holds(now));
        pause.agreed(u64::MAX, now);
        assert!(pause.holds(now) && !pause.holds(now + PAUSE_MAX + Duration::from_secs(1)));
    }
}
