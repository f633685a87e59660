//! Where a dataset goes: a running server.

pub mod claim;
pub(crate) mod copy;
pub(crate) mod lookup;
pub mod memory;
pub mod preflight;
pub mod unfinished;
