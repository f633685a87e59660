//! One client's commands, from a seed.
//!
//! Covers every row of what Redis puts in the replication stream: see `Family`. Left out, because the
//! stream does not carry them exactly (a new base heals them):
//!
//! - `XREADGROUP` with an id other than `>`: reading the history changes the delivery count and time of
//!   pending entries, and nothing is sent;
//! - consumers made by reading where nothing is delivered (Redis 7.2 on): every group here is made
//!   together with its consumers (`CREATECONSUMER` is sent), in one transaction;
//! - `XREADGROUP NOACK` on 6.x, which makes a consumer and does not send it;
//! - `SORT set BY pattern ALPHA STORE`: members whose weights are both missing keep the set's own order,
//!   which depends on the server's hash seed, and the command is sent as issued;
//! - a score of minus zero (given, or made by a negative weight): an RDB file forgets the sign of small
//!   sorted sets' zeros, and `DEBUG DIGEST` sees it;
//! - ranges by name (`BYLEX`) in sorted sets whose scores differ: what they give is not defined, depends
//!   on the skip list's random levels, and the command is sent as issued;
//! - `HINCRBYFLOAT` where fields can have TTLs and the server sends it as an `HSET` that takes the field's
//!   TTL away (seen on Redis 8.0.2, not on 8.0.6 and Valkey 9.1);
//! - `redis.set_repl` in scripts, `DEBUG POPULATE`, `DEBUG RELOAD NOSAVE`.

use crate::harness::conn::Args;
use crate::harness::now_us;
use crate::harness::server::Version;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;

/// Keys of each type that all clients share.
const KEYS: usize = 24;

/// Sent one after the other on one connection; a transaction is one unit.
type Unit = Vec<Args>;

pub struct Generator {
    rng: StdRng,
    known: BTreeSet<String>,
    version: Version,
    scripts: Vec<Script>,
}

/// What a unit of commands is about, and how often of a hundred.
const FAMILIES: &[(Family, u32)] = &[
    (Generator::string, 18),
    (Generator::number, 7),
    (Generator::lifetime, 14),
    (Generator::list, 12),
    (Generator::set, 11),
    (Generator::sorted_set, 12),
    (Generator::hash, 9),
    (Generator::hash_fields, 7),
    (Generator::stream, 12),
    (Generator::stream_group, 10),
    (Generator::bits, 5),
    (Generator::loglog, 4),
    (Generator::geo, 4),
    (Generator::sort, 3),
    (Generator::keyspace, 8),
    (Generator::script, 7),
    (Generator::function, 4),
    (Generator::transaction, 5),
    (Generator::blocking, 5),
    (Generator::read, 12),
];
type Family = fn(&mut Generator) -> Unit;

struct Script {
    code: String,
    keys: &'static [&'static str],
}

impl Generator {
    pub fn new(seed: u64, known: &BTreeSet<String>) -> Self {
        let version = Version::tested();
        Self { rng: StdRng::seed_from_u64(seed), known: known.clone(), version, scripts: scripts(version) }
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.rng.random_bool(p)
    }

    /// What a client sends first.
    pub fn on_connect(&mut self) -> Unit {
        let mut first: Unit = self.scripts.iter().map(|s| args!["SCRIPT", "LOAD", s.code]).collect();
        if self.version.at_least((7, 0), (0, 0)) {
            first.push(args!["FUNCTION", "LOAD", "REPLACE", library("wl", 0)]);
        }
        first
    }

    /// What is sent at once, before the first reply is read.
    pub fn batch(&mut self) -> Vec<Args> {
        let mut batch = Vec::new();
        if self.chance(0.3) {
            batch.push(args!["SELECT", self.db()]);
        }
        let depth = *[1, 1, 1, 2, 3, 5, 8, 20].choose(&mut self.rng).expect("depths");
        for _ in 0..depth {
            batch.extend(self.unit());
        }
        batch
    }

    /// A unit that the server knows all commands of.
    fn unit(&mut self) -> Unit {
        let all: u32 = FAMILIES.iter().map(|(_, weight)| weight).sum();
        loop {
            let mut at = self.rng.random_range(0..all);
            let family = FAMILIES.iter().find(|(_, weight)| {
                let here = at < *weight;
                at = at.saturating_sub(*weight);
                here
            });
            let unit = family.expect("a family").0(self);
            if !unit.is_empty() && unit.iter().all(|c| self.known.contains(&c.name())) {
                return unit;
            }
        }
    }

    // --- parts ---------------------------------------------------------------------------------

    /// Half of everything in db 0; the others get their share.
    fn db(&mut self) -> u32 {
        if self.chance(0.4) { 0 } else { self.rng.random_range(0..16) }
    }

