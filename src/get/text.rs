//! A key at a point in time for a person.

use std::fmt::Write as _;

use redtape_journal::Micros;
use redtape_journal::query::Zone;
use redtape_restore::get::{Got, LastTouch, Present, State};
use redtape_wire::quoted::in_quotes;
use redtape_wire::rdb::{Field, Group, Stream, StreamEntry, Value, module_type};

use super::element::{Element, score};
use super::{done, size};
use crate::output::{bytes, count, shown_key};

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Elements of a value.
    pub(crate) elements: usize,
    /// Bytes of a string.
    pub(crate) string_bytes: usize,
    /// Bytes of one element.
    pub(crate) element_bytes: usize,
}

impl Shown {
    /// A screen.
    pub(crate) const SOME: Self = Self { elements: 20, string_bytes: 4096, element_bytes: 200 };
    /// Everything.
    pub(crate) const ALL: Self = Self { elements: usize::MAX, string_bytes: usize::MAX, element_bytes: usize::MAX };
}

/// The key and what is in it.
pub(crate) fn whole(got: &Got, shown: Shown) -> String {
    let mut text = String::new();
    let State::Present(present) = &got.state else { return absent(got) };
    header(&mut text, got, present);
    contents(&mut text, got, &present.value, shown);
    if present.expired_fields > 0 {
        let fields = count(present.expired_fields as u64, "field", "fields");
        line(&mut text, &format!("{fields} more had expired, and the server had not removed them yet"));
    }
    text
}

/// One element of it, or that it is not there.
pub(crate) fn one(got: &Got, name: &[u8], element: Option<&Element<'_>>) -> String {
    let mut text = String::new();
    let State::Present(present) = &got.state else { return absent(got) };
    header(&mut text, got, present);
    let what = match (element, &present.value) {
        (None, Value::Set(_)) => format!("no: {} is not a member", shown_key(name)),
        (None, _) => format!("no: it has no {}", shown_key(name)),
        (Some(Element::Member(member)), _) => format!("yes: {} is a member", shown_key(member)),
        (Some(Element::Field(field)), _) => field_line(field, got, Shown::ALL),
        (Some(Element::Scored(member, number)), _) => format!("{}  {}", score(*number), shown_key(member)),
        (Some(Element::Item(at, item)), _) => format!("{at}  {}", readable(item, Shown::ALL.element_bytes)),
        (Some(Element::Entry(entry)), _) => entry_line(entry, Shown::ALL),
    };
    line(&mut text, &what);
    text
}

pub(crate) fn line(text: &mut String, what: &str) {
    text.push_str(what);
    text.push('\n');
}

/// Type, size, end, and who wrote it last.
fn header(text: &mut String, got: &Got, present: &Present) {
    let value = &present.value;
    let n = size(value) as u64;
    let size = match value {
        Value::String(_) => bytes(n),
        Value::Module { id, .. } => format!("of {}, {}", module_type(*id).0, bytes(n)),
        Value::List(_) => count(n, "element", "elements"),
        Value::Set(_) | Value::Zset(_) => count(n, "member", "members"),
        Value::Hash(_) => count(n, "field", "fields"),
        Value::Stream(_) => count(n, "entry", "entries"),
    };
    line(text, &format!("{}  db {}  {}, {size}", shown_key(&got.key), got.db, value.type_name()));
    if let Some(at) = present.expires_at_ms {
        line(text, &format!("expires     {}", end(at, got)));
    }
    last_write(text, got);
}

/// When something expires, and how long that was then.
fn end(at_ms: i64, got: &Got) -> String {
    let at = Micros(at_ms.saturating_mul(1000));
    let left_ms = at.0.saturating_sub(got.point.clock.0) / 1000;
    format!("{}, {}.{:03} s later", got.point.zone.show(at), left_ms / 1000, left_ms % 1000)
}

