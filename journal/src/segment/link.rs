//! Digests of segment files, and the links that chain segments by them.

use std::io;

use crate::storage::StoredFile;

/// Size of a digest and of a link.
pub(crate) const DIGEST_LEN: usize = 32;
/// Bytes hashed at once.
const HASH_CHUNK: usize = 256 << 10;
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
    let mut chunk = vec![0; HASH_CHUNK];
    let mut at = 0;
    while at < len {
        let room = HASH_CHUNK.min(usize::try_from(len - at).unwrap_or(HASH_CHUNK));
        match file.read_at(&mut chunk[..room], at) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&chunk[..n]);
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(hasher.finalize())
}
