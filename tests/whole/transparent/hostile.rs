//! Conversations of attackers beside victims: logins, transactions, silence, subscriptions and blocking commands in
//! pipelines, with NULs in words and names, numbers that only some parsers take, and requests of more than 64 KiB.
//!
//! Each user may only write keys with a first letter of its own, so the server itself says who has written a key: in the
//! journal no write may stand under another user's name.

use super::commands::Request;
use crate::harness::Conn;
use crate::harness::conn::{Value, items};
use crate::harness::journal::Group;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;

/// What is left out, each with the reason: the named list of what may differ from the bare server.
///
/// - `MONITOR`, `INFO`, `COMMAND`, `CLIENT LIST`, `WAIT`, `REDTAPE.*` without a NUL: tell of redtape itself.
/// - `CLIENT PAUSE`, `CLIENT KILL`, `SHUTDOWN`, `CONFIG`: act on the connections of the test; tests of their own.
/// - Who has written what several have asked for in the same words, where no replies are seen: each write that is judged has
///   a key of its own, but for those of the victims, whose replies are seen. What a blocked client gets is not judged.
/// - Scripts: what the journal says of them is not about sessions.
/// - Requests behind `QUIT`: a server that closes while requests lie unread may take back what it said last.
/// - What a server does with requests that it has read when their client resets the connection: chance; a test of its own.
const TEMPLATES: &[&str] = &[
    "AUTH {login}",
    "AUTH {login}",
    "AUTH {u} wrong",
    "AUTH wrong",
    "HELLO 3 AUTH {login}",
    "HELLO 2 AUTH {login} SETNAME {name}",
    "HELLO 3 SETNAME {name} AUTH {login}",
    "HELLO {n}",
    "HELLO {n} AUTH {login}",
    "HELLO 2 AUTH {login} AUTH {u} wrong",
    "HELLO 3 {v} AUTH {login}",
    "RESET",
    "SELECT {n}",
    "SELECT {n}",
    "MULTI",
    "EXEC",
    "DISCARD",
    "EXEC",
    "MULTI",
    "EXEC",
    "DISCARD",
    "EXEC",
    "WATCH {k}",
    "UNWATCH",
    "CLIENT REPLY ON",
    "CLIENT REPLY OFF",
    "CLIENT REPLY SKIP",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING OFF",
    "CLIENT SETNAME {name}",
    "CLIENT NO-EVICT ON",
    "CLIENT GETNAME",
    "SUBSCRIBE {c}",
    "PSUBSCRIBE {c}*",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "PUBLISH {c} {v}",
    "BLPOP {k} {wait}",
    "BLMOVE {k} {k} LEFT RIGHT {wait}",
    "XREAD BLOCK {wait} STREAMS {k} $",
    "XREAD COUNT {n} BLOCK {n} STREAMS {k} 0",
    "XREAD COUNT 2 STREAMS {k} 0",
    "XREADGROUP GROUP g c BLOCK {wait} STREAMS {k} >",
    "XGROUP CREATE {k} g $ MKSTREAM",
    "SET {k} {v}",
    "SET {k} {v}",
    "SET {k} {v} NX GET",
    "SET {k} {v} XX KEEPTTL",
    "INCR {k}",
    "RPUSH {k} {v}",
    "LPOP {k} {n}",
    "XADD {k} * f {v}",
    "SORT {k} ALPHA STORE {k}",
    "COPY {k} {k} DB {n}",
    "MOVE {k} {n}",
    "DEL {k}",
    "FLUSHALL",
    "SWAPDB {n} {n}",
    "GET {k}",
    "GET {k}",
    "MGET {k} {k}",
    "ACL WHOAMI",
    "ACL WHOAMI",
    "ACL SETUSER",
    "SCRIPT EXISTS x",
    "SCRIPT KILL",
    "FUNCTION KILL",
    "PING",
    "ECHO {v}",
    "QUIT",
    "NOSUCH {v}",
    "REDTAPE.MARK\0 {v}",
    "redtape.info\0x",
];

/// Commands and subcommands that are also sent under a name with a NUL which the server takes for them.
const NAMES: &[&str] = &[
    "AUTH",
    "HELLO",
    "RESET",
    "SELECT",
    "MULTI",
    "EXEC",
    "DISCARD",
    "CLIENT",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "SET",
    "GET",
    "INCR",
    "XREAD",
    "BLPOP",
    "RPUSH",
    "WATCH",
    "FLUSHALL",
    "CLIENT|REPLY",
    "CLIENT|TRACKING",
    "CLIENT|SETNAME",
    "ACL|WHOAMI",
];

/// Names of each that are looked for.
const HITS: usize = 3;
const LOOKED_FOR_AT_ONCE: usize = 500;

