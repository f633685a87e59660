//! Reading what a segment file says of itself: header, and footer or blocks.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::block::BlockHeader;
use crate::directory::{TEMPORARY, has_hole};
use crate::error::{Damage, OpenError};
use crate::segment::footer::{FOOTER_MAGIC, Footer, TAIL_LEN};
use crate::segment::header::{HeaderFault, MAX_HEADER_LEN, SegmentHeader, WholeHeader};
use crate::segment::name::SegmentName;
use crate::segment::scan::{Rest, Scan, find_later_block, scan_from};
use crate::segment::tally::Tally;
use crate::storage::{Folder, Storage, StoredFile};

/// What is known of one segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) path: PathBuf,
    pub(crate) name: SegmentName,
    pub(crate) bytes: u64,
    pub(crate) header: Result<WholeHeader, HeaderFault>,
    pub(crate) tail: TailFact,
}

/// How a segment file ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TailFact {
    /// With a whole footer.
    Sealed(Footer),
    /// With a footer of which the tail is there and the rest is wrong.
    BadFooter {
        /// Where it begins.
        position: u64,
        /// What is wrong.
        damage: Damage,
    },
    /// Without a footer, and it was asked for the blocks.
    Open(Scan),
    /// Without a footer; or the header is wrong, and nothing more can be said.
    Unknown,
}

/// Goes along with the walk over the blocks of a segment without a footer.
pub(crate) trait Walk {
    /// How far the walk may begin behind the header, with the sum of the blocks before.
    fn begin(&mut self, file: &dyn StoredFile, file_len: u64, whole: &WholeHeader) -> Option<(Tally, u64)>;

    /// The next whole block, with the sum of the blocks before.
    fn block(&mut self, whole: &WholeHeader, before: &Tally, block: &BlockHeader, stored: &Bytes);
}

/// Looks at all blocks, and takes nothing of them.
struct WalkAll;

impl Walk for WalkAll {
    fn begin(&mut self, _: &dyn StoredFile, _: u64, _: &WholeHeader) -> Option<(Tally, u64)> {
        None
    }

    fn block(&mut self, _: &WholeHeader, _: &Tally, _: &BlockHeader, _: &Bytes) {}
}

/// Segments in the order of the history, with their paths.
type Names = Vec<(SegmentName, PathBuf)>;

/// A listing is repeated until it gives the same twice, so many times.
const LISTINGS_MAX: usize = 100;

/// Lists the segments of a journal in the order of the history, and the names of other files.
///
/// Where a copy takes the place of a segment meanwhile, a listing may miss that name (on tmpfs with many files). Each does
/// so once: it is there in the next.
pub(crate) fn list_segments(storage: &dyn Storage) -> Result<(Names, Vec<String>), OpenError> {
    let mut listed = list_once(storage)?;
    for _ in 1..LISTINGS_MAX {
        let again = list_once(storage)?;
        if again == listed {
            break;
        }
        listed = again;
    }
    Ok(listed)
}

fn list_once(storage: &dyn Storage) -> Result<(Names, Vec<String>), OpenError> {
    let mut segments = Vec::new();
    let mut others = Vec::new();
    let list = storage.list(Folder::Segments);
    let Some(paths) = list.map_err(|e| OpenError::io("list", storage.folder(Folder::Segments))(e))? else {
        return Ok((segments, others));
    };
    for path in paths {
        let file_name = path.file_name().unwrap_or_default();
        // A packed copy that is being made, or that a crash left.
        if file_name.to_string_lossy().starts_with(TEMPORARY) {
            continue;
        }
        match file_name.to_str().and_then(SegmentName::parse) {
            Some(name) => segments.push((name, path)),
            None => others.push(file_name.to_string_lossy().into_owned()),
        }
    }
    segments.sort_unstable_by_key(|(name, _)| *name);
    others.sort_unstable();
    Ok((segments, others))
}

/// Reads header and footer; if there is no footer and `with_blocks`, walks the blocks.
pub(crate) fn load_segment(
    storage: &dyn Storage,
    name: SegmentName,
    path: &Path,
    with_blocks: bool,
) -> Result<SegmentFacts, OpenError> {
    load_segment_and(storage, name, path, with_blocks, &mut WalkAll)
}

/// The same; `walk` goes along.
pub(crate) fn load_segment_and(
    storage: &dyn Storage,
    name: SegmentName,
    path: &Path,
    with_blocks: bool,
    walk: &mut dyn Walk,
) -> Result<SegmentFacts, OpenError> {
    let file = storage.open(path).map_err(OpenError::io("open", path))?;
    load_file(&*file, name, path, with_blocks, walk)
}

/// The same for who has opened the file and goes on reading from it: by its path there may soon be
/// another, since a sealed segment may be replaced by its packed copy.
pub(crate) fn load_open_segment(
    file: &dyn StoredFile,
    name: SegmentName,
    path: &Path,
    with_blocks: bool,
) -> Result<SegmentFacts, OpenError> {
    load_file(file, name, path, with_blocks, &mut WalkAll)
}

fn load_file(
    file: &dyn StoredFile,
    name: SegmentName,
    path: &Path,
    with_blocks: bool,
    walk: &mut dyn Walk,
) -> Result<SegmentFacts, OpenError> {
    let io_error = |e| OpenError::io("read", path)(e);
    let bytes = file.bytes().map_err(io_error)?;
    let header = read_header(file, bytes).map_err(io_error)?;
    let tail = match &header {
        Err(_) => TailFact::Unknown,
        Ok(whole) => walk_tail(file, bytes, whole, with_blocks, walk).map_err(io_error)?,
    };
    Ok(SegmentFacts { path: path.to_owned(), name, bytes, header, tail })
}

