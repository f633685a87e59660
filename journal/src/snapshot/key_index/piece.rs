//! How pages, digests and root are stored: with a checksum, or encrypted. Either binds a piece to its position.

use crate::crypto::{OVERHEAD, Sealer};
use crate::error::Damage;

/// The checksum behind a piece that is not encrypted.
pub(super) const CHECK_BYTES: usize = 4;

/// Which piece it is: the place of an encrypted one begins so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Page,
    Digests,
    Root,
}

impl Kind {
    fn place(self, position: u64) -> [u8; 12] {
        let mut place = [0; 12];
        place[..4].copy_from_slice(match self {
            Self::Page => b"RTKP",
            Self::Digests => b"RTKD",
            Self::Root => b"RTKR",
        });
        place[4..].copy_from_slice(&position.to_le_bytes());
        place
    }

    fn name(self) -> &'static str {
        match self {
            Self::Page => "a page",
            Self::Digests => "digests",
            Self::Root => "a root",
        }
    }
}

/// How much longer a piece is when it is stored.
pub(super) fn overhead(is_encrypted: bool) -> usize {
    if is_encrypted { OVERHEAD } else { CHECK_BYTES }
}

fn checksum(position: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&position.to_le_bytes()), bytes)
}

/// As it is stored.
pub(super) fn store(kind: Kind, position: u64, sealer: Option<&Sealer>, mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(sealer) = sealer {
        return sealer.seal(&kind.place(position), &bytes);
    }
    let crc = checksum(position, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// What was stored, if it is whole and at its place.
pub(super) fn load(kind: Kind, position: u64, sealer: Option<&Sealer>, mut stored: Vec<u8>) -> Result<Vec<u8>, Damage> {
    if let Some(sealer) = sealer {
        let opened = sealer.open(&kind.place(position), &stored);
        return opened.ok_or_else(|| Damage::new(format!("{} encrypted for this place", kind.name()), "another one"));
    }
    let Some(len) = stored.len().checked_sub(CHECK_BYTES) else {
        return Err(Damage::new(kind.name(), format!("{} bytes", stored.len())));
    };
    let found = stored.split_off(len);
    let computed = checksum(position, &stored);
    if found != computed.to_le_bytes() {
        return Err(Damage::new(format!("{} with checksum {computed:08x}", kind.name()), format!("{found:02x?}")));
    }
    Ok(stored)
}
