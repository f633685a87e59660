//! What replies change in the session and in its stamps.

use std::sync::Arc;

use redtape_capture::outcome_of;
use redtape_capture::tee::{Outcome, TeeSender};
use redtape_journal::Micros;
use redtape_wire::resp::Frame;

use super::SessionState;
use crate::session::context::database;
use crate::session::replies::{Answered, Credential, InTransaction, Intent, PinReasons};

/// Tracking ends if a change is refused with more requests than this in flight: all of them would have to be examined
/// each time.
pub(super) const CORRECTED_MAX: usize = 4096;

impl SessionState {
    /// Takes one frame of the reply stream; returns the request that it completes.
    pub(crate) fn reply(&mut self, frame: &Frame, tee: &mut TeeSender, now: Micros) -> Option<Intent> {
        if self.replies.is_unasked(frame) {
            // A request that should have been silent was answered: the state is unknown from here on.
            self.identity_unknown = true;
            self.close(tee, now);
        }
        let Answered { pending, error, in_transaction, kind, line } = self.replies.frame(frame)?;
        let by_itself = in_transaction == InTransaction::RanUnqueued;
        self.pin_reasons.unset(PinReasons::DOUBT);
        // For a command that ran outside its transaction nothing more is known: a script may have written before an
        // error.
        self.acknowledged |= pending.tells || by_itself;
        let line = line.as_bytes();
        if let Some((id, name)) = pending.stamp {
            let queued = matches!(pending.intent, Intent::Queued(_)) && !by_itself;
            let outcome = if queued { Outcome::NoEffect } else { outcome_of(name.name(), kind, line) };
            self.acknowledged |= outcome != Outcome::NoEffect;
            tee.replied(id, now, outcome);
        }
        if pending.intent == Intent::Plain {
            // Some errors are returned before authentication is checked.
            self.admitted |= !error;
            return Some(pending.intent);
        }
        let began_or_ended = match &pending.intent {
            Intent::Queued(inner) => **inner == Intent::Multi,
            Intent::Exec => self.replies.in_multi(),
            intent => matches!(intent, Intent::Multi | Intent::Discard | Intent::Reset),
        };
        if error && began_or_ended {
            self.correct_transaction();
            if !self.replies.in_multi() && self.replies.may_become_unknown() {
                self.close(tee, now);
            }
        }
        if error && matches!(pending.intent, Intent::Pause(_)) {
            return Some(Intent::Plain);
        }
        if pending.intent == Intent::Internal && line.starts_with(b"NOPERM") {
            // The server has accepted the session's identity.
            self.admitted = true;
        }
        if pending.intent == Intent::Internal && std::mem::take(&mut self.discarding) && error {
            // The transaction continues with unknown contents.
            self.close(tee, now);
        }
        let meant = if let Intent::Queued(inner) = &pending.intent { inner } else { &pending.intent };
        if let Intent::Hello(hello) = meant
            && error
            && hello.auth.is_some()
            && (hello.several_users || !says_who_is_wrong(line))
        {
            // Older servers may have accepted the user, or the first of several, and refused the rest.
            self.identity_unknown = true;
        }
        if by_itself && !error {
            self.agree(meant);
            self.pin_again(meant);
            if *meant == Intent::Raw {
                self.close(tee, now);
            }
        }
        let nothing = matches!(kind, b'_') || line == b"-1";
        self.apply(&pending.intent, error, in_transaction, !nothing);
        if pending.changes {
            self.confirm(tee);
        }
        let moves = pending.changes || matches!(pending.intent, Intent::Multi | Intent::Exec | Intent::Discard);
        if moves && (error || nothing) {
            if self.replies.in_flight() > CORRECTED_MAX {
                self.close(tee, now);
            } else {
                self.look_where_it_works();
            }
        }
        Some(self.paused.take().map_or(pending.intent, Intent::Pause))
    }

    /// Applies what the server accepted (`error`: refused; `value` false: EXEC found its keys changed).
    fn apply(&mut self, intent: &Intent, error: bool, in_transaction: InTransaction, value: bool) {
        match intent {
            Intent::Exec => {
                let executed = self.transactions.answered();
                // EXEC releases watched keys whether it ran or not, unless there was no transaction.
                if in_transaction == InTransaction::Unwatched {
                    self.pin_reasons.unset(PinReasons::WATCH);
                }
                self.pin_what_follows();
                if let Some(t) = executed
                    && !error
                    && value
                {
                    self.paused = t.pauses();
                    for intent in &t.at_exec {
                        if let Intent::Hello(hello) = intent
                            && let Some(resp3) = hello.resp3
                        {
                            self.replies.resp3 = resp3;
                        }
                        if !matches!(intent, Intent::Auth(_) | Intent::Hello(_)) {
                            self.agree(intent);
                            self.pin_again(intent);
                        }
                    }
                }
            }
            // Servers do not refuse it; if one does, later requests count.
            Intent::Quit if error => self.pin_reasons.unset(PinReasons::LEAVING),
            // If the server does not know the command either, nothing was changed.
            _ if error => {}
            Intent::Queued(_) => {}
            _ => self.agree(intent),
        }
    }

