//! Whether clients are paused (`CLIENT PAUSE`). During a pause the server answers some requests of a connection and not
//! the ones before them, so sessions must not share connections.
//! A pause requested through this proxy is known at once; one from elsewhere shows as a stalled shared connection. A
//! pause of writes stalls no reads, which have shared connections of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Limit of a known pause; after it, stalled shared connections are the evidence.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// A pause that was requested and not confirmed yet counts for this long.
const ASKED_MAX: Duration = Duration::from_millis(200);

/// State of the pause, shared by all workers.
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

    /// True while clients are paused.
    #[inline]
    pub(super) fn holds(&self, now: Instant) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && now < self.base + Duration::from_millis(until)
    }

    /// A pause was requested and is not confirmed yet.
    pub(super) fn asked(&self, millis: u64, now: Instant) {
        self.begin(Duration::from_millis(millis).min(ASKED_MAX), now);
    }

    /// The server has started a pause, or ended it (0).
    pub(super) fn agreed(&self, millis: u64, now: Instant) {
        if millis == 0 {
            self.until.store(0, Ordering::Relaxed);
        } else {
            self.begin(Duration::from_millis(millis).min(PAUSE_MAX), now);
        }
    }

    fn begin(&self, time: Duration, now: Instant) {
        let until = u64::try_from((now + time).duration_since(self.base).as_millis()).unwrap_or(u64::MAX);
        // As in the server, a shorter pause does not end a longer one.
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
