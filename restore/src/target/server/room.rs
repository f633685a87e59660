//! Whether a target has room for what a scratch server holds: asked when that is known, before the first write.

use std::fmt;

use redtape_wire::rdb::{ReadError, Value as Canonical};
use redtape_wire::resp::encode_command;

use super::ServerTarget;
use crate::client::{Info, Reply, Server, Value, text};
use crate::error::RestoreError;
use crate::progress::{Event, Observer, Unit};
use crate::source::scratch::Scratch;
use crate::target::limits::ServerLimits;
use crate::target::lookup::{KeyCounts, Scan, select, show};
use crate::target::memory::MemoryState;
use crate::target::pieces::Builder;
use crate::target::pieces::size::{is_large, longest_element};
use crate::target::repair::Datasets;
use crate::target::rights::{By, refused_key};
use crate::target::value_error::unreadable;
use crate::values::image::Image;
use crate::values::saved::{SavedKey, Values};

/// Servers differ by so much in what the same data takes: one part in so many.
const TOLERANCE: u64 = 10;
/// Largest argument that a server takes unless it is told otherwise.
const USUAL_BULK_BYTES: u64 = 512 << 20;
/// Keys that are weighed, or asked about, in one go.
const BATCH: usize = 256;
/// Keys that are named in a message.
const NAMED_KEYS: usize = 5;

/// How the data goes to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// `RESTORE` of each key.
    Copy,
    /// One RDB over the replica link.
    Link,
}

/// What the wanted keys of a scratch server take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Weight {
    /// Bytes of memory, about.
    memory: u64,
    /// Values that are larger than the target takes.
    large: Vec<LargeValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LargeValue {
    db: u32,
    key: Vec<u8>,
    /// As `DUMP` gives it.
    bytes: u64,
}

impl fmt::Display for LargeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in db {} ({} bytes)", show(&self.key), self.db, self.bytes)
    }
}

/// Fails if the target cannot take the wanted keys; nothing was written then.
pub(super) fn check(
    target: &mut ServerTarget,
    scratch: &mut Scratch,
    wanted: &KeyCounts,
    carrier: Carrier,
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    check_databases(target, wanted)?;
    let data = data_bytes(&scratch.server.info(Some("all"))?);
    let memory = MemoryState::ask(&mut target.server)?;
    let limits = &target.facts.limits;
    // No value is larger than all of them together.
    let value_limit = Some(limits.value_bytes().unwrap_or(USUAL_BULK_BYTES))
        .filter(|limit| carrier == Carrier::Copy && data >= *limit);
    let ask_rights = (carrier == Carrier::Copy && target.facts.rights.some_keys(By::Copy)).then_some(By::Copy);
    let mut weight = Weight::default();
    if value_limit.is_some() || ask_rights.is_some() {
        let mut walk = Walk { value_limit, string_limit: None, ask_rights, weight };
        walk.run(target, scratch, wanted, observer)?;
        weight = walk.weight;
    }
    check_values(target, &weight, value_limit, observer)?;
    check_memory(target, &memory, data, observer)
}

/// The same for keys that go into a target that holds others. `new`: for each wanted key in the order of the saved dataset, whether
/// the target has none. Of its memory, those are counted: what takes the place of another value takes about as much.
pub(crate) fn check_repair(
    target: &mut ServerTarget,
    datasets: &mut Datasets,
    (wanted, new): (&KeyCounts, &[bool]),
    by: By,
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    check_databases(target, wanted)?;
    let data = data_bytes(&datasets.wanted.server.info(Some("all"))?);
    let mut memory = MemoryState::ask(&mut target.server)?;
    let all_new = vec![true; new.len()];
    let new = if target.replaces_all {
        // All that it holds goes, or is among what comes.
        memory.used = memory.used.saturating_sub(data_bytes(&target.server.info(Some("all"))?));
        &all_new[..]
    } else {
        new
    };
    // No value is larger than all of them together.
    let limit = target.facts.limits.value_bytes().unwrap_or(USUAL_BULK_BYTES);
    let value_limit = Some(limit).filter(|limit| data >= *limit);
    let ask_rights = target.facts.rights.some_keys(by).then_some(by);
    if !does_not_fit(&memory, data) && value_limit.is_none() && ask_rights.is_none() {
        return Ok(());
    }
    let string_limit = target.facts.limits.bulk_bytes;
    let mut walk = Walk { value_limit, string_limit, ask_rights, weight: Weight::default() };
    walk.run_saved(target, datasets, (wanted.values().sum(), new), observer)?;
    check_values(target, &walk.weight, value_limit, observer)?;
    if walk.weight.memory > 0 { check_memory(target, &memory, walk.weight.memory, observer) } else { Ok(()) }
}

