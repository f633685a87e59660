//! The RDB's header, auxiliary fields and checksum; values stay opaque.
//!
//! Layout (Redis `rdb.c`): 9 bytes magic and version (`REDIS0010`, `VALKEY080`), opcodes and values,
//! opcode 255, then 8 bytes CRC64 (Jones, little-endian) over everything before; zero = the server
//! writes no checksums (`rdbchecksum no`).

use crc_fast::{CrcAlgorithm, Digest};

/// Length of magic plus version.
pub const HEADER_LEN: usize = 9;
const TRAILER_LEN: usize = 8;
const OPCODE_AUX: u8 = 250;

/// Whose RDB it is: types and opcodes of the same number differ between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Magic `REDIS`.
    Redis,
    /// Magic `VALKEY` (Valkey 9 and later; earlier ones write `REDIS0011`).
    Valkey,
}

/// Magic and version of an RDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RdbVersion {
    /// Which magic.
    pub family: Family,
    /// RDB version: 9 (Redis 5, 6), 10 (7.0), 11 (7.2, Valkey 8), 12 (7.4, 8.0), 80 (Valkey 9).
    pub version: u32,
}

impl std::fmt::Display for RdbVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.family {
            Family::Redis => write!(f, "REDIS{:04}", self.version),
            Family::Valkey => write!(f, "VALKEY{:03}", self.version),
        }
    }
}

/// What is wrong with an RDB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RdbError {
    /// Neither magic.
    #[error("not an RDB: it starts with {found:?}")]
    Magic {
        /// The first bytes, made printable.
        found: String,
    },
    /// It ends before its checksum.
    #[error("the RDB is cut off after {bytes} bytes")]
    Truncated {
        /// How many bytes there were.
        bytes: u64,
    },
    /// The checksum at the end is another.
    #[error("the RDB's CRC64 does not match: {stored:016x} stored, {computed:016x} computed over {bytes} bytes")]
    Checksum {
        /// The one in the file.
        stored: u64,
        /// The one of the bytes.
        computed: u64,
        /// How many bytes were covered.
        bytes: u64,
    },
}

/// Reads magic and version from the first nine bytes.
pub fn parse_header(bytes: &[u8]) -> Result<RdbVersion, RdbError> {
    let digits = |from: usize| {
        let text = bytes.get(from..HEADER_LEN)?;
        text.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(text).ok()?.parse().ok()).flatten()
    };
    let family = if bytes.starts_with(b"REDIS") {
        Some((Family::Redis, 5))
    } else if bytes.starts_with(b"VALKEY") {
        Some((Family::Valkey, 6))
    } else {
        None
    };
    family.and_then(|(family, from)| Some(RdbVersion { family, version: digits(from)? })).ok_or_else(|| {
        RdbError::Magic { found: String::from_utf8_lossy(&bytes[..bytes.len().min(HEADER_LEN)]).into_owned() }
    })
}

/// Reads the auxiliary fields (`redis-ver`, `ctime`, `repl-offset`, …) at the front of an RDB.
/// Fields whose value is not a plain string or small integer are left out.
pub fn parse_aux(head: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut at = HEADER_LEN;
    while head.get(at) == Some(&OPCODE_AUX) {
        let Some((key, next)) = parse_string(head, at + 1) else { break };
        let Some((value, next)) = parse_string(head, next) else { break };
        fields.push((key, value));
        at = next;
    }
    fields
}

fn parse_string(bytes: &[u8], at: usize) -> Option<(String, usize)> {
    let first = *bytes.get(at)?;
    let little = |n: usize| -> Option<i64> {
        let raw = bytes.get(at + 1..at + 1 + n)?;
        let mut wide = [if raw.last()? & 0x80 == 0 { 0 } else { 0xff }; 8];
        wide[..n].copy_from_slice(raw);
        Some(i64::from_le_bytes(wide))
    };
    let (len, body) = match first >> 6 {
        0 => (usize::from(first & 0x3f), at + 1),
        1 => (usize::from(first & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?), at + 2),
        3 => {
            let width = match first & 0x3f {
                0 => 1,
                1 => 2,
                2 => 4,
                _ => return None,
            };
            return Some((little(width)?.to_string(), at + 1 + width));
        }
        _ => return None,
    };
    let text = bytes.get(body..body.checked_add(len)?)?;
    Some((String::from_utf8_lossy(text).into_owned(), body + len))
}

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
