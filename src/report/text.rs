//! The report for people.

use redtape_restore::report::{
    Asked, BigKey, Contents, LIVES, PREFIX_BYTES_MAX, PREFIXES_MAX, PrefixRow, Report, Tally,
};
use redtape_wire::quoted::in_quotes;

use super::table::Table;
use crate::output::{bytes, count, shown_key};

/// The columns of a tally.
const TALLY: [&str; 5] = ["keys", "with TTL", "memory", "share", "in the RDB"];

/// All of it. `top`: rows of biggest keys and of prefixes.
pub(crate) fn text(report: &Report, asked: Asked) -> String {
    let contents = &report.contents;
    let mut text = head(report);
    if contents.all.keys == 0 {
        return text;
    }
    let all = &contents.all;
    let sections = [
        table("database", databases(contents), all),
        types(contents),
        table_of_two("type", "encoding", encodings(contents), all),
        table("expires", lives(contents), all),
        biggest(report),
        prefixes(contents, asked),
    ];
    for section in sections.iter().filter(|section| !section.is_empty()) {
        text.push('\n');
        text += section;
    }
    text
}

fn head(report: &Report) -> String {
    let what = if report.is_base { "base of" } else { "dataset at" };
    let all = &report.contents.all;
    let mut text = format!("{what} {} ({})\n", report.point.echo(), report.server);
    text += &format!(
        "{}, {} with a TTL: about {} of memory, {} in the RDB\n",
        count(all.keys, "key", "keys"),
        all.with_ttl,
        bytes(all.memory_bytes),
        bytes(all.serialized_bytes)
    );
    if let Some(libraries) = report.contents.libraries.filter(|libraries| libraries.count > 0) {
        let named = count(libraries.count, "function library", "function libraries");
        text += &format!("{named}, {} in the RDB\n", bytes(libraries.serialized_bytes));
    }
    if let Some(used) = report.used_memory {
        text +=
            &format!("the server had {} of memory in use, with its tables of keys, buffers and clients\n", bytes(used));
    }
    text
}

fn cells(tally: &Tally, all: &Tally) -> Vec<String> {
    vec![
        tally.keys.to_string(),
        tally.with_ttl.to_string(),
        bytes(tally.memory_bytes),
        share(tally.memory_bytes, all.memory_bytes),
        bytes(tally.serialized_bytes),
    ]
}

fn share(part: u64, all: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / all.max(1) as f64)
}

fn table(name: &str, rows: Vec<(String, Tally)>, all: &Tally) -> String {
    let mut table = Table::new(1, &[&[name], &TALLY[..]].concat());
    for (name, tally) in rows {
        table.row([vec![name], cells(&tally, all)].concat());
    }
    if table.is_empty() { String::new() } else { table.lines(false) }
}

fn table_of_two(first: &str, second: &str, rows: Vec<([String; 2], Tally)>, all: &Tally) -> String {
    let mut table = Table::new(2, &[&[first, second], &TALLY[..]].concat());
    for (names, tally) in rows {
        table.row([names.to_vec(), cells(&tally, all)].concat());
    }
    table.lines(false)
}

fn databases(contents: &Contents) -> Vec<(String, Tally)> {
    let mut rows: Vec<_> = contents.databases.iter().map(|(db, tally)| (db.to_string(), *tally)).collect();
    if contents.other_databases.keys > 0 {
        rows.push(("(others)".to_owned(), contents.other_databases));
    }
    rows
}

fn types(contents: &Contents) -> String {
    let mut table = Table::new(1, &[&["type"], &TALLY[..], &["elements"]].concat());
    for (name, tally) in contents.types() {
        let elements = if name == "string" { String::new() } else { tally.elements.to_string() };
        table.row([vec![name.to_owned()], cells(&tally, &contents.all), vec![elements]].concat());
    }
    table.lines(false)
}

