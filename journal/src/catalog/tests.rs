use proptest::prelude::*;

use super::*;
use crate::model::{Fixture, OwnedGroup, any_groups, keyring, options};
use crate::open::OpenOptions;
use crate::snapshot::SnapshotWriter;
use crate::snapshot::tests::manifest;
use crate::types::{Group, OTHERS_TOO};

fn last_lsn(group: &Group) -> Lsn {
    group.records.last().unwrap().lsn
}

/// The cut as the model says: after the last group that is `within`.
fn cut_of(groups: &[Group], start: (Lsn, Micros), within: impl Fn(&Group) -> bool) -> Cut {
    let n = groups.iter().take_while(|g| within(g)).count();
    let before = n.checked_sub(1).map(|n| &groups[n]);
    let next = groups.get(n);
    Cut {
        lsn: before.map_or(start.0, last_lsn),
        ts: before.map_or(start.1, |g| g.ts),
        next_ts: next.map(|g| g.ts),
        next_slack: next.map_or(0, |g| g.slack),
    }
}

fn small_groups() -> impl Strategy<Value = Vec<OwnedGroup>> {
    any_groups(0..5).prop_map(|mut groups| {
        for group in &mut groups {
            group.ts_delta %= 4;
            group.offset_delta %= 4;
        }
        groups
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]
    #[test]
    fn places_are_found_as_in_the_model(
        timelines in prop::collection::vec(prop::collection::vec(small_groups(), 0..12), 1..4),
        segment_bytes in 300u64..4000, close: bool, compact: bool,
    ) {
        let mut journal = Fixture::with(OpenOptions { compact, ..options(segment_bytes) });
        for blocks in &timelines {
            journal.timeline();
            for block in blocks {
                journal.block(block);
            }
        }
        if close { journal.close() } else { journal.kill() }
        let catalog = Catalog::open(journal.dir()).unwrap();
        let infos = catalog.timelines();
        prop_assert_eq!(infos.len(), timelines.len());
        for (info, (id, groups)) in infos.iter().zip(&journal.expected) {
            let start = (Lsn(info.first_lsn.0 - 1), info.start_ts);
            prop_assert_eq!(info.last_lsn, groups.last().map_or(start.0, last_lsn));
            let times = groups.iter().flat_map(|g| [g.ts.0 - 1, g.ts.0]).chain([i64::MIN, i64::MAX]);
            for at in times.map(Micros) {
                let expected = cut_of(groups, start, |g| g.ts <= at);
                prop_assert_eq!(catalog.find_cut_by_ts(*id, at).unwrap(), expected);
            }
            for lsn in (start.0.0..=info.last_lsn.0 + 2).map(Lsn) {
                let expected = cut_of(groups, start, |g| last_lsn(g) <= lsn);
                prop_assert_eq!(catalog.find_cut_by_lsn(*id, lsn).unwrap(), expected);
                let read: Vec<Group> = catalog.groups(lsn, *id).map(Result::unwrap).collect();
                let wanted: Vec<Group> =
                    groups.iter().filter(|g| last_lsn(g) > lsn).cloned().collect();
                prop_assert_eq!(read, wanted);
                let back: Vec<Group> = catalog.groups_back(lsn, *id).map(Result::unwrap).collect();
                prop_assert!(back.iter().eq(groups.iter().filter(|g| last_lsn(g) <= lsn).rev()));
            }
            for offset in (info.start_offset.0..info.end_offset.0 + 2).map(ReplOffset) {
                let found = catalog.lsn_at_offset(*id, offset).unwrap();
                let lsn = cut_of(groups, start, |g| g.end_offset <= offset).lsn;
                prop_assert_eq!(found, AtOffset { lsn, reached: offset <= info.end_offset });
            }
        }
        let nowhere = catalog.find_cut_by_lsn(TimelineId(99), Lsn(0));
        prop_assert!(matches!(nowhere, Err(ReadError::NoTimeline(_))));
    }
}

#[test]
fn the_offset_of_a_heartbeat_counts_as_reached() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.block(&[OwnedGroup::simple(b"abc")]);
    journal.builder.set_end_offset(ReplOffset(1100));
    journal.block(&[]);
    journal.kill();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let at = |offset| catalog.lsn_at_offset(TimelineId(1), ReplOffset(offset)).unwrap();
    assert_eq!(at(1002), AtOffset { lsn: Lsn(0), reached: true });
    assert_eq!(at(1003), AtOffset { lsn: Lsn(1), reached: true });
    assert_eq!(at(1100), AtOffset { lsn: Lsn(1), reached: true });
    assert_eq!(at(1101), AtOffset { lsn: Lsn(1), reached: false });
}

