//! Blocks: the unit of writing, of checksums and of skipping.
//!
//! ```text
//! groups ─► BlockBuilder ─► Block ─► (writer: place in the segment) ─► file
//! file ─► BlockHeader (checks itself) ─► stored payload (checksum) ─► decode_payload ─► Groups
//!                                                                                 └──► GroupWalk ─► BlockJoiner ─► Block
//! ```

mod build;
mod codec;
mod decode;
mod header;
mod join;
#[cfg(test)]
mod tests;
mod walk;

pub use build::{Block, BlockBuilder};
pub(crate) use codec::{Compressor, PayloadFault, decode as decode_payload, decompress, decrypt};
pub(crate) use decode::Groups;
pub use decode::RecordView;
pub(crate) use header::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader};
pub(crate) use join::BlockJoiner;
pub(crate) use walk::{EncodedGroup, GroupWalk, each_key};

/// A block of which the payload has so many bytes is compressed when it is written, and stays as it is.
pub const LARGE_BLOCK_BYTES: usize = if cfg!(test) { 512 } else { 64 << 10 };
/// The largest encoded group (2 GiB).
pub const MAX_GROUP_BYTES: u64 = 1 << 31;
