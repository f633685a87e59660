use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::block::BLOCK_HEADER_LEN;
use crate::catalog::Catalog;
use crate::marks::add_mark;
use crate::model::{Fixture, OwnedGroup, keyring, options};
use crate::open::OpenOptions;
use crate::segment::load::{TailFact, load_open_segment};
use crate::segment::scan::Blocks;
use crate::snapshot::{SnapshotManifest, SnapshotWriter};
use crate::types::{Group, Mark, Micros, ReplOffset};
use crate::verify::verify_with;

/// Groups of each segment.
const BLOCKS: u32 = 12;

/// A few segments of one timeline that begins with a base, and one of a second.
fn journal(options: OpenOptions) -> Fixture {
    let mut journal = Fixture::with(options);
    journal.timeline();
    snapshot(&journal, SnapshotKind::Base);
    let mut n = 0u32;
    let mut block = |journal: &mut Fixture| {
        let noise = *blake3::hash(&n.to_le_bytes()).as_bytes();
        n += 2;
        journal.block(&[OwnedGroup::set(0, &n.to_le_bytes(), &noise), OwnedGroup::set(1, &noise[..9], &noise)]);
    };
    for _ in 0..5 * BLOCKS {
        block(&mut journal);
    }
    journal.timeline();
    snapshot(&journal, SnapshotKind::Base);
    for _ in 0..BLOCKS {
        block(&mut journal);
    }
    journal
}

fn snapshot(journal: &Fixture, kind: SnapshotKind) {
    let b = &journal.builder;
    let timeline = journal.expected.last().unwrap().0;
    let manifest = SnapshotManifest {
        lsn: Lsn(b.next_lsn().0 - 1),
        timeline,
        source_id: format!("source {timeline}"),
        offset: if b.end_offset() == ReplOffset(0) { ReplOffset(1000) } else { b.end_offset() },
        ts: Micros(b.last_ts().0.max(1)),
        kind,
        ..crate::snapshot::tests::manifest(1, timeline.0, 1)
    };
    let mut writer = SnapshotWriter::create_with(journal.dir(), &journal.options.keyring).unwrap();
    writer.write(b"a copy").unwrap();
    writer.commit(manifest).unwrap();
}

fn plain() -> OpenOptions {
    OpenOptions { compact: false, ..options(3000) }
}

/// What can be read, over all holes.
fn readable(journal: &Fixture) -> Vec<Group> {
    let catalog = Catalog::open_with(journal.dir(), &journal.options.keyring).unwrap();
    let mut found: Vec<Group> = Vec::new();
    for timeline in catalog.timelines() {
        for window in catalog.segments().iter().filter(|s| s.timeline == timeline.id) {
            let after = Lsn(window.first_lsn.0 - 1);
            if found.last().is_none_or(|g| g.records.last().unwrap().lsn <= after) {
                found.extend(catalog.groups(after, timeline.id).map_while(Result::ok));
            }
        }
    }
    found
}

