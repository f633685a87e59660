//! What `make fuzz` calls: each takes any bytes, and must neither panic nor believe what is not so.
//!
//! Checksums are put right first, or nothing behind them would ever be reached.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::block::{BLOCK_HEADER_LEN, BlockHeader, BlockJoiner, GroupWalk, Groups, decode_payload};
use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::directory::Directory;
use crate::meta::Meta;
use crate::open::{Journal, OpenOptions};
use crate::repair::repair;
use crate::segment::header::FIXED_HEADER_LEN;
use crate::snapshot::SnapshotManifest;
use crate::types::{Group, Lsn, Mark, Micros};
use crate::verify::verify;

/// The id of journals in golden files.
const JOURNAL_ID: [u8; 16] = *b"journal in tests";

/// The payload of a block: `records`, `groups`, then the groups.
pub fn group(bytes: &[u8]) {
    let Some((counts, payload)) = bytes.split_at_checked(2) else { return };
    let mut header = [0; BLOCK_HEADER_LEN];
    header[..4].copy_from_slice(b"RTB1");
    header[4] = 1;
    for at in [8, 12] {
        header[at..at + 4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    }
    header[16] = counts[0].max(counts[1]);
    header[20] = counts[1];
    header[24] = 1;
    let _ = groups_of(&mut header, payload);
}

/// A block: its header, then its payload, stored in any way.
pub fn block(bytes: &[u8]) {
    let Some((header, payload)) = bytes.split_first_chunk::<BLOCK_HEADER_LEN>() else { return };
    let _ = groups_of(&mut header.clone(), payload);
}

fn groups_of(header: &mut [u8; BLOCK_HEADER_LEN], payload: &[u8]) -> Option<Vec<Group>> {
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[76..80].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    let crc = crc32c::crc32c(&header[..92]);
    header[92..96].copy_from_slice(&crc.to_le_bytes());
    let header = BlockHeader::decode(header).ok()?;
    assert!(header.check_payload(payload).is_ok());
    let payload = decode_payload(&header, Bytes::copy_from_slice(payload), None).ok()?;
    assert_eq!(payload.len(), header.raw_len as usize);
    let groups: Result<Vec<Group>, _> = Groups::new(header, payload.clone()).collect();
    let joined = joined(&header, &payload);
    assert_eq!(groups.is_ok(), joined.is_some(), "the walk takes what the decoder takes");
    let groups = groups.ok()?;
    assert_eq!(joined.as_ref(), Some(&groups));
    let records: usize = groups.iter().map(|g| g.records.len()).sum();
    assert_eq!((groups.len(), records), (header.groups as usize, header.records as usize));
    assert!(groups.is_sorted_by_key(|g| g.ts) && groups.is_sorted_by_key(|g| g.end_offset));
    Some(groups)
}

/// The groups after they were joined into another block, as bytes.
fn joined(header: &BlockHeader, payload: &[u8]) -> Option<Vec<Group>> {
    let mut joiner = BlockJoiner::new(header.first_lsn, header.first_ts, header.start_offset, header.end_db);
    let mut walk = GroupWalk::new(*header, payload);
    while let Some(group) = walk.next_group(&mut |_| ()).ok()? {
        joiner.push(&group).expect("groups that follow each other");
    }
    joiner.end_block(header);
    let block = joiner.finish(header.complete_until);
    let groups = Groups::new(block.header, Bytes::copy_from_slice(block.payload()));
    Some(groups.collect::<Result<_, _>>().expect("what was joined can be decoded"))
}

/// The only segment of a journal. Whatever it is: it can be looked at, repaired, and then written to.
pub fn segment(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if let Some(len) = bytes.get(12..16) {
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        if (FIXED_HEADER_LEN..=bytes.len()).contains(&len) {
            bytes[16..32].copy_from_slice(&JOURNAL_ID);
            let crc = crc32c::crc32c(&bytes[..len - 4]);
            bytes[len - 4..len].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let root = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let dir = Directory::new(root.path());
    Meta::new(JOURNAL_ID, Micros(1), String::new()).store(&dir).expect("meta");
    for folder in [dir.segments(), dir.snapshots()] {
        fs::create_dir_all(folder).expect("a folder");
    }
    fs::write(dir.segments().join("00000000000000000001-000001.seg"), bytes).expect("a segment");
    let before = readable(root.path());
    let _ = verify(root.path(), true, |_| ());
    match repair(root.path(), &Keyring::default()) {
        // Encrypted, and there is no key; or of a newer format.
        Err(_) => return,
        Ok(report) => assert!(report.copies.is_none() || !report.plan.is_sound(), "{report:?}"),
    }
    let opened = Journal::create_or_open(root.path(), OpenOptions::default());
    if let Err(error) = opened {
        let key = matches!(error, crate::error::OpenError::Key { .. });
        assert!(key, "{error}");
        return;
    }
    drop(opened);
    let report = verify(root.path(), true, |_| ()).expect("it is a journal");
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let after = readable(root.path());
    assert!(before.iter().all(|group| after.contains(group)), "a repair loses nothing that could be read");
}

fn readable(dir: &Path) -> Vec<Group> {
    let Ok(catalog) = Catalog::open(dir) else { return Vec::new() };
    let of = |timeline| catalog.groups(Lsn(0), timeline).map_while(Result::ok);
    catalog.timelines().iter().flat_map(|t| of(t.id)).collect()
}

/// A snapshot's manifest.
pub fn manifest(bytes: &[u8]) {
    let _ = SnapshotManifest::from_json(bytes);
    let Ok(manifest) = serde_json::from_slice::<SnapshotManifest>(bytes) else { return };
    let json = manifest.to_json().expect("it was JSON before");
    assert_eq!(SnapshotManifest::from_json(&json), Ok(manifest));
}

/// A page, the root, the tail of a key index.
pub fn key_index(bytes: &[u8]) {
    crate::snapshot::key_index::read_anything(bytes);
}

/// An entry, the head, the parts of an undo file.
pub fn undo_file(bytes: &[u8]) {
    crate::undo_file::read_anything(bytes);
}

/// A line of marks or splices, a key file.
pub fn lines(bytes: &[u8]) {
    let _ = crate::jsonl::decode::<Mark>(bytes);
    let _ = crate::jsonl::decode::<crate::splices::Splice>(bytes);
    let _ = crate::server::KnownServers::parse(bytes);
    let _ = Keyring::parse(&String::from_utf8_lossy(bytes));
    if let Ok(mark) = serde_json::from_slice::<Mark>(bytes) {
        let line = crate::jsonl::encode(&mark).expect("it was JSON before");
        assert_eq!(crate::jsonl::decode(line.trim_end().as_bytes()), Some(mark));
    }
}
