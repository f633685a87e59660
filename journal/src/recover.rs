//! What to do with the segments that a writer finds: a pure decision over what they say.
//!
//! A crash can leave only the end of the history unfinished, and only that is repaired. In the
//! order of the rows, for the last segment. *Missing* sectors read as zeros. *Torn*: no whole block follows behind the bytes
//! that are no whole block; or sectors are missing there, and each whole block behind says that they were not yet synced.
//!
//! | header | blocks | footer | decision |
//! | --- | --- | --- | --- |
//! | short, or sectors missing | none | none | creation was interrupted: to quarantine, continue after the segment before |
//! | the same | a whole one | any | corrupt (loading reports such a header as wrong) |
//! | wrong | any | any | corrupt |
//! | right | whole, with a record | whole | begin a new segment after it |
//! | right | whole, no record | whole | take the footer off, go on in it: a second segment would have its name |
//! | right, packed | any | none or wrong | corrupt: a packed segment came as a whole |
//! | right, packed | whole, no record | whole | corrupt: only a segment with a record is packed |
//! | right | whole | none | go on in it |
//! | right | whole, then torn, or key filters | none or begun, or sectors missing | cut, bytes to quarantine, go on in it |
//! | right | whole | complete but wrong | corrupt |
//! | right | bad, later a whole one that proves that it was synced | any | corrupt |
//!
//! For every other segment: header and footer must be right, else corrupt. And from each segment to
//! the next, journal id, digest, LSN, time and offset must continue, and timelines must not go back. Where a
//! repair has joined two segments, [`crate::splices`] says which digests meet, and which LSNs are lost.
//!
//! Corrupt means that nothing is changed and the journal is not opened for writing: [`crate::repair()`] does more, when
//! it is asked to.

use std::path::{Path, PathBuf};

use crate::FORMAT_VERSION;
use crate::error::{Damage, OpenError, Span};
use crate::segment::footer::Footer;
use crate::segment::header::{HeaderFault, SegmentHeader, WholeHeader};
use crate::segment::load::{SegmentFacts, TailFact};
use crate::segment::scan::{Rest, Scan};
use crate::segment::tally::Tally;
use crate::splices::Splices;
use crate::types::{Lsn, Micros};

/// What to do before writing goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// This file's creation was interrupted: move it to the quarantine.
    pub(crate) set_aside: Option<PathBuf>,
    /// Cut the last segment here, moving what is behind to the quarantine.
    pub(crate) cut: Option<Cut>,
    /// The last segment is sealed but holds no record: take its footer off.
    pub(crate) unseal: bool,
    /// Where writing goes on.
    pub(crate) resume: Resume,
}

/// Where to cut a torn tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) path: PathBuf,
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    pub(crate) damage: Damage,
}

/// Where writing goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Resume {
    /// There is nothing yet.
    #[default]
    Empty,
    /// A new segment after this sealed one.
    After { header: SegmentHeader, footer: Footer },
    /// In this unsealed one.
    In { path: PathBuf, whole: WholeHeader, scan: Scan },
}

