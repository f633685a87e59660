//! What the file says is what a walk over the segment finds, and nothing else is believed.

use std::fs;
use std::fs::File;
use std::path::PathBuf;

use proptest::prelude::*;

use super::{Covered, OpenedSegment, read};
use crate::block::decode_payload;
use crate::bloom::{BloomFilter, FilterBuilder};
use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::model::{Fixture, OwnedGroup, keyring, options};
use crate::open::OpenOptions;
use crate::repair::{plan_repair, repair};
use crate::segment::header::{SegmentHeader, WholeHeader};
use crate::segment::scan::scan;
use crate::segment::tally::Tally;
use crate::types::{Group, Lsn, TimelineId};
use crate::verify::verify_with;

fn path(journal: &Fixture) -> PathBuf {
    Directory::new(journal.dir()).filters()
}

fn set(n: usize, len: usize) -> OwnedGroup {
    OwnedGroup::set(0, format!("key:{n}").as_bytes(), &vec![b'v'; len])
}

/// A journal of which so many blocks are synced, and the writer is gone as after a crash.
fn killed(keyring: Keyring, blocks: usize) -> Fixture {
    let mut journal = Fixture::with(OpenOptions { keyring, ..options(1 << 20) });
    journal.timeline();
    for n in 0..blocks {
        journal.block(&[set(n, 150)]);
        if n % 5 == 4 {
            journal.sync();
        }
    }
    journal.sync();
    journal.kill();
    journal
}

fn whole_header(journal: &Fixture) -> WholeHeader {
    let bytes = fs::read(journal.last_segment()).unwrap();
    let (header, len, tag) = SegmentHeader::decode(&bytes, bytes.len() as u64).unwrap();
    WholeHeader { header, len, tag }
}

/// What is believed of the file when the segment is seen with so many bytes.
fn covered_of(journal: &Fixture, bytes: u64) -> Option<Covered> {
    let file = File::open(journal.last_segment()).unwrap();
    let whole = whole_header(journal);
    let sealer = whole.header.unlock(&journal.options.keyring).unwrap();
    read(&path(journal), OpenedSegment { file: &file, bytes, whole: &whole, sealer: sealer.as_deref() })
}

fn covered(journal: &Fixture) -> Option<Covered> {
    covered_of(journal, fs::metadata(journal.last_segment()).unwrap().len())
}

/// What a walk over the blocks before `end` finds.
fn walked(journal: &Fixture, end: u64) -> (Tally, Vec<BloomFilter>) {
    let file = File::open(journal.last_segment()).unwrap();
    let whole = whole_header(journal);
    let sealer = whole.header.unlock(&journal.options.keyring).unwrap();
    let mut builder = FilterBuilder::new(1 << 20);
    let found = scan(&file, end, &whole, |before, block, stored| {
        builder.begin_block(block.position, before.opens_interval(block, block.position));
        builder.add_payload(block, &decode_payload(block, stored.clone(), sealer.as_deref()).unwrap());
    });
    let found = found.unwrap();
    assert_eq!(found.end, end);
    (found.tally, builder.finish().intervals)
}

/// Whatever the file says, it is the truth about a beginning of the segment.
fn check_truth(journal: &Fixture) -> u64 {
    let Some(Covered { end, tally, filters }) = covered(journal) else { return 0 };
    assert_eq!((tally, filters), walked(journal, end));
    end
}

/// The groups that a search for the key finds, forwards and backwards.
fn search(journal: &Fixture, key: &[u8]) -> Vec<Group> {
    let catalog = Catalog::open_for_search(journal.dir(), &journal.options.keyring).unwrap();
    let found: Vec<Group> =
        catalog.groups_for_keys(Lsn(0), TimelineId(1), &[(0, key)]).collect::<Result<_, _>>().unwrap();
    let back = catalog.groups_back_for_keys(Lsn(u64::MAX), TimelineId(1), &[(0, key)]);
    let mut back: Vec<Group> = back.collect::<Result<_, _>>().unwrap();
    back.reverse();
    assert_eq!(back, found);
    found
}

fn check_searches(journal: &Fixture) {
    for group in &journal.expected[0].1 {
        let key = group.records[0].args[1].clone();
        let wanted: Vec<Group> =
            journal.expected[0].1.iter().filter(|group| group.records[0].args[1] == key).cloned().collect();
        assert_eq!(search(journal, &key), wanted);
    }
    assert_eq!(search(journal, b"never written"), []);
}

#[test]
fn it_says_what_a_walk_finds_and_a_search_finds_the_same_with_and_without_it() {
    for keyring in [Keyring::default(), keyring(&["key-1"])] {
        let journal = killed(keyring, 40);
        let end = check_truth(&journal);
        assert!(end > 7000, "covered up to {end}");
        check_searches(&journal);
        fs::remove_file(path(&journal)).unwrap();
        assert_eq!(check_truth(&journal), 0);
        check_searches(&journal);
    }
}

