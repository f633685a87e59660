//! How a target is reached, and what its commands are called.

use std::str::FromStr;

use redtape_net::Connector;
use redtape_net::tls::{ClientTls, OptionNames};
use redtape_wire::url::{RedisUrl, UrlError};

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
