//! What a server holds at one point in time, written down so that two servers can be compared.
//!
//! `DEBUG DIGEST` covers db, key, value and whether there is a TTL. It does not see a TTL's value, hash
//! fields' TTLs, a stream's groups and last id, and functions: those are written down beside it, and
//! each key has a digest of its own, so that a difference has a name.

use super::conn::{Conn, Value, bytes, int, items, show_bytes, text};
use super::server::Version;
use super::{now_us, wait_for};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Everything that a restore must bring back.
#[derive(Clone, Debug)]
pub struct State {
    /// When: everything done before is in it, nothing done after.
    pub at_us: i64,
    /// `DEBUG DIGEST` of the whole server.
    pub digest: String,
    pub dbs: BTreeMap<u32, BTreeMap<Vec<u8>, Key>>,
    /// `DBSIZE` of each db that is not empty.
    pub sizes: BTreeMap<u32, i64>,
    /// Code by library name.
    pub functions: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug)]
pub struct Key {
    pub kind: String,
    pub expires_ms: Option<i64>,
    /// `DEBUG DIGEST-VALUE`.
    pub digest: String,
    /// The value as text, for a difference's message; the digest is what counts.
    pub shown: String,
    /// Expiry of the hash fields that have one.
    pub fields: BTreeMap<Vec<u8>, i64>,
    /// `XINFO STREAM FULL` without what is not data.
    pub stream: Option<String>,
    /// Of a hash, a set, a sorted set: what each field or member holds. A string is its only element, without a name.
    pub elements: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What every version says of a stream (`XINFO STREAM FULL`).
const STREAM_LINES: [&str; 10] = [
    "length ",
    "last-generated-id ",
    "entries ",
    "group name ",
    "group last-delivered-id ",
    "group pel-count ",
    "group pending ",
    "consumer name ",
    "consumer pel-count ",
    "consumer pending ",
];
const DBS: u32 = 16;
/// Keys of one pipeline.
const CHUNK: usize = 200;

impl State {
    /// Writes down what `conn`'s server holds. Nobody else may write meanwhile.
    ///
    /// The `SCAN` of every db comes first: it deletes whatever has expired but still lies there, so that
    /// such keys are absent from the digest too.
    pub fn record(conn: &mut Conn) -> Self {
        let keys = sweep(conn);
        let at_us = now_us();
        let mut state = Self {
            at_us,
            digest: String::new(),
            dbs: BTreeMap::new(),
            sizes: BTreeMap::new(),
            functions: functions(conn),
        };
        for (db, keys) in keys {
            conn.must(&args!["SELECT", db]);
            let found = record_keys(conn, &keys);
            let size = int(&conn.must(&args!["DBSIZE"]));
            if size > 0 {
                state.sizes.insert(db, size);
            }
            if !found.is_empty() {
                state.dbs.insert(db, found);
            }
        }
        state.digest = text(&conn.must(&args!["DEBUG", "DIGEST"]));
        state
    }

    /// Writes down what a restored server holds that was told to be as at `at_us`. A key whose time had
    /// come by then counts as absent: its deletion may be in the journal a little later, when the server
    /// came round to it.
    pub fn record_restored(conn: &mut Conn, at_us: i64) -> Self {
        for (db, keys) in sweep(conn) {
            conn.must(&args!["SELECT", db]);
            for keys in keys.chunks(CHUNK) {
                let gone =
                    keys.iter().zip(expiries(conn, keys)).filter(|(_, ms)| ms.is_some_and(|ms| ms < at_us / 1000));
                let commands: Vec<_> = gone.map(|(key, _)| args!["DEL", key]).collect();
                if !commands.is_empty() {
                    pipeline(conn, commands);
                }
            }
        }
        Self { at_us, ..Self::record(conn) }
    }

