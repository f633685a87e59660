//! Acting as the master of a server: full sync, stream, check, promotion.
//!
//! ```text
//! listen ─► REPLICAOF us ─► still empty? ─► RDB ─► groups ─► ACK ≥ sent ─► INFO agrees ─► REPLICAOF NO ONE
//! ```
//!
//! Invariants:
//! - From `REPLICAOF` to the promotion the target is a read-only replica: no client writes to it.
//! - It is promoted only after it has acknowledged every byte, its link is up, its offset equals redtape's and it has
//!   counted no error. A failure before that is undone: the target is detached, and emptied if it received data.
//! - After `REPLICAOF` the target is checked again, so no client can write between the check for emptiness and the
//!   first byte of data.
//!   again after `REPLICAOF`.
//!
//! An interrupted restore is undone as well. After a kill the target stays a read-only replica of a master that is
//! gone.

pub(crate) mod absolute;
mod acks;
pub(crate) mod encode;
mod expired;
mod handshake;
mod listener;
mod sender;
mod undo;

use std::collections::BTreeMap;
use std::io::Read;

use redtape_journal::Group;

use crate::client::{Info, Reply, Server};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::random;
use crate::source::clock::{AT_REST, ClockFile, Pace, SETTLE};
use crate::source::journal_range::ReplaySource;
use crate::target::memory::MemoryState;
use crate::target::preflight::contents;
pub use handshake::Expected;
use listener::Listener;
use sender::{Sender, unexpected_errors};

/// What is sent.
pub struct Payload<'a> {
    /// The base.
    pub rdb: Box<dyn Read + 'a>,
    /// Its length.
    pub rdb_bytes: u64,
    /// What follows it.
    pub replay: &'a dyn ReplaySource,
    /// How many records that is, for the progress.
    pub records: u64,
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload")
            .field("rdb_bytes", &self.rdb_bytes)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// The server that receives it.
#[derive(Debug)]
pub struct Replica<'a> {
    /// The server, as a client sees it.
    pub server: &'a mut Server,
    /// What it shows in the handshake.
    pub expected: Expected,
    /// Its clock, if redtape holds it.
    pub clock: Option<&'a ClockFile>,
    /// It may evict keys after its promotion.
    pub accept_eviction: bool,
    /// Checked until the promotion.
    pub interrupt: &'a Interrupt,
}

/// A server just before its promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Keys in each database, those whose TTL has passed included.
    pub keys: BTreeMap<u32, u64>,
    /// Function libraries.
    pub functions: usize,
    /// Of these keys, how many had a TTL that has passed; `None` = the server does not allow to count them.
    pub expired: Option<u64>,
    /// Bytes of the stream.
    pub stream_bytes: u64,
    /// Identifies the server's run.
    pub run_id: String,
    /// Its memory.
    pub memory: MemoryState,
    /// The server counts errors of its link, and counted none.
    pub errors_counted: bool,
}

/// Looks at a server just before its promotion, and may refuse it.
pub type Check<'a> = dyn FnMut(&mut Server, &Delivered) -> Result<(), RestoreError> + 'a;

/// Sends a dataset to a server and promotes it; `check` runs just before the promotion. What was begun and failed is undone.
pub fn deliver(
    replica: Replica<'_>,
    mut payload: Payload<'_>,
    observer: &mut dyn Observer,
    check: &mut Check<'_>,
) -> Result<Delivered, RestoreError> {
    replica.interrupt.check()?;
    let usual_limit = replica.server.reply_limit();
    let listener = Listener::open(replica.server.url())?;
    let address = listener.address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    match replica.server.try_call(&["REPLICAOF", &host, &port]) {
        Ok(Reply::Value(_)) => {}
        Ok(Reply::Error(reply)) => {
            return Err(RestoreError::Undone {
                cause: Box::new(replica.server.refused("REPLICAOF", &reply)),
                aftermath: "Nothing was changed; --via scratch needs no REPLICAOF".to_owned(),
            });
        }
        // It may have succeeded anyway.
        Err(cause) => return Err(undo::undo(replica.server, cause, false, address)),
    }
    let mut delivery = Delivery { replica, listener, holds_data: false };
    let result = delivery.run(&mut payload, observer, check);
    let Delivery { replica: Replica { server, clock, .. }, holds_data, .. } = delivery;
    match result {
        Ok(delivered) => {
            server.set_reply_limit(usual_limit)?;
            Ok(delivered)
        }
        // A server whose clock redtape holds is thrown away.
        Err(cause) if clock.is_some() => Err(cause),
        Err(cause) => {
            if matches!(cause, RestoreError::Interrupted) {
                observer.on(&Event::StepDone);
                observer.on(&Event::Note(
                    "interrupted: the target is detached and emptied; where it still loads the base, after that",
                ));
            }
            Err(undo::undo(server, cause, holds_data, address))
        }
    }
}

/// A server that was told to follow us, up to its promotion.
struct Delivery<'a> {
    replica: Replica<'a>,
    listener: Listener,
    /// From here on it may hold data from us, which an undo has to remove.
    holds_data: bool,
}

