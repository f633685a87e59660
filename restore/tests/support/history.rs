//! Random commands with much that ties keys together: what a slice has to get right.

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::version;

/// Databases that are written to.
pub(crate) const DATABASES: u32 = 3;
/// First letters of keys, one for each type.
const TYPES: &[u8] = b"sltzghxp";

/// Commands; a letter and a dollar sign stand for a key that is mostly of this type, `$$` for one of any, `@` for a database,
/// `#` for a small number, and `%` for a blank within a word. None blocks: the clock may stand still.
const COMMANDS: &[(u32, &str)] = &[
    // Strings.
    (9, "SET s$ #"),
    (2, "SET $$ #"),
    (3, "SET s$ # NX"),
    (3, "SET s$ # XX"),
    (1, "SET $$ # XX GET"),
    (2, "SET s$ # KEEPTTL"),
    (3, "SET s$ # PX 900000"),
    (1, "SET $$ # EXAT 90000"),
    (1, "SET s$ # IFEQ #"),
    (1, "SETEX s$ 900 #"),
    (1, "PSETEX $$ 900000 #"),
    (1, "SETNX s$ #"),
    (2, "GETSET s$ #"),
    (3, "APPEND s$ #"),
    (2, "INCR s$"),
    (1, "DECRBY s$ #"),
    (1, "INCRBYFLOAT s$ 0.5"),
    (1, "BITFIELD s$ SET u8 0 # INCRBY u4 4 #"),
    (2, "MSET s$ # s$ #"),
    (1, "MSET $$ # $$ # $$ #"),
    (3, "MSETNX s$ # $$ #"),
    (1, "MSETEX 2 s$ # $$ # NX"),
    (1, "MSETEX 2 s$ # $$ # XX PX 900000"),
    (1, "GETDEL s$"),
    (1, "DELEX s$ IFEQ #"),
    (1, "DELIFEQ s$ #"),
    (1, "GETEX s$ PERSIST"),
    (1, "GETEX $$ PX 800000"),
    (1, "SETRANGE s$ 2 x"),
    (2, "SETBIT s$ # 1"),
    (3, "BITOP OR s$ s$ s$"),
    (1, "BITOP XOR $$ $$ s$"),
    (1, "BITOP NOT $$ s$"),
    (1, "BITOP DIFF s$ s$ s$"),
    // Whole keys.
    (4, "DEL $$"),
    (2, "UNLINK $$ $$ $$"),
    (1, "DEL $$ $$ $$ $$ $$"),
    (8, "RENAME $$ $$"),
    (6, "RENAMENX $$ $$"),
    (5, "COPY $$ $$"),
    (5, "COPY $$ $$ REPLACE"),
    (4, "COPY $$ $$ DB @"),
    (3, "COPY $$ $$ DB @ REPLACE"),
    (5, "MOVE $$ @"),
    (3, "PEXPIRE $$ 800000"),
    (1, "PEXPIRE $$ 700000 GT"),
    (1, "PEXPIRE $$ 900000 XX"),
    (1, "EXPIRE $$ -1"),
    (2, "PERSIST $$"),
    (2, "EVAL return%redis.call('restore',KEYS[2],0,redis.call('dump',KEYS[1])) 2 $$ $$"),
    (2, "EVAL return%redis.call('restore',KEYS[2],700000,redis.call('dump',KEYS[1]),'replace','idletime',5) 2 $$ $$"),
    // Lists.
    (5, "RPUSH l$ # # #"),
    (2, "LPUSH l$ #"),
    (1, "LPUSHX l$ #"),
    (1, "RPUSHX l$ #"),
    (1, "LSET l$ 0 #"),
    (1, "LINSERT l$ BEFORE # #"),
    (2, "LPOP l$"),
    (4, "LMOVE l$ l$ LEFT RIGHT"),
    (2, "RPOPLPUSH l$ l$"),
    (1, "LTRIM l$ 0 3"),
    (1, "LREM l$ 1 #"),
    (1, "LMPOP 2 l$ l$ LEFT"),
    // What is sorted and stored.
    (4, "SORT l$ ALPHA STORE l$"),
    (1, "SORT $$ ALPHA STORE $$"),
    (2, "SORT t$ ALPHA LIMIT 0 2 STORE $$"),
    (3, "SORT l$ BY s* GET # GET s* ALPHA STORE $$"),
    // Sets.
    (5, "SADD t$ # #"),
    (2, "SREM t$ #"),
    (2, "SPOP t$"),
    (1, "SPOP t$ 2"),
    (4, "SMOVE t$ t$ #"),
    (3, "SUNIONSTORE t$ t$ t$"),
    (2, "SINTERSTORE t$ t$ t$"),
    (2, "SDIFFSTORE $$ t$ t$"),
    // Sorted sets.
    (5, "ZADD z$ # m#"),
    (1, "ZADD z$ XX # m#"),
    (1, "ZADD z$ GT CH # m#"),
    (1, "ZADD z$ NX # m#"),
    (1, "ZADD z$ LT INCR # m#"),
    (1, "ZINCRBY z$ # m#"),
    (1, "ZREM z$ m#"),
    (1, "ZREMRANGEBYRANK z$ 0 0"),
    (1, "ZREMRANGEBYSCORE z$ 0 2"),
    (1, "ZPOPMIN z$"),
    (1, "ZMPOP 2 z$ z$ MIN"),
    (3, "ZUNIONSTORE z$ 2 z$ t$"),
    (2, "ZINTERSTORE $$ 2 z$ z$"),
    (1, "ZDIFFSTORE $$ 2 z$ t$"),
    (2, "ZRANGESTORE z$ z$ 0 2"),
    (1, "ZRANGESTORE $$ z$ 3 9 BYSCORE"),
    (2, "GEOADD g$ 13.3# 38.1# m#"),
    (2, "GEORADIUS g$ 13 38 400 km STORE z$"),
    (1, "GEORADIUS g$ 13 38 400 km COUNT 1 STOREDIST $$"),
    (1, "GEORADIUSBYMEMBER g$ m# 400 km STORE $$"),
    (1, "GEOSEARCHSTORE $$ g$ FROMLONLAT 13 38 BYRADIUS 400 km"),
    // Hashes.
    (5, "HSET h$ f# #"),
    (2, "HDEL h$ f#"),
    (1, "HSETNX h$ f# #"),
    (2, "HINCRBY h$ f# 1"),
    // Streams.
    (3, "XADD x$ * f #"),
    (2, "XADD x$ #-# f #"),
    (1, "XADD x$ NOMKSTREAM * f #"),
    (1, "XADD x$ MAXLEN ~ 3 LIMIT 10 * f #"),
    (2, "XGROUP CREATE x$ g1 0 MKSTREAM"),
    (1, "XGROUP CREATE x$ g1 $"),
    (1, "XGROUP SETID x$ g1 #-#"),
    (1, "XGROUP CREATECONSUMER x$ g1 c#"),
    (1, "XGROUP DELCONSUMER x$ g1 c#"),
    (1, "XGROUP DESTROY x$ g1"),
    (2, "XREADGROUP GROUP g1 c# COUNT 2 STREAMS x$ >"),
    (1, "XREADGROUP GROUP g1 c# NOACK COUNT 1 STREAMS x$ >"),
    (1, "XAUTOCLAIM x$ g1 c# 0 0 COUNT 2"),
    (1, "XCLAIM x$ g1 c# 0 #-# FORCE JUSTID"),
    (1, "XACK x$ g1 #-#"),
    (1, "XDEL x$ #-#"),
    (1, "XACKDEL x$ g1 IDS 1 #-#"),
    (1, "XTRIM x$ MAXLEN 3"),
    (1, "XSETID x$ 9999999999999-0"),
    // HyperLogLogs.
    (3, "PFADD p$ # #"),
    (2, "PFMERGE p$ p$ p$"),
    (2, "PFCOUNT p$"),
    (1, "PFCOUNT p$ p$"),
    // And the rest.
    (1, "PUBLISH channel #"),
    (2, "EVAL redis.call('set',KEYS[1],ARGV[1]);redis.call('rename',KEYS[1],KEYS[2]) 2 s$ $$ #"),
    (
        1,
        "EVAL redis.call('select','1');redis.call('append',KEYS[1],'x');redis.call('select','2');redis.call('incr',KEYS[2]) 2 s$ s$",
    ),
    (9, "SELECT @"),
    (3, "SWAPDB @ @"),
    (1, "SWAPDB @ 15"),
];

