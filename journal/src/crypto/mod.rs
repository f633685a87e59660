//! Encryption at rest: who can read a file, and that nothing in it was moved.
//!
//! ```text
//! operator's key (Keyring) ─wraps─► data key, random for each file ─derives─► a key for each piece
//! ```
//!
//! A **piece** is a block's payload, a page of a key filter, a chunk of a snapshot or a part of its key index. Each is encrypted with
//! AES-256-GCM under a key of its own, which is derived from the data key and a **salt**; the salt is a
//! keyed hash of the piece itself and of where it stands. So no key is ever used for two pieces, and no
//! nonce can repeat under one key, whatever happens to the process: a crash, a torn tail that is written again, a
//! machine that is copied while it runs. Only the same bytes in the same place of the same file are encrypted
//! alike. There is no counter, so there is none to be lost. A data key is wrapped in the same way, so that two copies of a
//! machine whose kernels draw the same "random" bytes do no harm either.
//!
//! A footer of an encrypted segment carries a **proof**, a keyed hash of all its fields: who has no key cannot cut blocks off
//! a sealed segment and compute a footer that fits.
//!
//! What stays in clear: LSNs, times, offsets, sizes, the timeline's source and reason, names of marks.

mod keyfile;
mod keyring;
#[cfg(test)]
mod tests;

use std::fmt;

pub use keyfile::AddedKey;
pub use keyring::{KEYS_VARIABLE, KeyFault, Keyring, KeyringError};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Size of all keys.
pub(crate) const KEY_LEN: usize = 32;
const SALT_LEN: usize = 24;
const TAG_LEN: usize = 16;
/// How much longer a piece is when it is encrypted: salt before, tag behind.
pub(crate) const OVERHEAD: usize = SALT_LEN + TAG_LEN;
/// Size of a wrapped data key: a piece, too.
pub(crate) const WRAPPED_LEN: usize = KEY_LEN + OVERHEAD;
/// Size of a footer's proof.
pub(crate) const PROOF_LEN: usize = 32;

/// Fills a buffer with random bytes; fixed in tests.
pub(crate) type Random = fn(&mut [u8]) -> std::io::Result<()>;

/// Random bytes from the kernel.
pub(crate) fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// A data key as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrapped {
    pub(crate) key_id: String,
    pub(crate) bytes: [u8; WRAPPED_LEN],
}

/// Encrypts and decrypts the pieces of one file, or the data keys of one operator's key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sealer {
    salts: [u8; KEY_LEN],
    keys: [u8; KEY_LEN],
    proofs: [u8; KEY_LEN],
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(***)")
    }
}

fn aes(key: &[u8; KEY_LEN]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

impl Sealer {
    pub(crate) fn new(data_key: &[u8; KEY_LEN]) -> Self {
        Self {
            salts: blake3::derive_key("redtape journal 1, salts of pieces", data_key),
            keys: blake3::derive_key("redtape journal 1, keys of pieces", data_key),
            proofs: blake3::derive_key("redtape journal 1, proofs of footers", data_key),
        }
    }

    /// Wraps data keys with an operator's key.
    fn of_data_keys(operators: &[u8; KEY_LEN]) -> Self {
        Self {
            salts: blake3::derive_key("redtape journal 1, salts of data keys", operators),
            keys: blake3::derive_key("redtape journal 1, keys of data keys", operators),
            // It proves nothing.
            proofs: [0; KEY_LEN],
        }
    }

    /// What only somebody with the data key can say of these bytes.
    pub(crate) fn prove(&self, bytes: &[u8]) -> [u8; PROOF_LEN] {
        *blake3::keyed_hash(&self.proofs, bytes).as_bytes()
    }

    /// The key of the piece with this salt. It is used for this piece alone, so its nonce is zero.
    fn piece_key(&self, salt: &[u8]) -> [u8; KEY_LEN] {
        *blake3::keyed_hash(&self.keys, salt).as_bytes()
    }

    fn salt(&self, place: &[u8], piece: &[u8]) -> [u8; SALT_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.salts);
        hasher.update(&(place.len() as u64).to_le_bytes()).update(place).update(piece);
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&hasher.finalize().as_bytes()[..SALT_LEN]);
        salt
    }

    /// Encrypts a piece; it can be opened with the same `place` only.
    pub(crate) fn seal(&self, place: &[u8], piece: &[u8]) -> Vec<u8> {
        let salt = self.salt(place, piece);
        #[cfg(test)]
        tests::seen(self.piece_key(&salt), place, piece);
        let mut out = Vec::with_capacity(piece.len() + OVERHEAD);
        out.extend_from_slice(&salt);
        out.extend_from_slice(piece);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = aes(&self.piece_key(&salt))
            .and_then(|key| key.seal_in_place_separate_tag(nonce, Aad::from(place), &mut out[SALT_LEN..]).ok());
        // AES-256-GCM takes any key of 32 bytes, and any piece of less than 64 GiB.
        let tag = tag.unwrap_or_else(|| unreachable!("a piece of {} bytes", piece.len()));
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Decrypts a piece; `None` if it is not what was encrypted for this place.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, sealed) = sealed.split_at_checked(SALT_LEN)?;
        let mut out = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let len = aes(&self.piece_key(salt))?.open_in_place(nonce, Aad::from(place), &mut out).ok()?.len();
        out.truncate(len);
        Some(out)
    }
}

/// Draws a data key.
pub(crate) fn new_data_key(random: Random) -> std::io::Result<[u8; KEY_LEN]> {
    let mut key = [0; KEY_LEN];
    random(&mut key)?;
    Ok(key)
}
