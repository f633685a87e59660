//! Writing the file, section by section, as the segment grows.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use super::section::SectionRef;
use super::{EVERY_BYTES, LEN_BYTES, SECTION_BYTES_MAX, header_of, overhead, store};
use crate::bloom::FilterBuilder;
use crate::crypto::Sealer;
use crate::directory::Directory;
use crate::files::{self, FileKind};
use crate::segment::header::SegmentHeader;
use crate::segment::tally::Tally;

/// Takes away what a segment that is not in use any more has left. It is derived data: a failure is logged.
/// What is no regular file is left alone.
pub(crate) fn remove(dir: &Directory) {
    let path = dir.filters();
    let removed = match files::kind_at(&path) {
        Ok(None) => return,
        Ok(Some(FileKind::Regular)) => std::fs::remove_file(&path),
        Ok(Some(kind)) => Err(io::Error::other(format!("it is {kind}"))),
        Err(e) => Err(e),
    };
    if let Err(e) = removed {
        tracing::warn!("cannot remove {}; it is ignored: {e}", path.display());
    }
}

/// The file for the segment in use.
#[derive(Debug)]
pub(crate) struct FiltersFile {
    dir: Directory,
    state: State,
    /// Checksum of the header of each block with an entry in the segment's index.
    header_crcs: Vec<u32>,
    /// The sum of the blocks before the last of them, without the index.
    before: Option<Tally>,
    /// So many entries are covered, with so many bytes of filters, up to here.
    entries: usize,
    built_bytes: u64,
    covered: u64,
}

#[derive(Debug)]
enum State {
    NotBegun,
    Open(File, u64),
    /// The segment has none.
    GivenUp,
}

/// The segment, as far as it is written and synced.
#[derive(Clone, Copy)]
pub(crate) struct SyncedSegment<'a> {
    pub(crate) header: &'a SegmentHeader,
    pub(crate) tag: u32,
    pub(crate) tally: &'a Tally,
    pub(crate) filters: &'a FilterBuilder,
    pub(crate) sealer: Option<&'a Sealer>,
}

impl FiltersFile {
    /// For a segment of which the blocks begin at this position. Creates nothing yet.
    pub(crate) fn new(dir: &Directory, blocks_begin: u64) -> Self {
        Self {
            dir: dir.clone(),
            state: State::NotBegun,
            header_crcs: Vec::new(),
            before: None,
            entries: 0,
            built_bytes: 0,
            covered: blocks_begin,
        }
    }

    /// A block gets an entry in the index. `before`: the sum of the blocks before it.
    pub(crate) fn begin_interval(&mut self, before: &Tally, header_crc: u32) {
        self.header_crcs.push(header_crc);
        self.before = Some(before.without_index());
    }

    /// Adds a section if enough is new. The last entry of the index stays out: its blocks are still to come.
    pub(crate) fn extend(&mut self, segment: SyncedSegment<'_>) {
        let (Some(sums), Some(last)) = (&self.before, segment.tally.index.last()) else { return };
        let new = last.position.saturating_sub(self.covered) + (segment.filters.built_bytes() - self.built_bytes);
        if new < EVERY_BYTES || matches!(self.state, State::GivenUp) {
            return;
        }
        let (from, to) = (self.entries, segment.tally.index.len() - 1);
        let section = SectionRef {
            from: self.covered,
            to: last.position,
            sums,
            next_crc: self.header_crcs[to],
            index: &segment.tally.index[from..to],
            crcs: &self.header_crcs[from..to],
            filters: &segment.filters.finished()[from..to],
        };
        let section = section.encode();
        if let Err(e) = self.append(segment, section) {
            let path = self.path();
            tracing::warn!(
                "cannot write {}; nothing is lost, but a search reads the segment in use whole: {e}",
                path.display()
            );
            self.give_up();
            return;
        }
        (self.entries, self.built_bytes, self.covered) = (to, segment.filters.built_bytes(), last.position);
    }

    fn append(&mut self, segment: SyncedSegment<'_>, section: Vec<u8>) -> io::Result<()> {
        let SyncedSegment { header, tag, sealer, .. } = segment;
        let len = section.len() + overhead(sealer);
        if len > SECTION_BYTES_MAX {
            return Err(io::Error::other(format!("a section would have {len} bytes")));
        }
        if matches!(self.state, State::NotBegun) {
            let mut file = files::create_new(&self.path())?;
            let header = header_of(header, tag);
            file.write_all(&header)?;
            self.state = State::Open(file, header.len() as u64);
        }
        let State::Open(file, position) = &mut self.state else { return Ok(()) };
        let mut bytes = Vec::with_capacity(LEN_BYTES + len);
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        bytes.extend_from_slice(&store(*position, tag, sealer, section));
        file.write_all(&bytes)?;
        *position += bytes.len() as u64;
        Ok(())
    }

    fn give_up(&mut self) {
        if matches!(self.state, State::Open(..)) {
            remove(&self.dir);
        }
        self.state = State::GivenUp;
    }

    fn path(&self) -> PathBuf {
        self.dir.filters()
    }

    /// The segment is not in use any more.
    pub(crate) fn end(self) {
        if matches!(self.state, State::Open(..)) {
            remove(&self.dir);
        }
    }
}