    /// Waits for a moment with nothing about to expire, then writes it down. All writers must have
    /// stopped; `at_us` then stands for the state without doubt.
    pub fn record_calm(conn: &mut Conn) -> Self {
        let started = Instant::now();
        // How long nothing may expire; grows to what a recording really takes.
        // A minute where the restored server's clock cannot stand still (`Server::at_clock`).
        let stands = Version::tested().timers_by_monotonic_clock();
        let mut window_ms = if stands { 500 } else { 60_000 };
        loop {
            assert!(started.elapsed() < Duration::from_mins(1), "no calm moment in a minute");
            if let Some(next) = next_expiry_ms(conn)
                && next < now_us() / 1000 + window_ms
            {
                let wait = (next - now_us() / 1000 + 3).max(1);
                std::thread::sleep(Duration::from_millis(wait as u64));
                continue;
            }
            let before = now_us() / 1000;
            let state = Self::record(conn);
            let after = now_us() / 1000;
            let digest = text(&conn.must(&args!["DEBUG", "DIGEST"]));
            // 20 ms: so that nothing is about to expire right after, while the caller ends what it does.
            if digest == state.digest && state.next_expiry_ms().is_none_or(|next| next > after + 20) {
                return state;
            }
            window_ms = window_ms.max((after - before) * 2);
        }
    }

    fn next_expiry_ms(&self) -> Option<i64> {
        let keys = self.dbs.values().flat_map(BTreeMap::values);
        keys.flat_map(|k| k.expires_ms.iter().chain(k.fields.values()).copied()).min()
    }

    pub fn keys(&self) -> usize {
        self.dbs.values().map(BTreeMap::len).sum()
    }

    /// How many of what, for the log of a run: an empty world proves nothing.
    pub fn summary(&self) -> String {
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let (mut volatile, mut fields, mut groups) = (0, 0, 0);
        for key in self.dbs.values().flat_map(BTreeMap::values) {
            *kinds.entry(&key.kind).or_default() += 1;
            volatile += usize::from(key.expires_ms.is_some());
            fields += key.fields.len();
            groups += key.stream.as_deref().map_or(0, |s| s.matches("group ").count());
        }
        let kinds: Vec<String> = kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        format!(
            "{} keys in {} dbs ({}), {volatile} with TTL, {fields} fields with TTL, {groups} groups, {} libraries",
            self.keys(),
            self.dbs.len(),
            kinds.join(", "),
            self.functions.len()
        )
    }

    /// What differs, one line each; empty when the states are equal.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let none = BTreeMap::new();
        for db in 0..DBS {
            let (ours, theirs) = (self.dbs.get(&db).unwrap_or(&none), other.dbs.get(&db).unwrap_or(&none));
            for (name, key) in ours {
                let shown = format!("db {db} {} '{}'", key.kind, show_bytes(name));
                match theirs.get(name) {
                    None => found.push(format!("{shown}: missing (expected expiry {:?})", key.expires_ms)),
                    Some(other) => found.extend(key.differences(other).into_iter().map(|d| format!("{shown}: {d}"))),
                }
            }
            for (name, key) in theirs.iter().filter(|(name, _)| !ours.contains_key(*name)) {
                let expiry = key.expires_ms;
                found.push(format!(
                    "db {db} {} '{}': there, but should not be (expiry {expiry:?})",
                    key.kind,
                    show_bytes(name)
                ));
            }
        }
        if self.sizes != other.sizes {
            found.push(format!("DBSIZE: expected {:?}, found {:?}", self.sizes, other.sizes));
        }
        for name in self.functions.keys().chain(other.functions.keys()) {
            let (ours, theirs) = (self.functions.get(name), other.functions.get(name));
            if ours != theirs {
                let shown = |code: Option<&Vec<u8>>| code.map(|c| show_bytes(c));
                found.push(format!("library {name}: expected {:?}, found {:?}", shown(ours), shown(theirs)));
            }
        }
        if self.digest != other.digest {
            found.push(format!("DEBUG DIGEST: expected {}, found {}", self.digest, other.digest));
        }
        found
    }