#[test]
fn what_it_covers_is_not_read_by_the_opening() {
    let journal = killed(Keyring::default(), 40);
    let end = check_truth(&journal);
    // As a walk ends there: damage within what is covered is seen only by who reads that block.
    let mut bytes = fs::read(journal.last_segment()).unwrap();
    let within = whole_header(&journal).len as usize + 100;
    bytes[within] ^= 1;
    fs::write(journal.last_segment(), bytes).unwrap();
    let catalog = Catalog::open_for_search(journal.dir(), &Keyring::default()).unwrap();
    assert_eq!((catalog.segments()[0].last_lsn, catalog.notes()), (Lsn(40), &[][..]), "covered up to {end}");
    let first = catalog.groups_for_keys(Lsn(0), TimelineId(1), &[(0, b"key:0")]).next();
    assert!(matches!(first, Some(Err(_))), "{first:?}");
    assert_eq!(Catalog::open(journal.dir()).unwrap().segments()[0].last_lsn, Lsn(0));
}

#[test]
fn what_was_not_synced_is_not_covered() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    for n in 0..40 {
        journal.block(&[set(n, 150)]);
    }
    journal.kill();
    assert!(!path(&journal).exists());

    let mut journal = killed(Keyring::default(), 20);
    let synced = fs::metadata(journal.last_segment()).unwrap().len();
    journal.reopen();
    for n in 20..60 {
        journal.block(&[set(n, 150)]);
    }
    journal.kill();
    let end = check_truth(&journal);
    assert!(end > 0 && end <= synced, "{end} of {synced}");
    check_searches(&journal);
}

#[test]
fn of_a_segment_that_was_seen_shorter_only_that_is_believed() {
    let journal = killed(Keyring::default(), 40);
    let whole = check_truth(&journal);
    let all = fs::metadata(journal.last_segment()).unwrap().len();
    let mut ends: Vec<u64> = (0..=all).map(|bytes| covered_of(&journal, bytes).map_or(0, |c| c.end)).collect();
    assert!(ends.iter().zip(0..).all(|(end, bytes)| *end <= bytes));
    ends.dedup();
    assert!(ends.len() > 3 && ends.is_sorted() && ends.last() == Some(&whole), "{ends:?}");
}

#[test]
fn every_bit_of_it_is_checked_and_every_torn_one_is_a_shorter_one() {
    for keyring in [Keyring::default(), keyring(&["key-1"])] {
        let journal = killed(keyring, 24);
        let bytes = fs::read(path(&journal)).unwrap();
        let whole = check_truth(&journal);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(path(&journal), flipped).unwrap();
            assert!(check_truth(&journal) < whole, "bit {bit}");
        }
        check_searches(&journal);
        let mut ends = Vec::new();
        for len in 0..=bytes.len() {
            fs::write(path(&journal), &bytes[..len]).unwrap();
            ends.push(check_truth(&journal));
            // A hole up to the end, as a power failure may leave it.
            let mut hole = bytes.clone();
            hole[len..].fill(0);
            fs::write(path(&journal), hole).unwrap();
            assert!(check_truth(&journal) <= whole);
        }
        assert!(ends.is_sorted() && ends.last() == Some(&whole), "{ends:?}");
    }
}

#[test]
fn one_of_another_segment_or_of_blocks_that_were_written_again_is_ignored() {
    // A copy of the directory from before, in which others were recorded since.
    let journal = killed(Keyring::default(), 40);
    let kept = fs::read(path(&journal)).unwrap();
    let bytes = fs::read(journal.last_segment()).unwrap();
    let cut = whole_header(&journal).len;
    let mut again = Fixture::new(1 << 20);
    again.timeline();
    again.sync();
    again.kill();
    fs::write(again.last_segment(), &bytes[..cut as usize]).unwrap();
    again.reopen();
    for n in 0..40 {
        again.block(&[set(n + 100, 150)]);
        again.sync();
    }
    again.kill();
    fs::write(path(&again), &kept).unwrap();
    assert_eq!(check_truth(&again), 0);
    check_searches(&again);

    // Another timeline's.
    let mut other = Fixture::new(1 << 20);
    other.timeline();
    other.block(&[set(1, 10)]);
    other.timeline();
    for n in 0..40 {
        other.block(&[set(n, 150)]);
    }
    other.sync();
    other.kill();
    assert!(check_truth(&other) > 0);
    fs::write(path(&other), &kept).unwrap();
    assert_eq!(check_truth(&other), 0);
}

