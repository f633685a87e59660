//! Key filters of the segment in use, which has none in its file: made while it is walked for its last whole block.

use std::sync::Arc;

use bytes::Bytes;

use crate::block::{BlockHeader, decode_payload};
use crate::bloom::{FilterBuilder, SegmentFilters};
use crate::crypto::{KeyFault, Keyring, Sealer};
use crate::segment::header::WholeHeader;
use crate::segment::tally::Tally;

/// How large the segment is nobody says here: with very many keys, filters begin as large as they may be.
const UNKNOWN_SIZE: u64 = u64::MAX;

/// Takes block after block.
pub(super) struct OpenFilters {
    builder: FilterBuilder,
    keyring: Keyring,
    /// Of the segment, once there was a block.
    sealer: Option<Result<Option<Arc<Sealer>>, KeyFault>>,
}

impl OpenFilters {
    pub(super) fn new(keyring: &Keyring) -> Self {
        Self { builder: FilterBuilder::new(UNKNOWN_SIZE), keyring: keyring.clone(), sealer: None }
    }

    /// Adds the keys of the next block. `before`: the sum of the blocks before it.
    pub(super) fn add(&mut self, whole: &WholeHeader, before: &Tally, block: &BlockHeader, stored: &Bytes) {
        self.builder.begin_block(block.position, before.opens_interval(block, block.position));
        let sealer = self.sealer.get_or_insert_with(|| whole.header.unlock(&self.keyring));
        let payload = sealer.as_ref().ok().map(|sealer| decode_payload(block, stored.clone(), sealer.as_deref()));
        match payload {
            Some(Ok(payload)) => self.builder.add_payload(block, &payload),
            // What cannot be decoded is never ruled out: who reads it is told why.
            Some(Err(_)) | None => self.builder.add(None),
        }
    }

    pub(super) fn finish(self) -> SegmentFilters {
        self.builder.finish()
    }
}
