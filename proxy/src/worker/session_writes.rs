//! Records which connections carried a session's writes, and the progress of its `WAIT`: data, without sockets.

use std::time::{Duration, Instant};

use redtape_wire::resp::encode_command;
use smallvec::SmallVec;

use super::refs::ConnRef;
use super::upstream_pool::Kept;

/// Shared connections that may carry writes of one session; beyond that it writes through its pinned connection.
const WROTE_MAX: usize = 8;

/// The shared connections that carried a session's writes.
#[derive(Debug, Default)]
pub(super) struct Wrote {
    pub(super) shared_conns: SmallVec<[ConnRef; 1]>,
    /// Time of its last write through one of them.
    pub(super) at: Option<Instant>,
    /// From now on it writes through its pinned connection.
    pub(super) stays_pinned: bool,
    /// This many replicas had all of its writes, and as many were requested.
    pub(super) counted: Option<Counts>,
    /// The counts of shared connections that were closed since: no later answer is larger.
    pub(super) at_most: Option<Counts>,
    /// When one of them was lost before its writes were counted.
    pub(super) lost: Option<Instant>,
}

impl Wrote {
    #[inline]
    pub(super) fn by(&mut self, shared: ConnRef, now: Instant) {
        self.at = Some(now);
        self.counted = None;
        if self.shared_conns.last() == Some(&shared) || self.shared_conns.contains(&shared) {
            return;
        }
        self.shared_conns.push(shared);
        self.stays_pinned |= self.shared_conns.len() >= WROTE_MAX;
    }

    pub(super) fn stays_pinned(&self) -> bool {
        self.stays_pinned
    }

    /// Checks which shared connections still exist. What was written or lost longer than `memory` ago no longer counts:
    /// a replica without it is not connected any more.
    pub(super) fn look(&mut self, mut is_there: impl FnMut(ConnRef) -> bool, now: Instant, memory: Duration) {
        if self.at.is_some_and(|at| now.saturating_duration_since(at) >= memory) {
            self.shared_conns.clear();
            self.at_most = None;
        }
        let before = self.shared_conns.len();
        self.shared_conns.retain(|shared| is_there(*shared));
        if self.shared_conns.len() < before {
            match self.counted {
                Some(counted) => self.at_most = Some(self.at_most.map_or(counted, |least| least.min(counted))),
                None => self.lost = Some(now),
            }
        }
        self.lost = self.lost.filter(|at| now.saturating_duration_since(*at) < memory);
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.shared_conns.is_empty() && self.lost.is_none() && self.at_most.is_none()
    }

    /// Why its shared connections are kept.
    pub(super) fn kept(&self) -> Kept {
        if self.counted.is_some() { Kept::Counted } else { Kept::Uncounted }
    }

    /// True if it cannot be known which replicas have the writes. Reported once.
    pub(super) fn take_lost(&mut self, wanted: Counts) -> bool {
        let too_few = self.at_most.take_if(|most| !most.reach(wanted)).is_some();
        self.lost.take().is_some() || too_few
    }
}

/// Copies: on this server's own disk, and on replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) local: i64,
    pub(super) replicas: i64,
}

impl Counts {
    /// Parses a reply; `None` = an error.
    pub(super) fn read(reply: &[u8], aof: bool) -> Option<Self> {
        let mut numbers = reply.split(|b| *b == b'\n').filter_map(|line| {
            let digits = line.strip_suffix(b"\r")?.strip_prefix(b":")?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        let local = if aof { numbers.next()? } else { 0 };
        Some(Self { local, replicas: numbers.next()? })
    }

    pub(super) fn write(self, aof: bool) -> String {
        if aof { format!("*2\r\n:{}\r\n:{}\r\n", self.local, self.replicas) } else { format!(":{}\r\n", self.replicas) }
    }

    pub(super) fn min(self, other: Self) -> Self {
        Self { local: self.local.min(other.local), replicas: self.replicas.min(other.replicas) }
    }

    pub(super) fn reach(self, wanted: Self) -> bool {
        self.local >= wanted.local && self.replicas >= wanted.replicas
    }
}

/// What a `WAIT` or `WAITAOF` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) aof: bool,
    pub(super) wanted: Counts,
}

impl Goal {
    /// With the timeout in milliseconds. `None` = the server refuses it, or there is nothing to wait for.
    pub(super) fn read(aof: bool, words: &[&[u8]]) -> Option<(Self, u64)> {
        let number = |word: &[u8]| -> Option<i64> {
            let digits = word.first()?.is_ascii_digit().then_some(word)?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        };
        let (aof, local, replicas, millis) = match (aof, words) {
            (false, [_, replicas, millis]) => (false, 0, replicas, millis),
            (true, [_, local, replicas, millis]) => (true, number(local)?, replicas, millis),
            _ => return None,
        };
        let (replicas, millis) = (number(replicas)?, u64::try_from(number(millis)?).ok()?);
        Some((Self { aof, wanted: Counts { local, replicas } }, millis))
    }

