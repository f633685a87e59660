//! Which differences go back: those whose last write is one of the writes that the person named.

use std::collections::HashMap;

/// A part of a key that has a last write of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// A field or member.
    Element(Vec<u8>),
    /// The time of expiry.
    Ttl,
}

/// What is known of a part's last write since the restore point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LastWrite {
    /// It is one of those named.
    Named,
    /// It is not, or perhaps not, for this reason.
    Other(String),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) enum Judged {
    /// Nobody was named: what is lacking goes back, and nothing else.
    #[default]
    NotAsked,
    /// What the journal says.
    Asked(HashMap<(u32, Vec<u8>, Part), LastWrite>),
}

impl Judged {
    /// Why a difference stays; `None` = it goes back. `lacking`: the target has nothing in its place.
    pub(crate) fn stays(&self, db: u32, key: &[u8], part: Part, lacking: bool) -> Option<String> {
        match self {
            Self::NotAsked if lacking => None,
            Self::NotAsked => {
                Some("differs, and may have been written since; --broken-by says whose writes to take back".to_owned())
            }
            Self::Asked(known) => match known.get(&(db, key.to_vec(), part)) {
                Some(LastWrite::Named) => None,
                Some(LastWrite::Other(why)) => Some(why.clone()),
                None => Some("was written while the restore ran".to_owned()),
            },
        }
    }
}