    fn agree(&mut self, intent: &Intent) {
        self.agreed.advance(intent);
        match intent {
            Intent::Auth(credential) => self.prove(credential),
            Intent::Hello(hello) => {
                if let Some(credential) = &hello.auth {
                    self.prove(credential);
                }
            }
            Intent::Pin(PinReasons::NO_EVICT) => self.not_evicted = true,
            Intent::Unpin(hold) => {
                self.not_evicted &= *hold != PinReasons::NO_EVICT;
                self.pin_reasons.unset(*hold);
                self.pin_what_follows();
            }
            Intent::Unknown => self.pin_reasons.set(PinReasons::FOREVER),
            Intent::Pin(PinReasons::DOUBT) => self.pin_reasons.set(PinReasons::DOUBT),
            Intent::Discard => {
                self.pin_reasons.unset(PinReasons::WATCH);
                self.pin_what_follows();
            }
            Intent::Reset => {
                // Only the server knows whether the default user needs a password.
                self.admitted = false;
                self.credential = None;
                self.not_evicted = false;
                self.identity_is_known_again();
                self.pin_reasons.keep(&[PinReasons::FOREVER, PinReasons::LEAVING]);
                self.pin_what_follows();
                return;
            }
            Intent::Quit | Intent::Raw => return,
            _ => {}
        }
        self.admitted = true;
    }

    /// Pin reasons requested after a releasing request stay.
    fn pin_what_follows(&mut self) {
        if !self.replies.binds() && !self.transactions.binds() {
            return;
        }
        let mut pin_reasons = PinReasons::default();
        let later = self.transactions.unanswered().flat_map(|t| &t.at_exec);
        for intent in self.replies.pending().map(|p| &p.intent).chain(later) {
            if let Intent::Pin(hold) = intent
                && *hold != PinReasons::DOUBT
            {
                pin_reasons.set(*hold);
            }
        }
        self.pin_reasons.set(pin_reasons);
    }

    fn pin_again(&mut self, intent: &Intent) {
        match intent {
            Intent::Pin(hold) => self.pin_reasons.set(*hold),
            Intent::Unknown => self.pin_reasons.set(PinReasons::FOREVER),
            _ => {}
        }
    }

    fn prove(&mut self, credential: &Credential) {
        self.credential = Some(Arc::new(credential.clone()));
        self.identity_is_known_again();
    }

    /// The server has confirmed the identity.
    fn identity_is_known_again(&mut self) {
        // A transaction may still change it.
        self.identity_unknown &= self.transactions.unanswered().next().is_some() || self.replies.is_desynced();
    }

    /// A request that begins or ends a transaction was refused: the requests after it belong to another transaction
    /// than assumed, or to none.
    fn correct_transaction(&mut self) {
        self.transactions.set_queues(self.replies.queues_at_the_end());
    }

    /// A change was accepted or refused: identity and database of the stamps after it are now known.
    fn confirm(&mut self, tee: &mut TeeSender) {
        let Some((from, to)) = self.unconfirmed.answered(self.requests) else { return };
        // If the ids start over, the remaining stamps get no identity.
        let count = if to >= from { to - from } else { u32::MAX - from };
        if count > 0 {
            let who = self.who();
            tee.correct(self.stamp_id(from + 1), count, who, self.agreed.db);
        }
    }

    /// A change was refused: recomputes the database after the remaining pending changes.
    fn look_where_it_works(&mut self) {
        self.asked_db = self.agreed.db;
        let mut executing = self.transactions.unanswered();
        for pending in self.replies.pending() {
            match &pending.intent {
                Intent::Exec => executing
                    .next()
                    .into_iter()
                    .flat_map(|t| &t.at_exec)
                    .for_each(|i| self.asked_db = database(self.asked_db, i)),
                intent => self.asked_db = database(self.asked_db, intent),
            }
        }
    }
}

/// The error concerns the login or the protocol: then nothing was changed.
fn says_who_is_wrong(line: &[u8]) -> bool {
    line.starts_with(b"WRONGPASS")
        || line.starts_with(b"NOPROTO")
        || line.starts_with(b"NOAUTH")
        || line.starts_with(b"ERR unknown command")
}
