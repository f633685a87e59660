//! What `redtape journal … --json` says, as data.

use super::redtape::run;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// One group of effects.
#[derive(Clone, Debug)]
pub struct Group {
    pub lsn: u64,
    pub ts_us: i64,
    pub slack_us: i64,
    pub origin: Origin,
    pub records: Vec<Record>,
}

#[derive(Clone, Debug)]
pub struct Origin {
    pub kind: String,
    pub addr: String,
    pub user: String,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Record {
    pub lsn: u64,
    pub db: u64,
    pub args: Vec<Vec<u8>>,
}

impl Record {
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.args[0]).to_ascii_uppercase()
    }
}

/// All groups, in the journal's order.
pub fn cat(dir: &Path) -> Vec<Group> {
    let dir = dir.to_str().expect("a folder with a plain name");
    let out = run(&["journal", "cat", "--from", dir, "--json"]).expect_success("journal cat");
    let groups: Vec<Group> = out.stdout.lines().map(group).collect();
    assert_ordered(&groups);
    groups
}

/// LSNs without holes, times that never go back.
fn assert_ordered(groups: &[Group]) {
    for pair in groups.windows(2) {
        let [before, after] = pair else { unreachable!("windows of two") };
        assert!(after.ts_us >= before.ts_us, "time goes back: {before:?} then {after:?}");
        let last = before.records.last().expect("a group has a record");
        assert_eq!(after.lsn, last.lsn + 1, "{before:?} then {after:?}");
    }
    for group in groups {
        assert_eq!(group.records[0].lsn, group.lsn, "{group:?}");
        assert!(group.records.windows(2).all(|r| r[1].lsn == r[0].lsn + 1), "{group:?}");
    }
}

fn group(line: &str) -> Group {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"));
    let number = |v: &Value, name: &str| v[name].as_i64().unwrap_or_else(|| panic!("no number {name} in {v}"));
    let origin = &value["origin"];
    let word = |name: &str| origin[name].as_str().unwrap_or_default().to_owned();
    let records = value["records"].as_array().unwrap_or_else(|| panic!("no records in {line}"));
    Group {
        lsn: number(&value, "lsn") as u64,
        ts_us: number(&value, "ts_us"),
        slack_us: number(&value, "slack_us"),
        origin: Origin { kind: word("kind"), addr: word("addr"), user: word("user"), name: word("name") },
        records: records
            .iter()
            .map(|r| Record {
                lsn: number(r, "lsn") as u64,
                db: number(r, "db") as u64,
                args: r["args"].as_array().unwrap_or_else(|| panic!("no args in {r}")).iter().map(argument).collect(),
            })
            .collect(),
    }
}

/// A string, or `{"b64": …}` for what is not UTF-8.
fn argument(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        other => base64(other["b64"].as_str().unwrap_or_else(|| panic!("not an argument: {other}"))),
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("not base64: {}", char::from(other)),
    };
    let mut out = Vec::new();
    let (mut bits, mut held) = (0_u32, 0);
    for c in text.bytes().filter(|&c| c != b'=') {
        bits = (bits << 6) | u32::from(digit(c));
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

/// Up to when a reader of the files finds everything; Unix seconds.
pub fn complete_until(dir: &Path) -> f64 {
    let catalog = redtape_journal::Catalog::open(dir).expect("a journal");
    catalog.timelines().last().map_or(0.0, |timeline| timeline.complete_until.0 as f64 / 1e6)
}

/// How many timelines `journal ls --json` knows: one, as long as nothing was missed.
pub fn timelines(dir: &Path) -> usize {
    let dir = dir.to_str().expect("a folder with a plain name");
    let out = run(&["journal", "ls", "--from", dir, "--json"]).expect_success("journal ls");
    let mut found = BTreeSet::new();
    let mut listed = 0;
    for value in serde_json::Deserializer::from_str(&out.stdout).into_iter::<Value>() {
        let value = value.unwrap_or_else(|e| panic!("not JSON ({e}): {}", out.stdout));
        collect_timelines(&value, &mut found, &mut listed);
    }
    let count = if listed > 0 { listed } else { found.len() };
    assert!(count > 0, "journal ls names no timeline: {}", out.stdout);
    count
}

/// Either a list `timelines`, or entries that say their `timeline`.
fn collect_timelines(value: &Value, found: &mut BTreeSet<String>, listed: &mut usize) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| collect_timelines(v, found, listed)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("timelines", Value::Array(all)) => *listed += all.len(),
                    ("timeline", Value::Number(_) | Value::String(_)) => {
                        found.insert(value.to_string());
                    }
                    _ => collect_timelines(value, found, listed),
                }
            }
        }
        _ => {}
    }
}

/// Every checksum of the journal.
pub fn assert_verified(dir: &Path) {
    let dir = dir.to_str().expect("a folder with a plain name");
    run(&["journal", "verify", "--from", dir]).expect_success("journal verify");
}