fn read_header(file: &dyn StoredFile, file_len: u64) -> io::Result<Result<WholeHeader, HeaderFault>> {
    let mut bytes = vec![0; MAX_HEADER_LEN.min(file_len as usize)];
    file.read_exact_at(&mut bytes, 0)?;
    let header = SegmentHeader::decode(&bytes, file_len).map(|(header, len, tag)| WholeHeader { header, len, tag });
    // A header is synced before the first block is written: with a block, it was finished once.
    if header == Err(HeaderFault::Unfinished)
        && let Some(block) = find_later_block(file, 0, file_len, None)?
    {
        let found = format!("none, but a block at {}", block.position);
        return Ok(Err(Damage::new("a segment header", found).into()));
    }
    Ok(header)
}

/// How the file ends; the header is right.
pub(crate) fn read_tail(
    file: &dyn StoredFile,
    file_len: u64,
    whole: &WholeHeader,
    with_blocks: bool,
) -> io::Result<TailFact> {
    walk_tail(file, file_len, whole, with_blocks, &mut WalkAll)
}

fn walk_tail(
    file: &dyn StoredFile,
    file_len: u64,
    whole: &WholeHeader,
    with_blocks: bool,
    walk: &mut dyn Walk,
) -> io::Result<TailFact> {
    let mut bad_footer = None;
    if let Some(position) = find_footer(file, file_len, whole.len)? {
        match read_footer(file, position, file_len, whole.tag)? {
            Ok(footer) if footer.copy_of.is_some() && !whole.header.packed => {
                let damage = Damage::new("a footer of the segment itself", "one of a packed copy");
                bad_footer = Some((position, damage));
            }
            Ok(footer) => return Ok(TailFact::Sealed(footer)),
            Err(damage) => bad_footer = Some((position, damage)),
        }
    }
    if !with_blocks {
        return Ok(match bad_footer {
            Some((position, damage)) => TailFact::BadFooter { position, damage },
            None => TailFact::Unknown,
        });
    }
    let begin = walk.begin(file, file_len, whole).unwrap_or_else(|| (Tally::begin(&whole.header), whole.len));
    let scan =
        scan_from(begin, file, file_len, whole, |before, block, stored| walk.block(whole, before, block, stored))?;
    if whole.header.packed {
        // It was put in place as a whole, so this is no tail that is being written.
        let (position, damage) =
            bad_footer.unwrap_or_else(|| (scan.end, Damage::new("a footer, as the segment is packed", "none")));
        return Ok(TailFact::BadFooter { position, damage });
    }
    // What looks like a tail may be the end of somebody's value: it is a footer's only if it begins like one, and fits this
    // place. If sectors of it are missing, its writer never came to sync it.
    if let (Some((position, damage)), Rest::Torn { .. }) = (bad_footer, &scan.rest)
        && (scan.end == position || footer_fits(file, position, whole.tag, scan.end)?)
        && !range_has_hole(file, position, file_len)?
    {
        return Ok(TailFact::BadFooter { position, damage });
    }
    Ok(TailFact::Open(scan))
}

/// Whether two of these three are right in what begins like a footer: its position, its segment's tag, and where the blocks end.
/// One wrong bit is in one of them at most; the value of a torn block does not know them.
fn footer_fits(file: &dyn StoredFile, position: u64, tag: u32, blocks_end: u64) -> io::Result<bool> {
    let mut begin = [0; Footer::BLOCKS_END_AT + 8];
    match file.read_exact_at(&mut begin, position) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        other => other?,
    }
    let found = [
        begin[8..16] == position.to_le_bytes(),
        begin[16..20] == tag.to_le_bytes(),
        begin[Footer::BLOCKS_END_AT..] == blocks_end.to_le_bytes(),
    ];
    Ok(begin[..8] == FOOTER_MAGIC && found.iter().filter(|right| **right).count() >= 2)
}

fn range_has_hole(file: &dyn StoredFile, from: u64, to: u64) -> io::Result<bool> {
    let mut bytes = vec![0; (to - from) as usize];
    file.read_exact_at(&mut bytes, from)?;
    Ok(has_hole(&bytes, from))
}

/// Where the footer begins of which the tail is at the end of the file, if that is possible.
fn find_footer(file: &dyn StoredFile, file_len: u64, header_len: u64) -> io::Result<Option<u64>> {
    if file_len < header_len + TAIL_LEN as u64 {
        return Ok(None);
    }
    let mut tail = [0; TAIL_LEN];
    file.read_exact_at(&mut tail, file_len - TAIL_LEN as u64)?;
    Ok(Footer::len_from_tail(&tail)
        .and_then(|len| file_len.checked_sub(len))
        .filter(|&position| position >= header_len))
}

/// Reads the footer between `position` and the end of the file.
pub(crate) fn read_footer(
    file: &dyn StoredFile,
    position: u64,
    file_len: u64,
    tag: u32,
) -> io::Result<Result<Footer, Damage>> {
    let mut magic = [0; FOOTER_MAGIC.len()];
    file.read_exact_at(&mut magic, position)?;
    if magic != FOOTER_MAGIC {
        let found = format!("bytes `{}`", magic.escape_ascii());
        return Ok(Err(Damage::new("a footer (`RTAPEFTR`)", found)));
    }
    let mut bytes = vec![0; (file_len - position) as usize];
    file.read_exact_at(&mut bytes, position)?;
    Ok(Footer::decode(&bytes, position, tag))
}
