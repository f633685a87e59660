//! The head of an undo file: of which operation it is, and how it is encrypted.
//!
//! In clear: journal, operation, target, time. The sentence that says what the operation does may name keys, so it is encrypted if the
//! entries are. The wrapped data key is bound to all that is in clear: without the operator's key it is impossible to make the file that of
//! another target.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::UndoFileError;
use super::operation::OperationId;
use super::part::{PART_BYTES, PART_HEADER_LEN};
use crate::crypto::{Keyring, OVERHEAD, Random, Sealer, Wrapped};
use crate::encoding::Cursor;
use crate::error::Damage;
use crate::hex::{hex, unhex};
use crate::types::Micros;

/// How an undo file begins.
const MAGIC: &[u8; 8] = b"RTAPEUND";
/// The format that is written, and the newest that is read.
const FORMAT: u32 = 1;
/// Magic, format, length.
const BEFORE: usize = 16;
/// No head is longer.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;
/// The longest sentence that says what an operation does; more is cut off.
const MAX_WHAT_BYTES: usize = 8 << 10;

/// To which server an operation writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoTarget {
    /// Its address, without secrets.
    pub address: String,
    /// Its replication id when the file was created; may be empty.
    pub replication_id: String,
}

/// An operation that changes a running server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The journal whose values are brought back, 32 hex digits.
    pub journal_id: String,
    /// Which operation.
    pub id: OperationId,
    /// Where to.
    pub target: UndoTarget,
    /// When it was begun.
    pub created: Micros,
    /// What it does, in a sentence for people.
    pub what: String,
}

/// What an undo file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndoHead {
    /// Whose file it is.
    pub operation: Operation,
    /// Which file of the operation, from 1: each run behind a finished one has a file of its own.
    pub number: u32,
    /// The id of the operator's key, if it is encrypted.
    pub key_id: Option<String>,
}

/// As it stands in the file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredHead {
    journal_id: String,
    operation: OperationId,
    number: u32,
    target: UndoTarget,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    what: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encryption: Option<StoredEncryption>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEncryption {
    key_id: String,
    wrapped_key: String,
    what: String,
}

/// A head that was written or read, and what follows from it.
#[derive(Debug, Clone)]
pub(super) struct WholeHead {
    pub(super) head: UndoHead,
    /// Its checksum, with which those of the entries begin.
    pub(super) tag: u32,
    /// Where the entries begin.
    pub(super) len: u64,
    pub(super) sealer: Option<Sealer>,
}

impl StoredHead {
    /// What the data key is bound to.
    fn place(&self) -> Vec<u8> {
        let mut place = b"RTUM".to_vec();
        let number = self.number.to_string();
        let UndoTarget { address, replication_id } = &self.target;
        for text in [&self.journal_id, &self.operation.to_string(), &number, &self.created, address, replication_id] {
            place.extend_from_slice(&(text.len() as u32).to_le_bytes());
            place.extend_from_slice(text.as_bytes());
        }
        place
    }
}

/// The bytes of a new head.
pub(super) fn encode(
    operation: &Operation,
    number: u32,
    keyring: &Keyring,
    random: Random,
) -> std::io::Result<(Vec<u8>, WholeHead)> {
    let end = operation.what.floor_char_boundary(MAX_WHAT_BYTES);
    let what = operation.what[..end].to_owned();
    let mut stored = StoredHead {
        journal_id: operation.journal_id.clone(),
        operation: operation.id,
        number,
        target: operation.target.clone(),
        created: operation.created.to_string(),
        what: None,
        encryption: None,
    };
    let sealed = keyring.new_sealer(random, &stored.place())?;
    match &sealed {
        None => stored.what = Some(what.clone()),
        Some((sealer, wrapped)) => {
            stored.encryption = Some(StoredEncryption {
                key_id: wrapped.key_id.clone(),
                wrapped_key: hex(&wrapped.bytes),
                what: hex(&sealer.seal(b"RTUW", what.as_bytes())),
            });
        }
    }
    let json = serde_json::to_vec_pretty(&stored)?;
    if json.len() > MAX_HEAD_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the address of the target is too long"));
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&(json.len() as u32).to_le_bytes());
    out.extend_from_slice(&json);
    let tag = crc32c::crc32c(&out);
    out.extend_from_slice(&tag.to_le_bytes());
    let key_id = stored.encryption.map(|encryption| encryption.key_id);
    let head = UndoHead { operation: Operation { what, ..operation.clone() }, number, key_id };
    let (len, sealer) = (out.len() as u64, sealed.map(|(sealer, _)| sealer));
    Ok((out, WholeHead { head, tag, len, sealer }))
}

