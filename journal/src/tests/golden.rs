//! The format, held by files: what an earlier version wrote is read, and written again alike.
//!
//! `REDTAPE_BLESS=1 cargo test -p redtape-journal golden` writes the files anew; only with a new
//! format version.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::model::{Fixture, OwnedGroup, keyring, options};
use crate::open::OpenOptions;
use crate::server::tests::server;
use crate::server::{KnownServers, ServerIdentity, add_server};
use crate::snapshot::SnapshotWriter;
use crate::snapshot::key_index::{KeyIndex, KeyIndexWriter, ReadKey, Workspace};
use crate::snapshot::tests::manifest;
use crate::splices::{LostRecords, Splice, Splices};
use crate::types::{Group, Lsn, Micros, Origin, OriginKind, TimelineId};
use crate::verify::verify_with;

/// A journal with two blocks and a heartbeat, closed.
fn journal(options: OpenOptions) -> Fixture {
    // Not random at all: only so can what is encrypted be the same again.
    let mut journal = Fixture::with_random(options, |bytes| {
        bytes.fill(42);
        Ok(())
    });
    journal.timeline();
    let client = Arc::new(Origin {
        kind: OriginKind::Client,
        addr: "10.0.0.1:50000".to_owned(),
        user: "app".to_owned(),
        name: "worker-1".to_owned(),
        via: "EVALSHA".to_owned(),
    });
    let command = |words: &[&str]| words.iter().map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>();
    journal.block(&[
        OwnedGroup {
            ts_delta: 1_000_000,
            slack: 0,
            origin: client.clone(),
            atomic: false,
            offset_delta: 33,
            records: vec![(0, command(&["SET", "key", "value"]))],
            keys: Some(vec![1]),
        },
        OwnedGroup {
            ts_delta: 0,
            slack: 250,
            origin: Origin::of(OriginKind::Expiry).into(),
            atomic: false,
            offset_delta: 20,
            records: vec![(3, command(&["DEL", "k\u{0}\u{7f}"]))],
            keys: None,
        },
    ]);
    journal.builder.set_db(3);
    journal.block(&[OwnedGroup {
        ts_delta: 77,
        slack: 0,
        origin: client,
        atomic: true,
        offset_delta: 400,
        records: vec![
            (3, command(&["INCRBY", "counter", "300"])),
            (3, command(&["RPUSH", "list", &"x".repeat(200), ""])),
        ],
        keys: Some(vec![1, 0]),
    }]);
    journal.block(&[]);
    journal.close();
    journal
}

/// Compares a file with the stored one, or stores it; returns what is stored.
fn compare(name: &str, written: &[u8]) -> Vec<u8> {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("REDTAPE_BLESS").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, written).unwrap();
    }
    let stored = fs::read(&golden).unwrap();
    assert!(written == stored, "{name}: the format has changed: see journal/FORMAT.md, `Changes`");
    stored
}

fn check(options: OpenOptions, folder: &str) {
    let journal = journal(options);
    let name = journal.last_segment().file_name().unwrap().to_string_lossy().into_owned();
    let stored = compare(&format!("{folder}/{name}"), &fs::read(journal.last_segment()).unwrap());

    check_stored(&journal, &stored);
}

/// A segment with what the journal holds, in whatever form, is read alike.
fn check_stored(journal: &Fixture, stored: &[u8]) {
    fs::write(journal.last_segment(), stored).unwrap();
    let catalog = Catalog::open_with(journal.dir(), &journal.options.keyring).unwrap();
    let groups: Vec<Group> = catalog.groups(Lsn(0), TimelineId(1)).collect::<Result<_, _>>().unwrap();
    assert_eq!(groups, journal.expected[0].1);
    assert_eq!(groups[1].ts.0, 1_000_000);
    assert_eq!(groups[2].end_offset.0, 1453);
    assert_eq!(groups[2].records[1].lsn, Lsn(4));
    assert_eq!(groups[2].records[1].args[0], "RPUSH");
    let timeline = &catalog.timelines()[0];
    assert_eq!((timeline.source_id.as_str(), timeline.reason.as_str()), ("source 1", "reason 1"));
}

#[test]
fn the_golden_segment_as_written_is_read_and_written_alike() {
    check(OpenOptions { compact: false, ..options(1 << 20) }, "plain");
}

#[test]
fn the_golden_packed_segment_is_read_and_written_alike() {
    check(options(1 << 20), "packed");
}

#[test]
fn the_golden_encrypted_segments_are_read_and_written_alike() {
    let encrypted = OpenOptions { keyring: keyring(&["key-1"]), ..options(1 << 20) };
    check(OpenOptions { compact: false, ..encrypted.clone() }, "encrypted");
    check(encrypted, "encrypted-packed");
}

/// What was written before segments had filters when they were sealed.
fn without_filters(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/without-filters").join(name)).unwrap()
}