#[test]
fn windows_begin_with_a_snapshot_and_gaps_lie_between_them() {
    let mut journal = Fixture::new(1 << 20);
    for timeline in 1..=3 {
        journal.timeline();
        journal.block(&[OwnedGroup::simple(b"a"), OwnedGroup::simple(b"b")]);
        // The second timeline has no snapshot.
        if timeline != 2 {
            let lsn = 2 * (u64::from(timeline) - 1);
            let base = manifest(lsn, timeline, lsn as i64 * 10 + 7);
            SnapshotWriter::create(journal.dir()).unwrap().commit(base).unwrap();
        }
    }
    let late = manifest(5, 3, 55);
    SnapshotWriter::create(journal.dir()).unwrap().commit(late).unwrap();
    let ahead = manifest(99, 3, 99);
    SnapshotWriter::create(journal.dir()).unwrap().commit(ahead).unwrap();
    journal.close();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let window = |timeline, from, from_lsn, to, to_lsn| Window {
        timeline: TimelineId(timeline),
        from: Micros(from),
        from_lsn: Lsn(from_lsn),
        to: Micros(to),
        to_lsn: Lsn(to_lsn),
        damaged_behind: false,
    };
    assert_eq!(catalog.windows(), [window(1, 7, 0, 20, 2), window(3, 47, 4, 60, 6)]);
    let gap = Gap { from: Micros(20), to: Micros(47), after_lsn: Lsn(2), reason: "reason 3".to_owned() };
    assert_eq!(catalog.gaps(), [gap]);
}

#[test]
fn a_base_is_a_moment_before_its_first_segment_is_written() {
    let mut journal = Fixture::new(1 << 20);
    SnapshotWriter::create(journal.dir()).unwrap().commit(manifest(0, 1, 7)).unwrap();
    let catalog = Catalog::open(journal.dir()).unwrap();
    assert!(catalog.segments().is_empty());
    let windows = catalog.windows();
    assert_eq!(
        windows.iter().map(|w| (w.timeline, w.from, w.to)).collect::<Vec<_>>(),
        [(TimelineId(1), Micros(7), Micros(7))]
    );
    assert_eq!(windows_of(&catalog), [(0, 0, false)]);
    // Of one behind records that are not there, nobody knows what is missing.
    let later = SnapshotWriter::create(journal.dir()).unwrap().commit(manifest(50, 1, 99)).unwrap();
    assert_eq!(windows_of(&Catalog::open(journal.dir()).unwrap()), [(0, 0, false)]);
    std::fs::remove_file(later.with_extension("json")).unwrap();
    // Then the same point in time is where the window begins.
    journal.timeline();
    journal.block(&[OwnedGroup::simple(b"a")]);
    journal.close();
    let windows = Catalog::open(journal.dir()).unwrap().windows();
    assert_eq!(
        windows.iter().map(|w| (w.from, w.from_lsn, w.to_lsn)).collect::<Vec<_>>(),
        [(Micros(7), Lsn(0), Lsn(1))]
    );
}

fn windows_of(catalog: &Catalog) -> Vec<(u64, u64, bool)> {
    catalog.windows().iter().map(|w| (w.from_lsn.0, w.to_lsn.0, w.damaged_behind)).collect()
}

fn snapshot_at(journal: &Fixture, lsn: u64) {
    SnapshotWriter::create(journal.dir()).unwrap().commit(manifest(lsn, 1, lsn as i64 * 10 + 7)).unwrap();
}

