//! Plan and report of an undo of writes, as text and as JSON.

use std::fmt;

use serde::Serialize;

use crate::plan::Limit;
use crate::target::repair::{Listed, Outcome};

/// Keys listed by name.
const SAMPLES: usize = 5;

/// Writes of one kind: counts and samples.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WritesSeen {
    /// How many.
    pub count: u64,
    /// The first one.
    pub first_lsn: Option<u64>,
    /// The last one.
    pub last_lsn: Option<u64>,
    /// Clients, with their numbers of writes.
    pub clients: Vec<String>,
    /// Samples: LSN, time, client, command.
    pub samples: Vec<String>,
}

/// Changes to the live server. Numbers are of keys, unless noted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Keys that are created again.
    pub created: u64,
    /// Keys whose whole value is replaced.
    pub replaced: u64,
    /// Keys that the undone writes created.
    pub deleted: u64,
    /// Keys with changed elements.
    pub merged: u64,
    /// Elements that change.
    pub elements: u64,
    /// Keys with only a changed expiry time.
    pub ttl_set: u64,
    /// Some of the keys.
    pub samples: Vec<String>,
}

impl Changes {
    /// Adds a sample of a changed key.
    pub(super) fn sample(&mut self, name: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES {
            self.samples.push(name());
        }
    }

    /// Number of changed keys.
    pub fn keys(&self) -> u64 {
        self.created + self.replaced + self.deleted + self.merged + self.ttl_set
    }
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UndoWritesPlan {
    /// The undone writes.
    pub selected: WritesSeen,
    /// Writes that may or may not match the selection.
    pub perhaps: WritesSeen,
    /// These are undone as well.
    pub perhaps_included: bool,
    /// What changes.
    pub changes: Changes,
    /// Differing keys and elements that stay.
    pub stay: u64,
    /// Some of them.
    pub stay_listed: Vec<Listed>,
    /// Later writes that read the results of the selected writes.
    pub built_on: WritesSeen,
    /// What cannot be judged.
    pub not_judged: Vec<String>,
    /// The last examined record.
    pub upto_lsn: u64,
    /// The target.
    pub target: String,
    /// The scratch servers.
    pub scratch: String,
    /// The target's limits, and the required space.
    pub limits: Vec<Limit>,
    /// Undo file of this undo.
    pub undo_file: String,
    /// Warnings.
    pub warnings: Vec<String>,
}

impl fmt::Display for UndoWritesPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, "undo", "writes", &self.selected)?;
        if self.perhaps.count > 0 {
            let name = if self.perhaps_included { "included" } else { "perhaps" };
            show(f, name, "writes of unknown origin", &self.perhaps)?;
            if !self.perhaps_included {
                line(f, "", "they stay; --include-unknown takes them in")?;
            }
        }
        let Changes { created, replaced, deleted, merged, elements, ttl_set, samples } = &self.changes;
        let keys = |number| count(number, "key", "keys");
        let changes = [
            (*created, format!("{} come back", keys(*created))),
            (*replaced, format!("{} get their values back", keys(*replaced))),
            (*deleted, format!("{} go", keys(*deleted))),
            (*elements, format!("{} of {}", count(*elements, "element", "elements"), keys(*merged))),
            (*ttl_set, count(*ttl_set, "time of expiry", "times of expiry")),
        ];
        let changes: Vec<String> =
            changes.into_iter().filter(|(number, _)| *number > 0).map(|(_, words)| words).collect();
        let changes = if changes.is_empty() { "nothing".to_owned() } else { changes.join(", ") };
        line(f, "repair", &changes)?;
        if !samples.is_empty() {
            let more = if self.changes.keys() > samples.len() as u64 { ", …" } else { "" };
            line(f, "", &format!("{}{more}", samples.join(", ")))?;
        }
        if self.built_on.count > 0 {
            show(f, "built on it", "later writes that may depend on what is undone", &self.built_on)?;
        }
        line(
            f,
            "stays",
            &format!("{} that cannot be decided", count(self.stay, "key or element", "keys and elements")),
        )?;
        for Listed { db, key, why } in self.stay_listed.iter().take(SAMPLES) {
            line(f, "", &format!("{key} in db {db}: {why}"))?;
        }
        if self.built_on.count > 0 && self.stay > 0 {
            line(f, "", "--include-dependent recomputes later writes that depend on undone ones")?;
        }
        for why in &self.not_judged {
            line(f, "not judged", why)?;
        }
        line(f, "up to", &format!("LSN {}", self.upto_lsn))?;
        line(f, "target", &self.target)?;
        line(f, "scratch", &self.scratch)?;
        line(f, "undo file", &self.undo_file)?;
        for warning in &self.warnings {
            line(f, "warning", warning)?;
        }
        write!(
            f,
            "{:13}What an application or a script has read, and what it made of that elsewhere, cannot be seen: such values stay as they were written",
            "note"
        )
    }
}

fn count(number: u64, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, text: &str) -> fmt::Result {
    writeln!(f, "{name:13}{text}")
}

fn show(f: &mut fmt::Formatter<'_>, name: &str, what: &str, writes: &WritesSeen) -> fmt::Result {
    let WritesSeen { count, first_lsn, last_lsn, clients, samples } = writes;
    let range = match (first_lsn, last_lsn) {
        (Some(first), Some(last)) if first == last => format!(", LSN {first}"),
        (Some(first), Some(last)) => format!(", LSN {first} to {last}"),
        _ => String::new(),
    };
    let what = if *count == 1 { what.replacen("writes", "write", 1) } else { what.to_owned() };
    line(f, name, &format!("{count} {what}{range}"))?;
    for client in clients {
        line(f, "", &format!("by {client}"))?;
    }
    for sample in samples {
        line(f, "", sample)?;
    }
    Ok(())
}

impl UndoWritesPlan {
    /// Number of possibly matching writes that stay.
    pub(super) fn perhaps_left(&self) -> u64 {
        if self.perhaps_included { 0 } else { self.perhaps.count }
    }
}

impl UndoWritesReport {
    /// True if something was left that may belong to the mistake.
    pub fn leaves_some(&self) -> bool {
        self.repair.left > 0 || self.perhaps > 0 || !self.not_judged.is_empty()
    }
}

/// Result of an undo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UndoWritesReport {
    /// Number of undone writes.
    pub selected: u64,
    /// Changes to keys. What differs and stays is also listed there.
    pub repair: Outcome,
    /// Possibly matching writes that stay.
    pub perhaps: u64,
    /// What could not be judged.
    pub not_judged: Vec<String>,
    /// Number of attempts, due to concurrent writes.
    pub attempts: u32,
    /// Last record examined by the last attempt.
    pub upto_lsn: u64,
    /// Undo file; `None` = nothing was overwritten or deleted.
    pub undo_file: Option<String>,
    /// Duration in seconds.
    pub seconds: f64,
    /// Warnings.
    pub warnings: Vec<String>,
}
