//! Random commands: of every kind that the server knows, right and wrong.

use super::frames::Rule;
use crate::harness::conn::{Conn, Value, bytes, int, items, text};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use redtape_wire::word;

/// Commands that are not made up at random, each with the reason. Some are made from templates instead.
const EXCLUDED: &[(&str, &str)] = &[
    ("SHUTDOWN", "ends the server"),
    ("DEBUG", "crashes, sleeps, reloads; harmless ones are templates"),
    ("REPLICAOF", "makes the server somebody's replica: the journal's source is gone"),
    ("SLAVEOF", "as REPLICAOF"),
    ("FAILOVER", "as REPLICAOF"),
    ("SYNC", "turns the connection into a replication link, whose bytes are the server's own"),
    ("PSYNC", "as SYNC"),
    ("REPLCONF", "as SYNC"),
    ("BGSAVE", "whether a child runs already depends on the replicas"),
    ("BGREWRITEAOF", "as BGSAVE"),
    ("SAVE", "as BGSAVE"),
    ("MONITOR", "shows the proxy's own commands too; a test of its own"),
    ("SPOP", "dice; a template takes whole sets"),
    ("SRANDMEMBER", "dice; as SPOP"),
    ("HRANDFIELD", "dice; as SPOP"),
    ("ZRANDMEMBER", "dice; as SPOP"),
    ("RANDOMKEY", "dice"),
    ("LOLWUT", "dice"),
    ("ACL|GENPASS", "dice; a template compares its kind"),
    ("ACL|LOG", "tells addresses and ids; a template compares its kind"),
    ("INFO", "figures of the process; a template compares its kind"),
    ("ROLE", "names the replicas, of which the proxied server has one more; a template compares its kind"),
    ("MEMORY|USAGE", "depends on how requests were divided into reads; a template compares its kind"),
    ("MEMORY|STATS", "figures of the process"),
    ("MEMORY|DOCTOR", "figures of the process"),
    ("MEMORY|MALLOC-STATS", "figures of the process"),
    ("LATENCY|HISTOGRAM", "times"),
    ("SLOWLOG", "times; templates for what is always the same"),
    ("CLIENT|ID", "given in the order of connections; a template"),
    ("CLIENT|INFO", "addresses, descriptors, ages; a template compares its kind"),
    ("CLIENT|LIST", "as CLIENT INFO"),
    ("CLIENT|KILL", "numbers that are ids of other connections in the other world; templates"),
    ("CLIENT|UNBLOCK", "as CLIENT KILL"),
    ("CLIENT|TRACKING", "as CLIENT KILL (REDIRECT)"),
    ("CLIENT|GETREDIR", "as CLIENT KILL"),
    ("CLIENT|TRACKINGINFO", "as CLIENT KILL"),
    ("CLIENT|PAUSE", "holds back redtape's own requests as well; a test of its own"),
    ("CONFIG", "tells ports and folders, and can make the server unusable; templates"),
    ("COMMAND", "has the proxy's own commands; templates"),
    ("MIGRATE", "reaches out to another server; templates for what is refused"),
    ("MODULE", "loads code"),
    ("PFSELFTEST", "a second of work"),
    ("WAIT", "counts replicas, of which the proxied server has one more; templates"),
    ("WAITAOF", "as WAIT"),
    ("SCRIPT|DEBUG", "forks a session for the debugger; a template"),
    ("KEYS", "the order of the keyspace; a template"),
    ("SCAN", "as KEYS"),
    ("CLUSTER", "nodes of their own ids on servers with cluster mode compiled in; a template"),
];

