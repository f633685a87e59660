//! Reading the file, and checking it against the segment.

use std::io;
use std::path::Path;

use super::section::Section;
use super::{HEADER_LEN, LEN_BYTES, SECTION_BYTES_MAX, header_of, load};
use crate::block::BlockHeader;
use crate::bloom::BloomFilter;
use crate::crypto::Sealer;
use crate::error::Damage;
use crate::files;
use crate::segment::header::WholeHeader;
use crate::segment::scan::{BlockFault, read_block_header};
use crate::segment::tally::Tally;
use crate::storage::StoredFile;

/// What is known of the first part of a segment without reading it.
#[derive(Debug)]
pub(crate) struct Covered {
    /// Its end, where a block begins that gets an entry in the index.
    pub(crate) end: u64,
    /// The sum of its blocks, with their index.
    pub(crate) tally: Tally,
    /// For each entry of that index.
    pub(crate) filters: Vec<BloomFilter>,
}

/// An open segment that is not sealed.
#[derive(Clone, Copy)]
pub(crate) struct OpenedSegment<'a> {
    pub(crate) file: &'a dyn StoredFile,
    /// Its size when it was looked at; what was written later is not believed.
    pub(crate) bytes: u64,
    pub(crate) whole: &'a WholeHeader,
    pub(crate) sealer: Option<&'a Sealer>,
}

/// Why a section is not believed.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damage(#[from] Damage),
    #[error(transparent)]
    Block(#[from] BlockFault),
}

/// What the file at `path` says of a segment, as far as it fits. `None` = nothing: there is none, or it is of another segment.
pub(crate) fn read(path: &Path, segment: OpenedSegment<'_>) -> Option<Covered> {
    let file = match files::open_read(path) {
        Ok(file) => file,
        Err(e) => {
            if e.kind() != io::ErrorKind::NotFound {
                tracing::debug!("{} is ignored: {e}", path.display());
            }
            return None;
        }
    };
    let begin = segment.whole.len;
    let mut covered = Covered { end: begin, tally: Tally::begin(&segment.whole.header), filters: Vec::new() };
    // Beside a writer the last section may be in the making; and behind a crash, anything may be there.
    if let Err(fault) = read_sections(&file, segment, &mut covered) {
        tracing::debug!("{} is ignored from where it covers offset {} on: {fault}", path.display(), covered.end);
    }
    (covered.end > begin).then_some(covered)
}

fn read_sections(file: &dyn StoredFile, segment: OpenedSegment<'_>, covered: &mut Covered) -> Result<(), Fault> {
    let len = file.bytes()?;
    let mut header = [0; HEADER_LEN];
    file.read_exact_at(&mut header, 0)?;
    let tag = segment.whole.tag;
    if header != header_of(&segment.whole.header, tag) {
        return Err(Damage::new("the header of key filters of this segment", "another one").into());
    }
    let mut at = HEADER_LEN as u64;
    while at < len {
        let mut stored_len = [0; LEN_BYTES];
        file.read_exact_at(&mut stored_len, at)?;
        let stored_len = u32::from_le_bytes(stored_len) as usize;
        let end = at + LEN_BYTES as u64 + stored_len as u64;
        if end > len || stored_len > SECTION_BYTES_MAX {
            return Err(Damage::new("a section up to the end of the file", format!("{stored_len} bytes")).into());
        }
        let mut stored = vec![0; stored_len];
        file.read_exact_at(&mut stored, at + LEN_BYTES as u64)?;
        let section = Section::decode(&load(at, tag, segment.sealer, stored)?)?;
        if section.to > segment.bytes {
            // It was written since the segment was looked at.
            return Ok(());
        }
        covered.add(section, segment)?;
        at = end;
    }
    Ok(())
}

impl Covered {
    /// Takes a section over, if the segment's blocks are those of which it speaks.
    fn add(&mut self, section: Section, segment: OpenedSegment<'_>) -> Result<(), Fault> {
        let Section { from, to, mut sums, next_crc, crcs, filters } = section;
        let ends = sums.index.iter().skip(1).map(|entry| entry.position).chain([to]);
        let ordered = sums.index.iter().zip(ends).all(|(entry, end)| entry.position < end);
        if from != self.end || sums.index.first().is_none_or(|first| first.position != from) || !ordered {
            let found = format!("one over {from} to {to}, with {} entries", sums.index.len());
            return Err(Damage::new(format!("a section from {} on, with its index", self.end), found).into());
        }
        for (entry, crc) in sums.index.iter().zip(&crcs) {
            let block = block_at(entry.position, *crc, segment)?;
            let extent = block.extent();
            if (extent.next_lsn, extent.end_offset) != (entry.extent.next_lsn, entry.extent.end_offset) {
                return Err(Damage::new("an entry of its block", format!("another at {}", entry.position)).into());
            }
        }
        let next = block_at(to, next_crc, segment)?;
        sums.check_next(&next)?;
        let records = sums.extent.next_lsn.0.checked_sub(segment.whole.header.first_lsn.0);
        if records != Some(sums.records) || sums.groups > sums.records || !sums.opens_interval(&next, to) {
            return Err(Damage::new("sums of the blocks up to its end", "others").into());
        }
        self.tally.index.append(&mut sums.index);
        self.tally = Tally { index: std::mem::take(&mut self.tally.index), ..sums };
        self.filters.extend(filters);
        self.end = to;
        Ok(())
    }
}

/// The header of a block, if it has this checksum.
fn block_at(position: u64, crc: u32, segment: OpenedSegment<'_>) -> Result<BlockHeader, Fault> {
    let block = read_block_header(segment.file, position, segment.bytes, Some(segment.whole.tag))?;
    let found = block.checksum();
    if found != crc {
        let damage = Damage::new(format!("a block with checksum {crc:08x}"), format!("{found:08x} at {position}"));
        return Err(damage.into());
    }
    Ok(block)
}
