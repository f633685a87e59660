//! Acting as the master of a server: full sync, stream, check, promotion.
//!
//! ```text
//! listen ─► REPLICAOF us ─► still empty? ─► RDB ─► groups ─► ACK ≥ sent ─► INFO agrees ─► REPLICAOF NO ONE
//! ```
//!
//! Invariants:
//! - From `REPLICAOF` to the promotion the target is a read-only replica: nobody else writes to it.
//! - It is promoted only after it has acknowledged every byte, its link is up, its offset is ours and it
//!   has counted no error. Everything before that is undone: detached, and emptied if it was fed at all.
//! - Between the target's emptiness and the first byte of data nobody can write: it is looked at
//!   again after `REPLICAOF`.
//!
//! Interrupted in the middle, it is undone as well. Killed in the middle, the target stays a read-only replica of a master that is gone.

mod absolute;
mod accept;
mod acks;
mod encode;
mod feed;
mod handshake;

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use redtape_journal::Group;

use crate::clock::{AT_REST, ClockFile, Pace, SETTLE};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::preflight::contents;
use crate::progress::{Event, Observer, Unit};
use crate::server::{REPLY_LIMIT, Server};
use crate::tape::Tape;
use accept::Door;
use feed::{Feed, unexpected_errors};
pub use handshake::Expected;

/// What is sent.
pub struct Load<'a> {
    /// The base.
    pub rdb: &'a mut dyn Read,
    /// Its length.
    pub rdb_bytes: u64,
    /// What follows it.
    pub tape: &'a dyn Tape,
    /// How many records that is, for the progress.
    pub records: u64,
}

impl std::fmt::Debug for Load<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load")
            .field("rdb_bytes", &self.rdb_bytes)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// Who is fed.
#[derive(Debug)]
pub struct Replica<'a> {
    /// The server, as a client sees it.
    pub server: &'a mut Server,
    /// What it shows in the handshake.
    pub expected: Expected,
    /// Its clock, if redtape holds it.
    pub clock: Option<&'a ClockFile>,
    /// Looked at until the promotion.
    pub interrupt: &'a Interrupt,
}

/// A server just before its promotion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Keys in each database, those whose TTL has passed included.
    pub keys: BTreeMap<u32, u64>,
    /// Function libraries.
    pub functions: usize,
    /// Bytes of the stream.
    pub stream_bytes: u64,
    /// The server counts errors of its link, and counted none.
    pub errors_counted: bool,
}

