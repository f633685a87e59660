//! Magic, version, and what is wrong with an RDB as a whole.

/// Length of magic plus version.
pub const HEADER_LEN: usize = 9;
/// Length of the checksum at the end.
pub(super) const TRAILER_LEN: usize = 8;

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
