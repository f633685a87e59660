//! The rows of the table at the top of `recover`, and what lies between two segments.

use super::*;
use crate::block::{Block, BlockHeader};
use crate::segment::header::{SourceHistory, TimelineFacts};
use crate::segment::link::link;
use crate::segment::name::SegmentName;
use crate::segment::tally::Extent;
use crate::types::{ReplOffset, TimelineId};

const ID: [u8; 16] = [1; 16];

pub(crate) fn header(first_lsn: u64, timeline: u32, sealed_with: u8) -> SegmentHeader {
    SegmentHeader {
        journal_id: ID,
        first_lsn: Lsn(first_lsn),
        timeline: TimelineFacts {
            id: TimelineId(timeline),
            source_id: format!("source {timeline}"),
            reason: "reason".to_owned(),
            start_offset: ReplOffset(0),
            start_ts: Micros(0),
        },
        source: SourceHistory::Unchanged,
        prev_link: if sealed_with == 0 { [0; 32] } else { link(&[sealed_with; 32], false) },
        created: Micros(0),
        last_ts: Micros(first_lsn as i64),
        complete_until: Micros(0),
        start_offset: ReplOffset(first_lsn),
        start_db: 0,
        packed: false,
        cipher: None,
    }
}

fn tally(header: &SegmentHeader, records: u64) -> Tally {
    let end = header.first_lsn.0 + records;
    let extent = Extent { next_lsn: Lsn(end), last_ts: Micros(end as i64), end_offset: ReplOffset(end) };
    Tally { records, extent, ..Tally::begin(header) }
}

fn facts(header: SegmentHeader, tail: impl FnOnce(&SegmentHeader) -> TailFact) -> SegmentFacts {
    let name = SegmentName { first_lsn: header.first_lsn, timeline: header.timeline.id };
    SegmentFacts {
        path: PathBuf::from(name.to_string()),
        name,
        bytes: 1000,
        tail: tail(&header),
        header: Ok(WholeHeader { header, len: 200, tag: 5 }),
    }
}

fn sealed(records: u64, digest: u8) -> impl FnOnce(&SegmentHeader) -> TailFact {
    move |header| {
        TailFact::Sealed(Footer {
            tally: tally(header, records),
            digest: [digest; 32],
            copy_of: None,
            filters: None,
            blocks_end: 900,
            position: 900,
            segment_tag: 5,
            proof: None,
        })
    }
}

fn open(rest: Rest) -> impl FnOnce(&SegmentHeader) -> TailFact {
    move |header| TailFact::Open(Scan { tally: tally(header, 2), end: 800, rest })
}

fn damage() -> Damage {
    Damage::new("one", "another")
}

fn torn() -> Rest {
    Rest::Torn { bytes: 200, damage: damage() }
}

fn later_block() -> BlockHeader {
    let block = Block::heartbeat(Lsn(9), Micros(9), Micros(9), ReplOffset(9), 0);
    block.header
}

/// A sealed segment with LSN 1 to 3, before the one in question.
fn before() -> SegmentFacts {
    facts(header(1, 1, 0), sealed(3, 7))
}

fn last(tail: impl FnOnce(&SegmentHeader) -> TailFact) -> SegmentFacts {
    facts(header(4, 1, 7), tail)
}

fn with_header(fault: HeaderFault) -> SegmentFacts {
    SegmentFacts { header: Err(fault), tail: TailFact::Unknown, ..last(sealed(0, 0)) }
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    SetAsideThenAfter(u64),
    After(u64),
    In { cut: bool, unseal: bool },
    Empty,
    Corrupt { offset: u64 },
    Newer,
}