/// Numbers as no client writes them, and some as all do.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "3",
    "2",
    "5",
    "15",
    "16",
    "99",
    "-1",
    "+1",
    "01",
    " 1",
    "1 ",
    "1\0",
    "0x1",
    "1e0",
    "1.0",
    "",
    "9223372036854775808",
    "4294967297",
];

/// What a server never sees the end of.
pub const ENDLESS: &[&[u8]] = &[b"PING\0\r\nAUTH ann annpw\r\n", b"\0\n", b"*1\0\r\n$4\r\nPING\r\n"];

/// A user: its name, its password, and the first letter of its keys.
pub const USERS: &[(&[u8], &str, char)] = &[
    (b"default", "any", 'd'),
    (b"ann", "annpw", 'a'),
    (b"bob", "bobpw", 'b'),
    (b"\xff", "same", 'f'),
    (b"\xfe", "same", 'g'),
];

/// Writes of which is looked at who the journal says they are of.
const JUDGED: &[&str] = &["SET", "INCR", "RPUSH", "XADD"];
/// Numbers of keys that attackers ask for again.
const KEYS_AGAIN: u64 = 12;

/// A request that is longer than what redtape waits for.
const HUGE: usize = 70_000;

pub fn users(conn: &mut Conn) {
    for (name, password, letter) in USERS {
        let mut command =
            args!["ACL", "SETUSER", *name, "on", "resetkeys", format!("~{letter}*"), "allchannels", "+@all"];
        if *name != b"default" {
            command.push(format!(">{password}"));
        }
        if *name == b"bob" {
            command.push("-@dangerous");
        }
        conn.must(&command);
    }
}

pub struct Hostile {
    /// The first of the connections are attackers.
    attackers: usize,
    hits: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
    /// How many keys attackers have had.
    keys: u64,
    /// Of each connection: it has said who it is since it was opened.
    logged_in: Vec<bool>,
}

impl Hostile {
    pub fn new(attackers: usize, connections: usize, servers: [&mut Conn; 2]) -> Self {
        let [direct, behind] = servers;
        // What asking leaves behind must be in both, and what they say is the same.
        let of_both = |name: &&str| {
            let found = hits(direct, name);
            assert_eq!(hits(behind, name), found, "the servers have different hash seeds");
            (name.as_bytes().to_vec(), found)
        };
        let hits = NAMES.iter().map(of_both).collect();
        Self { attackers, hits, keys: 0, logged_in: vec![false; connections] }
    }

    pub fn is_attacker(&self, conn: usize) -> bool {
        conn < self.attackers
    }

    /// A connection begins anew.
    pub fn forget(&mut self, conn: usize) {
        self.logged_in[conn] = false;
    }

    pub fn one(&mut self, rng: &mut StdRng, conn: usize) -> Request {
        if self.is_attacker(conn) {
            return self.attack(rng);
        }
        let (user, password, letter) = USERS[conn % USERS.len()];
        if !std::mem::replace(&mut self.logged_in[conn], true) {
            return Request::of(vec![b"AUTH".to_vec(), user.to_vec(), password.into()], false);
        }
        let key = format!("{letter}{}", rng.random_range(0..4));
        let line = *["GET {}", "SET {} v", "INCR {}", "RPUSH {} x", "LPOP {}", "GET {}", "PING", "XADD {} * f v"]
            .choose(rng)
            .expect("commands");
        Request::of(line.replace("{}", &key).split(' ').map(|w| w.as_bytes().to_vec()).collect(), false)
    }

    fn attack(&mut self, rng: &mut StdRng) -> Request {
        let template = *TEMPLATES.choose(rng).expect("templates");
        let mut args = Vec::new();
        let is_judged = JUDGED.contains(&template.split(' ').next().unwrap_or_default());
        for word in template.split(' ') {
            if word == "{k}" {
                let key = self.key(rng, is_judged);
                args.push(key);
            } else {
                fill(word, rng, &mut args);
            }
        }
        for _ in 0..rng.random_range(0..3) {
            self.change(rng, &mut args);
        }
        Request::of(args, rng.random_ratio(1, 10))
    }

    /// Of anybody: a new one, or one that was written or not.
    fn key(&mut self, rng: &mut StdRng, new: bool) -> Vec<u8> {
        let letter = USERS.choose(rng).expect("users").2;
        if !new && rng.random_bool(0.5) {
            return format!("{letter}{}", rng.random_range(0..4)).into_bytes();
        }
        self.keys += u64::from(new);
        let back = if new { 0 } else { rng.random_range(0..KEYS_AGAIN) };
        format!("{letter}-{}", self.keys.saturating_sub(back)).into_bytes()
    }

