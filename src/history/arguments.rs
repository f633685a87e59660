//! The filters as arguments: the same for every command that shows writes.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use clap::Args;
use redtape_journal::query::{Filter, OriginKinds, WriteQuery};

use super::selection::{Selection, Wanted};
use crate::exit::{Failure, USAGE};
use crate::headings::WRITES;
use crate::key_argument::KeyArgument;
use crate::key_selection::KeySelection;
use crate::shell::shell_word;

/// Of `--key`, where writes are chosen.
const KEY_HELP: &str = "Writes that touch keys that match this glob, as in Redis's KEYS, or may touch them (FLUSHALL); may be given several \
                        times, as may all of these options. A name without * ? [ is found without reading the whole journal, in \
                        databases 0 to 15 unless --db is given";

/// Which writes; filters of different kinds must all hold, several of one kind are alternatives.
#[derive(Debug, Args)]
#[command(
    next_help_heading = WRITES,
    mut_arg("keys", |arg| arg.help(KEY_HELP)),
    mut_arg("dbs", |arg| arg.help("Writes that touch this database"))
)]
pub(crate) struct Filters {
    #[command(flatten)]
    keys: KeySelection,
    /// This command, as it took effect or as the client sent it (DEL, EVALSHA, SPOP); upper or lower case; a glob ('FLUSH*'); with
    /// ! in front, all others.
    #[arg(long = "command", value_name = "NAME")]
    commands: Vec<String>,
    /// This client: its address, with or without the port, or its name (CLIENT SETNAME); a glob; with ! in front, all others.
    #[arg(long = "client", value_name = "X")]
    clients: Vec<String>,
    /// Clients that were logged in as this ACL user; a glob; with ! in front, all others.
    #[arg(long = "user", value_name = "U")]
    users: Vec<String>,
    /// What caused the write: client (of the proxy), expiry (a TTL had passed), eviction (memory was full), outside (a client that
    /// was connected to the server itself), unknown; a glob; with ! in front, all others.
    #[arg(long = "origin", value_name = "KIND")]
    origins: Vec<String>,
}

/// Filters of `redtape log` alone.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = WRITES)]
pub(crate) struct LogFilters {
    /// Writes that touch this field of a hash, or this member of a set or sorted set, or may touch it (DEL, SPOP). Needs a selection
    /// of keys. A field as any command of redtape prints it.
    #[arg(long = "field", value_name = "F", value_parser = KeyArgument::parser(), allow_hyphen_values = true)]
    pub(crate) fields: Vec<KeyArgument>,
    /// Writes whose command with all its arguments, separated by blanks, matches this regular expression: as bytes ((?-u:\xff)
    /// matches a byte that is not UTF-8), or as it is printed.
    #[arg(long = "grep", value_name = "RE", allow_hyphen_values = true)]
    pub(crate) lines: Vec<String>,
}

impl Filters {
    /// The same as a filter of writes, and on which keys.
    pub(crate) fn write_query(&self) -> anyhow::Result<(WriteQuery, Filter)> {
        let query = WriteQuery {
            clients: self.clients.clone(),
            users: self.users.clone(),
            commands: self.commands.clone(),
            origins: OriginKinds::of_patterns(&self.origins).map_err(|e| Failure::new(USAGE, e))?,
            ..WriteQuery::default()
        };
        Ok((query, self.keys.filter()?))
    }

    /// What they ask for.
    pub(crate) fn selection(&self) -> anyhow::Result<Selection> {
        self.selection_with(&LogFilters::default())
    }

    /// The same, together with those of `redtape log`.
    pub(crate) fn selection_with(&self, more: &LogFilters) -> anyhow::Result<Selection> {
        Selection::new(Wanted {
            keys: self.keys.filter()?,
            commands: self.commands.clone(),
            clients: self.clients.clone(),
            users: self.users.clone(),
            origins: self.origins.clone(),
            lines: more.lines.clone(),
            fields: more.fields.iter().map(|field| field.0.clone()).collect(),
        })
    }

    /// The options that choose keys, to be given again.
    pub(crate) fn key_words(&self) -> Vec<String> {
        self.keys.words()
    }

    /// All others, in the same way.
    pub(crate) fn cause_words(&self) -> Vec<String> {
        let of = |option: &'static str, values: &[String]| -> Vec<String> {
            values.iter().map(|value| format!("{option} {}", shell_word(value.as_bytes()))).collect()
        };
        let kinds = [
            of("--client", &self.clients),
            of("--user", &self.users),
            of("--command", &self.commands),
            of("--origin", &self.origins),
        ];
        kinds.concat()
    }
}