/// The highest database is there.
fn check_databases(target: &mut ServerTarget, wanted: &KeyCounts) -> Result<(), RestoreError> {
    let Some(highest) = wanted.keys().next_back().copied().filter(|db| *db > 0) else { return Ok(()) };
    if let Some(databases) = target.facts.limits.databases
        && highest >= databases
    {
        return Err(RestoreError::Unable(format!(
            "{} has {databases} databases, and wanted keys are in database {highest}; nothing was written. Raise its `databases` setting to {} or more and start it again, or leave that database out with --db",
            target.server.address,
            highest + 1
        )));
    }
    select(&mut target.server, highest)?;
    target.server.call(&["SELECT", "0"]).map(drop)
}

/// What the data of a server takes, its dictionaries included. Pure.
pub(super) fn data_bytes(info: &Info) -> u64 {
    let number = |name| info.number(name).unwrap_or(0);
    let others = ["used_memory_startup", "mem_clients_normal", "mem_clients_slaves", "mem_replication_backlog"];
    let others: u64 = others.into_iter().map(number).sum();
    number("used_memory").saturating_sub(others).max(number("used_memory_dataset"))
}

/// With so much more, the server is over its limit. Pure.
fn does_not_fit(memory: &MemoryState, needed: u64) -> bool {
    memory.limit.is_some_and(|limit| limit > 0 && memory.used.saturating_add(needed) > limit)
}

/// It does not, though less may be needed than was found. Pure.
fn surely_does_not_fit(memory: &MemoryState, needed: u64) -> bool {
    does_not_fit(memory, needed - needed / TOLERANCE)
}

fn check_memory(
    target: &ServerTarget,
    memory: &MemoryState,
    needed: u64,
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    let limit = memory.limit.unwrap_or(0);
    if !does_not_fit(memory, needed) {
        return Ok(());
    }
    let accepted = target.accept_eviction && memory.evicts();
    if surely_does_not_fit(memory, needed) && !accepted {
        let raise_to = memory.used.saturating_add(needed).saturating_add(needed / TOLERANCE);
        let (address, used) = (target.server.address.clone(), memory.used);
        let (then, or_else) = if memory.evicts() {
            (
                format!("it would evict keys to make room (maxmemory-policy {})", memory.policy),
                ", add --accept-eviction to have it evict",
            )
        } else {
            ("beyond that it refuses writes".to_owned(), "")
        };
        return Err(RestoreError::NoRoom { address, needed, used, limit, raise_to, then, or_else });
    }
    let then = if memory.evicts() { "evicts keys" } else { "refuses writes" };
    observer.on(&Event::Note(&format!(
        "the data takes about {needed} bytes; of the target's maxmemory of {limit} bytes {} are in use: it {then} when they are used up",
        memory.used
    )));
    Ok(())
}

fn check_values(
    target: &ServerTarget,
    weight: &Weight,
    value_limit: Option<u64>,
    observer: &mut dyn Observer,
) -> Result<(), RestoreError> {
    let (Some(limit), false) = (value_limit, weight.large.is_empty()) else { return Ok(()) };
    let named = weight.large.iter().take(NAMED_KEYS).map(LargeValue::to_string).collect::<Vec<_>>().join(", ");
    let more = if weight.large.len() > NAMED_KEYS { ", …" } else { "" };
    let count = weight.large.len();
    let values = if count == 1 { "1 value is".to_owned() } else { format!("{count} values are") };
    let ServerLimits { bulk_bytes, query_bytes, .. } = target.facts.limits;
    if bulk_bytes.or(query_bytes).is_none() {
        observer.on(&Event::Note(&format!(
            "{values} larger than {limit} bytes ({named}{more}), more than a server usually takes at once; what this one takes is unknown, as it does not allow CONFIG GET"
        )));
        return Ok(());
    }
    let setting =
        if bulk_bytes.is_some_and(|bytes| bytes <= limit) { "proto-max-bulk-len" } else { "client-query-buffer-limit" };
    Err(RestoreError::Unable(format!(
        "{values} too large for {}, which takes {limit} bytes at once ({setting}): {named}{more}. Nothing was written. Raise it there (CONFIG SET {setting}), or leave them out",
        target.server.address
    )))
}

