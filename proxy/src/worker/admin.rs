//! `REDTAPE.*`: requests that the proxy answers itself, behind the replies to the session's earlier ones.
//!
//! Whether a session may ask at all is the server's to say: one that it has not answered yet is heard of there first,
//! by a `HELLO` whose answer the client does not see. What takes time runs on a thread of its own, and its answer
//! comes back through the inbox; meanwhile the session's next request waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::outcome::{Admission, Forwarded};
use super::refs::ClientRef;
use super::{Message, Worker};
use crate::commands::Answer;

/// Threads that work for such requests at once; who comes then is told to try again.
const THREADS_MAX: usize = 32;

impl Worker {
    /// Answers one.
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
            // The worker is gone: so is the client.
            let _ = inbox.send(Message::Answered(reference, bytes));
            let _ = waker.wake();
        };
        if let Err(e) = std::thread::Builder::new().name("redtape-command".to_owned()).spawn(work) {
            let sorry = format!("-ERR redtape: no thread for it: {e}; nothing was done\r\n");
            self.admin_answer(reference, if silent { b"" } else { sorry.as_bytes() });
        }
        Forwarded::Done
    }

    /// A client that is not known to the server gets no answer of redtape: first the server is asked.
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

    /// The answer to such a request goes to its client, and the next is read.
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

/// Holds the place of one such thread; gives it up when dropped.
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