/// The most that [`decode`] looks at.
pub(super) const READ_BYTES: usize = BEFORE + MAX_HEAD_BYTES + 4;

/// Reads the head of a file that begins with `bytes`.
pub(super) fn decode(path: &Path, bytes: &[u8], keyring: &Keyring) -> Result<WholeHead, UndoFileError> {
    let not_one = || UndoFileError::NotAnUndoFile {
        path: path.to_owned(),
        found: format!("`{}`", bytes[..bytes.len().min(MAGIC.len())].escape_ascii()),
    };
    if !bytes.starts_with(MAGIC) {
        return Err(not_one());
    }
    let (version, json, tag) = split(bytes).map_err(UndoFileError::damaged(path, 0))?;
    if version > FORMAT {
        return Err(UndoFileError::NewerFormat { path: path.to_owned(), found: version, supported: FORMAT });
    }
    let wrong = |found: String| {
        UndoFileError::damaged(path, BEFORE as u64)(Damage::new("the JSON of an undo file's head", found))
    };
    let stored: StoredHead = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
    let created: jiff::Timestamp = stored.created.parse().map_err(|_| wrong(format!("the time {}", stored.created)))?;
    if !is_journal_id(&stored.journal_id) {
        return Err(wrong(format!("the journal id {}", stored.journal_id)));
    }
    let sealer = unlock(path, &stored, keyring)?;
    let what = match (&sealer, &stored.encryption, &stored.what) {
        (Some(sealer), Some(encryption), None) => open_what(sealer, &encryption.what),
        (None, None, Some(what)) => Some(what.clone()),
        _ => None,
    };
    let what = what.ok_or_else(|| wrong("no sentence that says what the operation does".to_owned()))?;
    let operation = Operation {
        journal_id: stored.journal_id,
        id: stored.operation,
        target: stored.target,
        created: Micros(created.as_microsecond()),
        what,
    };
    let key_id = stored.encryption.map(|encryption| encryption.key_id);
    let head = UndoHead { operation, number: stored.number, key_id };
    Ok(WholeHead { head, tag, len: (BEFORE + json.len() + 4) as u64, sealer })
}

/// Format, JSON and checksum. The place of all three holds for all versions.
fn split(bytes: &[u8]) -> Result<(u32, &[u8], u32), Damage> {
    let mut cursor = Cursor::at(bytes, MAGIC.len());
    let (version, len) = (cursor.u32()?, cursor.u32()? as usize);
    if len > MAX_HEAD_BYTES {
        return Err(Damage::new(format!("a head of at most {MAX_HEAD_BYTES} bytes"), format!("one of {len}")));
    }
    let json = cursor.take(len)?;
    let computed = crc32c::crc32c(&bytes[..BEFORE + len]);
    let tag = cursor.u32()?;
    if tag != computed {
        return Err(Damage::new(format!("a head with checksum {computed:08x}"), format!("{tag:08x}")));
    }
    Ok((version, json, tag))
}

fn unlock(path: &Path, stored: &StoredHead, keyring: &Keyring) -> Result<Option<Sealer>, UndoFileError> {
    let Some(encryption) = &stored.encryption else { return Ok(None) };
    let key_id = encryption.key_id.clone();
    let failed = |fault| UndoFileError::Key { path: path.to_owned(), fault };
    let Some(bytes) = unhex(&encryption.wrapped_key) else {
        return Err(failed(crate::crypto::KeyFault::Wrong(key_id)));
    };
    keyring.unwrap(&Wrapped { key_id, bytes }, &stored.place()).map(Some).map_err(failed)
}

fn open_what(sealer: &Sealer, sealed: &str) -> Option<String> {
    String::from_utf8(sealer.open(b"RTUW", &unhex_all(sealed)?)?).ok()
}

fn unhex_all(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| unhex::<1>(&text[at..at + 2]).map(|[byte]| byte)).collect()
}

/// Whether it may name a folder.
pub(super) fn is_journal_id(text: &str) -> bool {
    unhex::<16>(text).is_some_and(|id| hex(&id) == text)
}

// A part with its header fits what a reader holds at once.
const _: () = assert!(PART_BYTES + OVERHEAD + PART_HEADER_LEN < 4 << 20);