/// Spaces between arguments. `!` in front: never changed at random, with the rule behind it.
const TEMPLATES: &[&str] = &[
    "SET {s} {v}",
    "SET {s} {v}",
    "SET {s} {v} EX {ttl}",
    "SET {s} {v} PX {ttl} NX GET",
    "SET {s} {v} XX KEEPTTL",
    "GET {s}",
    "GET {s}",
    "GETEX {s} PERSIST",
    "GETEX {s} EX {ttl}",
    "GETDEL {s}",
    "GETSET {s} {v}",
    "APPEND {s} {v}",
    "STRLEN {s}",
    "SETRANGE {s} {i} {v}",
    "GETRANGE {s} {i} {i}",
    "INCR {n}",
    "DECR {n}",
    "INCRBY {n} {i}",
    "INCRBYFLOAT {n} {f}",
    "MSET {s} {v} {s} {v}",
    "MSETNX {s} {v} {s} {v}",
    "MGET {s} {s} {k}",
    "SETEX {s} {ttl} {v}",
    "SETNX {s} {v}",
    "LCS {s} {s} IDX",
    "SETBIT {s} {i} 1",
    "GETBIT {s} {i}",
    "BITCOUNT {s}",
    "BITOP XOR {s} {s} {s}",
    "BITPOS {s} 1",
    "BITFIELD {s} INCRBY u8 {i} {i} GET i5 0",
    "PFADD {s} {m} {m}",
    "PFCOUNT {s} {s}",
    "PFMERGE {s} {s}",
    "LPUSH {l} {v} {v}",
    "RPUSH {l} {v} {m} {m}",
    "RPUSH {l} {m}",
    "LPOP {l}",
    "RPOP {l} {i}",
    "LRANGE {l} 0 -1",
    "LRANGE {l} {i} {i}",
    "LLEN {l}",
    "LINDEX {l} {i}",
    "LINSERT {l} BEFORE {m} {v}",
    "LSET {l} {i} {v}",
    "LREM {l} {i} {m}",
    "LTRIM {l} {i} {i}",
    "LPOS {l} {m} COUNT 0",
    "LMOVE {l} {l} LEFT RIGHT",
    "RPOPLPUSH {l} {l}",
    "LMPOP 2 {l} {l} LEFT COUNT 2",
    "LPUSHX {l} {v}",
    "SADD {S} {m} {m} {v}",
    "SADD {S} 1 2 3 {i}",
    "SREM {S} {m}",
    "SMEMBERS {S}",
    "SISMEMBER {S} {m}",
    "SMISMEMBER {S} {m} {m}",
    "SCARD {S}",
    "SINTER {S} {S}",
    "SUNION {S} {S}",
    "SDIFFSTORE {S} {S} {S}",
    "SUNIONSTORE {S} {S} {S}",
    "SMOVE {S} {S} {m}",
    "SINTERCARD 2 {S} {S} LIMIT 1",
    "SSCAN {S} 0 COUNT 3",
    "!SPOP {S} 100000",
    "!SRANDMEMBER {S} 100000",
    "SORT {S} ALPHA",
    "SORT {l} BY nosort GET # LIMIT 0 3",
    "SORT {S} ALPHA STORE {l}",
    "HSET {h} {m} {v} {m} {v}",
    "HSET {h} {m} {i}",
    "HGET {h} {m}",
    "HMGET {h} {m} {m}",
    "HGETALL {h}",
    "HDEL {h} {m}",
    "HINCRBY {h} {m} {i}",
    "HINCRBYFLOAT {h} {m} {f}",
    "HKEYS {h}",
    "HVALS {h}",
    "HLEN {h}",
    "HSTRLEN {h} {m}",
    "HSETNX {h} {m} {v}",
    "HSCAN {h} 0",
    "HEXISTS {h} {m}",
    "!HRANDFIELD {h} 100000 WITHVALUES",
    "ZADD {z} {f} {m} {i} {m}",
    "ZADD {z} GT CH {i} {m}",
    "ZADD {z} INCR {f} {m}",
    "ZINCRBY {z} {f} {m}",
    "ZRANGE {z} 0 -1 WITHSCORES",
    "ZSCORE {z} {m}",
    "ZRANGE {z} -inf +inf BYSCORE LIMIT 0 2",
    "ZRANGESTORE {z} {z} 0 2",
    "ZRANK {z} {m}",
    "ZREM {z} {m}",
    "ZCARD {z}",
    "ZCOUNT {z} -inf {i}",
    "ZPOPMIN {z}",
    "ZPOPMAX {z} 2",
    "ZUNION 2 {z} {z} WITHSCORES",
    "ZINTERSTORE {z} 2 {z} {z}",
    "ZDIFF 2 {z} {z}",
    "ZMPOP 1 {z} MIN",
    "ZMSCORE {z} {m} {m}",
    "ZSCAN {z} 0",
    "ZRANGEBYLEX {z} - +",
    "ZREMRANGEBYRANK {z} 0 1",
    "!ZRANDMEMBER {z} 100000 WITHSCORES",
    "GEOADD {z} 13.36 38.11 {m}",
    "GEODIST {z} {m} {m}",
    "GEOSEARCH {z} FROMLONLAT 15 37 BYRADIUS 400 km ASC WITHDIST",
    "GEOPOS {z} {m}",
    "XADD {x} * {m} {v}",
    "XADD {x} MAXLEN 5 * {m} {v}",
    "XADD {x} {i}-1 f v",
    "XLEN {x}",
    "XRANGE {x} - +",
    "XREVRANGE {x} + - COUNT 2",
    "XREAD COUNT 2 STREAMS {x} {x} 0 0",
    "XGROUP CREATE {x} g 0 MKSTREAM",
    "XGROUP CREATE {x} g $",
    "XREADGROUP GROUP g c1 COUNT 2 STREAMS {x} >",
    "XREADGROUP GROUP g c2 STREAMS {x} 0",
    "XACK {x} g {i}-1",
    "XPENDING {x} g",
    "XPENDING {x} g - + 10",
    "XAUTOCLAIM {x} g c2 0 0",
    "XINFO STREAM {x} FULL",
    "XINFO GROUPS {x}",
    "XINFO CONSUMERS {x} g",
    "XTRIM {x} MAXLEN 2",
    "XDEL {x} {i}-1",
    "XGROUP DESTROY {x} g",
    "XSETID {x} 9999999999999-0",
    "DEL {k} {k}",
    "UNLINK {k}",
    "EXISTS {k} {k}",
    "TYPE {k}",
    "RENAME {k} {k}",
    "RENAMENX {k} {k}",
    "COPY {k} {k} REPLACE",
    "COPY {k} {k} DB {db}",
    "MOVE {k} {db}",
    "TOUCH {k}",
    "EXPIRE {k} {ttl}",
    "PEXPIRE {k} {ttl} NX",
    "EXPIREAT {k} 1",
    "PERSIST {k}",
    "TTL {k}",
    "PTTL {k}",
    "EXPIRETIME {k}",
    "PEXPIRETIME {k}",
    "OBJECT ENCODING {k}",
    "OBJECT IDLETIME {k}",
    "OBJECT REFCOUNT {k}",
    "OBJECT FREQ {k}",
    "DUMP {k}",
    "RESTORE {k} 0 {dump} REPLACE",
    "RESTORE {k} {ttl} {dump}",
    "RESTORE {k} 0 {v}",
    "DBSIZE",
    "!KEYS *|unordered",
    "!SCAN 0 COUNT 100000|unordered",
    "FLUSHDB",
    "FLUSHALL SYNC",
    "SWAPDB {db} {db}",
    "SELECT {db}",
    "SELECT {db}",
    "SELECT {db}",
    "SELECT {i}",
    "ECHO {v}",
    "PING",
    "PING {v}",
    "PING",
    "ECHO {big}",
    "SET {s} {big}",
    "APPEND {s} {big}",
    "RPUSH {l} {big} {v}",
    "TIME",
    "LASTSAVE",
    "MULTI",
    "MULTI",
    "MULTI",
    "MULTI",
    "EXEC",
    "EXEC",
    "EXEC",
    "EXEC",
    "EXEC",
    "DISCARD",
    "WATCH {k}",
    "WATCH {k} {k}",
    "UNWATCH",
    "SUBSCRIBE {c}",
    "SUBSCRIBE {c} {c}",
    "PSUBSCRIBE {p}",
    "SSUBSCRIBE {c}",
    "UNSUBSCRIBE",
    "UNSUBSCRIBE {c}",
    "PUNSUBSCRIBE",
    "PUNSUBSCRIBE {p}",
    "SUNSUBSCRIBE",
    "SUNSUBSCRIBE {c}",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "SUNSUBSCRIBE",
    "SUBSCRIBE __redis__:invalidate",
    "PUBLISH {c} {v}",
    "PUBLISH {c} {m}",
    "SPUBLISH {c} {v}",
    "PUBSUB CHANNELS",
    "PUBSUB NUMSUB {c} {c}",
    "PUBSUB NUMPAT",
    "PUBSUB SHARDCHANNELS",
    "PUBSUB SHARDNUMSUB {c}",
    "HELLO",
    "HELLO 2",
    "HELLO 3",
    "HELLO 3",
    "HELLO 4",
    "HELLO 3 AUTH {u} {pw} SETNAME {m}",
    "HELLO 2 AUTH {u} {pw}",
    "HELLO 3 AUTH {u}",
    "HELLO x",
    "HELLO 3 SETNAME",
    "AUTH {u} {pw}",
    "AUTH {u} {pw}",
    "AUTH {pw}",
    "AUTH",
    "RESET",
    "RESET",
    "QUIT",
    "ACL WHOAMI",
    "ACL WHOAMI",
    "ACL USERS",
    "ACL LIST",
    "ACL GETUSER {u}",
    "ACL CAT",
    "ACL DRYRUN bob GET {k}",
    "!ACL GENPASS|kind",
    "!ACL LOG|kind",
    "ACL LOG RESET",
    "!ACL SETUSER bob -get",
    "!ACL SETUSER bob +get",
    "!ACL SETUSER bob off",
    "!ACL SETUSER bob on",
    "!ACL SETUSER bob resetkeys ~s*",
    "!ACL SETUSER bob ~*",
    "!ACL SETUSER ann >new",
    "!ACL SETUSER ann resetpass >annpw",
    "!ACL DELUSER bob",
    "!ACL SETUSER bob on >bobpw ~* &* +@all -@dangerous",
    "!ACL SETUSER bob resetchannels &c1",
    "CLIENT SETNAME {m}",
    "CLIENT SETNAME {v}",
    "CLIENT GETNAME",
    "CLIENT GETNAME",
    "CLIENT NO-EVICT on",
    "CLIENT NO-EVICT off",
    "CLIENT NO-TOUCH on",
    "CLIENT NO-TOUCH off",
    "CLIENT NO-EVICT x",
    "CLIENT SETINFO LIB-NAME {m}",
    "CLIENT REPLY OFF",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY ON",
    "CLIENT REPLY ON",
    "CLIENT REPLY ON",
    "CLIENT REPLY MAYBE",
    "CLIENT HELP",
    "CLIENT",
    "CLIENT NOSUCH",
    "CLIENT UNPAUSE",
    "!CLIENT ID|ids",
    "!CLIENT ID|ids",
    "!CLIENT ID|ids",
    "!CLIENT ID|ids",
    "!CLIENT INFO|kind",
    "!CLIENT LIST|kind",
    "!CLIENT KILL ID {id}",
    "!CLIENT KILL ID 999999999",
    "!CLIENT KILL 1.2.3.4:5",
    "!CLIENT KILL TYPE nosuch",
    "!CLIENT KILL ID {id} SKIPME no",
    "!CLIENT UNBLOCK {id}",
    "!CLIENT UNBLOCK {id} ERROR",
    "!CLIENT UNBLOCK {id} TIMEOUT",
    "!CLIENT UNBLOCK 999999999",
    "!CLIENT UNBLOCK x",
    "!CLIENT TRACKING on",
    "!CLIENT TRACKING on",
    "!CLIENT TRACKING on OPTIN",
    "!CLIENT TRACKING on OPTOUT",
    "!CLIENT TRACKING on NOLOOP",
    "!CLIENT TRACKING on BCAST",
    "!CLIENT TRACKING on BCAST PREFIX s PREFIX l",
    "!CLIENT TRACKING on BCAST PREFIX s PREFIX s0",
    "!CLIENT TRACKING off",
    "!CLIENT TRACKING off",
    "!CLIENT TRACKING on REDIRECT {id}",
    "!CLIENT TRACKING on REDIRECT {id} BCAST",
    "!CLIENT TRACKING on REDIRECT 999999999",
    "!CLIENT TRACKING",
    "CLIENT CACHING YES",
    "CLIENT CACHING NO",
    "CLIENT CACHING x",
    "!CLIENT GETREDIR|ids",
    "!CLIENT TRACKINGINFO|ids",
    "BLPOP {l} {l} {t}",
    "BRPOP {l} {t}",
    "BLMOVE {l} {l} LEFT RIGHT {t}",
    "BRPOPLPUSH {l} {l} {t}",
    "BLMPOP {t} 1 {l} LEFT",
    "BZPOPMIN {z} {t}",
    "BZPOPMAX {z} {z} {t}",
    "BZMPOP {t} 1 {z} MAX",
    "XREAD BLOCK {bt} STREAMS {x} $",
    "XREADGROUP GROUP g c1 BLOCK {bt} STREAMS {x} >",
    "BLPOP {l} -1",
    "BLPOP {l} x",
    "BLPOP {s} {t}",
    "!WAIT 0 0|kind",
    "WAIT x 0",
    "WAIT 0 -1",
    "EVAL {lua} 1 {k} {v}",
    "EVAL {lua} 1 {s} {v}",
    "EVAL {lua} 2 {l} {s} {m}",
    "EVAL_RO {lua} 1 {s} {v}",
    "EVALSHA {sha} 1 {k} {m}",
    "EVALSHA_RO {sha} 1 {k}",
    "EVAL {lua} x",
    "EVAL {lua} 5 a",
    "EVAL {lua} -1",
    "SCRIPT LOAD {lua}",
    "SCRIPT LOAD {lua}",
    "SCRIPT EXISTS {sha} {sha}",
    "SCRIPT FLUSH",
    "SCRIPT KILL",
    "SCRIPT HELP",
    "!SCRIPT DEBUG NO|kind",
    "FUNCTION LOAD {lib}",
    "FUNCTION LOAD REPLACE {lib}",
    "FUNCTION LIST",
    "FUNCTION LIST WITHCODE",
    "FUNCTION DELETE lib",
    "FUNCTION KILL",
    "FUNCTION STATS",
    "FUNCTION DUMP",
    "FUNCTION FLUSH",
    "FCALL f 1 {s} {v}",
    "FCALL_RO f 1 {s}",
    "FCALL g 1 {s}",
    "FCALL nosuch 0",
    "CONFIG GET maxmemory*",
    "CONFIG GET save appendonly",
    "CONFIG GET hash-max-*",
    "CONFIG GET nosuch",
    "CONFIG SET nosuch 1",
    "CONFIG SET hash-max-listpack-entries {i}",
    "CONFIG SET notify-keyspace-events {nk}",
    "!CONFIG SET list-max-listpack-size 4",
    "CONFIG HELP",
    "CONFIG RESETSTAT",
    "CONFIG REWRITE",
    "!COMMAND|rows",
    "!COMMAND COUNT|rows",
    "!COMMAND LIST|rows",
    "!COMMAND DOCS|rows",
    "COMMAND INFO get {m} set",
    "COMMAND DOCS get",
    "COMMAND GETKEYS MSET {k} {v} {k} {v}",
    "COMMAND GETKEYS EVAL x 2 {k} {k}",
    "COMMAND GETKEYSANDFLAGS SET {k} v",
    "COMMAND GETKEYS PING",
    "COMMAND LIST FILTERBY ACLCAT hash",
    "COMMAND LIST FILTERBY PATTERN x*",
    "COMMAND NOSUCH",
    "!INFO|kind",
    "!INFO server clients|kind",
    "INFO nosuchsection",
    "!ROLE|kind",
    "!MEMORY USAGE {k}|kind",
    "MEMORY PURGE",
    "SLOWLOG LEN",
    "SLOWLOG GET",
    "SLOWLOG RESET",
    "LATENCY LATEST",
    "LATENCY RESET",
    "!MIGRATE 127.0.0.1 1",
    "!MIGRATE h p k d t",
    "!MODULE LIST",
    "!MODULE LOAD /nosuch.so",
    "!CLUSTER INFO|kind",
    "READONLY",
    "READWRITE",
    "ASKING",
    "LOLWUT VERSION x",
    "NOSUCHCOMMAND {v} {v}",
    "{v} {v}",
    "DEBUG PROTOCOL string",
    "DEBUG PROTOCOL integer",
    "DEBUG PROTOCOL double",
    "DEBUG PROTOCOL null",
    "DEBUG PROTOCOL array",
    "DEBUG PROTOCOL set",
    "DEBUG PROTOCOL map",
    "DEBUG PROTOCOL attrib",
    "DEBUG PROTOCOL push",
    "DEBUG PROTOCOL verbatim",
    "DEBUG PROTOCOL true",
    "DEBUG PROTOCOL false",
    "DEBUG PROTOCOL bignum",
    "DEBUG DIGEST-VALUE {k} {k}",
    "DEBUG STRINGMATCH-LEN 10 a*",
];

