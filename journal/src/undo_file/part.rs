//! Parts: an entry is stored as one or several of them, so that no more than one is ever held encrypted and in clear.
//!
//! A part's header has a checksum of its own: a length that was damaged is never taken for a file that ends too early. Its checksum
//! begins with the tag of the file, so that a part of another file, or at another place, is not taken for this one.

use crate::crypto::{OVERHEAD, Sealer};
use crate::encoding::Cursor;
use crate::error::Damage;

/// Bytes of an entry in one part, at most.
pub(super) const PART_BYTES: usize = if cfg!(test) { 64 } else { 1 << 20 };
/// Size of a part's header.
pub(super) const PART_HEADER_LEN: usize = 32;
/// The header without its two checksums.
const PLACE_LEN: usize = 24;

/// What stands before the bytes of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartHeader {
    /// Length of what is stored behind it.
    pub(super) len: u32,
    /// Ends its entry.
    pub(super) is_last: bool,
    /// Number of the part in the file, from 0.
    pub(super) number: u64,
    /// When it was written, the file was synced up to this byte.
    pub(super) synced: u64,
    /// Checksum of what is stored.
    pub(super) body_crc: u32,
}

impl PartHeader {
    /// What an encrypted part is bound to.
    fn place(&self, tag: u32) -> [u8; 8 + PLACE_LEN] {
        let mut place = [0; 8 + PLACE_LEN];
        place[..4].copy_from_slice(b"RTUE");
        place[4..8].copy_from_slice(&tag.to_le_bytes());
        place[8..].copy_from_slice(&self.fields());
        place
    }

    fn fields(&self) -> [u8; PLACE_LEN] {
        let mut out = [0; PLACE_LEN];
        out[..4].copy_from_slice(&self.len.to_le_bytes());
        out[4] = u8::from(self.is_last);
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.synced.to_le_bytes());
        out
    }

    fn encode(&self, tag: u32) -> [u8; PART_HEADER_LEN] {
        let mut out = [0; PART_HEADER_LEN];
        out[..PLACE_LEN].copy_from_slice(&self.fields());
        out[24..28].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = checksum(tag, &out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header, if it is one of the file with this tag.
    pub(super) fn decode(bytes: &[u8], tag: u32) -> Result<Self, Damage> {
        let mut cursor = Cursor::new(bytes);
        let len = cursor.u32()?;
        let [is_last, zeros @ ..] = cursor.array::<4>()?;
        let (number, synced, body_crc, crc) = (cursor.u64()?, cursor.u64()?, cursor.u32()?, cursor.u32()?);
        let computed = checksum(tag, &bytes[..28]);
        if crc != computed {
            return Err(Damage::new(
                format!("a part whose header has the checksum {computed:08x}"),
                format!("{crc:08x}"),
            ));
        }
        if is_last > 1 || zeros != [0; 3] || len as usize > PART_BYTES + OVERHEAD {
            return Err(Damage::new("a part's header", format!("{:02x?}", &bytes[..8])));
        }
        Ok(Self { len, is_last: is_last == 1, number, synced, body_crc })
    }

    /// What the part holds, if it is whole.
    pub(super) fn open(
        &self,
        tag: u32,
        stored: &[u8],
        sealer: Option<&Sealer>,
        out: &mut Vec<u8>,
    ) -> Result<(), PartFault> {
        let computed = crc32c::crc32c(stored);
        if computed != self.body_crc {
            let (expected, found) = (format!("a part with checksum {:08x}", self.body_crc), format!("{computed:08x}"));
            return Err(PartFault::Bytes(Damage::new(expected, found)));
        }
        let Some(sealer) = sealer else {
            out.extend_from_slice(stored);
            return Ok(());
        };
        let opened = sealer.open(&self.place(tag), stored).ok_or_else(|| {
            let expected = "a part that was encrypted for this place of this file";
            PartFault::Content(Damage::new(expected, "another one"))
        })?;
        out.extend_from_slice(&opened);
        Ok(())
    }
}

/// What is wrong with a part whose header is right.
#[derive(Debug)]
pub(super) enum PartFault {
    /// Its checksum: a crash may have left that.
    Bytes(Damage),
    /// What is in it: no crash leaves that.
    Content(Damage),
}

/// As it is stored, header and bytes.
pub(super) fn store(mut header: PartHeader, tag: u32, sealer: Option<&Sealer>, body: &[u8], out: &mut Vec<u8>) {
    let overhead = if sealer.is_some() { OVERHEAD } else { 0 };
    header.len = (body.len() + overhead) as u32;
    let sealed = sealer.map(|sealer| sealer.seal(&header.place(tag), body));
    let stored = sealed.as_deref().unwrap_or(body);
    header.body_crc = crc32c::crc32c(stored);
    out.extend_from_slice(&header.encode(tag));
    out.extend_from_slice(stored);
}

pub(super) fn checksum(tag: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&tag.to_le_bytes()), bytes)
}