    /// Panics when `found`, on a server of any other version, does not hold the same values.
    #[track_caller]
    pub fn assert_same_values(&self, found: &Self, what: &str) {
        let comparable = |state: &Self| {
            let mut state = state.clone();
            state.digest.clear();
            state.dbs.values_mut().flat_map(BTreeMap::values_mut).for_each(Key::forget_version);
            state
        };
        comparable(self).assert_same(&comparable(found), what);
    }

    /// Panics with the first differences when `found` is not what this state says.
    #[track_caller]
    pub fn assert_same(&self, found: &Self, what: &str) {
        let differences = self.differences(found);
        let shown = differences.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n  ");
        assert!(
            differences.is_empty(),
            "{what} (at {}): {} differences; expected {} and found {}\n  {shown}",
            super::rfc3339(self.at_us),
            differences.len(),
            self.summary(),
            found.summary(),
        );
    }
}

impl Key {
    /// Keeps what servers of every version say in the same words.
    fn forget_version(&mut self) {
        // That of a hash says whether fields have times of expiry, in some versions.
        self.digest.clear();
        if self.kind == "zset" {
            // A score may be written with more digits than it needs, and some servers forget the sign of zero.
            let score = |text: &Vec<u8>| String::from_utf8_lossy(text).parse::<f64>().expect("a score") + 0.0;
            self.elements.values_mut().for_each(|text| *text = score(text).to_string().into_bytes());
        }
        if matches!(self.kind.as_str(), "zset" | "hash" | "set" | "string") {
            let elements = self.elements.iter().map(|(k, v)| format!("{}={}", k.escape_ascii(), v.escape_ascii()));
            self.shown = elements.collect::<Vec<_>>().join(" ");
        }
        if let Some(stream) = &mut self.stream {
            let known = |line: &&str| STREAM_LINES.iter().any(|known| line.trim_start().starts_with(known));
            *stream = stream.lines().filter(known).map(|line| format!("{line}\n")).collect();
        }
        self.digest.clone_from(&self.shown);
    }

    fn differences(&self, other: &Self) -> Vec<String> {
        if self.kind != other.kind {
            return vec![format!("is a {} now", other.kind)];
        }
        let mut found = Vec::new();
        let expires_alike = match (self.expires_ms, other.expires_ms) {
            (Some(ours), Some(theirs)) => (ours - theirs).abs() <= expiry_tolerance_ms(),
            (ours, theirs) => ours == theirs,
        };
        if !expires_alike {
            found.push(format!("expiry: expected {:?}, found {:?}", self.expires_ms, other.expires_ms));
        }
        if self.digest != other.digest {
            let (ours, theirs) = from_difference(&self.shown, &other.shown);
            found.push(format!("another value: expected {ours}, found {theirs}"));
        }
        for name in self.fields.keys().chain(other.fields.keys().filter(|n| !self.fields.contains_key(*n))) {
            let (ours, theirs) = (self.fields.get(name), other.fields.get(name));
            if ours != theirs {
                found.push(format!("field '{}' expiry: expected {ours:?}, found {theirs:?}", show_bytes(name)));
            }
        }
        if self.stream != other.stream {
            let (ours, theirs) = (self.stream.as_deref().unwrap_or(""), other.stream.as_deref().unwrap_or(""));
            let line = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b);
            found.push(match line {
                Some((a, b)) => {
                    let (a, b) = from_difference(a, b);
                    format!("stream: expected '{a}', found '{b}'")
                }
                None => format!("stream: expected {} lines, found {}", ours.lines().count(), theirs.lines().count()),
            });
        }
        found
    }
}

/// How far two expiry times of the same key may lie apart.
///
/// Before Redis 7.0 the replication stream carries a TTL as it was given, `EXPIRE k 10`, and each replica
/// counts from its own now: the point in time is known as well as the effect's own time.
pub fn expiry_tolerance_ms() -> i64 {
    if Version::tested().at_least((7, 0), (0, 0)) { 0 } else { 250 }
}