const SCRIPTS: &[&str] = &[
    "return {KEYS[1],ARGV[1],redis.call('SET',KEYS[1],ARGV[1])}",
    "return redis.call('GET',KEYS[1])",
    "return redis.error_reply('MY error')",
    "return redis.pcall('LPUSH',KEYS[1],ARGV[1])",
    "redis.call('SELECT',1) return redis.call('INCR','n0')",
    "redis.setresp(3) return redis.call('HGETALL',KEYS[1])",
    "redis.setresp(3) return {double=3.5}",
    "return {1,2,{3,'four',false,{}},true,'six'}",
    "return redis.call('TIME')",
    "error('thrown')",
    "syntax error here",
    "return redis.call('PUBLISH','c1',ARGV[1] or 'x')",
    "return redis.status_reply('FINE')",
    "return redis.call('BLPOP','nosuch',0)",
    "return redis.call('CLIENT','ID') and 1",
    "return #ARGV",
    "redis.call('DEL',KEYS[1]) redis.call('RPUSH',KEYS[1],1,2,3) return redis.call('LRANGE',KEYS[1],0,-1)",
];

const LIBRARY: &str = "#!lua name=lib\nredis.register_function('f', function(k,a) return {k[1],a[1],redis.call('INCR','n1')} end)\n\
    redis.register_function{function_name='g', callback=function(k,a) return redis.call('GET',k[1]) end, flags={'no-writes'}}";

