//! Writes that must not pass now: refused while the journal can't be written, and, with `--ack journal`, while nobody
//! could say whether they are durable.
//!
//! They are refused before the server hears of them, in the order of the session's other replies, with `-JOURNAL`.

use super::Worker;
use super::link::ClientRef;

impl Worker {
    /// `None` = the write passes; else whether it is done with or has to wait. `exec`: it is a transaction; `whole`: its
    /// end is there.
    pub(super) fn stop_write(&mut self, index: usize, exec: bool, whole: bool) -> Option<bool> {
        let Some(why) = self.shared.durable.refuses() else { return self.wait_for_barrier(index) };
        let client = &mut self.clients[index];
        if client.in_flight() > 0 {
            client.waiting = true;
            self.nudge_home(index);
            return Some(false);
        }
        if !exec && client.state.may_be_ours() {
            if let Some(done) = self.ask_who(index) {
                return Some(done);
            }
            // Whom the server does not know, it tells so itself.
            self.clients[index].state.user()?;
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
    pub(super) fn wait_for_barrier(&mut self, index: usize) -> Option<bool> {
        let reference = ClientRef { index, generation: self.clients[index].generation };
        match self.passes_barrier(reference) {
            Ok(true) => None,
            Ok(false) => {
                self.clients[index].waiting = true;
                Some(false)
            }
            Err(no_way) => {
                self.counts.commands += 1;
                self.refuse(index, &no_way);
                Some(true)
            }
        }
    }

    /// Discards a session's transaction at the server; false = nobody would say whether that was done.
    fn discard(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if client.home.is_none() || !client.state.is_answered_but_queued() {
            return false;
        }
        client.state.discard_ourselves();
        self.send_home(index, b"*1\r\n$7\r\nDISCARD\r\n");
        true
    }
}
