//! Compaction: a sealed segment is replaced by a copy of the same groups in large, compressed blocks.
//!
//! ```text
//! writer seals ─► background (thread of low priority) ─► compactor ─► the copy takes the segment's name
//! repair ──────────────────────────────────────────────► compactor
//! ```

mod background;
mod compactor;

pub(crate) use background::{Later, Unpacked};
pub(crate) use compactor::{PackError, Packer, Whole, remove_unfinished};
