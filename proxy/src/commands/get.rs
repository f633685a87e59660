//! `REDTAPE.GET`: a key at a point in time. The proxy does not know how; the daemon gives it a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads keys of the past.
pub trait KeyReader: std::fmt::Debug + Send + Sync {
    /// One JSON object, or why there is none. Runs on a thread of its own, one at a time; it bounds its time and memory
    /// itself, and ends early when nobody waits for it any more.
    fn read(&self, query: &KeyQuery) -> Result<String, ReadFailure>;
}

/// Which key, and when.
#[derive(Debug)]
pub struct KeyQuery {
    /// The key.
    pub key: Vec<u8>,
    /// The database that the session works in.
    pub db: u32,
    /// The point in time, as it was written.
    pub when: String,
    /// Set when the client has gone.
    pub cancelled: Arc<AtomicBool>,
}

/// Why a key was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFailure {
    /// The first word of the error.
    pub code: &'static str,
    /// What failed, why, and what to do.
    pub message: String,
}

/// Dropped with its client, it cancels what works for it.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The place of the one that may run.
#[derive(Debug, Default)]
pub(super) struct Place(Arc<AtomicBool>);

/// Holds the place until it is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<AtomicBool>);

impl Place {
    /// `None` = somebody else has it.
    pub(super) fn take(&self) -> Option<Taken> {
        (!self.0.swap(true, Ordering::AcqRel)).then(|| Taken(Arc::clone(&self.0)))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