#[test]
fn a_missing_segment_ends_the_window_before_it_and_no_other() {
    let block = vec![OwnedGroup::simple(&[7; 100])];
    let journal = Fixture::closed(400, &[block.clone(), block.clone(), block.clone(), block]);
    snapshot_at(&journal, 0);
    snapshot_at(&journal, 2);
    let segments = journal.segments();
    assert_eq!(segments.len(), 4);
    std::fs::remove_file(&segments[1]).unwrap();
    let catalog = Catalog::open(journal.dir()).unwrap();
    assert_eq!(windows_of(&catalog), [(0, 1, true), (2, 4, false)]);
    assert!(catalog.gaps()[0].reason.contains("segment is missing"), "{:?}", catalog.gaps());
    assert_eq!(catalog.notes().len(), 1, "{:?}", catalog.notes());
    assert!(catalog.notes()[0].contains("does not continue"), "{:?}", catalog.notes());
    // Behind the hole everything can be read; across it nothing.
    let read = |after| catalog.groups(Lsn(after), TimelineId(1)).collect::<Vec<_>>();
    assert_eq!(read(2).iter().filter(|g| g.is_ok()).count(), 2);
    assert!(read(2).iter().all(Result::is_ok));
    let across = read(0);
    assert!(across.len() == 2 && across[0].is_ok() && matches!(across[1], Err(ReadError::Corrupt { .. })));
    assert!(matches!(read(1)[..], [Err(ReadError::Corrupt { .. })]));
}

#[test]
fn a_damaged_end_is_told_from_the_end() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    for word in [&b"first"[..], b"needle", b"last"] {
        journal.block(&[OwnedGroup::simple(word)]);
    }
    snapshot_at(&journal, 0);
    journal.kill();
    assert_eq!(windows_of(&Catalog::open(journal.dir()).unwrap()), [(0, 3, false)]);
    let path = journal.last_segment();
    let whole = std::fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    let at = bytes.windows(6).position(|w| w == b"needle").unwrap();
    bytes[at] = b'N';
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(windows_of(&Catalog::open(journal.dir()).unwrap()), [(0, 1, true)]);
    // A torn tail is what a crash leaves: no damage.
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(windows_of(&Catalog::open(journal.dir()).unwrap()), [(0, 2, false)]);
}

#[test]
fn a_segment_that_was_sealed_since_is_read_as_far_as_it_went() {
    let block = |n: u8| vec![OwnedGroup::simple(&[n; 90]), OwnedGroup::simple(&[n; 9])];
    for (seen, compact) in [(1, true), (7, true), (30, true), (7, false)] {
        let mut journal = Fixture::with(OpenOptions { compact, ..options(1 << 20) });
        journal.timeline();
        for n in 0..seen {
            journal.block(&block(n));
        }
        journal.kill();
        let catalog = Catalog::open(journal.dir()).unwrap();
        let mut begun = catalog.groups(Lsn(0), TimelineId(1));
        let first = begun.next().unwrap().unwrap();
        let before = journal.expected[0].1.clone();
        journal.reopen();
        for n in 0..30 {
            journal.block(&block(n));
        }
        journal.close();
        journal.check();

        let read: Vec<Group> = catalog.groups(Lsn(0), TimelineId(1)).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, before);
        // Who has the old file open goes on in it.
        let rest: Vec<Group> = begun.collect::<Result<_, _>>().unwrap();
        assert_eq!((&first, &rest[..]), (&before[0], &before[1..]));
        let end = last_lsn(before.last().unwrap());
        for lsn in 0..=end.0 + 3 {
            let wanted = cut_of(&before, (Lsn(0), Micros(5)), |g| last_lsn(g).0 <= lsn);
            assert_eq!(catalog.find_cut_by_lsn(TimelineId(1), Lsn(lsn)).unwrap(), wanted);
            let after: Vec<Group> = catalog.groups(Lsn(lsn), TimelineId(1)).map(Result::unwrap).collect();
            assert_eq!(after, before.iter().filter(|g| last_lsn(g).0 > lsn).cloned().collect::<Vec<_>>());
        }
        for group in &before {
            let wanted = cut_of(&before, (Lsn(0), Micros(5)), |g| g.ts <= group.ts);
            assert_eq!(catalog.find_cut_by_ts(TimelineId(1), group.ts).unwrap(), wanted);
        }
    }
}

