//! The format, held by files: what an earlier version wrote is read, and written again alike.
//!
//! `REDTAPE_BLESS=1 cargo test -p redtape-journal golden` writes the files anew; only with a new
//! format version.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::model::{Fixture, OwnedGroup, keyring, options};
use crate::open::OpenOptions;
use crate::snapshot::SnapshotWriter;
use crate::snapshot::tests::manifest;
use crate::types::{Group, Lsn, Origin, OriginKind, TimelineId};

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

    fs::write(journal.last_segment(), &stored).unwrap();
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
    check(OpenOptions { pack: false, ..options(1 << 20) }, "plain");
}

#[test]
fn the_golden_packed_segment_is_read_and_written_alike() {
    check(options(1 << 20), "packed");
}

#[test]
fn the_golden_encrypted_segments_are_read_and_written_alike() {
    let encrypted = OpenOptions { keyring: keyring(&["key-1"]), ..options(1 << 20) };
    check(OpenOptions { pack: false, ..encrypted.clone() }, "encrypted");
    check(encrypted, "encrypted-packed");
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
    catalog.snapshots()[0].open(&keyring).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, content);
}