fn last_write(text: &mut String, got: &Got) {
    let history = &got.history;
    match &history.last {
        Some(touch) => line(text, &format!("last write  {}", told(touch, (got.db, &got.key), &got.point.zone))),
        None => line(text, &format!("last write  not known: {}", unknown(got))),
    }
    if let Some(touch) = &history.uncertain {
        let groups = count(history.uncertain_groups, "command", "commands");
        let behind = if history.last.is_some() { " since" } else { "" };
        line(
            text,
            &format!(
                "perhaps{behind:<5}{groups} may have touched it, the last: {}",
                told(touch, (got.db, &got.key), &got.point.zone)
            ),
        );
    }
}

fn unknown(got: &Got) -> String {
    let base = &got.point.base.manifest;
    if got.history.cut_short {
        return "older writes were not looked at".to_owned();
    }
    format!(
        "the journal has no write of it in this timeline; it goes back to the base of {} (LSN {}) or further",
        got.point.zone.show(base.ts),
        base.lsn
    )
}

/// When, where in the journal, who, what.
pub(crate) fn told(touch: &LastTouch, (db, key): (u32, &[u8]), zone: &Zone) -> String {
    let what = done(touch, db, key).display(shown_key, |us| zone.show(Micros(us))).to_string();
    let name = touch.record.args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
    let bounds = match touch.slack {
        0 => String::new(),
        slack => format!(" (or up to {:.3} ms earlier)", slack as f64 / 1000.0),
    };
    format!(
        "{}{bounds}, LSN {}, {}: {what} ({})",
        zone.show(touch.ts),
        touch.record.lsn,
        touch.origin,
        shown_key(&name)
    )
}

/// That it was not there, and why not.
fn absent(got: &Got) -> String {
    let mut text = String::new();
    let key = shown_key(&got.key);
    match &got.state {
        State::Expired(at) => {
            let at = got.point.zone.show(Micros(at.saturating_mul(1000)));
            line(&mut text, &format!("{key} had expired in db {} at {at}; the server had not removed it yet", got.db));
        }
        _ => line(&mut text, &format!("{key} did not exist in db {}", got.db)),
    }
    last_write(&mut text, got);
    if !got.other_dbs.is_empty() {
        let dbs: Vec<String> = got.other_dbs.iter().map(ToString::to_string).collect();
        line(&mut text, &format!("a key of this name is in db {} (--db {})", dbs.join(", "), dbs[0]));
    }
    text
}

fn contents(text: &mut String, got: &Got, value: &Value, shown: Shown) {
    let lines: Vec<String> = match value {
        Value::String(string) => {
            line(text, &readable_lines(string, shown.string_bytes));
            return;
        }
        Value::Module { .. } => {
            line(text, "only the module can read its value");
            return;
        }
        Value::List(items) => {
            let item = |(at, item): (usize, &Vec<u8>)| format!("{at:>6}  {}", readable(item, shown.element_bytes));
            items.iter().enumerate().take(shown.elements).map(item).collect()
        }
        Value::Set(members) => {
            members.iter().take(shown.elements).map(|m| format!("  {}", readable(m, shown.element_bytes))).collect()
        }
        Value::Zset(members) => {
            let member = |(m, s): &(Vec<u8>, _)| format!("  {:>12}  {}", score(*s), readable(m, shown.element_bytes));
            members.iter().take(shown.elements).map(member).collect()
        }
        Value::Hash(fields) => {
            fields.iter().take(shown.elements).map(|f| format!("  {}", field_line(f, got, shown))).collect()
        }
        Value::Stream(stream) => {
            groups(text, stream, got, shown);
            stream.entries.iter().take(shown.elements).map(|e| format!("  {}", entry_line(e, shown))).collect()
        }
    };
    let more = size(value) - lines.len();
    for shown_line in &lines {
        line(text, shown_line);
    }
    if more > 0 {
        line(text, &format!("  … {more} more (--limit N or --all shows them)"));
    }
}

fn field_line(field: &Field, got: &Got, shown: Shown) -> String {
    let mut text =
        format!("{}  {}", readable(&field.name, shown.element_bytes), readable(&field.value, shown.element_bytes));
    if let Some(at) = field.expires_at_ms {
        let _ = write!(text, "  (expires {})", end(at, got));
    }
    text
}

