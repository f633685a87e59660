//! Read pacing: how long the capture waits between two reads of the replication link, so that one read takes the data
//! of many writes. Waking for each write costs the server and redtape a system call each.
//!
//! The pause equals the duration of one read's arrival, so the socket buffer never fills up. It is shorter at low
//! rates, while a client waits in `WAIT`, and when arrival times are evidence: then a pause gains nothing or loses
//! precision.

use std::time::Duration;

use tokio::time::Instant;

/// The pause at low rates or while a client waits; and the longest.
const REST: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// A shorter pause is skipped.
const REST_MIN: Duration = Duration::from_micros(250);
/// The target size of a read: less than half of a socket buffer that has not grown yet. If the server has to wait,
/// reads become larger and the pause shorter.
const LARGE_READ_BYTES: usize = 30 * 1024;
/// Below this rate (a thousand small writes) frequent waking costs nothing.
const QUIET_BYTES_PER_SECOND: f64 = 128.0 * 1024.0;
/// Weight of the newest read in the rate.
const SMOOTHING: f64 = 0.2;
/// A client that called `WAIT`, or wrote past the proxy, will probably do so again soon.
const PROMPT_FOR: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct ReadPacing {
    always_prompt: bool,
    never_rest: bool,
    prompt_until: Instant,
    last: Instant,
    /// Smoothed, in bytes per second.
    rate: f64,
    rest: Duration,
    rest_until: Instant,
    busy: bool,
}

impl ReadPacing {
    /// `always_prompt`: use the short pause at any rate. `never_rest`: clients wait for each write, and the duration of
    /// the disk's syncs makes reads larger anyway.
    pub(super) fn new(always_prompt: bool, never_rest: bool, now: Instant) -> Self {
        Self {
            always_prompt,
            never_rest,
            prompt_until: now,
            last: now,
            rate: 0.0,
            rest: REST.0,
            rest_until: now,
            busy: false,
        }
    }

    /// Records a read of this many bytes.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        let elapsed = now.duration_since(self.last).as_secs_f64().max(1e-6);
        let prompt = self.always_prompt || now < self.prompt_until;
        self.busy = !prompt && bytes as f64 / elapsed >= QUIET_BYTES_PER_SECOND;
        self.rate += SMOOTHING * (bytes as f64 / elapsed - self.rate);
        let fills_a_read = Duration::from_secs_f64(LARGE_READ_BYTES as f64 / self.rate.max(1.0));
        self.rest = fills_a_read.min(if self.busy { REST.1 } else { REST.0 });
        if self.rest < REST_MIN || self.never_rest {
            self.rest = Duration::ZERO;
        }
        self.last = now;
        self.rest_until = now + self.rest;
    }

    /// A client waits until what was read is on the disk, or arrival times matter.
    pub(super) fn be_prompt(&mut self, now: Instant) {
        self.prompt_until = now + PROMPT_FOR;
        self.busy = false;
        self.rest_until = self.rest_until.min(now + REST.0);
    }

    /// Bytes per second that may be collected; 0 if clients wait for each write.
    pub(super) fn gathered_rate(&self, now: Instant) -> f64 {
        let prompt = self.always_prompt || self.never_rest || now < self.prompt_until;
        if prompt { 0.0 } else { self.rate }
    }

    /// When the next read is due.
    pub(super) fn rest_until(&self) -> Instant {
        self.rest_until
    }

    /// Under load: how long the thread should sleep without polling anything. Polling would wake it for each packet.
    pub(super) fn sleep(&self, now: Instant) -> Option<Duration> {
        let left = self.rest_until.saturating_duration_since(now);
        (self.busy && !left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The pause after many reads from a source of this many bytes per millisecond, through a socket buffer of 64 KiB.
    fn rest_at(pacing: &mut ReadPacing, bytes_a_ms: usize) -> (Duration, bool) {
        let mut now = pacing.last;
        for _ in 0..100 {
            // Processing a read takes a tenth of a millisecond.
            let waited = (pacing.rest + MS / 10).max(MS * 100 / bytes_a_ms as u32);
            now += waited;
            pacing.took((waited.as_micros() as usize * bytes_a_ms / 1000).min(64 << 10), now);
        }
        (pacing.rest, pacing.sleep(now).is_some())
    }

    #[test]
    fn the_pause_grows_with_the_load_and_shrinks_before_the_socket_is_full() {
        let mut pacing = ReadPacing::new(false, false, Instant::now());
        assert_eq!(rest_at(&mut pacing, 1), (REST.0, false), "a write now and then");
        assert_eq!(rest_at(&mut pacing, 100), (REST.0, false));
        assert_eq!(rest_at(&mut pacing, 2 << 10), (REST.1, true), "2 MiB a second");
        let (rest, busy) = rest_at(&mut pacing, 32 << 10);
        assert!(busy && rest >= MS / 4 && rest <= MS, "32 MiB a second: {rest:?}");
        assert_eq!(rest_at(&mut pacing, 1 << 20), (Duration::ZERO, false), "a gigabyte a second");
        assert_eq!(rest_at(&mut pacing, 2 << 10), (REST.1, true));
        assert_eq!(rest_at(&mut pacing, 1), (REST.0, false));
    }

    #[test]
    fn reads_are_prompt_while_clients_wait_for_the_disk() {
        let start = Instant::now();
        let mut pacing = ReadPacing::new(false, false, start);
        pacing.took(4 << 10, start + MS);
        assert!(pacing.sleep(start + MS).is_some());
        assert!(pacing.gathered_rate(start + MS) > 0.0);
        pacing.be_prompt(start + MS);
        assert_eq!((pacing.rest_until() - start, pacing.sleep(start + MS)), (2 * MS, None));
        assert!(pacing.gathered_rate(start + MS) <= 0.0, "blocks are not held back");
        pacing.took(4 << 10, start + 2 * MS);
        assert_eq!((pacing.rest_until() - start, pacing.sleep(start + 2 * MS)), (3 * MS, None));
        let later = start + 2 * PROMPT_FOR;
        pacing.took(4 << 20, later);
        pacing.took(4 << 10, later + MS);
        assert!(pacing.sleep(later + MS).is_some());
        let mut pacing = ReadPacing::new(true, true, start);
        pacing.took(4 << 10, start + MS);
        assert!(pacing.gathered_rate(start + MS) <= 0.0);
        assert_eq!((pacing.rest_until() - start, pacing.sleep(start + MS)), (MS, None));
        let mut pacing = ReadPacing::new(true, false, start);
        pacing.took(4 << 10, start + MS);
        assert_eq!((pacing.rest_until() - start, pacing.sleep(start + MS)), (2 * MS, None));
    }
}
