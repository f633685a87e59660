//! Digests of segment files, and the links that chain segments by them.

use std::io::{self, Read};

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
    hasher.update_reader(FromStart { file, at: 0 }.take(len))?;
    Ok(hasher.finalize())
}

/// Reads a file from its beginning.
struct FromStart<'a> {
    file: &'a dyn StoredFile,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(room, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
