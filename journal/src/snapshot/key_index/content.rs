//! The content of a snapshot, read at any place: what is given was verified.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use super::DIGEST_BYTES;
use super::digests::{Digest, digest_of};
use super::error::KeyIndexError;
use crate::crypto::Sealer;
use crate::snapshot::chunks::{CHUNK_BYTES, content_bytes, open_chunk, stored_chunk};
use crate::storage::StoredFile;

/// Parts that are kept in memory.
const KEPT_PARTS: usize = 16;
/// Parts that are read at once.
const READ_PARTS: usize = 16;

/// The file of a snapshot.
#[derive(Debug)]
pub(super) struct SnapshotContent {
    path: PathBuf,
    file: Box<dyn StoredFile>,
    sealer: Option<Sealer>,
    /// Size of the file.
    stored: u64,
    bytes: u64,
    kept: VecDeque<(u64, Vec<u8>)>,
    read_bytes: u64,
}

impl SnapshotContent {
    /// `None` if no content has a file of this size.
    pub(super) fn new(path: &Path, file: Box<dyn StoredFile>, sealer: Option<Sealer>, stored: u64) -> Option<Self> {
        let bytes = if sealer.is_some() { content_bytes(stored)? } else { stored };
        Some(Self { path: path.to_owned(), file, sealer, stored, bytes, kept: VecDeque::new(), read_bytes: 0 })
    }

    /// Length of the content.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of the file read so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// It is encrypted: its chunks verify themselves.
    pub(super) fn is_encrypted(&self) -> bool {
        self.sealer.is_some()
    }

    /// Content under one digest, or in one chunk.
    fn part_bytes(&self) -> u64 {
        if self.is_encrypted() { CHUNK_BYTES as u64 } else { DIGEST_BYTES }
    }

    /// Reads an extent into `out`. `digests`: of all parts, if it is not encrypted.
    pub(super) fn read(
        &mut self,
        offset: u64,
        len: u64,
        digests: &[Digest],
        out: &mut Vec<u8>,
    ) -> Result<(), KeyIndexError> {
        let end = offset.checked_add(len).filter(|end| *end <= self.bytes);
        let Some(end) = end else { return Err(KeyIndexError::Beyond { path: self.path.clone(), offset, len }) };
        let part_bytes = self.part_bytes();
        let mut at = offset;
        while at < end {
            let number = at / part_bytes;
            let wanted = number..=(end - 1) / part_bytes;
            let missing = wanted.take(READ_PARTS).take_while(|n| !self.kept.iter().any(|(kept, _)| kept == n)).count();
            if missing > 0 {
                self.fetch(number, missing as u64, digests)?;
            }
            let Some((_, part)) = self.kept.iter().find(|(kept, _)| *kept == number) else {
                return Err(self.damaged(at, "a part that was read is not there"));
            };
            let from = (at % part_bytes) as usize;
            let to = part.len().min(from + usize::try_from(end - at).unwrap_or(usize::MAX));
            out.extend_from_slice(&part[from..to]);
            at += (to - from) as u64;
        }
        Ok(())
    }

    /// Reads parts that follow each other, and keeps them.
    fn fetch(&mut self, first: u64, count: u64, digests: &[Digest]) -> Result<(), KeyIndexError> {
        let stored_part = if self.is_encrypted() { stored_chunk() } else { DIGEST_BYTES };
        let from = first * stored_part;
        let to = self.stored.min(from + count * stored_part);
        let mut bytes = vec![0; (to - from) as usize];
        self.file.read_exact_at(&mut bytes, from).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(from, "the file has become shorter"),
            _ => KeyIndexError::io("read", &self.path)(e),
        })?;
        self.read_bytes += bytes.len() as u64;
        for (number, stored) in (first..).zip(bytes.chunks(stored_part as usize)) {
            let part = self.verify(number, stored, digests)?;
            if self.kept.len() == KEPT_PARTS {
                self.kept.pop_front();
            }
            self.kept.push_back((number, part));
        }
        Ok(())
    }

    fn verify(&self, number: u64, stored: &[u8], digests: &[Digest]) -> Result<Vec<u8>, KeyIndexError> {
        let Some(sealer) = &self.sealer else {
            let is_right = digests.get(number as usize).is_some_and(|digest| *digest == digest_of(stored));
            let wrong =
                || self.damaged(number * DIGEST_BYTES, "its bytes are not those of the digest in the key index");
            return if is_right { Ok(stored.to_vec()) } else { Err(wrong()) };
        };
        let position = number * stored_chunk();
        let is_last = position + stored.len() as u64 == self.stored;
        let opened = open_chunk(sealer, number, is_last, stored);
        opened.ok_or_else(|| self.damaged(position, &format!("chunk {number} cannot be decrypted at its place")))
    }

    fn damaged(&self, offset: u64, what: &str) -> KeyIndexError {
        KeyIndexError::Base { path: self.path.clone(), offset, what: what.to_owned() }
    }
}
