//! A flag that ends a restore: every long loop checks it.
//!
//! A restore that ends with [`RestoreError::Interrupted`] is undone like after any other failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::RestoreError;

/// The flag; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// Deadline and its duration.
    deadline: Option<(Instant, Duration)>,
}

impl Interrupt {
    /// Setting this flag interrupts.
    pub fn by(flag: Arc<AtomicBool>) -> Self {
        Self { flag, deadline: None }
    }

    /// Sets a deadline from now.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.deadline = Some((Instant::now() + limit, limit));
        self
    }

    /// Makes [`Self::check`] fail from now on.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// True if [`Self::check`] fails; it does so from then on.
    pub(crate) fn is_set(&self) -> bool {
        self.check().is_err()
    }

    /// Fails if the restore should end.
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
