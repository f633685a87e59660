//! The file of an index while it is written.

use std::fs::File;
use std::io::{self, Write};

use crate::files;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Synced whenever so many bytes were written: never does the disk have more to do of it at once, when the journal's writer
/// wants its own sync.
const SYNC_BYTES: u64 = 4 << 20;

/// Appends to a file.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    buffer: Vec<u8>,
    /// Bytes given so far.
    position: u64,
    synced: u64,
}

impl Output {
    pub(super) fn new(file: File) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER_BYTES), position: 0, synced: 0 }
    }

    /// Where the next byte comes to stand.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.flush()?;
        if self.position - self.synced >= SYNC_BYTES {
            files::sync_data(&self.file)?;
            self.synced = self.position;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Everything is on the disk.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        files::sync(&self.file)
    }
}
