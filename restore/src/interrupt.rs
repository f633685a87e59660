//! Somebody wants the restore to end: a flag that every loop which may last looks at.
//!
//! What ends with [`RestoreError::Interrupted`] is undone like any other failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::RestoreError;

/// The flag; its clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// Until when, and how long that was.
    deadline: Option<(Instant, Duration)>,
}

impl Interrupt {
    /// Setting this flag interrupts.
    pub fn by(flag: Arc<AtomicBool>) -> Self {
        Self { flag, deadline: None }
    }

    /// So much time is left from now on.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.deadline = Some((Instant::now() + limit, limit));
        self
    }

    /// From now on [`Self::check`] fails.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::check`] would fail; it does so from then on.
    pub(crate) fn is_set(&self) -> bool {
        self.check().is_err()
    }

    /// Fails when the restore is to end.
    pub fn check(&self) -> Result<(), RestoreError> {
        if self.flag.load(Ordering::Relaxed) {
            return Err(RestoreError::Interrupted);
        }
        match self.deadline {
            Some((until, limit)) if Instant::now() >= until => Err(RestoreError::TooLong { seconds: limit.as_secs() }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_a_flag_and_by_time() {
        let flag = Arc::new(AtomicBool::new(false));
        let interrupt = Interrupt::by(Arc::clone(&flag)).within(Duration::from_mins(1));
        assert!(interrupt.check().is_ok());
        let late = interrupt.clone().within(Duration::ZERO);
        assert!(matches!(late.check(), Err(RestoreError::TooLong { seconds: 0 })));
        flag.store(true, Ordering::Relaxed);
        assert!(matches!(interrupt.check(), Err(RestoreError::Interrupted)));
    }
}
