//! Streams in their four versions. The forms are those that `decode/stream.rs` reads.

use super::super::length::write_length;
use super::super::pack::listpack::ListpackWriter;
use super::super::string::write_string;
use super::super::table::ValueType;
use super::super::value::{Group, Idempotence, Stream, StreamEntry, StreamId};

/// Entries of a listpack, and bytes behind which none is added: the defaults of servers (`stream-node-max-entries`,
/// `stream-node-max-bytes`).
const NODE_ENTRIES: usize = 100;
const NODE_BYTES: usize = 4096;
const SAME_FIELDS: i64 = 2;

pub(super) fn encode(stream: &Stream, of: ValueType, out: &mut Vec<u8>) {
    let version = match of {
        ValueType::Stream1 => 1,
        ValueType::Stream2 => 2,
        ValueType::Stream3 => 3,
        _ => 4,
    };
    let nodes = nodes(&stream.entries);
    write_length(nodes.len() as u64, out);
    for node in nodes {
        encode_node(node, out);
    }
    write_length(stream.entries.len() as u64, out);
    write_id(stream.last_id, out);
    if version >= 2 {
        write_id(stream.first_id, out);
        write_id(stream.max_deleted_id, out);
        write_length(stream.entries_added, out);
    }
    write_length(stream.groups.len() as u64, out);
    for group in &stream.groups {
        encode_group(group, version, out);
    }
    if version >= 4
        && let Some(idempotence) = &stream.idempotence
    {
        encode_idempotence(idempotence, out);
    }
}

fn write_id(id: StreamId, out: &mut Vec<u8>) {
    write_length(id.ms, out);
    write_length(id.seq, out);
}

/// Ids of 16 bytes sort as bytes do.
fn raw_id(id: StreamId) -> [u8; 16] {
    (u128::from(id.ms) << 64 | u128::from(id.seq)).to_be_bytes()
}

/// The entries of each listpack.
fn nodes(entries: &[StreamEntry]) -> Vec<&[StreamEntry]> {
    let mut nodes = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |entry: &&StreamEntry| {
            let room = bytes < NODE_BYTES;
            bytes += entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            room
        };
        let (node, others) = rest.split_at(rest.iter().take(NODE_ENTRIES).take_while(fits).count());
        nodes.push(node);
        rest = others;
    }
    nodes
}

fn encode_node(node: &[StreamEntry], out: &mut Vec<u8>) {
    let Some(master) = node.first() else { return };
    let mut pack = ListpackWriter::new();
    pack.int(node.len() as i64);
    pack.int(0);
    pack.int(master.fields.len() as i64);
    for (name, _) in &master.fields {
        pack.text(name);
    }
    pack.int(0);
    for entry in node {
        encode_entry(entry, master, &mut pack);
    }
    write_string(&raw_id(master.id), out);
    write_string(&pack.finish(), out);
}

fn encode_entry(entry: &StreamEntry, master: &StreamEntry, pack: &mut ListpackWriter) {
    let same =
        entry.fields.len() == master.fields.len() && entry.fields.iter().zip(&master.fields).all(|(a, b)| a.0 == b.0);
    let count = entry.fields.len() as i64;
    pack.int(if same { SAME_FIELDS } else { 0 });
    // Differences wrap around, as in the server.
    pack.int(entry.id.ms.wrapping_sub(master.id.ms).cast_signed());
    pack.int(entry.id.seq.wrapping_sub(master.id.seq).cast_signed());
    if !same {
        pack.int(count);
    }
    for (name, value) in &entry.fields {
        if !same {
            pack.text(name);
        }
        pack.text(value);
    }
    // Flags and id are three elements, a count of fields one more.
    pack.int(if same { 3 + count } else { 4 + count * 2 });
}

fn encode_group(group: &Group, version: u8, out: &mut Vec<u8>) {
    write_string(&group.name, out);
    write_id(group.last_id, out);
    if version >= 2 {
        // -1 stands for a number that is not known.
        write_length(group.entries_read.unwrap_or(u64::MAX), out);
    }
    write_length(group.pending.len() as u64, out);
    let mut owned = vec![Vec::new(); group.consumers.len()];
    for entry in &group.pending {
        out.extend_from_slice(&raw_id(entry.id));
        out.extend_from_slice(&entry.delivered_ms.to_le_bytes());
        write_length(entry.deliveries, out);
        if let Some(ids) = owned.get_mut(entry.consumer) {
            ids.push(entry.id);
        }
    }
    write_length(group.consumers.len() as u64, out);
    for (consumer, ids) in group.consumers.iter().zip(owned) {
        write_string(&consumer.name, out);
        out.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        if version >= 3 {
            out.extend_from_slice(&consumer.active_ms.to_le_bytes());
        }
        write_length(ids.len() as u64, out);
        for id in ids {
            out.extend_from_slice(&raw_id(id));
        }
    }
}

fn encode_idempotence(idempotence: &Idempotence, out: &mut Vec<u8>) {
    write_length(idempotence.duration_seconds, out);
    write_length(idempotence.max_ids, out);
    write_length(idempotence.producers.len() as u64, out);
    for (name, ids) in &idempotence.producers {
        write_string(name, out);
        write_length(ids.len() as u64, out);
        for (id, entry) in ids {
            write_string(id, out);
            write_id(*entry, out);
        }
    }
    write_length(idempotence.added, out);
    write_length(idempotence.duplicates, out);
}
