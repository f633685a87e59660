//! Encryption at rest: nothing leaks, nothing is read with a wrong key, nothing can be moved.

use std::fs;
use std::io::Read;

use crate::catalog::Catalog;
use crate::crypto::{KeyFault, Keyring};
use crate::error::{OpenError, ReadError};
use crate::model::{Fixture, OwnedGroup, keyring, open_with, options};
use crate::open::OpenOptions;
use crate::snapshot::SnapshotWriter;
use crate::snapshot::tests::manifest;
use crate::types::{Group, Lsn, Origin, OriginKind, TimelineId};
use crate::verify::{verify, verify_with};

const SECRET: &[u8] = b"my secret words";

fn secrets() -> Vec<OwnedGroup> {
    let origin = Origin { addr: "my secret words".to_owned(), ..Origin::of(OriginKind::Client) };
    (0..30u8)
        .map(|n| OwnedGroup {
            origin: origin.clone().into(),
            ..OwnedGroup::set(0, &[SECRET, &[n]].concat(), &[SECRET, &[n]].concat())
        })
        .collect()
}

fn encrypted(ids: &[&str], compact: bool) -> OpenOptions {
    OpenOptions { compact, keyring: keyring(ids), ..options(1 << 20) }
}

fn groups(journal: &Fixture, keyring: &Keyring) -> Vec<Result<Group, ReadError>> {
    Catalog::open_with(journal.dir(), keyring).unwrap().groups(Lsn(0), TimelineId(1)).collect()
}

#[test]
fn keys_values_and_origins_are_not_in_the_files() {
    for compact in [false, true] {
        let mut journal = Fixture::with(encrypted(&["one"], compact));
        journal.timeline();
        journal.block(&secrets());
        journal.kill();
        for closed in [false, true] {
            let bytes = fs::read(journal.last_segment()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == &SECRET[3..9]), "closed {closed}");
            journal.check();
            journal.reopen();
            journal.close();
        }
        let catalog = Catalog::open_with(journal.dir(), &keyring(&["one"])).unwrap();
        let key = [SECRET, &[7]].concat();
        assert_eq!(catalog.groups_for_keys(Lsn(0), TimelineId(1), &[(0, &key)]).count(), 1);
    }
}

#[test]
fn a_missing_or_wrong_key_is_named_and_the_rest_can_be_listed() {
    for closed in [false, true] {
        let mut journal = Fixture::with(encrypted(&["one"], true));
        journal.timeline();
        journal.block(&secrets());
        if closed {
            journal.close();
        } else {
            journal.kill();
        }
        let wrong = Keyring::parse(&format!("one:{}", blake3::hash(b"another"))).unwrap();
        let missing = [Keyring::default(), keyring(&["two"])];
        for (given, fault) in missing
            .into_iter()
            .map(|given| (given, KeyFault::Missing("one".to_owned())))
            .chain([(wrong, KeyFault::Wrong("one".to_owned()))])
        {
            assert_eq!(Catalog::open_with(journal.dir(), &given).unwrap().segments()[0].last_lsn, Lsn(30));
            let read = groups(&journal, &given);
            assert!(matches!(&read[..], [Err(ReadError::Key { fault: found, .. })] if *found == fault), "{read:?}");
            let report = verify_with(journal.dir(), true, &given, |_| ()).unwrap();
            let is_missing = matches!(fault, KeyFault::Missing(_));
            assert_eq!((report.notes.len(), report.problems.len()), if is_missing { (1, 0) } else { (0, 1) });
            let opened = open_with(journal.dir(), OpenOptions { keyring: given, ..options(1 << 20) });
            // Also behind a sealed segment, where writing could go on in clear.
            assert!(matches!(opened, Err(OpenError::Key { fault: found, .. }) if found == fault));
        }
        assert_eq!(groups(&journal, &keyring(&["two", "one"])).len(), 30);
    }
}

#[test]
fn what_was_begun_without_a_key_or_with_another_one_is_not_continued() {
    for (before, after) in [(vec![], vec!["one"]), (vec!["one"], vec!["one", "two"])] {
        let options_of = |ids: &[&str]| match ids {
            [] => options(1 << 20),
            ids => encrypted(ids, true),
        };
        for records in [false, true] {
            let mut journal = Fixture::with(options_of(&before));
            journal.timeline();
            journal.block(&if records { secrets() } else { Vec::new() });
            journal.kill();
            journal.options = options_of(&after);
            let catalog = Catalog::open(journal.dir()).unwrap();
            journal.reopen();
            journal.block(&[OwnedGroup::set(0, b"later", SECRET)]);
            journal.kill();
            assert_eq!(journal.segments().len(), if records { 2 } else { 1 });
            let bytes = fs::read(journal.last_segment()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == &SECRET[3..9]));
            assert!(bytes.windows(3).any(|w| w == after.last().unwrap().as_bytes()), "the id of the key");
            journal.check();
            // Who looked before sees what was there then.
            assert_eq!(catalog.groups(Lsn(30 * u64::from(records)), TimelineId(1)).count(), 0);
            assert_eq!(verify_with(journal.dir(), true, &journal.options.keyring, |_| ()).unwrap().problems, []);
        }
    }
}

