//! The transactions of one session, by its requests: the open one, and those sent with EXEC and not answered yet. Pure,
//! and bounded.
//!
//! Replies show whether the server accepted them: see [`ReplyTracker`](super::ReplyTracker).

use std::collections::VecDeque;

use redtape_capture::tee::Part;
use smallvec::SmallVec;

use crate::session::context::unsettles;
use crate::session::replies::{Intent, PinReasons};

/// Commands of one transaction whose keys go into its stamp.
const PARTS_MAX: usize = 256;
/// Commands of one transaction that change its session.
pub(super) const AT_EXEC_MAX: usize = 4096;

/// The commands between MULTI and EXEC.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    parts: SmallVec<[Part; 1]>,
    /// Database selected inside.
    db: Option<u32>,
    /// Changes that take effect at EXEC.
    pub(super) at_exec: Vec<Intent>,
    /// Size of both, in bytes.
    buffered: usize,
}

impl Transaction {
    fn binds(&self) -> bool {
        self.at_exec.iter().any(|i| matches!(i, Intent::Pin(_)))
    }

    /// It pauses clients for this many milliseconds; 0 = it ends a pause.
    pub(super) fn pauses(&self) -> Option<u64> {
        self.at_exec.iter().rev().find_map(|i| if let Intent::Pause(millis) = i { Some(*millis) } else { None })
    }

    /// The number of its replies cannot be known.
    fn unsettles_replies(&self) -> bool {
        self.at_exec.iter().any(|i| matches!(i, Intent::Subscribe(_) | Intent::UnsubscribeAll(..) | Intent::Raw))
    }

    fn queue(&mut self, intent: &Intent) {
        if let Intent::Select(db) = intent {
            self.db = Some(*db);
        }
        match intent {
            // The server refuses these in a transaction.
            Intent::Plain | Intent::Multi | Intent::Pin(PinReasons::WATCH) => {}
            _ if self.at_exec.len() < AT_EXEC_MAX => {
                self.buffered += size_of::<Intent>() + intent.buffered();
                self.at_exec.push(intent.clone());
            }
            // Beyond the limit it is not tracked.
            _ if self.at_exec.last() != Some(&Intent::Raw) => self.at_exec.push(Intent::Raw),
            _ => {}
        }
    }
}

/// The transactions of one session.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    queueing: Option<Transaction>,
    sent: VecDeque<Transaction>,
    /// Of the sent ones: how many pin the session, and their size in bytes.
    binding: usize,
    sent_buffered: usize,
}

impl Transactions {
    /// True if requests are only queued.
    pub(super) fn queues(&self) -> bool {
        self.queueing.is_some()
    }

    /// The open transaction.
    pub(super) fn queueing(&self) -> Option<&Transaction> {
        self.queueing.as_ref()
    }

    /// True if one of its commands may write.
    pub(super) fn queues_writes(&self) -> bool {
        self.queueing.as_ref().is_some_and(|t| !t.parts.is_empty())
    }

    /// True if there is one: from MULTI, or from a refusal, until it ends or is refused.
    pub(super) fn set_queues(&mut self, queues: bool) {
        if queues {
            self.queueing.get_or_insert_default();
        } else {
            self.queueing = None;
        }
    }

    /// Queues the effect of a request at EXEC.
    pub(super) fn queue(&mut self, intent: &Intent) {
        if let Some(t) = &mut self.queueing {
            t.queue(intent);
        }
    }

    /// The database selected in the open transaction.
    pub(super) fn db(&self) -> Option<u32> {
        self.queueing.as_ref().and_then(|t| t.db)
    }

    /// Records a command that may write, if a transaction is open.
    pub(super) fn queue_part(&mut self, part: Part) {
        if let Some(t) = self.queueing.as_mut().filter(|t| t.parts.len() < PARTS_MAX) {
            t.buffered += part.buffered();
            t.parts.push(part);
        }
    }

    /// True if the open transaction may change the user or the database.
    pub(super) fn unsettles(&self) -> bool {
        self.queueing.as_ref().is_some_and(|t| t.at_exec.iter().any(unsettles))
    }

    /// True if the open transaction may change the user.
    pub(super) fn changes_user(&self) -> bool {
        let changes = |i: &Intent| !matches!(i, Intent::Select(_)) && unsettles(i);
        self.queueing.as_ref().is_some_and(|t| t.at_exec.iter().any(changes))
    }

    /// The commands of the open transaction that may write.
    pub(super) fn parts(&self) -> Option<&SmallVec<[Part; 1]>> {
        self.queueing.as_ref().map(|t| &t.parts)
    }

    /// The commands that may write, for the stamp of EXEC.
    pub(super) fn take_parts(&mut self) -> SmallVec<[Part; 1]> {
        self.queueing.as_mut().map(|t| std::mem::take(&mut t.parts)).unwrap_or_default()
    }

    /// EXEC ends the open transaction; if its answer can be matched, it goes to [`Self::sent`].
    pub(super) fn take(&mut self) -> Transaction {
        self.queueing.take().unwrap_or_default()
    }

    /// EXEC was sent.
    pub(super) fn sent(&mut self, transaction: Transaction) {
        self.binding += usize::from(transaction.binds());
        self.sent_buffered += transaction.buffered;
        self.sent.push_back(transaction);
    }

    /// The oldest sent transaction is answered.
    pub(super) fn answered(&mut self) -> Option<Transaction> {
        let transaction = self.sent.pop_front()?;
        self.binding -= usize::from(transaction.binds());
        self.sent_buffered -= transaction.buffered;
        Some(transaction)
    }

    /// The results of the sent transactions will not be seen.
    pub(super) fn forget_sent(&mut self) {
        self.sent.clear();
        (self.binding, self.sent_buffered) = (0, 0);
    }

    /// Size of all of them, in bytes.
    pub(super) fn buffered(&self) -> usize {
        let queueing = self.queueing.as_ref().map_or(0, |t| t.buffered);
        queueing + self.sent_buffered + self.sent.len() * size_of::<Transaction>()
    }

    /// The sent and unanswered transactions, oldest first.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &Transaction> {
        self.sent.iter()
    }

    /// True if one of those will pin the session.
    pub(super) fn binds(&self) -> bool {
        self.binding > 0
    }

    /// True if the answer to the last sent one contains confirmations, more than its count, or has no end.
    pub(super) fn unsettles_replies(&self) -> bool {
        self.sent.back().is_some_and(Transaction::unsettles_replies)
    }
}