pub(crate) fn entry_line(entry: &StreamEntry, shown: Shown) -> String {
    let mut text = entry.id.to_string();
    for (name, value) in &entry.fields {
        let _ = write!(text, "  {} {}", readable(name, shown.element_bytes), readable(value, shown.element_bytes));
    }
    text
}

fn groups(text: &mut String, stream: &Stream, got: &Got, shown: Shown) {
    line(text, &format!("last id     {}, {} ever added", stream.last_id, stream.entries_added));
    for group in stream.groups.iter().take(shown.elements) {
        line(text, &group_line(group, shown));
        for consumer in group.consumers.iter().take(shown.elements) {
            let seen = got.point.zone.show(Micros(consumer.seen_ms.saturating_mul(1000)));
            line(text, &format!("  consumer  {}, seen {seen}", readable(&consumer.name, shown.element_bytes)));
        }
        for entry in group.pending.iter().take(shown.elements) {
            let consumer = group.consumers.get(entry.consumer).map_or(&b"?"[..], |c| &c.name);
            let deliveries = count(entry.deliveries, "delivery", "deliveries");
            let consumer = readable(consumer, shown.element_bytes);
            line(text, &format!("  pending   {} of {consumer}, {deliveries}", entry.id));
        }
        if group.pending.len() > shown.elements {
            line(text, &format!("  … {} more pending", group.pending.len() - shown.elements));
        }
    }
    if stream.groups.len() > shown.elements {
        line(text, &format!("… {} more groups", stream.groups.len() - shown.elements));
    }
}

fn group_line(group: &Group, shown: Shown) -> String {
    format!("group       {}: {}", readable(&group.name, shown.element_bytes), group_state(group))
}

/// What a consumer group holds, in short.
pub(crate) fn group_state(group: &Group) -> String {
    format!(
        "last {}, {}, {} pending",
        group.last_id,
        count(group.consumers.len() as u64, "consumer", "consumers"),
        group.pending.len()
    )
}

/// In one line: text as it is, everything else in quotes; nothing controls a terminal.
pub(crate) fn readable(value: &[u8], limit: usize) -> String {
    cut(value, limit, |c| !c.is_control())
}

/// The same of a text of several lines.
fn readable_lines(value: &[u8], limit: usize) -> String {
    cut(value, limit, |c| !c.is_control() || c == '\n' || c == '\t')
}

fn cut(value: &[u8], limit: usize, allowed: impl Fn(char) -> bool) -> String {
    let front = &value[..value.len().min(limit)];
    // The limit may lie within a letter.
    let front = match std::str::from_utf8(front) {
        Err(e) if front.len() < value.len() && e.error_len().is_none() => &front[..e.valid_up_to()],
        _ => front,
    };
    let mut text = match std::str::from_utf8(front) {
        Ok(text) if !text.is_empty() && text.chars().all(allowed) => text.to_owned(),
        _ => in_quotes(front),
    };
    if front.len() < value.len() {
        let _ = write!(text, "…({})", bytes(value.len() as u64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_readable_and_nothing_controls_a_terminal() {
        for (value, want) in [
            (&b"ann"[..], "ann"),
            (b"{\"a\": \"b\"}", "{\"a\": \"b\"}"),
            ("vör".as_bytes(), "vör"),
            (b"", "\"\""),
            (b"a\nb", "\"a\\nb\""),
            (b"\x1b[2J", "\"\\x1b[2J\""),
            ("\u{85}".as_bytes(), "\"\\xc2\\x85\""),
            (b"\xff", "\"\\xff\""),
        ] {
            assert_eq!(readable(value, 100), want);
        }
        assert_eq!(readable_lines(b"a\n\tb", 100), "a\n\tb");
        assert_eq!(readable("vör".as_bytes(), 2), "v…(4 B)");
        assert_eq!(readable(b"\xff\xfe", 1), "\"\\xff\"…(2 B)");
    }
}
