//! A file of any size, through one buffer, with the CRC64 of all that was taken.

use std::io::{ErrorKind, Read};

use crc_fast::{CrcAlgorithm, Digest};

use super::fault::{Fault, ReadError};
use super::input::Input;

/// The only memory that follows from reading, beside the key in hand.
const BUFFER_LEN: usize = 256 * 1024;

/// Invariant: `summed <= start <= end <= BUFFER_LEN`. `digest` covers everything before `summed`; what lies between
/// `summed` and `start` was taken and follows when the buffer is filled again.
pub(super) struct StreamInput<R> {
    from: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    summed: usize,
    /// Offset of the buffer's first byte.
    base: u64,
    digest: Digest,
}

impl<R: Read> StreamInput<R> {
    pub(super) fn new(from: R) -> Self {
        let digest = Digest::new(CrcAlgorithm::Crc64Redis);
        Self { from, buffer: vec![0; BUFFER_LEN].into(), start: 0, end: 0, summed: 0, base: 0, digest }
    }

    /// CRC64 of everything that was taken.
    pub(super) fn crc64(&mut self) -> u64 {
        self.digest.update(&self.buffer[self.summed..self.start]);
        self.summed = self.start;
        self.digest.finalize()
    }

    /// Whether nothing follows.
    pub(super) fn is_at_end(&mut self) -> Result<bool, ReadError> {
        Ok(self.start == self.end && !self.fill()?)
    }

    /// Fills the buffer, of which everything was taken; false at the end.
    fn fill(&mut self) -> Result<bool, ReadError> {
        self.digest.update(&self.buffer[self.summed..self.start]);
        self.base += self.start as u64;
        (self.start, self.end, self.summed) = (0, 0, 0);
        loop {
            match self.from.read(&mut self.buffer) {
                Ok(got) => {
                    // A source that claims more than it was given room for must not lead past the buffer.
                    self.end = got.min(self.buffer.len());
                    return Ok(got > 0);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.fault(Fault::Io(e))),
            }
        }
    }

    /// At most `len` of the bytes that are in the buffer, at least one.
    fn piece(&mut self, len: u64, what: &'static str) -> Result<&[u8], ReadError> {
        if self.start == self.end && !self.fill()? {
            return Err(self.fault(Fault::Truncated { what }));
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(self.end - self.start);
        let from = self.start;
        self.start += len;
        Ok(&self.buffer[from..self.start])
    }
}

impl<R: Read> Input for StreamInput<R> {
    fn at(&self) -> u64 {
        self.base + self.start as u64
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, ReadError> {
        self.piece(1, what).map(|piece| piece[0])
    }

    fn skip(&mut self, mut len: u64, what: &'static str) -> Result<(), ReadError> {
        while len > 0 {
            len -= self.piece(len, what)?.len() as u64;
        }
        Ok(())
    }

    fn take_into(&mut self, mut len: u64, what: &'static str, out: &mut Vec<u8>) -> Result<(), ReadError> {
        while len > 0 {
            let piece = self.piece(len, what)?;
            out.extend_from_slice(piece);
            len -= piece.len() as u64;
        }
        Ok(())
    }
}
