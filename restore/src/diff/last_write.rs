//! Which write made a difference.

use std::sync::Arc;

use redtape_journal::Lsn;

use crate::get::LastTouch;
use crate::judge::Why;

/// The last write of a part of a key between the two points in time, from the journal.
#[derive(Debug, Clone, Default)]
pub enum LastWrite {
    /// Not looked up.
    #[default]
    NotAsked,
    /// Not written: it expired.
    Nothing,
    /// This one.
    Certain(Arc<LastTouch>),
    /// Possibly this one.
    Uncertain {
        /// The write; `None` = unreadable.
        write: Option<Arc<LastTouch>>,
        /// Its LSN.
        lsn: Lsn,
        /// The doubt.
        why: Why,
    },
}

/// By the LSN of the write.
impl PartialEq for LastWrite {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NotAsked, Self::NotAsked) | (Self::Nothing, Self::Nothing) => true,
            (Self::Certain(one), Self::Certain(other)) => one.record.lsn == other.record.lsn,
            (Self::Uncertain { lsn: one, why, .. }, Self::Uncertain { lsn: other, why: because, .. }) => {
                one == other && why == because
            }
            _ => false,
        }
    }
}

impl LastWrite {
    /// The write, as far as known.
    pub fn write(&self) -> Option<&LastTouch> {
        match self {
            Self::Certain(write) | Self::Uncertain { write: Some(write), .. } => Some(write),
            Self::NotAsked | Self::Nothing | Self::Uncertain { write: None, .. } => None,
        }
    }
}