    /// A key of the type with this letter; now and then of another type, or an odd one.
    pub fn key(&mut self, letter: &str) -> Vec<u8> {
        if self.chance(0.04) {
            let odd: &[&[u8]] = &[b"", b"\0", b"two\r\nlines", b"\xff\xfe\0x", b"a b\"c'", b"*3\r\n$3\r\nSET\r\n"];
            return odd.choose(&mut self.rng).expect("odd keys").to_vec();
        }
        let kinds = ["s", "n", "l", "t", "z", "h", "x", "b", "p", "g"];
        let letter = if self.chance(0.05) { kinds.choose(&mut self.rng).expect("kinds") } else { letter };
        // Low numbers more often: clients must meet.
        let n = self.rng.random_range(0..KEYS).min(self.rng.random_range(0..KEYS));
        format!("{letter}:{n}").into_bytes()
    }

    pub fn any_key(&mut self) -> Vec<u8> {
        let letter = self.one(&["s", "n", "l", "t", "z", "h", "x", "b", "p", "g"]);
        self.key(letter)
    }

    /// A sorted set in which all scores are equal. No other command touches these keys.
    fn even_key(&mut self) -> Vec<u8> {
        format!("even:{}", self.below(5)).into_bytes()
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of.choose(&mut self.rng).expect("a choice")
    }

    fn below(&mut self, n: i64) -> i64 {
        self.rng.random_range(0..n)
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(200) {
            0..6 => Vec::new(),
            6..50 => self.rng.random_range(-1000..100_000_i64).to_string().into_bytes(),
            50..140 => format!("value-{}", self.below(10_000)).into_bytes(),
            140..180 => (0..self.below(40))
                .map(|_| self.one(&["\0", "\r\n", "\n", "x", "é", "$5", "\u{7f}"]))
                .collect::<String>()
                .into_bytes(),
            180..199 => self.block(4096),
            _ => self.block(100_000),
        }
    }

    /// Up to `limit` bytes; random ones or a repeated one, so that the server packs them in different ways.
    fn block(&mut self, limit: i64) -> Vec<u8> {
        let len = self.below(limit) as usize;
        if self.chance(0.5) { vec![b'r'; len] } else { (0..len).map(|_| self.rng.random::<u8>()).collect() }
    }

    fn member(&mut self) -> Vec<u8> {
        match self.below(20) {
            0 => self.value(),
            1..8 => self.below(50).to_string().into_bytes(),
            _ => format!("m{}", self.below(60)).into_bytes(),
        }
    }

    fn field(&mut self) -> Vec<u8> {
        if self.chance(0.02) { Vec::new() } else { format!("f{}", self.below(12)).into_bytes() }
    }

    fn score(&mut self) -> String {
        match self.below(12) {
            0 => self.one(&["inf", "-inf", "0", "-1e-7", "1e300", "nan"]).to_owned(),
            1..6 => format!("{}", self.rng.random_range(-5.0..5.0_f64)),
            _ => self.below(100).to_string(),
        }
    }

    /// Milliseconds to live: many that end during the run, some while a point in time is recorded, some never.
    fn ttl_ms(&mut self) -> i64 {
        match self.below(100) {
            0..50 => self.rng.random_range(10..300),
            // Not where a restored server's clock cannot stand still: see `Server::at_clock`.
            50..80 if self.version.timers_by_monotonic_clock() => self.rng.random_range(5_000..60_000),
            _ => self.rng.random_range(3_600_000..36_000_000),
        }
    }

    fn ttl_seconds(&mut self) -> i64 {
        (self.ttl_ms() / 1000).max(1)
    }

    /// A point in time, in milliseconds; now and then in the past.
    fn moment_ms(&mut self) -> i64 {
        let now = now_us() / 1000;
        if self.chance(0.1) { now - self.below(100_000) } else { now + self.ttl_ms() }
    }

    /// `EX s`, `PX ms`, `EXAT s` or `PXAT ms`.
    fn ttl_option(&mut self) -> Vec<Vec<u8>> {
        match self.below(5) {
            0 => args!["EX", self.ttl_seconds()].0,
            1 | 2 => args!["PX", self.ttl_ms()].0,
            3 => args!["EXAT", self.moment_ms() / 1000].0,
            _ => args!["PXAT", self.moment_ms()].0,
        }
    }

    /// 1 to `n` of something.
    fn some(&mut self, n: i64, mut each: impl FnMut(&mut Self) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        (0..=self.below(n)).flat_map(|_| each(self)).collect()
    }

