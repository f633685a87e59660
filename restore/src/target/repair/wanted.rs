//! The wanted keys of a scratch server at rest, some at a time, read ahead by a thread with a connection of its own.

use std::sync::mpsc::{Receiver, sync_channel};

use redtape_journal::query::Filter;
use redtape_wire::resp::encode_command;

use super::digest::{Digest, NOTHING};
use super::image::Image;
use super::live;
use super::temporary::is_temporary;
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::source::scratch::Scratch;
use crate::target::lookup::{Scan, expiry, select, show, ttl_command};

/// Batches that are read ahead.
const AHEAD: usize = 2;
/// Keys of a batch.
const BATCH_KEYS: usize = 2048;
/// Bytes of a batch's values, about.
const BATCH_BYTES: usize = 4 << 20;
/// Keys whose values are asked for at once: fewer when they are big.
const FETCH_MAX: usize = 512;

/// A key as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) key: Vec<u8>,
    pub(crate) image: Image,
    /// It is written only where the live value has this digest ([`NOTHING`](super::digest::NOTHING): where there is none); `None` =
    /// whatever is there.
    pub(crate) expected: Option<Digest>,
}

/// Keys of one database.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) db: u32,
    pub(crate) keys: Vec<Wanted>,
}

/// The dataset that is wanted, and what the target is expected to hold.
#[derive(Debug)]
pub(crate) struct Datasets {
    pub(crate) wanted: Scratch,
    /// `None` = whatever it holds.
    pub(crate) expected: Option<Scratch>,
}

impl Datasets {
    /// Says what to do about a scratch server that does not answer any more.
    pub(crate) fn explain(&mut self, error: RestoreError) -> RestoreError {
        let error = self.wanted.explain(error);
        match &mut self.expected {
            Some(expected) => expected.explain(error),
            None => error,
        }
    }

    /// The digests of what the target is expected to hold of some keys; `None` = it does not matter.
    pub(crate) fn expected_of(&mut self, db: u32, keys: &[&[u8]]) -> Result<Vec<Option<Digest>>, RestoreError> {
        match &mut self.expected {
            None => Ok(vec![None; keys.len()]),
            Some(scratch) => expected_of(&mut scratch.server, db, keys),
        }
    }
}

fn expected_of(server: &mut Server, db: u32, keys: &[&[u8]]) -> Result<Vec<Option<Digest>>, RestoreError> {
    select(server, db)?;
    let held = live::read(server, keys, false, false)?.keys;
    let digest = |held: Option<Image>| match held {
        None => Ok(Some(NOTHING)),
        Some(image) => image.digest().map(Some),
    };
    let unreadable = |e| RestoreError::Unable(format!("cannot read what the target is expected to hold: {e}"));
    held.into_iter().map(digest).collect::<Result<_, _>>().map_err(unreadable)
}

/// Calls `take` with each batch in turn, until it fails.
pub(crate) fn each_batch(
    datasets: &mut Datasets,
    filter: &Filter,
    take: &mut dyn FnMut(Batch) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let Datasets { wanted: scratch, expected } = datasets;
    if let Some(expected) = expected {
        expected.hold()?;
    }
    let at_ms = scratch.hold()?;
    let absolute = scratch.version.has_redis(7, 0);
    let dbs: Vec<u32> = scratch.server.info(Some("keyspace"))?.keyspace().into_keys().collect();
    let (server, expected) = (&mut scratch.server, expected.as_mut().map(|scratch| &mut scratch.server));
    std::thread::scope(|scope| {
        let (send, batches) = sync_channel(AHEAD);
        let reading = std::thread::Builder::new().name("scratch reader".to_owned()).spawn_scoped(scope, move || {
            let mut reader = Reader { server, expected, filter, absolute, at_ms, fetch: 16 };
            for db in dbs.into_iter().filter(|db| filter.wants_db(*db)) {
                // Where nobody receives any more, the other side tells why.
                let mut send = |batch| send.send(batch).is_ok();
                reader.database(db, &mut send)?;
            }
            Ok(())
        });
        let reading = reading.map_err(RestoreError::io("start", "a thread"))?;
        let taken = take_all(&batches, take);
        drop(batches);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(read)
    })
}

fn take_all(
    batches: &Receiver<Batch>,
    take: &mut dyn FnMut(Batch) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    batches.iter().try_for_each(take)
}

struct Reader<'a> {
    server: &'a mut Server,
    expected: Option<&'a mut Server>,
    filter: &'a Filter,
    /// The server knows `PEXPIRETIME`.
    absolute: bool,
    /// What its clock shows.
    at_ms: i64,
    fetch: usize,
}

impl Reader<'_> {
    /// `send` says whether somebody still listens.
    fn database(&mut self, db: u32, send: &mut dyn FnMut(Batch) -> bool) -> Result<(), RestoreError> {
        let mut scan = Scan::new(db);
        let (mut batch, mut bytes) = (Batch { db, keys: Vec::new() }, 0);
        while let Some(keys) = scan.next(self.server)? {
            let mut left: Vec<Vec<u8>> =
                keys.into_iter().filter(|key| self.filter.wants_key(key) && !is_temporary(key)).collect();
            while !left.is_empty() {
                let rest = left.split_off(self.fetch.min(left.len()));
                bytes += self.fetch(left, &mut batch)?;
                left = rest;
                if batch.keys.len() >= BATCH_KEYS || bytes >= BATCH_BYTES {
                    let whole = std::mem::replace(&mut batch, Batch { db, keys: Vec::new() });
                    bytes = 0;
                    if !send(whole) {
                        return Ok(());
                    }
                }
            }
        }
        if !batch.keys.is_empty() {
            send(batch);
        }
        Ok(())
    }

    /// Values and times of expiry of some keys; returns the bytes.
    fn fetch(&mut self, keys: Vec<Vec<u8>>, batch: &mut Batch) -> Result<usize, RestoreError> {
        let mut packed = Vec::new();
        for key in &keys {
            encode_command(&mut packed, &[b"DUMP", key.as_slice()]);
            encode_command(&mut packed, &[ttl_command(self.absolute), key.as_slice()]);
        }
        let mut replies = self.server.pipeline(&packed, keys.len() * 2)?.into_iter();
        let (mut bytes, first) = (0, batch.keys.len());
        for key in keys {
            let (Some(Reply::Value(Value::Bytes(dump))), Some(Reply::Value(Value::Int(ttl)))) =
                (replies.next(), replies.next())
            else {
                return Err(RestoreError::Scratch(format!("did not give the value of {}", show(&key))));
            };
            bytes += key.len() + dump.len();
            let image = Image { dump, expires_ms: expiry(ttl, self.absolute, self.at_ms) };
            batch.keys.push(Wanted { key, image, expected: None });
        }
        if let Some(expected) = &mut self.expected {
            let fetched = &mut batch.keys[first..];
            let names: Vec<&[u8]> = fetched.iter().map(|wanted| &wanted.key[..]).collect();
            let digests = expected_of(expected, batch.db, &names)?;
            fetched.iter_mut().zip(digests).for_each(|(wanted, digest)| wanted.expected = digest);
        }
        self.fetch = if bytes > BATCH_BYTES { (self.fetch / 2).max(1) } else { (self.fetch * 2).min(FETCH_MAX) };
        Ok(bytes)
    }
}