impl Delivery<'_> {
    fn run(
        &mut self,
        payload: &mut Payload<'_>,
        observer: &mut dyn Observer,
        check: &mut Check<'_>,
    ) -> Result<Delivered, RestoreError> {
        let Replica { server, expected, clock, accept_eviction, interrupt } = &mut self.replica;
        let connection = self.listener.wait(expected, interrupt)?;
        let before = info_of_empty(server)?;
        let errors_before = unexpected_errors(&before);
        self.holds_data = true;
        let mut sender = Sender::begin(server, connection, &fresh_replid(), interrupt)?;
        send_base(&mut sender, payload, clock.is_some(), observer)?;
        observer.on(&Event::Step { name: "replaying the journal", total: payload.records, unit: Unit::Records });
        let records = replay(&mut sender, payload.replay, *clock, observer)?;
        check_records(records, payload.records)?;
        observer.on(&Event::StepDone);
        // Where redtape holds the clock nothing expires.
        let mut expired = Some(0);
        if let Some(clock) = clock {
            clock.set(AT_REST)?;
            std::thread::sleep(SETTLE);
        } else {
            expired = expired::count(&mut sender, observer)?;
        }
        let info = sender.check(errors_before)?;
        let memory = check_memory(&sender.server.address, &info, MemoryState::of(&before).evicted, *accept_eviction)?;
        let delivered = Delivered {
            keys: info.keyspace(),
            functions: sender.server.functions()?.unwrap_or(0),
            expired,
            stream_bytes: sender.encoder.offset(),
            run_id: info.get("run_id").unwrap_or_default().to_owned(),
            memory,
            errors_counted: errors_before.is_some(),
        };
        check(sender.server, &delivered)?;
        interrupt.check()?;
        sender.server.call(&["REPLICAOF", "NO", "ONE"])?;
        Ok(delivered)
    }
}

/// `INFO` of a server that is still empty, when no client can write to it any more.
fn info_of_empty(server: &mut Server) -> Result<Info, RestoreError> {
    let info = server.info(None)?;
    match contents(&info.keyspace(), server.functions()?.unwrap_or(0)) {
        None => Ok(info),
        Some(found) => Err(RestoreError::NotEmpty { address: server.address.clone(), found }),
    }
}

/// Sends the base and waits until it is loaded. `holds_clock`: the server's clock is about to move by years.
fn send_base(
    sender: &mut Sender<'_>,
    payload: &mut Payload<'_>,
    holds_clock: bool,
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    observer.on(&Event::Step { name: "sending the base", total: payload.rdb_bytes, unit: Unit::Bytes });
    sender.send_rdb(&mut *payload.rdb, payload.rdb_bytes, observer)?;
    observer.on(&Event::StepDone);
    observer.on(&Event::Step { name: "waiting for the server to load it", total: 100, unit: Unit::Percent });
    sender.wait_loaded(observer)?;
    if holds_clock {
        sender.let_the_clock_jump()?;
    }
    observer.on(&Event::StepDone);
    Ok(())
}

/// The target has kept every key so far, and will after its promotion. Pure.
fn check_memory(
    address: &str,
    info: &Info,
    evicted_before: u64,
    accept_eviction: bool,
) -> Result<MemoryState, RestoreError> {
    let memory = MemoryState::of(info);
    let evicted = memory.evicted.saturating_sub(evicted_before);
    if evicted > 0 {
        let meant = info.keyspace().values().sum::<u64>() + evicted;
        return Err(RestoreError::Lost {
            address: address.to_owned(),
            lost: evicted,
            meant,
            why: memory.advice(evicted),
        });
    }
    if memory.is_over() && memory.evicts() && !accept_eviction {
        return Err(RestoreError::TooSmall {
            address: address.to_owned(),
            used: memory.used,
            limit: memory.limit.unwrap_or(0),
            policy: memory.policy,
        });
    }
    Ok(memory)
}

/// The replay must have the number of records that was planned. Pure.
fn check_records(records: u64, planned: u64) -> Result<(), RestoreError> {
    if records == planned {
        return Ok(());
    }
    Err(RestoreError::Link(format!(
        "the journal gave {records} records where it had given {planned} when the plan was made: it has changed meanwhile"
    )))
}

/// Sends the groups, the clock before each, and waits until all are processed. Returns how many records they held.
fn replay(
    sender: &mut Sender<'_>,
    range: &dyn ReplaySource,
    clock: Option<&ClockFile>,
    observer: &mut dyn Observer,
) -> Result<u64, RestoreError> {
    const TELL_EVERY: u64 = 4096;
    let mut pace = Pace::new(AT_REST);
    let mut records = 0;
    for (n, group) in (1u64..).zip(range.groups()) {
        let group = group?;
        if let Some(clock) = clock {
            keep_pace(sender, &mut pace, clock, &group)?;
        }
        sender.send_group(&group)?;
        records += group.records.len() as u64;
        if n % TELL_EVERY == 0 {
            observer.on(&Event::At(records));
        }
    }
    observer.on(&Event::At(records));
    sender.barrier()?;
    Ok(records)
}

fn keep_pace(sender: &mut Sender<'_>, pace: &mut Pace, clock: &ClockFile, group: &Group) -> Result<(), RestoreError> {
    if let Some(step) = pace.before(group) {
        if step.barrier {
            sender.barrier()?;
        }
        clock.set(step.to)?;
        if step.barrier {
            std::thread::sleep(SETTLE);
        }
    }
    Ok(())
}

/// A new, random replication id.
fn fresh_replid() -> String {
    /// As many digits as Redis's own (`CONFIG_RUN_ID_SIZE`).
    const DIGITS: usize = 40;
    random::hex(DIGITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_gives_less_than_before_is_noticed() {
        check_records(0, 0).expect("nothing of nothing");
        check_records(7, 7).expect("as many");
        for records in [0, 6, 8] {
            let error = check_records(records, 7).expect_err("another number").to_string();
            assert!(error.contains(&format!("{records} records where it had given 7")), "{error}");
        }
    }
}