/// Seldom: behind them little of what came before is kept or left out.
const SELDOM: &[&str] = &[
    "FLUSHDB",
    "FLUSHDB ASYNC",
    "FLUSHALL",
    "FLUSHALL ASYNC",
    "FUNCTION LOAD REPLACE #!lua%name=lib\nredis.register_function('f#',%function()%return%1%end)",
    "SORT l$ BY nosort STORE l$",
];

/// Of hashes whose fields have TTLs (Redis 7.4).
const FIELDS: &[&str] = &[
    "HPEXPIRE h$ 700000 FIELDS 1 f#",
    "HPERSIST h$ FIELDS 1 f#",
    "HEXPIRE h$ 700 FIELDS 1 f#",
    "HSETEX h$ FNX PX 800000 FIELDS 1 f# #",
    "HGETEX h$ PERSIST FIELDS 1 f#",
    "HGETDEL h$ FIELDS 1 f#",
];

/// Strings in many keys, of which some are touched once, and some by two commands.
const STRINGS: &[(u32, &str)] = &[
    (20, "SET w$ #"),
    (4, "SET w$ 123456789012345678901#"),
    (4, "SET w$ text%that%is%neither%a%number%nor%short%enough%to%be%held%within%its%object"),
    (1, "SET w$ %"),
    (6, "SET w$ # PX 900000"),
    (2, "SET w$ # EXAT 90000"),
    (2, "SET w$ # NX"),
    (1, "SET w$ # KEEPTTL"),
    (1, "SETEX w$ 900 #"),
    (2, "APPEND w$ #"),
    (1, "INCR w$"),
    (2, "RENAME w$ w$"),
    (1, "RENAME s$ w$"),
    (2, "COPY w$ w$ REPLACE"),
    (2, "COPY w$ w$ DB @"),
    (1, "COPY w$ $$ REPLACE"),
    (1, "MOVE w$ @"),
    (2, "MSET w$ # w$ #"),
    (1, "DEL w$ w$"),
    (1, "PEXPIRE w$ 800000"),
    (1, "PERSIST w$"),
    (1, "SADD w$ #"),
    (4, "SELECT @"),
];
/// Keys of these.
const STRING_KEYS: u32 = 60;

