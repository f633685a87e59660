//! `WAIT` and `WAITAOF` of a session whose writes went through shared connections.
//!
//! A server stores for each connection the offset of its last write, and answers `WAIT` by that. For writes through a
//! shared connection, that offset belongs to the shared connection and not to the pinned one. Since Redis 7.2 only a
//! command that itself writes advances it; before, any command does.
//!
//! ```text
//! WAIT n t ─► each shared connection that carried a write is retired: no other writes, so its offset stays
//!              │ WAIT n 1       asks the replicas how far they are
//!              │ WAIT 0 0 …     counts them now and then, until n have it, or t is over
//!              └─► WAIT n (rest of t) on the session's own connection ─► the smallest count is the answer
//! ```
//!
//! Invariants:
//! - no shared connection is blocked for longer than a millisecond, so any number of sessions may wait for one shared
//!   connection's writes;
//! - a count is never larger than the number of replicas that have everything acknowledged to the session;
//! - after its first `WAIT` a session writes through its pinned connection, so that the server itself answers the next
//!   one;
//! - if a shared connection that carried writes is lost, the answer is an error, not a count.
//!
//! Before 7.2, one `WAIT 0 0` on the pinned connection advances its offset past everything acknowledged to the session.
//! It needs the same right as the client's own `WAIT`.

use std::time::Duration;

use super::Worker;
use super::client_table::Recount;
use super::outcome::Admission;
use super::refs::ClientRef;
use super::session_writes::{Counts, Goal, ReplicaWait};
use crate::session::ClassifiedRequest;

/// Pause between two counts: doubled from the first up to the second.
const COUNT_EVERY: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Size limit of an answer to `WAIT` or `WAITAOF`; a longer one ends the connection.
pub(super) const ANSWER_MAX: usize = 64 * 1024;
const WRITES_LOST: &str = "-ERR redtape: the connection that carried earlier writes of this session is lost, so which \
                           replicas have them is not known; later writes can be waited for\r\n";

impl Worker {
    /// Handles a `WAIT` that the pinned connection cannot answer; any other request is forwarded.
    pub(super) fn wait_for_replicas(
        &mut self,
        index: usize,
        request: &ClassifiedRequest<'_>,
        args: &[&[u8]],
    ) -> Admission {
        if !matches!(request.name(), b"wait" | b"waitaof") {
            return Admission::Forward;
        }
        let client = &mut self.clients[index];
        client.wrote.stays_pinned = true;
        if client.wrote.is_nothing() || !client.state.is_answered_at_once() {
            return Admission::Forward;
        }
        let Some((goal, millis)) = Goal::read(request.name() == b"waitaof", args) else { return Admission::Forward };
        if client.in_flight() > 0 {
            client.waiting = true;
            self.nudge_pinned(index);
            return Admission::Wait;
        }
        let lost = client.wrote.take_lost(goal.wanted);
        if self.pool.moves_by_any_command() {
            client.wrote.shared_conns.clear();
            client.wrote.at_most = None;
            client.state.ask_internally();
            let all = Counts { local: 0, replicas: 0 };
            self.send_pinned(index, &goal.request(all, 0));
            return Admission::Forward;
        }
        self.counts.commands += 1;
        if lost {
            self.writes_lost(index);
            return Admission::Done;
        }
        // Keep counting: what the session writes later through its pinned connection may have no effect and not advance
        // the offset.
        let shared_conns = self.clients[index].wrote.shared_conns.clone();
        for shared in &shared_conns {
            self.pool.retire(*shared);
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
        Admission::Done
    }

    /// Counts on the next connection: a shared one, or finally the pinned one.
    fn ask_next(&mut self, index: usize) {
        if self.clients[index].replica_wait.as_ref().is_some_and(|wait| wait.shared_conns.is_empty()) {
            self.ask_pinned_last(index);
        } else {
            self.ask_shared(index, true);
        }
    }

    /// Counts on a shared connection. `first`: the replicas are asked for their offsets.
    fn ask_shared(&mut self, index: usize, first: bool) {
        let client = &mut self.clients[index];
        let reference = ClientRef { index, generation: client.generation };
        let Some(wait) = &mut client.replica_wait else { return };
        let Some(shared) = wait.shared_conns.last().copied() else { return };
        let Some(conn) = self.pool.get_mut(shared) else {
            return self.writes_lost(index);
        };
        let none = Counts { local: 0, replicas: 0 };
        let request = if first { wait.goal.request(wait.goal.wanted, 1) } else { wait.goal.request(none, 0) };
        client.state.ask_internally();
        (client.on_shared, client.on_writes, client.behind) = (true, true, true);
        client.active = self.now;
        conn.wait(reference, self.now);
        conn.out.push(&request);
        self.pool.make_dirty(shared.index);
    }

    /// Counts on the pinned connection, for the rest of the time.
    fn ask_pinned_last(&mut self, index: usize) {
        let now = self.now;
        let client = &mut self.clients[index];
        let Some(wait) = &mut client.replica_wait else { return };
        let millis = wait.until.map_or(0, |until| until.saturating_duration_since(now).as_millis().max(1));
        let request = wait.goal.request(wait.goal.wanted, millis);
        wait.on_pinned = true;
        client.state.ask_internally();
        self.send_pinned(index, &request);
    }

    /// A connection has counted: its reply is complete.
    pub(super) fn replicas_counted(&mut self, reference: ClientRef) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(reference) else { return };
        let Some(wait) = &mut client.replica_wait else { return };
        let said = std::mem::take(&mut wait.said);
        if said.len() > ANSWER_MAX {
            return self.finish(reference.index);
        }
        let Some(counts) = Counts::read(&said, wait.goal.aof) else {
            // The server's error is passed on.
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
            return self.clients.count_later(reference, at);
        }
        wait.least = Some(least);
        wait.shared_conns.pop();
        wait.pause = COUNT_EVERY.0;
        self.ask_next(reference.index);
    }

    /// At each tick: the scheduled counts.
    pub(super) fn count_replicas(&mut self) {
        for (client, recount) in self.clients.due_counts(self.now) {
            match recount {
                // An earlier one may have ended this session.
                Recount::Ask if self.clients.get(client).is_some() => self.ask_shared(client.index, false),
                Recount::Ask => {}
                Recount::Close => self.close_client(client.index),
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
        let Some(client) = self.clients.get_mut(reference) else { return };
        client.replica_wait = None;
        client.on_shared = false;
        client.active = now;
        self.counts.sent += answer.len() as u64;
        let Some(client) = self.clients.get_mut(reference) else { return };
        if client.pass(answer, None).is_err() {
            return self.close_client(reference.index);
        }
        self.after_replies(reference);
        self.clients.queue(reference);
    }
}
