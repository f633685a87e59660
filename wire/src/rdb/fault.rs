//! Why an RDB, or one value of it, cannot be read.

use super::header::{RdbError, RdbVersion};

/// A fault, and where it is.
#[derive(Debug, thiserror::Error)]
#[error("the RDB cannot be read at byte {at}: {fault}")]
pub struct ReadError {
    /// Offset of the byte that does not fit, from the start of what is read: the file, or the value that was cut out.
    pub at: u64,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The source failed.
    #[error("reading failed: {0}")]
    Io(#[from] std::io::Error),
    /// Header or checksum.
    #[error(transparent)]
    Whole(#[from] RdbError),
    /// No table for this version: types of the same number differ between versions.
    #[error("{0} is an unsupported version (supported: REDIS0009 to REDIS0013, VALKEY080)")]
    UnknownVersion(RdbVersion),
    /// It ends too early.
    #[error("it ends inside {what}")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// An opcode that this version does not have.
    #[error("opcode {number} ({name}) is not part of {version}")]
    UnknownOpcode {
        /// Its number.
        number: u8,
        /// Its name in a version that has it.
        name: &'static str,
        /// The version of this RDB.
        version: RdbVersion,
    },
    /// A type of values that this version does not have, or that no version read here is written with.
    #[error("value type {number} ({name}) is not read in {version}")]
    UnknownType {
        /// Its number.
        number: u8,
        /// Its name in a version that has it.
        name: &'static str,
        /// The version of this RDB.
        version: RdbVersion,
    },
    /// Longer than its limit.
    #[error("{what} takes {bytes} bytes, more than the {limit} that are accepted")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Decoded, the value is larger than the caller can use.
    #[error("the decoded value takes more than {limit} bytes")]
    TooLarge {
        /// The caller's limit.
        limit: u64,
    },
    /// The bytes do not have the form that they must have.
    #[error("{0}")]
    Invalid(&'static str),
}

impl Fault {
    pub(super) fn at(self, at: u64) -> ReadError {
        ReadError { at, fault: self }
    }
}