    fn side(&mut self) -> &'static str {
        self.one(&["LEFT", "RIGHT"])
    }

    fn maybe(&mut self, command: &mut Args, p: f64, words: &[&str]) {
        if self.chance(p) {
            command.0.push(self.one(words).as_bytes().to_vec());
        }
    }

    // --- families ------------------------------------------------------------------------------

    fn string(&mut self) -> Unit {
        let key = self.key("s");
        let value = self.value();
        let one = match self.below(22) {
            0..8 => {
                let mut set = args!["SET", key, value];
                if self.chance(0.4) {
                    set.0.extend(self.ttl_option());
                } else {
                    self.maybe(&mut set, 0.3, &["KEEPTTL"]);
                }
                self.maybe(&mut set, 0.3, &["NX", "XX"]);
                self.maybe(&mut set, 0.2, &["GET"]);
                set
            }
            8 => args!["SETEX", key, self.ttl_seconds(), value],
            9 => args!["PSETEX", key, self.ttl_ms(), value],
            10 => args!["SETNX", key, value],
            11 => args!["GETSET", key, value],
            12 | 13 => {
                let mut get = args!["GETEX", key];
                if self.chance(0.8) {
                    get.0.extend(self.ttl_option());
                } else {
                    get.push("PERSIST");
                }
                get
            }
            14 => args!["GETDEL", key],
            15 => args!["APPEND", key, self.member()],
            16 => args!["SETRANGE", key, self.below(200), self.member()],
            17 => Args([vec![b"MSET".to_vec()], self.some(4, |g| vec![g.key("s"), g.value()])].concat()),
            18 => Args([vec![b"MSETNX".to_vec()], self.some(2, |g| vec![g.key("s"), g.value()])].concat()),
            19 => {
                // Redis 8.4: with a TTL for all.
                let pairs = self.some(3, |g| vec![g.key("s"), g.value()]);
                let mut set = args!["MSETEX", pairs.len() / 2];
                set.0.extend(pairs);
                set.0.extend(self.ttl_option());
                set
            }
            20 => args!["DELIFEQ", key, value],
            _ => args!["SET", key, value, "IFEQ", self.value()],
        };
        vec![one]
    }

    fn number(&mut self) -> Unit {
        let key = self.key("n");
        vec![match self.below(8) {
            0 | 1 => args!["INCR", key],
            2 => args!["DECR", key],
            3 => args!["INCRBY", key, self.below(1000) - 500],
            4 => args!["DECRBY", key, self.below(1000)],
            5 | 6 => args!["INCRBYFLOAT", key, self.score()],
            _ => args!["SET", key, self.below(100), "PX", self.ttl_ms()],
        }]
    }

    /// Every way to give and take a TTL, and to end a key.
    fn lifetime(&mut self) -> Unit {
        let key = self.any_key();
        let mut one = match self.below(12) {
            0 => args!["EXPIRE", key, self.ttl_seconds()],
            1..4 => args!["PEXPIRE", key, self.ttl_ms()],
            4 => args!["EXPIREAT", key, self.moment_ms() / 1000],
            5 => args!["PEXPIREAT", key, self.moment_ms()],
            6 => args!["PEXPIRE", key, -1],
            7 | 8 => return vec![args!["PERSIST", key]],
            9 => return vec![Args([vec![b"DEL".to_vec()], self.some(3, |g| vec![g.any_key()])].concat())],
            10 => return vec![Args([vec![b"UNLINK".to_vec()], self.some(3, |g| vec![g.any_key()])].concat())],
            _ => return vec![args!["TOUCH", key]],
        };
        if self.version.at_least((7, 0), (0, 0)) {
            self.maybe(&mut one, 0.4, &["NX", "XX", "GT", "LT"]);
        }
        vec![one]
    }

    fn list(&mut self) -> Unit {
        let key = self.key("l");
        vec![match self.below(20) {
            0..4 => Args([args!["RPUSH", key].0, self.some(5, |g| vec![g.value()])].concat()),
            4..7 => Args([args!["LPUSH", key].0, self.some(3, |g| vec![g.member()])].concat()),
            7 => args!["LPUSHX", key, self.member()],
            8 => args!["RPUSHX", key, self.member()],
            9 => args!["LPOP", key],
            10 if self.version.at_least((6, 2), (0, 0)) => args!["RPOP", key, self.below(4)],
            10 => args!["RPOP", key],
            11 => args!["LINSERT", key, self.one(&["BEFORE", "AFTER"]), self.member(), self.member()],
            12 => args!["LREM", key, self.below(5) - 2, self.member()],
            13 => args!["LSET", key, self.below(10) - 5, self.member()],
            14 | 15 => args!["LTRIM", key, self.below(4) - 1, self.below(40) - 3],
            16 => args!["RPOPLPUSH", key, self.key("l")],
            17 => args!["LMOVE", key, self.key("l"), self.side(), self.side()],
            _ => args!["LMPOP", 2, key, self.key("l"), self.side(), "COUNT", self.below(3) + 1],
        }]
    }

    fn set(&mut self) -> Unit {
        let key = self.key("t");
        vec![match self.below(16) {
            0..5 => Args([args!["SADD", key].0, self.some(6, |g| vec![g.member()])].concat()),
            5 | 6 => Args([args!["SREM", key].0, self.some(3, |g| vec![g.member()])].concat()),
            7 | 8 => args!["SPOP", key],
            9 => args!["SPOP", key, self.below(5)],
            // All of it: sent as DEL or UNLINK.
            10 => args!["SPOP", key, 1000],
            11 => args!["SMOVE", key, self.key("t"), self.member()],
            12 | 13 => args![self.one(&["SINTERSTORE", "SDIFFSTORE"]), self.key("t"), key, self.key("t")],
            _ => args!["SUNIONSTORE", self.key("t"), key, self.key("t"), self.key("t")],
        }]
    }

    fn sorted_set(&mut self) -> Unit {
        let key = self.key("z");
        vec![match self.below(24) {
            0..7 => {
                let mut add = args!["ZADD", key];
                self.maybe(&mut add, 0.4, &["NX", "XX", "GT", "LT"]);
                self.maybe(&mut add, 0.2, &["CH"]);
                if self.chance(0.1) {
                    return vec![add.and("INCR").and(self.score()).and(self.member())];
                }
                add.0.extend(self.some(4, |g| vec![g.score().into_bytes(), g.member()]));
                add
            }
            7 | 8 => args!["ZINCRBY", key, self.score(), self.member()],
            9 => Args([args!["ZREM", key].0, self.some(3, |g| vec![g.member()])].concat()),
            10 => args!["ZREMRANGEBYRANK", key, self.below(3), self.below(6) - 1],
            11 => args!["ZREMRANGEBYSCORE", key, self.below(50), format!("({}", self.below(60))],
            12 => {
                let even = self.even_key();
                let store = args!["ZRANGESTORE", self.key("z"), even, "[m5", "[m1", "BYLEX", "REV"];
                return vec![
                    Args([args!["ZADD", even].0, self.some(8, |g| vec![b"0".to_vec(), g.member()])].concat()),
                    if self.chance(0.5) { store } else { args!["ZREMRANGEBYLEX", even, "[m1", "(m12"] },
                ];
            }
            13 => args!["ZPOPMIN", key],
            14 => args!["ZPOPMAX", key, self.below(4)],
            15 => args!["ZMPOP", 2, key, self.key("z"), self.one(&["MIN", "MAX"]), "COUNT", self.below(3) + 1],
            16 | 17 => {
                let command = self.one(&["ZUNIONSTORE", "ZINTERSTORE"]);
                let mut store = args![command, self.key("z"), 2, key, self.key("t")];
                if self.chance(0.5) {
                    store.0.extend(args!["WEIGHTS", format!("{}.5", self.below(5)), 2].0);
                }
                if self.chance(0.5) {
                    store.0.extend(args!["AGGREGATE", self.one(&["SUM", "MIN", "MAX"])].0);
                }
                store
            }
            18 => args!["ZDIFFSTORE", self.key("z"), 2, key, self.key("z")],
            19 => args!["ZRANGESTORE", self.key("z"), key, self.below(3), self.below(8) - 1],
            20 | 21 => args!["ZRANGESTORE", self.key("z"), key, "-inf", 50, "BYSCORE", "LIMIT", 0, 5],
            _ => Args([args!["ZADD", key].0, self.some(8, |g| vec![g.score().into_bytes(), g.member()])].concat()),
        }]
    }

    fn hash(&mut self) -> Unit {
        let key = self.key("h");
        vec![match self.below(12) {
            0..4 => Args([args!["HSET", key].0, self.some(4, |g| vec![g.field(), g.value()])].concat()),
            4 => Args([args!["HMSET", key].0, self.some(3, |g| vec![g.field(), g.member()])].concat()),
            5 => args!["HSETNX", key, self.field(), self.value()],
            6 | 7 => Args([args!["HDEL", key].0, self.some(2, |g| vec![g.field()])].concat()),
            8 | 9 => args!["HINCRBY", key, self.field(), self.below(100) - 50],
            _ if self.floats_lose_field_ttls() => args!["HSET", key, self.field(), self.score()],
            // No infinity: 6.0 refuses it, leaves an empty hash behind and sends nothing.
            _ => args!["HINCRBYFLOAT", key, self.field(), self.below(2000) as f64 / 64.0],
        }]
    }

    fn floats_lose_field_ttls(&self) -> bool {
        let Version { valkey, major, minor, patch } = self.version;
        !valkey && ((7, 4, 0)..(8, 0, 6)).contains(&(major, minor, patch))
    }

    /// Fields with a life of their own (Redis 7.4, Valkey 9).
    fn hash_fields(&mut self) -> Unit {
        let key = self.key("h");
        let names = self.some(2, |g| vec![g.field()]);
        let with_fields = |mut command: Args| {
            command.0.extend(args!["FIELDS", names.len()].0);
            command.0.extend(names.iter().cloned());
            command
        };
        vec![match self.below(14) {
            0 => with_fields(args!["HEXPIRE", key, self.ttl_seconds()]),
            1..4 => with_fields(args!["HPEXPIRE", key, self.ttl_ms()]),
            4 => {
                let mut expire = args!["HPEXPIRE", key, self.ttl_ms()];
                self.maybe(&mut expire, 1.0, &["NX", "XX", "GT", "LT"]);
                with_fields(expire)
            }
            5 => with_fields(args!["HEXPIREAT", key, self.moment_ms() / 1000]),
            6 => with_fields(args!["HPEXPIREAT", key, self.moment_ms()]),
            7 => with_fields(args!["HPERSIST", key]),
            8 | 9 => {
                let mut set = args!["HSETEX", key];
                self.maybe(&mut set, 0.2, &["FNX", "FXX"]);
                if self.chance(0.8) {
                    set.0.extend(self.ttl_option());
                } else {
                    self.maybe(&mut set, 0.5, &["KEEPTTL"]);
                }
                let mut pairs = self.some(3, |g| vec![g.field(), g.member()]);
                // Redis 8.6.3 ends with a failed assertion where a field is named twice and the hash has no TTL yet.
                if self.version.at_least((8, 2), (u32::MAX, 0)) {
                    let mut named = BTreeSet::new();
                    let first_time = |pair: &&[Vec<u8>]| named.insert(pair[0].clone());
                    pairs = pairs.chunks(2).filter(first_time).flatten().cloned().collect();
                }
                set.0.extend(args!["FIELDS", pairs.len() / 2].0);
                set.0.extend(pairs);
                set
            }
            10 | 11 => {
                let mut get = args!["HGETEX", key];
                if self.chance(0.8) {
                    get.0.extend(self.ttl_option());
                } else {
                    get.push("PERSIST");
                }
                with_fields(get)
            }
            12 => with_fields(args!["HGETDEL", key]),
            _ => Args([args!["HSET", key].0, self.some(6, |g| vec![g.field(), g.member()])].concat()),
        }]
    }

    fn stream(&mut self) -> Unit {
        let key = self.key("x");
        let id = |g: &mut Self| format!("{}-{}", now_us() / 1000 - g.below(200), g.below(5));
        vec![match self.below(20) {
            0..11 => {
                let mut add = args!["XADD", key];
                if self.version.at_least((6, 2), (0, 0)) {
                    self.maybe(&mut add, 0.1, &["NOMKSTREAM"]);
                }
                if self.chance(0.5) {
                    add.0.extend(args!["MAXLEN", self.one(&["~", "="]), self.below(60)].0);
                } else if self.chance(0.2) && self.version.at_least((6, 2), (0, 0)) {
                    add.0.extend(args!["MINID", "~", id(self), "LIMIT", self.below(100)].0);
                }
                let id = if self.chance(0.8) { "*".to_owned() } else { id(self) };
                add.push(id);
                add.0.extend(self.some(3, |g| vec![g.field(), g.value()]));
                add
            }
            11 | 12 => Args([args!["XDEL", key].0, self.some(2, |g| vec![id(g).into_bytes()])].concat()),
            13 => args!["XTRIM", key, "MAXLEN", self.below(30)],
            14 => args!["XTRIM", key, "MAXLEN", "~", self.below(30)],
            15 => args!["XTRIM", key, "MINID", "~", id(self), "LIMIT", 50],
            16 => args!["XSETID", key, id(self)],
            17 => args!["XSETID", key, id(self), "ENTRIESADDED", 5000 + self.below(1000), "MAXDELETEDID", "5-1"],
            18 => args!["XDELEX", key, self.one(&["KEEPREF", "DELREF", "ACKED"]), "IDS", 1, id(self)],
            _ => args!["XADD", key, "*", "f", self.value()],
        }]
    }

    fn stream_group(&mut self) -> Unit {
        let key = self.key("x");
        let group = self.one(&["ga", "gb"]);
        let id = format!("{}-0", now_us() / 1000 - self.below(300));
        // c0 and c1 are there as long as their group is; c2 comes and goes.
        let sure = self.one(&["c0", "c1"]);
        let makes_consumers = self.known_xgroup();
        let with_consumer = |command: Args, consumer: &str| {
            if consumer == "c2" && makes_consumers {
                let create = args!["XGROUP", "CREATECONSUMER", key, group, consumer];
                vec![args!["MULTI"], create, command, args!["EXEC"]]
            } else {
                vec![command]
            }
        };
        match self.below(24) {
            0..4 => {
                let from = self.one(&["0", "$", "0", "0"]);
                let mut create = args!["XGROUP", "CREATE", key, group, from];
                self.maybe(&mut create, 0.5, &["MKSTREAM"]);
                if !makes_consumers {
                    return vec![create];
                }
                let consumer = |name: &str| args!["XGROUP", "CREATECONSUMER", key, group, name];
                vec![args!["MULTI"], create, consumer("c0"), consumer("c1"), args!["EXEC"]]
            }
            4..12 => {
                let consumer = if self.chance(0.3) { "c2" } else { sure };
                let mut read = args!["XREADGROUP", "GROUP", group, consumer, "COUNT", self.below(6) + 1];
                if makes_consumers {
                    self.maybe(&mut read, 0.1, &["NOACK"]);
                }
                with_consumer(read.and("STREAMS").and(&key).and(">"), consumer)
            }
            // The ids that groups were given are of the last moments.
            12..15 => vec![Args(
                [
                    args!["XACK", key, group].0,
                    self.some(3, |g| vec![format!("{}-0", now_us() / 1000 - g.below(100)).into_bytes()]),
                ]
                .concat(),
            )],
            15 | 16 => {
                let consumer = self.one(&["c0", "c1", "c2"]);
                let mut claim = args!["XCLAIM", key, group, consumer, 0, id];
                match self.below(5) {
                    0 => claim.push("JUSTID"),
                    1 => claim.push("FORCE"),
                    2 => claim.0.extend(args!["RETRYCOUNT", self.below(9), "IDLE", self.below(5000)].0),
                    _ => {}
                }
                with_consumer(claim, consumer)
            }
            17..20 => {
                let consumer = self.one(&["c0", "c1", "c2"]);
                let mut claim = args!["XAUTOCLAIM", key, group, consumer, 0, "0-0", "COUNT", self.below(5) + 1];
                self.maybe(&mut claim, 0.2, &["JUSTID"]);
                with_consumer(claim, consumer)
            }
            20 => vec![args!["XGROUP", "DELCONSUMER", key, group, "c2"]],
            21 => vec![args!["XGROUP", "DESTROY", key, group]],
            22 => vec![args!["XGROUP", "SETID", key, group, self.one(&["0", "$"])]],
            _ => vec![args!["XACKDEL", key, group, self.one(&["KEEPREF", "DELREF", "ACKED"]), "IDS", 1, id]],
        }
    }

    fn known_xgroup(&self) -> bool {
        self.version.at_least((6, 2), (0, 0))
    }

    fn bits(&mut self) -> Unit {
        let key = self.key("b");
        vec![match self.below(8) {
            0..3 => args!["SETBIT", key, self.below(2000), self.below(2)],
            3 => args!["BITOP", self.one(&["AND", "OR", "XOR"]), self.key("b"), key, self.key("b")],
            4 => args!["BITOP", "NOT", self.key("b"), key],
            5 => args![
                "BITFIELD",
                key,
                "SET",
                "u8",
                self.below(100),
                self.below(256),
                "INCRBY",
                "i5",
                self.below(100),
                7
            ],
            6 => {
                let overflow = self.one(&["WRAP", "SAT", "FAIL"]);
                args![
                    "BITFIELD",
                    key,
                    "OVERFLOW",
                    overflow,
                    "INCRBY",
                    "u4",
                    format!("#{}", self.below(20)),
                    9,
                    "GET",
                    "u4",
                    0
                ]
            }
            _ => args!["BITOP", "DIFF", self.key("b"), key, self.key("b")],
        }]
    }

    fn loglog(&mut self) -> Unit {
        let key = self.key("p");
        vec![match self.below(8) {
            0..4 => Args([args!["PFADD", key].0, self.some(10, |g| vec![g.value()])].concat()),
            4 => args!["PFMERGE", self.key("p"), key, self.key("p")],
            // A read that writes the cached count.
            5 | 6 => args!["PFCOUNT", key],
            _ => args!["PFCOUNT", key, self.key("p")],
        }]
    }

    fn geo(&mut self) -> Unit {
        let key = self.key("g");
        let place = |g: &mut Self| {
            let (lon, lat) = (g.rng.random_range(-20.0..20.0_f64), g.rng.random_range(-20.0..20.0_f64));
            vec![lon.to_string().into_bytes(), lat.to_string().into_bytes(), g.member()]
        };
        vec![match self.below(6) {
            0..3 => Args([args!["GEOADD", key].0, self.some(3, place)].concat()),
            3 => args!["GEORADIUS", key, 0, 0, 1500, "km", "STORE", self.key("g")],
            4 => {
                let mut store =
                    args!["GEOSEARCHSTORE", self.key("g"), key, "FROMLONLAT", 1, 1, "BYBOX", 2000, 2000, "km"];
                self.maybe(&mut store, 0.5, &["STOREDIST"]);
                store
            }
            _ => args!["GEORADIUSBYMEMBER", key, self.member(), 900, "km", "STOREDIST", self.key("z")],
        }]
    }

    fn sort(&mut self) -> Unit {
        let letter = self.one(&["l", "t", "z"]);
        let key = self.key(letter);
        let mut sort = args!["SORT", key];
        let by = self.below(4);
        match by {
            0 => sort.0.extend(args!["BY", "n:*"].0),
            1 => sort.0.extend(args!["BY", "nosort"].0),
            _ => {}
        }
        if self.chance(0.5) {
            sort.0.extend(args!["LIMIT", 0, self.below(20)].0);
        }
        if self.chance(0.3) {
            sort.0.extend(args!["GET", "#", "GET", "s:*", "GET", "h:*->f1"].0);
        }
        if by != 0 {
            self.maybe(&mut sort, 0.7, &["ALPHA"]);
        }
        self.maybe(&mut sort, 0.3, &["DESC"]);
        vec![sort.and("STORE").and(self.key("l"))]
    }

    fn keyspace(&mut self) -> Unit {
        let key = self.any_key();
        vec![match self.below(800) {
            0..200 => args!["RENAME", key, self.any_key()],
            200..300 => args!["RENAMENX", key, self.any_key()],
            300..450 => {
                let mut copy = args!["COPY", key, self.any_key()];
                if self.chance(0.4) {
                    copy.0.extend(args!["DB", self.db()].0);
                }
                self.maybe(&mut copy, 0.6, &["REPLACE"]);
                copy
            }
            450..650 => args!["MOVE", key, self.db()],
            650..700 => args!["SWAPDB", self.db(), self.db()],
            700..703 => args!["FLUSHDB"],
            703..706 => args!["FLUSHDB", "ASYNC"],
            // FLUSHALL is the test's to send: it leaves little to compare.
            _ => args!["PUBLISH", "news", self.member()],
        }]
    }

    fn script(&mut self) -> Unit {
        let at = self.below(self.scripts.len() as i64) as usize;
        let letters = self.scripts[at].keys;
        let mut call = if self.chance(0.5) {
            args!["EVAL", self.scripts[at].code]
        } else {
            args!["EVALSHA", sha1_hex(self.scripts[at].code.as_bytes())]
        };
        call.push(letters.len());
        for letter in letters {
            call.push(self.key(letter));
        }
        vec![call.and(self.member()).and(self.ttl_ms())]
    }

    fn function(&mut self) -> Unit {
        vec![match self.below(100) {
            // A library that changes while it is called.
            0..4 => args!["FUNCTION", "LOAD", "REPLACE", library("wl", self.below(100))],
            4..6 => args!["FUNCTION", "LOAD", "REPLACE", library("wl2", self.below(100))],
            6 => args!["FUNCTION", "DELETE", "wl2"],
            7..60 => args!["FCALL", "wl_mix", 2, self.key("s"), self.key("l"), self.member()],
            _ => args!["FCALL", "wl_many", 3, self.key("h"), self.key("z"), self.key("t"), self.member()],
        }]
    }

    /// MULTI over several dbs; sometimes with a command that fails, sometimes given up.
    fn transaction(&mut self) -> Unit {
        let mut unit = vec![args!["MULTI"]];
        for _ in 0..=self.below(5) {
            if self.chance(0.4) {
                unit.push(args!["SELECT", self.db()]);
            }
            let inner = self.unit();
            if inner[0].name() != "MULTI" {
                unit.extend(inner);
            }
        }
        unit.push(if self.chance(0.95) { args!["EXEC"] } else { args!["DISCARD"] });
        unit
    }

    /// Served by what other clients push, or by nobody in a short time.
    fn blocking(&mut self) -> Unit {
        let (list, other) = (self.key("l"), self.key("l"));
        let (sorted, other_sorted) = (self.key("z"), self.key("z"));
        let timeout = "0.05";
        vec![match self.below(9) {
            0 => args!["BLPOP", list, other, timeout],
            1 => args!["BRPOP", list, timeout],
            2 => args!["BLMOVE", list, other, self.side(), self.side(), timeout],
            3 => args!["BRPOPLPUSH", list, other, timeout],
            4 => args!["BLMPOP", timeout, 2, list, other, self.side(), "COUNT", self.below(3) + 1],
            5 => args!["BZPOPMIN", sorted, other_sorted, timeout],
            6 => args!["BZPOPMAX", sorted, timeout],
            7 => args!["BZMPOP", timeout, 2, sorted, other_sorted, self.one(&["MIN", "MAX"])],
            // Only by consumers that their group has: see the top.
            _ => args!["XREADGROUP", "GROUP", "ga", "c0", "BLOCK", 50, "STREAMS", self.key("x"), ">"],
        }]
    }

    /// Reads: they make expired keys go.
    fn read(&mut self) -> Unit {
        let key = self.any_key();
        vec![match self.below(12) {
            0 => args!["GET", key],
            1 => args!["MGET", key, self.key("s")],
            2 => args!["PTTL", key],
            3 => args!["HGETALL", self.key("h")],
            4 => args!["LRANGE", self.key("l"), 0, 10],
            5 => args!["SMEMBERS", self.key("t")],
            6 => args!["ZRANGE", self.key("z"), 0, -1, "WITHSCORES"],
            7 => args!["XRANGE", self.key("x"), "-", "+", "COUNT", 5],
            8 => args!["EXISTS", key],
            9 => args!["TYPE", key],
            10 => args!["SCAN", 0],
            _ => args!["STRLEN", key],
        }]
    }

    /// `RESTORE` of a payload under another name.
    pub fn restore(&mut self, payload: &[u8]) -> Args {
        let to = self.any_key();
        let absolute = self.chance(0.3);
        let ttl = if self.chance(0.5) {
            0
        } else if absolute {
            self.moment_ms()
        } else {
            self.ttl_ms()
        };
        let mut restore = args!["RESTORE", to, ttl, payload];
        if absolute {
            restore.push("ABSTTL");
        }
        self.maybe(&mut restore, 0.8, &["REPLACE"]);
        if self.chance(0.2) {
            restore.0.extend(args!["IDLETIME", 7].0);
        }
        restore
    }
}

