//! Runs: sorted entries in a file without a name, in blocks with a checksum each, or encrypted with a key that is not stored.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::NamedTempFile;

use super::page::IndexEntry;
use crate::crypto::Sealer;
use crate::directory::TEMPORARY;
use crate::encoding::{Cursor, put_bytes, put_varint};
use crate::snapshot::KEY_INDEX;

/// A block is written when it has so many bytes.
pub(super) const BLOCK_BYTES: usize = 64 << 10;

/// Writes a run.
#[derive(Debug)]
pub(super) struct RunWriter<'a> {
    file: File,
    sealer: Option<&'a Sealer>,
    block: Vec<u8>,
    bytes: u64,
}

/// A run that was written.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    /// Size of the file.
    pub(super) bytes: u64,
}

/// The place of an encrypted block. Runs have no numbers: a file without a name cannot be confused with another one.
fn place(position: u64) -> [u8; 12] {
    let mut place = *b"RTKT\0\0\0\0\0\0\0\0";
    place[4..].copy_from_slice(&position.to_le_bytes());
    place
}

/// A file without a name. For the moment for which it has one, that is such that a crash leaves nothing that stays
/// (`tempfile_in` has other names, where the file system knows no files without).
pub(super) fn unnamed_file(folder: &Path) -> io::Result<File> {
    let (file, path) = temporarily_named(folder)?.into_parts();
    match path.close() {
        // Another process has cleaned up.
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(file),
    }
}

pub(super) fn temporarily_named(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(TEMPORARY).suffix(&format!(".{KEY_INDEX}")).tempfile_in(folder)
}

impl<'a> RunWriter<'a> {
    pub(super) fn new(file: File, sealer: Option<&'a Sealer>) -> Self {
        Self { file, sealer, block: Vec::with_capacity(BLOCK_BYTES), bytes: 0 }
    }

    pub(super) fn add(&mut self, db: u32, key: &[u8], offset: u64, len: u64) -> io::Result<()> {
        put_varint(&mut self.block, u64::from(db));
        put_bytes(&mut self.block, key);
        put_varint(&mut self.block, offset);
        put_varint(&mut self.block, len);
        if self.block.len() >= BLOCK_BYTES { self.write_block() } else { Ok(()) }
    }

    fn write_block(&mut self) -> io::Result<()> {
        let stored = if let Some(sealer) = self.sealer {
            sealer.seal(&place(self.bytes), &self.block)
        } else {
            let crc = crc32c::crc32c(&self.block);
            self.block.extend_from_slice(&crc.to_le_bytes());
            std::mem::take(&mut self.block)
        };
        self.file.write_all(&(stored.len() as u32).to_le_bytes())?;
        self.file.write_all(&stored)?;
        self.bytes += 4 + stored.len() as u64;
        self.block.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Run> {
        if !self.block.is_empty() {
            self.write_block()?;
        }
        Ok(Run { file: self.file, bytes: self.bytes })
    }
}

/// Reads a run.
#[derive(Debug)]
pub(super) struct RunReader<'a> {
    run: Run,
    sealer: Option<&'a Sealer>,
    position: u64,
    block: Vec<u8>,
    at: usize,
}

impl<'a> RunReader<'a> {
    pub(super) fn new(run: Run, sealer: Option<&'a Sealer>) -> Self {
        Self { run, sealer, position: 0, block: Vec::new(), at: 0 }
    }

    /// Puts the next entry into `entry`; false at the end.
    pub(super) fn next_into(&mut self, entry: &mut IndexEntry) -> io::Result<bool> {
        if self.at == self.block.len() && !self.read_block()? {
            return Ok(false);
        }
        let mut cursor = Cursor::at(&self.block, self.at);
        let mut read = || {
            entry.db = cursor.varint()? as u32;
            let range = cursor.range()?;
            entry.key.clear();
            entry.key.extend_from_slice(cursor.bytes(range));
            (entry.offset, entry.len) = (cursor.varint()?, cursor.varint()?);
            Ok(cursor.pos())
        };
        self.at = read().map_err(|damage: crate::error::Damage| wrong(&damage.to_string()))?;
        Ok(true)
    }

    fn read_block(&mut self) -> io::Result<bool> {
        if self.position == self.run.bytes {
            return Ok(false);
        }
        let mut len = [0; 4];
        self.run.file.read_exact_at(&mut len, self.position)?;
        let len = u64::from(u32::from_le_bytes(len));
        if len > self.run.bytes - self.position {
            return Err(wrong("a block is longer than its file"));
        }
        let mut stored = vec![0; len as usize];
        self.run.file.read_exact_at(&mut stored, self.position + 4)?;
        self.block = if let Some(sealer) = self.sealer {
            sealer.open(&place(self.position), &stored).ok_or_else(|| wrong("a block cannot be decrypted"))?
        } else {
            let crc = stored.split_off(stored.len().saturating_sub(4));
            if crc != crc32c::crc32c(&stored).to_le_bytes() {
                return Err(wrong("a block has a wrong checksum"));
            }
            stored
        };
        (self.position, self.at) = (self.position + 4 + len, 0);
        Ok(true)
    }
}

/// What was written a moment ago is read back otherwise.
fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a temporary file is damaged: {what}"))
}
