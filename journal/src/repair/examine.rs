//! What is left of one segment file: runs of whole blocks that follow on each other, and whatever is wrong.
//!
//! Changes nothing. A header of which bits are wrong is made right from what its blocks, and other segments of the
//! timeline, repeat of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{BlockHeader, Groups, decode_payload};
use crate::crypto::{KeyFault, Keyring, Sealer};
use crate::error::{Damage, OpenError};
use crate::files;
use crate::segment::header::{HeaderFault, MAX_HEADER_LEN, SegmentHeader, SourceHistory, TimelineFacts, WholeHeader};
use crate::segment::link::{Link, hash_file};
use crate::segment::load::{TailFact, load_open_segment, read_tail};
use crate::segment::name::SegmentName;
use crate::segment::scan::{BlockFault, Rest, find_later_block, read_block_header, read_payload};
use crate::segment::tally::Tally;
use crate::types::{Lsn, TimelineId};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
}

/// Whole blocks that follow on each other.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// As a segment that holds just them has it.
    pub(super) header: SegmentHeader,
    pub(super) tally: Tally,
    /// Where they are; not one range if something worthless lies between.
    pub(super) ranges: Vec<Range<u64>>,
}

impl Run {
    fn begin(header: SegmentHeader) -> Self {
        Self { tally: Tally::begin(&header), header, ranges: Vec::new() }
    }

    fn add(&mut self, block: &BlockHeader) {
        self.tally.add(block, block.position);
        match self.ranges.last_mut() {
            Some(range) if range.end == block.position => range.end += block.len(),
            _ => self.ranges.push(block.position..block.position + block.len()),
        }
    }
}

/// How a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is as it was written: its link.
    Sealed(Link),
    /// It is as it was written, and was not sealed; there may be a torn tail.
    Open,
    /// Something is wrong with it.
    Broken,
}

/// What is left of a file.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) path: PathBuf,
    pub(super) name: SegmentName,
    pub(super) state: State,
    /// `None` = nothing can be made of it.
    pub(super) whole: Option<WholeHeader>,
    pub(super) runs: Vec<Run>,
    /// Its records were before this LSN, as far as it tells.
    pub(super) claims: Lsn,
    pub(super) faults: Vec<Fault>,
    pub(super) sealer: Result<Option<Arc<Sealer>>, KeyFault>,
}

/// What is known from elsewhere.
pub(super) struct Known<'a> {
    pub(super) journal_id: [u8; 16],
    pub(super) timelines: &'a BTreeMap<TimelineId, TimelineFacts>,
    /// The headers that are right.
    pub(super) headers: &'a BTreeMap<SegmentName, SegmentHeader>,
    pub(super) keyring: &'a Keyring,
}

impl Known<'_> {
    /// Which id the timeline's source had in a segment, as its neighbours say.
    fn source_of(&self, name: SegmentName, timeline: &TimelineFacts) -> (String, SourceHistory) {
        let of_timeline = |header: &&SegmentHeader| header.timeline.id == timeline.id;
        let before = self.headers.range(..name).next_back().map(|(_, header)| header).filter(of_timeline);
        let after = self.headers.range(name..).find(|(other, _)| **other != name).map(|(_, header)| header);
        let id = match (after.filter(of_timeline), before) {
            (Some(after), _) => after.source_before(),
            (None, Some(before)) => &before.timeline.source_id,
            (None, None) => &timeline.source_id,
        };
        let source = match before {
            Some(before) if before.timeline.source_id == id => before.source.after(),
            Some(before) => SourceHistory::ChangedHere { before: before.timeline.source_id.clone() },
            None => SourceHistory::Unchanged,
        };
        (id.to_owned(), source)
    }
}

