//! A running server as the target: looked at before the plan is made, then restored to by the plan's method.
//!
//! Invariants: the target is claimed, looked at once more, and known to have room for the data, before the first write to it; what was
//! begun and failed is undone or marked as unfinished; success is reported only of what was seen in the target at the end.

mod afterwards;
pub(crate) mod blame;
mod by_copy;
mod by_link;
mod by_repair;
mod digest;
mod functions;
mod marks;
mod room;

use std::time::Duration;

use redtape_net::Connector;

pub(crate) use self::by_repair::{Looked, expected};
pub(crate) use self::marks::Marks;
pub(crate) use self::room::check_repair;

use super::claim;
use super::memory::MemoryState;
use super::preflight::{TargetFacts, contents, unknown_commands};
pub(crate) use super::restored::Restored;
use super::unfinished::{Marker, PutMarker};
use crate::client::{CommandNames, Server};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::plan::{Method, Plan};
use crate::progress::{Event, Observer};
use crate::request::Request;
use crate::source::Source;
use redtape_journal::query::Filter;

/// Said of a server whose disk holds nothing of it.
pub(crate) const NOT_PERSISTENT: &str =
    "the target persists nothing (save \"\", appendonly no): a restart loses what was restored";

/// A server that data is restored to.
pub(crate) struct ServerTarget {
    /// What was found before the plan was made.
    pub(crate) facts: TargetFacts,
    pub(crate) server: Server,
    pub(crate) filter: Filter,
    /// Everything is wanted, and nothing may be in it.
    whole: bool,
    /// What it holds makes room.
    replaces_all: bool,
    accept_eviction: bool,
    interrupt: Interrupt,
}

/// The marker; where there is none, a note says what that means.
pub(crate) fn marker_or_note(put: PutMarker, observer: &mut dyn Observer) -> Option<Marker> {
    match put {
        PutMarker::Written(marker) => Some(marker),
        PutMarker::NotAllowed(why) => {
            observer.on(&Event::Note(&format!(
                "no marker of this restore can be left in the target ({why}): if it is killed, nothing there tells of it"
            )));
            None
        }
    }
}

/// What is wanted of a server, before anything is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) filter: Filter,
    /// Everything is wanted, and nothing may be in it.
    pub(crate) whole: bool,
    pub(crate) accept_eviction: bool,
    pub(crate) interrupt: Interrupt,
    /// What it holds beside that goes.
    pub(crate) replaces_all: bool,
    /// Longest wait for a reply.
    pub(crate) reply_limit: Duration,
}

impl From<&Request> for Wish {
    fn from(request: &Request) -> Self {
        Self {
            filter: request.filter.clone(),
            whole: request.is_whole(),
            replaces_all: request.replaces_all(),
            accept_eviction: request.accept_eviction,
            interrupt: request.interrupt.clone(),
            reply_limit: request.limits.reply,
        }
    }
}

impl ServerTarget {
    /// Connects and looks at it; changes nothing.
    pub(crate) fn open(connector: Connector, names: CommandNames, wish: Wish) -> Result<Self, RestoreError> {
        let mut server = Server::open(connector, names)?;
        server.set_reply_limit(wish.reply_limit)?;
        // Reading the journal, a person's answer, and the replay in a scratch server may each take long.
        server.keep_alive()?;
        let facts = TargetFacts::read(&mut server)?;
        if facts.cluster {
            server.set_in_cluster();
        }
        let Wish { filter, whole, accept_eviction, interrupt, replaces_all, .. } = wish;
        Ok(Self { facts, server, filter, whole, replaces_all, accept_eviction, interrupt })
    }

    /// What ends it when it is set.
    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Finds out which of the commands to replay it does not know.
    pub(crate) fn look_up_commands<'a>(
        &mut self,
        names: impl Iterator<Item = &'a Vec<u8>>,
    ) -> Result<(), RestoreError> {
        self.facts.unknown_commands = unknown_commands(&mut self.server, names)?;
        Ok(())
    }

    /// Rebuilds the dataset and compares it with what the target holds; changes nothing.
    pub(crate) fn look(
        &mut self,
        source: &Source,
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<Looked, RestoreError> {
        by_repair::look(self, source, request, observer).map_err(RestoreError::before_the_target)
    }

    /// Restores by the plan's method. `looked`: wanted keys go into a target that holds others.
    pub(crate) fn restore(
        &mut self,
        plan: &Plan,
        source: &Source,
        looked: Option<Looked>,
        observer: &mut dyn Observer,
    ) -> Result<Restored, RestoreError> {
        self.claim().map_err(RestoreError::before_the_target)?;
        let mut restored = match (plan.method, looked) {
            (_, Some(looked)) => by_repair::restore(self, plan, source, looked, observer)?,
            (Method::Link, None) => by_link::restore(self, source, observer)?,
            (Method::LinkFromScratch, None) => by_link::restore_from_scratch(self, source, observer)?,
            (Method::Scratch, None) => by_copy::restore(self, plan, source, observer)?,
            (Method::Serve, None) => return Err(RestoreError::Usage("nothing is served to a server".to_owned())),
        };
        if self.facts.limits.persists == Some(false) {
            restored.warnings.push(NOT_PERSISTENT.to_owned());
        }
        // The next restore need not wait until the server sees the end of our connection.
        let _ = self.server.clear_name();
        Ok(restored)
    }

    /// Takes the target for this restore, and looks whether it is still what the plan was made for.
    ///
    /// Done again after the loading of a scratch server: the target was idle, it may have closed the connection, and with it
    /// went our name.
    pub(crate) fn claim(&mut self) -> Result<(), RestoreError> {
        self.server.ensure_connected()?;
        claim::take(&mut self.server, &self.interrupt)?;
        self.recheck()
    }

    /// The target may have changed since the plan was made: the user was asked, or a scratch server was loaded.
    fn recheck(&mut self) -> Result<(), RestoreError> {
        let info = self.server.info(None)?;
        let address = self.server.address.clone();
        if info.get("role") != Some("master") {
            return Err(RestoreError::Unable(format!(
                "{address} has become a replica of {}:{} since the plan was made; nothing was changed",
                info.get("master_host").unwrap_or("?"),
                info.get("master_port").unwrap_or("?")
            )));
        }
        if self.whole
            && let Some(found) = contents(&info.keyspace(), self.server.functions()?.unwrap_or(0))
        {
            return Err(RestoreError::NotEmpty { address, found });
        }
        Ok(())
    }
}

/// A server that has made room for what came.
fn evicted_warning(memory: &MemoryState, evicted: u64, gone: u64) -> String {
    format!(
        "the target has evicted {evicted} keys meanwhile (maxmemory-policy {}); {gone} of the restored ones are not there any more",
        memory.policy
    )
}

/// A server that keeps what it has and takes no more.
pub(crate) fn full_warning(memory: &MemoryState) -> Option<String> {
    (memory.is_over() && !memory.evicts()).then(|| {
        format!(
            "everything is there, but the target uses {} bytes of its maxmemory of {}: it refuses writes until that is raised",
            memory.used,
            memory.limit.unwrap_or(0)
        )
    })
}