/// Decides. `segments` are in the order of their names; if the last one has no footer, its blocks
/// were walked.
pub(crate) fn decide(segments: &[SegmentFacts], journal_id: [u8; 16], splices: &Splices) -> Result<Plan, OpenError> {
    let mut plan = Plan::default();
    let mut rest = segments;
    if let Some((last, before)) = segments.split_last()
        && matches!(last.header, Err(HeaderFault::Unfinished))
    {
        plan.set_aside = Some(last.path.clone());
        rest = before;
    }
    let mut previous: Option<(&SegmentHeader, &Footer)> = None;
    let mut last_sealed = None;
    for (n, segment) in rest.iter().enumerate() {
        let whole = check_header(segment, journal_id, previous, splices)?;
        let is_last = n + 1 == rest.len();
        match &segment.tail {
            TailFact::Sealed(footer) => {
                check_footer(segment, &whole.header, footer)?;
                previous = Some((&whole.header, footer));
                last_sealed = Some((segment, whole, footer));
            }
            TailFact::BadFooter { position, damage } => {
                return Err(corrupt(segment, *position, damage.clone()));
            }
            TailFact::Open(scan) if is_last && plan.set_aside.is_none() => {
                plan.cut = decide_rest(segment, scan)?;
                plan.resume = Resume::In { path: segment.path.clone(), whole: whole.clone(), scan: scan.clone() };
                return Ok(plan);
            }
            TailFact::Open(_) | TailFact::Unknown => {
                let damage = Damage::new("a footer, as it is not the last segment", "none");
                return Err(corrupt(segment, segment.bytes, damage));
            }
        }
    }
    if let Some((segment, whole, footer)) = last_sealed {
        plan.unseal = footer.tally.records == 0;
        if plan.unseal && whole.header.packed {
            let damage = Damage::new("a record, as the segment is packed", "none");
            return Err(corrupt(segment, footer.position, damage));
        }
        plan.resume = if plan.unseal {
            let tally = footer.tally.clone();
            Resume::In {
                path: segment.path.clone(),
                whole: whole.clone(),
                scan: Scan { tally, end: footer.blocks_end, rest: Rest::Nothing },
            }
        } else {
            Resume::After { header: whole.header.clone(), footer: footer.clone() }
        };
    }
    Ok(plan)
}

fn decide_rest(segment: &SegmentFacts, scan: &Scan) -> Result<Option<Cut>, OpenError> {
    match &scan.rest {
        Rest::Nothing => Ok(None),
        Rest::Torn { bytes, damage } => {
            Ok(Some(Cut { path: segment.path.clone(), at: scan.end, bytes: *bytes, damage: damage.clone() }))
        }
        Rest::Corrupt { damage, block, .. } => Err(OpenError::Corrupt {
            file: segment.path.clone(),
            offset: scan.end,
            span: span_of_rest(&scan.tally, block.first_lsn, block.first_ts),
            damage: Box::new(damage.clone()),
        }),
    }
}

/// From the end of the whole blocks to the beginning of a later one.
pub(crate) fn span_of_rest(tally: &Tally, later_lsn: Lsn, later_ts: Micros) -> Span {
    Span {
        from_lsn: tally.extent.next_lsn,
        to_lsn: Some(Lsn(later_lsn.0.saturating_sub(1))),
        from_ts: tally.extent.last_ts,
        to_ts: Some(later_ts),
    }
}

/// Checks a header by itself, against its file's name, and against the segment before.
pub(crate) fn check_header<'a>(
    segment: &'a SegmentFacts,
    journal_id: [u8; 16],
    previous: Option<(&SegmentHeader, &Footer)>,
    splices: &Splices,
) -> Result<&'a WholeHeader, OpenError> {
    let whole = match &segment.header {
        Ok(whole) => whole,
        Err(HeaderFault::Unfinished) => {
            let damage = Damage::new("a segment header", format!("{} bytes", segment.bytes));
            return Err(corrupt(segment, 0, damage));
        }
        Err(HeaderFault::Bad(damage)) => return Err(corrupt(segment, 0, damage.clone())),
        Err(HeaderFault::Newer(found)) => {
            return Err(OpenError::NewerFormat {
                file: segment.path.clone(),
                found: *found,
                supported: FORMAT_VERSION,
            });
        }
    };
    check_chain(&whole.header, segment, journal_id, previous, splices).map_err(|damage| corrupt(segment, 0, damage))?;
    Ok(whole)
}

