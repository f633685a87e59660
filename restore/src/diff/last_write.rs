//! Which write made a difference.

use std::sync::Arc;

use redtape_journal::Lsn;

use crate::get::LastTouch;
use crate::judge::Why;

/// What the journal says of the last write of a part of a key, between the two points in time.
#[derive(Debug, Clone, Default)]
pub enum LastWrite {
    /// It was not asked.
    #[default]
    NotAsked,
    /// Nothing has written it: its time had come.
    Nothing,
    /// This one.
    Certain(Arc<LastTouch>),
    /// Perhaps this one.
    Uncertain {
        /// It; `None` = it cannot be read.
        write: Option<Arc<LastTouch>>,
        /// Its number.
        lsn: Lsn,
        /// What is in doubt.
        why: Why,
    },
}

/// By the number of the write.
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
    /// The write, as far as it is known.
    pub fn write(&self) -> Option<&LastTouch> {
        match self {
            Self::Certain(write) | Self::Uncertain { write: Some(write), .. } => Some(write),
            Self::NotAsked | Self::Nothing | Self::Uncertain { write: None, .. } => None,
        }
    }
}