    fn change(&self, rng: &mut StdRng, args: &mut Vec<Vec<u8>>) {
        let at = rng.random_range(0..args.len());
        let junk = |rng: &mut StdRng| (0..rng.random_range(0..3)).map(|_| rng.random()).collect::<Vec<u8>>();
        match rng.random_range(0..20) {
            0..5 if args[at].first().is_some_and(u8::is_ascii_alphabetic) => {
                args[at].push(0);
                args[at].extend(junk(rng));
            }
            5..10 => self.rename(rng, args),
            10 => args.insert(at.max(1), vec![b'n'; HUGE]),
            11 if at > 0 => args[at].resize(HUGE, b'n'),
            12 => args.push(b"AUTH".to_vec()),
            13 if args.len() > 1 => drop(args.pop()),
            14 => args.insert(at, args[at].clone()),
            15..18 => args[at].make_ascii_lowercase(),
            18 => args[at] = junk(rng),
            _ => {}
        }
    }

    /// The same command or subcommand by a name that ends with a NUL for the server.
    fn rename(&self, rng: &mut StdRng, args: &mut [Vec<u8>]) {
        let upper = |arg: &[u8]| arg.to_ascii_uppercase();
        let find = |name: Vec<u8>| self.hits.iter().find(|(n, _)| *n == name).map(|(_, hits)| hits);
        if args.len() > 1
            && rng.random_bool(0.5)
            && let Some(hits) = find([upper(&args[0]), upper(&args[1])].join(&b'|'))
            && let Some(hit) = hits.choose(rng)
        {
            args[1].clone_from(hit);
        } else if let Some(hit) = find(upper(&args[0])).and_then(|hits| hits.choose(rng)) {
            args[0].clone_from(hit);
        }
    }
}

/// Names with a NUL that the server takes for this one.
fn hits(server: &mut Conn, name: &str) -> Vec<Vec<u8>> {
    let last = name.rsplit('|').next().expect("a word");
    let mut found = Vec::new();
    let mut from = 0;
    while found.len() < HITS && from < 40 * LOOKED_FOR_AT_ONCE {
        let names: Vec<String> = (from..from + LOOKED_FOR_AT_ONCE).map(|n| format!("\0{n:05}")).collect();
        let mut command = args!["COMMAND", "INFO"];
        names.iter().for_each(|end| command.push(format!("{name}{end}")));
        let rows = items(&server.must(&command));
        let hit = rows.iter().zip(&names).filter(|(row, _)| **row != Value::Nil);
        found.extend(hit.map(|(_, end)| format!("{last}{end}").into_bytes()));
        from += LOOKED_FOR_AT_ONCE;
    }
    found.truncate(HITS);
    if found.is_empty() {
        // Older servers compare subcommands as they are.
        found.push(format!("{last}\0").into_bytes());
    }
    found
}

/// Adds what stands for a word of a template.
fn fill(word: &str, rng: &mut StdRng, args: &mut Vec<Vec<u8>>) {
    let (user, password, _) = USERS.choose(rng).expect("users");
    let arg = match word {
        "{login}" => {
            args.push(user.to_vec());
            password.as_bytes().to_vec()
        }
        "{u}" => user.to_vec(),
        "{n}" => NUMBERS.choose(rng).expect("numbers").as_bytes().to_vec(),
        "{wait}" => ["0", "0", "1000", "-1", "x"].choose(rng).expect("times").as_bytes().to_vec(),
        "{c}" => format!("c{}", rng.random_range(0..2)).into_bytes(),
        "{name}" => ["x", "app", "AUTH", "", "a b", "\0"].choose(rng).expect("names").as_bytes().to_vec(),
        "{v}" => ["v", "1", "AUTH", "BLOCK", "\0", "a\0b", ""].choose(rng).expect("values").as_bytes().to_vec(),
        word => word.replace("{c}", "c").into_bytes(),
    };
    args.push(arg);
}

/// What the journal says of who has written, by kind of origin; panics where it names another user than the one who may,
/// or nobody who came by redtape.
pub fn judge_origins(groups: &[Group]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for group in groups {
        for record in &group.records {
            // The key that the test itself has written beside redtape.
            let key = record.args.get(1).filter(|key| *key != b"d");
            let Some(letter) = key.and_then(|key| key.first()) else { continue };
            let Some((user, ..)) = USERS.iter().find(|(_, _, l)| *l as u8 == *letter) else { continue };
            let name = record.name();
            let seen = name.split('\0').next().unwrap_or_default();
            if !JUDGED.contains(&seen) {
                continue;
            }
            let user =
                std::str::from_utf8(user).map_or_else(|_| format!("{} (bytes)", user.escape_ascii()), str::to_owned);
            let origin = &group.origin;
            let right = origin.kind == "unknown" || origin.kind == "client" && origin.user == user;
            assert!(right, "{user} has written this: {group:?}");
            *kinds.entry(origin.kind.clone()).or_default() += 1;
        }
    }
    kinds
}
