//! Groups and records for people and for machines.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use redtape_journal::{Group, Record, TimelineId};
use serde_json::{Value, json};

use super::selection::{KeyChange, Selection, TouchedKey};
use crate::output::{shown, shown_key};

/// Arguments of one record that a person is shown.
const SHOWN_ARGS: usize = 12;
/// Keys of one record of which a person is told what happened to them.
const SHOWN_KEYS: usize = 3;

/// A group for a machine: one object. `keys`: the wanted keys that its wanted records touch.
pub(crate) fn group_json(group: &Group, timeline: TimelineId, selection: &Selection) -> Value {
    let records: Vec<Value> =
        group.records.iter().map(|r| json!({"lsn": r.lsn.0, "db": r.db, "args": args_json(r)})).collect();
    json!({
        "lsn": group.records.first().map_or(0, |r| r.lsn.0),
        "ts": group.ts.to_string(),
        "ts_us": group.ts.0,
        "slack_us": group.slack,
        "timeline": timeline.0,
        "db": group.records.first().map_or(0, |r| r.db),
        "offset": group.end_offset.0,
        "origin": &*group.origin,
        "atomic": group.atomic,
        "keys": keys_json(selection.touched_by(group)),
        "records": records,
    })
}

/// One write for a machine: `keys` are the wanted keys that it touches, `did` says what it did to those that were asked for.
pub(crate) fn record_json(group: &Group, record: &Record, timeline: TimelineId, selection: &Selection) -> Value {
    let mut value = json!({
        "lsn": record.lsn.0,
        "ts": group.ts.to_string(),
        "ts_us": group.ts.0,
        "slack_us": group.slack,
        "timeline": timeline.0,
        "db": record.db,
        "origin": &*group.origin,
        "atomic": group.atomic,
        "args": args_json(record),
        "keys": keys_json(selection.touched(record)),
    });
    let done = selection.done(group, record);
    if !done.is_empty() {
        let did = |d: &KeyChange| json!({"db": d.db, "key": d.key.as_ref().map(|key| bytes_json(key)), "what": d.word});
        value["did"] = done.iter().map(did).collect();
    }
    value
}

/// As `--keys-from` takes them; null = they cannot be listed.
fn keys_json(keys: Option<Vec<TouchedKey<'_>>>) -> Value {
    let one = |(db, key): TouchedKey<'_>| match std::str::from_utf8(key) {
        Ok(text) => json!({"db": db, "key": text}),
        Err(_) => json!({"db": db, "key_base64": BASE64.encode(key)}),
    };
    keys.map_or(Value::Null, |keys| keys.into_iter().map(one).collect())
}

/// Text where it is UTF-8.
fn bytes_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({"b64": BASE64.encode(bytes)}),
    }
}

fn args_json(record: &Record) -> Vec<Value> {
    record.args.iter().map(|arg| bytes_json(arg)).collect()
}

/// One write for a person, in one line. `done`: a column for what it did, if keys are wanted; `only` is the only one of them.
pub(crate) fn record_text(
    text: &mut String,
    group: &Group,
    record: &Record,
    done: Option<&[KeyChange]>,
    only: Option<&[u8]>,
) -> std::fmt::Result {
    let bar = if group.atomic { "|" } else { " " };
    let who = &group.origin;
    write!(text, "{}  {:>8}  {who:<36}  db{:<3}{bar}", group.ts, record.lsn.0, record.db)?;
    if let Some(done) = done {
        let phrase = |d: &KeyChange| match &d.key {
            Some(key) if only != Some(key) => format!("{} {}", shown_key(key), d.what),
            _ => d.what.clone(),
        };
        let mut phrases: Vec<String> = done.iter().take(SHOWN_KEYS).map(phrase).collect();
        if done.len() > SHOWN_KEYS {
            phrases.push(format!("… {} more keys", done.len() - SHOWN_KEYS));
        }
        write!(text, " {:<24} ", phrases.join(", "))?;
    }
    command_text(text, record)?;
    writeln!(text)
}

/// A group for a person: a line for each record, with time and origin on the first one.
pub(crate) fn group_text(text: &mut String, group: &Group) -> std::fmt::Result {
    for (n, record) in group.records.iter().enumerate() {
        let (time, who) =
            if n == 0 { (group.ts.to_string(), group.origin.to_string()) } else { (" ".repeat(27), String::new()) };
        let bar = if group.atomic { "|" } else { " " };
        write!(text, "{:>10}  {time}  {who:<32} db{:<3}{bar}", record.lsn.0, record.db)?;
        command_text(text, record)?;
        writeln!(text)?;
    }
    Ok(())
}

fn command_text(text: &mut String, record: &Record) -> std::fmt::Result {
    let is_key = |at: usize| record.keys.as_ref().is_some_and(|keys| keys.contains(&at));
    for (at, arg) in record.args.iter().enumerate().take(SHOWN_ARGS) {
        write!(text, " {}", if is_key(at) { shown_key(arg) } else { shown(arg) })?;
    }
    if record.args.len() > SHOWN_ARGS {
        write!(text, " … {} more", record.args.len() - SHOWN_ARGS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use redtape_journal::{Origin, OriginKind};

    #[test]
    fn a_client_whose_user_is_not_known_has_an_address() {
        let of = |addr: &str| Origin { addr: addr.to_owned(), ..Origin::of(OriginKind::Unknown) }.to_string();
        assert_eq!((of(""), of("1.2.3.4:5")), ("unknown".to_owned(), "1.2.3.4:5 (user unknown)".to_owned()));
        assert_eq!(format!("{:<9}|", Origin::of(OriginKind::Expiry)), "expiry   |");
    }
}
