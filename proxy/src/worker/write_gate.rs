//! Writes that must not pass now: refused while the journal can't be written, and, with `--ack journal`, while nobody
//! could say whether they are durable.
//!
//! They are refused before the server hears of them, in the order of the session's other replies, with `-JOURNAL`.

use super::Worker;
use super::upstream_conn::ClientRef;

impl Worker {
    /// `None` = the write passes; else whether it is done with or has to wait. `exec`: it is a transaction; `whole`: its
    /// end is there.
    pub(super) fn stop_write(&mut self, index: usize, exec: bool, whole: bool) -> Option<bool> {
        let Some(why) = self.shared.durability.refuses() else { return self.wait_for_barrier(index, whole) };
        if let Some(done) = self.wait_for_turn(index) {
            return Some(done);
        }
        let client = &self.clients[index];
        if !client.state.replies_can_be_told() {
            // Among replies that can't be told apart, a refusal would be taken for another's.
            self.counts.commands += 1;
            self.shared.metrics.error("journal_reject");
            self.finish(index);
            return Some(true);
        }
        if !exec && client.state.may_be_ours() {
            if let Some(done) = self.ask_who(index) {
                return Some(done);
            }
            if self.clients[index].state.user().is_none() {
                // Whom the server does not know, it tells so itself.
                return self.wait_for_barrier(index, whole);
            }
        }
        self.counts.commands += 1;
        self.shared.metrics.error("journal_reject");
        let client = &mut self.clients[index];
        client.questioned = false;
        let silent = client.state.silences_own();
        let mut answer = format!("-JOURNAL {why}\r\n");
        let mut ends = !whole;
        if exec {
            answer = format!("-JOURNAL {why}; the transaction was discarded\r\n");
            ends |= !self.discard(index);
        }
        let client = &mut self.clients[index];
        if !silent {
            client.say(answer.as_bytes());
            self.counts.sent += answer.len() as u64;
        }
        let reference = ClientRef { index, generation: client.generation };
        if ends {
            // What follows can't be told from requests, or would run outside of its transaction.
            self.finish(index);
        } else {
            self.client_writable(reference);
        }
        Some(true)
    }

    /// With `--ack journal`: `None` = what is forwarded now can be acknowledged; else whether it is done with or has to
    /// wait.
    pub(super) fn wait_for_barrier(&mut self, index: usize, whole: bool) -> Option<bool> {
        let reference = ClientRef { index, generation: self.clients[index].generation };
        match self.passes_barrier(reference) {
            Ok(true) => None,
            Ok(false) => {
                self.clients[index].waiting = true;
                Some(false)
            }
            Err(no_way) => {
                if let Some(done) = self.wait_for_turn(index) {
                    return Some(done);
                }
                self.counts.commands += 1;
                self.refuse(index, &no_way);
                if !whole {
                    // The rest of it can't be told from requests.
                    self.finish(index);
                }
                Some(true)
            }
        }
    }

    /// An answer of ours stands behind those that are under way, and not inside a push: `Some` = it has to wait.
    fn wait_for_turn(&mut self, index: usize) -> Option<bool> {
        let client = &mut self.clients[index];
        let inside = client.pinned.and_then(|pinned| self.conns.get(pinned)).is_some_and(|h| !h.scanner.at_boundary());
        if client.in_flight() == 0 && (!inside || client.state.replies.is_lost()) {
            return None;
        }
        client.waiting = true;
        self.nudge_pinned(index);
        Some(false)
    }

    /// Discards a session's transaction at the server; false = nobody would say whether that was done.
    fn discard(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if client.pinned.is_none() || !client.state.replies_can_be_told() || client.state.silences_own() {
            return false;
        }
        client.state.discard_ourselves();
        self.send_pinned(index, b"*1\r\n$7\r\nDISCARD\r\n");
        true
    }
}
