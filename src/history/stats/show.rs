//! The table for people and for machines.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use redtape_journal::Micros;
use redtape_wire::quoted::in_quotes;
use serde_json::{Value as Json, json};

use super::table::{NAME_BYTES_MAX, Row, Table, Tally, VALUES_MAX};
use super::values::Value;
use super::{Asked, By};
use crate::output::{count, shown_key};

impl By {
    fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::User => "user",
            Self::Command => "command",
            Self::Prefix => "prefix",
        }
    }
}

/// A line for each row, up to `limit`.
pub(crate) fn stats_text(table: &Table, asked: Asked, limit: usize) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if table.writes() == 0 {
        return Ok(text);
    }
    writeln!(text, "{:>12}  {:>7}  {:<27}  {:<27}  {}", "writes", "share", "first", "last", asked.by.word())?;
    let mut line = |tally: &Tally, value: &str| {
        let share = format!("{:.1} %", share(tally, table));
        writeln!(text, "{:>12}  {share:>7}  {}  {}  {value}", tally.writes, tally.first, tally.last)
    };
    let rows = table.sorted();
    for Row { value, tally } in rows.iter().take(limit) {
        let shown = match value {
            // In parentheses stands what is no name.
            Value::Named(name) if name.starts_with(b"(") => in_quotes(name),
            Value::Named(name) => shown_key(name),
            Value::Without(why) => why.shown().to_owned(),
        };
        line(tally, &shown)?;
    }
    if table.others.writes > 0 {
        line(&table.others, &format!("(others: more than {VALUES_MAX}, or longer than {NAME_BYTES_MAX} bytes)"))?;
    }
    let left_out = rows.len().saturating_sub(limit);
    if left_out > 0 {
        writeln!(text, "and {} with fewer writes", count(left_out as u64, "more", "more"))?;
    }
    Ok(text)
}

/// One object.
pub(crate) fn stats_json(table: &Table, asked: Asked, limit: usize) -> Json {
    let rows = table.sorted();
    let row = |row: &&Row| {
        let mut object = tally_json(&row.tally, table);
        match &row.value {
            Value::Named(name) => match std::str::from_utf8(name) {
                Ok(text) => object["value"] = text.into(),
                Err(_) => object["value_base64"] = BASE64.encode(name).into(),
            },
            Value::Without(why) => {
                object["value"] = Json::Null;
                object["what"] = why.word().into();
            }
        }
        object
    };
    let mut object = tally_json(&table.all, table);
    object["by"] = asked.by.word().into();
    if asked.by == By::Prefix {
        object["depth"] = asked.depth.into();
    }
    object["rows"] = rows.iter().take(limit).map(row).collect();
    object["rows_left_out"] = rows.len().saturating_sub(limit).into();
    object["others"] = if table.others.writes > 0 { tally_json(&table.others, table) } else { Json::Null };
    object
}

fn tally_json(tally: &Tally, table: &Table) -> Json {
    let time = |ts: Micros| match tally.writes {
        0 => (Json::Null, Json::Null),
        _ => (json!(ts.to_string()), json!(ts.0)),
    };
    let ((first, first_us), (last, last_us)) = (time(tally.first), time(tally.last));
    json!({
        "writes": tally.writes,
        "share": share(tally, table) / 100.0,
        "first_time": first, "first_time_us": first_us,
        "last_time": last, "last_time_us": last_us,
    })
}

/// Percent of all writes.
fn share(tally: &Tally, table: &Table) -> f64 {
    100.0 * tally.writes as f64 / table.writes().max(1) as f64
}