/// Two texts, from a little before where they begin to differ.
fn from_difference(a: &str, b: &str) -> (String, String) {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
    let cut = |s: &str| {
        let text: String = s.chars().skip(same.saturating_sub(60)).take(200).collect();
        format!("{}{text}{}", if same > 60 { "…" } else { "" }, if s.chars().count() > same + 140 { "…" } else { "" })
    };
    (cut(a), cut(b))
}

/// The names of all keys of each db. The server deletes expired ones as it meets them.
fn sweep(conn: &mut Conn) -> BTreeMap<u32, Vec<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for db in 0..DBS {
        // A node of a cluster has database 0 alone, if nothing else is set.
        match conn.call(&args!["SELECT", db]).expect("a reply") {
            Value::Error(e) if db > 0 && (e.contains("cluster") || e.contains("out of range")) => break,
            Value::Error(e) => panic!("SELECT {db}: {e}"),
            _ => {}
        }
        let mut keys = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let page = items(&conn.must(&args!["SCAN", cursor, "COUNT", 1000]));
            keys.extend(items(&page[1]).iter().map(bytes));
            cursor = text(&page[0]);
            if cursor == "0" {
                break;
            }
        }
        // A rehash during the scan may show a key twice.
        keys.sort();
        keys.dedup();
        if !keys.is_empty() {
            found.insert(db, keys);
        }
    }
    found
}

/// When the next key or field expires; sweeps away what has expired already.
fn next_expiry_ms(conn: &mut Conn) -> Option<i64> {
    let mut next: Option<i64> = None;
    for (db, keys) in sweep(conn) {
        conn.must(&args!["SELECT", db]);
        for keys in keys.chunks(CHUNK) {
            let kinds = pipeline(conn, keys.iter().map(|k| args!["TYPE", k]).collect());
            let expiries = expiries(conn, keys);
            let hashes: Vec<Vec<u8>> =
                keys.iter().zip(&kinds).filter(|(_, kind)| text(kind) == "hash").map(|(k, _)| k.clone()).collect();
            let fields = field_expiries(conn, &hashes);
            let all = expiries.into_iter().flatten().chain(fields.values().flat_map(|f| f.values().copied()));
            next = next.into_iter().chain(all).min();
        }
    }
    next
}

fn record_keys(conn: &mut Conn, keys: &[Vec<u8>]) -> BTreeMap<Vec<u8>, Key> {
    let mut found = BTreeMap::new();
    for keys in keys.chunks(CHUNK) {
        let kinds = pipeline(conn, keys.iter().map(|k| args!["TYPE", k]).collect());
        let digests = pipeline(conn, keys.iter().map(|k| args!["DEBUG", "DIGEST-VALUE", k]).collect());
        let expiries = expiries(conn, keys);
        for (i, name) in keys.iter().enumerate() {
            let kind = text(&kinds[i]);
            if kind == "none" {
                continue;
            }
            let digest = text(&items(&digests[i])[0]);
            let (fields, stream, shown, elements) = (BTreeMap::new(), None, String::new(), BTreeMap::new());
            let key = Key { kind, expires_ms: expiries[i], digest, shown, fields, stream, elements };
            found.insert(name.clone(), key);
        }
    }
    show_values(conn, &mut found);
    let of_kind = |found: &BTreeMap<Vec<u8>, Key>, kind: &str| -> Vec<Vec<u8>> {
        found.iter().filter(|(_, key)| key.kind == kind).map(|(name, _)| name.clone()).collect()
    };
    for (name, fields) in field_expiries(conn, &of_kind(&found, "hash")) {
        found.get_mut(&name).expect("a hash just seen").fields = fields;
    }
    for names in of_kind(&found, "stream").chunks(CHUNK) {
        let full = pipeline(conn, names.iter().map(|k| args!["XINFO", "STREAM", k, "FULL", "COUNT", 0]).collect());
        for (name, info) in names.iter().zip(full) {
            found.get_mut(name).expect("a stream just seen").stream = Some(describe_stream(&info));
        }
    }
    found
}