/// A part of a request.
#[derive(Clone, Debug)]
pub enum Part {
    Bytes(Vec<u8>),
    /// The id of this connection, other in each world.
    IdOf(usize),
}

#[derive(Clone, Debug)]
pub struct Request {
    pub parts: Vec<Part>,
    pub rule: Rule,
    /// Sent as a line of words.
    pub inline: bool,
}

/// It can stand in a line as it is.
fn is_plain(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|c| c.is_ascii_graphic() && !b"\"'".contains(c))
}

/// As it stands in a line.
fn quoted(word: Vec<u8>) -> Vec<u8> {
    if is_plain(&word) {
        return word;
    }
    let inside = word.iter().map(|b| format!("\\x{b:02x}")).collect::<String>();
    format!("\"{inside}\"").into_bytes()
}

impl Request {
    /// These words and nothing else.
    pub fn of(args: Vec<Vec<u8>>, inline: bool) -> Self {
        let inline = inline && args.iter().all(|word| word.len() < 1000);
        Self { parts: args.into_iter().map(Part::Bytes).collect(), rule: Rule::Exact, inline }
    }

    /// Its bytes for a world with these ids.
    pub fn pack(&self, id_of: impl Fn(usize) -> i64, out: &mut Vec<u8>) {
        let args = self.parts.iter().map(|p| match p {
            Part::Bytes(b) => b.clone(),
            Part::IdOf(conn) => id_of(*conn).to_string().into_bytes(),
        });
        if self.inline {
            out.extend_from_slice(&args.map(quoted).collect::<Vec<_>>().join(&b' '));
            return out.extend_from_slice(b"\r\n");
        }
        crate::harness::Args(args.collect()).pack(out);
    }

