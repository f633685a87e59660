//! The present end of a journal that is being written, and a mark there.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::error::{OpenError, ReadError, StoreError};
use crate::lock::is_held;
use crate::marks::add_mark;
use crate::types::{Lsn, Mark, Micros, TimelineId};

/// Between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why the present is not known, or a mark was not set.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The journal does not come up to the present.
    #[error(
        "no process is writing this journal at present: start redtape proxy or follow, or mark an earlier point in time"
    )]
    NotWritten,
    /// Nothing of it can be restored.
    #[error(
        "the journal has no base yet, and nothing before it can be restored: try again when redtape proxy or follow has taken it"
    )]
    NoBase,
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The mark cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The present end of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Which.
    pub ts: Micros,
    /// In which history.
    pub timeline: TimelineId,
    /// The last record up to it.
    pub lsn: Lsn,
}

/// Waits until the journal is complete up to now, at most so long.
pub fn wait_complete(dir: &Path, keyring: &Keyring, limit: Duration) -> Result<Present, MarkError> {
    let mut ts = Micros::now();
    // Without a writer there is nothing to wait for.
    let written = is_held(&Directory::new(dir).lock());
    let deadline = Instant::now() + if written { limit } else { Duration::ZERO };
    loop {
        let catalog = Catalog::open_with(dir, keyring)?;
        let window = catalog.windows().pop();
        let has_base = window.is_some();
        if let Some(window) = window.filter(|window| window.to >= ts) {
            if ts < window.from {
                // The base came in between: what was before it cannot be restored.
                ts = Micros::now();
                continue;
            }
            let lsn = catalog.find_cut_by_ts(window.timeline, ts)?.lsn;
            return Ok(Present { ts, timeline: window.timeline, lsn });
        }
        if Instant::now() > deadline {
            return Err(if has_base { MarkError::NotWritten } else { MarkError::NoBase });
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until the journal is complete up to now, at most so long, and gives that point in time a name.
pub fn mark_now(dir: &Path, keyring: &Keyring, name: &str, limit: Duration) -> Result<Mark, MarkError> {
    let Present { ts, lsn, .. } = wait_complete(dir, keyring, limit)?;
    let mark = Mark { name: name.to_owned(), ts, lsn };
    add_mark(dir, &mark)?;
    Ok(mark)
}