/// A command of a history in which much can be folded: strings above all, and nothing that keeps all before it.
pub(crate) fn foldable_command(rng: &mut StdRng) -> Vec<Vec<u8>> {
    if rng.random_range(0..3) == 0 {
        loop {
            let command = random_command(rng);
            let name = String::from_utf8_lossy(&command[0]).into_owned();
            let by = command.iter().any(|word| word == b"BY");
            if !by && !["SWAPDB", "FLUSHDB", "FLUSHALL", "EVAL"].contains(&&*name) {
                return command;
            }
        }
    }
    chosen(STRINGS, rng).split(' ').map(|word| word_of(word, rng)).collect()
}

fn chosen(commands: &'static [(u32, &'static str)], rng: &mut StdRng) -> &'static str {
    let mut at = rng.random_range(0..commands.iter().map(|(weight, _)| weight).sum());
    let chosen = commands.iter().find(|(weight, _)| {
        let here = at < *weight;
        at = at.saturating_sub(*weight);
        here
    });
    chosen.unwrap().1
}

/// One of them.
pub(crate) fn random_command(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let template = match rng.random_range(0..100) {
        0 => SELDOM[rng.random_range(0..SELDOM.len())],
        1..4 if version().has_field_ttl() => FIELDS[rng.random_range(0..FIELDS.len())],
        _ => chosen(COMMANDS, rng),
    };
    template.split(' ').map(|word| word_of(word, rng)).collect()
}

/// The name of a key of any type.
pub(crate) fn random_key(rng: &mut StdRng) -> Vec<u8> {
    key_of(TYPES[rng.random_range(0..TYPES.len())], rng)
}

/// One of four of each type, of which one is no text; seldom the one that has no name.
fn key_of(letter: u8, rng: &mut StdRng) -> Vec<u8> {
    match rng.random_range(0..40) {
        0 => Vec::new(),
        n if n % 4 == 3 => vec![letter, b'3', 0, 0xff],
        n => format!("{}{}", char::from(letter), n % 4).into_bytes(),
    }
}

fn word_of(word: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut number = |end: u32| rng.random_range(0..end).to_string();
    match word.as_bytes() {
        b"@" => number(DATABASES).into_bytes(),
        b"$$" => random_key(rng),
        b"w$" => format!("w{}", rng.random_range(0..STRING_KEYS)).into_bytes(),
        [letter, b'$'] => key_of(*letter, rng),
        _ if word.contains('%') => word.replace('%', " ").replace('#', "1").replacen("1!", "#!", 1).into_bytes(),
        _ => {
            let mut filled = String::new();
            for part in word.split_inclusive('#') {
                filled += &part.replace('#', &number(8));
            }
            filled.into_bytes()
        }
    }
}