    pub fn show(&self) -> String {
        let words: Vec<String> = self
            .parts
            .iter()
            .map(|p| match p {
                Part::Bytes(b) => crate::harness::conn::show_bytes(b),
                Part::IdOf(conn) => format!("{{id of connection {conn}}}"),
            })
            .collect();
        let mut text = words.join(" ");
        if self.inline {
            text.push_str("  (inline)");
        }
        text
    }

    fn name(&self) -> Vec<u8> {
        match self.parts.first() {
            Some(Part::Bytes(b)) => word::seen(b).to_ascii_uppercase(),
            _ => Vec::new(),
        }
    }

    /// Whether the server takes an argument for this word.
    fn says(&self, at: usize, word: &str) -> bool {
        matches!(self.parts.get(at), Some(Part::Bytes(b)) if word::is(b, word))
    }

    /// Nothing may stand behind a request that may block: when the rest runs depends on the turns of the event loop.
    pub fn may_block(&self) -> bool {
        let name = self.name();
        let blocks = |p: &Part| matches!(p, Part::Bytes(b) if word::is(b, "BLOCK"));
        [&b"BL"[..], b"BR", b"BZ", b"WAIT"].iter().any(|n| name.starts_with(n)) || self.parts.iter().any(blocks)
    }

    pub fn names_broadcast(&self) -> bool {
        (0..self.parts.len()).any(|at| self.says(at, "BCAST"))
    }

