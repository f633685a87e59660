//! The file `filters`: key filters of the segment in use, so that a search in another process need not read that segment.
//!
//! ```text
//! Appender ─► FiltersFile ─► DIR/filters: header │ section │ section │ …
//! Catalog::open_for_search ─► read ─► Covered ─► walks only what lies behind
//! ```
//!
//! The file is derived: whatever is wrong with it, from the first section of which that is so nothing is believed, and the segment is
//! walked from there on. A section says how the segment's index goes on over a part of its blocks, and has a filter for each entry.
//!
//! Invariants:
//! - What a section covers was synced before the section was written. So no crash takes it back, and nothing is ever written
//!   over it.
//! - A section is bound to the blocks that it covers: it has the checksum of the header of each block with an entry in
//!   the index, and of the block behind its end; these checksums stand for the blocks' payloads, too.
//! - Nothing is synced, and no failure ends the recording: the file is given up instead.
//!
//! | crash while | what is left |
//! | --- | --- |
//! | creating it, or writing a section | a beginning of it, or parts in any order after a power failure: checksums do not fit |
//! | sealing the segment | an unused file of a sealed segment; the next writer removes it |

mod read;
mod section;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::{Covered, OpenedSegment, read};
pub(crate) use write::{FiltersFile, SyncedSegment, remove};

use crate::crypto::{OVERHEAD, Sealer};
use crate::error::Damage;
use crate::segment::header::SegmentHeader;

/// A section is written when so much of the segment, and of filters, is new.
const EVERY_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 4 << 20 };
/// Largest section. What would need a larger one has no filters in this file.
const SECTION_BYTES_MAX: usize = 256 << 20;

const MAGIC: [u8; 8] = *b"RTAPEFLT";
/// Version of the file. A reader ignores another one.
const FORMAT: u32 = 1;
const HEADER_LEN: usize = 8 + 4 + 16 + 8 + 4 + 4 + 4;
/// Size of what precedes a section: its length.
const LEN_BYTES: usize = 4;
const CHECK_BYTES: usize = 4;

/// The header of the file for this segment.
fn header_of(header: &SegmentHeader, tag: u32) -> [u8; HEADER_LEN] {
    let mut out = Vec::with_capacity(HEADER_LEN);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&header.journal_id);
    out.extend_from_slice(&header.first_lsn.0.to_le_bytes());
    out.extend_from_slice(&header.timeline.id.0.to_le_bytes());
    out.extend_from_slice(&tag.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    let mut bytes = [0; HEADER_LEN];
    bytes.copy_from_slice(&out);
    bytes
}

/// Where an encrypted section belongs.
fn place(position: u64) -> [u8; 12] {
    let mut place = *b"RTOF\0\0\0\0\0\0\0\0";
    place[4..].copy_from_slice(&position.to_le_bytes());
    place
}

/// Binds a section to its place, and to the segment.
fn checksum(position: u64, tag: u32, bytes: &[u8]) -> u32 {
    let place = crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), &tag.to_le_bytes());
    crc32c::crc32c_append(place, bytes)
}

/// How much longer a section is when it is stored.
fn overhead(sealer: Option<&Sealer>) -> usize {
    if sealer.is_some() { OVERHEAD } else { CHECK_BYTES }
}

/// A section as it is stored at this position, without its length.
fn store(position: u64, tag: u32, sealer: Option<&Sealer>, mut section: Vec<u8>) -> Vec<u8> {
    if let Some(sealer) = sealer {
        return sealer.seal(&place(position), &section);
    }
    let crc = checksum(position, tag, &section);
    section.extend_from_slice(&crc.to_le_bytes());
    section
}

/// What was stored, if it is whole and at its place.
fn load(position: u64, tag: u32, sealer: Option<&Sealer>, mut stored: Vec<u8>) -> Result<Vec<u8>, Damage> {
    if let Some(sealer) = sealer {
        let opened = sealer.open(&place(position), &stored);
        return opened.ok_or_else(|| Damage::new("a section encrypted for this place", "another one"));
    }
    let Some(len) = stored.len().checked_sub(CHECK_BYTES) else {
        return Err(Damage::new("a section", format!("{} bytes", stored.len())));
    };
    let found = stored.split_off(len);
    let computed = checksum(position, tag, &stored);
    if found != computed.to_le_bytes() {
        return Err(Damage::new(format!("a section with checksum {computed:08x}"), format!("{found:02x?}")));
    }
    Ok(stored)
}

/// What `make fuzz` calls.
#[cfg(fuzzing)]
pub(crate) fn read_anything(bytes: &[u8]) {
    let Ok(section) = section::Section::decode(bytes) else { return };
    assert_eq!(section.encode(), bytes, "one way to write a section");
}
