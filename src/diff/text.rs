//! Differences for a person: a block for each key.
//!
//! ```text
//! ~ user:42  db 0  hash, 2 fields
//!   ~ plan  free -> paid    LSN 120
//!   - age   7               LSN 121
//!   LSN 120: 2026-…, 127.0.0.1:5000 billing: fields set (HSET)
//! ```

use std::collections::BTreeMap;

use redtape_journal::query::Zone;
use redtape_journal::{Lsn, Micros};
use redtape_restore::diff::{
    Element, ElementChange, Held, KeyDifference, LastWrite, LibraryChange, ListedElement, Summary,
};

use crate::get::element::score;
use crate::get::text::{Shown, entry_line, group_state, line, readable, told};
use crate::output::{bytes, count, shown_key};

/// How differences are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style<'a> {
    /// How much of a value.
    pub(crate) shown: Shown,
    /// In which times are told.
    pub(crate) zone: &'a Zone,
}

/// The block of a key.
pub(crate) fn key(difference: &KeyDifference, style: Style<'_>) -> String {
    let mut text = String::new();
    line(&mut text, &header(difference));
    if difference.value_differs {
        values(&mut text, difference, style);
    }
    if difference.ttl_differs {
        let end = |held: &Option<Held>| ends(held.as_ref().and_then(|held| held.expires_at_ms), style.zone);
        let (before, after) = (end(&difference.before), end(&difference.after));
        line(&mut text, &format!("  ~ expires {before} -> {after}{}", number(&difference.ttl_write)));
    }
    writes(&mut text, difference, style.zone);
    text
}

fn header(difference: &KeyDifference) -> String {
    let key = format!("{}  db {}", shown_key(&difference.key), difference.db);
    match (&difference.before, &difference.after) {
        (Some(before), None) => format!("- {key}  {}", size(before)),
        (None, Some(after)) => format!("+ {key}  {}", size(after)),
        (Some(before), Some(after)) if before.type_name != after.type_name || before.size != after.size => {
            format!("~ {key}  {} -> {}", size(before), size(after))
        }
        (_, Some(held)) => format!("~ {key}  {}", size(held)),
        (None, None) => format!("~ {key}"),
    }
}

fn size(held: &Held) -> String {
    let n = held.size;
    let size = match &held.type_name[..] {
        "list" => count(n, "element", "elements"),
        "set" | "zset" => count(n, "member", "members"),
        "hash" => count(n, "field", "fields"),
        "stream" => count(n, "entry", "entries"),
        _ => bytes(n),
    };
    format!("{}, {size}", held.type_name)
}

fn values(text: &mut String, difference: &KeyDifference, style: Style<'_>) {
    for (sign, held) in [("-", &difference.before), ("+", &difference.after)] {
        if let Some(string) = held.as_ref().and_then(|held| held.string.as_ref()) {
            line(text, &format!("  {sign} {}", readable(string, style.shown.string_bytes)));
        }
    }
    for element in &difference.elements {
        line(text, &format!("  {}{}", element_line(element, style), number(&element.last_write)));
    }
    if difference.more() > 0 {
        line(text, &format!("  … {} more differ (--limit N shows them)", difference.more()));
    }
    if difference.is_opaque() {
        line(text, "  only the module can read its value; it may mean the same");
    }
    if let (Some(Some(before)), Some(Some(after))) =
        (difference.before.as_ref().map(|held| held.stream), difference.after.as_ref().map(|held| held.stream))
        && before != after
    {
        let (was, is) = (before.last_id, after.last_id);
        let added = after.entries_added;
        line(text, &format!("  ~ last id {was} -> {is}, {added} entries ever added"));
    }
}

fn element_line(listed: &ListedElement, style: Style<'_>) -> String {
    match &listed.change {
        ElementChange::Added(element) => format!("+ {}", whole(element, style)),
        ElementChange::Removed(element) => format!("- {}", whole(element, style)),
        ElementChange::Changed { before, after } => {
            format!("~ {}  {} -> {}", name(after, style), contents(before, style), contents(after, style))
        }
    }
}