#[test]
fn another_segment_in_the_place_of_one_is_refused() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.block(&[OwnedGroup::simple(b"a")]);
    journal.kill();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let mut other = Fixture::new(1 << 20);
    other.timeline();
    other.timeline();
    other.block(&[OwnedGroup::simple(b"b")]);
    other.close();
    std::fs::copy(other.last_segment(), journal.last_segment()).unwrap();
    let read: Vec<_> = catalog.groups(Lsn(0), TimelineId(1)).collect();
    assert!(matches!(&read[..], [Err(ReadError::Corrupt { .. })]), "{read:?}");
}

#[test]
fn a_search_for_keys_finds_all_that_may_touch_them_and_reads_little_else() {
    for compact in [true, false] {
        let mut journal = Fixture::with(OpenOptions { compact, ..options(40_000) });
        journal.timeline();
        for n in 0..2000u32 {
            let mut groups = vec![OwnedGroup::set(n % 2, format!("key:{n}").as_bytes(), &n.to_le_bytes().repeat(9))];
            if n % 500 == 0 {
                groups.push(OwnedGroup::simple(b"FLUSHALL"));
                groups.push(OwnedGroup { keys: Some(vec![]), ..OwnedGroup::simple(b"PUBLISH") });
            }
            journal.block(&groups);
        }
        if compact {
            journal.sync();
            journal.wait_until_packed();
        }
        // The last segment stays open.
        journal.kill();
        let catalog = Catalog::open(journal.dir()).unwrap();
        assert!(catalog.segments().len() > 3);
        let all: u64 = catalog.segments().iter().map(|s| s.bytes).sum();
        let open = catalog.segments().last().unwrap().bytes;
        for wanted in [vec![(1, "key:777")], vec![(0, "key:0"), (1, "key:1999")], vec![(0, "key:777")], vec![]] {
            let keys: Vec<(u32, &[u8])> = wanted.iter().map(|(db, key)| (*db, key.as_bytes())).collect();
            for after in [0, 3, 800, 1999] {
                let mut reader = catalog.groups_for_keys(Lsn(after), TimelineId(1), &keys);
                let found: Vec<Group> = reader.by_ref().map(Result::unwrap).collect();
                let touches = |g: &&Group| {
                    let r = &g.records[0];
                    r.lsn > Lsn(after) && (r.keys.is_none() || keys.iter().any(|(db, key)| r.may_touch(*db, key)))
                };
                let expected: Vec<Group> = journal.expected[0].1.iter().filter(touches).cloned().collect();
                assert_eq!(found, expected, "{wanted:?} after {after}");
                if compact && after == 0 {
                    let Searched { read_bytes, skipped_bytes } = reader.searched();
                    assert!(skipped_bytes > (all - open) / 2, "{skipped_bytes} of {all}");
                    assert!(read_bytes < open + (all - open) / 2, "{read_bytes} of {all}");
                }
            }
        }
    }
}

