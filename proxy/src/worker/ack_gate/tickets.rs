//! Decides which replies are released. Pure.
//!
//! Replies read together share a ticket. For each ticket, the server's offset is requested once after they were read,
//! so the answer lies at or behind their effects. They are released when the journal's position covers it.
//!
//! Invariant: tickets are requested, answered and covered in order.

use std::collections::VecDeque;

use redtape_capture::DurablePosition;
use redtape_journal::ReplOffset;

/// The server's answer for one ticket.
#[derive(Debug)]
struct Answered {
    ticket: u64,
    replid: String,
    offset: ReplOffset,
}

/// The open tickets.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    /// Ticket of replies read now.
    current: u64,
    /// Replies wait for `current`.
    used: bool,
    /// `None`: a request without a ticket, sent to keep the probe alive.
    asked: VecDeque<Option<u64>>,
    answered: VecDeque<Answered>,
}

impl Tickets {
    /// Ticket for a reply just read.
    pub(super) fn take(&mut self) -> u64 {
        self.used = true;
        self.current
    }

    /// True if the offset must be requested now.
    pub(super) fn ask(&mut self) -> bool {
        if !std::mem::take(&mut self.used) {
            return false;
        }
        self.asked.push_back(Some(self.current));
        self.current += 1;
        true
    }

    /// A keep-alive request is sent.
    pub(super) fn ask_for_nobody(&mut self) {
        self.asked.push_back(None);
    }

    /// True if a request has no answer yet.
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The answer to the oldest request; false = there was none.
    pub(super) fn answered(&mut self, replid: String, offset: ReplOffset) -> bool {
        let Some(ticket) = self.asked.pop_front() else { return false };
        if let Some(ticket) = ticket {
            self.answered.push_back(Answered { ticket, replid, offset });
        }
        true
    }

    /// The newest ticket that the position covers; it covers all earlier ones.
    pub(super) fn covered(&mut self, position: &DurablePosition) -> Option<u64> {
        let mut newest = None;
        while let Some(answered) = self.answered.pop_front_if(|a| position.covers(&a.replid, a.offset)) {
            newest = Some(answered.ticket);
        }
        newest
    }

    /// True if a ticket is not covered yet.
    pub(super) fn wait(&self) -> bool {
        self.used || !self.asked.is_empty() || !self.answered.is_empty()
    }

    /// The server's offset can no longer be learned: waiting tickets are never covered.
    pub(super) fn forget(&mut self) {
        self.current += 1;
        self.used = false;
        self.asked.clear();
        self.answered.clear();
    }

    /// Drops this ticket and all earlier ones after their time limit.
    pub(super) fn forget_until(&mut self, ticket: u64) {
        self.answered.retain(|a| a.ticket > ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(replid: &str, offset: u64) -> DurablePosition {
        DurablePosition { replid: replid.into(), offset: ReplOffset(offset) }
    }

    #[test]
    fn replies_go_when_what_the_server_said_after_them_is_durable() {
        let mut tickets = Tickets::default();
        assert!(!tickets.ask() && !tickets.wait());
        let first = tickets.take();
        assert_eq!(tickets.take(), first, "read together, asked for together");
        assert!(tickets.ask() && !tickets.ask() && tickets.wait());
        let second = tickets.take();
        assert!(second > first);
        assert_eq!(tickets.covered(&position("one", 1000)), None, "the server has said nothing yet");
        assert!(tickets.answered("one".to_owned(), ReplOffset(100)));
        assert!(!tickets.answered("one".to_owned(), ReplOffset(100)), "the second was not asked for yet");
        assert!(tickets.ask());
        assert!(tickets.answered("one".to_owned(), ReplOffset(200)));
        assert_eq!(tickets.covered(&position("one", 99)), None);
        assert_eq!(tickets.covered(&position("two", 1000)), None, "another history");
        assert_eq!(tickets.covered(&position("one", 150)), Some(first));
        assert_eq!(tickets.covered(&position("one", 150)), None);
        assert_eq!(tickets.covered(&position("one", 200)), Some(second));
        assert!(!tickets.wait());
    }

    #[test]
    fn a_keep_alive_request_delays_no_reply() {
        let mut tickets = Tickets::default();
        tickets.ask_for_nobody();
        tickets.take();
        assert!(tickets.ask() && tickets.are_asked());
        assert!(tickets.answered("gone".to_owned(), ReplOffset(9)));
        assert!(tickets.answered("one".to_owned(), ReplOffset(1)));
        assert!(!tickets.are_asked());
        assert_eq!(tickets.covered(&position("one", 1)), Some(0));
    }

    #[test]
    fn a_ticket_is_not_passed_by_a_later_one() {
        let mut tickets = Tickets::default();
        for (replid, offset) in [("old", 500), ("new", 10)] {
            tickets.take();
            assert!(tickets.ask() && tickets.answered(replid.to_owned(), ReplOffset(offset)));
        }
        // Writes before the change of history are not known to be durable.
        assert_eq!(tickets.covered(&position("new", 1000)), None);
        tickets.forget_until(0);
        assert_eq!(tickets.covered(&position("new", 1000)), Some(1));
    }

    #[test]
    fn without_the_server_nothing_that_waits_is_covered() {
        let mut tickets = Tickets::default();
        let lost = tickets.take();
        assert!(tickets.ask());
        tickets.take();
        tickets.forget();
        assert!(!tickets.wait() && !tickets.ask());
        assert!(!tickets.answered("one".to_owned(), ReplOffset(1)));
        assert!(tickets.take() > lost + 1, "what comes now waits for another ticket");
    }
}
