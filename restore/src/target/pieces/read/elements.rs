//! Strings by `GETRANGE`, lists by `LRANGE`, sets, sorted sets and hashes by their `SCAN`s, which give each element that is there
//! from the first piece to the last at least once.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use redtape_wire::rdb::{Field, Score};

use super::reply::strings;
use super::source::Source;
use crate::client::Value;
use crate::target::pieces::error::ReadPiecesError;
use crate::target::pieces::portion::Portion;

type Bytes = Vec<u8>;

pub(super) fn string(source: &mut Source<'_>) -> Result<Bytes, ReadPiecesError> {
    let mut out = Vec::new();
    loop {
        let (from, to) = (out.len(), out.len() + source.limits.bytes.max(1) - 1);
        let reply = source.ask("GETRANGE", &[from.to_string().as_bytes(), to.to_string().as_bytes()])?;
        let Value::Bytes(piece) = reply else { return Err(ReadPiecesError::Reply("GETRANGE")) };
        out.extend_from_slice(&piece);
        if out.len() <= to {
            return Ok(out);
        }
    }
}

pub(super) fn list(source: &mut Source<'_>) -> Result<Vec<Bytes>, ReadPiecesError> {
    let mut out = Vec::new();
    let mut portion = Portion::new(source.limits);
    loop {
        let (from, to) = (out.len().to_string(), (out.len() + portion.elements() - 1).to_string());
        let piece = strings(source.ask("LRANGE", &[from.as_bytes(), to.as_bytes()])?, "LRANGE")?;
        if piece.is_empty() {
            return Ok(out);
        }
        portion.came(total(&piece));
        out.extend(piece);
    }
}

pub(super) fn set(source: &mut Source<'_>) -> Result<Vec<Bytes>, ReadPiecesError> {
    let mut out = Vec::new();
    scan(source, "SSCAN", &mut |_, piece| {
        out.extend(piece);
        Ok(())
    })?;
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

pub(super) fn zset(source: &mut Source<'_>) -> Result<Vec<(Bytes, Score)>, ReadPiecesError> {
    const BAD: ReadPiecesError = ReadPiecesError::Reply("ZSCAN");
    let mut scores = BTreeMap::new();
    scan(source, "ZSCAN", &mut |_, piece| {
        let mut items = piece.into_iter();
        while let Some(member) = items.next() {
            let text = items.next().ok_or(BAD)?;
            let score = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).and_then(Score::new);
            scores.insert(member, score.ok_or(BAD)?);
        }
        Ok(())
    })?;
    let mut out: Vec<(Bytes, Score)> = scores.into_iter().collect();
    // Members are in order already, and stay so where scores are equal; -0 and 0 are.
    out.sort_by(|(_, a), (_, b)| a.get().partial_cmp(&b.get()).unwrap_or(Ordering::Equal));
    Ok(out)
}

pub(super) fn hash(source: &mut Source<'_>, field_ttls: bool) -> Result<Vec<Field>, ReadPiecesError> {
    let mut fields = BTreeMap::new();
    scan(source, "HSCAN", &mut |source, piece| {
        let mut items = piece.into_iter();
        let mut some = Vec::new();
        while let Some(name) = items.next() {
            let value = items.next().ok_or(ReadPiecesError::Reply("HSCAN"))?;
            some.push(Field { name, value, expires_at_ms: None });
        }
        if field_ttls {
            ask_ttls(source, &mut some)?;
        }
        fields.extend(some.into_iter().map(|field| (field.name, (field.value, field.expires_at_ms))));
        Ok(())
    })?;
    let field = |(name, (value, expires_at_ms))| Field { name, value, expires_at_ms };
    Ok(fields.into_iter().map(field).collect())
}

/// Adds the times, and leaves out fields that have expired since.
fn ask_ttls(source: &mut Source<'_>, fields: &mut Vec<Field>) -> Result<(), ReadPiecesError> {
    const BAD: ReadPiecesError = ReadPiecesError::Reply("HPEXPIRETIME");
    if fields.is_empty() {
        return Ok(());
    }
    let count = fields.len().to_string();
    let mut more: Vec<&[u8]> = vec![b"FIELDS", count.as_bytes()];
    more.extend(fields.iter().map(|field| &field.name[..]));
    let Value::Array(times) = source.ask("HPEXPIRETIME", &more)? else { return Err(ReadPiecesError::Changed) };
    if times.len() != fields.len() {
        return Err(ReadPiecesError::Changed);
    }
    let mut gone = Vec::new();
    for (field, time) in fields.iter_mut().zip(times) {
        let Value::Int(time) = time else { return Err(BAD) };
        // -1: none; -2: no such field.
        field.expires_at_ms = (time >= 0).then_some(time);
        gone.push(time == -2);
    }
    let mut gone = gone.into_iter();
    fields.retain(|_| !gone.next().unwrap_or(false));
    Ok(())
}

/// Takes some elements; may ask for more about them.
type Take<'a> = dyn FnMut(&mut Source<'_>, Vec<Bytes>) -> Result<(), ReadPiecesError> + 'a;

/// Runs through a collection.
fn scan(source: &mut Source<'_>, command: &'static str, take: &mut Take<'_>) -> Result<(), ReadPiecesError> {
    let mut portion = Portion::new(source.limits);
    let mut cursor = b"0".to_vec();
    loop {
        let count = portion.elements().to_string();
        let Value::Array(parts) = source.ask(command, &[&cursor, b"COUNT", count.as_bytes()])? else {
            return Err(ReadPiecesError::Reply(command));
        };
        let mut parts = parts.into_iter();
        let (Some(Value::Bytes(next)), Some(items)) = (parts.next(), parts.next()) else {
            return Err(ReadPiecesError::Reply(command));
        };
        let piece = strings(items, command)?;
        portion.came(total(&piece));
        take(source, piece)?;
        if next == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

fn total(piece: &[Bytes]) -> usize {
    piece.iter().map(Vec::len).sum()
}
