use std::fs;

use super::*;
use crate::marks::add_mark;
use crate::model::{Fixture, OwnedGroup, options};
use crate::open::OpenOptions;
use crate::snapshot::SnapshotWriter;
use crate::types::{Lsn, Mark, Micros};

fn problems(journal: &Fixture, deep: bool) -> Vec<Problem> {
    verify(journal.dir(), deep, |_| ()).unwrap().problems
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_found() {
    let journal = Fixture::closed(1 << 20, &[vec![OwnedGroup::simple(b"abc")]]);
    assert_eq!(problems(&journal, true), []);
    let path = journal.last_segment();
    let whole = fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &bytes).unwrap();
        assert!(!problems(&journal, true).is_empty(), "bit {bit}");
    }
}

#[test]
fn a_damaged_block_is_reported_with_what_it_affects() {
    let journal = Fixture::closed_with(
        OpenOptions { pack: false, ..options(1 << 20) },
        &[vec![OwnedGroup::simple(b"a")], vec![OwnedGroup::simple(b"needle")], vec![OwnedGroup::simple(b"b")]],
    );
    let path = journal.last_segment();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|w| w == b"needle").unwrap();
    bytes[at] = b'N';
    fs::write(&path, &bytes).unwrap();
    assert_eq!(problems(&journal, false), []);
    let problems = problems(&journal, true);
    assert_eq!(problems.len(), 2, "block and digest: {problems:?}");
    let span = problems[0].span.unwrap();
    assert_eq!((span.from_lsn, span.to_lsn), (Lsn(2), Some(Lsn(2))));
    assert_eq!((span.from_ts, span.to_ts), (Micros(10), Some(Micros(30))));
    assert_eq!(problems[0].file, PathBuf::from("segments").join(path.file_name().unwrap()));
}

#[test]
fn missing_extra_and_broken_files_are_found() {
    let block = vec![OwnedGroup::simple(&[7; 100])];
    let journal = Fixture::closed(400, &[block.clone(), block.clone(), block]);
    let dir = journal.dir();
    let manifest = crate::snapshot::tests::manifest(0, 1, 3);
    let mut snapshot = SnapshotWriter::create(dir).unwrap();
    snapshot.write(b"REDIS0010").unwrap();
    let unfinished = SnapshotWriter::create(dir).unwrap();
    let path = snapshot.commit(manifest).unwrap();
    add_mark(dir, &Mark { name: "m".to_owned(), ts: Micros(1), lsn: Lsn(1) }).unwrap();
    let mut seen = Vec::new();
    let report = verify(dir, true, |p| seen.push(p.clone())).unwrap();
    assert_eq!((report.segments, report.records, report.snapshots), (3, 3, 1));
    assert_eq!(report.problems, []);
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[3].done_bytes, seen[3].total_bytes);
    drop(unfinished);

    fs::write(&path, b"REDIS0011").unwrap();
    fs::write(dir.join("segments/notes.txt"), "").unwrap();
    fs::write(dir.join("snapshots/1.rdb"), "").unwrap();
    fs::write(dir.join("snapshots/2.json"), "{}").unwrap();
    fs::write(dir.join("marks"), "{}\n").unwrap();
    fs::write(dir.join("dump.rdb"), "").unwrap();
    fs::remove_file(&journal.segments()[1]).unwrap();
    let mut files: Vec<String> = problems(&journal, true).iter().map(|p| p.file.display().to_string()).collect();
    files.sort();
    assert_eq!(
        files,
        [
            "dump.rdb",
            "marks",
            "segments/00000000000000000003-000001.seg",
            "segments/notes.txt",
            "snapshots/00000000000000000000-000001.rdb",
            "snapshots/1.rdb",
            "snapshots/2.json",
        ]
    );
}

#[test]
fn snapshots_and_marks_before_the_first_segment_are_noted() {
    let block = vec![OwnedGroup::simple(&[7; 100])];
    let journal = Fixture::closed(400, &[block.clone(), block.clone(), block]);
    let dir = journal.dir();
    for lsn in [0, 1] {
        let manifest = crate::snapshot::tests::manifest(lsn, 1, 3);
        let mut snapshot = SnapshotWriter::create(dir).unwrap();
        snapshot.write(b"REDIS0010").unwrap();
        snapshot.commit(manifest).unwrap();
    }
    add_mark(dir, &Mark { name: "m".to_owned(), ts: Micros(1), lsn: Lsn(0) }).unwrap();
    assert_eq!(verify(dir, true, |_| ()).unwrap().notes, Vec::<String>::new());
    fs::remove_file(&journal.segments()[0]).unwrap();
    let report = verify(dir, true, |_| ()).unwrap();
    assert_eq!(report.problems, [], "they may have been removed on purpose");
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
    assert!(report.notes[0].contains("snapshots/00000000000000000000-000001.rdb"), "{:?}", report.notes);
    assert!(report.notes[1].starts_with("1 mark names a moment before"), "{:?}", report.notes);
    journal.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(verify(dir, true, |_| ()).unwrap().notes.len(), 2, "both snapshots");
}
