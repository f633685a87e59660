//! Plan and report of an import.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// What an import will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImportPlan {
    /// The file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// The restore point that it shows.
    pub at: String,
    /// Writes at that time are excluded.
    pub before: bool,
    /// Its last record.
    pub lsn: u64,
    /// The journal.
    pub journal: String,
    /// The server that was recorded.
    pub server: String,
    /// The file's selection as text; `None` = everything.
    pub file_selection: Option<String>,
    /// The import's selection as text; `None` = everything.
    pub selection: Option<String>,
    /// Wanted keys in each database.
    pub keys: BTreeMap<u32, u64>,
    /// Of these, existing keys, which stay.
    pub existing: u64,
    /// Function libraries.
    pub functions: usize,
    /// The target.
    pub target: String,
    /// Its family and version.
    pub target_version: String,
    /// Warnings.
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

/// Result of an import.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImportReport {
    /// The file.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// The restore point that it shows.
    pub at: String,
    /// Writes at that time are excluded.
    pub before: bool,
    /// Its last record.
    pub lsn: u64,
    /// Keys written in each database, including those that expired on arrival.
    pub keys: BTreeMap<u32, u64>,
    /// Existing keys; they stay.
    pub existing: u64,
    /// Of the written ones, keys that have already expired.
    pub expired: u64,
    /// Function libraries.
    pub functions: usize,
    /// Duration.
    pub seconds: f64,
    /// Checks that were made.
    pub checks: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
}
