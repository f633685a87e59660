//! The filters as arguments: the same for every command that shows writes.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use clap::{Args, ValueEnum};
use redtape_journal::OriginKind;
use redtape_journal::query::{Filter, OriginKinds, WriteQuery};

use super::selection::{Selection, Wanted};
use crate::key_selection::KeySelection;

/// Of `--key`, where writes are chosen.
const KEY_HELP: &str = "Writes that touch keys which match this glob, as in Redis's KEYS, or may do so: FLUSHALL, too. One without * ? [ \
                        is a key, and found without reading the whole journal (in databases 0 to 15, unless --db says which)";

/// Which writes; filters of different kinds must all hold, several of one kind are alternatives.
#[derive(Debug, Args)]
#[command(
    next_help_heading = "Filters (all must hold; several of one kind are alternatives)",
    mut_arg("keys", |arg| arg.help(KEY_HELP)),
    mut_arg("dbs", |arg| arg.help("Writes that touch this database"))
)]
pub(crate) struct Filters {
    #[command(flatten)]
    keys: KeySelection,
    /// This command, in any case: as it took effect, or as the client sent it (DEL, EVALSHA, SPOP). A glob is possible ('FLUSH*'),
    /// and ! in front leaves it out.
    #[arg(long = "command", value_name = "NAME")]
    commands: Vec<String>,
    /// This client: its address, with or without the port, or its name (CLIENT SETNAME). Globs are possible, and ! in front
    /// leaves it out.
    #[arg(long = "client", value_name = "X")]
    clients: Vec<String>,
    /// Clients that had logged in as this user. Globs are possible, and ! in front leaves it out.
    #[arg(long = "user", value_name = "U")]
    users: Vec<String>,
    /// Who or what caused it.
    #[arg(long = "origin", value_enum, value_name = "KIND")]
    origins: Vec<Cause>,
}

/// As in JSON output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cause {
    /// A client of the proxy.
    Client,
    /// The server, because a TTL had passed.
    Expiry,
    /// The server, because memory was full.
    Eviction,
    /// A writer that went round the proxy.
    Outside,
    /// Nobody was there to see.
    Unknown,
}

impl Filters {
    /// The same as a filter of writes, and on which keys.
    pub(crate) fn write_query(&self) -> anyhow::Result<(WriteQuery, Filter)> {
        let query = WriteQuery {
            clients: self.clients.clone(),
            users: self.users.clone(),
            commands: self.commands.clone(),
            origins: OriginKinds { wanted: self.kinds(), unwanted: Vec::new() },
            ..WriteQuery::default()
        };
        Ok((query, self.keys.filter()?))
    }

    fn kinds(&self) -> Vec<OriginKind> {
        let kind = |cause: &Cause| match cause {
            Cause::Client => OriginKind::Client,
            Cause::Expiry => OriginKind::Expiry,
            Cause::Eviction => OriginKind::Eviction,
            Cause::Outside => OriginKind::Outside,
            Cause::Unknown => OriginKind::Unknown,
        };
        self.origins.iter().map(kind).collect()
    }

    /// What they ask for.
    pub(crate) fn selection(&self) -> anyhow::Result<Selection> {
        Selection::new(Wanted {
            keys: self.keys.filter()?,
            commands: self.commands.clone(),
            clients: self.clients.clone(),
            users: self.users.clone(),
            origins: self.kinds(),
        })
    }
}