/// Repairs; afterwards everything that is readable was written, everything else is told as lost, and writing goes on.
fn repaired(journal: &mut Fixture) -> RepairReport {
    let dir = journal.dir().to_owned();
    let before = all_files(&dir);
    let planned = plan_repair(&dir, &journal.options.keyring).unwrap();
    assert_eq!(all_files(&dir), before, "a plan changes nothing");
    let report = repair(&dir, &journal.options.keyring).unwrap();
    assert_eq!(report.plan, planned);
    if let Some(folder) = &report.copies {
        for entry in fs::read_dir(folder).unwrap() {
            let copy = entry.unwrap().path();
            let name = copy.file_name().unwrap();
            let whole = before.iter().find(|(path, _)| path.file_name() == Some(name)).unwrap();
            assert_eq!(fs::read(&copy).unwrap(), whole.1, "the copy of {name:?}");
        }
        for (path, bytes) in &before {
            let kept = fs::read(path).is_ok_and(|now| now == *bytes);
            assert!(kept || folder.join(path.file_name().unwrap()).exists(), "{path:?} is gone");
        }
    }
    let again = repair(&dir, &journal.options.keyring).unwrap();
    assert_eq!(
        (again.plan.faults, again.copies, again.plan.lost),
        (vec![], None, report.plan.lost.clone()),
        "a second repair"
    );
    sound(journal);

    let expected: Vec<Group> = journal.expected.iter().flat_map(|(_, groups)| groups.clone()).collect();
    let found = readable(journal);
    let lsns =
        |groups: &[Group]| -> BTreeSet<u64> { groups.iter().flat_map(|g| &g.records).map(|r| r.lsn.0).collect() };
    assert!(found.iter().all(|g| expected.contains(g)), "nothing is invented");
    let lost: BTreeSet<u64> = report.plan.lost.iter().flat_map(|s| s.from_lsn.0..=s.to_lsn.unwrap().0).collect();
    let (there, all) = (lsns(&found), lsns(&expected));
    assert!(there.is_disjoint(&lost), "lost and found");
    let missing: Vec<_> = all.iter().filter(|lsn| !there.contains(lsn) && !lost.contains(lsn)).collect();
    assert!(missing.is_empty(), "neither there nor told: {missing:?}, lost {lost:?}");

    // Writing goes on, and the LSNs of what was lost are not given again.
    journal.reopen();
    let first = journal.builder.next_lsn();
    assert!(all.iter().chain(&lost).all(|lsn| *lsn < first.0) || lost.is_empty());
    if journal.recovered.last.as_ref().is_none_or(|last| last.source_id.is_empty()) {
        journal.expected.clear();
        let id = journal.recovered.last.as_ref().map_or(0, |last| last.timeline.0) + 1;
        let start = crate::writer::TimelineStart {
            timeline: TimelineId(id),
            source_id: "new".to_owned(),
            offset: ReplOffset(7),
            reason: "a base".to_owned(),
            ts: Micros(journal.builder.last_ts().0 + 1),
        };
        journal.writer().begin_timeline(start).unwrap();
        let b = &journal.builder;
        journal.builder = crate::block::BlockBuilder::new(b.next_lsn(), b.last_ts(), ReplOffset(7), 0);
        journal.expected.push((TimelineId(id), Vec::new()));
    }
    journal.block(&[OwnedGroup::simple(b"afterwards")]);
    journal.close();
    sound(journal);
    assert_eq!(readable(journal).last().unwrap().records[0].lsn, first);
    report
}

fn sound(journal: &Fixture) {
    let report = verify_with(journal.dir(), true, &journal.options.keyring, |_| ()).unwrap();
    assert_eq!(report.problems, []);
}

fn all_files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for folder in [dir.to_owned(), dir.join("segments"), dir.join("snapshots")] {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        files.extend(entries.filter(|p| p.is_file() && !p.ends_with("prune.lock") && !p.ends_with("lock")));
    }
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn flip(path: &Path, at: usize, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= mask;
    fs::write(path, bytes).unwrap();
}

fn variants() -> Vec<OpenOptions> {
    let locked = OpenOptions { keyring: keyring(&["one"]), ..options(3000) };
    vec![plain(), options(3000), locked.clone(), OpenOptions { compact: false, ..locked }]
}

/// A journal, closed, of which each test has its own copy.
fn closed(options: &OpenOptions) -> Fixture {
    let mut journal = journal(options.clone());
    journal.close();
    assert!(journal.segments().len() >= 5, "{:?}", journal.segments());
    journal
}

#[test]
fn a_sound_journal_is_left_alone() {
    for options in variants() {
        let journal = closed(&options);
        let before = all_files(journal.dir());
        let report = repair(journal.dir(), &options.keyring).unwrap();
        assert_eq!(report, RepairReport::default());
        assert_eq!(all_files(journal.dir()), before);
        assert!(!journal.dir().join("quarantine/repair-1").exists());
    }
}