/// Scripts: random, time, several writes, several dbs, an error after a write, nothing written.
fn scripts(version: Version) -> Vec<Script> {
    // Before 7.0 a script that asks for the time or a random member must say that its effects are to be
    // sent, not itself. The one that does not ask is sent as it is: that is wanted too.
    let effects = if version.at_least((7, 0), (0, 0)) { "" } else { "redis.replicate_commands() " };
    let script = |keys, code: &str| Script { code: code.replace("@", effects), keys };
    vec![
        script(
            &["s", "l"],
            "@local t = redis.call('TIME') redis.call('SET', KEYS[1], t[1] .. '.' .. t[2] .. math.random(1000000)) \
             redis.call('RPUSH', KEYS[2], ARGV[1], t[2]) return t",
        ),
        script(
            &["t", "t", "z"],
            "@local m = redis.call('SPOP', KEYS[1]) if m then redis.call('SADD', KEYS[2], m) \
             redis.call('ZADD', KEYS[3], math.random(100), m) end return m",
        ),
        script(
            &["s", "h"],
            "@redis.call('SELECT', math.random(16) - 1) redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
             redis.call('HINCRBY', KEYS[2], 'count', 1) redis.call('SELECT', 3) return redis.call('INCR', 'n:1')",
        ),
        script(&["n", "s"], "redis.call('INCR', KEYS[1]) redis.call('APPEND', KEYS[2], ARGV[1]) return 1"),
        script(&["n"], "@redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], ARGV[2]) error('after a write')"),
        script(&["s"], "return redis.call('GET', KEYS[1])"),
        script(
            &["x", "l"],
            "@local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', '20', '*', 'f', ARGV[1]) \
             redis.call('LPUSH', KEYS[2], id) redis.call('PEXPIRE', KEYS[2], ARGV[2]) return id",
        ),
    ]
}

