//! Digests of segment files, and the links that chain segments by them.

use std::io::{self, Read};
use std::ops::Range;

use crate::storage::StoredFile;

/// Size of a digest and of a link.
pub(crate) const DIGEST_LEN: usize = 32;
const LINK_CLEAR: &str = "redtape journal 1, the link to a segment in clear";
const LINK_ENCRYPTED: &str = "redtape journal 1, the link to an encrypted segment";

/// BLAKE3 of what stands before a footer.
pub(crate) type Digest = [u8; DIGEST_LEN];
/// By what a segment names the one before it; zeros for none.
pub(crate) type Link = [u8; DIGEST_LEN];

/// The link to a segment that was sealed with this digest.
pub(crate) fn link(sealed: &Digest, encrypted: bool) -> Link {
    blake3::derive_key(if encrypted { LINK_ENCRYPTED } else { LINK_CLEAR }, sealed)
}

/// BLAKE3 of the first `len` bytes, or of all if there are fewer.
pub(crate) fn hash_file(file: &dyn StoredFile, len: u64) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hash_range(&mut hasher, file, 0..len)?;
    Ok(hasher.finalize())
}

/// Adds a range of a file to a hash, or what there is of it.
pub(crate) fn hash_range(hasher: &mut blake3::Hasher, file: &dyn StoredFile, range: Range<u64>) -> io::Result<()> {
    let len = range.end.saturating_sub(range.start);
    hasher.update_reader(ReadFrom { file, at: range.start }.take(len)).map(drop)
}

/// Reads a file from one place on.
struct ReadFrom<'a> {
    file: &'a dyn StoredFile,
    at: u64,
}

impl Read for ReadFrom<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(room, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
