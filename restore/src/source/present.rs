//! The present of a journal with a writer: it holds all that its server held when it was looked at.

use std::path::Path;
use std::time::Duration;

use redtape_journal::{Keyring, MarkError, Present, wait_complete};

use crate::error::RestoreError;

/// How long the journal is waited for.
const COMPLETE_LIMIT: Duration = Duration::from_secs(10);

/// Waits until the journal is complete. `what` needs that.
pub(crate) fn complete(dir: &Path, keyring: &Keyring, what: &str) -> Result<Present, RestoreError> {
    wait_complete(dir, keyring, COMPLETE_LIMIT).map_err(|error| not_complete(error, what))
}

/// Why it is not.
pub(crate) fn not_complete(error: MarkError, what: &str) -> RestoreError {
    match error {
        MarkError::Open(error) => error.into(),
        MarkError::Read(error) => error.into(),
        MarkError::Store(error) => RestoreError::Unable(error.to_string()),
        error @ (MarkError::NotWritten | MarkError::NoBase) => {
            RestoreError::Unable(format!("{what} needs a journal that is being written: {error}"))
        }
    }
}
