//! Undo files: what a repair of a running server has overwritten, and how far it has come. Bytes: `journal/FORMAT.md`, `Undo files`.
//!
//! ```text
//! StateDir::begin ─► UndoWriter: append, append, sync ─► the writes ─► append(Done)
//!        │               └─► <state-dir>/<journal id>/<operation id>.undo
//!        └─► Progress (of an interrupted run)              └─► UndoReader ─► redtape undo --file
//! ```
//!
//! One file is both what `redtape undo --file` brings back and the record of progress from which an interrupted repair goes on.
//! It is beside the journal and not in it, but shares its keys, its way to encrypt and its care with files; so it lives in this crate.
//! It knows nothing of a server: keys, values and digests are bytes of the caller.
//!
//! The rules of its caller:
//! 1. The entry of a write is synced before the write is sent ([`UndoWriter::sync`]).
//! 2. [`UndoEntry::Done`] is appended after the writes of the entries that it names were seen in the target. A run names its own: what an earlier
//!    one has left in doubt is not done by that. [`UndoEntry::NotWritten`] takes an entry back whose write was refused. Neither needs a sync of its own.
//! 3. [`UndoEntry::Moved`] is synced before the old value is moved aside; its [`UndoEntry::Value`] is synced before the temporary key is deleted.
//! 4. A key or element may have several entries. The first one says what it was before the operation, the last one what was written.
//!
//! Invariants:
//! - A file is only ever appended to, by one process at a time. One that is finished is never written again. Nothing here removes an
//!   undo file.
//! - What [`UndoWriter::sync`] has confirmed is read back, or the file is refused as damaged. Nothing else than what was appended is ever read.
//! - Only what no sync has confirmed can be a torn tail, and only that is cut, by the next writer.
//! - If the journal is encrypted, no key, element or value stands in the file in clear.
//!
//! What a crash leaves:
//!
//! | crash | left | the next run |
//! | --- | --- | --- |
//! | while the file is created | a temporary file | removes it, creates the file |
//! | in an append, before its sync | whole entries, then a torn tail | cuts the tail; the whole entries are in doubt, and their writes were not sent |
//! | between sync and write, or in the write | entries in doubt | compares each with the target |
//! | behind the write, before `Done` | the same | the same |
//! | behind `Moved`, before its value is stored | a `Moved` that is not resolved | looks for the temporary key |
//! | behind `Finished` | a finished file | begins another file |

#[cfg(any(test, fuzzing))]
mod anything;
mod create;
mod entry;
mod error;
mod head;
mod lock;
mod moved;
mod operation;
mod part;
mod progress;
mod reader;
mod state_dir;
#[cfg(test)]
pub(crate) mod tests;
mod window;
mod writer;

#[cfg(any(test, fuzzing))]
pub(crate) use anything::read_anything;
pub use entry::{EntryNumber, UndoEntry, ValueDigest, WrittenPlace};
pub use error::UndoFileError;
pub use head::{Operation, UndoHead, UndoTarget};
pub use moved::MovedAside;
pub use operation::OperationId;
pub use progress::Progress;
pub use reader::{StoredEntry, TornTail, UndoReader};
pub use state_dir::{Begun, StateDir};
pub use writer::UndoWriter;

/// An entry of more bytes is neither written nor read: a key, and a value of 600 MiB.
pub const MAX_ENTRY_BYTES: u64 = if cfg!(test) { 64 << 10 } else { 640 << 20 };
/// More entries are not written to one file: progress takes 16 bytes of memory for each.
pub const MAX_ENTRIES: u64 = if cfg!(test) { 4096 } else { 1 << 27 };
/// So many values may be moved aside and not be stored yet.
pub const MAX_MOVED: usize = if cfg!(test) { 64 } else { 1 << 16 };
/// So many bytes their keys may have, temporary names included.
pub const MAX_MOVED_BYTES: usize = 1 << 30;
