//! Encrypted snapshots: chunks of 64 KiB, the last one marked as such.
//!
//! ```text
//! chunk 0 │ chunk 1 │ … │ last chunk (may be shorter)      each: salt, ciphertext, tag
//! ```
//!
//! A chunk can be opened at its own place only, and only the last one as the last: what is cut off, swapped or
//! added is noticed.

use std::io::{self, Read};

use crate::crypto::{OVERHEAD, Sealer};
use crate::storage::StoredFile;

/// Content of a chunk; only the last one has less.
pub(super) const CHUNK_BYTES: usize = if cfg!(test) { 64 } else { 64 << 10 };

/// Where a chunk belongs.
fn place(number: u64, last: bool) -> [u8; 13] {
    let mut place = *b"RTSC\0\0\0\0\0\0\0\0\0";
    place[4..12].copy_from_slice(&number.to_le_bytes());
    place[12] = u8::from(last);
    place
}

/// Size of a whole chunk in the file.
pub(super) fn stored_chunk() -> u64 {
    (CHUNK_BYTES + OVERHEAD) as u64
}

/// Length of what is in a file of this size; `None` if no row of chunks has it.
pub(super) fn content_bytes(stored: u64) -> Option<u64> {
    let chunks = stored.div_ceil(stored_chunk()).max(1);
    let last = stored - (chunks - 1) * stored_chunk();
    (last >= OVERHEAD as u64).then(|| stored - chunks * OVERHEAD as u64)
}

/// Decrypts a chunk at its place.
pub(super) fn open_chunk(sealer: &Sealer, number: u64, is_last: bool, stored: &[u8]) -> Option<Vec<u8>> {
    sealer.open(&place(number, is_last), stored)
}

/// Cuts what is written into chunks and encrypts them.
#[derive(Debug)]
pub(super) struct ChunkWriter {
    sealer: Sealer,
    number: u64,
    waiting: Vec<u8>,
}

impl ChunkWriter {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self { sealer, number: 0, waiting: Vec::with_capacity(CHUNK_BYTES) }
    }

    /// Takes bytes; gives whole chunks to `out`. A full one waits until more comes: it may be the last.
    pub(super) fn write(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.waiting.len() == CHUNK_BYTES {
                self.seal(false, out);
            }
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
        }
    }

    /// The last chunk, which every snapshot has.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        self.seal(true, out);
    }

    fn seal(&mut self, last: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sealer.seal(&place(self.number, last), &self.waiting));
        self.number += 1;
        self.waiting.clear();
    }
}

/// Reads the content of a snapshot, whether it is encrypted or not.
#[derive(Debug)]
pub struct SnapshotReader {
    file: Box<dyn StoredFile>,
    /// Where the next bytes are read that are not encrypted.
    position: u64,
    sealed: Option<ChunkReader>,
    hasher: blake3::Hasher,
}

#[derive(Debug)]
struct ChunkReader {
    sealer: Sealer,
    number: u64,
    /// Where the last chunk begins.
    position: u64,
    /// Bytes of the file that are still to come.
    left: u64,
    content: Vec<u8>,
    given: usize,
    ended: bool,
}

impl SnapshotReader {
    /// `bytes` is the size that the file must have.
    pub(super) fn new(file: Box<dyn StoredFile>, sealer: Option<Sealer>, bytes: u64) -> Self {
        let reader = |sealer| ChunkReader {
            sealer,
            number: 0,
            position: 0,
            left: bytes,
            content: Vec::new(),
            given: 0,
            ended: false,
        };
        Self { file, position: 0, sealed: sealer.map(reader), hasher: blake3::Hasher::new() }
    }

    /// Where in the file the chunk begins that was read last, or could not be read; 0 without encryption.
    pub(crate) fn chunk_position(&self) -> u64 {
        self.sealed.as_ref().map_or(0, |chunks| chunks.position)
    }

    /// BLAKE3 of the file as far as it was read, as in the manifest: 64 hex digits.
    pub fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

impl ChunkReader {
    fn next_chunk(&mut self, file: &dyn StoredFile, hasher: &mut blake3::Hasher) -> io::Result<()> {
        let len = self.left.min((CHUNK_BYTES + OVERHEAD) as u64);
        self.left -= len;
        self.position = self.number * (CHUNK_BYTES + OVERHEAD) as u64;
        let last = self.left == 0;
        let mut sealed = vec![0; len as usize];
        file.read_exact_at(&mut sealed, self.position)?;
        hasher.update(&sealed);
        let wrong = || {
            let what = format!("chunk {} of the snapshot is damaged, not in its place, or not all there", self.number);
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        self.content = self.sealer.open(&place(self.number, last), &sealed).ok_or_else(wrong)?;
        self.number += 1;
        self.given = 0;
        self.ended = last;
        Ok(())
    }
}

impl Read for SnapshotReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(chunks) = &mut self.sealed else {
            let n = self.file.read_at(out, self.position)?;
            self.position += n as u64;
            self.hasher.update(&out[..n]);
            return Ok(n);
        };
        while chunks.given == chunks.content.len() && !chunks.ended {
            chunks.next_chunk(&*self.file, &mut self.hasher)?;
        }
        let n = out.len().min(chunks.content.len() - chunks.given);
        out[..n].copy_from_slice(&chunks.content[chunks.given..chunks.given + n]);
        chunks.given += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8], sealer: Sealer) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut out = Vec::new();
        SnapshotReader::new(Box::new(file), Some(sealer), bytes.len() as u64).read_to_end(&mut out).map(|_| out)
    }

    fn sealed(content: &[u8], piece: usize) -> Vec<u8> {
        let mut chunks = ChunkWriter::new(Sealer::new(&[1; 32]));
        let mut out = Vec::new();
        content.chunks(piece).for_each(|bytes| chunks.write(bytes, &mut out));
        chunks.finish(&mut out);
        out
    }

    #[test]
    fn content_of_any_size_comes_back() {
        for len in (0..5 * CHUNK_BYTES).step_by(7).chain([CHUNK_BYTES, 2 * CHUNK_BYTES]) {
            let content: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let bytes = sealed(&content, len / 3 + 1);
            let chunks = len.div_ceil(CHUNK_BYTES).max(1);
            assert_eq!(bytes.len(), len + chunks * OVERHEAD);
            assert_eq!(read(&bytes, Sealer::new(&[1; 32])).unwrap(), content);
        }
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_swap_is_found() {
        let content: Vec<u8> = (0..3 * CHUNK_BYTES + 5).map(|n| n as u8).collect();
        let whole = sealed(&content, 1000);
        let refused = |bytes: &[u8]| read(bytes, Sealer::new(&[1; 32])).is_err();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&bytes), "bit {bit}");
        }
        assert!((0..whole.len()).all(|len| refused(&whole[..len])));
        let mut chunks: Vec<&[u8]> = whole.chunks(CHUNK_BYTES + OVERHEAD).collect();
        chunks.swap(0, 1);
        assert!(refused(&chunks.concat()));
        chunks.swap(0, 1);
        assert!(refused(&chunks[..3].concat()) && refused(&[&whole[..], chunks[3]].concat()));
        assert!(read(&whole, Sealer::new(&[2; 32])).is_err());
    }
}
