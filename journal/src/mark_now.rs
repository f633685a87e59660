//! A mark at the present moment of a journal that somebody writes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::error::{OpenError, ReadError, StoreError};
use crate::lock::is_held;
use crate::marks::add_mark;
use crate::types::{Mark, Micros};

/// Between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why a mark was not set.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The journal does not come up to the present.
    #[error(
        "nobody is writing this journal at present: start redtape proxy or follow, or mark an earlier moment by its time"
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

/// Waits until the journal is complete up to now, at most so long, and gives that moment a name.
pub fn mark_now(dir: &Path, keyring: &Keyring, name: &str, limit: Duration) -> Result<Mark, MarkError> {
    if Catalog::open_with(dir, keyring)?.windows().is_empty() {
        return Err(MarkError::NoBase);
    }
    if !is_held(&Directory::new(dir).lock()) {
        return Err(MarkError::NotWritten);
    }
    let mut ts = Micros::now();
    let deadline = Instant::now() + limit;
    let lsn = loop {
        let catalog = Catalog::open_with(dir, keyring)?;
        if let Some(window) = catalog.windows().pop().filter(|window| window.to >= ts) {
            if ts < window.from {
                // The base came in between: what was before it cannot be restored.
                ts = Micros::now();
                continue;
            }
            break catalog.find_cut_by_ts(window.timeline, ts)?.lsn;
        }
        if Instant::now() > deadline {
            return Err(MarkError::NotWritten);
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let mark = Mark { name: name.to_owned(), ts, lsn };
    add_mark(dir, &mark)?;
    Ok(mark)
}