    /// Or change how a redirected invalidation is said, or whether: in RESP2 a session that listens to none gets none.
    pub fn may_end_tracking(&self) -> bool {
        let name = self.name();
        [&b"RESET"[..], b"QUIT", b"HELLO"].contains(&name.as_slice())
            || name.ends_with(b"SUBSCRIBE")
            || name == b"CLIENT" && self.says(1, "TRACKING")
    }

    /// It may disconnect others: by itself, or because of what their user may do from now on.
    pub fn may_end_others(&self) -> bool {
        self.name() == b"CLIENT" && self.says(1, "KILL")
            || self.name() == b"ACL" && ["DELUSER", "SETUSER", "LOAD"].iter().any(|w| self.says(1, w))
    }

    pub fn asks_refcount(&self) -> bool {
        self.name() == b"OBJECT" && self.says(1, "REFCOUNT")
    }

    pub fn is_multi(&self) -> bool {
        self.name() == b"MULTI"
    }

    pub fn is_quit(&self) -> bool {
        self.name() == b"QUIT"
    }

    pub fn is_client_reply(&self) -> bool {
        self.name() == b"CLIENT" && self.says(1, "REPLY")
    }
}

/// A command of the server.
struct Known {
    /// Its name, of one or two words.
    words: Vec<Vec<u8>>,
    arity: i64,
    /// Keywords that its documentation names.
    tokens: Vec<Vec<u8>>,
}

/// What requests are made of.
pub struct Commands {
    table: Vec<Known>,
    dumps: Vec<Vec<u8>>,
    shas: Vec<Vec<u8>>,
}