fn encodings(contents: &Contents) -> Vec<([String; 2], Tally)> {
    let row = |(row, tally): (&redtape_restore::report::Encoding, &Tally)| {
        ([row.type_name.clone(), row.encoding.to_owned()], *tally)
    };
    let mut rows: Vec<_> = contents.encodings.iter().map(row).collect();
    rows.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.memory_bytes));
    rows
}

/// Classes without keys are left out.
fn lives(contents: &Contents) -> Vec<(String, Tally)> {
    let lives = &contents.lives;
    let classes = LIVES.iter().zip(&lives.classes).map(|(life, tally)| (life.words.to_owned(), *tally));
    classes.chain([("never".to_owned(), lives.forever)]).filter(|(_, tally)| tally.keys > 0).collect()
}

fn biggest(report: &Report) -> String {
    let mut table = Table::new(
        0,
        &["memory", "in the RDB", "elements", "longest", "type", "encoding", "expires in", "db", "biggest keys"],
    );
    let number = |known: Option<u64>| known.map_or_else(|| "?".to_owned(), |n| n.to_string());
    for key in &report.contents.biggest {
        let is_string = key.type_name == "string";
        table.row([
            bytes(key.memory_bytes),
            bytes(key.serialized_bytes),
            if is_string { String::new() } else { number(key.elements) },
            key.largest.map(bytes).unwrap_or_default(),
            key.type_name.clone(),
            key.encoding.to_owned(),
            key.expires_at_ms.map(|at| left(at, report.point.clock.0 / 1000)).unwrap_or_default(),
            key.db.to_string(),
            name(key),
        ]);
    }
    if table.is_empty() { String::new() } else { table.lines(true) }
}

fn name(key: &BigKey) -> String {
    if key.is_whole() {
        shown_key(&key.key)
    } else {
        format!("{}…({})", in_quotes(&key.key[..64]), bytes(key.key_bytes))
    }
}

/// What is left of a life.
fn left(at_ms: i64, now_ms: i64) -> String {
    let seconds = at_ms.saturating_sub(now_ms).div_euclid(1000);
    match seconds {
        ..0 => "expired".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn prefixes(contents: &Contents, asked: Asked) -> String {
    let found = &contents.prefixes;
    let heading = format!("prefix (up to {})", separators(asked));
    let mut table = Table::new(0, &[&TALLY[..], &[&heading]].concat());
    let mut row = |tally: &Tally, name: String| table.row([cells(tally, &contents.all), vec![name]].concat());
    for PrefixRow { prefix, tally, lacks_at_most } in found.rows.iter().take(asked.top) {
        // In parentheses stands what is no name.
        let name = if prefix.starts_with(b"(") { in_quotes(prefix) } else { shown_key(prefix) };
        let doubt =
            if *lacks_at_most > 0 { format!("  (or up to {} more)", bytes(*lacks_at_most)) } else { String::new() };
        row(tally, name + &doubt);
    }
    if found.none.keys > 0 {
        row(&found.none, format!("(keys without {})", in_quotes(&[asked.separator])));
    }
    let rest = found.rows.get(asked.top..).unwrap_or_default();
    if !rest.is_empty() {
        let mut sum = Tally::default();
        for row in rest {
            sum.add_all(&row.tally);
        }
        row(&sum, format!("({} more)", count(rest.len() as u64, "prefix", "prefixes")));
    }
    if found.others.keys > 0 {
        row(&found.others, format!("(others: more than {PREFIXES_MAX}, or longer than {PREFIX_BYTES_MAX} bytes)"));
    }
    table.lines(true)
}

fn separators(asked: Asked) -> String {
    let separator = in_quotes(&[asked.separator]);
    if asked.depth == 1 { format!("the first {separator}") } else { format!("{separator} number {}", asked.depth) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_life() {
        let shown: Vec<String> = [-1, 999, 119_999, 120_000, 7_200_000, 172_800_000].map(|ms| left(ms, 0)).into();
        assert_eq!(shown, ["expired", "0 s", "119 s", "2 min", "2 h", "2 days"]);
    }
}
