//! The CRC64 of an RDB that streams by in pieces, without a look at its values.

use crc_fast::{CrcAlgorithm, Digest};

use super::aux::parse_aux;
use super::header::{HEADER_LEN, RdbError, RdbVersion, TRAILER_LEN, parse_header};

/// Checks an RDB's CRC64 while it streams by.
///
/// Invariant: everything but the newest eight bytes (which may be the checksum) is in the digest.
pub struct RdbVerifier {
    digest: Digest,
    tail: [u8; TRAILER_LEN],
    tail_len: usize,
    head: Vec<u8>,
    bytes: u64,
}

impl std::fmt::Debug for RdbVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RdbVerifier").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What a whole, sound RDB says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdbSummary {
    /// Magic and version.
    pub version: RdbVersion,
    /// Its length in bytes.
    pub bytes: u64,
    /// False where the server writes no checksums: then only the framing vouches for it.
    pub checksum_present: bool,
    /// The auxiliary fields at its front.
    pub aux: Vec<(String, String)>,
}

impl Default for RdbVerifier {
    fn default() -> Self {
        Self::new()
    }
}

impl RdbVerifier {
    /// Bytes at the front that are kept for the header and the auxiliary fields.
    const HEAD_KEPT: usize = 4096;

    /// Before the first byte.
    pub fn new() -> Self {
        Self {
            digest: Digest::new(CrcAlgorithm::Crc64Redis),
            tail: [0; TRAILER_LEN],
            tail_len: 0,
            head: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.head.len() < Self::HEAD_KEPT {
            self.head.extend_from_slice(&bytes[..bytes.len().min(Self::HEAD_KEPT - self.head.len())]);
        }
        if bytes.len() >= TRAILER_LEN {
            self.digest.update(&self.tail[..self.tail_len]);
            let (body, tail) = bytes.split_at(bytes.len() - TRAILER_LEN);
            self.digest.update(body);
            self.tail.copy_from_slice(tail);
            self.tail_len = TRAILER_LEN;
            return;
        }
        let over = (self.tail_len + bytes.len()).saturating_sub(TRAILER_LEN);
        self.digest.update(&self.tail[..over]);
        self.tail.copy_within(over..self.tail_len, 0);
        self.tail_len -= over;
        self.tail[self.tail_len..self.tail_len + bytes.len()].copy_from_slice(bytes);
        self.tail_len += bytes.len();
    }

    /// After the last byte.
    pub fn finish(self) -> Result<RdbSummary, RdbError> {
        let version = parse_header(&self.head)?;
        if self.bytes < (HEADER_LEN + 1 + TRAILER_LEN) as u64 {
            return Err(RdbError::Truncated { bytes: self.bytes });
        }
        let stored = u64::from_le_bytes(self.tail);
        let computed = self.digest.finalize();
        if stored != 0 && stored != computed {
            return Err(RdbError::Checksum { stored, computed, bytes: self.bytes - TRAILER_LEN as u64 });
        }
        Ok(RdbSummary { version, bytes: self.bytes, checksum_present: stored != 0, aux: parse_aux(&self.head) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::Family;

    /// `SAVE` of an empty redis-server 7.0.15 with `rdbchecksum yes`, its auxiliary fields cut down:
    /// header, EOF, CRC64 of those ten bytes.
    fn tiny() -> Vec<u8> {
        let mut rdb = b"REDIS0010\xff".to_vec();
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Redis, &rdb);
        rdb.extend_from_slice(&crc.to_le_bytes());
        rdb
    }

    #[test]
    fn crc64_is_the_one_of_redis() {
        // The check value in Redis's own crc64.c.
        assert_eq!(crc_fast::checksum(CrcAlgorithm::Crc64Redis, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn any_split_verifies_and_any_flipped_bit_is_found() {
        let rdb = tiny();
        for step in 1..=rdb.len() {
            let mut v = RdbVerifier::new();
            rdb.chunks(step).for_each(|c| v.update(c));
            let summary = v.finish().expect("sound");
            assert_eq!(summary.version, RdbVersion { family: Family::Redis, version: 10 });
            assert!(summary.checksum_present);
        }
        for bit in 0..rdb.len() * 8 {
            let mut bad = rdb.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut v = RdbVerifier::new();
            v.update(&bad);
            assert!(v.finish().is_err(), "bit {bit}");
        }
        for len in 0..rdb.len() {
            let mut v = RdbVerifier::new();
            v.update(&rdb[..len]);
            assert!(v.finish().is_err(), "cut at {len}");
        }
    }

    #[test]
    fn headers_of_both_families() {
        let valkey = parse_header(b"VALKEY080").expect("valkey");
        assert_eq!((valkey.family, valkey.version), (Family::Valkey, 80));
        assert_eq!(valkey.to_string(), "VALKEY080");
        assert_eq!(parse_header(b"REDIS0012x").expect("redis").to_string(), "REDIS0012");
        assert!(parse_header(b"REDISxxxx").is_err());
        assert!(parse_header(b"RED").is_err());
    }

    #[test]
    fn auxiliary_fields() {
        let rdb =
            b"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0\x40\xfa\x05ctime\xc2\x01\x02\x03\x04\xff";
        let want = [("redis-ver", "7.0.15"), ("redis-bits", "64"), ("ctime", "67305985")];
        let got = parse_aux(rdb);
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
