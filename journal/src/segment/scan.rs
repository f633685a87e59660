//! Walking the blocks of a segment file, and finding out what lies behind the last whole one.
//!
//! Nothing here changes a file. Memory is bounded by the largest block.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use crate::block::{BLOCK_HEADER_LEN, BLOCK_MAGIC, BlockHeader, PayloadFault};
use crate::directory::has_hole;
use crate::error::Damage;
use crate::segment::header::WholeHeader;
use crate::segment::tally::Tally;
use crate::storage::StoredFile;

/// How much is read at once while searching for a later block.
const SEARCH_CHUNK: usize = 1 << 20;

/// A failed read, or bytes that are wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockFault {
    /// The file system refused.
    #[error(transparent)]
    Io(io::Error),
    /// The block is damaged or incomplete.
    #[error(transparent)]
    Damage(Damage),
    /// The block is whole, and stored in a way that this program does not know.
    #[error("block codec {0} is unknown; use a newer redtape")]
    UnknownCodec(u8),
}

impl From<PayloadFault> for BlockFault {
    fn from(fault: PayloadFault) -> Self {
        match fault {
            PayloadFault::Damage(damage) => Self::Damage(damage),
            PayloadFault::UnknownCodec(codec) => Self::UnknownCodec(codec),
        }
    }
}

impl From<io::Error> for BlockFault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Damage> for BlockFault {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

/// Reads and checks the header of the block at `position`; the block must end at or before `end`,
/// and belong to the segment with this tag, if one is given.
pub(crate) fn read_block_header(
    file: &dyn StoredFile,
    position: u64,
    end: u64,
    tag: Option<u32>,
) -> Result<BlockHeader, BlockFault> {
    let left = end.saturating_sub(position);
    if left < BLOCK_HEADER_LEN as u64 {
        let found = format!("{left} bytes");
        return Err(Damage::new(format!("a block header of {BLOCK_HEADER_LEN} bytes"), found).into());
    }
    let mut bytes = [0; BLOCK_HEADER_LEN];
    file.read_exact_at(&mut bytes, position)?;
    let header = BlockHeader::decode(&bytes)?;
    header.check_place(position, tag.unwrap_or(header.segment_tag))?;
    if header.len() > left {
        let expected = format!("a block of {} bytes", header.len());
        return Err(Damage::new(expected, format!("{left} bytes")).into());
    }
    Ok(header)
}

/// Reads and checks the payload of a block whose header was read.
pub(crate) fn read_payload(file: &dyn StoredFile, header: &BlockHeader) -> Result<Bytes, BlockFault> {
    let mut payload = vec![0; header.stored_len as usize];
    file.read_exact_at(&mut payload, header.position + BLOCK_HEADER_LEN as u64)?;
    header.check_payload(&payload)?;
    Ok(Bytes::from(payload))
}

/// The blocks between two places of a file, where nothing but whole blocks should be; ends with the first error.
pub(crate) struct Blocks<'a> {
    file: &'a dyn StoredFile,
    tag: Option<u32>,
    position: u64,
    end: u64,
}

impl<'a> Blocks<'a> {
    /// All of a segment of which the blocks end there.
    pub(crate) fn of(file: &'a dyn StoredFile, whole: &WholeHeader, end: u64) -> Self {
        Self::between(file, Some(whole.tag), whole.len..end)
    }

    /// Those of a range; `tag`: of the segment to which they belong, if that is known.
    pub(crate) fn between(file: &'a dyn StoredFile, tag: Option<u32>, range: Range<u64>) -> Self {
        Self { file, tag, position: range.start, end: range.end }
    }

    fn read(&self) -> Result<(BlockHeader, Bytes), BlockFault> {
        let header = read_block_header(self.file, self.position, self.end, self.tag)?;
        Ok((header, read_payload(self.file, &header)?))
    }
}

impl Iterator for Blocks<'_> {
    /// Header and stored payload.
    type Item = Result<(BlockHeader, Bytes), BlockFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.end {
            return None;
        }
        let block = self.read();
        self.position = block.as_ref().map_or(self.end, |(header, _)| self.position + header.len());
        Some(block)
    }
}

/// What a walk over the blocks of an unsealed segment found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Sum of the whole blocks.
    pub(crate) tally: Tally,
    /// Where the last whole block ends.
    pub(crate) end: u64,
    /// What is behind it.
    pub(crate) rest: Rest,
}

/// What is behind the last whole block of an unsealed segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The end of the file.
    Nothing,
    /// Bytes that are no whole block, and no whole block after them, or only such as were never synced.
    Torn {
        /// How many bytes.
        bytes: u64,
        /// What is wrong with the first of them.
        damage: Damage,
    },
    /// Bytes that are no whole block, and a whole one after them, before which all had been synced.
    Corrupt {
        /// What is wrong with the first of them.
        damage: Damage,
        /// Where the later block begins.
        later: u64,
        /// Its header.
        block: Box<BlockHeader>,
    },
}

