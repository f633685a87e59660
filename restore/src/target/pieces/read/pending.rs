//! The pending entries of a group, some at a time.
//!
//! `XPENDING` says how long ago an entry was delivered, not when, and nothing says what the server's clock showed then. But the
//! distances of one reply count from one point in time. So each piece begins with an entry whose time is known (the first one's
//! from `XINFO STREAM … FULL`, then the last one's of the piece before), and that gives the point in time.
//!
//! A distance of 0 may also stand for a time to come: then the piece is asked for again a little later, and if it still is 0,
//! the clock was set back since.

use std::collections::HashMap;
use std::time::Duration;

use redtape_wire::rdb::{Group, Pending, StreamId};

use super::reply::id;
use super::source::Source;
use crate::client::Value;
use crate::target::pieces::error::ReadPiecesError;

const BAD: ReadPiecesError = ReadPiecesError::Reply("XPENDING");
/// Entries of a piece, of about 100 bytes each.
const PIECE: usize = 1000;
/// How often a piece is asked for that has an entry of just now, and how long is waited in between.
const TRIES: u32 = 3;
const A_MOMENT: Duration = Duration::from_millis(2);

/// An entry whose time of delivery is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) id: StreamId,
    pub(super) delivered_ms: i64,
}

/// A row of the reply.
struct Row {
    id: StreamId,
    consumer: usize,
    idle_ms: i64,
    deliveries: u64,
}

/// All pending entries of a group from the first one on.
pub(super) fn read(source: &mut Source<'_>, group: &Group, first: Anchor) -> Result<Vec<Pending>, ReadPiecesError> {
    let consumers: HashMap<&[u8], usize> =
        group.consumers.iter().enumerate().map(|(place, consumer)| (&consumer.name[..], place)).collect();
    let mut out: Vec<Pending> = Vec::new();
    let mut anchor = first;
    loop {
        let rows = ask(source, group, &consumers, anchor.id)?;
        let Some(known) = rows.first().filter(|row| row.id == anchor.id) else {
            return Err(ReadPiecesError::Changed);
        };
        let now_ms = anchor.delivered_ms + known.idle_ms;
        // The first of a piece is the last of the one before.
        let new = &rows[usize::from(!out.is_empty())..];
        out.extend(new.iter().map(|row| Pending {
            id: row.id,
            delivered_ms: now_ms - row.idle_ms,
            deliveries: row.deliveries,
            consumer: row.consumer,
        }));
        let last = out.last().filter(|last| last.id != anchor.id);
        let Some(last) = last else { return Ok(out) };
        anchor = Anchor { id: last.id, delivered_ms: last.delivered_ms };
    }
}

/// A piece in which no distance is 0.
fn ask(
    source: &mut Source<'_>,
    group: &Group,
    consumers: &HashMap<&[u8], usize>,
    from: StreamId,
) -> Result<Vec<Row>, ReadPiecesError> {
    // The anchor, and one at least.
    let count = (source.limits.elements.min(PIECE) + 1).max(2).to_string();
    let from = from.to_string();
    for _ in 0..TRIES {
        let range: [&[u8]; 4] = [&group.name, from.as_bytes(), b"+", count.as_bytes()];
        let Value::Array(rows) = source.ask("XPENDING", &range)? else { return Err(BAD) };
        let rows = rows.iter().map(|row| read_row(row, consumers)).collect::<Result<Vec<_>, _>>()?;
        if rows.iter().all(|row| row.idle_ms > 0) {
            return Ok(rows);
        }
        std::thread::sleep(A_MOMENT);
    }
    Err(ReadPiecesError::NotInPieces("a stream with an entry that was delivered at a time to come"))
}

fn read_row(row: &Value, consumers: &HashMap<&[u8], usize>) -> Result<Row, ReadPiecesError> {
    let Value::Array(items) = row else { return Err(BAD) };
    let [of, Value::Bytes(consumer), Value::Int(idle_ms), Value::Int(deliveries)] = &items[..] else { return Err(BAD) };
    // One that has come since.
    let consumer = *consumers.get(&consumer[..]).ok_or(ReadPiecesError::Changed)?;
    Ok(Row { id: id(of)?, consumer, idle_ms: *idle_ms, deliveries: deliveries.cast_unsigned() })
}
