use std::fs;

use super::*;
use crate::catalog::Catalog;
use crate::directory::Directory;
use crate::model::Fixture;

/// A manifest of an invented base.
pub(crate) fn manifest(lsn: u64, timeline: u32, ts: i64) -> SnapshotManifest {
    SnapshotManifest {
        journal_id: String::new(),
        lsn: Lsn(lsn),
        timeline: TimelineId(timeline),
        source_id: format!("source {timeline}"),
        offset: ReplOffset(1000 * u64::from(timeline)),
        db: Some(0),
        ts: Micros(ts),
        kind: SnapshotKind::Base,
        bytes: 0,
        blake3: String::new(),
        magic_version: "REDIS0010".to_owned(),
        server_version: "7.0.15".to_owned(),
        checksum_present: true,
        encryption: None,
        command_table: Some(serde_json::json!([["get", 2]])),
    }
}

pub(crate) fn store(journal: &Fixture, manifest: SnapshotManifest) -> PathBuf {
    let mut writer = SnapshotWriter::create(journal.dir()).unwrap();
    writer.write(b"REDIS").unwrap();
    writer.write(b"0010").unwrap();
    assert_eq!(writer.written_bytes(), 9);
    writer.commit(manifest).unwrap()
}

#[test]
fn a_committed_snapshot_is_listed_with_size_and_digest() {
    let journal = Fixture::new(1 << 20);
    let second = store(&journal, manifest(7, 1, 70));
    let first = store(&journal, manifest(0, 1, 5));
    let same_lsn = store(&journal, manifest(7, 1, 71));
    assert!(first.ends_with("snapshots/00000000000000000000-000001.rdb"));
    assert!(same_lsn.ends_with("snapshots/00000000000000000007-000001-2.rdb"));
    let catalog = Catalog::open(journal.dir()).unwrap();
    let paths: Vec<_> = catalog.snapshots().iter().map(|s| s.path.clone()).collect();
    assert_eq!(paths, [first, second, same_lsn].map(|p| p.canonicalize().unwrap()));
    let info = &catalog.snapshots()[0].manifest;
    assert_eq!(info.bytes, 9);
    assert_eq!(info.blake3, blake3::hash(b"REDIS0010").to_hex().to_string());
    assert_eq!(info.command_table, manifest(0, 1, 5).command_table);
}

#[test]
fn a_snapshot_that_gets_no_manifest_leaves_nothing() {
    let journal = Fixture::new(1 << 20);
    let mut writer = SnapshotWriter::create(journal.dir()).unwrap();
    writer.write(b"x").unwrap();
    // In the manifest's place there is what cannot be replaced.
    let in_the_way = journal.dir().join("snapshots/00000000000000000007-000001.json");
    fs::create_dir(&in_the_way).unwrap();
    let refused = writer.commit(manifest(7, 1, 70)).unwrap_err();
    assert!(refused.to_string().contains("000001.json"), "{refused}");
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!(fs::read_dir(journal.dir().join("snapshots")).unwrap().count(), 0);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let journal = Fixture::new(1 << 20);
    let mut writer = SnapshotWriter::create(journal.dir()).unwrap();
    writer.write(b"x").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(journal.dir().join("snapshots")).unwrap().count(), 0);
}

#[test]
fn what_a_crash_left_is_removed_but_not_what_a_living_process_writes() {
    let mut journal = Fixture::new(1 << 20);
    let living = SnapshotWriter::create(journal.dir()).unwrap();
    let folder = journal.dir().join("snapshots");
    fs::write(folder.join(".tmp-1-dead.rdb"), "x").unwrap();
    fs::write(folder.join("00000000000000000009-000001.rdb"), "").unwrap();
    fs::write(folder.join("00000000000000000008-000001.rdb"), "x").unwrap();
    assert!(Catalog::open(journal.dir()).unwrap().snapshots().is_empty());
    journal.close();
    journal.reopen();
    assert_eq!(journal.recovered.notes.len(), 3);
    let left = list_snapshots(&Directory::new(journal.dir())).unwrap();
    assert_eq!(left.unfinished.len(), 1);
    assert!(journal.dir().join("quarantine/00000000000000000008-000001.rdb").exists());
    living.commit(manifest(9, 1, 9)).unwrap();
    assert_eq!(Catalog::open(journal.dir()).unwrap().snapshots().len(), 1);
}

#[test]
fn a_base_whose_timeline_never_began_is_removed_and_never_used() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    journal.close();
    let timeline = Catalog::open(journal.dir()).unwrap().timelines().last().map_or(0, |t| t.id.0);
    let orphan = store(&journal, manifest(0, timeline + 1, 5));
    let catalog = Catalog::open(journal.dir()).unwrap();
    assert!(catalog.windows().iter().all(|w| w.timeline.0 <= timeline));
    journal.reopen();
    assert!(!orphan.exists() && !orphan.with_extension("json").exists());
    assert!(journal.recovered.notes.iter().any(|n| n.contains("never began")), "{:?}", journal.recovered.notes);
}

#[test]
fn a_snapshot_of_another_history_opens_no_window() {
    let mut journal = Fixture::new(1 << 20);
    journal.timeline();
    let mut other = manifest(0, 1, 5);
    other.source_id = "another history".to_owned();
    store(&journal, other);
    journal.close();
    assert!(Catalog::open(journal.dir()).unwrap().windows().is_empty());
}
