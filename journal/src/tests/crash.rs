//! What a crash leaves, step by step.

use std::fs;

use crate::catalog::Catalog;
use crate::error::OpenError;
use crate::model::{Fixture, OwnedGroup, open, options};
use crate::open::OpenOptions;
use crate::types::{Group, Lsn, TimelineId};

fn three_groups() -> Vec<OwnedGroup> {
    vec![OwnedGroup::simple(b"a"), OwnedGroup::simple(b"RTB1"), OwnedGroup::simple(b"RTAPEEND")]
}

/// An unsealed segment with four blocks and a heartbeat.
fn unsealed() -> Fixture {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    for _ in 0..3 {
        journal.block(&three_groups());
    }
    journal.block(&[]);
    journal.kill();
    journal
}

#[test]
fn a_segment_cut_at_any_byte_gives_a_prefix_of_whole_groups() {
    let mut journal = unsealed();
    let path = journal.last_segment();
    let whole = fs::read(&path).unwrap();
    let all = journal.expected[0].1.clone();
    let mut seen = 0;
    for len in 0..=whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let before = Catalog::open(journal.dir()).unwrap();
        let read: Vec<Group> = before.groups(Lsn(0), TimelineId(1)).collect::<Result<_, _>>().unwrap();
        assert!(all.starts_with(&read) && read.len().is_multiple_of(3), "cut at {len}");
        assert!(read.len() >= seen, "cut at {len}");
        seen = read.len();

        journal.reopen();
        let recovered = journal.recovered.last.clone();
        assert_eq!(recovered.map_or(0, |l| l.last_lsn.0), read.len() as u64, "cut at {len}");
        if journal.recovered.last.is_some() {
            journal.expected[0].1.clone_from(&all);
            journal.forget_lost();
            journal.block(&three_groups());
            journal.kill();
            journal.check();
        } else {
            journal.kill();
        }
        fs::remove_dir_all(journal.dir().join("quarantine")).unwrap();
    }
    assert_eq!(seen, all.len());
}

#[test]
fn the_bytes_cut_off_are_kept() {
    let mut journal = unsealed();
    let path = journal.last_segment();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    journal.reopen();
    assert_eq!(journal.recovered.notes.len(), 1);
    let kept: Vec<_> = fs::read_dir(journal.dir().join("quarantine")).unwrap().map(|e| e.unwrap()).collect();
    assert_eq!(kept.len(), 1);
    let name = kept[0].file_name().into_string().unwrap();
    let offset = whole.len() - 96;
    assert_eq!(name, format!("00000000000000000001-000001.seg.{offset}.torn"));
    assert_eq!(fs::read(kept[0].path()).unwrap(), whole[offset..whole.len() - 1]);
}

#[test]
fn a_bad_block_before_a_whole_one_is_corrupt_and_nothing_is_changed() {
    let journal = unsealed();
    let path = journal.last_segment();
    let whole = fs::read(&path).unwrap();
    let header_len = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    let block_len = (whole.len() - 96 - header_len) / 3;
    // Every bit of the second block.
    for bit in (header_len + block_len) * 8..(header_len + 2 * block_len) * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        let error = open(journal.dir(), 1 << 20).unwrap_err();
        let OpenError::Corrupt { offset, span, .. } = &error else { panic!("{error}") };
        assert_eq!(*offset, (header_len + block_len) as u64);
        assert_eq!((span.from_lsn, span.to_lsn), (Lsn(4), Some(Lsn(6))));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    // A reader gets what is before, and then an error.
    let catalog = Catalog::open(journal.dir()).unwrap();
    let read: Vec<_> = catalog.groups(Lsn(0), TimelineId(1)).collect();
    assert_eq!(read.len(), 4);
    assert!(read[..3].iter().all(Result::is_ok) && read[3].is_err());
    assert_eq!(catalog.notes().len(), 1);
}

/// What lies between two syncs reaches the disk in any order; what was synced cannot be missing.
#[test]
fn a_sector_that_is_missing_is_a_tear_only_where_nothing_was_synced() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    let mut synced = 0;
    for n in 0..6u8 {
        journal.block(&[OwnedGroup::simple(&[n + 1; 2000])]);
        if n == 2 {
            journal.sync();
            synced = fs::metadata(journal.last_segment()).unwrap().len();
        }
    }
    journal.kill();
    let path = journal.last_segment();
    let whole = fs::read(&path).unwrap();
    let len = whole.len();
    let sectors = len / 512;
    for first in 1..sectors {
        for count in [1, 4] {
            let mut bytes = whole.clone();
            let missing = first * 512..((first + count) * 512).min(len);
            bytes[missing.clone()].fill(0);
            fs::write(&path, &bytes).unwrap();
            // The last block to say that all before it is synced is the fourth, and begins there.
            let lost = missing.start as u64 >= synced;
            let fourth_is_damaged = missing.start < synced as usize + 2200 && missing.end > synced as usize;
            match open(journal.dir(), 1 << 20) {
                Ok((_, recovered)) => {
                    let last = recovered.last.unwrap().last_lsn;
                    assert!(lost || fourth_is_damaged, "{missing:?}: synced up to {synced}, cut behind {last}");
                    assert!(!lost || last >= Lsn(3), "{missing:?}: {last}");
                    assert_eq!(recovered.notes.len(), 1);
                }
                Err(error) => {
                    assert!(!lost, "{missing:?}: {error}");
                    assert_eq!(fs::read(&path).unwrap(), bytes);
                }
            }
            fs::write(&path, &whole).unwrap();
        }
    }
    journal.check();
}

