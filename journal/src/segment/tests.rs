use proptest::prelude::*;

use super::footer::{Footer, TAIL_LEN};
use super::header::{HeaderFault, MAX_HEADER_LEN, SegmentHeader, SourceHistory, TimelineFacts};
use super::tally::{Extent, IndexEntry, Tally};
use crate::bloom::{Place, Places};
use crate::crypto::{WRAPPED_LEN, Wrapped};
use crate::types::{Lsn, Micros, ReplOffset, TimelineId};

fn header(source_id: &str, reason: &str) -> SegmentHeader {
    SegmentHeader {
        journal_id: [9; 16],
        first_lsn: Lsn(42),
        timeline: TimelineFacts {
            id: TimelineId(3),
            source_id: source_id.to_owned(),
            reason: reason.to_owned(),
            start_offset: ReplOffset(77),
            start_ts: Micros(-5),
        },
        source: SourceHistory::ChangedHere { before: "8f0b".to_owned() },
        prev_link: [7; 32],
        created: Micros(1),
        last_ts: Micros(2),
        complete_until: Micros(3),
        start_offset: ReplOffset(88),
        start_db: 4,
        packed: true,
        cipher: Some(Wrapped { key_id: "key-1".to_owned(), bytes: [6; WRAPPED_LEN] }),
    }
}

fn footer() -> Footer {
    let extent = Extent { next_lsn: Lsn(50), last_ts: Micros(60), end_offset: ReplOffset(70) };
    let entry = IndexEntry { position: 128, extent };
    Footer {
        tally: Tally {
            blocks: 2,
            groups: 3,
            records: 8,
            first_ts: Micros(55),
            extent,
            complete_until: Micros(61),
            end_db: 1,
            index: vec![entry, IndexEntry { position: 700, ..entry }],
        },
        digest: [5; 32],
        copy_of: None,
        filters: Some(Places {
            sealed: false,
            all: Place { position: 900, blocks: 1, unknown: true },
            intervals: vec![
                Place { position: 936, blocks: 0, unknown: true },
                Place { position: 936, blocks: 1, unknown: false },
            ],
        }),
        blocks_end: 900,
        position: 972,
        segment_tag: 0xdead_beef,
        proof: None,
    }
}

#[test]
fn a_header_comes_back_and_long_texts_are_cut_between_characters() {
    for (source_id, reason) in [("", ""), ("8f0c", "first start"), ("é", &"é".repeat(5000))] {
        let header = header(source_id, reason);
        let bytes = header.encode();
        assert!(bytes.len() <= MAX_HEADER_LEN);
        let (read, len, tag) = SegmentHeader::decode(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(len, bytes.len() as u64);
        assert_eq!(tag.to_le_bytes(), bytes[bytes.len() - 4..]);
        assert_eq!(read.timeline.source_id, source_id);
        assert!(reason.starts_with(&read.timeline.reason));
        assert_eq!(SegmentHeader { timeline: header.timeline.clone(), ..read }, header);
    }
}

#[test]
fn a_header_says_whether_the_source_has_changed_its_id() {
    let before = "é".repeat(5000);
    for source in [
        SourceHistory::Unchanged,
        SourceHistory::ChangedHere { before: "8f0b".to_owned() },
        SourceHistory::ChangedHere { before },
        SourceHistory::ChangedBefore,
    ] {
        for cipher in [None, header("a", "b").cipher] {
            let header =
                SegmentHeader { source: source.clone(), cipher, ..header(&"é".repeat(5000), &"é".repeat(5000)) };
            let bytes = header.encode();
            assert!(bytes.len() <= MAX_HEADER_LEN, "{}", bytes.len());
            let (read, ..) = SegmentHeader::decode(&bytes, bytes.len() as u64).unwrap();
            assert_eq!(read.cipher, header.cipher);
            assert!(header.source_before().starts_with(read.source_before()));
            assert_eq!(std::mem::discriminant(&read.source), std::mem::discriminant(&source));
        }
    }
    let mut bytes = header("a", "b").encode();
    bytes[130] = 3;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(SegmentHeader::decode(&bytes, bytes.len() as u64), Err(HeaderFault::Bad(_))));
}

#[test]
fn a_header_of_a_newer_version_says_so() {
    let mut bytes = header("a", "b").encode();
    bytes[8] = 2;
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    let fault = SegmentHeader::decode(&bytes, bytes.len() as u64).unwrap_err();
    assert_eq!(fault, HeaderFault::Newer(2));
}

#[test]
fn a_header_cut_anywhere_is_unfinished() {
    let bytes = header("source", "reason").encode();
    for len in 0..bytes.len() {
        let fault = SegmentHeader::decode(&bytes[..len], len as u64).unwrap_err();
        assert_eq!(fault, HeaderFault::Unfinished, "{len}");
    }
}

#[test]
fn a_footer_comes_back_from_its_place_only() {
    let footer = footer();
    let bytes = footer.encode();
    let mut tail = [0; TAIL_LEN];
    tail.copy_from_slice(&bytes[bytes.len() - TAIL_LEN..]);
    assert_eq!(Footer::len_from_tail(&tail), Some(bytes.len() as u64));
    assert_eq!(Footer::decode(&bytes, 972, 0xdead_beef), Ok(footer));
    assert!(Footer::decode(&bytes, 973, 0xdead_beef).is_err());
    assert!(Footer::decode(&bytes, 972, 1).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>, cut in 0usize..400, at: prop::sample::Index) {
        let _ = SegmentHeader::decode(&bytes, bytes.len() as u64);
        let _ = Footer::decode(&bytes, 0, 0);
        let mut whole = header("a", "b").encode();
        whole.truncate(cut);
        whole.append(&mut bytes);
        let _ = SegmentHeader::decode(&whole, whole.len() as u64);
        let mut whole = footer().encode();
        let at = at.index(whole.len());
        whole[at] ^= 0xff;
        prop_assert!(Footer::decode(&whole, 972, 0xdead_beef).is_err());
    }
}