#[test]
fn wherever_a_segment_is_damaged_only_what_is_hit_is_lost() {
    for options in variants() {
        let len = fs::metadata(&closed(&options).segments()[2]).unwrap().len() as usize;
        for n in 0..24 {
            let at = (len - 1) * n / 23;
            let mut journal = closed(&options);
            let path = journal.segments()[2].clone();
            flip(&path, at, 0x11);
            let report = repaired(&mut journal);
            assert!(report.plan.faults.iter().any(|f| f.file == path), "byte {at}: {report:?}");
            let lost: u64 = report.plan.lost.iter().map(|s| s.to_lsn.unwrap().0 + 1 - s.from_lsn.0).sum();
            // A packed block holds some of the small ones; without its header, an encrypted segment is nothing.
            let headless = options.keyring.current().is_some() && at < 300;
            assert!(lost <= if options.compact || headless { 60 } else { 4 }, "byte {at} costs {lost} records");
        }
    }
}

#[test]
fn one_wrong_bit_in_a_header_costs_nothing() {
    for options in variants() {
        for at in [0, 9, 13, 40, 130, 170] {
            let mut journal = closed(&options);
            let path = &journal.segments()[2];
            let len = u32::from_le_bytes(fs::read(path).unwrap()[12..16].try_into().unwrap());
            flip(path, at.min(len as usize - 1), 4);
            let report = repaired(&mut journal);
            assert_eq!(report.plan.lost, [], "byte {at}");
            assert!(report.plan.faults[0].what.contains("one bit was wrong"), "{report:?}");
        }
    }
}

#[test]
fn what_is_cut_off_or_missing_is_told() {
    for options in variants() {
        for of in 0..6 {
            for cut in [None, Some(10), Some(200), Some(900)] {
                let mut journal = closed(&options);
                let path = journal.segments()[of].clone();
                match cut {
                    None => fs::remove_file(&path).unwrap(),
                    Some(len) => fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap(),
                }
                if of == 0 && cut.is_none() {
                    // As after pruning: the first one is the first there is.
                    continue;
                }
                let last = of + 1 == journal.segments().len() + usize::from(cut.is_none());
                if last {
                    // Nothing tells that there was more, but snapshots and marks.
                    continue;
                }
                if of == 0 {
                    journal.expected[0].1.retain(|g| g.records[0].lsn.0 > 1000);
                    let report = repair(journal.dir(), &journal.options.keyring).unwrap();
                    assert!(!report.plan.faults.is_empty());
                    sound(&journal);
                    continue;
                }
                let report = repaired(&mut journal);
                let any = report.plan.lost.len() == 1 || cut == Some(900) && report.plan.lost.is_empty();
                assert!(any, "segment {of} cut at {cut:?}: {report:?}");
            }
        }
    }
}

#[test]
fn what_was_lost_at_the_end_is_not_numbered_again() {
    for options in variants() {
        let mut journal = journal(options);
        add_mark(
            journal.dir(),
            &Mark { name: "m".to_owned(), ts: Micros(9), lsn: Lsn(journal.builder.next_lsn().0 - 1) },
        )
        .unwrap();
        journal.close();
        let last = journal.last_segment();
        fs::remove_file(&last).unwrap();
        let report = repaired(&mut journal);
        assert_eq!(report.plan.lost.len(), 1);
        assert!(report.plan.steps.iter().any(|s| s.contains("takes a base")), "{report:?}");
    }
}

#[test]
fn names_that_were_mixed_up_are_put_right() {
    for options in variants() {
        let mut journal = closed(&options);
        let segments = journal.segments();
        let aside = journal.dir().join("aside");
        fs::rename(&segments[1], &aside).unwrap();
        fs::rename(&segments[3], &segments[1]).unwrap();
        fs::rename(&aside, &segments[3]).unwrap();
        let report = repaired(&mut journal);
        assert_eq!((report.plan.lost, report.plan.faults.len()), (vec![], 2));
        let mut journal = closed(&options);
        let segments = journal.segments();
        fs::copy(&segments[1], &segments[3]).unwrap();
        let report = repaired(&mut journal);
        assert_eq!(report.plan.lost.len(), 1, "what was written over");
        assert_eq!(report.plan.faults.len(), 1);
    }
}