/// Looks at one file; only the last one may be unfinished. `None` = it was just being created, and holds nothing.
pub(super) fn examine(
    name: SegmentName,
    path: &Path,
    is_last: bool,
    known: &Known<'_>,
) -> Result<Option<Examined>, OpenError> {
    let file = files::open_read(path).map_err(OpenError::io("open", path))?;
    let facts = load_open_segment(&file, name, path, true)?;
    let mut found = Examined {
        path: path.to_owned(),
        name,
        state: State::Broken,
        whole: None,
        runs: Vec::new(),
        claims: name.first_lsn,
        faults: Vec::new(),
        sealer: Ok(None),
    };
    let read = OpenError::io("read", path);
    let (whole, tail) = match facts.header {
        Ok(whole) => (whole, facts.tail),
        Err(HeaderFault::Newer(version)) => {
            let file = path.to_owned();
            return Err(OpenError::NewerFormat { file, found: version, supported: crate::FORMAT_VERSION });
        }
        Err(HeaderFault::Unfinished) if is_last => return Ok(None),
        Err(HeaderFault::Unfinished) => {
            found.fault(0, "it ends within its header");
            return Ok(Some(found));
        }
        Err(HeaderFault::Bad(damage)) => {
            let healed = heal(&file, facts.bytes, name, known).map_err(OpenError::io("read", path))?;
            let Some((whole, how)) = healed else {
                // No block is smaller than its header, and each may hold many records.
                found.claims = Lsn(name.first_lsn.0.saturating_add(facts.bytes));
                found.fault(0, format!("{damage}; nothing can be made of it"));
                return Ok(Some(found));
            };
            found.fault(0, format!("{damage}; {how}"));
            let tail = read_tail(&file, facts.bytes, &whole, true).map_err(OpenError::io("read", path))?;
            (whole, tail)
        }
    };
    if whole.header.journal_id != known.journal_id {
        let id = crate::hex::hex(&whole.header.journal_id);
        found.fault(0, format!("it belongs to another journal, {id}"));
        return Ok(Some(found));
    }
    found.sealer = whole.header.unlock(known.keyring);
    found.claims = whole.header.first_lsn;
    found.look(&file, facts.bytes, whole, &tail, is_last).map_err(read)?;
    if found.state == State::Open && !is_last {
        found.fault(facts.bytes, "it has no footer, and is not the last one");
        found.state = State::Broken;
    }
    Ok(Some(found))
}

impl Examined {
    fn fault(&mut self, offset: u64, what: impl Into<String>) {
        self.faults.push(Fault { file: self.path.clone(), offset, what: what.into() });
    }

    fn look(&mut self, file: &File, bytes: u64, whole: WholeHeader, tail: &TailFact, is_last: bool) -> io::Result<()> {
        // Its header had to be healed, if anything.
        let mut right = self.faults.is_empty();
        let torn = match tail {
            TailFact::Sealed(footer) => self.walk(file, &whole, footer.blocks_end)?,
            TailFact::Open(scan) if matches!(scan.rest, Rest::Corrupt { .. }) => self.walk(file, &whole, bytes)?,
            // It is written anew, from blocks of which the groups can be read.
            TailFact::Open(scan) if !is_last => self.walk(file, &whole, scan.end)?,
            // What a crash may leave behind the blocks is the next writer's to cut.
            TailFact::Open(scan) => {
                let mut run = Run::begin(whole.header.clone());
                run.tally = scan.tally.clone();
                run.ranges.push(whole.len..scan.end);
                self.runs.push(run);
                None
            }
            _ => self.walk(file, &whole, bytes)?,
        };
        right &= self.faults.is_empty();
        match tail {
            TailFact::Sealed(footer) => {
                self.claims = self.claims.max(footer.tally.extent.next_lsn);
                let digest = hash_file(file, footer.position)?;
                let fits = self.runs.len() == 1 && self.runs[0].tally == footer.tally;
                let proven = match &self.sealer {
                    Ok(sealer) => footer.check_proof(sealer.as_deref()).is_ok(),
                    Err(_) => footer.proof.is_some(),
                };
                if let Some((at, damage)) = torn {
                    self.fault(at, damage.to_string());
                } else if right && !fits {
                    self.fault(footer.position, "the footer's sums or index do not fit the blocks");
                } else if right && !proven {
                    self.fault(footer.position, "the footer was written without the key");
                } else if right && digest.as_bytes() != &footer.digest {
                    self.fault(footer.blocks_end, "it is not as it was written: its digest is another");
                } else if right {
                    self.state = State::Sealed(footer.link());
                }
            }
            TailFact::BadFooter { position, damage } => self.fault(*position, damage.to_string()),
            TailFact::Open(_) | TailFact::Unknown if right => self.state = State::Open,
            TailFact::Open(_) | TailFact::Unknown => {}
        }
        let own = whole.header.name();
        if own != self.name {
            self.fault(0, format!("it is the segment {own}, not the one that its name says"));
        }
        let worthless = self.state == State::Broken && self.runs.len() > 1;
        self.runs.retain(|run| !(worthless && run.tally.blocks == 0));
        let extent = |run: &Run| run.tally.extent.next_lsn;
        self.claims = self.runs.iter().map(extent).fold(self.claims, Lsn::max);
        self.whole = Some(whole);
        Ok(())
    }

