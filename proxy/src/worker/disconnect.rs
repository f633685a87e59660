//! Handles the end of a client, a pinned connection, a shared connection, or the server.
//!
//! | what ends | in flight | effect for the client |
//! | --- | --- | --- |
//! | client | anything | its pinned connection is closed; replies that still arrive on a shared connection are discarded |
//! | shared connection | on it | for each an error: it may or may not have run; the session goes on |
//! | both connections, the server lives (its user was deleted) | on the shared connection | the connection ends, as without the proxy |
//! | shared connection, as it hung while the server answered others ([`super::stalls`]) | on it | the connection ends |
//! | shared connection, in the middle of a reply | on it | that client's connection ends, as nothing can follow half a reply |
//! | pinned connection, while requests are in flight on a shared connection | on the shared connection | those are answered, then the connection ends |
//! | pinned connection (`CLIENT KILL`, `QUIT`, a protocol error, the server's `timeout`, its death) | anything | the connection ends, as without the proxy |
//! | shared connection, the server is gone | on it | the connection ends, as without the proxy |
//! | pinned connection cannot be opened, the server was there before | what waited for it | the connection ends, as without the proxy |
//! | pinned connection cannot be opened, the server never was there | what waited for it | for each an error: not reachable; the session goes on |
//!
//! Nothing is ever sent to the server a second time.

use redtape_journal::Micros;
use std::time::Duration;

use super::Worker;
use super::client_table::{FINISH_MAX, LINGER, Stage};
use super::refs::{ClientRef, ConnRef};
use super::upstream_pool::{Role, Stage as ConnStage, Unanswered, UpstreamConn};
use crate::session::RequestScan;
use crate::upstream::Unreachable;

/// A live server answers a PING within this time, or is busy.
pub(super) const ALIVE_TIMEOUT: Duration = Duration::from_millis(500);
/// Reads per turn of input from a client that is no longer served.
const LINGER_READS_MAX: usize = 16;
const LOST: &str = "-ERR redtape: the connection to the upstream was lost; this command may or may not have run\r\n";

impl Worker {
    /// Closes a session at once.
    pub(super) fn close_client(&mut self, index: usize) {
        let Some(mut client) = self.clients.remove(index) else { return };
        client.state.close(&mut self.tee, Micros::now());
        client.socket.deregister(self.poll.registry());
        if let Some(pinned) = client.pinned {
            // The server runs what the client sent before it left.
            let conn = &mut self.pool[pinned];
            if !conn.out.is_empty() && !matches!(conn.stage, ConnStage::Connecting { .. }) {
                self.tee.flush();
                let conn = &mut self.pool[pinned];
                // What does not fit now is lost, as without the proxy.
                let _ = conn.out.send(&mut conn.socket, false);
            }
            self.drop_conn(pinned);
        }
        self.shared.status.numbers.clients.sessions.dec();
        self.shared.clients.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        self.load.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Closes a session once its buffered replies are sent.
    pub(super) fn finish(&mut self, index: usize) {
        let Some(client) = self.clients.at_mut(index) else { return };
        if client.is_finished() {
            return;
        }
        client.stage = Stage::Finishing { until: self.now + FINISH_MAX };
        client.input = Vec::new();
        client.replica_wait = None;
        if let Some(pinned) = client.pinned.take() {
            self.drop_conn(pinned);
        }
        let client = &self.clients[index];
        let reference = ClientRef { index, generation: client.generation };
        self.client_writable(reference);
    }

    /// Everything was sent. Closing with unread input would make the kernel discard what the client has not read yet.
    pub(super) fn linger(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.socket.shutdown();
        client.stage = Stage::Lingering { until: self.now + LINGER };
        client.readable = true;
        self.read_on_for_nothing(index);
    }

    pub(super) fn read_on_for_nothing(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let mut room = [0; 4096];
        for _ in 0..LINGER_READS_MAX {
            match client.socket.read(&mut room) {
                Ok(n) if n > 0 => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    client.readable = false;
                    return;
                }
                _ => return self.close_client(index),
            }
        }
        let reference = ClientRef { index, generation: client.generation };
        self.clients.queue(reference);
    }

    /// Removes a connection without further effects, and returns it.
    pub(super) fn drop_conn(&mut self, index: usize) -> Option<UpstreamConn> {
        let mut conn = self.pool.remove(index)?;
        self.let_go(&mut conn);
        Some(conn)
    }

    /// The same, for a connection that may be gone already.
    pub(super) fn close_conn(&mut self, conn: Option<ConnRef>) {
        if let Some(conn) = conn
            && self.pool.get(conn).is_some()
        {
            self.drop_conn(conn.index);
        }
    }

    /// A connection was removed from the pool.
    pub(super) fn let_go(&mut self, conn: &mut UpstreamConn) {
        conn.socket.deregister(self.poll.registry());
        if matches!(conn.role, Role::Shared(_)) {
            self.shared.status.numbers.clients.shared_conns.dec();
        }
    }