/// Walks the blocks from the end of the segment's header to `file_len`, checking everything but
/// the groups inside. `on_block` is given the sum of the blocks before, and each whole block's header and stored payload.
pub(crate) fn scan(
    file: &dyn StoredFile,
    file_len: u64,
    whole: &WholeHeader,
    on_block: impl FnMut(&Tally, &BlockHeader, &Bytes),
) -> io::Result<Scan> {
    scan_from((Tally::begin(&whole.header), whole.len), file, file_len, whole, on_block)
}

/// The same from a block on of which the position and the sum of the blocks before are known.
pub(crate) fn scan_from(
    (mut tally, mut end): (Tally, u64),
    file: &dyn StoredFile,
    file_len: u64,
    whole: &WholeHeader,
    mut on_block: impl FnMut(&Tally, &BlockHeader, &Bytes),
) -> io::Result<Scan> {
    let tag = whole.tag;
    while end < file_len {
        let block = read_block_header(file, end, file_len, Some(tag)).and_then(|block| {
            tally.check_next(&block)?;
            Ok((block, read_payload(file, &block)?))
        });
        match block {
            Ok((block, payload)) => {
                on_block(&tally, &block, &payload);
                tally.add(&block, end);
                end += block.len();
            }
            Err(BlockFault::Io(e)) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            Err(fault) => {
                let damage = match fault {
                    BlockFault::Damage(damage) => damage,
                    // Nothing is decoded here, so a codec cannot be at fault.
                    BlockFault::Io(_) | BlockFault::UnknownCodec(_) => {
                        Damage::new("a whole block", "the end of the file")
                    }
                };
                let rest = match find_proof(file, end, file_len, tag)? {
                    Some(block) => Rest::Corrupt { damage, later: block.position, block: Box::new(block) },
                    None => Rest::Torn { bytes: file_len - end, damage },
                };
                return Ok(Scan { tally, end, rest });
            }
        }
    }
    Ok(Scan { tally, end, rest: Rest::Nothing })
}

/// Finds a whole block behind what is wrong at `end` that proves it to be damage.
///
/// What was written since the last sync reaches the disk in any order: when the power fails, a sector may be missing and
/// what was written behind it may be there. So a hole (a sector that reads as zeros) is a tear as long as
/// each whole block behind it says that what is before it may not have been synced.
fn find_proof(file: &dyn StoredFile, end: u64, file_len: u64, tag: u32) -> io::Result<Option<BlockHeader>> {
    let Some(first) = find_later_block(file, end + 1, file_len, Some(tag))? else { return Ok(None) };
    let mut later = first;
    let mut wrong = vec![0; (first.position - end) as usize];
    file.read_exact_at(&mut wrong, end)?;
    if !has_hole(&wrong, end) {
        return Ok(Some(first));
    }
    while later.behind_unsynced {
        match find_later_block(file, later.position + later.len(), file_len, Some(tag))? {
            Some(block) => later = block,
            None => return Ok(None),
        }
    }
    Ok(Some(later))
}

/// Finds the first whole block of this segment at or after `from`.
pub(crate) fn find_later_block(
    file: &dyn StoredFile,
    from: u64,
    file_len: u64,
    tag: Option<u32>,
) -> io::Result<Option<BlockHeader>> {
    let mut start = from;
    let mut chunk = vec![0; SEARCH_CHUNK.min(file_len.saturating_sub(from) as usize)];
    while start + (BLOCK_HEADER_LEN as u64) <= file_len {
        let len = chunk.len().min((file_len - start) as usize);
        match file.read_exact_at(&mut chunk[..len], start) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let mut at = 0;
        while let Some(n) = chunk[at..len].iter().position(|&b| b == BLOCK_MAGIC[0]) {
            at += n;
            let position = start + at as u64;
            if chunk[at..len].starts_with(&BLOCK_MAGIC)
                && let Some(block) = whole_block(file, position, file_len, tag)?
            {
                return Ok(Some(block));
            }
            at += 1;
        }
        // A magic may lie across two chunks.
        start += (len.saturating_sub(BLOCK_MAGIC.len() - 1)).max(1) as u64;
    }
    Ok(None)
}

fn whole_block(
    file: &dyn StoredFile,
    position: u64,
    file_len: u64,
    tag: Option<u32>,
) -> io::Result<Option<BlockHeader>> {
    let block =
        read_block_header(file, position, file_len, tag).and_then(|block| read_payload(file, &block).map(|_| block));
    match block {
        Ok(block) => Ok(Some(block)),
        Err(BlockFault::Io(e)) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
        Err(_) => Ok(None),
    }
}