#[test]
fn the_golden_segments_that_were_sealed_without_filters_are_read() {
    let encrypted = || OpenOptions { keyring: keyring(&["key-1"]), ..options(1 << 20) };
    for (folder, options) in [
        ("plain", options(1 << 20)),
        ("packed", options(1 << 20)),
        ("encrypted", encrypted()),
        ("encrypted-packed", encrypted()),
    ] {
        let mut journal = journal(OpenOptions { compact: false, ..options });
        check_stored(&journal, &without_filters(&format!("{folder}/00000000000000000001-000001.seg")));
        let keyring = &journal.options.keyring;
        // Not block by block: the distances in the index of a test were others then.
        assert_eq!(verify_with(journal.dir(), false, keyring, |_| ()).unwrap().problems, [], "{folder}");
        // A writer goes on behind it, and compacts it.
        journal.options.compact = true;
        journal.reopen();
        journal.block(&[OwnedGroup::set(0, b"key", b"behind")]);
        journal.sync();
        journal.wait_until_packed();
        journal.close();
        let keyring = &journal.options.keyring;
        assert_eq!(verify_with(journal.dir(), false, keyring, |_| ()).unwrap().problems, [], "{folder}");
        journal.check();
    }
}

#[test]
fn the_golden_segment_with_both_kinds_of_blocks_is_read_and_written_alike() {
    for (folder, keyring) in [("compressed", Keyring::default()), ("compressed-encrypted", keyring(&["key-1"]))] {
        let mut journal = Fixture::with_random(OpenOptions { compact: false, keyring, ..options(1 << 20) }, |bytes| {
            bytes.fill(42);
            Ok(())
        });
        journal.timeline();
        journal.block(&[OwnedGroup::set(0, b"large", &b"compressed ".repeat(100))]);
        journal.block(&[OwnedGroup::set(0, b"small", b"stored as it is")]);
        journal.close();
        let name = journal.last_segment().file_name().unwrap().to_string_lossy().into_owned();
        let written = fs::read(journal.last_segment()).unwrap();
        assert!(written.len() < 1100, "{} bytes", written.len());
        let stored = compare(&format!("{folder}/{name}"), &written);
        fs::write(journal.last_segment(), stored).unwrap();
        let keyring = &journal.options.keyring;
        assert_eq!(verify_with(journal.dir(), true, keyring, |_| ()).unwrap().problems, []);
        journal.check();
    }
}

#[test]
fn the_golden_segment_behind_a_change_of_the_sources_id_is_read_and_written_alike() {
    let mut journal = Fixture::with(OpenOptions { compact: false, ..options(1 << 20) });
    journal.timeline();
    journal.block(&[OwnedGroup::set(0, b"key", b"before")]);
    journal.writer().change_source("source 1, promoted".to_owned()).unwrap();
    journal.block(&[OwnedGroup::set(0, b"key", b"behind")]);
    journal.writer().change_source("source 1, promoted again".to_owned()).unwrap();
    journal.block(&[OwnedGroup::set(0, b"key", b"at last")]);
    journal.close();
    for path in journal.segments() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stored = compare(&format!("source-changed/{name}"), &fs::read(&path).unwrap());
        fs::write(&path, stored).unwrap();
    }
    let catalog = Catalog::open(journal.dir()).unwrap();
    let timeline = &catalog.timelines()[0];
    let ids: Vec<&str> = timeline.source_ids().collect();
    assert_eq!(ids, ["source 1", "source 1, promoted", "source 1, promoted again"]);
    assert_eq!(timeline.source_changes[0].first_lsn, Lsn(2));
    let header = |n: usize| fs::read(&journal.segments()[n]).unwrap()[130];
    assert_eq!([header(0), header(1), header(2)], [0, 1, 1]);
}

#[test]
fn the_golden_lines_of_servers_are_read_and_written_alike() {
    let journal = Fixture::new(1 << 20);
    let first = server("8f0c", None);
    let second = ServerIdentity { accepted: true, run_id: String::new(), ..server("90d1", Some("8f0c")) };
    for server in [&first, &second] {
        add_server(journal.dir(), server).unwrap();
    }
    let path = journal.dir().join("server");
    let stored = compare("lines/server", &fs::read(&path).unwrap());
    fs::write(&path, stored).unwrap();
    let known = KnownServers::load(journal.dir()).unwrap();
    assert_eq!((known.all(), known.damaged()), (&[first, second][..], &[][..]));
}

#[test]
fn the_golden_lines_of_splices_are_read_and_written_alike() {
    let journal = Fixture::new(1 << 20);
    let dir = Directory::new(journal.dir());
    let lost = LostRecords { from_lsn: Lsn(7), to_lsn: Lsn(9), from_ts: Micros(70), to_ts: None };
    let splice = |lost| Splice {
        first_lsn: Lsn(10),
        timeline: TimelineId(1),
        before: "1".repeat(64),
        named: "2".repeat(64),
        lost,
        why: "they could not be read, or were not there".to_owned(),
        repaired: Micros(1_000_000),
    };
    let splices = Splices { all: vec![splice(Some(lost)), splice(None)], wrong: Vec::new() };
    splices.store(&dir).unwrap();
    let stored = compare("lines/splices", &fs::read(dir.splices()).unwrap());
    fs::write(dir.splices(), stored).unwrap();
    assert_eq!(Splices::load(&dir).unwrap(), splices);
}