    /// The server has closed a connection.
    pub(super) fn conn_lost(&mut self, index: usize) {
        match &self.pool[index].role {
            Role::Pinned(owner) => {
                let owner = *owner;
                self.drop_conn(index);
                self.pinned_lost(owner);
            }
            Role::Shared(_) => self.shared_lost(index),
            Role::Probe => self.probe_answered(false),
            Role::OffsetProbe => self.offset_probe_lost("the connection has ended"),
            Role::Witness => self.witness_answered(false),
        }
    }

    fn pinned_lost(&mut self, owner: ClientRef) {
        let until = self.now + FINISH_MAX;
        let Some(client) = self.clients.get_mut(owner) else { return };
        client.pinned = None;
        if client.on_shared && client.in_flight() > 0 && client.replica_wait.is_none() {
            // The shared connection may still answer.
            client.stage = Stage::Ending { until };
            return;
        }
        // As without the proxy, whatever the reason: CLIENT KILL, QUIT, a protocol error, the end of the server.
        self.finish(owner.index);
    }

    /// Asks the server on a separate connection whether it lives. The answer comes after everything the server did
    /// before: connections that it closed together are seen to be closed by then.
    fn ask_whether_it_lives(&mut self, waiter: ClientRef) {
        let is_there = self.clients.get_mut(waiter).map(|client| client.probing = true).is_some();
        if is_there {
            // The state of the pinned connection is part of the answer.
            self.nudge_pinned(waiter.index);
        }
        if self.liveness.ask(is_there.then_some(waiter)) {
            match self.dial(Role::Probe, self.now + ALIVE_TIMEOUT) {
                Ok(conn) => self.liveness.asking(conn),
                Err(_) => self.probe_answered(false),
            }
        }
    }

    /// The probe has its answer. It is acted upon at the end of the turn, after everything the server sent before has
    /// been read.
    pub(super) fn probe_answered(&mut self, alive: bool) {
        let probe = self.liveness.answered(alive);
        self.close_conn(probe);
    }

    /// Passes the answer to the clients that wait for it.
    pub(super) fn pass_verdict(&mut self) {
        let Some((alive, waiters)) = self.liveness.take_verdict() else { return };
        for waiter in waiters {
            let Some(client) = self.clients.get_mut(waiter) else {
                continue;
            };
            client.probing = false;
            if client.pinned.is_none() || !alive {
                // As without the proxy: a client that loses its connection knows that requests in flight may have run.
                self.finish(waiter.index);
                continue;
            }
            let counting = usize::from(client.replica_wait.take().is_some());
            client.say(LOST.repeat(client.state.asked() + counting).as_bytes());
            self.shared.metrics.error("upstream_lost");
            let now = Micros::now();
            client.state.lose_all(&mut self.tee, now);
            client.readable = true;
            self.client_writable(waiter);
            self.after_replies(waiter);
            self.clients.queue(waiter);
        }
    }

    /// A shared connection is gone: clients that wait on it get an error and continue.
    pub(super) fn shared_lost(&mut self, index: usize) {
        let Some(mut conn) = self.drop_conn(index) else { return };
        for (waiter, unanswered) in conn.take_unanswered() {
            if self.clients.get_mut(waiter).is_none_or(|c| c.probing) {
                continue;
            }
            match unanswered {
                Unanswered::MidReply => self.finish(waiter.index),
                Unanswered::Whole => self.ask_whether_it_lives(waiter),
            }
        }
    }

    /// No address of the server could be reached.
    pub(super) fn connect_failed(&mut self, index: usize, why: &str) {
        let owner = match &self.pool[index].role {
            Role::Pinned(owner) => *owner,
            Role::Shared(_) => return drop(self.drop_conn(index)),
            Role::Probe => return self.probe_answered(false),
            Role::Witness => return self.witness_answered(false),
            Role::OffsetProbe => {
                let _ = self.shared.upstream.failed(why);
                return self.offset_probe_lost(why);
            }
        };
        let unreachable = self.shared.upstream.failed(why);
        self.drop_conn(index);
        let Some(client) = self.clients.get_mut(owner) else {
            return;
        };
        client.pinned = None;
        let waiting = client.state.asked();
        let mut cut = client.scan.is_inside() || client.state.replies.is_desynced();
        match unreachable {
            Unreachable::Say(sentence) => {
                client.say(format!("-ERR {sentence}\r\n").repeat(waiting.max(usize::from(cut))).as_bytes());
            }
            Unreachable::End => cut = true,
        }
        // Nothing of it has reached the server: the session starts over.
        client.state.start_over(&mut self.tee, Micros::now());
        client.scan = RequestScan::default();
        client.shared_conns = [None; 2];
        client.waiting = false;
        client.questioned = false;
        if cut {
            return self.finish(owner.index);
        }
        if let Some(client) = self.clients.get_mut(owner) {
            client.readable = true;
        }
        self.client_writable(owner);
        self.clients.queue(owner);
    }
}