#[test]
fn it_goes_with_the_segment_and_at_a_start_and_with_a_repair() {
    let mut journal = killed(Keyring::default(), 40);
    let stale = fs::read(path(&journal)).unwrap();
    journal.reopen();
    assert!(check_truth(&journal) > 0, "made again of what was reopened");
    journal.close();
    assert!(!path(&journal).exists(), "sealed");

    fs::write(path(&journal), &stale).unwrap();
    check_searches(&journal);
    journal.reopen();
    assert!(!path(&journal).exists(), "stale at the start");
    journal.kill();

    fs::write(path(&journal), &stale).unwrap();
    let plan = plan_repair(journal.dir(), &Keyring::default()).unwrap();
    assert!(plan.is_sound(), "{plan:?}");
    fs::write(journal.dir().join("marks"), "no line\n").unwrap();
    repair(journal.dir(), &Keyring::default()).unwrap();
    assert!(!path(&journal).exists(), "repaired");
}

#[test]
fn it_is_no_damage_whatever_is_in_it() {
    let mut journal = killed(Keyring::default(), 40);
    let bytes = fs::read(path(&journal)).unwrap();
    for stored in [&bytes[..], &bytes[..bytes.len() - 1], b"", b"nothing of ours"] {
        fs::write(path(&journal), stored).unwrap();
        let report = verify_with(journal.dir(), true, &Keyring::default(), |_| ()).unwrap();
        assert_eq!((report.problems, report.notes), (vec![], vec![]));
        assert!(plan_repair(journal.dir(), &Keyring::default()).unwrap().is_sound());
    }
    journal.reopen();
    let report = verify_with(journal.dir(), true, &Keyring::default(), |_| ()).unwrap();
    assert_eq!(report.problems, [], "beside a writer");
}

#[test]
fn what_is_no_file_is_left_alone_and_recording_goes_on() {
    let mut journal = Fixture::new(1 << 20);
    fs::create_dir(path(&journal)).unwrap();
    journal.timeline();
    for n in 0..40 {
        journal.block(&[set(n, 150)]);
    }
    journal.sync();
    check_searches(&journal);
    let report = verify_with(journal.dir(), false, &Keyring::default(), |_| ()).unwrap();
    assert!(report.problems.iter().any(|p| p.file.ends_with("filters")), "{report:?}");
    journal.kill();
    journal.reopen();
    journal.close();
    assert!(path(&journal).is_dir());
    journal.check();
}

#[test]
fn without_the_key_it_is_not_asked() {
    let mut journal = killed(keyring(&["key-1"]), 40);
    assert!(check_truth(&journal) > 0);
    journal.options.keyring = Keyring::default();
    let catalog = Catalog::open_for_search(journal.dir(), &journal.options.keyring).unwrap();
    assert_eq!(catalog.segments()[0].last_lsn, Lsn(40));
}

/// What a test does with a journal.
#[derive(Debug, Clone)]
enum Step {
    Block(Vec<(u32, u8, usize)>),
    Heartbeat,
    Sync,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..3u32, any::<u8>(), 0..400usize);
    prop_oneof![
        6 => prop::collection::vec(write, 1..6).prop_map(Step::Block),
        1 => Just(Step::Heartbeat),
        3 => Just(Step::Sync),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn at_any_time_it_is_the_truth(steps in prop::collection::vec(step(), 1..60), encrypted: bool) {
        let keyring = if encrypted { keyring(&["key-1"]) } else { Keyring::default() };
        let mut journal = Fixture::with(OpenOptions { keyring, ..options(8 << 10) });
        journal.timeline();
        let unknown = |group: OwnedGroup, n: usize| OwnedGroup { keys: (!n.is_multiple_of(50)).then(|| vec![1]), ..group };
        for step in steps {
            match step {
                Step::Block(writes) => {
                    let groups: Vec<OwnedGroup> = writes
                        .into_iter()
                        .map(|(db, key, len)| unknown(OwnedGroup::set(db, &[key % 40], &vec![b'v'; len]), len))
                        .collect();
                    journal.block(&groups);
                }
                Step::Heartbeat => journal.block(&[]),
                Step::Sync => journal.sync(),
                Step::Crash => {
                    journal.kill();
                    check_truth(&journal);
                    journal.reopen();
                }
            }
        }
        journal.kill();
        check_truth(&journal);
        for key in 0..40u8 {
            let of_key = |group: &&Group| group.records.iter().any(|r| r.keys.is_none() || (r.db, &r.args[1][..]) == (0, &[key]));
            let wanted: Vec<Group> = journal.expected[0].1.iter().filter(of_key).cloned().collect();
            prop_assert_eq!(search(&journal, &[key]), wanted);
        }
    }
}
