//! What `redtape restore` does in a target that holds wanted keys already.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use crate::exit::{Failure, USAGE};
use crate::headings::{CONFLICTS, TARGET, UNDO_FILE};
use clap::{Args, ValueEnum};
use redtape_journal::query::{When, WriteQuery};
use redtape_restore::import::Existing;
use redtape_restore::target::repair::{NameTemplate, OnConflict, Policy, TtlPolicy};

/// `--on-conflict`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Conflict {
    /// Nothing is restored.
    Fail,
    /// The target's key stays.
    Skip,
    /// The restored value replaces it.
    Replace,
    /// The restored value is stored under another name (--as).
    Rename,
    /// Hashes, sets, sorted sets and streams get the elements that they lack; lists and strings stay.
    Merge,
}

/// `--ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ttl {
    /// A key expires when it would have.
    Absolute,
    /// What was left of its TTL at the restore point starts now.
    Remaining,
    /// Keys never expire.
    None,
}

/// The options.
#[derive(Debug, Args)]
#[command(next_help_heading = CONFLICTS)]
pub(crate) struct ConflictOptions {
    /// What happens to a key that the target holds with another value [default: fail]. Without a selection of keys: restore all
    /// keys into a target that may hold others.
    #[arg(long, value_enum)]
    on_conflict: Option<Conflict>,
    /// For --on-conflict rename: the name of the restored key; {key} is its own name, {id} that of the restore.
    #[arg(long = "as", value_name = "TEMPLATE", default_value = "{key}:restored:{id}")]
    name_template: NameTemplate,
    /// Delete selected keys that did not exist at the restore point; with --type, those that have such a type in the target.
    #[arg(long)]
    delete_absent: bool,
    /// Make the target hold the restored keys and function libraries and nothing else. What it held goes into the undo file. Needs
    /// --confirm.
    #[arg(long, conflicts_with_all = ["on_conflict", "name_template", "delete_absent", "broken_by", "if_unchanged"])]
    replace_all: bool,
    /// For --replace-all: the target as its plan shows it. --yes does not stand for it.
    #[arg(long, value_name = "HOST:PORT", requires = "replace_all")]
    confirm: Option<String>,
    /// Put back only the keys, elements and times of expiry that these writes wrote last, such as client=intern,
    /// 'client=intern,command=HSET', lsn:18546..18600. Only with --on-conflict merge, which is then the default.
    #[arg(long, value_name = "FILTER")]
    pub(crate) broken_by: Option<WriteQuery>,
    /// Write only keys that are in the target as they were recorded at WHEN, such as the end of the accident; keys that were
    /// written later stay [default of WHEN: latest].
    #[arg(long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "latest", require_equals = true)]
    pub(crate) if_unchanged: Option<When>,
    /// When restored keys expire.
    #[arg(long, value_enum, default_value = "absolute")]
    ttl: Ttl,
    /// Write at most N keys a second.
    #[arg(help_heading = TARGET, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// Directory of undo files, which are also the state of interrupted restores [default: $XDG_STATE_HOME/redtape, else
    /// ~/.local/state/redtape]
    #[arg(help_heading = UNDO_FILE, long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

impl From<Ttl> for TtlPolicy {
    fn from(ttl: Ttl) -> Self {
        match ttl {
            Ttl::Absolute => Self::Absolute,
            Ttl::Remaining => Self::Remaining,
            Ttl::None => Self::None,
        }
    }
}

impl ConflictOptions {
    /// The same for a file of JSON lines, which overwrites nothing.
    pub(crate) fn existing(&self) -> Result<Existing, Failure> {
        let refuse = |what: &str| {
            let message = format!(
                "{what} needs a journal (--from DIR): a file of JSON lines goes into an empty server, or with --on-conflict fail or skip beside other keys"
            );
            Err(Failure::new(USAGE, message))
        };
        let others = [
            (self.replace_all, "--replace-all"),
            (self.delete_absent, "--delete-absent"),
            (self.broken_by.is_some(), "--broken-by"),
            (self.if_unchanged.is_some(), "--if-unchanged"),
            (self.ttl != Ttl::Absolute, "--ttl"),
            (self.rate.is_some(), "--rate"),
        ];
        if let Some((_, option)) = others.into_iter().find(|(given, _)| *given) {
            return refuse(option);
        }
        match self.on_conflict {
            None => Ok(Existing::NotExpected),
            Some(Conflict::Fail) => Ok(Existing::Refused),
            Some(Conflict::Skip) => Ok(Existing::Kept),
            Some(Conflict::Replace) => refuse("--on-conflict replace"),
            Some(Conflict::Rename) => refuse("--on-conflict rename"),
            Some(Conflict::Merge) => refuse("--on-conflict merge"),
        }
    }

    /// What removes all that a target holds names that target, or nothing is begun. `address`: the target's.
    pub(crate) fn check_confirmed(&self, address: &str, plan_only: bool) -> Result<(), Failure> {
        let why = match &self.confirm {
            Some(confirmed) if confirmed != address => {
                format!("--confirm names {confirmed}, and the target is {address}")
            }
            None if self.replace_all && !plan_only => {
                format!("--replace-all removes all that {address} holds, and --yes does not cover that")
            }
            _ => return Ok(()),
        };
        let what = "nothing was changed. See with --plan what is removed";
        Err(Failure::new(USAGE, format!("{why}; {what}, then give --confirm {address}")))
    }

    /// What was asked for; `None` = nothing of it.
    pub(crate) fn policy(&self) -> Result<Option<Policy>, Failure> {
        if self.replace_all {
            return Ok(Some(Policy::replace_all(self.ttl.into())));
        }
        let on_conflict = match (self.on_conflict, &self.broken_by) {
            (None, Some(_)) => Some(Conflict::Merge),
            (Some(Conflict::Merge) | None, _) | (_, None) => self.on_conflict,
            (Some(_), Some(_)) => {
                return Err(Failure::new(
                    USAGE,
                    "--broken-by goes with --on-conflict merge, which takes back what these writes wrote last; leave one of both out",
                ));
            }
        };
        if on_conflict.is_none() && self.if_unchanged.is_none() && !self.delete_absent && self.ttl == Ttl::Absolute {
            return Ok(None);
        }
        Ok(Some(Policy {
            on_conflict: match on_conflict {
                None | Some(Conflict::Fail) => OnConflict::Fail,
                Some(Conflict::Skip) => OnConflict::Skip,
                Some(Conflict::Replace) => OnConflict::Replace,
                Some(Conflict::Rename) => OnConflict::Rename,
                Some(Conflict::Merge) => OnConflict::Merge,
            },
            name_template: self.name_template.clone(),
            delete_absent: self.delete_absent,
            replace_all: false,
            ttl: self.ttl.into(),
        }))
    }
}
