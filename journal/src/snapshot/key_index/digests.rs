//! The digests of a content, part by part, while it streams by.

use std::io;

use super::{DIGEST_BYTES, DIGEST_LEN};

/// The first bytes of a part's BLAKE3.
pub(super) type Digest = [u8; DIGEST_LEN];

pub(super) fn digest_of(part: &[u8]) -> Digest {
    shorten(blake3::hash(part))
}

fn shorten(hash: blake3::Hash) -> Digest {
    let mut digest = [0; DIGEST_LEN];
    digest.copy_from_slice(&hash.as_bytes()[..DIGEST_LEN]);
    digest
}

/// Takes a content, in order.
#[derive(Debug, Default)]
pub(crate) struct ContentDigests {
    whole: Vec<u8>,
    part: Box<blake3::Hasher>,
    bytes: u64,
}

impl ContentDigests {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = DIGEST_BYTES - self.bytes % DIGEST_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.part.update(now);
            self.bytes += now.len() as u64;
            if self.bytes.is_multiple_of(DIGEST_BYTES) {
                self.end_part();
            }
            bytes = later;
        }
    }

    fn end_part(&mut self) {
        self.whole.extend_from_slice(&shorten(self.part.finalize()));
        self.part.reset();
    }

    /// Bytes taken so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All digests, one after the other.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if !self.bytes.is_multiple_of(DIGEST_BYTES) {
            self.end_part();
        }
        self.whole
    }
}

impl io::Write for ContentDigests {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