/// A library whose code differs with `number`.
fn library(name: &str, number: i64) -> String {
    format!(
        "#!lua name={name}\n-- {number}\n\
         redis.register_function('{name}_mix', function(keys, args)\n\
           local t = redis.call('TIME')\n\
           redis.call('SET', keys[1], t[2] .. ':{number}:' .. math.random(1000))\n\
           return redis.call('RPUSH', keys[2], args[1], '{number}')\n\
         end)\n\
         redis.register_function('{name}_many', function(keys, args)\n\
           redis.call('HSET', keys[1], 'f{number}', args[1])\n\
           redis.call('ZINCRBY', keys[2], math.random(), args[1])\n\
           redis.call('SPOP', keys[3])\n\
           return redis.call('SADD', keys[3], args[1], '{number}')\n\
         end)\n"
    )
}

/// The name by which `EVALSHA` calls a script.
fn sha1_hex(data: &[u8]) -> String {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - data.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(data.len() as u64 * 8).to_be_bytes());
    for chunk in padded.chunks_exact(64) {
        let mut w = [0_u32; 80];
        for (i, word) in chunk.chunks_exact(4).enumerate() {
            w[i] = u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
        }
        for i in 16..80 {
            w[i] = (w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in w.iter().enumerate() {
            let (f, k) = match i {
                0..20 => ((b & c) | (!b & d), 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (total, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *total = total.wrapping_add(part);
        }
    }
    state.iter().map(|word| format!("{word:08x}")).collect()
}
