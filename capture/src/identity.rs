//! Which server this journal records, and whether the one that is found may be recorded in it.
//!
//! | the server that is found | |
//! | --- | --- |
//! | has a history that the journal has recorded, or is the process that it recorded last | known |
//! | has another one, at the address that the journal recorded last | replaced: recorded in a new timeline, with an alarm |
//! | has another one, at another address | unrelated: refused, unless `accept-new-history` is set |
//!
//! A server that loses its data and comes back empty must be recorded; a wrong `--upstream` must not, since retention would let
//! the real history go for it. A server that loads its data does not know its history yet: it is asked again when it has
//! loaded them.

use std::fmt;
use std::path::Path;

use redtape_journal::{Catalog, KnownServers, Micros, PreviousHistory, ReplOffset, ServerIdentity, StoreError};
use redtape_wire::url::RedisUrl;

/// What the server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// `redis` or `valkey`.
    pub software: String,
    /// Its version.
    pub version: String,
    /// `master_replid`: which history it has.
    pub replid: String,
    /// `master_replid2` and `second_repl_offset`: which history it continues, and up to where that one is its own.
    pub previous: Option<(String, ReplOffset)>,
    /// `master_repl_offset`.
    pub offset: ReplOffset,
    /// `run_id`: which process it is.
    pub run_id: String,
    /// It follows no other server.
    pub is_primary: bool,
    /// It reads its data from the disk: it may not know its history yet.
    pub is_loading: bool,
    /// `repl_backlog_size` in bytes.
    pub backlog_bytes: u64,
    /// A node of a cluster (`redis_mode`, in Valkey `server_mode`).
    pub cluster: bool,
}

/// What the journal knows of servers.
#[derive(Debug, Default)]
pub struct Recorded {
    servers: KnownServers,
    /// Histories of timelines: a journal may have lost the file in which its servers stand.
    histories: Vec<String>,
    /// The address with which the journal was created.
    source: Option<String>,
}

/// What is to be done with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The journal has recorded nothing yet.
    First,
    /// It records this one.
    Known,
    /// Another history at the same address.
    Replaced(Mismatch),
    /// Another server, which the operator has allowed to be recorded.
    Accepted(Mismatch),
    /// Another server.
    Unrelated(Mismatch),
}

/// The server that is recorded and the one that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    recorded: Named,
    found: Named,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    address: String,
    replid: String,
    run_id: String,
    seen: Option<Micros>,
}

impl Named {
    fn of(server: &ServerIdentity) -> Self {
        let ServerIdentity { run_id, replid, address, seen, .. } = server;
        Self { address: address.clone(), replid: replid.clone(), run_id: run_id.clone(), seen: Some(*seen) }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &'static str, value: &str| if value.is_empty() { text.to_owned() } else { value.to_owned() };
        write!(f, "{} (replication id {}", or("a server", &self.address), or("unknown", &self.replid))?;
        if !self.run_id.is_empty() {
            write!(f, ", run id {}", self.run_id)?;
        }
        if let Some(seen) = self.seen {
            write!(f, ", seen {seen}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the journal records {}, and this is {}", self.recorded, self.found)
    }
}

/// The server as the journal keeps it.
pub(crate) fn identity(facts: &ServerFacts, address: String) -> ServerIdentity {
    ServerIdentity {
        run_id: facts.run_id.clone(),
        replid: facts.replid.clone(),
        offset: facts.offset,
        previous: facts.previous.clone().map(|(replid, until)| PreviousHistory { replid, until }),
        address,
        seen: Micros::now(),
        accepted: false,
    }
}

/// The same process, which has begun a history of its own, as one does whose backlog has expired: its data are what they were.
pub(crate) fn is_same_process(before: &ServerIdentity, now: &ServerFacts) -> bool {
    !now.run_id.is_empty() && now.run_id == before.run_id && now.is_primary && now.previous.is_none()
}

impl Recorded {
    /// Reads what is there; a directory that is no journal yet has recorded nothing.
    pub fn load(dir: &Path) -> Result<Self, StoreError> {
        let servers = KnownServers::load(dir)?;
        for at in servers.damaged() {
            tracing::warn!(offset = at, "the file `server` of the journal has a damaged line; it is left out");
        }
        let (mut histories, mut source) = (Vec::new(), None);
        // What is in the file is in it before a timeline says it. A directory that is no journal, or that cannot be read, is
        // reported when it is opened.
        let incomplete = servers.latest().is_none() || !servers.damaged().is_empty();
        if let Some(catalog) = incomplete.then(|| Catalog::open(dir).ok()).flatten() {
            histories = catalog.timelines().iter().flat_map(|t| t.source_ids().map(str::to_owned)).collect();
            source = catalog.meta().source.parse::<RedisUrl>().ok().map(|url| url.address());
        }
        histories.retain(|id| !id.is_empty());
        Ok(Self { servers, histories, source })
    }

    /// Decides; `facts` are of the server that was found.
    pub fn judge(&self, facts: &ServerFacts, address: &str, accept: bool) -> Judgement {
        let found = identity(facts, address.to_owned());
        let latest = self.servers.latest();
        if latest.is_none() && self.histories.is_empty() {
            return Judgement::First;
        }
        let of_a_timeline = |id: &str| self.histories.iter().any(|known| known == id);
        let known = self.servers.known(&found).is_some()
            || of_a_timeline(&found.replid)
            || found.previous.as_ref().is_some_and(|p| of_a_timeline(&p.replid))
            || latest.is_some_and(|latest| is_same_process(latest, facts));
        if known {
            return Judgement::Known;
        }
        let address_then = latest.map(|l| l.address.as_str()).or(self.source.as_deref());
        let recorded = latest.map_or_else(
            || Named {
                address: self.source.clone().unwrap_or_default(),
                replid: self.histories.last().cloned().unwrap_or_default(),
                run_id: String::new(),
                seen: None,
            },
            Named::of,
        );
        let mismatch = Mismatch { recorded, found: Named { seen: None, ..Named::of(&found) } };
        match (address_then == Some(address), accept) {
            (true, _) => Judgement::Replaced(mismatch),
            (false, true) => Judgement::Accepted(mismatch),
            (false, false) => Judgement::Unrelated(mismatch),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
