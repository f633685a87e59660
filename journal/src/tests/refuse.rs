//! What is refused, and that nothing is changed then.

use std::fs;

use crate::catalog::Catalog;
use crate::error::OpenError;
use crate::model::{Fixture, OwnedGroup, open};

fn sealed_segments() -> Fixture {
    let block = vec![OwnedGroup::simple(&[7; 100])];
    Fixture::closed(400, &[block.clone(), block.clone(), block.clone(), block])
}

#[test]
fn a_second_writer_is_refused_and_told_who_has_it() {
    let journal = Fixture::new(1 << 20);
    let error = open(journal.dir(), 1 << 20).unwrap_err();
    let OpenError::Locked { pid, .. } = error else { panic!("{error}") };
    assert_eq!(pid, Some(std::process::id()));
}

#[test]
fn another_directory_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("dump.rdb"), "x").unwrap();
    let error = open(root.path(), 1 << 20).unwrap_err();
    assert!(matches!(&error, OpenError::NotAJournal { found, .. } if found == "dump.rdb"));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    assert!(matches!(Catalog::open(root.path()), Err(OpenError::NotAJournal { .. })));
    let empty = tempfile::tempdir().unwrap();
    for dir in [root.path().join("nodir"), empty.path().to_owned()] {
        let error = Catalog::open(&dir).unwrap_err().to_string();
        assert_eq!(error, format!("there is no journal at {}; give --from DIR", dir.display()));
        assert!(matches!(crate::verify(&dir, true, |_| ()), Err(OpenError::NoJournal { .. })));
    }
}

#[test]
fn an_empty_or_missing_directory_and_a_fresh_mount_become_journals() {
    let root = tempfile::tempdir().unwrap();
    assert!(open(root.path(), 1 << 20).unwrap().1.created);
    assert!(!open(root.path(), 1 << 20).unwrap().1.created);
    assert!(open(&root.path().join("a/b"), 1 << 20).is_ok());
    let mount = tempfile::tempdir().unwrap();
    fs::create_dir(mount.path().join("lost+found")).unwrap();
    assert!(open(mount.path(), 1 << 20).is_ok());
}

#[test]
fn a_newer_format_is_refused() {
    let journal = Fixture::closed(1 << 20, &[vec![OwnedGroup::simple(b"a")]]);
    let meta = journal.dir().join("meta");
    fs::write(&meta, r#"{"format":2,"unknown":1}"#).unwrap();
    let error = open(journal.dir(), 1 << 20).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, supported: 1, .. }));
    assert!(matches!(Catalog::open(journal.dir()), Err(OpenError::NewerFormat { .. })));
    fs::write(&meta, "{").unwrap();
    assert!(matches!(open(journal.dir(), 1 << 20), Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_missing_segment_is_corrupt() {
    let journal = sealed_segments();
    let segments = journal.segments();
    assert_eq!(segments.len(), 4);
    let away = journal.dir().join("away");
    fs::rename(&segments[1], &away).unwrap();
    assert!(matches!(open(journal.dir(), 400), Err(OpenError::Corrupt { .. })));
    fs::rename(&away, &segments[1]).unwrap();
    // The first ones may be pruned.
    fs::remove_file(&segments[0]).unwrap();
    let (_, recovered) = open(journal.dir(), 400).unwrap();
    assert_eq!(recovered.last.unwrap().last_lsn.0, 4);
}

#[test]
fn damage_in_header_or_footer_of_a_sealed_segment_is_corrupt() {
    let journal = sealed_segments();
    let path = &journal.segments()[1];
    let whole = fs::read(path).unwrap();
    let header_len = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    let footer_len = u32::from_le_bytes(whole[whole.len() - 16..][..4].try_into().unwrap()) as usize;
    for at in (0..header_len).chain(whole.len() - footer_len..whole.len()) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(path, &bytes).unwrap();
        let error = open(journal.dir(), 400).unwrap_err();
        assert!(matches!(&error, OpenError::Corrupt { file, .. } if file == path), "byte {at}");
    }
    // Without the footer, readers walk the blocks: nothing is lost.
    journal.check();
    assert_eq!(Catalog::open(journal.dir()).unwrap().notes().len(), 1);
}
