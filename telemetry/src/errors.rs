//! Errors of this process: how many, and the last one.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::now_us;
use crate::numbers::Count;

/// Errors since the start.
#[derive(Debug, Default)]
pub struct Errors {
    total: Count,
    last: ArcSwapOption<LastError>,
}

/// An error that was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Its kind, as `redtape_errors_total` names it.
    pub kind: String,
    /// When, in microseconds since 1970.
    pub at_us: i64,
}

impl Errors {
    pub(crate) fn add(&self, kind: &str) {
        self.total.inc();
        self.last.store(Some(Arc::new(LastError { kind: kind.to_owned(), at_us: now_us() })));
    }

    /// How many, of all kinds.
    pub fn total(&self) -> u64 {
        self.total.get()
    }

    /// The last one.
    pub fn last(&self) -> Option<Arc<LastError>> {
        self.last.load_full()
    }
}
