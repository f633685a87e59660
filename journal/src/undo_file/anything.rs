//! What any bytes are taken for: as an entry, as a head, as the parts of a file. What is taken is written alike.

use std::io;
use std::path::Path;

use super::entry::UndoEntry;
use super::head::{self, Operation, UndoTarget};
use super::operation::OperationId;
use super::part::{PART_HEADER_LEN, checksum};
use super::progress::Progress;
use super::reader::UndoReader;
use crate::crypto::Keyring;
use crate::storage::{StoredFile, Version};
use crate::types::Micros;

/// A file in memory.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl StoredFile for Memory {
    fn version(&self) -> io::Result<Version> {
        Ok(Version { id: (0, 0), bytes: self.0.len() as u64 })
    }

    fn read_at(&self, room: &mut [u8], at: u64) -> io::Result<usize> {
        let rest = self.0.get(at as usize..).unwrap_or_default();
        let len = rest.len().min(room.len());
        room[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

/// Checksums are put right first, or nothing behind them would ever be reached.
#[allow(clippy::expect_used)]
pub(crate) fn read_anything(bytes: &[u8]) {
    if let Ok(entry) = UndoEntry::decode(bytes) {
        let (mut again, rest) = entry.encode();
        again.extend_from_slice(rest);
        assert_eq!(UndoEntry::decode(&again), Ok(entry));
    }
    read_as_head(bytes);
    let operation = Operation {
        journal_id: "0".repeat(32),
        id: OperationId::derive(&[]),
        target: UndoTarget { address: String::new(), replication_id: String::new() },
        created: Micros(0),
        what: String::new(),
    };
    let random = |_: &mut [u8]| Ok(());
    let (mut file, whole) = head::encode(&operation, 1, &Keyring::default(), random).expect("a head");
    let begin = file.len();
    file.extend_from_slice(bytes);
    put_right(&mut file[begin..], whole.tag);
    let mut reader = UndoReader::of(Path::new("file"), Box::new(Memory(file)), &Keyring::default()).expect("a head");
    let mut entries = 0;
    while let Ok(Some(stored)) = reader.next_entry() {
        entries += 1;
        assert!(stored.position >= begin as u64);
    }
    if let Ok(progress) = Progress::read(&mut reader) {
        assert_eq!(progress.entries(), entries);
        let mut in_doubt = 0;
        let each = progress.each_in_doubt(&mut reader, |_, _| {
            in_doubt += 1;
            Ok::<_, super::UndoFileError>(())
        });
        each.expect("it was read before");
        assert_eq!(in_doubt, progress.in_doubt());
    }
}

fn read_as_head(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if let Some(len) = bytes.get(12..16) {
        let end = 16 + u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        if bytes.len() >= end.saturating_add(4) {
            let crc = crc32c::crc32c(&bytes[..end]);
            bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let _ = head::decode(Path::new("file"), &bytes, &Keyring::default());
}

/// Gives each part its checksums, as far as their lengths lead.
fn put_right(mut bytes: &mut [u8], tag: u32) {
    while bytes.len() >= PART_HEADER_LEN {
        let (header, rest) = bytes.split_at_mut(PART_HEADER_LEN);
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if let Some(body) = rest.get(..len) {
            header[24..28].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        }
        let crc = checksum(tag, &header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        let Some((_, behind)) = rest.split_at_mut_checked(len) else { return };
        bytes = behind;
    }
}
