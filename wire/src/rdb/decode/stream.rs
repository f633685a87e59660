//! Streams in their four versions (`rdbLoadObject`, `t_stream.c`): listpacks of entries, ids and counters, consumer
//! groups, and from Redis 8.6 on idempotent producers.
//!
//! A listpack of entries begins with a master entry: live entries, deleted entries, its fields, 0. Each entry is flags,
//! id relative to the master's, fields (none if they are the master's), values, and how many elements it took.

use super::super::fault::{Fault, ReadError};
use super::super::input::{Input, SliceInput};
use super::super::length::read_count;
use super::super::pack::Item;
use super::super::pack::listpack::Listpack;
use super::super::value::{Bytes, Consumer, Group, Idempotence, Pending, Stream, StreamEntry, StreamId};
use super::budget::Budget;

const WHAT: &str = "a stream";
const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;
const BAD_ENTRY: Fault = Fault::Invalid("a stream has a damaged entry");

pub(super) fn decode(version: u8, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Stream, ReadError> {
    let mut entries = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        let at = input.at();
        let master = master_id(&budget.pack(input, WHAT)?).map_err(|fault| fault.at(at))?;
        let at = input.at();
        let bytes = budget.pack(input, WHAT)?;
        let mut pack = Listpack::new(&bytes).map_err(|fault| fault.at(at))?;
        read_entries(&mut pack, master, at, budget, &mut entries)?;
    }
    let at = input.at();
    let length = read_count(input, WHAT)?;
    if length != entries.len() as u64 || entries.windows(2).any(|pair| pair[0].id >= pair[1].id) {
        return Err(Fault::Invalid("a stream's entries are not as many as it says, or out of order").at(at));
    }
    let last_id = read_id(input)?;
    let (first_id, max_deleted_id, entries_added) = if version >= 2 {
        (read_id(input)?, read_id(input)?, read_count(input, WHAT)?)
    } else {
        (entries.first().map(|entry| entry.id).unwrap_or_default(), StreamId::default(), length)
    };
    let groups = read_groups(version, input, budget)?;
    let idempotence = if version >= 4 { Some(read_idempotence(input, budget)?) } else { None };
    Ok(Stream { entries, last_id, first_id, max_deleted_id, entries_added, groups, idempotence })
}

/// An id of 16 bytes, so that ids sort as bytes do.
fn raw_id(bytes: [u8; 16]) -> StreamId {
    let (ms, seq) = bytes.split_at(8);
    let number = |half: &[u8]| half.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    StreamId { ms: number(ms), seq: number(seq) }
}

fn master_id(bytes: &[u8]) -> Result<StreamId, Fault> {
    bytes.try_into().map(raw_id).map_err(|_| Fault::Invalid("a stream has an id of another length than 16 bytes"))
}

fn read_id(input: &mut SliceInput<'_>) -> Result<StreamId, ReadError> {
    Ok(StreamId { ms: read_count(input, WHAT)?, seq: read_count(input, WHAT)? })
}

fn read_entries(
    pack: &mut Listpack<'_>,
    master: StreamId,
    at: u64,
    budget: &mut Budget,
    out: &mut Vec<StreamEntry>,
) -> Result<(), ReadError> {
    let numbers = pack.number().and_then(|live| Ok((live, pack.number()?, pack.number()?)));
    let (live, deleted, fields) = numbers.map_err(|fault| fault.at(at))?;
    if fields < 0 {
        return Err(BAD_ENTRY.at(at));
    }
    let mut names = Vec::new();
    for _ in 0..fields {
        let name = pack.must().map_err(|fault| fault.at(at))?;
        // Charged though it is only looked at: the list of names is in memory.
        budget.charge(0, at)?;
        names.push(name);
    }
    if pack.number().map_err(|fault| fault.at(at))? != 0 {
        return Err(BAD_ENTRY.at(at));
    }
    let (mut seen_live, mut seen_deleted) = (0, 0);
    while let Some(first) = pack.next().map_err(|fault| fault.at(at))? {
        let Item::Int(flags) = first else { return Err(BAD_ENTRY.at(at)) };
        let (id, fields) = read_entry(pack, flags, master, &names, at, budget)?;
        if flags & DELETED != 0 {
            seen_deleted += 1;
        } else {
            seen_live += 1;
            out.push(StreamEntry { id, fields });
        }
    }
    if (live, deleted) == (seen_live, seen_deleted) { Ok(()) } else { Err(BAD_ENTRY.at(at)) }
}

