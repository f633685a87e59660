//! `REDTAPE.GET`: a key at a point in time. The daemon registers the reader, since the proxy does not depend on
//! restore.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads keys of the past.
pub trait KeyReader: std::fmt::Debug + Send + Sync {
    /// One JSON object, or an error. Runs on a thread of its own, one at a time. It limits its own time and memory, and
    /// ends early when the client has left.
    fn read(&self, query: &KeyQuery) -> Result<String, ReadFailure>;
}

/// The key and the point in time.
#[derive(Debug)]
pub struct KeyQuery {
    /// The key.
    pub key: Vec<u8>,
    /// The session's database.
    pub db: u32,
    /// The point in time, as the client wrote it.
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

/// Dropped with its client, it cancels the client's work.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Permits one read at a time.
#[derive(Debug, Default)]
pub(super) struct Place(Arc<AtomicBool>);

/// Holds the permit until it is dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<AtomicBool>);

impl Place {
    /// `None` = a read is running.
    pub(super) fn take(&self) -> Option<Taken> {
        (!self.0.swap(true, Ordering::AcqRel)).then(|| Taken(Arc::clone(&self.0)))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
