//! Digests of segment files, and the links that chain segments by them.

use std::fs::File;
use std::io::{self, Read, Seek};

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

/// BLAKE3 of the first `len` bytes.
pub(crate) fn hash_file(mut file: &File, len: u64) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    file.rewind()?;
    hasher.update_reader(file.take(len))?;
    Ok(hasher.finalize())
}
