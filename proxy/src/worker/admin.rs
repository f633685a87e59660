//! `REDTAPE.*`: requests answered by the proxy, after the replies to the session's earlier requests.
//!
//! The server decides whether a session may use them. A session without any reply so far is checked first, by a `HELLO`
//! whose answer is not passed on. Slow work runs on a thread of its own and its answer returns through the inbox;
//! meanwhile the session's next request waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::outcome::{Admission, Forwarded};
use super::refs::ClientRef;
use super::{Message, Worker};
use crate::commands::Answer;

/// Limit of concurrent threads for such requests; further requests get an error that says to try again.
const THREADS_MAX: usize = 32;

impl Worker {
    /// Answers one request.
    pub(super) fn answer_admin(&mut self, index: usize, args: &[&[u8]]) -> Forwarded {
        let client = &mut self.clients[index];
        if client.in_flight() > 0 {
            client.waiting = true;
            return Forwarded::Waits;
        }
        if let Some(stopped) = self.admit_known(index).stopped() {
            return stopped;
        }
        let client = &mut self.clients[index];
        client.questioned = false;
        self.counts.commands += 1;
        let reference = ClientRef { index, generation: client.generation };
        let silent = client.state.silences_own();
        let (db, resp3, _) = client.state.context();
        let (run, cancel) = match self.shared.admin.answer(args, client.state.user(), db, resp3) {
            Answer::Reply(bytes) => {
                self.admin_answer(reference, if silent { b"" } else { &bytes });
                return Forwarded::Done;
            }
            Answer::Later(run) => (run, None),
            Answer::WhileWanted(run, cancel) => (run, Some(cancel)),
        };
        let Some(running) = Running::begin(&self.shared.admin_threads) else {
            let full = "-ERR redtape: too many commands of this kind are running; try again later\r\n";
            self.admin_answer(reference, if silent { b"" } else { full.as_bytes() });
            return Forwarded::Done;
        };
        let client = &mut self.clients[index];
        client.asking = true;
        client.cancel = cancel;
        let (inbox, waker) = (self.inbox.clone(), self.waker.clone());
        let work = move || {
            let answer = run();
            drop(running);
            let bytes = if silent { Vec::new() } else { answer };
            // The worker has ended, and the client with it.
            let _ = inbox.send(Message::Answered(reference, bytes));
            let _ = waker.wake();
        };
        if let Err(e) = std::thread::Builder::new().name("redtape-command".to_owned()).spawn(work) {
            let sorry = format!("-ERR redtape: no thread for it: {e}; nothing was done\r\n");
            self.admin_answer(reference, if silent { b"" } else { sorry.as_bytes() });
        }
        Forwarded::Done
    }

    /// Before redtape answers a client, the server must have accepted it.
    pub(super) fn admit_known(&mut self, index: usize) -> Admission {
        let client = &self.clients[index];
        if client.state.user().is_some() || client.questioned {
            return Admission::Forward;
        }
        if client.pinned.is_none()
            && let Err(unreachable) = self.open_pinned(index)
        {
            self.counts.commands += 1;
            self.refuse(index, &unreachable);
            return Admission::Done;
        }
        self.ask_pinned(index);
        let client = &mut self.clients[index];
        client.questioned = true;
        client.waiting = true;
        Admission::Wait
    }

    /// Sends the answer to its client and reads the next request.
    pub(super) fn admin_answer(&mut self, reference: ClientRef, bytes: &[u8]) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(reference) else { return };
        client.cancel = None;
        if std::mem::take(&mut client.asking) {
            self.clients.queue(reference);
        }
        let Some(client) = self.clients.get_mut(reference) else { return };
        if client.stage == super::client_table::Stage::Open {
            client.say(bytes);
            client.active = now;
            self.counts.sent += bytes.len() as u64;
            self.client_writable(reference);
        }
    }
}

/// Counts one such thread until it is dropped.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(places: &Arc<AtomicUsize>) -> Option<Self> {
        let room = |n: usize| (n < THREADS_MAX).then_some(n + 1);
        places.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok().map(|_| Self(places.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
