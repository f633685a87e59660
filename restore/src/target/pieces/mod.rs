//! Large values of a living server, in pieces, so that no other client waits for the whole of one: `RESTORE` and `DUMP` of a
//! million fields keep a server busy for half a second.
//!
//! ```text
//! size ─► read (the old value, for the undo file)
//!         build under a temporary name in the key's slot ─► swap (UNLINK, RENAME, the TTL: one transaction)
//! ```
//!
//! - [`name`]: the temporary name, and how it is recognised.
//! - [`size`](mod@size): whether a value is large.
//! - [`read`](mod@read): a value, some elements at a time. Exact without concurrent writes to the key.
//! - [`build`](Builder::build): a value under the temporary name. [`swap`](mod@swap) puts it in the key's place.
//! - [`leftovers`]: what a killed operation has left.
//!
//! # After a crash or a kill
//! A temporary key has a TTL of [`TEMPORARY_TTL_MS`] from its first command on, which every piece renews, and which is
//! replaced in the transaction that renames it. So a restore that was killed leaves temporary keys for at most an hour, and
//! the next run of the same operation removes them at once. The key itself is the old value or the new one, never a part.

mod build;
pub(crate) mod cut;
mod error;
pub mod leftovers;
pub mod name;
mod portion;
pub mod read;
pub mod size;
mod stream;
pub mod swap;
mod writer;

pub use build::{Builder, Built};
pub use cut::PieceLimits;
pub use error::{BuildError, ReadPiecesError};
pub use writer::TEMPORARY_TTL_MS;
