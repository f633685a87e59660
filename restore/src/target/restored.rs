//! What a target says of itself when all is there.

use std::collections::BTreeMap;

use serde::Serialize;

use super::address::FileFormat;
use super::repair::Outcome;

/// What is in the target at the end.
pub(crate) struct Restored {
    /// Keys in each database.
    pub(crate) keys: BTreeMap<u32, u64>,
    /// Of these, keys that have expired; `None` = the target does not allow to count them.
    pub(crate) expired: Option<u64>,
    /// Function libraries.
    pub(crate) functions: usize,
    /// What was compared, and with which result.
    pub(crate) checks: Vec<String>,
    /// What to be aware of.
    pub(crate) warnings: Vec<String>,
    /// What was done with keys of a target that holds others.
    pub(crate) outcome: Option<Outcome>,
    /// The file that was written.
    pub(crate) file: Option<WrittenFile>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Its form.
    pub format: FileFormat,
    /// Its name; `-` = standard output.
    pub path: String,
    /// Its length; of an append-only file, that of the RDB in it.
    pub bytes: u64,
    /// Of an RDB: its version.
    pub rdb: Option<String>,
    /// Of an append-only file: the history in it, if that was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// The records behind the base of an append-only file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct History {
    /// The moment that the base shows.
    pub since: String,
    /// How many.
    pub records: u64,
    /// Of the file with them.
    pub bytes: u64,
}

/// What is in a file.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) keys: BTreeMap<u32, u64>,
    /// Keys whose time has come by now.
    pub(crate) expired: u64,
    pub(crate) functions: usize,
    pub(crate) bytes: u64,
    /// Of an RDB: its version.
    pub(crate) rdb: Option<String>,
    pub(crate) history: Option<History>,
    pub(crate) checks: Vec<String>,
    pub(crate) warnings: Vec<String>,
}