#[test]
fn a_segment_of_another_journal_goes() {
    for options in variants() {
        let mut journal = closed(&options);
        let path = journal.segments()[2].clone();
        let mut bytes = fs::read(&path).unwrap();
        bytes[16..32].copy_from_slice(b"another journal!");
        let len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let crc = crc32c::crc32c(&bytes[..len - 4]).to_le_bytes();
        bytes[len - 4..len].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
        let report = repaired(&mut journal);
        assert!(report.plan.faults[0].what.contains("another journal"), "{report:?}");
        assert_eq!(report.plan.lost.len(), 1);
    }
}

#[test]
fn an_unsealed_end_stays_what_it_is_unless_it_is_damaged() {
    for options in variants() {
        let mut torn = journal(options.clone());
        torn.kill();
        let path = torn.last_segment();
        let len = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(len - 10).unwrap();
        let report = repair(torn.dir(), &options.keyring).unwrap();
        assert_eq!(report, RepairReport::default(), "the next start cuts it");
        torn.reopen();
        torn.forget_lost();
        torn.close();
        torn.check();

        let mut hit = journal(options.clone());
        hit.timeline();
        for value in [b"one", b"two", b"six"] {
            hit.block(&[OwnedGroup::simple(value)]);
        }
        hit.kill();
        let path = hit.last_segment();
        let header = u32::from_le_bytes(fs::read(&path).unwrap()[12..16].try_into().unwrap());
        flip(&path, header as usize + 100, 1);
        let report = repaired(&mut hit);
        assert_eq!(report.plan.lost.len(), 1, "{report:?}");
    }
}

#[test]
fn without_the_key_nothing_is_changed() {
    let options = OpenOptions { keyring: keyring(&["one"]), ..options(3000) };
    let journal = closed(&options);
    let path = journal.segments()[2].clone();
    flip(&path, fs::metadata(&path).unwrap().len() as usize - 20, 1);
    let before = all_files(journal.dir());
    let error = repair(journal.dir(), &Keyring::default()).unwrap_err().to_string();
    assert!(error.contains("one"), "{error}");
    assert_eq!(all_files(journal.dir()), before);
}

#[test]
fn meta_marks_and_snapshots() {
    let mut journal = closed(&plain());
    for name in ["a", "b"] {
        add_mark(journal.dir(), &Mark { name: name.to_owned(), ts: Micros(9), lsn: Lsn(3) }).unwrap();
    }
    flip(&journal.dir().join("marks"), 12, 1);
    fs::remove_file(journal.dir().join("meta")).unwrap();
    let mut snapshots: Vec<_> =
        fs::read_dir(journal.dir().join("snapshots")).unwrap().map(|e| e.unwrap().path()).collect();
    snapshots.sort();
    flip(snapshots.iter().find(|p| p.extension().is_some_and(|e| e == "rdb")).unwrap(), 3, 1);
    let report = repaired(&mut journal);
    assert_eq!(report.plan.faults.len(), 3, "{report:?}");
    let catalog = Catalog::open(journal.dir()).unwrap();
    assert_eq!(catalog.marks().len(), 1);
    assert_eq!(catalog.snapshots().len(), 1);
}

/// Found by fuzzing: a packed segment without a record cannot be gone on with.
#[test]
fn when_nothing_is_left_of_the_last_segment_a_timeline_begins() {
    for options in variants() {
        let mut journal = Fixture::with(options);
        journal.timeline();
        snapshot(&journal, SnapshotKind::Base);
        journal.block(&[OwnedGroup::simple(b"gone")]);
        journal.close();
        let path = journal.last_segment();
        let header = u32::from_le_bytes(fs::read(&path).unwrap()[12..16].try_into().unwrap());
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(u64::from(header) + 40).unwrap();
        journal.expected.clear();
        if !journal.options.compact {
            // As a crash leaves it.
            continue;
        }
        let report = repaired(&mut journal);
        assert!(report.plan.steps.iter().any(|s| s.contains("takes a base")), "{report:?}");
    }
}

