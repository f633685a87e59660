//! What a crash leaves of a segment with compressed blocks, and while it is being sealed.

use std::fs;
use std::ops::Range;

use super::tamper::sealed;
use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::model::{Fixture, OwnedGroup, keyring, options};
use crate::open::OpenOptions;
use crate::types::{Group, Lsn, TimelineId};
use crate::verify::verify_with;

/// A sealed segment in which compressed blocks and small ones alternate; with the end of its blocks.
fn both_kinds(keyring: Keyring) -> (Fixture, u64) {
    let mut journal = Fixture::with(OpenOptions { compact: false, keyring, ..options(1 << 20) });
    journal.timeline();
    for n in 0..3u8 {
        journal.block(&[OwnedGroup::set(0, &[b'k', n], &[n; 700]), OwnedGroup::set(1, b"other", &[n; 300])]);
        journal.block(&[OwnedGroup::set(0, &[b's', n], b"small")]);
    }
    journal.close();
    let (_, footer) = sealed(&journal.last_segment());
    assert!(footer.filters.is_some() && footer.blocks_end < 3000, "{footer:?}");
    (journal, footer.blocks_end)
}

/// The last segment is this: what a reader is given is what the next writer goes on behind; returns how many groups.
fn recovered(journal: &mut Fixture, bytes: &[u8], what: &str) -> usize {
    let _ = fs::remove_dir_all(journal.dir().join("segments"));
    fs::create_dir(journal.dir().join("segments")).unwrap();
    fs::write(journal.dir().join("segments/00000000000000000001-000001.seg"), bytes).unwrap();
    let all = journal.expected[0].1.clone();
    let catalog = Catalog::open_with(journal.dir(), &journal.options.keyring).unwrap();
    let read: Vec<Group> = catalog.groups(Lsn(0), TimelineId(1)).collect::<Result<_, _>>().unwrap();
    assert!(all.starts_with(&read), "{what}");
    journal.reopen();
    assert_eq!(journal.recovered.last.clone().unwrap().last_lsn, Lsn(read.len() as u64), "{what}");
    journal.forget_lost();
    journal.block(&[OwnedGroup::set(0, b"behind", b"the crash")]);
    journal.close();
    journal.check();
    let report = verify_with(journal.dir(), true, &journal.options.keyring, |_| ()).unwrap();
    assert_eq!(report.problems, [], "{what}");
    let catalog = Catalog::open_with(journal.dir(), &journal.options.keyring).unwrap();
    for group in &read {
        let key = &group.records[0].args[1];
        let mut found = catalog.groups_for_keys(Lsn(0), TimelineId(1), &[(group.records[0].db, key)]);
        assert!(found.any(|found| found.unwrap() == *group), "{what}: {key:?} is not found");
    }
    let _ = fs::remove_dir_all(journal.dir().join("quarantine"));
    journal.expected[0].1 = all;
    read.len()
}

#[test]
fn a_segment_that_was_cut_while_it_was_sealed_loses_nothing_and_is_sealed_again() {
    for keyring in [Keyring::default(), keyring(&["one"])] {
        let (mut journal, blocks_end) = both_kinds(keyring);
        let whole = fs::read(journal.last_segment()).unwrap();
        for len in blocks_end as usize..=whole.len() {
            assert_eq!(recovered(&mut journal, &whole[..len], &format!("cut at {len}")), 9);
        }
    }
}

#[test]
fn a_compressed_block_of_which_the_end_or_a_sector_is_missing_is_a_torn_tail() {
    for keyring in [Keyring::default(), keyring(&["one"])] {
        let (mut journal, blocks_end) = both_kinds(keyring);
        let whole = fs::read(journal.last_segment()).unwrap();
        let header_len = u64::from(u32::from_le_bytes(whole[12..16].try_into().unwrap()));
        let mut before = 0;
        for len in (header_len..blocks_end).step_by(3) {
            let groups = recovered(&mut journal, &whole[..len as usize], &format!("cut at {len}"));
            assert!(groups >= before, "cut at {len}");
            before = groups;
        }
        assert_eq!(before, 8, "all but the last block");
        // Nothing was synced before the seal: sectors may be missing anywhere behind the header.
        for sector in header_len.div_ceil(512)..whole.len() as u64 / 512 {
            let hole: Range<usize> = sector as usize * 512..(sector as usize + 1) * 512;
            let mut bytes = whole[..blocks_end as usize].to_vec();
            if let Some(hole) = bytes.get_mut(hole) {
                hole.fill(0);
                assert!(recovered(&mut journal, &bytes, &format!("sector {sector} is missing")) < 9);
            }
        }
    }
}

#[test]
fn a_flipped_bit_behind_the_blocks_of_the_last_segment_costs_no_record() {
    for keyring in [Keyring::default(), keyring(&["one"])] {
        let (mut journal, blocks_end) = both_kinds(keyring);
        let path = journal.last_segment();
        let whole = fs::read(&path).unwrap();
        for bit in (blocks_end as usize * 8..whole.len() * 8).step_by(3) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let report = verify_with(journal.dir(), true, &journal.options.keyring, |_| ()).unwrap();
            assert!(!report.problems.is_empty(), "bit {bit}");
            let repaired = crate::repair::repair(journal.dir(), &journal.options.keyring).unwrap();
            let tail_is_left = repaired.plan.is_sound();
            journal.reopen();
            journal.kill();
            let report = verify_with(journal.dir(), true, &journal.options.keyring, |_| ()).unwrap();
            assert_eq!(report.problems, [], "bit {bit}, {tail_is_left}");
            journal.check();
            fs::remove_dir_all(journal.dir().join("segments")).unwrap();
            fs::create_dir(journal.dir().join("segments")).unwrap();
            let _ = fs::remove_file(journal.dir().join("splices"));
        }
        fs::write(&path, &whole).unwrap();
    }
}
