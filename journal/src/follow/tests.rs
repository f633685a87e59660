//! A follower beside a writer that seals, dies, tears its tail, begins timelines, and is pruned.

use proptest::prelude::*;

use super::*;
use crate::catalog::Catalog;
use crate::model::{Fixture, OwnedGroup, any_groups, keyring, options};
use crate::open::OpenOptions;
use crate::types::{Group, TimelineId};

/// What a follower gives until there is nothing more.
fn drain(follower: &mut Follower) -> (Vec<(TimelineId, Group)>, Vec<Note>) {
    let (mut groups, mut notes) = (Vec::new(), Vec::new());
    // A directory that has just changed is not yet believed to stand still.
    while let Some(followed) = follower.next().unwrap() {
        match followed {
            Followed::Group { timeline, group } => groups.push((timeline, group)),
            Followed::Note(note) => notes.push(note),
        }
    }
    (groups, notes)
}

fn follow(journal: &Fixture, after: u64) -> Follower {
    Follower::open(journal.dir(), &journal.options.keyring, Lsn(after), None).unwrap()
}

fn expected(journal: &Fixture, after: u64) -> Vec<(TimelineId, Group)> {
    let all = journal.expected.iter().flat_map(|(id, groups)| groups.iter().map(|g| (*id, g.clone())));
    all.filter(|(_, g)| g.records.last().unwrap().lsn > Lsn(after)).collect()
}

fn wait_written(journal: &Fixture) {
    let last = Lsn(journal.builder.next_lsn().0 - 1);
    while journal.writer().watermarks().written_lsn < last {
        std::thread::yield_now();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<OwnedGroup>),
    Look,
    Close,
    Kill,
    Tear(Vec<u8>),
    Timeline,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_groups(0..4).prop_map(Step::Write),
        4 => Just(Step::Look),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => prop::collection::vec(any::<u8>(), 1..60).prop_map(Step::Tear),
        1 => Just(Step::Timeline),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn every_group_comes_once_and_in_order(
        steps in prop::collection::vec(any_step(), 1..40),
        segment_bytes in 300u64..3000, compact: bool, secret: bool,
    ) {
        let keyring = if secret { keyring(&["one"]) } else { Keyring::default() };
        let mut journal = Fixture::with(OpenOptions { compact, keyring, ..options(segment_bytes) });
        journal.timeline();
        let mut follower = follow(&journal, 0);
        let (mut groups, mut notes) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Write(block) => journal.block(&block),
                Step::Look => {
                    let (more, said) = drain(&mut follower);
                    groups.extend(more);
                    notes.extend(said);
                }
                Step::Close => {
                    journal.close();
                    journal.reopen();
                }
                Step::Kill => {
                    journal.kill();
                    journal.reopen();
                }
                Step::Tear(bytes) => {
                    journal.kill();
                    let path = journal.last_segment();
                    let sealed = Catalog::open(journal.dir()).unwrap().segments().last().is_none_or(|s| s.sealed);
                    if !sealed {
                        let mut torn = std::fs::read(&path).unwrap();
                        torn.extend(bytes);
                        // In the same file, as a writer would.
                        std::fs::write(&path, torn).unwrap();
                        groups.extend(drain(&mut follower).0);
                    }
                    journal.reopen();
                }
                Step::Timeline => journal.timeline(),
            }
        }
        wait_written(&journal);
        // The last timeline may be announced by its segment alone.
        std::thread::sleep(std::time::Duration::from_millis(2));
        let (more, said) = drain(&mut follower);
        groups.extend(more);
        notes.extend(said);
        prop_assert_eq!(&groups, &expected(&journal, 0));
        let removed = notes.iter().any(|note| matches!(note, Note::Removed { .. }));
        prop_assert!(!removed, "{notes:?}");
        // Begun later, anywhere, the same follows.
        let last = groups.last().map_or(0, |(_, g)| g.records.last().unwrap().lsn.0);
        for after in [0, last / 2, last.saturating_sub(1), last] {
            prop_assert_eq!(drain(&mut follow(&journal, after)).0, expected(&journal, after));
        }
        journal.close();
        // Notes may still come: a timeline begins when the writer's thread gets to it.
        prop_assert_eq!(drain(&mut follower).0, vec![]);
        prop_assert_eq!(drain(&mut follow(&journal, 0)).0, expected(&journal, 0));
    }
}

#[test]
fn a_block_is_given_when_its_last_byte_is_there_and_a_torn_tail_is_not_damage() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.block(&[OwnedGroup::simple(b"first")]);
    wait_written(&journal);
    let path = journal.last_segment();
    let start = std::fs::metadata(&path).unwrap().len() as usize;
    journal.block(&[OwnedGroup::simple(b"second"), OwnedGroup::simple(b"third")]);
    journal.kill();
    let whole = std::fs::read(&path).unwrap();
    let mut follower = follow(&journal, 0);
    let mut seen = 0;
    for len in start..=whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        seen += drain(&mut follower).0.len();
        assert_eq!(seen, if len == whole.len() { 3 } else { 1 }, "{len} of {}", whole.len());
    }
}

#[test]
fn timelines_are_announced_and_what_was_removed_is_declared() {
    let mut journal = Fixture::new(400);
    journal.timeline();
    for n in 0..6u8 {
        journal.block(&[OwnedGroup::simple(&[n; 100])]);
    }
    wait_written(&journal);
    let mut follower = follow(&journal, 0);
    assert_eq!(drain(&mut follower).0.len(), 6);
    let mut slow = follow(&journal, 0);
    assert!(matches!(slow.next().unwrap(), Some(Followed::Group { .. })));
    journal.timeline();
    journal.block(&[OwnedGroup::simple(b"x")]);
    journal.close();
    std::thread::sleep(std::time::Duration::from_millis(10));
    let (groups, notes) = drain(&mut follower);
    assert_eq!((groups.len(), groups[0].0), (1, TimelineId(2)));
    let [Note::Timeline { id: TimelineId(2), reason, complete_until, start_ts }] = &notes[..] else {
        panic!("{notes:?}")
    };
    assert_eq!(reason, "reason 2");
    assert!(complete_until < start_ts);

    for path in &journal.segments()[..4] {
        std::fs::remove_file(path).unwrap();
    }
    let (groups, notes) = drain(&mut slow);
    assert_eq!(groups.iter().map(|(_, g)| g.records[0].lsn.0).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(notes[0], Note::Removed { from: Lsn(2), to: Lsn(4) });
    let (groups, notes) = drain(&mut follow(&journal, 2));
    assert_eq!((groups.len(), &notes[0]), (3, &Note::Removed { from: Lsn(3), to: Lsn(4) }));
}

#[test]
fn damage_in_what_has_ended_is_an_error() {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options(400) });
    journal.timeline();
    for n in 0..6u8 {
        journal.block(&[OwnedGroup::simple(&[n; 100])]);
    }
    journal.kill();
    let path = &journal.segments()[2];
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(50).position(|w| w == [2; 50]).unwrap();
    bytes[at] = 99;
    std::fs::write(path, &bytes).unwrap();
    let mut follower = follow(&journal, 0);
    let error = loop {
        match follower.next() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it waits"),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("corrupt at offset"), "{error}");
}
