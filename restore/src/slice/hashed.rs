//! Keys as hashes of 128 bits, in one pass over their bytes.
//!
//! Two keys with the same hash would be treated as one, and a needed record be left out. So the hash is `SipHash` with
//! a random key of this process (128 bits of result, one round for each word and three at the end, as in the standard
//! library's own maps): a client that chooses keys cannot search for such a pair. Of the result 104 bits are compared
//! ([`super::key_table`]); an accidental pair is practically impossible (10⁹ keys against 6 million recorded ones: 3 ·
//! 10⁻¹⁶).

use rand::RngExt as _;

/// Hashes keys.
#[derive(Debug, Clone)]
pub(super) struct KeyHasher([u64; 2]);

impl Default for KeyHasher {
    fn default() -> Self {
        let mut rng = rand::rng();
        Self([rng.random(), rng.random()])
    }
}

impl KeyHasher {
    #[inline]
    pub(super) fn hash(&self, key: &[u8]) -> u128 {
        sip128::<1, 3>(self.0, key)
    }
}

/// `SipHash` (Aumasson, Bernstein: `SipHash`: a fast short-input PRF) with its extension to 128 bits; the lower half first.
#[inline]
fn sip128<const COMPRESS: usize, const FINISH: usize>(key: [u64; 2], bytes: &[u8]) -> u128 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        compress::<COMPRESS>(&mut v, u64::from_le_bytes(eight));
    }
    let rest = words.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8;
    compress::<COMPRESS>(&mut v, u64::from_le_bytes(last));
    v[2] ^= 0xee;
    let low = finish::<FINISH>(&mut v);
    v[1] ^= 0xdd;
    let high = finish::<FINISH>(&mut v);
    u128::from(high) << 64 | u128::from(low)
}

#[inline]
fn compress<const ROUNDS: usize>(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    for _ in 0..ROUNDS {
        round(v);
    }
    v[0] ^= word;
}

#[inline]
fn finish<const ROUNDS: usize>(v: &mut [u64; 4]) -> u64 {
    for _ in 0..ROUNDS {
        round(v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_is_siphash() {
        // The first ones of `vectors_sip128` of the authors' reference implementation: two rounds and four.
        let vectors = [
            0xa381_7f04_ba25_a8e6_6df6_7214_c755_0293_u128,
            0xda87_c1d8_6b99_af44_3476_5911_9b22_fc45,
            0x8177_228d_a4a4_5dc7_fca3_8bde_f60a_ffe4,
        ];
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        for (len, expected) in vectors.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..len as u8).collect();
            assert_eq!(sip128::<2, 4>(key, &bytes).swap_bytes(), expected, "{len} bytes");
        }
    }

    #[test]
    fn keys_have_hashes_of_128_bits_with_a_random_key() {
        let (hasher, other) = (KeyHasher::default(), KeyHasher::default());
        let hashes: HashSet<u128> = (0..20_000u32).map(|n| hasher.hash(&n.to_le_bytes())).collect();
        assert_eq!(hashes.len(), 20_000);
        assert_eq!(hasher.hash(b"a"), hasher.hash(b"a"));
        assert_ne!(hasher.hash(b"a"), other.hash(b"a"));
        // Each half is a hash of its own.
        let high: HashSet<u64> = hashes.iter().map(|hash| (hash >> 64) as u64).collect();
        assert_eq!(high.len(), 20_000);
        assert!(hashes.iter().all(|hash| (hash >> 64) as u64 != *hash as u64));
    }
}