#[test]
fn a_search_reads_of_the_segment_in_use_only_what_may_hold_the_keys() {
    for keys in [Keyring::default(), keyring(&["one"])] {
        let options = OpenOptions { compact: false, keyring: keys.clone(), ..options(1 << 30) };
        let mut journal = Fixture::with(options.clone());
        journal.timeline();
        for n in 0..300u32 {
            let mut groups = vec![OwnedGroup::set(0, format!("key:{n}").as_bytes(), &[n as u8; 90])];
            if n == 150 {
                groups.push(OwnedGroup::simple(b"FLUSHALL"));
            }
            if n == 200 {
                // A block that is compressed when it is written.
                groups.push(OwnedGroup::set(0, b"large", &vec![7; crate::block::LARGE_BLOCK_BYTES]));
            }
            journal.block(&groups);
        }
        journal.kill();
        let expected = &journal.expected[0].1;
        let found = |catalog: &Catalog, key: &[u8]| {
            let mut forward = catalog.groups_for_keys(Lsn(0), TimelineId(1), &[(0, key)]);
            let groups: Vec<Group> = forward.by_ref().map(Result::unwrap).collect();
            let mut back = catalog.groups_back_for_keys(Lsn(u64::MAX), TimelineId(1), &[(0, key)]);
            let mut reversed: Vec<Group> = back.by_ref().map(Result::unwrap).collect();
            reversed.reverse();
            assert_eq!(groups, reversed);
            (groups, forward.searched().read_bytes, back.searched().read_bytes)
        };
        let plain = Catalog::open_with(journal.dir(), &options.keyring).unwrap();
        let catalog = Catalog::open_for_search(journal.dir(), &options.keyring).unwrap();
        let bytes = catalog.segments()[0].bytes;
        assert!(!catalog.segments()[0].sealed && bytes > 30_000);
        for key in [&b"key:0"[..], b"key:7", b"key:299", b"large", b"none"] {
            let (groups, forward, back) = found(&catalog, key);
            let touches = |g: &&Group| g.records[0].keys.is_none() || g.records[0].may_touch(0, key);
            assert_eq!(groups, expected.iter().filter(touches).cloned().collect::<Vec<_>>());
            assert!(forward < bytes / 8 && back < bytes / 8, "{forward} and {back} of {bytes}");
            let (same, all, _) = found(&plain, key);
            assert!(same == groups && all > bytes * 9 / 10);
        }
        if keys.current().is_some() {
            let blind = Catalog::open_for_search(journal.dir(), &Keyring::default()).unwrap();
            let mut read = blind.groups_for_keys(Lsn(0), TimelineId(1), &[(0, b"none")]);
            assert!(matches!(read.next(), Some(Err(ReadError::Key { .. }))), "what cannot be read is not ruled out");
        }
    }
}

#[test]
fn a_damaged_filter_hides_nothing() {
    let blocks: Vec<_> = (0..200u8).map(|n| vec![OwnedGroup::set(0, &[b'k', n], &[n; 30])]).collect();
    let journal = Fixture::closed(1 << 20, &blocks);
    let path = journal.last_segment();
    let whole = std::fs::read(&path).unwrap();
    let footer_len = u32::from_le_bytes(whole[whole.len() - 16..][..4].try_into().unwrap()) as usize;
    let footer_at = whole.len() - footer_len;
    let blocks_end = u64::from_le_bytes(whole[footer_at + 92..][..8].try_into().unwrap()) as usize;
    assert!(blocks_end + 200 < footer_at);
    for at in (blocks_end..footer_at).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] = 0;
        std::fs::write(&path, &bytes).unwrap();
        let catalog = Catalog::open(journal.dir()).unwrap();
        let found = |n: u8| catalog.groups_for_keys(Lsn(0), TimelineId(1), &[(0, &[b'k', n])]).count();
        assert!((0..200).step_by(40).all(|n| found(n) == 1), "byte {at}");
        if bytes != whole {
            let problems = crate::verify::verify(journal.dir(), true, |_| ()).unwrap().problems;
            assert!(problems.iter().any(|p| p.consequence.contains("search")), "byte {at}: {problems:?}");
        }
    }
}

/// Reads a history backwards; gives the groups in its order.
fn read_back(
    catalog: &Catalog,
    (after, upto): (u64, u64),
    mut wanted: impl FnMut(&[Group]) -> Option<WantedKeys>,
) -> (Vec<Group>, Searched) {
    let mut reader = catalog.parts_back(Lsn(after), Lsn(upto), TimelineId(1));
    let mut found: Vec<Group> = Vec::new();
    loop {
        let keys = wanted(&found);
        let Some(mut part) = reader.next_part(keys.as_ref()).unwrap() else { break };
        part.append(&mut found);
        found = part;
    }
    (found, reader.searched())
}

