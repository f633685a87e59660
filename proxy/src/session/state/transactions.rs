//! The transactions of one session, as its requests make them: the one that is being queued, and those that were sent off
//! with EXEC and not yet answered. Pure, and bounded.
//!
//! Whether the server agreed to any of it is known by the replies: see [`ReplyTracker`](super::ReplyTracker).

use std::collections::VecDeque;

use redtape_capture::tee::Part;
use smallvec::SmallVec;

use crate::session::context::unsettles;
use crate::session::replies::{Intent, PinReasons};

/// Commands of one transaction whose keys are remembered for its stamp.
const PARTS_MAX: usize = 256;
/// Commands of one transaction that change its session.
pub(super) const AT_EXEC_MAX: usize = 4096;

/// What stands between MULTI and EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    parts: SmallVec<[Part; 1]>,
    /// Database selected inside.
    db: Option<u32>,
    /// What takes effect at EXEC.
    pub(super) at_exec: Vec<Intent>,
    /// Bytes of both.
    buffered: usize,
}

impl Transaction {
    fn binds(&self) -> bool {
        self.at_exec.iter().any(|i| matches!(i, Intent::Pin(_)))
    }

    /// It pauses clients, for so many milliseconds; 0 = it ends a pause.
    pub(super) fn pauses(&self) -> Option<u64> {
        self.at_exec.iter().rev().find_map(|i| if let Intent::Pause(millis) = i { Some(*millis) } else { None })
    }

    /// How much will be answered cannot be known.
    fn unsettles_replies(&self) -> bool {
        self.at_exec.iter().any(|i| matches!(i, Intent::Subscribe(_) | Intent::UnsubscribeAll(..) | Intent::Raw))
    }

    fn queue(&mut self, intent: &Intent) {
        if let Intent::Select(db) = intent {
            self.db = Some(*db);
        }
        match intent {
            // The server refuses these there.
            Intent::Plain | Intent::Multi | Intent::Pin(PinReasons::WATCH) => {}
            _ if self.at_exec.len() < AT_EXEC_MAX => {
                self.buffered += size_of::<Intent>() + intent.buffered();
                self.at_exec.push(intent.clone());
            }
            // It is not followed further than that.
            _ if self.at_exec.last() != Some(&Intent::Raw) => self.at_exec.push(Intent::Raw),
            _ => {}
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    queueing: Option<Transaction>,
    sent: VecDeque<Transaction>,
    /// Of those that were sent: how many bind the session, and their bytes.
    binding: usize,
    sent_buffered: usize,
}

impl Transactions {
    /// Requests are only queued.
    pub(super) fn queues(&self) -> bool {
        self.queueing.is_some()
    }

    /// The one that is being queued.
    pub(super) fn queueing(&self) -> Option<&Transaction> {
        self.queueing.as_ref()
    }

    /// Something in it may write.
    pub(super) fn queues_writes(&self) -> bool {
        self.queueing.as_ref().is_some_and(|t| !t.parts.is_empty())
    }

    /// Whether there is one: from MULTI, or from a refusal, until it ends or is refused.
    pub(super) fn set_queues(&mut self, queues: bool) {
        if queues {
            self.queueing.get_or_insert_default();
        } else {
            self.queueing = None;
        }
    }

    /// Queues what a request will do at EXEC.
    pub(super) fn queue(&mut self, intent: &Intent) {
        if let Some(t) = &mut self.queueing {
            t.queue(intent);
        }
    }

    /// The database selected in the one that is being queued.
    pub(super) fn db(&self) -> Option<u32> {
        self.queueing.as_ref().and_then(|t| t.db)
    }

    /// Remembers a command that may write, if one is being queued.
    pub(super) fn queue_part(&mut self, part: Part) {
        if let Some(t) = self.queueing.as_mut().filter(|t| t.parts.len() < PARTS_MAX) {
            t.buffered += part.buffered();
            t.parts.push(part);
        }
    }

    /// The one that is being queued may change the user or the database.
    pub(super) fn unsettles(&self) -> bool {
        self.queueing.as_ref().is_some_and(|t| t.at_exec.iter().any(unsettles))
    }

    /// The one that is being queued may change the user.
    pub(super) fn changes_user(&self) -> bool {
        let changes = |i: &Intent| !matches!(i, Intent::Select(_)) && unsettles(i);
        self.queueing.as_ref().is_some_and(|t| t.at_exec.iter().any(changes))
    }

    /// The commands that may write, of the one that is being queued.
    pub(super) fn parts(&self) -> Option<&SmallVec<[Part; 1]>> {
        self.queueing.as_ref().map(|t| &t.parts)
    }

    /// The commands that may write, for the stamp of EXEC.
    pub(super) fn take_parts(&mut self) -> SmallVec<[Part; 1]> {
        self.queueing.as_mut().map(|t| std::mem::take(&mut t.parts)).unwrap_or_default()
    }

    /// EXEC ends it; whose answer will be known goes to [`Self::sent`].
    pub(super) fn take(&mut self) -> Transaction {
        self.queueing.take().unwrap_or_default()
    }

    /// EXEC was sent.
    pub(super) fn sent(&mut self, transaction: Transaction) {
        self.binding += usize::from(transaction.binds());
        self.sent_buffered += transaction.buffered;
        self.sent.push_back(transaction);
    }

    /// The oldest that was sent is answered.
    pub(super) fn answered(&mut self) -> Option<Transaction> {
        let transaction = self.sent.pop_front()?;
        self.binding -= usize::from(transaction.binds());
        self.sent_buffered -= transaction.buffered;
        Some(transaction)
    }

    /// Nobody will say what becomes of those that were sent.
    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
        (self.binding, self.sent_buffered) = (0, 0);
    }

    /// Bytes that all of them take.
    pub(super) fn buffered(&self) -> usize {
        let queueing = self.queueing.as_ref().map_or(0, |t| t.buffered);
        queueing + self.sent_buffered + self.sent.len() * size_of::<Transaction>()
    }

    /// Those that were sent and not answered, oldest first.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &Transaction> {
        self.sent.iter()
    }

    /// Some of those will bind the session.
    pub(super) fn binds(&self) -> bool {
        self.binding > 0
    }

    /// The last one that was sent has confirmations in its answer, more of them than it says, or no end.
    pub(super) fn unsettles_replies(&self) -> bool {
        self.sent.back().is_some_and(Transaction::unsettles_replies)
    }
}