impl Commands {
    /// From what the server says of itself.
    pub fn of(server: &mut Conn) -> Self {
        let mut table = Vec::new();
        for row in items(&server.must(&args!["COMMAND"])) {
            let row = items(&row);
            let name = text(&row[0]).to_ascii_uppercase();
            let tokens = match server.call(&args!["COMMAND", "DOCS", &name]) {
                Ok(docs @ (Value::Array(_) | Value::Map(_))) => tokens(&docs),
                _ => Vec::new(),
            };
            let subcommands = row.get(9).map(items).unwrap_or_default();
            let of_container = |s: &Value| {
                let s = items(s);
                (text(&s[0]).to_ascii_uppercase(), int(&s[1]))
            };
            let subcommands: Vec<_> = subcommands.iter().map(of_container).collect();
            let is_excluded = |name: &str| EXCLUDED.iter().any(|(n, _)| *n == name);
            if is_excluded(&name) {
                continue;
            }
            for (sub, arity) in &subcommands {
                if !is_excluded(sub) {
                    let words = sub.split('|').map(|w| w.as_bytes().to_vec()).collect();
                    table.push(Known { words, arity: *arity, tokens: tokens.clone() });
                }
            }
            if subcommands.is_empty() {
                table.push(Known { words: vec![name.into_bytes()], arity: int(&row[1]), tokens });
            }
        }
        let mut dumps = Vec::new();
        for make in [
            args!["SET", "d", "text"],
            args!["RPUSH", "d", "a", "b", "c"],
            args!["HSET", "d", "f", "v"],
            args!["ZADD", "d", 1, "m"],
        ] {
            server.must(&args!["DEL", "d"]);
            server.must(&make);
            dumps.push(bytes(&server.must(&args!["DUMP", "d"])));
        }
        server.must(&args!["DEL", "d"]);
        let mut sha =
            |script: &&str| server.call(&args!["SCRIPT", "LOAD", script]).ok().filter(|v| matches!(v, Value::Bytes(_)));
        let mut shas: Vec<_> = SCRIPTS.iter().filter_map(&mut sha).map(|v| bytes(&v)).collect();
        shas.push(b"ffffffffffffffffffffffffffffffffffffffff".to_vec());
        server.must(&args!["SCRIPT", "FLUSH"]);
        Self { table, dumps, shas }
    }

    /// `alone`: requests whose replies are compared by another rule may come. `known`: connections whose id is known.
    pub fn one(&self, rng: &mut StdRng, alone: bool, known: &[usize]) -> Request {
        loop {
            let request = if rng.random_bool(0.3) { self.made_up(rng) } else { self.of_template(rng, known) };
            if let Some(request) = request
                && (alone || request.rule == Rule::Exact)
            {
                return request;
            }
        }
    }

    fn of_template(&self, rng: &mut StdRng, known: &[usize]) -> Option<Request> {
        let template = *TEMPLATES.choose(rng).expect("templates");
        let (body, rule) = match template.rsplit_once('|') {
            Some((body, "unordered")) => (body, Rule::Unordered),
            Some((body, "kind")) => (body, Rule::Kind),
            Some((body, "ids")) => (body, Rule::Ids),
            Some((body, "rows")) => (body, Rule::CommandRows),
            _ => (template, Rule::Exact),
        };
        let fixed = body.starts_with('!');
        let mut parts = Vec::new();
        for word in body.trim_start_matches('!').split(' ') {
            parts.push(if word == "{id}" {
                Part::IdOf(*known.choose(rng)?)
            } else {
                Part::Bytes(self.fill(word, rng))
            });
        }
        let mut inline = false;
        if !fixed && !is_excluded(&parts) {
            match rng.random_range(0..60) {
                0 if parts.len() > 1 => drop(parts.pop()),
                1 => parts.push(Part::Bytes(self.any(rng, &[]))),
                2 if parts.len() > 1 => {
                    let at = rng.random_range(1..parts.len());
                    parts[at] = Part::Bytes(self.any(rng, &[]));
                }
                3 => {
                    let at = rng.random_range(0..parts.len());
                    parts.insert(at, parts[at].clone());
                }
                4..8 => inline = true,
                8..12 => {
                    if let Part::Bytes(name) = &mut parts[0] {
                        name.iter_mut()
                            .for_each(|b| *b = if rng.random_bool(0.5) { b.to_ascii_lowercase() } else { *b });
                    }
                }
                _ => {}
            }
        }
        let plain = |p: &Part| matches!(p, Part::Bytes(b) if b.len() < 1000 && is_plain(b));
        inline &= parts.iter().all(plain);
        Some(Request { parts, rule, inline })
    }

    fn made_up(&self, rng: &mut StdRng) -> Option<Request> {
        let Known { words, arity, tokens } = self.table.choose(rng).expect("commands");
        let mut args = words.clone();
        let least = arity.unsigned_abs() as usize;
        let wanted = match rng.random_range(0..10) {
            0 => rng.random_range(1..=least.max(1)),
            1..4 => least + rng.random_range(0..4),
            _ => least,
        };
        while args.len() < wanted {
            args.push(self.any(rng, tokens));
        }
        Some(Request { parts: args.into_iter().map(Part::Bytes).collect(), rule: Rule::Exact, inline: false })
    }

