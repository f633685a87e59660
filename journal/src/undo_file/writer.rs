//! Appends to an undo file.
//!
//! Entries wait in memory until there are enough of them, or until [`UndoWriter::sync`]; so many appends cost one write and one sync.
//! After a failed write or sync the writer does nothing any more. After a failed write it cuts off what it has written of an entry, where the disk
//! allows that; after a failed sync it touches nothing. Whatever is left, the next writer finds whole entries and a torn tail.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::entry::{EntryNumber, UndoEntry};
use super::error::UndoFileError;
use super::head::{UndoHead, WholeHead};
use super::lock::OperationLock;
use super::moved::MovedKeys;
use super::part::{self, PART_BYTES, PartHeader};
use super::progress::Progress;
use super::reader::UndoReader;
use super::{MAX_ENTRIES, MAX_ENTRY_BYTES};
use crate::files;

/// So many bytes wait, at most, and one part.
const WAITING_BYTES: usize = 256 << 10;

/// The one writer of a file.
#[derive(Debug)]
pub struct UndoWriter {
    path: PathBuf,
    file: File,
    whole: WholeHead,
    /// Number of the next part.
    next: u64,
    entries: u64,
    moved: MovedKeys,
    /// Room for the first bytes of an entry.
    begin: Vec<u8>,
    /// Parts that are not written yet.
    waiting: Vec<u8>,
    /// Where they will stand.
    written: u64,
    /// End of the last whole entry in the file.
    whole_end: u64,
    /// Up to where the file was synced.
    synced: u64,
    state: State,
    _lock: OperationLock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Broken,
    Finished,
}

impl UndoWriter {
    /// Goes on in a file that is synced, whole, and locked.
    pub(super) fn new(path: &Path, file: File, whole: WholeHead, len: u64, lock: OperationLock) -> Self {
        Self {
            path: path.to_owned(),
            file,
            whole,
            next: 0,
            entries: 0,
            moved: MovedKeys::default(),
            begin: Vec::new(),
            waiting: Vec::new(),
            written: len,
            whole_end: len,
            synced: len,
            state: State::Open,
            _lock: lock,
        }
    }

    /// Goes on behind the entries that are there.
    pub(super) fn behind(mut self, progress: &Progress, next: u64) -> Self {
        (self.next, self.entries, self.moved) = (next, progress.entries(), progress.moved_keys());
        self
    }

    /// What the file says of itself.
    pub fn head(&self) -> &UndoHead {
        &self.whole.head
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an entry; says its number, by which [`UndoEntry::Done`] names it. It is on no disk before [`UndoWriter::sync`] says so.
    pub fn append(&mut self, entry: &UndoEntry<'_>) -> Result<EntryNumber, UndoFileError> {
        self.check(entry)?;
        let number = EntryNumber(self.next);
        let mut begin = std::mem::take(&mut self.begin);
        begin.clear();
        let rest = entry.encode_into(&mut begin);
        let bytes = (begin.len() + rest.len()) as u64;
        if bytes > MAX_ENTRY_BYTES {
            return Err(UndoFileError::TooLarge { path: self.path.clone(), bytes });
        }
        self.append_parts(&begin, rest)?;
        self.begin = begin;
        self.entries += 1;
        // The limit was checked.
        let _ = self.moved.see(number, entry);
        if *entry == UndoEntry::Finished {
            self.sync()?;
            self.state = State::Finished;
        }
        Ok(number)
    }

    fn check(&self, entry: &UndoEntry<'_>) -> Result<(), UndoFileError> {
        let path = || self.path.clone();
        match self.state {
            State::Open => {}
            State::Broken => return Err(UndoFileError::Broken { path: path() }),
            State::Finished => return Err(UndoFileError::Finished { path: path() }),
        }
        if let Some((first, last)) = entry.speaks_of()
            && (first > last || last.0 >= self.next)
        {
            let cause = format!("entries {} to {} are not there", first.0, last.0);
            let error = io::Error::new(io::ErrorKind::InvalidInput, cause);
            return Err(UndoFileError::io("append to", &self.path)(error));
        }
        match entry {
            // The last entry is kept for the end.
            UndoEntry::Finished => {}
            _ if self.entries + 1 >= MAX_ENTRIES => return Err(UndoFileError::TooMany { path: path() }),
            _ => {}
        }
        self.moved.check(entry).map_err(|_| UndoFileError::TooManyMoved { path: path() })
    }

    /// Cuts an entry into parts.
    fn append_parts(&mut self, begin: &[u8], rest: &[u8]) -> Result<(), UndoFileError> {
        if rest.is_empty() && begin.len() <= PART_BYTES {
            return self.append_part(begin, true);
        }
        let (mut begin, mut rest) = (begin, rest);
        let mut body = Vec::with_capacity(PART_BYTES.min(begin.len() + rest.len()));
        loop {
            body.clear();
            for bytes in [&mut begin, &mut rest] {
                let (now, later) = bytes.split_at(bytes.len().min(PART_BYTES - body.len()));
                body.extend_from_slice(now);
                *bytes = later;
            }
            let is_last = begin.is_empty() && rest.is_empty();
            self.append_part(&body, is_last)?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// What waits of it is written with what comes next.
    fn append_part(&mut self, body: &[u8], is_last: bool) -> Result<(), UndoFileError> {
        let header = PartHeader { len: 0, is_last, number: self.next, synced: self.synced, body_crc: 0 };
        part::store(header, self.whole.tag, self.whole.sealer.as_ref(), body, &mut self.waiting);
        self.next += 1;
        if self.waiting.len() >= WAITING_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), UndoFileError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all_at(&self.waiting, self.written) {
            self.state = State::Broken;
            // If this fails as well, the next writer finds a torn tail.
            let _ = self.file.set_len(self.whole_end);
            return Err(UndoFileError::io("write", &self.path)(error));
        }
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Makes all that was appended durable: one write, one sync. Only then may the writes be sent for which the entries stand.
    pub fn sync(&mut self) -> Result<(), UndoFileError> {
        match self.state {
            State::Open => {}
            State::Broken => return Err(UndoFileError::Broken { path: self.path.clone() }),
            State::Finished => return Ok(()),
        }
        self.write_out()?;
        self.whole_end = self.written;
        if self.synced == self.written {
            return Ok(());
        }
        if let Err(error) = files::sync_data(&self.file) {
            self.state = State::Broken;
            return Err(UndoFileError::io("sync", &self.path)(error));
        }
        self.synced = self.written;
        Ok(())
    }

    /// Says that all was done, synced. Nothing is written to this file any more.
    pub fn finish(&mut self) -> Result<(), UndoFileError> {
        self.append(&UndoEntry::Finished).map(drop)
    }

    /// Reads what was appended so far, beside this writer.
    pub fn read_back(&mut self) -> Result<UndoReader, UndoFileError> {
        self.write_out()?;
        let file = self.file.try_clone().map_err(UndoFileError::io("read", &self.path))?;
        UndoReader::of_writer(&self.path, Box::new(file), &self.whole)
    }
}

impl Drop for UndoWriter {
    /// What still waits is written, not synced: a run that was interrupted has less in doubt then.
    fn drop(&mut self) {
        if self.state == State::Open {
            let _ = self.write_out();
        }
    }
}