#[test]
fn a_header_or_a_footer_with_a_missing_sector_was_never_finished() {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options(1 << 20) });
    journal.timeline_because(&"x".repeat(1500));
    journal.kill();
    let path = journal.last_segment();
    let header = fs::read(&path).unwrap();
    for sector in 0..header.len() / 512 {
        let mut bytes = header.clone();
        bytes[sector * 512..(sector + 1) * 512].fill(0);
        fs::write(&path, &bytes).unwrap();
        let (_, recovered) = open(journal.dir(), 1 << 20).unwrap();
        assert_eq!((recovered.last, recovered.notes.len()), (None, 1), "sector {sector}");
        fs::write(&path, &header).unwrap();
    }
    journal.reopen();
    for _ in 0..40 {
        journal.block(&[OwnedGroup::simple(&[7; 600])]);
    }
    journal.kill();
    let blocks_end = fs::metadata(&path).unwrap().len() as usize;
    journal.reopen();
    journal.close();
    let sealed = fs::read(&path).unwrap();
    assert!(sealed.len() > blocks_end + 1024, "a footer of several sectors");
    for sector in blocks_end / 512..=sealed.len() / 512 {
        let mut bytes = sealed.clone();
        let end = bytes.len().min((sector + 1) * 512);
        bytes[blocks_end.max(sector * 512)..end].fill(0);
        fs::write(&path, &bytes).unwrap();
        let (_, recovered) = open(journal.dir(), 1 << 20).unwrap();
        assert_eq!(recovered.last.unwrap().last_lsn, Lsn(40), "sector {sector}");
        fs::write(&path, &sealed).unwrap();
    }
    journal.check();
}

#[test]
fn a_value_that_looks_like_a_block_is_not_one() {
    let source = unsealed();
    let segment = fs::read(source.last_segment()).unwrap();
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.block(&[OwnedGroup::simple(b"a")]);
    journal.block(&[OwnedGroup::simple(&segment)]);
    journal.kill();
    let path = journal.last_segment();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    journal.reopen();
    assert_eq!(journal.recovered.last.clone().unwrap().last_lsn, Lsn(1));
}

#[test]
fn a_value_that_looks_like_a_footer_is_not_one() {
    let mut source = unsealed();
    source.reopen();
    source.close();
    // Not worth compressing.
    let mut value = vec![0; 40 << 10];
    blake3::Hasher::new().finalize_xof().fill(&mut value);
    value.extend(fs::read(source.last_segment()).unwrap());
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.block(&[OwnedGroup::simple(&value)]);
    journal.kill();
    assert!(fs::read(journal.last_segment()).unwrap().ends_with(b"RTAPEEND"));
    journal.check();
    journal.reopen();
    assert!(journal.recovered.notes.is_empty());
    assert_eq!(journal.recovered.last.clone().unwrap().last_lsn, Lsn(1));
}

#[test]
fn a_segment_whose_creation_was_interrupted_is_set_aside() {
    let mut journal = Fixture::closed(1 << 20, &[three_groups()]);
    let header = fs::read(journal.last_segment()).unwrap();
    let next = journal.dir().join("segments/00000000000000000004-000001.seg");
    for content in [&header[..0], &header[..50], &header[..130], &[0; 4096]] {
        fs::write(&next, content).unwrap();
        journal.check();
        journal.reopen();
        assert_eq!(journal.recovered.notes.len(), 1);
        assert!(!next.exists());
        journal.close();
    }
    journal.check();
    assert_eq!(fs::read_dir(journal.dir().join("quarantine")).unwrap().count(), 4);
}

#[test]
fn a_timeline_without_blocks_survives() {
    let mut journal = Fixture::new(1 << 20);
    assert_eq!(journal.recovered.last, None);
    journal.timeline();
    journal.timeline();
    for closed in [false, true, false, true] {
        if closed {
            journal.close();
        } else {
            journal.kill();
        }
        journal.reopen();
        let last = journal.recovered.last.clone().unwrap();
        assert_eq!((last.timeline, last.last_lsn), (TimelineId(2), Lsn(0)));
        assert_eq!((last.source_id.as_str(), last.end_offset.0), ("source 2", 2000));
    }
    assert_eq!(journal.segments().len(), 2);
    journal.block(&three_groups());
    journal.close();
    journal.check();
}

#[test]
fn a_crash_between_the_seal_and_the_next_timeline_loses_nothing() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.block(&[]);
    journal.timeline();
    journal.kill();
    // The second timeline's segment never came to be; the first one is sealed without a record.
    fs::remove_file(journal.last_segment()).unwrap();
    journal.expected.pop();
    journal.reopen();
    let last = journal.recovered.last.clone().unwrap();
    assert_eq!((last.timeline, last.last_lsn), (TimelineId(1), Lsn(0)));
    journal.block(&three_groups());
    journal.close();
    journal.check();
    journal.reopen();
    journal.block(&three_groups());
    journal.close();
    journal.check();
}
