use std::fs;

use super::*;
use crate::crypto::Keyring;
use crate::marks::add_mark;
use crate::model::{Fixture, OwnedGroup, keyring, options};
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

/// A sealed segment of about a MiB, as it was written or packed, perhaps encrypted.
fn large(compact: bool, encrypted: bool) -> Fixture {
    let noise = |n: u32| blake3::hash(&n.to_le_bytes()).as_bytes().repeat(4);
    let group = |n: u32| OwnedGroup::set(0, &n.to_le_bytes(), &noise(n));
    let blocks: Vec<_> = (0..6).map(|b| (0..1100).map(|n| group(b * 1100 + n)).collect()).collect();
    let keyring = if encrypted { keyring(&["one"]) } else { Keyring::default() };
    Fixture::closed_with(OpenOptions { compact, keyring, ..options(4 << 20) }, &blocks)
}

#[test]
fn flipped_bits_and_cuts_of_a_large_sealed_segment_are_found_in_their_place() {
    for (compact, encrypted) in [(false, false), (true, false), (false, true), (true, true)] {
        let journal = large(compact, encrypted);
        let path = journal.last_segment();
        let whole = fs::read(&path).unwrap();
        let keyring = &journal.options.keyring;
        let check = |bytes: &[u8], deep| {
            fs::write(&path, bytes).unwrap();
            verify_with(journal.dir(), deep, keyring, |_| ()).unwrap().problems
        };
        assert_eq!(check(&whole, true), []);
        assert!(whole.len() > 200 << 10, "{} bytes", whole.len());
        let file = PathBuf::from("segments").join(path.file_name().unwrap());
        // Every byte of the header, the first block's header, the last filters and the footer; others in steps, of
        // which no two are alike.
        let (head, tail) = (400, whole.len() - 400);
        let between = (0..60).map(|n| head + (tail - head) / 60 * n + n);
        for at in (0..head).step_by(5).chain(between).chain((tail..whole.len()).step_by(5)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            let found = check(&bytes, true);
            assert!(found.iter().any(|p| p.file == file), "byte {at}, packed {compact}, encrypted {encrypted}");
            assert!(found.iter().all(|p| p.offset <= at as u64 || p.offset + 300 > tail as u64), "{at}: {found:?}");
        }
        for len in (0..40).map(|n| whole.len() / 40 * n).chain(whole.len() - 20..whole.len()) {
            let found = check(&whole[..len], false);
            // As it was written, a segment without its footer is an unsealed one.
            assert!(!found.is_empty() || !compact, "cut at {len}");
        }
    }
}

#[test]
fn a_damaged_block_is_reported_with_what_it_affects() {
    let journal = Fixture::closed_with(
        OpenOptions { compact: false, ..options(1 << 20) },
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
    assert!(report.notes[1].starts_with("1 mark names a point in time before"), "{:?}", report.notes);
    journal.segments().iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_eq!(verify(dir, true, |_| ()).unwrap().notes.len(), 2, "both snapshots");
}
