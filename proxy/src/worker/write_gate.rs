//! Writes that must not pass now: they are refused while the journal cannot be written and, with `--ack journal`, while
//! it could not be learned whether they are durable.
//!
//! They are refused with `-JOURNAL` before the server gets them, in the order of the session's replies.

use super::Worker;
use super::outcome::Admission;
use super::refs::ClientRef;

impl Worker {
    /// True if a write passes. `exec`: it is a transaction; `whole`: it is complete.
    pub(super) fn admit_write(&mut self, index: usize, exec: bool, whole: bool) -> Admission {
        let Some(why) = self.shared.durability.refuses() else { return self.admit_to_probe(index, whole) };
        if !self.has_turn(index) {
            return Admission::Wait;
        }
        let client = &self.clients[index];
        if !client.state.replies_can_be_told() {
            // If replies cannot be told apart, a refusal would be taken for the reply to another request.
            self.counts.commands += 1;
            self.shared.metrics.error("journal_reject");
            self.finish(index);
            return Admission::Done;
        }
        if !exec && client.state.may_use_admin_commands() {
            let known = self.admit_known(index);
            if known != Admission::Forward {
                return known;
            }
            if self.clients[index].state.user().is_none() {
                // The server itself refuses clients that it does not accept.
                return self.admit_to_probe(index, whole);
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
            // What follows cannot be parsed as requests, or would run outside of its transaction.
            self.finish(index);
        } else {
            self.client_writable(reference);
        }
        Admission::Done
    }

    /// With `--ack journal`: true if what is forwarded now can be acknowledged.
    pub(super) fn admit_to_probe(&mut self, index: usize, whole: bool) -> Admission {
        let reference = ClientRef { index, generation: self.clients[index].generation };
        match self.passes_ack_gate(reference) {
            Ok(true) => Admission::Forward,
            Ok(false) => {
                self.clients[index].waiting = true;
                Admission::Wait
            }
            Err(unreachable) => {
                if !self.has_turn(index) {
                    return Admission::Wait;
                }
                self.counts.commands += 1;
                self.refuse(index, &unreachable);
                if !whole {
                    // The rest of it cannot be parsed as requests.
                    self.finish(index);
                }
                Admission::Done
            }
        }
    }

    /// redtape's own answer comes after the replies in flight, and not inside a push: false = it must wait.
    fn has_turn(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        let inside = self.pool.pinned(client.pinned).is_some_and(|h| !h.scanner.at_boundary());
        if client.in_flight() == 0 && (!inside || client.state.replies.is_desynced()) {
            return true;
        }
        client.waiting = true;
        self.nudge_pinned(index);
        false
    }

    /// Discards a session's transaction at the server; false = the result could not be learned.
    fn discard(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if client.pinned.is_none() || !client.state.replies_can_be_told() || client.state.silences_own() {
            return false;
        }
        client.state.discard_internally();
        self.send_pinned(index, b"*1\r\n$7\r\nDISCARD\r\n");
        true
    }
}