fn decision(segments: &[SegmentFacts]) -> Decision {
    match decide(segments, ID, &Splices::default()) {
        Ok(plan) => match plan.resume {
            Resume::Empty => Decision::Empty,
            Resume::After { header, .. } if plan.set_aside.is_some() => Decision::SetAsideThenAfter(header.first_lsn.0),
            Resume::After { header, .. } => Decision::After(header.first_lsn.0),
            Resume::In { .. } => Decision::In { cut: plan.cut.is_some(), unseal: plan.unseal },
        },
        Err(OpenError::Corrupt { offset, .. }) => Decision::Corrupt { offset },
        Err(OpenError::NewerFormat { .. }) => Decision::Newer,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_last_segment_decides_as_the_table_says() {
    let corrupt_rest = Rest::Corrupt { damage: damage(), later: 900, block: Box::new(later_block()) };
    let bad_footer = |_: &SegmentHeader| TailFact::BadFooter { position: 850, damage: damage() };
    let go_on = Decision::In { cut: false, unseal: false };
    let rows = [
        (with_header(HeaderFault::Unfinished), Decision::SetAsideThenAfter(1)),
        (with_header(HeaderFault::Bad(damage())), Decision::Corrupt { offset: 0 }),
        (with_header(HeaderFault::Newer(2)), Decision::Newer),
        (last(sealed(5, 8)), Decision::After(4)),
        (last(sealed(0, 8)), Decision::In { cut: false, unseal: true }),
        (last(open(Rest::Nothing)), go_on),
        (last(open(torn())), Decision::In { cut: true, unseal: false }),
        (last(bad_footer), Decision::Corrupt { offset: 850 }),
        (last(open(corrupt_rest)), Decision::Corrupt { offset: 800 }),
    ];
    for (n, (segment, expected)) in rows.into_iter().enumerate() {
        assert_eq!(decision(&[before(), segment]), expected, "row {n}");
    }
    assert_eq!(decision(&[]), Decision::Empty);
    assert_eq!(decision(&[with_header(HeaderFault::Unfinished)]), Decision::Empty);
}

#[test]
fn every_other_segment_must_be_sealed() {
    let next = || facts(header(4, 1, 7), sealed(1, 9));
    for tail in [open(Rest::Nothing)(&header(1, 1, 0)), TailFact::Unknown] {
        let first = SegmentFacts { tail, ..before() };
        assert_eq!(decision(&[first.clone(), next()]), Decision::Corrupt { offset: 1000 });
        // Also if the last one was being created: its creation comes after the seal.
        let created = with_header(HeaderFault::Unfinished);
        assert_eq!(decision(&[first, created]), Decision::Corrupt { offset: 1000 });
    }
}

#[test]
fn a_segment_must_continue_the_one_before() {
    let good = header(4, 1, 7);
    let later = |timeline: TimelineFacts| SegmentHeader { timeline, ..good.clone() };
    let wrong = [
        SegmentHeader { journal_id: [2; 16], ..good.clone() },
        SegmentHeader { prev_link: [0; 32], ..good.clone() },
        SegmentHeader { prev_link: link(&[7; 32], true), ..good.clone() },
        SegmentHeader { first_lsn: Lsn(5), ..good.clone() },
        SegmentHeader { last_ts: Micros(3), ..good.clone() },
        SegmentHeader { start_offset: ReplOffset(3), ..good.clone() },
        later(TimelineFacts { id: TimelineId(0), ..good.timeline.clone() }),
        later(TimelineFacts { source_id: "other".to_owned(), ..good.timeline.clone() }),
    ];
    let changed = |from: &str| SourceHistory::ChangedHere { before: from.to_owned() };
    let other = TimelineFacts { source_id: "other".to_owned(), ..good.timeline.clone() };
    let wrong = wrong.into_iter().chain([
        SegmentHeader { source: changed("another"), ..later(other.clone()) },
        SegmentHeader { source: SourceHistory::ChangedBefore, ..good.clone() },
        SegmentHeader { source: changed("other"), ..good.clone() },
    ]);
    let renamed = SegmentHeader { source: changed("source 1"), ..later(other) };
    assert_eq!(decision(&[before(), facts(renamed, sealed(1, 9))]), Decision::After(4));
    assert_eq!(decision(&[before(), facts(good.clone(), sealed(1, 9))]), Decision::After(4));
    for header in wrong {
        let segment = facts(header.clone(), sealed(1, 9));
        assert_eq!(decision(&[before(), segment]), Decision::Corrupt { offset: 0 }, "{header:?}");
    }
    // A new timeline may begin at any offset of its own.
    let timeline = SegmentHeader { start_offset: ReplOffset(0), ..header(4, 2, 7) };
    assert_eq!(decision(&[before(), facts(timeline, sealed(1, 9))]), Decision::After(4));
    // Pruned: the first one has a predecessor that is not there.
    assert_eq!(decision(&[facts(good.clone(), sealed(1, 9))]), Decision::After(4));
    let renamed = SegmentFacts { name: before().name, ..facts(good, sealed(1, 9)) };
    assert_eq!(decision(&[renamed]), Decision::Corrupt { offset: 0 });
}

#[test]
fn a_footer_must_fit_its_header() {
    let mut segment = before();
    if let TailFact::Sealed(footer) = &mut segment.tail {
        footer.tally.records = 4;
    }
    assert_eq!(decision(&[segment]), Decision::Corrupt { offset: 900 });
}
