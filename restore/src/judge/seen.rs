//! A write, as a question sees it.

use std::sync::Arc;

use redtape_journal::query::Match;
use redtape_journal::{Lsn, Origin};

use super::{Verdict, Why};

/// A write that concerns a question.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) lsn: Lsn,
    pub(super) who: Arc<Origin>,
    /// Whether it is selected.
    pub(super) is: Match,
}

/// The verdict where this write has decided.
pub(super) fn by(seen: &Seen) -> Verdict {
    match seen.is {
        Match::Yes => Verdict::Selected { lsn: seen.lsn },
        Match::No => Verdict::Other { lsn: seen.lsn, who: Arc::clone(&seen.who) },
        Match::Perhaps => uncertain(seen, Why::UnknownCause),
    }
}

pub(super) fn uncertain(seen: &Seen, why: Why) -> Verdict {
    Verdict::Uncertain { lsn: seen.lsn, who: Arc::clone(&seen.who), why }
}
