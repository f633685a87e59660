//! A read-only server of a point in time: the scratch server in which the dataset was rebuilt, with clients let in.
//!
//! ```text
//! take the address ─► (plan) ─► dataset in a scratch server ─► only what is wanted ─► clock held ─► reading only ─► clients
//! ```
//!
//! Its clock stands at the point in time as long as it serves: nothing expires, `TTL` answers what it answered then, and a key whose TTL had
//! passed is not there. A command that waits (`XREAD BLOCK`) waits until the client gives up.
//!
//! Nothing is left, however redtape ends: the scratch server ends with it, and a process of its own removes the folder.

pub(crate) mod address;
mod forward;
mod rights;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde::Serialize;

use self::address::ServeAddress;
pub use self::forward::CLIENTS_MAX;
use self::forward::{Forwarder, listen};
use super::Target;
use super::lookup::{Scan, of_wanted_types, select};
use super::options::refuse_those_of_servers;
use super::unfinished;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::plan::{Dataset, Method, Plan};
use crate::progress::{Event, Observer, Unit};
use crate::request::Request;
use crate::source::scratch::Scratch;
use crate::source::{Located, Source};
use redtape_journal::query::Filter;

/// Between two looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A server that could begin; its address is taken.
pub struct PreparedServer {
    plan: Plan,
    source: Source,
    address: ServeAddress,
    listener: TcpListener,
    at: SocketAddr,
    filter: Filter,
    interrupt: Interrupt,
}

impl std::fmt::Debug for PreparedServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedServer").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// What is said when clients are let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// The asked point in time, UTC.
    pub at: String,
    /// What ran at that time was left out.
    pub before: bool,
    /// The last record in it.
    pub lsn: u64,
    /// Keys in each database.
    pub keys: BTreeMap<u32, u64>,
    /// Function libraries.
    pub functions: usize,
}

/// A server with clients let in.
#[derive(Debug)]
pub struct Serving {
    ready: Ready,
    interrupt: Interrupt,
    /// Before the server, so that no client is let in to one that is gone.
    _forwarder: Forwarder,
    scratch: Scratch,
}

/// Checks everything, takes the address and makes the plan.
pub fn prepare(request: &Request, observer: &mut dyn Observer) -> Result<PreparedServer, RestoreError> {
    let Target::Serve(address) = &request.to else {
        return Err(RestoreError::Usage("a server needs an address".to_owned()));
    };
    refuse_those_of_servers(request)?;
    let (listener, at) = listen(address.at())?;
    let located = Located::find(request)?;
    observer.on(&Event::Resolved(&located.point));
    let mut source = located.check(request, observer)?;
    let binary = source.find_any_binary(request.server_bin.as_deref())?;
    let dataset = Dataset {
        point: &source.point,
        rdb: source.rdb.version,
        range: &source.facts,
        filter: &request.filter,
        base_bytes: source.base_bytes(),
        slice: source.slice.as_ref(),
    };
    let reason = "clients read what a scratch server holds".to_owned();
    let functions = request.filter.is_everything();
    let mut plan = dataset.plan((Method::Serve, reason), functions, Some(&binary));
    plan.target = at.to_string();
    plan.target_version = format!("{}, read-only", binary.version);
    source.binary = Some(binary);
    observer.on(&Event::Planned(&plan));
    let (filter, interrupt) = (request.filter.clone(), request.interrupt.clone());
    Ok(PreparedServer { plan, source, address: address.clone(), listener, at, filter, interrupt })
}

impl PreparedServer {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Rebuilds the dataset and lets clients in. The calling thread has to live as long as it serves.
    pub fn start(self, observer: &mut dyn Observer) -> Result<Serving, RestoreError> {
        let Self { plan, source, address, listener, at, filter, interrupt } = self;
        let (mut scratch, _) = source.rebuild(observer)?;
        scratch.remove_when_killed();
        let keys = keep_wanted(&mut scratch, &filter, &interrupt, observer)?;
        let functions = scratch.server.functions()?.unwrap_or(0);
        scratch.hold_at(source.point.clock)?;
        // Of what the loading has said, nothing is left that a client would have to see.
        rights::restrict(&mut scratch.server, address.password())?;
        let forwarder = Forwarder::start(listener, &scratch.socket())?;
        let ready = Ready { address: at, at: plan.at, before: plan.before, lsn: plan.lsn.0, keys, functions };
        Ok(Serving { ready, interrupt, _forwarder: forwarder, scratch })
    }
}

impl Serving {
    /// Where, and what.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Serves until the request's interrupt is set. Fails when the server has ended by itself.
    pub fn wait(mut self) -> Result<(), RestoreError> {
        while !self.interrupt.is_set() {
            self.scratch.check_alive()?;
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

/// Takes out what is not wanted: the replay may have needed other keys. Returns what is left in each database.
fn keep_wanted(
    scratch: &mut Scratch,
    filter: &Filter,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<BTreeMap<u32, u64>, RestoreError> {
    scratch.hold()?;
    let has_functions = scratch.version.has_redis(7, 0);
    let server = &mut scratch.server;
    // What a restore of the recorded server left there to be found is no data.
    select(server, 0)?;
    server.call(&["DEL", unfinished::KEY])?;
    if filter.is_everything() {
        return Ok(server.info(Some("keyspace"))?.keyspace());
    }
    if has_functions {
        server.call(&["FUNCTION", "FLUSH", "SYNC"])?;
    }
    let keyspace = server.info(Some("keyspace"))?.keyspace();
    observer.on(&Event::Step { name: "selecting", total: keyspace.values().sum(), unit: Unit::Keys });
    let mut seen = 0u64;
    for db in keyspace.into_keys() {
        let mut scan = Scan::new(db);
        while let Some(keys) = scan.next(server)? {
            interrupt.check()?;
            seen += keys.len() as u64;
            let (named, mut unwanted): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| filter.wants(db, key));
            if filter.looks_at_types() {
                let all = named.clone();
                let kept: std::collections::HashSet<Vec<u8>> =
                    of_wanted_types(filter, named, server)?.into_iter().map(|(key, _)| key).collect();
                unwanted.extend(all.into_iter().filter(|key| !kept.contains(key)));
            }
            if !unwanted.is_empty() {
                unwanted.insert(0, b"UNLINK".to_vec());
                server.call(&unwanted)?;
            }
            observer.on(&Event::At(seen));
        }
    }
    observer.on(&Event::StepDone);
    let left = server.info(Some("keyspace"))?.keyspace();
    if left.is_empty() {
        let message =
            format!("there is nothing to serve: the selection ({filter}) matches no key at that point in time");
        return Err(RestoreError::Unable(message));
    }
    Ok(left)
}