    fn any(&self, rng: &mut StdRng, tokens: &[Vec<u8>]) -> Vec<u8> {
        if !tokens.is_empty() && rng.random_bool(0.25) {
            return tokens.choose(rng).expect("tokens").clone();
        }
        let word = ["{k}", "{k}", "{k}", "{i}", "{i}", "{v}", "{m}", "{f}", "{db}", "{c}", "{ttl}", "{junk}"]
            .choose(rng)
            .expect("words");
        self.fill(word, rng)
    }

    fn fill(&self, word: &str, rng: &mut StdRng) -> Vec<u8> {
        let mut pick = |all: &[&str]| all.choose(rng).expect("a choice").as_bytes().to_vec();
        let key = |kind: &str, rng: &mut StdRng| {
            let kind = if rng.random_bool(0.04) {
                *["s", "l", "h", "S", "z", "x", "n"].choose(rng).expect("kinds")
            } else {
                kind
            };
            format!("{kind}{}", rng.random_range(0..3)).into_bytes()
        };
        match word {
            "{s}" => key("s", rng),
            "{l}" => key("l", rng),
            "{h}" => key("h", rng),
            "{S}" => key("S", rng),
            "{z}" => key("z", rng),
            "{x}" => key("x", rng),
            "{n}" => key("n", rng),
            "{k}" => {
                let kind = pick(&["s", "l", "h", "S", "z", "x", "n"]);
                key(std::str::from_utf8(&kind).expect("a letter"), rng)
            }
            "{m}" => format!("m{}", rng.random_range(0..12)).into_bytes(),
            "{v}" => match rng.random_range(0..20) {
                0 => Vec::new(),
                1 => b"*1\r\n$4\r\nPING\r\n".to_vec(),
                2 => (0..rng.random_range(1..300)).map(|_| rng.random()).collect(),
                3 => vec![b'x'; rng.random_range(1000..40_000)],
                _ => format!("v{}", rng.random_range(0..1000)).into_bytes(),
            },
            "{big}" => {
                vec![
                    rng.random();
                    if rng.random_bool(0.1) { rng.random_range(0..1 << 20) } else { rng.random_range(0..100_000) }
                ]
            }
            // Nothing between a million and 2^32: offsets of that size take that much memory.
            "{i}" => pick(&[
                "0",
                "1",
                "2",
                "3",
                "-1",
                "5",
                "10",
                "-10",
                "100",
                "1000",
                "9223372036854775807",
                "-9223372036854775808",
                "x",
                "",
            ]),
            "{f}" => pick(&["0", "1.5", "-3", "3.0e3", "inf", "-inf", "nan", "1e400", "2", "1", "x"]),
            "{db}" => pick(&["0", "0", "0", "1", "2"]),
            "{c}" => pick(&["c1", "c2", "c3", "s0"]),
            "{p}" => pick(&["c*", "c?", "__key*", "*", "[c]1"]),
            "{t}" => pick(&["0.01", "0.05", "1", "5", "0", "0.001"]),
            "{bt}" => pick(&["10", "50", "1000", "0", "x"]),
            "{ttl}" => pick(&["1", "5", "100", "5000", "100000", "0", "-1"]),
            "{u}" => pick(&["ann", "bob", "default", "nobody"]),
            "{pw}" => pick(&["annpw", "bobpw", "wrong", "annpw", "bobpw"]),
            "{nk}" => pick(&["KEA", "Kg$", "", "El", "x"]),
            "{lua}" => pick(SCRIPTS),
            "{lib}" => LIBRARY.as_bytes().to_vec(),
            "{sha}" => self.shas.choose(rng).expect("shas").clone(),
            "{i}-1" => format!("{}-1", rng.random_range(0..20)).into_bytes(),
            "{dump}" => self.dumps.choose(rng).expect("dumps").clone(),
            "{junk}" => (0..rng.random_range(0..20)).map(|_| rng.random()).collect(),
            _ => word.as_bytes().to_vec(),
        }
    }
}

/// Whether a request with these words is made from templates only.
fn is_excluded(parts: &[Part]) -> bool {
    let word = |n: usize| match parts.get(n) {
        Some(Part::Bytes(b)) => String::from_utf8_lossy(b).to_ascii_uppercase(),
        _ => String::new(),
    };
    let (name, sub) = (word(0), format!("{}|{}", word(0), word(1)));
    EXCLUDED.iter().any(|(n, _)| *n == name || *n == sub)
}

/// The keywords in a command's documentation.
fn tokens(docs: &Value) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    if let Value::Array(all) | Value::Map(all) = docs {
        for pair in all.windows(2) {
            if let (Value::Bytes(key), Value::Bytes(token)) = (&pair[0], &pair[1])
                && key == b"token"
            {
                found.push(token.clone());
            }
        }
        found.extend(all.iter().flat_map(tokens));
    }
    found
}