/// Found by fuzzing: such a header is written anew and sealed, and a writer cannot go on in that.
#[test]
fn a_first_segment_without_a_record_that_names_a_predecessor() {
    for options in variants().into_iter().filter(|options| options.keyring.current().is_none()) {
        let mut journal = Fixture::with(options);
        journal.timeline();
        journal.kill();
        let path = journal.last_segment();
        let mut bytes = fs::read(&path).unwrap();
        let len = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        // Its digest stands behind id, LSN, timeline and database.
        bytes[60] ^= 1;
        let crc = crc32c::crc32c(&bytes[..len - 4]).to_le_bytes();
        bytes[len - 4..len].copy_from_slice(&crc);
        fs::write(&path, bytes).unwrap();
        assert!(crate::model::open_with(journal.dir(), journal.options.clone()).is_err(), "the writer refuses it");
        let report = repaired(&mut journal);
        assert!(report.plan.steps.iter().any(|s| s.contains("takes a base")), "{report:?}");
    }
}

#[test]
fn a_writer_is_not_disturbed() {
    let journal = journal(plain());
    let error = repair(journal.dir(), &Keyring::default()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

#[test]
fn a_timeline_begins_with_the_first_of_its_bases() {
    let base = |timeline, offset| {
        let manifest = SnapshotManifest {
            offset: ReplOffset(offset),
            source_id: format!("at {offset}"),
            ..crate::snapshot::tests::manifest(offset, timeline, 1)
        };
        SnapshotInfo { path: PathBuf::new(), manifest, key_index_bytes: 0 }
    };
    let found = timelines(&BTreeMap::new(), &[base(1, 50), base(1, 10), base(2, 7), base(2, 70)]);
    let begins: Vec<_> = found.values().map(|t| (t.start_offset.0, &*t.source_id)).collect();
    assert_eq!(begins, [(10, "at 10"), (7, "at 7")]);
}

/// Two faults at once: a footer is gone, and a block has groups that nobody can read behind checksums that are right.
#[test]
fn groups_that_cannot_be_read_are_left_out_of_what_is_written_anew() {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options(8000) });
    journal.timeline();
    snapshot(&journal, SnapshotKind::Base);
    for n in 0..4u8 {
        let mut value = vec![0; 3000];
        blake3::Hasher::new().update(&[n]).finalize_xof().fill(&mut value);
        journal.block(&[OwnedGroup::simple(&value)]);
    }
    journal.close();
    let first = journal.segments()[0].clone();
    assert!(journal.segments().len() > 1);
    let file = fs::File::open(&first).unwrap();
    let facts = load_open_segment(&file, crate::model::name_of(&first), &first, false).unwrap();
    let (Ok(whole), TailFact::Sealed(footer)) = (&facts.header, &facts.tail) else { panic!("{facts:?}") };
    let blocks: Vec<_> = Blocks::of(&file, whole, footer.blocks_end).map(|block| block.unwrap().0).collect();
    let mut header = blocks[1];
    let payload = header.position as usize + BLOCK_HEADER_LEN;
    let mut bytes = fs::read(&first).unwrap();
    bytes.truncate(footer.blocks_end as usize);
    // Flags of a group that do not exist.
    bytes[payload] = 0x77;
    header.payload_crc = crc32c::crc32c(&bytes[payload..][..header.stored_len as usize]);
    bytes[header.position as usize..payload].copy_from_slice(&header.encode());
    fs::write(&first, &bytes).unwrap();
    let report = repair(journal.dir(), &journal.options.keyring).unwrap();
    assert!(report.copies.is_some());
    let left = readable(&journal);
    assert_eq!(left[0], journal.expected[0].1[0]);
    assert!(!left.iter().any(|group| group.records[0].lsn == Lsn(2)), "{left:?}");
    assert_eq!(verify_with(journal.dir(), true, &Keyring::default(), |_| ()).unwrap().problems, []);
}