fn show_values(conn: &mut Conn, found: &mut BTreeMap<Vec<u8>, Key>) {
    let mut found: Vec<_> = found.iter_mut().collect();
    for found in found.chunks_mut(CHUNK) {
        let ask = found.iter().map(|(name, key)| match key.kind.as_str() {
            "string" => args!["GET", name],
            "list" => args!["LRANGE", name, 0, -1],
            "set" => args!["SMEMBERS", name],
            "zset" => args!["ZRANGE", name, 0, -1, "WITHSCORES"],
            "hash" => args!["HGETALL", name],
            // A stream has its own description.
            _ => args!["TYPE", name],
        });
        let values = pipeline(conn, ask.collect());
        for ((_, key), value) in found.iter_mut().zip(&values) {
            let Value::Array(items) = value else {
                key.shown = describe(value).chars().take(200).collect();
                // On a server whose clock runs it may have expired meanwhile, and has no value then.
                if key.kind == "string" && !matches!(value, Value::Nil) {
                    key.elements.insert(Vec::new(), bytes(value));
                }
                continue;
            };
            let width = if matches!(key.kind.as_str(), "hash" | "zset") { 2 } else { 1 };
            let mut parts: Vec<String> =
                items.chunks(width).map(|c| c.iter().map(describe).collect::<Vec<_>>().join("=")).collect();
            if matches!(key.kind.as_str(), "hash" | "set") {
                parts.sort();
            }
            if matches!(key.kind.as_str(), "hash" | "set" | "zset") {
                let element = |c: &[Value]| (bytes(&c[0]), c.get(1).map(bytes).unwrap_or_default());
                key.elements = items.chunks(width).map(element).collect();
            }
            key.shown = parts.join(" ");
        }
    }
}

#[track_caller]
fn pipeline(conn: &mut Conn, commands: Vec<super::Args>) -> Vec<Value> {
    conn.pipeline(&commands).unwrap_or_else(|e| panic!("{}…: {e}", super::conn::show(&commands[0])))
}

/// The expiry times of keys of the selected db.
fn expiries(conn: &mut Conn, keys: &[Vec<u8>]) -> Vec<Option<i64>> {
    if Version::tested().at_least((7, 0), (0, 0)) {
        let times = pipeline(conn, keys.iter().map(|k| args!["PEXPIRETIME", k]).collect());
        return times.iter().map(|t| Some(int(t)).filter(|&ms| ms >= 0)).collect();
    }
    // No PEXPIRETIME: a TTL read between two looks at the clock that saw the same millisecond.
    keys.chunks(20).flat_map(|keys| expiries_by_ttl(conn, keys)).collect()
}

fn expiries_by_ttl(conn: &mut Conn, keys: &[Vec<u8>]) -> Vec<Option<i64>> {
    wait_for("a transaction within one millisecond", Duration::from_secs(10), || {
        let mut commands = vec![args!["MULTI"], args!["TIME"]];
        commands.extend(keys.iter().map(|k| args!["PTTL", k]));
        commands.extend([args!["TIME"], args!["EXEC"]]);
        let replies = items(pipeline(conn, commands).last().expect("EXEC's reply"));
        let ms = |time: &Value| {
            let parts = items(time);
            int(&parts[0]) * 1000 + int(&parts[1]) / 1000
        };
        let (before, after) = (ms(&replies[0]), ms(replies.last().expect("two times")));
        let ttls = &replies[1..replies.len() - 1];
        (before == after).then(|| ttls.iter().map(|t| Some(int(t)).filter(|&t| t >= 0).map(|t| before + t)).collect())
    })
}

