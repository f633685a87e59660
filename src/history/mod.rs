//! Looking into the past: which writes are wanted, where they stand, and how they are shown. What `journal cat`,
//! `journal tail` and `log` have in common.
//!
//! ```text
//! arguments ─► Selection (what) + Range (when) ─► read (forward, backward) ─► show (text, JSON)
//! ```

pub(crate) mod arguments;
pub(crate) mod describe;
pub(crate) mod range;
pub(crate) mod read;
pub(crate) mod selection;
pub(crate) mod show;
