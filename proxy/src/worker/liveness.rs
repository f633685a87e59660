//! Whether the server lives, asked on a separate connection after a shared connection broke. Decides; the worker
//! ([`super::disconnect`]) opens the connection and informs the waiting clients.
//!
//! Invariant: one question at a time. Its answer is passed on at the end of the turn, also to clients that ask until
//! then.

use super::refs::{ClientRef, ConnRef};

/// State of the question.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    probe: Option<ConnRef>,
    waiters: Vec<ClientRef>,
    /// The answer of this turn.
    verdict: Option<bool>,
}

impl Liveness {
    /// A client asks. True = open a probe, then call [`Self::asking`], or [`Self::answered`] if that fails.
    #[must_use]
    pub(super) fn ask(&mut self, waiter: Option<ClientRef>) -> bool {
        self.waiters.extend(waiter);
        self.probe.is_none() && self.verdict.is_none()
    }

    /// A probe is being opened.
    pub(super) fn asking(&mut self, probe: ConnRef) {
        self.probe = Some(probe);
    }

    /// The probe, until it is answered.
    pub(super) fn probe(&self) -> Option<ConnRef> {
        self.probe
    }

    /// The answer is known. Returns the probe, to be closed.
    pub(super) fn answered(&mut self, alive: bool) -> Option<ConnRef> {
        self.verdict = Some(alive);
        self.probe.take()
    }

    /// True if an answer was not passed on yet.
    pub(super) fn has_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// At the end of a turn: the answer, and the waiting clients.
    pub(super) fn take_verdict(&mut self) -> Option<(bool, Vec<ClientRef>)> {
        let alive = self.verdict.take()?;
        Some((alive, std::mem::take(&mut self.waiters)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_answers_all_questions_of_a_turn() {
        let client = |index| ClientRef { index, generation: 1 };
        let probe = ConnRef { index: 4, generation: 9 };
        let mut liveness = Liveness::default();
        assert!(liveness.ask(Some(client(1))));
        liveness.asking(probe);
        assert!(!liveness.ask(Some(client(2))), "it is being asked");
        assert_eq!((liveness.probe(), liveness.take_verdict()), (Some(probe), None));
        assert_eq!(liveness.answered(true), Some(probe));
        assert!(liveness.has_verdict() && !liveness.ask(Some(client(3))), "the answer is there");
        assert_eq!(liveness.take_verdict(), Some((true, vec![client(1), client(2), client(3)])));
        assert_eq!((liveness.take_verdict(), liveness.probe()), (None, None));
        assert!(liveness.ask(None), "the next one is another question");
        assert_eq!(liveness.answered(false), None, "it could not be opened");
        assert_eq!(liveness.take_verdict(), Some((false, vec![])));
    }
}
