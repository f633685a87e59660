//! Key filters of the segment in use, which has none in its file: taken from the file `filters` as far as that fits
//! ([`crate::filters_file`]), and made of what lies behind while the segment is walked for its last whole block.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::block::{BlockHeader, decode_payload};
use crate::bloom::{BloomFilter, FilterBuilder};
use crate::crypto::{KeyFault, Keyring, Sealer};
use crate::filters_file::{self, Covered, OpenedSegment};
use crate::segment::header::WholeHeader;
use crate::segment::load::Walk;
use crate::segment::tally::Tally;
use crate::storage::StoredFile;

/// How large the segment is nobody says here: with very many keys, filters begin as large as they may be.
const UNKNOWN_SIZE: u64 = u64::MAX;

/// Goes along with the walk over the last segment.
pub(super) struct OpenFilters {
    /// The file in which the writer keeps filters; `None` = none are wanted.
    path: Option<PathBuf>,
    /// Where the walk begins.
    from: u64,
    /// Of the first entries of the index.
    covered: Vec<BloomFilter>,
    /// Of the others.
    builder: FilterBuilder,
    keyring: Keyring,
    /// Of the segment, once it is walked.
    sealer: Option<Result<Option<Arc<Sealer>>, KeyFault>>,
}

impl OpenFilters {
    /// `path`: the file in which the writer keeps filters; `None` = none are wanted.
    pub(super) fn new(path: Option<PathBuf>, keyring: &Keyring) -> Self {
        let builder = FilterBuilder::new(UNKNOWN_SIZE);
        Self { path, from: 0, covered: Vec::new(), builder, keyring: keyring.clone(), sealer: None }
    }

    /// Where the walk began; 0 = at the segment's beginning.
    pub(super) fn walked_from(&self) -> u64 {
        self.from
    }

    /// One for each entry of the index; `None` = they are not wanted, or not complete.
    pub(super) fn finish(self, index_len: usize) -> Option<Vec<BloomFilter>> {
        let Self { path, covered: mut filters, builder, .. } = self;
        filters.extend(builder.finish().intervals);
        (path.is_some() && filters.len() == index_len).then_some(filters)
    }
}

impl Walk for OpenFilters {
    fn begin(&mut self, file: &dyn StoredFile, file_len: u64, whole: &WholeHeader) -> Option<(Tally, u64)> {
        let path = self.path.as_ref()?;
        let sealer = self.sealer.insert(whole.header.unlock(&self.keyring));
        let sealer = sealer.as_ref().ok()?.as_deref();
        let segment = OpenedSegment { file, bytes: file_len, whole, sealer };
        let Covered { end, tally, filters } = filters_file::read(path, segment)?;
        (self.covered, self.from) = (filters, end);
        Some((tally, end))
    }

    /// Adds the keys of the next block.
    fn block(&mut self, whole: &WholeHeader, before: &Tally, block: &BlockHeader, stored: &Bytes) {
        if self.path.is_none() {
            return;
        }
        self.builder.begin_block(block.position, before.opens_interval(block, block.position));
        let sealer = self.sealer.get_or_insert_with(|| whole.header.unlock(&self.keyring));
        let payload = sealer.as_ref().ok().map(|sealer| decode_payload(block, stored.clone(), sealer.as_deref()));
        match payload {
            Some(Ok(payload)) => self.builder.add_payload(block, &payload),
            // What cannot be decoded is never ruled out: who reads it is told why.
            Some(Err(_)) | None => self.builder.add(None),
        }
    }
}
