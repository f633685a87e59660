//! What is not as it was written: refused, or a torn tail, and never another entry.

use std::fs;
use std::path::Path;

use super::{Place, Read, UndoEntry, UndoFileError, bytes, entries, fixed, keyring, keyrings, operation, read};
use crate::crypto::Keyring;
use crate::error_kind::ErrorKind;
use crate::undo_file::part::{self, PART_HEADER_LEN, PartHeader};
use crate::undo_file::reader::UndoReader;
use crate::undo_file::{EntryNumber, Operation, OperationId};

/// Reads other bytes under the name of a file.
fn read_changed(place: &Place, path: &Path, changed: &[u8]) -> Result<Read, UndoFileError> {
    fs::write(path, changed).unwrap();
    place.read(path)
}

#[test]
fn each_bit_that_is_flipped_is_found() {
    for keyring in keyrings() {
        let place = Place::new(keyring);
        let path = place.write(&entries());
        let stored = fs::read(&path).unwrap();
        let whole = place.read(&path).unwrap();
        let last = *whole.positions.last().unwrap();
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut changed = stored.clone();
                changed[at] ^= 1 << bit;
                match read_changed(&place, &path, &changed) {
                    Err(refused) => {
                        let kinds = [ErrorKind::Damaged, ErrorKind::NotAJournal];
                        assert!(kinds.contains(&refused.kind()), "byte {at}, bit {bit}: {refused}");
                    }
                    // Each entry was synced: only of the last one nobody knows.
                    Ok(left) => {
                        assert_eq!(left.torn.map(|torn| torn.at), Some(last), "byte {at}, bit {bit}");
                        assert_eq!(left.entries[..], whole.entries[..whole.entries.len() - 1]);
                    }
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_of_the_last_entry_is_no_torn_tail() {
    let place = Place::new(Keyring::default());
    let path = place.write(&entries()[..1]);
    let stored = fs::read(&path).unwrap();
    let begin = place.read(&path).unwrap().positions[0] as usize;
    // No sector ends in it.
    assert_eq!(begin / 512, (stored.len() - 1) / 512);
    for at in begin..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 1;
        let refused = read_changed(&place, &path, &changed).unwrap_err();
        assert!(matches!(refused, UndoFileError::Damaged { offset, .. } if offset == begin as u64), "{refused}");
        assert!(refused.to_string().contains("keep a copy"), "{refused}");
        assert!(matches!(place.try_begin(), Err(UndoFileError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), changed, "it is not touched");
    }
}

#[test]
fn each_cut_is_a_torn_tail_that_the_next_run_takes_off() {
    for keyring in keyrings() {
        let place = Place::new(keyring);
        let all = &entries()[..8];
        let path = place.write(all);
        let stored = fs::read(&path).unwrap();
        let whole = place.read(&path).unwrap();
        let begin = whole.positions[0];
        let behind = UndoEntry::Absent { db: 0, key: bytes("behind"), written: [9; 16] };
        for len in 0..stored.len() {
            let changed = &stored[..len];
            if (len as u64) < begin {
                let refused = read_changed(&place, &path, changed).unwrap_err();
                let kinds = [ErrorKind::Damaged, ErrorKind::NotAJournal];
                assert!(kinds.contains(&refused.kind()), "{len} bytes: {refused}");
                continue;
            }
            let left = read_changed(&place, &path, changed).unwrap();
            let ends = whole.positions[1..].iter().copied().chain([stored.len() as u64]);
            let kept = ends.filter(|end| *end <= len as u64).count();
            assert_eq!(left.entries(), all[..kept], "{len} bytes");
            let end = whole.positions.get(kept).map_or(stored.len() as u64, |begin| *begin);
            let torn = left.torn.map(|torn| (torn.at, torn.bytes));
            assert_eq!(torn, (len as u64 != end).then(|| (end, len as u64 - end)), "{len} bytes");

            let mut begun = place.begin();
            let progress = begun.progress.unwrap();
            assert_eq!(
                (progress.entries(), progress.torn().map(|torn| torn.at)),
                (kept as u64, torn.map(|(at, _)| at))
            );
            assert_eq!(fs::metadata(&path).unwrap().len(), end);
            begun.writer.append(&behind).unwrap();
            begun.writer.sync().unwrap();
            drop(begun.writer);
            let entries = place.read(&path).unwrap().entries();
            assert_eq!(entries, [&all[..kept], std::slice::from_ref(&behind)].concat(), "{len} bytes");
        }
    }
}

fn large(key: &'static str) -> UndoEntry<'static> {
    let dump = (1..=3000u32).map(|n| n as u8 | 1).collect::<Vec<u8>>();
    UndoEntry::Value { db: 0, key: bytes(key), expires_ms: 0, dump: dump.into(), written: [1; 16] }
}

/// Sectors that a power failure has kept from the disk.
#[test]
fn a_missing_sector_is_torn_if_it_was_not_synced_and_else_damage() {
    for keyring in keyrings() {
        for is_synced in [false, true] {
            let place = Place::new(keyring.clone());
            let mut writer = place.begin().writer;
            writer.append(&large("first")).unwrap();
            writer.sync().unwrap();
            let begin = fs::metadata(place.file()).unwrap().len();
            writer.append(&large("second")).unwrap();
            if is_synced {
                writer.sync().unwrap();
            }
            writer.append(&large("third")).unwrap();
            writer.sync().unwrap();
            drop(writer);
            let path = place.file();
            let stored = fs::read(&path).unwrap();
            let second_end = begin + (stored.len() as u64 - begin) / 2;
            for sector in begin.div_ceil(512)..second_end / 512 {
                let mut changed = stored.clone();
                changed[sector as usize * 512..][..512].fill(0);
                let left = read_changed(&place, &path, &changed);
                if is_synced {
                    let refused = left.unwrap_err();
                    assert!(matches!(refused, UndoFileError::Damaged { .. }), "sector {sector}: {refused}");
                    continue;
                }
                let left = left.unwrap();
                assert_eq!(left.entries(), [large("first")], "sector {sector}");
                assert_eq!(left.torn.unwrap().at, begin, "sector {sector}");
                let mut begun = place.begin();
                assert_eq!(fs::metadata(&path).unwrap().len(), begin);
                begun.writer.append(&large("again")).unwrap();
                begun.writer.finish().unwrap();
                drop(begun);
                let entries = place.read(&path).unwrap().entries();
                assert_eq!(entries, [large("first"), large("again"), UndoEntry::Finished]);
            }
        }
    }
}

/// Stored parts of a file, each with its header.
fn parts(stored: &[u8], begin: u64, tag: u32) -> Vec<(PartHeader, Vec<u8>)> {
    let (mut at, mut parts) = (begin as usize, Vec::new());
    while at < stored.len() {
        let header = PartHeader::decode(&stored[at..at + PART_HEADER_LEN], tag).unwrap();
        let body = stored[at + PART_HEADER_LEN..][..header.len as usize].to_vec();
        at += PART_HEADER_LEN + body.len();
        parts.push((header, body));
    }
    parts
}

/// A file of these parts. Somebody without the key can compute all checksums.
fn forge(head: &[u8], tag: u32, parts: &[(PartHeader, Vec<u8>)]) -> Vec<u8> {
    let mut out = head.to_vec();
    for (header, body) in parts {
        part::store(*header, tag, None, body, &mut out);
    }
    out
}

#[test]
fn what_is_encrypted_cannot_be_moved_swapped_or_left_out_even_with_right_checksums() {
    let place = Place::new(keyring(&["key-1"]));
    let same: Vec<UndoEntry<'_>> =
        (0..4).map(|n: u8| UndoEntry::Absent { db: 0, key: vec![b'a' + n].into(), written: [n; 16] }).collect();
    let path = place.write(&same);
    let stored = fs::read(&path).unwrap();
    let (tag, begin) = {
        let reader = UndoReader::open(&path, &place.keyring).unwrap();
        (reader.whole_head().tag, reader.whole_head().len)
    };
    let head = &stored[..begin as usize];
    let honest = parts(&stored, begin, tag);
    assert_eq!(forge(head, tag, &honest), stored, "the forger knows the format");
    let bodies = |order: &[usize]| {
        let moved = |(at, from): (usize, &usize)| (honest[at].0, honest[*from].1.clone());
        order.iter().enumerate().map(moved).collect::<Vec<_>>()
    };
    let with = |change: &dyn Fn(&mut PartHeader)| {
        let mut parts = honest.clone();
        change(&mut parts[1].0);
        parts
    };
    let forged = [
        bodies(&[1, 0, 2, 3]),
        bodies(&[0, 1, 1, 3]),
        bodies(&[0, 2, 3]),
        with(&|header| header.is_last = false),
        with(&|header| header.synced = begin),
        with(&|header| header.number = 7),
        [honest[0].clone(), honest[2].clone(), honest[3].clone()].to_vec(),
        [honest[1].clone(), honest[0].clone(), honest[2].clone(), honest[3].clone()].to_vec(),
    ];
    for (n, parts) in forged.iter().enumerate() {
        let refused = read_changed(&place, &path, &forge(head, tag, parts)).unwrap_err();
        assert!(matches!(refused, UndoFileError::Damaged { .. }), "{n}: {refused}");
    }
    // Whole entries from another file of the same operation, though its data key was drawn alike.
    fs::write(&path, &stored).unwrap();
    let mut writer = place.begin().writer;
    writer.finish().unwrap();
    drop(writer);
    let mut writer = place.begin().writer;
    assert_eq!(writer.head().number, 2);
    for entry in &same {
        writer.append(entry).unwrap();
        writer.sync().unwrap();
    }
    let other = writer.path().to_owned();
    drop(writer);
    let reader = UndoReader::open(&other, &place.keyring).unwrap();
    let (other_tag, other_begin) = (reader.whole_head().tag, reader.whole_head().len);
    drop(reader);
    let other_stored = fs::read(&other).unwrap();
    let other_head = &other_stored[..other_begin as usize];
    assert_eq!((other_begin, other_tag == tag), (begin, false));
    for spliced in [[other_head, &stored[begin as usize..]].concat(), forge(other_head, other_tag, &honest)] {
        let refused = read_changed(&place, &other, &spliced).unwrap_err();
        assert!(matches!(refused, UndoFileError::Damaged { offset, .. } if offset == begin), "{refused}");
    }
}

#[test]
fn in_clear_too_what_is_moved_or_comes_from_another_file_is_refused() {
    let place = Place::new(Keyring::default());
    let same: Vec<UndoEntry<'_>> =
        (0..3).map(|n: u8| UndoEntry::Absent { db: 0, key: vec![b'a' + n].into(), written: [n; 16] }).collect();
    let path = place.write(&same);
    let stored = fs::read(&path).unwrap();
    let positions: Vec<usize> = place.read(&path).unwrap().positions.iter().map(|at| *at as usize).collect();
    let [a, b, c] = positions[..] else { panic!() };
    let (head, first, second, third) = (&stored[..a], &stored[a..b], &stored[b..c], &stored[c..]);
    for moved in [[head, second, first, third], [head, first, third, second], [head, first, first, third]] {
        let refused = read_changed(&place, &path, &moved.concat()).unwrap_err();
        assert!(matches!(refused, UndoFileError::Damaged { .. }), "{refused}");
    }
    let left_out = [head, first, third].concat();
    assert!(read_changed(&place, &path, &left_out).is_err());
    let other = Place::new(Keyring::default());
    let later = Operation { created: crate::types::Micros(operation().created.0 + 1), ..operation() };
    let mut writer = other.state_dir().begin_with(&later, &Keyring::default(), fixed).unwrap().writer;
    writer.append(&same[0]).unwrap();
    writer.sync().unwrap();
    let other_head = fs::read(writer.path()).unwrap()[..a].to_vec();
    assert_ne!(other_head, head);
    assert!(read_changed(&place, &path, &[&other_head, first, second, third].concat()).is_err());
}

#[test]
fn another_file_another_key_and_another_format_are_told_apart() {
    let place = Place::new(keyring(&["key-1"]));
    let path = place.write(&entries());
    let stored = fs::read(&path).unwrap();
    let refused = read(&path, &Keyring::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyMissing);
    assert!(refused.to_string().contains("--journal-key-file"), "{refused}");
    let wrong = Keyring::parse(&format!("key-1:{}", "0".repeat(64))).unwrap();
    let refused = read(&path, &wrong).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    assert!(refused.to_string().contains("another key than the `key-1`"), "{refused}");

    let refused = read_changed(&place, &path, b"#!/bin/sh\n").unwrap_err();
    assert!(refused.to_string().contains("it begins with `#!/bin/s`"), "{refused}");
    let mut newer = stored.clone();
    newer[8] = 2;
    let len = u32::from_le_bytes(newer[12..16].try_into().unwrap()) as usize + 16;
    let crc = crc32c::crc32c(&newer[..len]);
    newer[len..len + 4].copy_from_slice(&crc.to_le_bytes());
    let refused = read_changed(&place, &path, &newer).unwrap_err();
    assert!(refused.to_string().contains("use a newer redtape"), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::NotAJournal);

    // Under the name of another operation.
    fs::write(&path, &stored).unwrap();
    let other = Operation { id: OperationId::derive(&[]), ..operation() };
    let foreign = place.state_dir().first_file(&other.journal_id, other.id);
    fs::copy(&path, &foreign).unwrap();
    let refused = place.state_dir().begin(&other, &place.keyring).unwrap_err();
    assert!(matches!(&refused, UndoFileError::Foreign { what: "the operation", .. }), "{refused}");
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    fs::remove_file(&foreign).unwrap();
    fs::rename(&path, path.with_file_name(format!("{}-5.undo", operation().id))).unwrap();
    let refused = place.try_begin().unwrap_err();
    assert!(matches!(&refused, UndoFileError::Foreign { what: "the number", .. }), "{refused}");
}

#[test]
fn what_no_writer_writes_is_damage() {
    let place = Place::new(Keyring::default());
    let done = |upto: u64| UndoEntry::Done { first: EntryNumber(0), last: EntryNumber(upto) };
    let path = place.write(&[entries()[0].clone(), done(0)]);
    let stored = fs::read(&path).unwrap();
    let (tag, begin) = {
        let reader = UndoReader::open(&path, &place.keyring).unwrap();
        (reader.whole_head().tag, reader.whole_head().len)
    };
    let honest = parts(&stored, begin, tag);
    let forged = |bodies: &[Vec<u8>]| {
        let header = |n: usize| PartHeader { number: n as u64, synced: begin, ..honest[0].0 };
        let parts: Vec<_> = bodies.iter().enumerate().map(|(n, body)| (header(n), body.clone())).collect();
        forge(&stored[..begin as usize], tag, &parts)
    };
    let body = |entry: &UndoEntry<'_>| {
        let (begin, rest) = entry.encode();
        [&begin[..], rest].concat()
    };
    let finished = body(&UndoEntry::Finished);
    for (what, bodies) in [
        ("behind the end", vec![finished.clone(), finished.clone()]),
        ("an entry that is done before it is there", vec![body(&done(0))]),
        ("one that was not written before it is there", vec![body(&UndoEntry::NotWritten { entry: EntryNumber(0) })]),
        ("no kind", vec![vec![0]]),
        ("another kind", vec![vec![10]]),
        ("nothing", vec![vec![]]),
        ("more than an entry", vec![[&finished[..], b"x"].concat()]),
        ("a database that is too large", vec![[&[1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0], &[0; 16][..]].concat()]),
    ] {
        let refused = read_changed(&place, &path, &forged(&bodies)).unwrap_err();
        assert!(matches!(refused, UndoFileError::Damaged { .. }), "{what}: {refused}");
    }
}
