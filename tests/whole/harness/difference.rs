//! What truly differs between two recorded states, beside what `redtape diff --json` says of them.

use super::State;
use super::moment::{Key, expiry_tolerance_ms};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};

/// A key that differs: what became of it, whether its value did, its TTL, and which elements of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Difference {
    what: String,
    value: bool,
    /// `None` = servers before Redis 7.0 count from their own now: it cannot be said.
    ttl: Option<bool>,
    /// Of a hash, a set, a sorted set that both have; else none.
    elements: BTreeMap<Vec<u8>, &'static str>,
}

type Differences = BTreeMap<(u32, Vec<u8>), Difference>;

/// By what was written down.
fn truth(before: &State, after: &State) -> Differences {
    let none = BTreeMap::new();
    let dbs: BTreeSet<u32> = before.dbs.keys().chain(after.dbs.keys()).copied().collect();
    let mut found = Differences::new();
    for db in dbs {
        let (was, is) = (before.dbs.get(&db).unwrap_or(&none), after.dbs.get(&db).unwrap_or(&none));
        for name in was.keys().chain(is.keys().filter(|name| !was.contains_key(*name))) {
            let one = |what: &str| {
                Some(Difference { what: what.to_owned(), value: true, ttl: Some(false), elements: BTreeMap::new() })
            };
            let difference = match (was.get(name), is.get(name)) {
                (None, _) => one("created"),
                (_, None) => one("deleted"),
                (Some(was), Some(is)) => changed(was, is),
            };
            found.extend(difference.map(|difference| ((db, name.clone()), difference)));
        }
    }
    found
}

fn changed(was: &Key, is: &Key) -> Option<Difference> {
    // Two servers that replay the same stream count these for themselves.
    let replicated = |key: &Key| -> Option<Vec<String>> {
        let counted = |line: &&str| !line.starts_with("group entries-read") && !line.starts_with("group lag");
        Some(key.stream.as_ref()?.lines().filter(counted).map(str::to_owned).collect())
    };
    // The digest of a value also says whether it has a TTL.
    let contents = if was.expires_ms.is_some() == is.expires_ms.is_some() {
        was.digest != is.digest
    } else {
        was.elements != is.elements || was.shown != is.shown
    };
    let value = was.kind != is.kind || contents || was.fields != is.fields || replicated(was) != replicated(is);
    let ttl = match (was.expires_ms, is.expires_ms) {
        (Some(was), Some(is)) if was != is && (was - is).abs() <= 2 * expiry_tolerance_ms() => None,
        (was, is) => Some(was != is),
    };
    let named = was.kind == is.kind && ["hash", "set", "zset"].contains(&is.kind.as_str());
    let elements = if named { elements(was, is) } else { BTreeMap::new() };
    (value || ttl != Some(false)).then(|| Difference { what: "changed".to_owned(), value, ttl, elements })
}

fn elements(was: &Key, is: &Key) -> BTreeMap<Vec<u8>, &'static str> {
    let names = was.elements.keys().chain(is.elements.keys());
    let one = |name: &Vec<u8>| {
        let held = |key: &Key| Some((key.elements.get(name)?.clone(), key.fields.get(name).copied()));
        let what = match (held(was), held(is)) {
            (None, _) => "added",
            (_, None) => "removed",
            (was, is) if was != is => "changed",
            _ => return None,
        };
        Some((name.clone(), what))
    };
    names.filter_map(one).collect()
}

fn bytes(object: &Json, name: &str) -> Option<Vec<u8>> {
    if let Some(text) = object[name].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    object[format!("{name}_base64")].as_str().map(|text| BASE64.decode(text).expect("Base64"))
}

/// By the lines of `redtape diff --json`; checks what they say of writes, and the summary.
fn told(stdout: &str) -> Differences {
    let lines: Vec<Json> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (summary, keys) = lines.split_last().expect("a summary");
    assert_eq!(summary["what"], "summary", "{summary}");
    let mut found = Differences::new();
    for line in keys {
        let key = (line["db"].as_u64().expect("a database") as u32, bytes(line, "key").expect("a key"));
        check_writes(line, summary);
        let in_both = line["what"] == "changed" && line["before"]["type"] == line["after"]["type"];
        let mut elements = BTreeMap::new();
        for element in line["elements"].as_array().expect("elements").iter().filter(|_| in_both) {
            let what = ["added", "removed", "changed"].into_iter().find(|what| element["what"] == *what);
            if let Some(name) = bytes(element, "field").or_else(|| bytes(element, "member")) {
                elements.insert(name, what.expect("what became of it"));
            }
        }
        let difference = Difference {
            what: line["what"].as_str().expect("what").to_owned(),
            value: line["value_differs"].as_bool().expect("a flag"),
            ttl: line["ttl_differs"].as_bool(),
            elements,
        };
        assert_eq!(line["more"], 0, "all elements were asked for: {line}");
        assert!(found.insert(key, difference).is_none(), "no key comes twice: {line}");
    }
    let count = |what: &str| found.values().filter(|difference| difference.what == what).count();
    for what in ["created", "deleted", "changed"] {
        assert_eq!(summary[what], count(what), "{summary}");
    }
    found
}

/// Each write lies between the points in time, and whatever is there was written by one.
fn check_writes(line: &Json, summary: &Json) {
    let [first, second] = ["first", "second"].map(|point| summary[point]["lsn"].as_u64().expect("an LSN"));
    let check = |write: Option<&Json>, there: bool| match write {
        None => panic!("no write is told: {line}"),
        Some(Json::Null) => assert!(!there, "something was written by nothing: {line}"),
        Some(write) => {
            let lsn = write["lsn"].as_u64().expect("an LSN");
            assert!(first < lsn && lsn <= second, "{first} < {lsn} <= {second}: {line}");
            assert!(write["certain"] == true || write["why"].is_string(), "{line}");
        }
    };
    let named = line["what"] == "changed"
        && line["before"]["type"] == line["after"]["type"]
        && ["hash", "set", "zset"].iter().any(|kind| line["after"]["type"] == *kind);
    if line["value_differs"] == true && named {
        for element in line["elements"].as_array().expect("elements") {
            check(element.get("last_write"), element["what"] != "removed");
        }
    } else if line["value_differs"] == true {
        check(line.get("last_write"), line["what"] != "deleted");
    }
    if line["ttl_differs"] == true {
        check(line.get("ttl_write"), true);
    }
}

/// What the program says is not so, one line each; `db`: it was asked of this database alone.
pub fn mistakes(before: &State, after: &State, db: Option<u32>, stdout: &str) -> Vec<String> {
    let (mut truth, told) = (truth(before, after), told(stdout));
    truth.retain(|(of_db, _), _| db.is_none_or(|db| db == *of_db));
    let mut found = Vec::new();
    let shown = |key: &(u32, Vec<u8>)| format!("db {} '{}'", key.0, key.1.escape_ascii());
    for (key, truly) in &truth {
        let alike = told.get(key).map(|told| Difference { ttl: truly.ttl.and(told.ttl), ..told.clone() });
        match alike {
            // Its TTL may be the same.
            None if !truly.value && truly.ttl.is_none() => {}
            Some(told) if told == *truly => {}
            told => found.push(format!("{}: {told:?}, and it is {truly:?}", shown(key))),
        }
    }
    let others = told.iter().filter(|(key, _)| !truth.contains_key(*key));
    found.extend(others.map(|(key, told)| format!("{}: {told:?}, and it is the same", shown(key))));
    found
}

/// How many keys differ.
pub fn count(before: &State, after: &State) -> usize {
    truth(before, after).len()
}
