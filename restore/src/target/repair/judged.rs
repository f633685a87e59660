//! Decides which differences go back: those whose last write is named by `--broken-by`.

use std::collections::HashMap;

use crate::judge::{Part, Question, Verdict};
use crate::values::digest::{DIGEST_BYTES, Digest};

/// Why a difference stays that is not the one whose last write was looked up.
pub(crate) const WRITTEN_MEANWHILE: &str = "was written while the restore ran: run it again";

/// A difference whose last write is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) question: Question,
    /// Digest of what the target held at that time.
    pub(crate) seen: Digest,
}

/// The last write of a part since the restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LastWrite {
    /// It is a named write.
    Named,
    /// It is not, or may not be, for this reason.
    Other(String),
}

/// Selects the differences that go back.
#[derive(Debug, Default)]
pub(crate) enum Judged {
    /// Without `--broken-by`: only what is missing goes back.
    #[default]
    NotAsked,
    /// The journal's answers.
    Asked(HashMap<(u32, Vec<u8>, Part), (LastWrite, Digest)>),
}

impl Judged {
    /// Combines the questions with their answers.
    pub(crate) fn new(asked: Vec<Asked>, verdicts: &[Verdict]) -> Self {
        let known = asked.into_iter().zip(verdicts).map(|(Asked { question, seen }, verdict)| {
            let Question { db, key, part, .. } = question;
            ((db, key, part), (LastWrite::of(verdict), seen))
        });
        Self::Asked(known.collect())
    }

    /// Why a difference stays; `None` = it goes back. `lacking`: the target has nothing in its place; `live`: what it
    /// has now.
    pub(crate) fn stays(&self, db: u32, key: &[u8], part: Part, lacking: bool, live: Digest) -> Option<String> {
        match self {
            Self::NotAsked if lacking => None,
            Self::NotAsked => {
                Some("differs, and may have been written since; --broken-by says whose writes to take back".to_owned())
            }
            Self::Asked(known) => match known.get(&(db, key.to_vec(), part)) {
                Some((LastWrite::Named, seen)) if *seen == live => None,
                // Its last write is not among the named ones.
                Some((LastWrite::Other(why), _)) => Some(why.clone()),
                _ => Some(WRITTEN_MEANWHILE.to_owned()),
            },
        }
    }

    /// How many differences go back, and how many stay; `None` = without `--broken-by`.
    pub(crate) fn counts(&self) -> Option<(u64, u64)> {
        let Self::Asked(known) = self else { return None };
        let named = known.values().filter(|(last, _)| *last == LastWrite::Named).count() as u64;
        Some((named, known.len() as u64 - named))
    }
}

impl LastWrite {
    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Selected { .. } => Self::Named,
            Verdict::Other { lsn, who } => Self::Other(format!("was last written by {who} (LSN {lsn})")),
            Verdict::Uncertain { lsn, who, why } => Self::Other(format!("undecided: {why} (LSN {lsn}, {who})")),
            Verdict::NotWritten => Self::Other("the journal has no write of it since".to_owned()),
        }
    }
}

/// Represents an expiry time as a digest.
pub(crate) fn seen_ttl(expires_ms: i64) -> Digest {
    let mut digest = [1; DIGEST_BYTES];
    digest[..8].copy_from_slice(&expires_ms.to_le_bytes());
    digest
}
