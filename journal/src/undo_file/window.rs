//! Reads a file from its beginning to its end in large pieces, and gives the small ones that are asked for.

use std::io;

use crate::storage::StoredFile;

/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// A stretch of an open file.
#[derive(Debug)]
pub(super) struct Window {
    file: Box<dyn StoredFile>,
    /// Size of the file when it was opened; nothing behind it is read.
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: Box<dyn StoredFile>) -> io::Result<Self> {
        let len = file.bytes()?;
        Ok(Self { file, len, start: 0, bytes: Vec::new() })
    }

    /// Size of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// At most `len` bytes from `at` on, fewer only where the file ends.
    pub(super) fn get(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let wanted = self.len.saturating_sub(at).min(len as u64) as usize;
        let end = self.start + self.bytes.len() as u64;
        if at < self.start || at + wanted as u64 > end {
            let room = self.len.saturating_sub(at).min(wanted.max(READ_BYTES) as u64) as usize;
            self.bytes.resize(room, 0);
            self.start = at;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, at) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from..from + wanted])
    }
}
