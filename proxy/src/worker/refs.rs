//! References to clients and connections of one worker that outlive them: an index, and whose it was.
//!
//! Invariant: no two clients, and no two connections, of all workers have the same generation. A reference to one that is
//! gone finds nothing, though its index may be in use again.

/// A client of this worker, as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientRef {
    pub(super) index: usize,
    pub(super) generation: u64,
}

/// An upstream connection of this worker, as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnRef {
    pub(super) index: usize,
    pub(super) generation: u64,
}