/// A look at each wanted key of a scratch server.
struct Walk {
    value_limit: Option<u64>,
    /// Largest string.
    string_limit: Option<u64>,
    /// Whether each key may be written in this way.
    ask_rights: Option<By>,
    weight: Weight,
}

impl Walk {
    fn run(
        &mut self,
        target: &mut ServerTarget,
        scratch: &mut Scratch,
        wanted: &KeyCounts,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        let total = wanted.values().sum();
        observer.on(&Event::Step { name: "looking at the size of the data", total, unit: Unit::Keys });
        let mut seen = 0;
        for db in wanted.keys().copied() {
            let mut scan = Scan::new(db);
            while let Some(keys) = scan.next(&mut scratch.server)? {
                for keys in keys.chunks(BATCH) {
                    target.interrupt.check()?;
                    self.weight.memory += self.weigh(&mut scratch.server, db, keys)?.iter().sum::<u64>();
                    self.ask_rights(target, keys)?;
                    seen += keys.len() as u64;
                    observer.on(&Event::At(seen));
                }
            }
        }
        observer.on(&Event::StepDone);
        Ok(())
    }

    /// The wanted keys of a saved dataset; the memory of new ones is counted.
    fn run_saved(
        &mut self,
        target: &mut ServerTarget,
        datasets: &mut Datasets,
        (total, new): (u64, &[bool]),
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        observer.on(&Event::Step { name: "looking at the size of the data", total, unit: Unit::Keys });
        let (mut seen, mut new) = (0, new.iter().copied());
        let filter = target.filter.clone();
        let (saved, scratch) = datasets.saved();
        let builder = Builder::new(target.facts.version);
        let mut values = saved.values()?;
        saved.each(&filter, &mut |db, keys| {
            target.interrupt.check()?;
            select(&mut scratch.server, db)?;
            let names: Vec<Vec<u8>> = keys.iter().map(|saved| saved.key.clone()).collect();
            for (keys, names) in keys.chunks(BATCH).zip(names.chunks(BATCH)) {
                let bytes = self.weigh(&mut scratch.server, db, names)?;
                self.keep_too_large(&builder, keys, &mut values)?;
                let of_new = bytes.into_iter().zip(&mut new).filter(|(_, new)| *new);
                self.weight.memory += of_new.map(|(bytes, _)| bytes).sum::<u64>();
                self.ask_rights(target, names)?;
            }
            seen += keys.len() as u64;
            observer.on(&Event::At(seen));
            Ok(())
        })?;
        observer.on(&Event::StepDone);
        Ok(())
    }

    /// Of the values of these keys, those that can be built in pieces are not too large.
    fn keep_too_large(
        &mut self,
        builder: &Builder,
        keys: &[SavedKey],
        values: &mut Values<'_>,
    ) -> Result<(), RestoreError> {
        let Some(limit) = self.value_limit else { return Ok(()) };
        let limits = ValueLimits { command: limit, string: self.string_limit.unwrap_or(USUAL_BULK_BYTES) };
        let of_these = |large: &LargeValue| keys.iter().find(|saved| saved.key == large.key);
        let mut kept = Vec::new();
        for large in std::mem::take(&mut self.weight.large) {
            let fits = match of_these(&large) {
                None => false,
                Some(saved) => {
                    fits_in_pieces(builder, &values.image(saved)?, limits).map_err(|e| unreadable(&large.key, e))?
                }
            };
            if !fits {
                kept.push(large);
            }
        }
        self.weight.large = kept;
        Ok(())
    }

    /// Fails if the user may not restore one of these keys.
    fn ask_rights(&self, target: &mut ServerTarget, keys: &[Vec<u8>]) -> Result<(), RestoreError> {
        let Some(by) = self.ask_rights else { return Ok(()) };
        let Some((n, why)) = refused_key(&mut target.server, target.facts.version, by, keys)? else { return Ok(()) };
        let key = keys.get(n).map(|key| show(key)).unwrap_or_default();
        Err(RestoreError::Denied {
            address: target.server.address.clone(),
            command: format!("restoring {key}"),
            cause: format!("{why}. Nothing was written"),
        })
    }