fn check_chain(
    header: &SegmentHeader,
    segment: &SegmentFacts,
    journal_id: [u8; 16],
    previous: Option<(&SegmentHeader, &Footer)>,
    splices: &Splices,
) -> Result<(), Damage> {
    let expect = |holds: bool, expected: String, found: String| {
        if holds { Ok(()) } else { Err(Damage::new(expected, found)) }
    };
    let id = |id| crate::hex::hex(id);
    expect(
        header.journal_id == journal_id,
        format!("a segment of journal {}", id(&journal_id)),
        format!("one of journal {}", id(&header.journal_id)),
    )?;
    expect(
        header.first_lsn == segment.name.first_lsn && header.timeline.id == segment.name.timeline,
        format!("the segment that its name says, {}", segment.name),
        format!("first LSN {}, timeline {}", header.first_lsn, header.timeline.id),
    )?;
    let Some((before, footer)) = previous else {
        return expect(
            header.first_lsn.0 != 1 || header.prev_link == [0; 32] || header.timeline.id > crate::types::TimelineId(1),
            "no predecessor of the first segment".to_owned(),
            format!("link {}", crate::hex::hex(&header.prev_link)),
        );
    };
    let splice = splices.find(header, &footer.link());
    expect(
        header.prev_link == footer.link() || splice.is_some(),
        format!("a successor of the segment with the link {}", blake3::Hash::from(footer.link())),
        format!("one of {}; a segment is missing", blake3::Hash::from(header.prev_link)),
    )?;
    let end = &footer.tally.extent;
    let lost = splice.is_some_and(|splice| splice.lost.is_some());
    expect(
        header.first_lsn == end.next_lsn || (lost && header.first_lsn > end.next_lsn),
        format!("a segment that begins with LSN {}", end.next_lsn),
        format!("one with LSN {}", header.first_lsn),
    )?;
    expect(
        header.last_ts >= end.last_ts,
        format!("a segment from {} on", end.last_ts),
        format!("one from {} on", header.last_ts),
    )?;
    expect(
        header.timeline.id >= before.timeline.id,
        format!("timeline {} or later", before.timeline.id),
        format!("timeline {}", header.timeline.id),
    )?;
    if header.timeline.id == before.timeline.id {
        expect(
            header.timeline.is_same(&before.timeline) && header.start_offset >= end.end_offset,
            format!("{:?} from offset {} on", before.timeline, end.end_offset),
            format!("{:?} from offset {} on", header.timeline, header.start_offset),
        )?;
        // The segment in which it changed may be among those that a repair has replaced.
        expect(
            header.continues_source_of(before) || splice.is_some(),
            format!("a segment behind one of source {} ({:?})", before.timeline.source_id, before.source),
            format!("one of source {} ({:?})", header.timeline.source_id, header.source),
        )?;
    }
    Ok(())
}

/// Checks that a footer fits its segment's header.
pub(crate) fn check_footer(segment: &SegmentFacts, header: &SegmentHeader, footer: &Footer) -> Result<(), OpenError> {
    let t = &footer.tally;
    let records = t.extent.next_lsn.0.checked_sub(header.first_lsn.0);
    if records != Some(t.records) || t.extent.last_ts < header.last_ts || t.extent.end_offset < header.start_offset {
        let damage = Damage::new(
            format!("a footer that follows LSN {}, {}", header.first_lsn, header.last_ts),
            format!("{} records up to LSN {}", t.records, t.extent.next_lsn.0 - 1),
        );
        return Err(corrupt(segment, footer.position, damage));
    }
    if footer.proof.is_some() != header.cipher.is_some() {
        let damage = Damage::new("a footer with a proof if the segment is encrypted", "flags that say otherwise");
        return Err(corrupt(segment, footer.position, damage));
    }
    Ok(())
}

pub(crate) fn corrupt(segment: &SegmentFacts, offset: u64, damage: Damage) -> OpenError {
    OpenError::Corrupt { file: segment.path.clone(), offset, span: span_of(segment), damage: Box::new(damage) }
}

/// What a segment holds, as far as its name, header and footer tell.
pub(crate) fn span_of(segment: &SegmentFacts) -> Span {
    let mut span = Span { from_lsn: segment.name.first_lsn, ..Span::default() };
    if let Ok(whole) = &segment.header {
        span.from_ts = whole.header.last_ts;
    }
    if let TailFact::Sealed(footer) = &segment.tail {
        span.to_lsn = Some(Lsn(footer.tally.extent.next_lsn.0 - 1));
        span.to_ts = Some(footer.tally.extent.last_ts);
    }
    span
}

/// The quarantine's name for what was cut off a segment.
pub(crate) fn torn_name(path: &Path, offset: u64) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{file}.{offset}.torn")
}

#[cfg(test)]
pub(crate) mod tests;