#[test]
fn the_golden_snapshots_are_read_and_written_alike() {
    let journal = Fixture::new(1 << 20);
    let keyring = keyring(&["key-1"]);
    let content: Vec<u8> = b"REDIS0010".iter().copied().cycle().take(150).collect();
    let fixed = |bytes: &mut [u8]| {
        bytes.fill(42);
        Ok(())
    };
    let mut writer = SnapshotWriter::create_in(journal.dir(), &keyring, fixed).unwrap();
    writer.write(&content).unwrap();
    let path = writer.commit(manifest(0, 1, 5)).unwrap();
    let stored = compare("encrypted/00000000000000000000-000001.rdb", &fs::read(&path).unwrap());
    let beside = path.with_extension("json");
    let json = compare("encrypted/00000000000000000000-000001.json", &fs::read(&beside).unwrap());
    fs::write(&path, stored).unwrap();
    fs::write(&beside, json).unwrap();
    let catalog = Catalog::open(journal.dir()).unwrap();
    let mut read = Vec::new();
    catalog.open_snapshot(&catalog.snapshots()[0], &keyring).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, content);
}

/// Places of keys that fill three pages, in a content of three digests: only the index is stored.
#[test]
fn the_golden_key_indexes_are_read_and_written_alike() {
    let content: Vec<u8> = (0..150_000u32).map(|n| (n * 7 / 5) as u8).collect();
    let long = |last: u8| [&[b'l'; 2048][..], &[last]].concat();
    let keys =
        (0..700u64).map(|n| (n as u32 / 600 * 5, format!("user:{n:04}").into_bytes(), 9 + n * 200, 100 + n % 100));
    let mut keys: Vec<(u32, Vec<u8>, u64, u64)> = keys.collect();
    keys.extend([(5, long(b'b'), 149_000, 50), (5, long(b'a'), 149_100, 900)]);
    for (name, keyring) in [("plain", Keyring::default()), ("encrypted", keyring(&["key-1"]))] {
        let fixed = |bytes: &mut [u8]| {
            bytes.fill(42);
            Ok(())
        };
        let journal = Fixture::with_random(options(1 << 20), fixed);
        let mut writer = SnapshotWriter::create_in(journal.dir(), &keyring, fixed).unwrap();
        writer.write(&content).unwrap();
        let path = writer.commit(manifest(0, 1, 5)).unwrap().with_extension("keys");
        let snapshot = Catalog::open(journal.dir()).unwrap().snapshots()[0].clone();
        let (mut writer, reader) = KeyIndexWriter::begin(&snapshot, &keyring, Workspace::Journal, &|_| true).unwrap();
        for (db, key, offset, len) in keys.iter().rev() {
            writer.add(*db, key, *offset, *len).unwrap();
        }
        writer.finish(reader).unwrap().put_in_place(&|| false).unwrap();
        let stored = compare(&format!("key-index/{name}.keys"), &fs::read(&path).unwrap());
        fs::write(&path, stored).unwrap();

        let catalog = Catalog::open(journal.dir()).unwrap();
        let whole = keys.clone();
        let read_key: ReadKey = Box::new(move |content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            Ok(whole.iter().find(|(_, _, _, len)| *len == bytes.len() as u64).unwrap().1.clone())
        });
        let mut index = KeyIndex::open(&catalog, &catalog.snapshots()[0], &keyring, read_key).unwrap();
        index.check(&|_| true).unwrap();
        for (db, key, offset, len) in keys.iter().filter(|(_, key, ..)| key.len() < 2048 || key[2048] == b'a') {
            assert_eq!(index.find(*db, key).unwrap(), Some((*offset, *len)));
            assert_eq!(index.read(*offset, *len).unwrap(), content[*offset as usize..][..*len as usize]);
        }
        assert_eq!(index.find(5, b"user:0001").unwrap(), None);
    }
}

#[test]
fn the_golden_undo_files_are_read_and_written_alike() {
    use crate::undo_file::tests::{entries, fixed, operation};
    use crate::undo_file::{StateDir, UndoReader};
    for (name, keyring) in [("plain", Keyring::default()), ("encrypted", keyring(&["key-1"]))] {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path().join("state"));
        let mut writer = dir.begin_with(&operation(), &keyring, fixed).unwrap().writer;
        for entry in &entries() {
            writer.append(entry).unwrap();
            writer.sync().unwrap();
        }
        let path = writer.path().to_owned();
        drop(writer);
        let stored = compare(&format!("undo-file/{name}.undo"), &fs::read(&path).unwrap());
        fs::write(&path, stored).unwrap();
        let mut reader = UndoReader::open(&path, &keyring).unwrap();
        assert_eq!(reader.head().operation, operation());
        for expected in entries() {
            assert_eq!(reader.next_entry().unwrap().unwrap().entry, expected);
        }
        assert_eq!(reader.next_entry().unwrap(), None);
        assert!(reader.is_finished() && reader.torn().is_none());
    }
}
