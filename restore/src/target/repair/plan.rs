//! The part of a plan that says what a repair will do.

use std::fmt;

use serde::Serialize;

use super::policy::{OnConflict, Policy};
use super::survey::Survey;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairPlan {
    /// What is done where the target holds wanted keys.
    pub policy: Policy,
    /// What it holds of them.
    pub survey: Survey,
    /// Where what is overwritten or deleted is kept.
    pub undo_file: String,
}

impl fmt::Display for RepairPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Survey { wanted, new, equal, different, ttl_only, expired, absent, samples, .. } = &self.survey;
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
        write!(f, "\nundo file    {}", self.undo_file)
    }
}

impl RepairPlan {
    /// What happens to the differing keys, in words.
    fn conflicts(&self) -> String {
        match self.policy.on_conflict {
            OnConflict::Fail => "nothing is restored as long as they differ".to_owned(),
            OnConflict::Skip => "they stay as they are".to_owned(),
            OnConflict::Replace => "they are replaced".to_owned(),
            OnConflict::Rename => "the wanted values are stored under other names".to_owned(),
            OnConflict::Merge => format!(
                "{} elements are added, {} that differ are judged",
                self.survey.elements_lacking, self.survey.elements_different
            ),
        }
    }
}
