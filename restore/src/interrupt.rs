//! Somebody wants the restore to end: a flag that every loop which may last looks at.
//!
//! What ends with [`RestoreError::Interrupted`] is undone like any other failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::RestoreError;

/// The flag; its clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on [`Self::check`] fails.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails when the restore is to end.
    pub fn check(&self) -> Result<(), RestoreError> {
        if self.is_set() { Err(RestoreError::Interrupted) } else { Ok(()) }
    }
}