    /// What some keys take in memory; notes those that are too large.
    fn weigh(&mut self, scratch: &mut Server, db: u32, keys: &[Vec<u8>]) -> Result<Vec<u64>, RestoreError> {
        let mut all = Vec::with_capacity(keys.len());
        let mut packed = Vec::new();
        for key in keys {
            // All elements of a value: the large one may be among those that are left out otherwise.
            let args: [&[u8]; 5] =
                [b"MEMORY", b"USAGE", key, b"SAMPLES", if self.value_limit.is_some() { b"0" } else { b"5" }];
            encode_command(&mut packed, &args);
        }
        let replies = scratch.pipeline(&packed, keys.len())?;
        for (key, reply) in keys.iter().zip(replies) {
            let bytes = match reply {
                Reply::Value(Value::Int(bytes)) => bytes.max(0) as u64,
                _ => 0,
            };
            all.push(bytes);
            // A dumped value takes no more room than in memory.
            let Some(limit) = self.value_limit.filter(|limit| bytes.saturating_add(key.len() as u64) >= *limit) else {
                continue;
            };
            let dumped = dumped_bytes(scratch, key)?;
            if dumped + key.len() as u64 > limit {
                self.weight.large.push(LargeValue { db, key: key.clone(), bytes: dumped });
            }
        }
        Ok(all)
    }
}

/// What a server takes, in bytes.
#[derive(Debug, Clone, Copy)]
struct ValueLimits {
    command: u64,
    /// Of a string as a whole, however it is made.
    string: u64,
}

/// Whether a value that is too large for one command can be built in pieces, each of which the server takes.
fn fits_in_pieces(builder: &Builder, image: &Image, limits: ValueLimits) -> Result<bool, ReadError> {
    let value = image.full_value()?;
    let string_fits = if let Canonical::String(bytes) = &value { bytes.len() as u64 <= limits.string } else { true };
    Ok(is_large(&value)
        && builder.check(&value).is_ok()
        && string_fits
        && longest_element(&value).saturating_add(builder.limits.bytes as u64) < limits.command)
}

/// Length of a value as `DUMP` gives it, without having it sent where the server can be asked.
fn dumped_bytes(scratch: &mut Server, key: &[u8]) -> Result<u64, RestoreError> {
    /// Type, version and checksum.
    const FRAME: u64 = 11;
    if let Reply::Value(Value::Status(found)) = scratch.try_call(&[b"DEBUG".as_slice(), b"OBJECT", key])?
        && let Some(bytes) =
            found.split(' ').find_map(|word| word.strip_prefix("serializedlength:")?.parse::<u64>().ok())
    {
        return Ok(bytes + FRAME);
    }
    let dump = scratch.call(&[b"DUMP".as_slice(), key])?;
    Ok(if let Value::Bytes(bytes) = dump { bytes.len() as u64 } else { text(&dump).len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit: u64, used: u64) -> MemoryState {
        MemoryState { limit: Some(limit), policy: "noeviction".to_owned(), used, evicted: 0 }
    }

    #[test]
    fn what_fits_and_what_may_not() {
        for (limit, used, needed, doubtful, sure) in [
            (0, 500, 1 << 40, false, false),
            (1000, 500, 500, false, false),
            (1000, 500, 501, true, false),
            (1000, 500, 555, true, false),
            (1000, 500, 600, true, true),
            (1000, 1500, 1, true, true),
        ] {
            let memory = memory(limit, used);
            assert_eq!(does_not_fit(&memory, needed), doubtful, "{memory:?} {needed}");
            assert_eq!(surely_does_not_fit(&memory, needed), sure, "{memory:?} {needed}");
        }
    }

    #[test]
    fn dictionaries_count_as_data_and_connections_do_not() {
        let info = Info::parse(
            "used_memory:1000\nused_memory_startup:300\nmem_clients_normal:50\nmem_replication_backlog:100\nused_memory_dataset:400\n",
        );
        assert_eq!(data_bytes(&info), 550);
    }
}
