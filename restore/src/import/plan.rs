//! What an import will do, and what it has done.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What an import will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportPlan {
    /// The file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The restore point that it shows.
    pub at: String,
    /// What ran at that time is left out of it.
    pub before: bool,
    /// Its last record.
    pub lsn: u64,
    /// Of which journal.
    pub journal: String,
    /// The server that was recorded.
    pub server: String,
    /// Which keys are in the file, in words; `None` = everything.
    pub file_selection: Option<String>,
    /// Which of them are wanted, in words; `None` = all.
    pub selection: Option<String>,
    /// Wanted keys in each database.
    pub keys: BTreeMap<u32, u64>,
    /// Of these, keys that the target has, which stay.
    pub existing: u64,
    /// Function libraries.
    pub functions: usize,
    /// Where to.
    pub target: String,
    /// Its family and version.
    pub target_version: String,
    /// What to be aware of.
    pub warnings: Vec<String>,
}

impl fmt::Display for ImportPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "restore to   {} ({})", self.target, self.target_version)?;
        writeln!(f, "file         {} ({} bytes), read through and whole", self.file, self.bytes)?;
        let before = if self.before { "before " } else { "" };
        writeln!(
            f,
            "point        {before}{}, LSN {} of journal {}, recorded from {}",
            self.at, self.lsn, self.journal, self.server
        )?;
        if let Some(selection) = &self.file_selection {
            writeln!(f, "in the file  {selection}")?;
        }
        if let Some(selection) = &self.selection {
            writeln!(f, "selection    {selection}")?;
        }
        let keys: u64 = self.keys.values().sum();
        write!(
            f,
            "keys         {keys}, of which the target has {}; function libraries: {}",
            self.existing, self.functions
        )?;
        for warning in &self.warnings {
            write!(f, "\nwarning      {warning}")?;
        }
        Ok(())
    }
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportReport {
    /// The file.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// The restore point that it shows.
    pub at: String,
    /// What ran at that time is left out of it.
    pub before: bool,
    /// Its last record.
    pub lsn: u64,
    /// Keys written, in each database; those included that expired on arrival.
    pub keys: BTreeMap<u32, u64>,
    /// Keys that the target had; they stay.
    pub existing: u64,
    /// Of those written, keys whose TTL has passed, so that they are gone again.
    pub expired: u64,
    /// Function libraries.
    pub functions: usize,
    /// How long it took.
    pub seconds: f64,
    /// What was looked at.
    pub checks: Vec<String>,
    /// What to be aware of.
    pub warnings: Vec<String>,
}