fn whole(element: &Element, style: Style<'_>) -> String {
    let contents = contents(element, style);
    let name = name(element, style);
    if contents.is_empty() { name } else { format!("{name}  {contents}") }
}

fn name(element: &Element, style: Style<'_>) -> String {
    let limit = style.shown.element_bytes;
    match element {
        Element::Field(field) => readable(&field.name, limit),
        Element::Member(member) | Element::Scored(member, _) => readable(member, limit),
        Element::Item(at, _) => format!("[{at}]"),
        Element::Entry(entry) => entry.id.to_string(),
        Element::Group(group) => format!("group {}", readable(&group.name, limit)),
    }
}

/// What is in an element, beside its name.
fn contents(element: &Element, style: Style<'_>) -> String {
    let limit = style.shown.element_bytes;
    match element {
        Element::Field(field) => match field.expires_at_ms {
            None => readable(&field.value, limit),
            at => format!("{} (expires {})", readable(&field.value, limit), ends(at, style.zone)),
        },
        Element::Member(_) => String::new(),
        Element::Scored(_, number) => score(*number),
        Element::Item(_, item) => readable(item, limit),
        Element::Entry(entry) => {
            let line = entry_line(entry, style.shown);
            line.split_once("  ").map_or_else(String::new, |(_, fields)| fields.to_owned())
        }
        Element::Group(group) => group_state(group),
    }
}

fn ends(at_ms: Option<i64>, zone: &Zone) -> String {
    at_ms.map_or_else(|| "never".to_owned(), |at| zone.show(Micros(at.saturating_mul(1000))))
}

/// Which of the writes below made it.
fn number(last: &LastWrite) -> String {
    match last {
        LastWrite::NotAsked => String::new(),
        LastWrite::Nothing => "    no write: its time had come".to_owned(),
        LastWrite::Certain(write) => format!("    LSN {}", write.record.lsn),
        LastWrite::Uncertain { lsn, .. } => format!("    perhaps LSN {lsn}"),
    }
}

/// Each write that made something of it, once.
fn writes(text: &mut String, difference: &KeyDifference, zone: &Zone) {
    let parts = difference.elements.iter().map(|element| &element.last_write);
    let all = [&difference.last_write, &difference.ttl_write].into_iter().chain(parts);
    let mut lines: BTreeMap<(Lsn, bool), String> = BTreeMap::new();
    for last in all {
        let told = |write| told(write, (difference.db, &difference.key), zone);
        match last {
            LastWrite::Certain(write) => {
                lines.entry((write.record.lsn, true)).or_insert_with(|| format!("  by {}", told(write)));
            }
            LastWrite::Uncertain { write, lsn, why } => {
                let unread = || format!("LSN {lsn}");
                let what = write.as_deref().map_or_else(unread, told);
                lines.entry((*lsn, false)).or_insert_with(|| format!("  perhaps by {what}; {why}"));
            }
            LastWrite::NotAsked | LastWrite::Nothing => {}
        }
    }
    if difference.last_write == LastWrite::Nothing {
        line(text, "  by no write: its time had come");
    }
    for told in lines.values() {
        line(text, told);
    }
}

/// What there is of what.
pub(crate) fn summary(summary: &Summary) -> String {
    let mut text = String::new();
    let Summary { created, deleted, changed, ttl_only, equal, .. } = summary;
    let keys = count(created + deleted + changed, "key differs", "keys differ");
    let ttl = if *ttl_only > 0 { format!(" ({ttl_only} only in the time of expiry)") } else { String::new() };
    line(
        &mut text,
        &format!("{keys}: {created} created, {deleted} deleted, {changed} changed{ttl}; {equal} compared and equal"),
    );
    if !summary.writes_known {
        line(&mut text, "the journal has a gap between the two points in time: the writers are unknown");
    }
    for (name, change) in summary.libraries.iter().flatten() {
        let what = match change {
            LibraryChange::Created => "created",
            LibraryChange::Deleted => "deleted",
            LibraryChange::Changed => "changed",
        };
        line(&mut text, &format!("function library {}: {what}", shown_key(name.as_bytes())));
    }
    text
}
