//! The part of a plan that describes a repair.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::policy::{OnConflict, Policy};
use crate::libraries::LibrariesPlan;

/// Numbers of keys, with some names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Wanted keys in each database.
    pub wanted: BTreeMap<u32, u64>,
    /// The target does not have the key.
    pub new: u64,
    /// The target holds the same.
    pub equal: u64,
    /// The target has another value or another expiry time.
    pub different: u64,
    /// Of these, keys with only another expiry time.
    pub ttl_only: u64,
    /// Of the differing keys, those without the expected value (`--if-unchanged`): they stay.
    pub changed: u64,
    /// The expiry time has passed since the restore point.
    pub expired: u64,
    /// Keys of the target to delete: selected ones that did not exist at the restore point (`--delete-absent`), or all
    /// unwanted ones (`--replace-all`).
    pub absent: u64,
    /// The same in each database.
    pub absent_by_db: BTreeMap<u32, u64>,
    /// Elements that the target's keys lack (`--on-conflict merge`).
    pub elements_lacking: u64,
    /// Elements that differ, and those that only the target has.
    pub elements_different: u64,
    /// Some of the differing keys.
    pub samples: Vec<String>,
}

impl Survey {
    /// Adds the survey of another part of the target.
    pub(crate) fn add(&mut self, other: Self, samples_max: usize) {
        for (db, count) in other.wanted {
            *self.wanted.entry(db).or_default() += count;
        }
        self.new += other.new;
        self.equal += other.equal;
        self.different += other.different;
        self.ttl_only += other.ttl_only;
        self.changed += other.changed;
        self.expired += other.expired;
        self.absent += other.absent;
        for (db, count) in other.absent_by_db {
            *self.absent_by_db.entry(db).or_default() += count;
        }
        self.elements_lacking += other.elements_lacking;
        self.elements_different += other.elements_different;
        self.samples.extend(other.samples);
        self.samples.truncate(samples_max);
    }

    /// Adds this many keys to delete in a database.
    pub(super) fn add_absent(&mut self, db: u32, keys: usize) {
        self.absent += keys as u64;
        *self.absent_by_db.entry(db).or_default() += keys as u64;
    }
}

/// What a repair will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairPlan {
    /// What is done with wanted keys that the target already holds.
    pub policy: Policy,
    /// The differences found.
    pub survey: Survey,
    /// What is done with function libraries; `None` = nothing.
    pub libraries: Option<LibrariesPlan>,
    /// With `--replace-all`: the keys that the target holds, in each database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_keys: Option<BTreeMap<u32, u64>>,
    /// Of the differing keys, elements and expiry times (`--broken-by`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judged: Option<JudgedCounts>,
    /// Where overwritten and deleted values are kept.
    pub undo_file: String,
    /// With `--replace-all`: how large the undo file may become.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo_room: Option<UndoRoom>,
}

/// Space for an undo file of everything in a target, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct UndoRoom {
    /// Estimated upper limit: the memory that the target's data takes.
    pub most_bytes: u64,
    /// Free space in the file's filesystem; `None` = unknown.
    pub free_bytes: Option<u64>,
}

/// Keys, elements and expiry times, by their last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct JudgedCounts {
    /// The last write is a named one.
    pub go_back: u64,
    /// The last write is another one, or may be.
    pub stay: u64,
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survey { wanted, new, equal, different, ttl_only, expired, absent, samples, .. } = &self.survey;
        if let Some(keys) = &self.target_keys {
            write!(
                f,
                "\nreplace all  the target holds {}; afterwards it holds what is wanted and nothing else",
                by_database(keys)
            )?;
            write!(f, "\nremoved      {}", by_database(&self.survey.absent_by_db))?;
        }
        write!(
            f,
            "\nkeys         {} wanted: {new} new, {equal} equal, {different} different",
            wanted.values().sum::<u64>()
        )?;
        if *ttl_only > 0 {
            write!(f, " ({ttl_only} in the time of expiry alone)")?;
        }
        if self.survey.changed > 0 {
            write!(f, ", of these {} changed since they were to be unchanged", self.survey.changed)?;
        }
        if *expired > 0 {
            write!(f, ", {expired} expired since")?;
        }
        if self.policy.delete_absent {
            write!(f, "; {absent} of the target did not exist")?;
        }
        if !samples.is_empty() {
            let more = if *different > samples.len() as u64 { ", …" } else { "" };
            write!(f, "\ndifferent    {}{more}", samples.join(", "))?;
            write!(f, "\n             {}", self.conflicts())?;
        }
        if let Some(JudgedCounts { go_back, stay }) = &self.judged {
            write!(
                f,
                "\nbroken by    {go_back} keys and elements go back, {stay} stay: their last write is another one, or may be"
            )?;
        }
        if let Some(libraries) = self.libraries.as_ref().filter(|libraries| !libraries.is_nothing()) {
            write!(f, "\nfunctions    {libraries}")?;
        }
        write!(f, "\nundo file    {}", self.undo_file)?;
        let Some(UndoRoom { most_bytes, free_bytes }) = self.undo_room else { return Ok(()) };
        write!(f, " (up to about {most_bytes} bytes)")?;
        match free_bytes {
            Some(free) if free < most_bytes => write!(
                f,
                "\nlimit        {free} bytes are free there: if they do not suffice, the restore stops before it removes a value that it cannot keep, and the same command continues when there is room (or choose another --state-dir)"
            ),
            _ => Ok(()),
        }
    }
}

impl RepairPlan {
    /// What happens to the differing keys, as text.
    fn conflicts(&self) -> String {
        match self.policy.on_conflict {
            OnConflict::Fail => "nothing is restored as long as they differ".to_owned(),
            OnConflict::Skip => "they stay as they are".to_owned(),
            OnConflict::Replace => "they are replaced".to_owned(),
            OnConflict::Rename => "the wanted values are stored under other names".to_owned(),
            OnConflict::Merge if self.judged.is_some() => "what the named writes wrote last goes back".to_owned(),
            OnConflict::Merge => format!(
                "{} elements are added, {} that differ stay",
                self.survey.elements_lacking, self.survey.elements_different
            ),
        }
    }
}

/// `5 keys (db 0: 4, db 2: 1)`.
fn by_database(keys: &BTreeMap<u32, u64>) -> String {
    let all: u64 = keys.values().sum();
    let each: Vec<String> = keys.iter().map(|(db, n)| format!("db {db}: {n}")).collect();
    match all {
        0 => "no keys".to_owned(),
        1 => format!("1 key ({})", each.join(", ")),
        _ => format!("{all} keys ({})", each.join(", ")),
    }
}