/// Feeds a server and promotes it. `check` runs just before the promotion.
pub fn deliver(
    replica: Replica<'_>,
    load: &mut Load<'_>,
    observer: &mut dyn Observer,
    check: &mut dyn FnMut(&mut Server, &Delivered) -> Result<(), RestoreError>,
) -> Result<Delivered, RestoreError> {
    let Replica { server, expected, clock, interrupt } = replica;
    interrupt.check()?;
    let door = Door::open(server.url())?;
    let (host, port) = (door.address().ip().to_string(), door.address().port().to_string());
    server.call(&["REPLICAOF", &host, &port]).map_err(|cause| RestoreError::Undone {
        cause: Box::new(cause),
        aftermath: "Nothing was changed; --via scratch needs no REPLICAOF".to_owned(),
    })?;
    let mut fed = false;
    let result = attached(server, &door, &expected, clock, interrupt, load, observer, &mut fed, check);
    match result {
        Ok(delivered) => Ok(delivered),
        // A server whose clock is ours is thrown away.
        Err(cause) if clock.is_some() => Err(cause),
        Err(cause) => {
            if matches!(cause, RestoreError::Interrupted) {
                observer.on(&Event::StepDone);
                observer.on(&Event::Note(
                    "interrupted: the target is detached and emptied; where it still loads the base, after that",
                ));
            }
            Err(undo(server, cause, fed))
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "one step of `deliver`, apart only for the undo")]
fn attached(
    server: &mut Server,
    door: &Door,
    expected: &Expected,
    clock: Option<&ClockFile>,
    interrupt: &Interrupt,
    load: &mut Load<'_>,
    observer: &mut dyn Observer,
    fed: &mut bool,
    check: &mut dyn FnMut(&mut Server, &Delivered) -> Result<(), RestoreError>,
) -> Result<Delivered, RestoreError> {
    let guest = door.wait(expected, interrupt)?;
    let before = server.info(None)?;
    if let Some(found) = contents(&before.keyspace(), server.functions()?.unwrap_or(0)) {
        return Err(RestoreError::NotEmpty { address: server.address.clone(), found });
    }
    let errors_before = unexpected_errors(&server.info(Some("stats"))?);
    *fed = true;
    let mut feed = Feed::begin(server, guest, &fresh_replid(), interrupt)?;
    observer.on(&Event::Step { name: "sending the base", total: load.rdb_bytes, unit: Unit::Bytes });
    feed.send_rdb(load.rdb, load.rdb_bytes, observer)?;
    observer.on(&Event::StepDone);
    observer.on(&Event::Step { name: "waiting for the server to load it", total: 100, unit: Unit::Percent });
    feed.wait_loaded(observer)?;
    if clock.is_some() {
        feed.let_the_clock_jump()?;
    }
    observer.on(&Event::StepDone);
    observer.on(&Event::Step { name: "replaying the journal", total: load.records, unit: Unit::Records });
    replay(&mut feed, load.tape, clock, observer)?;
    observer.on(&Event::StepDone);
    if let Some(clock) = clock {
        clock.set(AT_REST)?;
        std::thread::sleep(SETTLE);
    }
    feed.check(errors_before)?;
    let stream_bytes = feed.encoder.offset();
    let keys = feed.server.info(Some("keyspace"))?.keyspace();
    let functions = feed.server.functions()?.unwrap_or(0);
    let delivered = Delivered { keys, functions, stream_bytes, errors_counted: errors_before.is_some() };
    check(feed.server, &delivered)?;
    interrupt.check()?;
    feed.server.call(&["REPLICAOF", "NO", "ONE"])?;
    feed.server.set_reply_limit(REPLY_LIMIT)?;
    Ok(delivered)
}

/// Sends the groups, the clock before each, and waits until all are processed.
fn replay(
    feed: &mut Feed<'_>,
    tape: &dyn Tape,
    clock: Option<&ClockFile>,
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    const TELL_EVERY: u64 = 4096;
    let mut pace = Pace::new(AT_REST);
    let mut records = 0;
    for (n, group) in (1u64..).zip(tape.groups()) {
        let group = group?;
        if let Some(clock) = clock {
            keep_pace(feed, &mut pace, clock, &group)?;
        }
        feed.send_group(&group)?;
        records += group.records.len() as u64;
        if n % TELL_EVERY == 0 {
            observer.on(&Event::At(records));
        }
    }
    observer.on(&Event::At(records));
    feed.barrier()
}

fn keep_pace(feed: &mut Feed<'_>, pace: &mut Pace, clock: &ClockFile, group: &Group) -> Result<(), RestoreError> {
    if let Some(step) = pace.before(group) {
        if step.barrier {
            feed.barrier()?;
        }
        clock.set(step.to)?;
        if step.barrier {
            std::thread::sleep(SETTLE);
        }
    }
    Ok(())
}

/// Detaches a server that was not promoted, and empties it if it got any data from us.
fn undo(server: &mut Server, cause: RestoreError, fed: bool) -> RestoreError {
    let mut run = || -> Result<(), RestoreError> {
        // The connection may be what failed.
        if server.info(Some("server")).is_err() {
            server.reconnect()?;
        }
        server.set_reply_limit(REPLY_LIMIT)?;
        detach(server)?;
        if fed {
            server.call(&["FLUSHALL"])?;
            // Unknown before 7.0, where there is nothing to flush either.
            let _ = server.try_call(&["FUNCTION", "FLUSH"])?;
        }
        Ok(())
    };
    let aftermath = match (run(), fed) {
        (Ok(()), true) => "The target was detached and emptied again".to_owned(),
        (Ok(()), false) => "The target was detached again; nothing was written to it".to_owned(),
        (Err(e), _) => format!(
            "The target could not be put back ({e}): it may still be a read-only replica with a part of the data. Run REPLICAOF NO ONE and FLUSHALL on it before anything else"
        ),
    };
    RestoreError::Undone { cause: Box::new(cause), aftermath }
}

/// `REPLICAOF NO ONE`, which a server that is still loading our base takes only afterwards.
fn detach(server: &mut Server) -> Result<(), RestoreError> {
    const ASK_EVERY: Duration = Duration::from_millis(50);
    let start = Instant::now();
    loop {
        match server.try_call(&["REPLICAOF", "NO", "ONE"])? {
            Ok(_) => return Ok(()),
            Err(e) if e.code == "LOADING" && start.elapsed() < REPLY_LIMIT => std::thread::sleep(ASK_EVERY),
            Err(e) => return Err(server.refused("REPLICAOF", e)),
        }
    }
}

/// The id of a history that nobody has seen.
fn fresh_replid() -> String {
    let mut rng = rand::rng();
    (0..40).map(|_| char::from_digit(rng.random_range(0..16), 16).unwrap_or('0')).collect()
}
