//! Sets of keys as hashes of 128 bits.
//!
//! Two keys with the same hash would be taken for one, and a record that is needed be left out. So the hash is keyed with a
//! random key of this process (`SipHash`, as the standard library's own maps use it, over two different beginnings): who chooses
//! the keys cannot look for such a pair, and by chance there is none (10⁹ keys: 10⁻²¹).

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// Hashes keys.
#[derive(Debug, Default)]
pub(super) struct KeyHasher(RandomState);

impl KeyHasher {
    pub(super) fn hash(&self, key: &[u8]) -> u128 {
        let half = |begin: u8| {
            let mut hasher = self.0.build_hasher();
            hasher.write_u8(begin);
            hasher.write(key);
            hasher.finish()
        };
        u128::from(half(0)) << 64 | u128::from(half(1))
    }
}

/// A set of such hashes.
pub(super) type HashSet128 = HashSet<u128, BuildHasherDefault<AsItIs>>;

/// What is a hash already is not hashed again.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_hashes_of_128_bits_with_a_random_key() {
        let (hasher, other) = (KeyHasher::default(), KeyHasher::default());
        let hashes: HashSet128 = (0..20_000u32).map(|n| hasher.hash(&n.to_le_bytes())).collect();
        assert_eq!(hashes.len(), 20_000);
        assert_eq!(hasher.hash(b"a"), hasher.hash(b"a"));
        assert_ne!(hasher.hash(b"a"), other.hash(b"a"));
        // Each half is a hash of its own.
        let high: HashSet<u64> = hashes.iter().map(|hash| (hash >> 64) as u64).collect();
        assert_eq!(high.len(), 20_000);
        assert!(hashes.iter().all(|hash| (hash >> 64) as u64 != *hash as u64));
    }
}
