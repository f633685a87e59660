//! Decides when to reconnect after following has ended, and which failures to log meanwhile.
//!
//! An attempt with no or little cost for the server is repeated at a short, fixed interval: writes between the server's
//! return and the next attempt may be missing from every journal. The pause grows only after attempts that cost the
//! server something: an entry in its ACL LOG, a TLS handshake, a fork for a full copy.

use std::time::{Duration, Instant};

/// Pause after a failed connection.
const CONNECT_EVERY: Duration = Duration::from_millis(50);
/// Pause after the server answers that it cannot serve a replica yet (`-LOADING`, `-NOMASTERLINK`), or closes a link
/// that it had let continue.
const NOT_NOW_EVERY: Duration = Duration::from_millis(100);
/// Pause after anything else: doubled from the first up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// An unchanged failure is logged again after this time.
const SAY_AGAIN: Duration = Duration::from_mins(1);

/// What the ended attempt has cost the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    /// There was no connection.
    Nothing,
    /// A handshake, and the rest of its backlog.
    Handshake,
    /// More than that, or unknown.
    Something,
}

/// Computes the pauses.
#[derive(Debug)]
pub(super) struct Retry {
    next: Duration,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { next: BACKOFF.0 }
    }

    /// The pause after an attempt with this cost and duration.
    pub(super) fn pause(&mut self, cost: Cost, lasted: Duration) -> Duration {
        // A server that was away is another process, so the earlier pauses do not count.
        if cost == Cost::Nothing || lasted > BACKOFF.1 {
            self.next = BACKOFF.0;
        }
        match cost {
            Cost::Nothing => CONNECT_EVERY,
            Cost::Handshake => NOT_NOW_EVERY,
            Cost::Something => {
                let pause = self.next;
                self.next = (pause * 2).min(BACKOFF.1);
                pause
            }
        }
    }

    /// The server was away and is back.
    pub(super) fn server_is_back(&mut self) {
        self.next = BACKOFF.0;
    }
}

/// Filters repeated reasons: each is logged once, and again after [`SAY_AGAIN`].
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: Option<(String, Instant)>,
}

impl Complaints {
    /// True if this reason should be logged.
    pub(super) fn is_news(&mut self, what: &str, now: Instant) -> bool {
        let known = self.said.as_ref().is_some_and(|(said, at)| said == what && now.duration_since(*at) < SAY_AGAIN);
        if !known {
            self.said = Some((what.to_owned(), now));
        }
        !known
    }

    /// Following works again: the next failure is logged.
    pub(super) fn over(&mut self) {
        self.said = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_only_behind_what_costs_the_server_something() {
        let mut retry = Retry::new();
        let (short, long) = (Duration::from_millis(1), BACKOFF.1 + Duration::from_millis(1));
        let mut pauses = |steps: &[(Cost, Duration)]| -> Vec<u128> {
            steps.iter().map(|(cost, lasted)| retry.pause(*cost, *lasted).as_millis()).collect()
        };
        let refused = [(Cost::Something, short); 8];
        assert_eq!(pauses(&refused), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        // The server is loading.
        assert_eq!(pauses(&[(Cost::Handshake, short); 3]), [100; 3]);
        assert_eq!(pauses(&[(Cost::Something, short)]), [5000], "nothing has changed");
        // The server is away; then it is another process.
        assert_eq!(pauses(&[(Cost::Nothing, short); 200]), [50; 200]);
        assert_eq!(pauses(&[(Cost::Something, short); 2]), [100, 200]);
        // A link that worked for a while.
        assert_eq!(pauses(&[(Cost::Something, long), (Cost::Something, short)]), [100, 200]);
        retry.server_is_back();
        assert_eq!(retry.pause(Cost::Something, short), BACKOFF.0);
    }

    #[test]
    fn a_reason_is_said_once_a_minute() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        let said = |c: &mut Complaints, what: &str, seconds| c.is_news(what, now + Duration::from_secs(seconds));
        assert!(said(&mut complaints, "refused", 0));
        assert!(!said(&mut complaints, "refused", 1));
        assert!(said(&mut complaints, "loading", 2));
        assert!(said(&mut complaints, "refused", 3));
        assert!(!said(&mut complaints, "refused", 62));
        assert!(said(&mut complaints, "refused", 63));
        complaints.over();
        assert!(said(&mut complaints, "refused", 64));
    }
}
