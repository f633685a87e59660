//! The value of a key as the server's ordinary commands tell it.

use crate::server::{Conn, Reply};
use redtape_wire::rdb::{Consumer, Field, Group, Idempotence, Pending, Score, Stream, StreamEntry, StreamId, Value};

/// `None` for a module's value: only the module can tell it.
pub(crate) fn read(conn: &mut Conn, key: &[u8]) -> Option<Value> {
    Some(match conn.must(&[b"TYPE", key]).text().as_str() {
        "string" => Value::String(conn.must(&[b"GET", key]).bytes()),
        "list" => Value::List(strings(&conn.must(&[b"LRANGE", key, b"0", b"-1"]))),
        "set" => {
            let mut members = strings(&conn.must(&[b"SMEMBERS", key]));
            members.sort();
            Value::Set(members)
        }
        "zset" => {
            let all = conn.must(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]);
            let pairs = all.items().chunks(2);
            let score = |text: &str| Score::new(text.parse().expect("a score")).expect("a number");
            Value::Zset(pairs.map(|pair| (pair[0].bytes(), score(&pair[1].text()))).collect())
        }
        "hash" => Value::Hash(hash(conn, key)),
        "stream" => Value::Stream(Box::new(stream(conn, key))),
        _ => return None,
    })
}

fn strings(reply: &Reply) -> Vec<Vec<u8>> {
    reply.items().iter().map(Reply::bytes).collect()
}

fn hash(conn: &mut Conn, key: &[u8]) -> Vec<Field> {
    let all = conn.must(&[b"HGETALL", key]);
    let mut fields: Vec<Field> = all
        .items()
        .chunks(2)
        .map(|pair| Field { name: pair[0].bytes(), value: pair[1].bytes(), expires_at_ms: None })
        .collect();
    if conn.knows("HPEXPIRETIME") {
        let mut args = vec![b"HPEXPIRETIME".to_vec(), key.to_vec(), b"FIELDS".to_vec()];
        args.push(fields.len().to_string().into_bytes());
        args.extend(fields.iter().map(|field| field.name.clone()));
        let times = conn.must(&args);
        for (field, time) in fields.iter_mut().zip(times.items()) {
            field.expires_at_ms = Some(time.int()).filter(|&ms| ms >= 0);
        }
    }
    fields.sort();
    fields
}

fn id(reply: &Reply) -> StreamId {
    let text = reply.text();
    let (ms, seq) = text.split_once('-').expect("an id");
    StreamId { ms: ms.parse().expect("ms"), seq: seq.parse().expect("seq") }
}

fn stream(conn: &mut Conn, key: &[u8]) -> Stream {
    let range = conn.must(&[b"XRANGE", key, b"-", b"+"]);
    let entries: Vec<StreamEntry> = range
        .items()
        .iter()
        .map(|entry| StreamEntry {
            id: id(&entry.items()[0]),
            fields: entry.items()[1].items().chunks(2).map(|pair| (pair[0].bytes(), pair[1].bytes())).collect(),
        })
        .collect();
    let info = conn.must(&[&b"XINFO"[..], b"STREAM", key, b"FULL", b"COUNT", b"0"]);
    let number = |name: &str| info.field(name).map(|n| n.int() as u64);
    assert_eq!(number("length"), Some(entries.len() as u64));
    let first = entries.first().map(|entry| entry.id).unwrap_or_default();
    let mut groups: Vec<Group> = info.field("groups").expect("groups").items().iter().map(group).collect();
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Stream {
        last_id: id(info.field("last-generated-id").expect("the last id")),
        first_id: info.field("recorded-first-entry-id").map_or(first, id),
        max_deleted_id: info.field("max-deleted-entry-id").map(id).unwrap_or_default(),
        entries_added: number("entries-added").unwrap_or(entries.len() as u64),
        groups,
        idempotence: number("idmp-duration").map(|duration_seconds| Idempotence {
            duration_seconds,
            max_ids: number("idmp-maxsize").expect("with the duration"),
            // How many there are; the server does not list them.
            producers: vec![Default::default(); number("pids-tracked").expect("with the duration") as usize],
            added: number("iids-added").expect("with the duration"),
            duplicates: number("iids-duplicates").expect("with the duration"),
        }),
        entries,
    }
}

fn group(reply: &Reply) -> Group {
    let field = |name: &str| reply.field(name).unwrap_or_else(|| panic!("a group has no {name}"));
    let mut consumers: Vec<Consumer> = field("consumers")
        .items()
        .iter()
        .map(|consumer| {
            let seen_ms = consumer.field("seen-time").expect("seen-time").int();
            let active_ms = consumer.field("active-time").map_or(seen_ms, Reply::int);
            Consumer { name: consumer.field("name").expect("a name").bytes(), seen_ms, active_ms }
        })
        .collect();
    consumers.sort_by(|a, b| a.name.cmp(&b.name));
    // Called "pel" up to Redis 7.2 and in Valkey.
    let pending = reply.field("pel").or_else(|| reply.field("pending")).expect("pending entries");
    let pending = pending.items().iter().map(|entry| {
        let [of, consumer, delivered, deliveries] = entry.items() else { panic!("{entry:?}") };
        let place = consumers.iter().position(|c| c.name == consumer.bytes()).expect("a consumer of the group");
        Pending { id: id(of), delivered_ms: delivered.int(), deliveries: deliveries.int() as u64, consumer: place }
    });
    Group {
        name: field("name").bytes(),
        last_id: id(field("last-delivered-id")),
        entries_read: reply.field("entries-read").filter(|n| **n != Reply::Nil).map(|n| n.int() as u64),
        pending: pending.collect(),
        consumers,
    }
}
