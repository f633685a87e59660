//! Compaction: a sealed segment with many small blocks, or without key filters, is replaced by a copy of the same groups in large,
//! compressed blocks. In the format, that is a *packed* segment.
//!
//! ```text
//! writer seals ─► background (thread of low priority) ─► compactor ─► the copy takes the segment's name
//! repair ──────────────────────────────────────────────► compactor
//! ```

mod background;
mod compactor;
mod digest;

pub(crate) use background::{Background, Uncompacted};
pub(crate) use compactor::{CompactError, CompactedCopy, Compactor, remove_unfinished};