/// One entry behind its flags; of a deleted one, nothing is kept.
fn read_entry(
    pack: &mut Listpack<'_>,
    flags: i64,
    master: StreamId,
    names: &[Item<'_>],
    at: u64,
    budget: &mut Budget,
) -> Result<(StreamId, Vec<(Bytes, Bytes)>), ReadError> {
    let fail = |fault: Fault| fault.at(at);
    let (ms, seq) = (pack.number().map_err(fail)?, pack.number().map_err(fail)?);
    // Ids have all 64 bits, differences are stored as signed numbers: they wrap around, as in the server.
    let id = StreamId { ms: master.ms.wrapping_add_signed(ms), seq: master.seq.wrapping_add_signed(seq) };
    let same = flags & SAME_FIELDS != 0;
    let count = if same { names.len() as i64 } else { pack.number().map_err(fail)? };
    let mut fields = Vec::new();
    budget.charge(0, at)?;
    for index in 0..usize::try_from(count).map_err(|_| BAD_ENTRY.at(at))? {
        let name = match names.get(index) {
            Some(&name) if same => name,
            _ => pack.must().map_err(fail)?,
        };
        let value = pack.must().map_err(fail)?;
        if flags & DELETED == 0 {
            fields.push((budget.own(name.bytes(), at)?, budget.own(value.bytes(), at)?));
        }
    }
    // Flags and id are three elements, a count of fields one more.
    let elements = if same { 3 + count } else { 4 + count.saturating_mul(2) };
    if pack.number().map_err(fail)? != elements {
        return Err(BAD_ENTRY.at(at));
    }
    Ok((id, fields))
}

fn read_groups(version: u8, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Vec<Group>, ReadError> {
    let at = input.at();
    let mut groups = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        groups.push(read_group(version, input, budget)?);
    }
    groups.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if groups.windows(2).any(|pair| pair[0].name == pair[1].name) {
        return Err(Fault::Invalid("a stream has a consumer group twice").at(at));
    }
    Ok(groups)
}

/// A pending entry whose consumer is not known yet.
struct Unclaimed {
    id: StreamId,
    delivered_ms: i64,
    deliveries: u64,
    consumer: Option<usize>,
}

fn read_group(version: u8, input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Group, ReadError> {
    const WHAT: &str = "a consumer group";
    let name = budget.string(input, WHAT)?;
    let last_id = read_id(input)?;
    // -1 stands for a number that is not known.
    let entries_read = if version >= 2 { Some(read_count(input, WHAT)?).filter(|&n| n != u64::MAX) } else { None };
    let at = input.at();
    let mut delivered = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        budget.charge(size_of::<Unclaimed>(), input.at())?;
        let id = raw_id(input.fixed(WHAT)?);
        let delivered_ms = i64::from_le_bytes(input.fixed(WHAT)?);
        delivered.push(Unclaimed { id, delivered_ms, deliveries: read_count(input, WHAT)?, consumer: None });
    }
    delivered.sort_unstable_by_key(|entry| entry.id);
    if delivered.windows(2).any(|pair| pair[0].id == pair[1].id) {
        return Err(Fault::Invalid("a consumer group has a pending entry twice").at(at));
    }
    let mut consumers = Vec::new();
    for index in 0..read_count(input, WHAT)? {
        consumers.push((index as usize, read_consumer(version, index as usize, input, budget, &mut delivered)?));
    }
    consumers.sort_unstable_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    if consumers.windows(2).any(|pair| pair[0].1.name == pair[1].1.name) {
        return Err(Fault::Invalid("a consumer group has a consumer twice").at(at));
    }
    let mut place = vec![0; consumers.len()];
    for (sorted, &(read, _)) in consumers.iter().enumerate() {
        place[read] = sorted;
    }
    let pending = delivered.into_iter().map(|Unclaimed { id, delivered_ms, deliveries, consumer }| {
        let consumer = consumer.ok_or_else(|| Fault::Invalid("a pending entry has no consumer").at(at))?;
        Ok(Pending { id, delivered_ms, deliveries, consumer: place[consumer] })
    });
    let pending = pending.collect::<Result<_, ReadError>>()?;
    let consumers = consumers.into_iter().map(|(_, consumer)| consumer).collect();
    Ok(Group { name, last_id, entries_read, consumers, pending })
}

fn read_consumer(
    version: u8,
    index: usize,
    input: &mut SliceInput<'_>,
    budget: &mut Budget,
    delivered: &mut [Unclaimed],
) -> Result<Consumer, ReadError> {
    const WHAT: &str = "a consumer";
    let name = budget.string(input, WHAT)?;
    budget.charge(size_of::<Consumer>(), input.at())?;
    let seen_ms = i64::from_le_bytes(input.fixed(WHAT)?);
    let active_ms = if version >= 3 { i64::from_le_bytes(input.fixed(WHAT)?) } else { seen_ms };
    for _ in 0..read_count(input, WHAT)? {
        let at = input.at();
        let id = raw_id(input.fixed(WHAT)?);
        let found = delivered.binary_search_by_key(&id, |entry| entry.id).ok().and_then(|at| delivered.get_mut(at));
        if found.is_none_or(|entry| entry.consumer.replace(index).is_some()) {
            return Err(Fault::Invalid("a consumer has an entry that its group has not, or that another has").at(at));
        }
    }
    Ok(Consumer { name, seen_ms, active_ms })
}

fn read_idempotence(input: &mut SliceInput<'_>, budget: &mut Budget) -> Result<Idempotence, ReadError> {
    let (duration_seconds, max_ids) = (read_count(input, WHAT)?, read_count(input, WHAT)?);
    let at = input.at();
    let mut producers = Vec::new();
    for _ in 0..read_count(input, WHAT)? {
        let name = budget.string(input, WHAT)?;
        let mut ids = Vec::new();
        for _ in 0..read_count(input, WHAT)? {
            let id = budget.string(input, WHAT)?;
            budget.charge(0, input.at())?;
            ids.push((id, read_id(input)?));
        }
        producers.push((name, ids));
    }
    producers.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    if producers.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(Fault::Invalid("a stream has a producer twice").at(at));
    }
    let (added, duplicates) = (read_count(input, WHAT)?, read_count(input, WHAT)?);
    Ok(Idempotence { duration_seconds, max_ids, producers, added, duplicates })
}
