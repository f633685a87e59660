//! References to clients and connections of one worker that may outlive them: an index and a generation.
//!
//! Invariant: generations of clients, and of connections, are unique across all workers. A reference to one that is
//! gone finds nothing, even if its index is reused.

/// A client of this worker, while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientRef {
    pub(super) index: usize,
    pub(super) generation: u64,
}

/// An upstream connection of this worker, while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnRef {
    pub(super) index: usize,
    pub(super) generation: u64,
}
