//! Where a dataset goes: how a server is reached, and what its commands are called; which file is written.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use redtape_net::Connector;
use redtape_net::tls::{ClientTls, OptionNames};
use redtape_wire::url::{RedisUrl, UrlError};
use serde::Serialize;

use crate::client::CommandNames;
use crate::error::RestoreError;

/// A running server that data is to go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// Where, and as whom.
    pub url: RedisUrl,
    /// Whom to trust there, and what to show, where the URL says `rediss://`.
    pub tls: ClientTls,
    /// Commands that have other names there.
    pub commands: CommandNames,
}

impl From<RedisUrl> for ServerAddress {
    fn from(url: RedisUrl) -> Self {
        let tls = ClientTls { names: OptionNames::TARGET, ..ClientTls::default() };
        Self { url, tls, commands: CommandNames::default() }
    }
}

impl FromStr for ServerAddress {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Ok(url.parse::<RedisUrl>()?.into())
    }
}

impl ServerAddress {
    /// Reads the files for TLS. Refuses what cannot name a target.
    pub(crate) fn connector(&self) -> Result<Connector, RestoreError> {
        if self.url.db != 0 {
            return Err(RestoreError::Usage(
                "the target's URL names a database; leave it out: keys go to the databases they come from (--db chooses some)"
                    .to_owned(),
            ));
        }
        let unused = ClientTls { names: self.tls.names, ..ClientTls::default() };
        if !self.url.tls && self.tls != unused {
            return Err(RestoreError::Usage(format!(
                "the --to-tls-* options have no effect with {}; use rediss://, or take them out",
                self.url.address()
            )));
        }
        Connector::new(self.url.clone(), &self.tls).map_err(|e| RestoreError::Usage(e.to_string()))
    }
}

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileFormat {
    /// What servers load.
    Rdb,
    /// A folder that servers start from with `appendonly yes`.
    Aof,
    /// One JSON object a line.
    #[serde(rename = "jsonl")]
    JsonLines,
}

/// Where a file goes, or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A file or folder that does not exist yet.
    Path(PathBuf),
    /// Standard output: only JSON lines.
    Stdout,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("-"),
        }
    }
}

/// A file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAddress {
    /// Its form.
    pub format: FileFormat,
    /// Where to.
    pub to: Output,
    /// Of an append-only file: the history since the base is in it.
    pub history: bool,
}
