//! The key index of a snapshot: where in its content the entry of each key lies, and a digest of each part of the content.
//! So one key is found and read, verified, without reading the rest.
//!
//! ```text
//! content ─► ContentReader ─► (caller finds the keys) ─► KeyIndexWriter ─► sorted runs ─► pages, digests, root ─► X.keys
//! X.keys  ─► KeyIndex: root ─► one page ─► extent ─► SnapshotContent: the parts that hold it, each verified
//! ```
//!
//! The journal does not know what the content is; the caller names the keys. `FORMAT.md`, "Key index", draws every byte.
//!
//! Invariants:
//! - It is derived: one that is missing, damaged or of another snapshot is made again ([`KeyIndexError::is_made_again`]).
//! - It is put in place only after all of the content was read, and its digest is that of the manifest.
//! - It never gives a wrong extent or wrong bytes: each piece of it has a checksum or is encrypted, and every part of the
//!   content is compared with its digest, or decrypted at its place, before a byte of it is given.
//! - A key of which only the beginning is stored is read in the content, by the caller's [`ReadKey`].
//! - Memory: [`Limits::run_bytes`] twice while keys are collected, [`run::BLOCK_BYTES`] for each of [`Limits::merge_runs`] while
//!   they are merged; the root, the digests, and some pages and parts of the content for a reader.
//!
//! | crash while | is left | the next writable open |
//! | --- | --- | --- |
//! | keys are collected or merged | nothing: runs have no name, but for the moment of their creation (`.tmp-*`) | removes it |
//! | the index is written | `.tmp-*` without lock | removes it |
//! | it is renamed | `.tmp-*`, or the index as a whole | removes the former |
//!
//! A snapshot may be removed meanwhile: [`writer::KeyIndexFile::put_in_place`] says why no index outlives it.

mod check;
mod content;
mod digests;
mod error;
mod output;
mod page;
mod pages;
mod piece;
mod place;
mod reader;
mod root;
mod run;
mod scan;
mod sort;
#[cfg(test)]
mod tests;
mod writer;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub(crate) use check::check_beside;
pub use check::check_key_index;
pub(crate) use digests::ContentDigests;
pub use error::KeyIndexError;
pub use reader::KeyIndex;
pub use scan::Scan;
pub use sort::GoOn;
pub use writer::{ContentReader, KeyIndexFile, KeyIndexWriter, Workspace};

use super::{KEY_INDEX, SnapshotInfo};
use crate::directory::Directory;

/// Longest key that stands in an index as a whole; of a longer one, as many bytes stand there.
pub(super) const KEY_STORED_MAX: usize = 2048;
/// Bytes of the content under one digest. The chunks of an encrypted snapshot are as long.
const DIGEST_BYTES: u64 = 64 << 10;
const DIGEST_LEN: usize = 16;

/// How large things become; smaller in tests.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// A page with its checksum.
    page_bytes: usize,
    /// Keys in memory before a run of them is written.
    run_bytes: usize,
    /// Runs before they are merged into one.
    merge_runs: usize,
    /// All runs on the disk.
    temporary_bytes: u64,
    /// The index; a larger one is not written.
    index_bytes: u64,
    /// The root; a larger one is not written, and not read.
    root_bytes: u64,
}

const LIMITS: Limits = Limits {
    page_bytes: 4096,
    run_bytes: 16 << 20,
    merge_runs: 256,
    temporary_bytes: 16 << 30,
    index_bytes: 1 << 30,
    root_bytes: 64 << 20,
};

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlace {
    /// Its database.
    pub db: u32,
    /// The whole key.
    pub key: Vec<u8>,
    /// Where its entry begins in the content of the snapshot.
    pub offset: u64,
    /// Length of the entry.
    pub len: u64,
}

/// Reads the key of an entry, from the entry's bytes.
pub type ReadKey = Box<dyn Fn(&mut dyn Read) -> io::Result<Vec<u8>> + Send + Sync>;

impl SnapshotInfo {
    /// Where its key index is, if it has one.
    pub(crate) fn key_index_path(&self) -> PathBuf {
        path_beside(&self.path)
    }

    /// The journal: the snapshot is in its folder of snapshots.
    fn directory(&self) -> Directory {
        Directory::new(self.path.parent().and_then(Path::parent).unwrap_or(Path::new(".")))
    }
}

/// The path of the index of the snapshot at `path`.
fn path_beside(path: &Path) -> PathBuf {
    path.with_extension(KEY_INDEX)
}

/// What any bytes are taken for: as a page and as a root. What is taken is written alike, in substance.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_anything(bytes: &[u8]) {
    let entries = |page: &[u8]| {
        let (mut entries, mut all) = (page::Entries::new(page, u64::MAX), Vec::new());
        while let Some(entry) = entries.next()? {
            all.push(entry.clone());
        }
        Ok::<_, crate::error::Damage>(all)
    };
    if let Ok(all) = entries(bytes) {
        let (mut again, mut before) = (Vec::new(), None);
        for entry in &all {
            page::put_entry(&mut again, before, entry);
            before = Some((entry.db, &entry.key[..]));
        }
        assert_eq!(entries(&again), Ok(all));
    }
    if let Ok(root) = root::Root::decode(bytes) {
        assert_eq!(root::Root::decode(&root.encode()), Ok(root));
    }
    if let Some(tail) = bytes.last_chunk() {
        let _ = root::Tail::decode(tail, bytes.len() as u64);
    }
}