#[test]
fn a_history_is_read_backwards_for_keys_that_become_more_on_the_way() {
    for (compact, closed) in [(true, true), (true, false), (false, false)] {
        let mut journal = Fixture::with(OpenOptions { compact, ..options(40_000) });
        journal.timeline();
        for n in 0..2000u32 {
            let mut groups = vec![OwnedGroup::set(n % 2, format!("key:{n}").as_bytes(), &n.to_le_bytes().repeat(9))];
            if n == 700 {
                groups.push(OwnedGroup { keys: Some(vec![OTHERS_TOO, 1]), ..OwnedGroup::set(0, b"other", b"") });
            }
            journal.block(&groups);
        }
        if compact {
            journal.sync();
            journal.wait_until_packed();
        }
        if closed {
            journal.close();
        } else {
            journal.kill();
        }
        let catalog = Catalog::open_for_search(journal.dir(), &Keyring::default()).unwrap();
        let model = &journal.expected[0].1;
        let all: u64 = catalog.segments().iter().map(|s| s.bytes).sum();
        for range in [(0, 2001), (0, 1200), (3, 1999), (1500, 1501), (900, 900), (2001, 5000)] {
            let (everything, _) = read_back(&catalog, range, |_| None);
            let inside = |g: &&Group| last_lsn(g).0 > range.0 && last_lsn(g).0 <= range.1;
            assert_eq!(everything, model.iter().filter(inside).cloned().collect::<Vec<_>>(), "{range:?}");
        }
        // Of two keys the second one is wanted only when the first was found.
        let has = |groups: &[Group], key: &str| groups.iter().any(|g| g.records[0].may_touch(0, key.as_bytes()));
        let (found, searched) = read_back(&catalog, (0, 2001), |found| {
            let second = has(found, "key:1500").then_some((0, &b"key:300"[..]));
            Some([(0, &b"key:1500"[..])].into_iter().chain(second).collect())
        });
        assert!(has(&found, "key:1500") && has(&found, "key:300") && has(&found, "other"));
        assert!(searched.read_bytes < all / 2 && searched.skipped_bytes > all / 2, "{searched:?} of {all}");
        // Nothing is wanted: only what nobody can rule out is read.
        let (found, searched) = read_back(&catalog, (0, 2001), |_| Some(WantedKeys::default()));
        assert!(has(&found, "other") && !has(&found, "key:1500"));
        assert!(searched.read_bytes < all / 2, "{searched:?} of {all}");
    }
}

#[test]
fn only_blocks_with_wanted_lsns_are_read() {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options(40_000) });
    journal.timeline();
    for n in 0..2000u32 {
        journal.block(&[OwnedGroup::set(0, format!("key:{n}").as_bytes(), &[n as u8; 40]), OwnedGroup::simple(b"x")]);
    }
    journal.close();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let all: u64 = catalog.segments().iter().map(|s| s.bytes).sum();
    for wanted in [vec![], vec![1], vec![777, 778, 3999, 4000], (1..=4000).collect::<Vec<u64>>()] {
        for after in [0, 778, 3999] {
            let lsns = wanted.clone();
            let within = move |first: Lsn, last: Lsn| lsns.iter().any(|lsn| (first.0..=last.0).contains(lsn));
            let mut reader = catalog.groups_within(Lsn(after), TimelineId(1), within);
            let found: Vec<u64> = reader.by_ref().map(|g| last_lsn(&g.unwrap()).0).collect();
            let expected: Vec<u64> = wanted.iter().copied().filter(|lsn| *lsn > after).collect();
            assert!(expected.iter().all(|lsn| found.contains(lsn)), "{wanted:?} after {after}: {found:?}");
            // A block has two groups.
            assert!(found.len() <= 2 * expected.len(), "{wanted:?} after {after}: {found:?}");
            if wanted.len() < 10 {
                assert!(reader.searched().read_bytes < all / 10, "{:?} of {all}", reader.searched());
            }
        }
    }
}

