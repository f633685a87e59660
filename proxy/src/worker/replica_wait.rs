//! `WAIT` and `WAITAOF` of a session whose writes went by shared connections.
//!
//! A server remembers for each of its connections up to where the connection has written, and answers `WAIT` by that. What
//! a session has written by a shared connection, that connection remembers, and the session's own does not. Since Redis 7.2
//! only a command that itself writes moves that offset; before, any command does.
//!
//! ```text
//! WAIT n t ─► each shared connection that carried a write is retired: nobody else writes there, so its offset stands still
//!              │ WAIT n 1       asks the replicas how far they are
//!              │ WAIT 0 0 …     counts them now and then, until n have it, or t is over
//!              └─► WAIT n (rest of t) on the session's own connection ─► the smallest count is the answer
//! ```
//!
//! Invariants:
//! - no shared connection is ever blocked for longer than a millisecond, so any number of sessions may wait for one
//!   shared connection's writes;
//! - a count is never larger than the number of replicas that have everything the session was told of;
//! - a session that has asked once writes by its own connection from then on, so that the server answers the next time;
//! - where a shared connection that carried writes is lost, the answer is an error, not a count.
//!
//! Before 7.2, one `WAIT 0 0` on the session's own connection moves its offset past all that it was told of, by the very right
//! that the client's own `WAIT` needs.

use std::time::{Duration, Instant};

use redtape_wire::resp::encode_command;
use smallvec::SmallVec;

use super::Worker;
use super::client::{SharedRef, Stage};
use super::upstream_conn::{ClientRef, Kept, Role};
use crate::session::Ask;

/// Shared connections that may have carried writes of one session; then it writes by its own connection.
const WROTE_MAX: usize = 8;
/// Pause between two counts: doubled from the first up to the second.
const COUNT_EVERY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Longest answer to `WAIT` or `WAITAOF`, which may be an error with a user's name; a server that says more is not listened to.
pub(super) const ANSWER_MAX: usize = 64 * 1024;
const WRITES_LOST: &str = "-ERR redtape: the connection that carried earlier writes of this session is lost, so which \
                           replicas have them is not known; later writes can be waited for\r\n";

/// The shared connections that carried a session's writes.
#[derive(Debug, Default)]
pub(super) struct Wrote {
    shared_conns: SmallVec<[SharedRef; 1]>,
    /// When it wrote by one of them last.
    at: Option<Instant>,
    /// It writes by its own connection from here on.
    stays_pinned: bool,
    /// So many had what was written by all of them, and as many were asked for.
    counted: Option<Counts>,
    /// The same of shared connections that were closed after that: no later answer is larger.
    at_most: Option<Counts>,
    /// When one of them was found to be lost, and it was not known who has what it carried.
    lost: Option<Instant>,
}

impl Wrote {
    #[inline]
    pub(super) fn by(&mut self, shared: SharedRef, now: Instant) {
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

    /// Looks which shared connections are still there. What was written or lost `memory` ago counts no more: a replica that has it not yet
    /// is not connected any more.
    pub(super) fn look(&mut self, mut is_there: impl FnMut(SharedRef) -> bool, now: Instant, memory: Duration) {
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

    fn is_nothing(&self) -> bool {
        self.shared_conns.is_empty() && self.lost.is_none() && self.at_most.is_none()
    }

    /// Why its shared connections are kept.
    pub(super) fn kept(&self) -> Kept {
        if self.counted.is_some() { Kept::Counted } else { Kept::Uncounted }
    }

    /// Whether it cannot be known who has what was written. It is told once.
    fn take_lost(&mut self, wanted: Counts) -> bool {
        let too_few = self.at_most.take_if(|most| !most.reach(wanted)).is_some();
        self.lost.take().is_some() || too_few
    }
}

/// How many have it: this server's own disk, and replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    local: i64,
    replicas: i64,
}

impl Counts {
    /// From a reply; `None` = it is an error.
    fn read(reply: &[u8], aof: bool) -> Option<Self> {
        let mut numbers = reply.split(|b| *b == b'\n').filter_map(|line| {
            let digits = line.strip_suffix(b"\r")?.strip_prefix(b":")?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        });
        let local = if aof { numbers.next()? } else { 0 };
        Some(Self { local, replicas: numbers.next()? })
    }

    fn write(self, aof: bool) -> String {
        if aof { format!("*2\r\n:{}\r\n:{}\r\n", self.local, self.replicas) } else { format!(":{}\r\n", self.replicas) }
    }

    fn min(self, other: Self) -> Self {
        Self { local: self.local.min(other.local), replicas: self.replicas.min(other.replicas) }
    }