    /// Walks the blocks. Gives what is wrong behind the last whole one, if anything is there.
    fn walk(&mut self, file: &File, whole: &WholeHeader, end: u64) -> io::Result<Option<(u64, Damage)>> {
        let sealer = self.sealer.clone();
        let mut run = Run::begin(whole.header.clone());
        let mut at = whole.len;
        while at < end {
            match read_block(file, at, end, whole.tag, &sealer) {
                Ok(block) => {
                    if let Err(damage) = run.tally.check_next(&block) {
                        self.fault(at, damage.to_string());
                        if block.first_lsn < run.tally.extent.next_lsn {
                            // Stale: what it holds was there before.
                            at += block.len();
                            continue;
                        }
                        let next = Run::begin(behind(&run, &block));
                        self.runs.push(std::mem::replace(&mut run, next));
                    }
                    run.add(&block);
                    at += block.len();
                }
                Err(BlockFault::Io(e)) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
                Err(fault) => {
                    let Some(later) = find_later_block(file, at + 1, end, Some(whole.tag))? else {
                        self.runs.push(run);
                        return Ok(Some((at, Damage::new("a whole block", fault.to_string()))));
                    };
                    self.fault(at, fault.to_string());
                    at = later.position;
                }
            }
        }
        self.runs.push(run);
        Ok(None)
    }
}

/// The header of a segment that begins with this block, behind a hole.
fn behind(run: &Run, block: &BlockHeader) -> SegmentHeader {
    let extent = &run.tally.extent;
    SegmentHeader {
        first_lsn: block.first_lsn,
        last_ts: extent.last_ts.min(block.first_ts),
        complete_until: run.tally.complete_until,
        start_offset: block.start_offset,
        start_db: run.tally.end_db,
        source: run.header.source.after(),
        ..run.header.clone()
    }
}

/// One block, down to its groups if it can be decrypted.
fn read_block(
    file: &File,
    at: u64,
    end: u64,
    tag: u32,
    sealer: &Result<Option<Arc<Sealer>>, KeyFault>,
) -> Result<BlockHeader, BlockFault> {
    let block = read_block_header(file, at, end, Some(tag))?;
    let stored = read_payload(file, &block)?;
    if let Ok(sealer) = sealer {
        let payload = decode_payload(&block, stored, sealer.as_deref())?;
        for group in Groups::new(block, payload) {
            group?;
        }
    }
    Ok(block)
}

/// Makes a header right, with words for how.
fn heal(
    file: &File,
    bytes: u64,
    name: SegmentName,
    known: &Known<'_>,
) -> io::Result<Option<(WholeHeader, &'static str)>> {
    let Some(block) = find_later_block(file, 0, bytes, None)? else { return Ok(None) };
    let mut head = vec![0; (MAX_HEADER_LEN as u64).min(block.position) as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut head, 0)?;
    if let Some(whole) = flip_back(&head, bytes, block.segment_tag) {
        return Ok(Some((whole, "one bit was wrong, and its blocks prove which")));
    }
    // Whatever it said of the blocks, they say themselves; only a wrapped key is nowhere else.
    let Some(timeline) = known.timelines.get(&name.timeline).filter(|_| !block.encrypted) else { return Ok(None) };
    let (source_id, source) = known.source_of(name, timeline);
    let header = SegmentHeader {
        journal_id: known.journal_id,
        first_lsn: block.first_lsn,
        timeline: TimelineFacts { source_id, ..timeline.clone() },
        source,
        prev_link: [0; 32],
        created: block.first_ts,
        last_ts: block.first_ts,
        complete_until: timeline.start_ts,
        start_offset: block.start_offset,
        start_db: 0,
        packed: false,
        cipher: None,
    };
    let whole = WholeHeader { header, len: block.position, tag: block.segment_tag };
    Ok(Some((whole, "its blocks, and other files of its timeline, say what it said")))
}

/// The header with one bit changed, or with another checksum, so that it is the one that the blocks name.
fn flip_back(head: &[u8], bytes: u64, tag: u32) -> Option<WholeHeader> {
    let decode = |head: &[u8]| match SegmentHeader::decode(head, bytes) {
        Ok((header, len, found)) if found == tag => Some(WholeHeader { header, len, tag }),
        _ => None,
    };
    let mut head = head.to_vec();
    for bit in 0..head.len() * 8 {
        head[bit / 8] ^= 1 << (bit % 8);
        if let Some(whole) = decode(&head) {
            return Some(whole);
        }
        head[bit / 8] ^= 1 << (bit % 8);
    }
    let at = head.len().checked_sub(4)?;
    head[at..].copy_from_slice(&tag.to_le_bytes());
    decode(&head)
}