    /// The request with another timeout.
    pub(super) fn request(self, wanted: Counts, millis: u128) -> Vec<u8> {
        let [local, replicas, millis] = [wanted.local.to_string(), wanted.replicas.to_string(), millis.to_string()];
        let mut bytes = Vec::new();
        if self.aof {
            encode_command(&mut bytes, &["WAITAOF", &local, &replicas, &millis]);
        } else {
            encode_command(&mut bytes, &["WAIT", &replicas, &millis]);
        }
        bytes
    }
}

/// One such request, while it is passed to the connections that carried the session's writes.
#[derive(Debug)]
pub(super) struct ReplicaWait {
    pub(super) goal: Goal,
    /// `None`: no time limit.
    pub(super) until: Option<Instant>,
    /// Shared connections whose count is missing; the last one is being asked.
    pub(super) shared_conns: SmallVec<[ConnRef; 1]>,
    /// The pinned connection is being asked.
    pub(super) on_pinned: bool,
    /// The smallest counts so far.
    pub(super) least: Option<Counts>,
    /// The reply received so far.
    pub(super) said: Vec<u8>,
    pub(super) again_at: Instant,
    pub(super) pause: Duration,
}

impl ReplicaWait {
    /// The shared connections still to ask.
    pub(super) fn shared_conns(&self) -> &[ConnRef] {
        &self.shared_conns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(local: i64, replicas: i64) -> Counts {
        Counts { local, replicas }
    }

    #[test]
    fn requests_are_read_as_the_server_reads_them() {
        let read = |line: &str| {
            Goal::read(
                line.len() > 6 && line[..7].eq_ignore_ascii_case("waitaof"),
                &line.split(' ').map(str::as_bytes).collect::<Vec<_>>(),
            )
        };
        assert_eq!(read("WAIT 1 500"), Some((Goal { aof: false, wanted: counts(0, 1) }, 500)));
        assert_eq!(read("waitaof 1 2 0"), Some((Goal { aof: true, wanted: counts(1, 2) }, 0)));
        for refused in [
            "WAIT",
            "WAIT 1",
            "WAIT x 1",
            "WAIT 1 -1",
            "WAIT +1 1",
            "WAIT 1 99999999999999999999",
            "WAITAOF 1 1 1 1",
            "WAITAOF 1 1",
        ] {
            assert_eq!(read(refused), None, "{refused}");
        }
        let goal = Goal { aof: true, wanted: counts(1, 2) };
        assert_eq!(goal.request(goal.wanted, 7), b"*4\r\n$7\r\nWAITAOF\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n7\r\n");
    }

    #[test]
    fn counts_are_read_and_the_smallest_counts() {
        assert_eq!(Counts::read(b":3\r\n", false), Some(counts(0, 3)));
        assert_eq!(Counts::read(b"*2\r\n:1\r\n:2\r\n", true), Some(counts(1, 2)));
        assert_eq!(Counts::read(b"-NOPERM no\r\n", false), None);
        assert_eq!(counts(1, 0).min(counts(0, 2)), counts(0, 0));
        assert_eq!(counts(0, 2).write(true), "*2\r\n:0\r\n:2\r\n");
        assert_eq!(counts(0, 2).write(false), ":2\r\n");
        assert!(counts(1, 2).reach(counts(1, 1)) && !counts(0, 2).reach(counts(1, 1)));
    }

    #[test]
    fn of_a_connection_closed_after_its_writes_were_counted_no_more_is_claimed() {
        let (now, shared, memory) = (Instant::now(), ConnRef { index: 1, generation: 1 }, Duration::from_secs(9));
        let mut wrote = Wrote::default();
        wrote.by(shared, now);
        assert_eq!(wrote.kept(), Kept::Uncounted);
        wrote.counted = Some(counts(0, 2));
        assert_eq!(wrote.kept(), Kept::Counted);
        wrote.look(|_| false, now, memory);
        assert!(!wrote.is_nothing() && !wrote.take_lost(counts(0, 2)), "as many as were counted");
        assert_eq!(wrote.at_most, Some(counts(0, 2)));
        assert!(wrote.take_lost(counts(0, 3)), "more than were counted");
        assert!(wrote.is_nothing(), "it is told once");
        // Later writes through a shared connection were not counted.
        wrote.counted = Some(counts(0, 2));
        wrote.by(shared, now);
        wrote.look(|_| false, now, memory);
        assert!(wrote.take_lost(counts(0, 1)));
    }

    #[test]
    fn what_carried_writes_is_remembered_within_bounds() {
        let (now, shared) = (Instant::now(), |index| ConnRef { index, generation: 1 });
        let mut wrote = Wrote::default();
        assert!(wrote.is_nothing());
        for _ in 0..3 {
            wrote.by(shared(1), now);
            wrote.by(shared(2), now);
        }
        assert_eq!(wrote.shared_conns.len(), 2);
        wrote.look(|l| l.index == 1, now, Duration::from_secs(9));
        assert!(wrote.lost.is_some() && wrote.shared_conns.len() == 1);
        wrote.look(|_| false, now, Duration::from_secs(9));
        assert!(!wrote.is_nothing(), "the loss counts");
        wrote.look(|_| true, now + Duration::from_secs(9), Duration::from_secs(9));
        assert!(wrote.is_nothing());
        (0..WROTE_MAX).for_each(|n| wrote.by(shared(n), now));
        assert!(wrote.stays_pinned());
        wrote.look(|_| true, now + Duration::from_secs(9), Duration::from_secs(9));
        assert!(wrote.is_nothing());
    }
}