    fn reach(self, wanted: Self) -> bool {
        self.local >= wanted.local && self.replicas >= wanted.replicas
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Goal {
    aof: bool,
    wanted: Counts,
}

impl Goal {
    /// With the timeout in milliseconds. `None` = the server refuses it, or it waits for nothing.
    fn read(aof: bool, words: &[&[u8]]) -> Option<(Self, u64)> {
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

    /// The request, with another timeout.
    fn request(self, wanted: Counts, millis: u128) -> Vec<u8> {
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

/// One such request on its way through the connections that know of the session's writes.
#[derive(Debug)]
pub(super) struct ReplicaWait {
    goal: Goal,
    /// `None`: as long as it takes.
    until: Option<Instant>,
    /// Shared connections that were not answered for yet; the last is asked now.
    shared_conns: SmallVec<[SharedRef; 1]>,
    /// The session's own connection is asked now.
    pub(super) on_pinned: bool,
    /// The smallest counts so far.
    least: Option<Counts>,
    /// The reply, as far as it is here.
    pub(super) said: Vec<u8>,
    again_at: Instant,
    pause: Duration,
}

impl ReplicaWait {
    /// The shared connections that it has still to ask.
    pub(super) fn shared_conns(&self) -> &[SharedRef] {
        &self.shared_conns
    }
}

/// Whether a server, by its answer to `HELLO`, moves a connection's offset by any command (before 7.2).
pub(super) fn moves_by_any_command(hello: &[u8]) -> bool {
    let mut lines = hello.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let version = lines.by_ref().find(|line| *line == b"version").and_then(|_| lines.nth(1));
    let mut numbers =
        version.unwrap_or_default().split(|b| *b == b'.').map(|n| std::str::from_utf8(n).ok()?.parse().ok());
    let (major, minor): (Option<u32>, Option<u32>) = (numbers.next().flatten(), numbers.next().flatten());
    matches!((major, minor), (Some(major), Some(minor)) if (major, minor) < (7, 2))
}

impl Worker {
    /// `None` = the session's own connection can answer; else whether the request is done with or has to wait.
    pub(super) fn wait_for_replicas(&mut self, index: usize, ask: &Ask<'_>, words: &[&[u8]]) -> Option<bool> {
        if !matches!(ask.name(), b"wait" | b"waitaof") {
            return None;
        }
        let client = &mut self.clients[index];
        client.wrote.stays_pinned = true;
        if client.wrote.is_nothing() || !client.state.is_answered_at_once() {
            return None;
        }
        let (goal, millis) = Goal::read(ask.name() == b"waitaof", words)?;
        if client.in_flight() > 0 {
            client.waiting = true;
            self.nudge_pinned(index);
            return Some(false);
        }
        let lost = client.wrote.take_lost(goal.wanted);
        if self.moves_by_any_command {
            client.wrote.shared_conns.clear();
            client.wrote.at_most = None;
            client.state.ask_ourselves();
            let all = Counts { local: 0, replicas: 0 };
            self.send_pinned(index, &goal.request(all, 0));
            return None;
        }
        self.counts.commands += 1;
        if lost {
            self.writes_lost(index);
            return Some(true);
        }
        // They go on counting: what the session writes later by its own connection may have no effect, and move nothing.
        let shared_conns = self.clients[index].wrote.shared_conns.clone();
        for shared in &shared_conns {
            self.retire(*shared);
        }
        let until = (millis > 0).then(|| self.now.checked_add(Duration::from_millis(millis))).flatten();
        self.clients[index].replica_wait = Some(Box::new(ReplicaWait {
            goal,
            until,
            shared_conns,
            on_pinned: false,
            least: self.clients[index].wrote.at_most,
            said: Vec::new(),
            again_at: self.now,
            pause: COUNT_EVERY.0,
        }));
        self.ask_next(index);
        Some(true)
    }

    /// A shared connection takes no more requests of others: what it remembers stands still.
    fn retire(&mut self, shared: SharedRef) {
        let Some(conn) = self.conns.get_mut(shared.conn).filter(|l| l.generation == shared.generation) else { return };
        conn.retired = true;
        if let Role::Shared(key) = &conn.role {
            self.shared_conns.closed(key, shared.conn);
        }
    }

    /// Has the next connection count: a shared one, or at last the session's own.
    fn ask_next(&mut self, index: usize) {
        if self.clients[index].replica_wait.as_ref().is_some_and(|wait| wait.shared_conns.is_empty()) {
            self.ask_pinned_last(index);
        } else {
            self.ask_shared(index, true);
        }
    }

    /// Has a shared connection count. `first`: the replicas are asked how far they are.
    fn ask_shared(&mut self, index: usize, first: bool) {
        let client = &mut self.clients[index];
        let reference = ClientRef { index, generation: client.generation };
        let Some(wait) = &mut client.replica_wait else { return };
        let Some(shared) = wait.shared_conns.last().copied() else { return };
        let Some(conn) = self.conns.get_mut(shared.conn).filter(|l| l.generation == shared.generation) else {
            return self.writes_lost(index);
        };
        let none = Counts { local: 0, replicas: 0 };
        let request = if first { wait.goal.request(wait.goal.wanted, 1) } else { wait.goal.request(none, 0) };
        client.state.ask_ourselves();
        (client.on_shared, client.on_writes, client.behind) = (true, true, true);
        client.active = self.now;
        conn.wait(reference, self.now);
        conn.out.push(&request);
        self.make_dirty(shared.conn);
    }

    /// Has the session's own connection count, for what is left of the time.
    fn ask_pinned_last(&mut self, index: usize) {
        let now = self.now;
        let client = &mut self.clients[index];
        let Some(wait) = &mut client.replica_wait else { return };
        let millis = wait.until.map_or(0, |until| until.saturating_duration_since(now).as_millis().max(1));
        let request = wait.goal.request(wait.goal.wanted, millis);
        wait.on_pinned = true;
        client.state.ask_ourselves();
        self.send_pinned(index, &request);
    }

    /// A connection has counted: the reply is there.
    pub(super) fn replicas_counted(&mut self, reference: ClientRef) {
        let now = self.now;
        let Some(client) = self.client(reference) else { return };
        let Some(wait) = &mut client.replica_wait else { return };
        let said = std::mem::take(&mut wait.said);
        if said.len() > ANSWER_MAX {
            return self.finish(reference.index);
        }
        let Some(counts) = Counts::read(&said, wait.goal.aof) else {
            // The server's own words.
            return self.end_replica_wait(reference, &said);
        };
        let least = wait.least.map_or(counts, |least| least.min(counts));
        if wait.on_pinned {
            client.wrote.counted = wait.least.filter(|shared_conns| shared_conns.reach(wait.goal.wanted));
            let answer = least.write(wait.goal.aof);
            return self.end_replica_wait(reference, answer.as_bytes());
        }
        if !counts.reach(wait.goal.wanted) && wait.until.is_none_or(|until| now < until) {
            wait.again_at = wait.until.map_or(now + wait.pause, |until| until.min(now + wait.pause));
            wait.pause = (wait.pause * 2).min(COUNT_EVERY.1);
            let at = wait.again_at;
            self.next_count = self.next_count.min(at);
            self.counting.push(reference);
            return;
        }
        wait.least = Some(least);
        wait.shared_conns.pop();
        wait.pause = COUNT_EVERY.0;
        self.ask_next(reference.index);
    }

    /// By the clock: those whose replicas are to be counted again.
    pub(super) fn count_replicas(&mut self) {
        if self.counting.is_empty() || self.now < self.next_count {
            return;
        }
        self.next_count = self.now + COUNT_EVERY.1;
        for reference in std::mem::take(&mut self.counting) {
            let now = self.now;
            let Some(client) = self.client(reference) else { continue };
            let Some(wait) = &client.replica_wait else { continue };
            if now < wait.again_at {
                let at = wait.again_at;
                self.next_count = self.next_count.min(at);
                self.counting.push(reference);
            } else if client.read_closed || client.stage != Stage::Open {
                // A server lets go of a client that leaves while it waits.
                self.close_client(reference.index);
            } else {
                self.ask_shared(reference.index, false);
            }
        }
    }

    fn writes_lost(&mut self, index: usize) {
        self.shared.metrics.error("wait_lost");
        let reference = ClientRef { index, generation: self.clients[index].generation };
        self.end_replica_wait(reference, WRITES_LOST.as_bytes());
    }

    fn end_replica_wait(&mut self, reference: ClientRef, answer: &[u8]) {
        let now = self.now;
        let Some(client) = self.client(reference) else { return };
        client.replica_wait = None;
        client.on_shared = false;
        client.active = now;
        self.counts.sent += answer.len() as u64;
        let Some(client) = self.client(reference) else { return };
        if client.pass(answer, None).is_err() {
            return self.close_client(reference.index);
        }
        self.after_replies(reference);
        self.queue_client(reference);
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
    fn which_servers_move_the_offset_by_any_command() {
        let hello = |version: &str| {
            format!(
                "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${}\r\n{version}\r\n$5\r\nproto\r\n:2\r\n",
                version.len()
            )
        };
        for (version, moves) in
            [("6.0.16", true), ("7.0.15", true), ("7.2.0", false), ("8.0.6", false), ("10.0.1", false), ("", false)]
        {
            assert_eq!(moves_by_any_command(hello(version).as_bytes()), moves, "{version}");
        }
        assert!(!moves_by_any_command(b"-ERR unknown command\r\n"));
    }

    #[test]
    fn of_a_connection_closed_after_its_writes_were_counted_no_more_is_claimed() {
        let (now, shared, memory) = (Instant::now(), SharedRef { conn: 1, generation: 1 }, Duration::from_secs(9));
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
        // What is written by a shared connection later was not counted.
        wrote.counted = Some(counts(0, 2));
        wrote.by(shared, now);
        wrote.look(|_| false, now, memory);
        assert!(wrote.take_lost(counts(0, 1)));
    }

    #[test]
    fn what_carried_writes_is_remembered_within_bounds() {
        let (now, shared) = (Instant::now(), |conn| SharedRef { conn, generation: 1 });
        let mut wrote = Wrote::default();
        assert!(wrote.is_nothing());
        for _ in 0..3 {
            wrote.by(shared(1), now);
            wrote.by(shared(2), now);
        }
        assert_eq!(wrote.shared_conns.len(), 2);
        wrote.look(|l| l.conn == 1, now, Duration::from_secs(9));
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