/// The hash fields with a TTL, of the hashes that have such (Redis 7.4, Valkey 9).
fn field_expiries(conn: &mut Conn, hashes: &[Vec<u8>]) -> BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, i64>> {
    let mut found = BTreeMap::new();
    if hashes.is_empty() || !Version::tested().at_least((7, 4), (9, 0)) {
        return found;
    }
    let names = wait_for("expired hash fields to be gone", Duration::from_secs(10), || {
        let names = pipeline(conn, hashes.iter().map(|k| args!["HKEYS", k]).collect());
        let counts = pipeline(conn, hashes.iter().map(|k| args!["HLEN", k]).collect());
        // HLEN counts fields that have expired but still lie there; HKEYS does not show them.
        let gone = names.iter().zip(&counts).all(|(names, count)| items(names).len() as i64 == int(count));
        gone.then_some(names)
    });
    for (hash, names) in hashes.iter().zip(&names) {
        let names: Vec<Vec<u8>> = items(names).iter().map(bytes).collect();
        if names.is_empty() {
            continue;
        }
        let mut ask = args!["HPEXPIRETIME", hash, "FIELDS", names.len()];
        ask.0.extend(names.iter().cloned());
        let times = items(&conn.must(&ask));
        let fields: BTreeMap<_, _> = names.into_iter().zip(times.iter().map(int)).filter(|(_, ms)| *ms >= 0).collect();
        if !fields.is_empty() {
            found.insert(hash.clone(), fields);
        }
    }
    found
}

/// Libraries with their code. Not `FUNCTION DUMP`, whose order depends on a hash seed.
fn functions(conn: &mut Conn) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    if Version::tested().at_least((7, 0), (0, 0)) {
        for library in items(&conn.must(&args!["FUNCTION", "LIST", "WITHCODE"])) {
            let fields: BTreeMap<String, Value> = pairs(&library).collect();
            found.insert(text(&fields["library_name"]), bytes(&fields["library_code"]));
        }
    }
    found
}

fn pairs(value: &Value) -> impl Iterator<Item = (String, Value)> {
    let all = items(value);
    (0..all.len() / 2).map(move |i| (text(&all[2 * i]), all[2 * i + 1].clone()))
}

/// `XINFO STREAM FULL` as lines.
fn describe_stream(info: &Value) -> String {
    let mut out = String::new();
    for (name, value) in pairs(info) {
        match name.as_str() {
            // How the entries are packed, not what they are.
            "radix-tree-keys" | "radix-tree-nodes" => {}
            "groups" => {
                for group in items(&value) {
                    describe_group(&group, &mut out);
                }
            }
            _ => {
                let _ = writeln!(out, "{name} {}", describe(&value));
            }
        }
    }
    out
}

fn describe_group(group: &Value, out: &mut String) {
    for (name, value) in pairs(group) {
        // How many entries a group has read goes into the stream since Redis 7.2 (with XGROUP SETID); a
        // replica of 7.0 does not know it either. The lag is computed from it.
        if matches!(name.as_str(), "entries-read" | "lag") && !Version::tested().at_least((7, 2), (7, 2)) {
            continue;
        }
        if name != "consumers" {
            let _ = writeln!(out, "group {name} {}", describe(&value));
            continue;
        }
        for consumer in items(&value) {
            for (name, value) in pairs(&consumer) {
                match name.as_str() {
                    // When a consumer was last heard of: not in the replication stream.
                    "seen-time" | "active-time" => {}
                    _ => {
                        let _ = writeln!(out, "  consumer {name} {}", describe(&value));
                    }
                }
            }
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Nil => "nil".to_owned(),
        Value::Int(n) => n.to_string(),
        Value::Array(_) | Value::Map(_) | Value::Set(_) => {
            let inner: Vec<String> = items(value).iter().map(describe).collect();
            format!("[{}]", inner.join(" "))
        }
        other => format!("'{}'", bytes(other).escape_ascii()),
    }
}