#[test]
fn a_block_in_another_place_or_in_clear_is_refused() {
    let mut plain = Fixture::with(OpenOptions { compact: false, ..options(1 << 20) });
    let mut journal = Fixture::with(encrypted(&["one"], false));
    for journal in [&mut plain, &mut journal] {
        journal.timeline();
        journal.block(&[OwnedGroup::simple(b"abc")]);
        journal.kill();
    }
    let whole = fs::read(journal.last_segment()).unwrap();
    let at = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    // Each field of the block's header that has no other check, changed by somebody who can compute checksums.
    for (field, what) in [(40, "time"), (48, "complete until"), (64, "offset"), (72, "database")] {
        let mut bytes = whole.clone();
        bytes[at + field] ^= 1;
        let crc = crc32c::crc32c(&bytes[at..at + 92]);
        bytes[at + 92..at + 96].copy_from_slice(&crc.to_le_bytes());
        fs::write(journal.last_segment(), &bytes).unwrap();
        let read = groups(&journal, &keyring(&["one"]));
        assert!(read.iter().any(Result::is_err), "{what}: {read:?}");
    }
    let mut bytes = fs::read(plain.last_segment()).unwrap();
    let plain_at = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let mut block = bytes.split_off(plain_at);
    block[80..88].copy_from_slice(&(at as u64).to_le_bytes());
    block[88..92].copy_from_slice(&whole[at - 4..at]);
    let crc = crc32c::crc32c(&block[..92]);
    block[92..96].copy_from_slice(&crc.to_le_bytes());
    fs::write(journal.last_segment(), [&whole[..at], &block].concat()).unwrap();
    let read = groups(&journal, &keyring(&["one"]));
    assert!(matches!(&read[..], [Err(ReadError::Corrupt { .. })]), "{read:?}");
}

#[test]
fn an_encrypted_snapshot_comes_back_with_its_key_only() {
    let journal = Fixture::new(1 << 20);
    let content: Vec<u8> = SECRET.repeat(20);
    let mut writer = SnapshotWriter::create_with(journal.dir(), &keyring(&["one"])).unwrap();
    content.chunks(7).for_each(|bytes| writer.write(bytes).unwrap());
    assert_eq!(writer.written_bytes(), content.len() as u64);
    let path = writer.commit(manifest(0, 1, 5)).unwrap();
    let stored = fs::read(&path).unwrap();
    assert!(!stored.windows(6).any(|w| w == &SECRET[3..9]));
    let catalog = Catalog::open(journal.dir()).unwrap();
    let info = &catalog.snapshots()[0];
    let read = |keyring: &Keyring| {
        let mut content = Vec::new();
        catalog.open_snapshot(info, keyring).map(|mut reader| reader.read_to_end(&mut content).map(|_| content))
    };
    assert_eq!(read(&keyring(&["one", "two"])).unwrap().unwrap(), content);
    let error = read(&keyring(&["two"])).unwrap_err();
    assert!(error.to_string().contains("`one`"), "{error}");
    assert_eq!(verify(journal.dir(), true, |_| ()).unwrap().problems, []);
    // Every cut is found when it is read; the size also when it is listed, the digest when it is verified.
    for len in 0..stored.len() {
        fs::write(&path, &stored[..len]).unwrap();
        assert!(read(&keyring(&["one"])).unwrap().is_err(), "{len} bytes");
        assert!(Catalog::open(journal.dir()).unwrap().snapshots().is_empty());
    }
    for at in 0..stored.len() {
        let mut bytes = stored.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        assert!(read(&keyring(&["one"])).unwrap().is_err(), "byte {at}");
        assert_eq!(verify(journal.dir(), true, |_| ()).unwrap().problems.len(), 1, "byte {at}");
    }
    // The key belongs to this very snapshot.
    fs::write(&path, &stored).unwrap();
    let mut other = info.clone();
    other.manifest.lsn = Lsn(1);
    assert!(matches!(catalog.open_snapshot(&other, &keyring(&["one"])), Err(OpenError::Key { .. })));
}