/// Segments of one block each: the first and the last hold what is wanted, those between are passed over.
#[test]
fn segments_without_wanted_lsns_are_no_gap() {
    let mut journal = Fixture::with(options(300));
    journal.timeline();
    for n in 0..5u8 {
        journal.block(&[OwnedGroup::set(0, &[b'k', n], &[n; 300])]);
    }
    journal.close();
    let catalog = Catalog::open(journal.dir()).unwrap();
    assert!(catalog.segments().len() >= 5, "each block has a segment of its own");
    let wanted = |a: Lsn, b: Lsn| a <= Lsn(1) || b >= Lsn(5);
    let groups: Result<Vec<Group>, _> = catalog.groups_within(Lsn(0), TimelineId(1), wanted).collect();
    let lsns: Vec<u64> = groups.unwrap().iter().map(|group| last_lsn(group).0).collect();
    assert_eq!(lsns, [1, 5]);
}

#[test]
fn parts_are_given_forwards_for_certain_lsns() {
    for (compact, closed) in [(true, true), (false, true), (false, false)] {
        let mut journal = Fixture::with(OpenOptions { compact, ..options(40_000) });
        journal.timeline();
        for n in 0..2000u32 {
            journal.block(&[OwnedGroup::set(n % 2, format!("key:{n}").as_bytes(), &n.to_le_bytes().repeat(9))]);
        }
        if closed {
            journal.close();
        } else {
            journal.sync();
        }
        let catalog = Catalog::open(journal.dir()).unwrap();
        let read = |after: u64, upto: u64, lsns: &'static [u64]| {
            let wanted = move |a: Lsn, b: Lsn| lsns.iter().any(|lsn| (a.0..=b.0).contains(lsn));
            let mut reader = catalog.parts_within(Lsn(after), Lsn(upto), TimelineId(1), wanted);
            let mut found = Vec::new();
            while let Some(job) = reader.next_job(None).unwrap() {
                // As another thread would.
                let part: Vec<Group> = std::thread::scope(|scope| {
                    let read = scope.spawn(|| {
                        let mut part = Vec::new();
                        assert!(job.read(&mut part).unwrap() > 0);
                        part
                    });
                    read.join().unwrap()
                });
                found.extend(part.iter().map(|group| group.records[0].lsn.0));
            }
            assert!(found.is_sorted(), "{found:?}");
            (found, reader.searched())
        };
        let (found, searched) = read(0, 2000, &[5, 700, 701, 1999]);
        assert!([5, 700, 701, 1999].iter().all(|lsn| found.contains(lsn)) && found.len() < 1000, "{}", found.len());
        assert!(searched.skipped_bytes > 0, "{searched:?}");
        let (found, _) = read(699, 1500, &[5, 700, 1999]);
        assert!(found.contains(&700) && found.iter().all(|lsn| (700..=1500).contains(lsn)), "{found:?}");
        assert_eq!(read(0, 2000, &[]).0, [0; 0]);
    }
}

#[test]
fn a_damaged_block_stops_only_who_may_need_it() {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options(1 << 30) });
    journal.timeline();
    for n in 0..300u32 {
        journal.block(&[OwnedGroup::set(0, format!("key:{n}").as_bytes(), &[n as u8; 90])]);
    }
    journal.close();
    let path = journal.last_segment();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|w| w == b"key:150").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let read = |key: &[u8]| {
        let wanted: WantedKeys = [(0, key)].into_iter().collect();
        let mut reader = catalog.parts_back(Lsn(0), Lsn(300), TimelineId(1));
        let mut groups = 0;
        while let Some(part) = reader.next_part(Some(&wanted))? {
            groups += part.len();
        }
        Ok::<_, ReadError>(groups)
    };
    assert!(read(b"key:20").unwrap() > 0);
    assert!(matches!(read(b"key:150"), Err(ReadError::Corrupt { .. })));
    let within = |lsn: u64| catalog.groups_within(Lsn(0), TimelineId(1), move |a, b| (a.0..=b.0).contains(&lsn));
    assert!(within(20).all(|group| group.is_ok()));
    assert!(within(151).any(|group| group.is_err()));
}
