use super::*;
use crate::command::CommandTable;
use crate::effect::rules;

#[test]
fn every_command_that_may_write_has_a_class() {
    let text = CommandTable::builtin().to_text();
    let mut writes = 0;
    for line in text.lines() {
        let mut words = line.split(' ');
        let (name, flags) = (words.next().expect("a name"), words.nth(1).expect("flags"));
        if flags.split(',').any(|flag| flag == "write") {
            writes += 1;
            assert!(class(name.as_bytes()).is_some(), "{name} is in no class");
        }
    }
    assert!(writes > 100, "{writes}");
    for (name, _) in rules::every_name() {
        assert!(class(name).is_some(), "{} is in no class", name.escape_ascii());
    }
    let listed = FAMILIES.iter().flat_map(|(_, names)| names.split(' ')).count();
    assert_eq!(listed, CLASSES.len(), "a command is in two classes");
}

fn check(want: Reading, requests: &[(&str, &str)]) {
    for (via, line) in requests {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_eq!(reading(via, &args), want, "{line} by {via:?}");
        assert_eq!(is_blind(via, &args), want == Reading::Blind);
    }
}

#[test]
fn what_only_writes_is_blind() {
    check(
        Reading::Blind,
        &[
            ("", "SET k v"),
            ("", "set k v keepttl"),
            ("", "SET NX GET"),
            ("setex", "SET k v PXAT 5"),
            ("psetex", "SET k v PXAT 5"),
            ("", "MSET a 1 b 2"),
            ("", "MSETEX 1 k v PXAT 5"),
            ("", "HSET h f 1"),
            ("hmset", "HSET h f 1"),
            ("", "HSETEX h PXAT 5 FIELDS 1 FNX 1"),
            ("", "DEL a b"),
            ("unlink", "DEL a"),
            ("", "SADD s NX"),
            ("", "ZADD z 1 NX"),
            ("", "ZADD z CH 1 INCR"),
            ("", "GEOADD g CH 1 2 XX"),
            ("", "BITFIELD b SET u8 0 1 SET u8 8 1"),
            ("", "SETRANGE k 5 x"),
            ("", "LREM l 0 x"),
            ("", "LTRIM l 0 5"),
            ("", "XADD s 1-1 NOMKSTREAM 1"),
            ("", "XDELEX s KEEPREF IDS 1 1-1"),
            ("", "PEXPIREAT k 5"),
            ("expire", "PEXPIREAT k 5"),
            ("pexpire", "pexpireat k 5"),
            ("hexpire", "HPEXPIREAT h 5 FIELDS 1 NX"),
            ("", "RESTORE k 0 payload REPLACE"),
            ("", "RESTORE k 0 payload ABSTTL replace"),
            ("", "FLUSHALL ASYNC"),
            ("", "PUBLISH c m"),
        ],
    );
}

#[test]
fn what_has_a_condition_or_an_answer_reads() {
    check(
        Reading::Reads,
        &[
            ("", "SET k v NX"),
            ("", "SET k v XX KEEPTTL"),
            ("", "SET k v PX 5 nx"),
            ("", "SET k v nx\0 px 5"),
            ("", "SET k v IFEQ EX"),
            ("", "SET k v GET"),
            ("", "SET k v WHATEVER"),
            ("getset", "SET k v"),
            ("incrbyfloat", "SET k 5 KEEPTTL"),
            ("hincrbyfloat", "HSET h f 1"),
            ("", "SETNX k v"),
            ("", "MSETNX k v"),
            ("", "MSETEX 1 k v NX PXAT 5"),
            ("", "HSETNX h f 1"),
            ("", "HSETEX h FNX FIELDS 1 f 1"),
            ("", "INCR n"),
            ("", "APPEND k v"),
            ("getdel", "DEL k"),
            ("getex", "PERSIST k"),
            ("hgetdel", "HDEL h f"),
            ("delifeq", "DEL k"),
            ("", "DELEX k IFEQ 1"),
            ("spop", "SREM s a"),
            ("spop", "DEL s"),
            ("blpop", "LPOP l"),
            ("", "LPOP l"),
            ("", "LMOVE a b LEFT RIGHT"),
            ("", "LPUSHX l a"),
            ("", "LSET l 0 a"),
            ("", "ZADD z NX 1 a"),
            ("", "ZADD z CH gt 1 a"),
            ("", "ZADD z INCR 1 a"),
            ("", "GEOADD g XX 1 2 a"),
            ("", "BITFIELD b SET u8 0 1 GET u8 0"),
            ("", "BITFIELD b OVERFLOW FAIL SET u8 0 1"),
            ("", "PEXPIREAT k 5 GT"),
            ("expire", "PEXPIREAT k 5 lt"),
            ("hexpire", "HPEXPIREAT h 5 NX FIELDS 1 f"),
            ("xreadgroup", "XCLAIM s g c 0 1-1 TIME 1 RETRYCOUNT 1 FORCE JUSTID LASTID 1-1"),
            ("xreadgroup", "XGROUP CREATECONSUMER s g c"),
            ("", "XADD s NOMKSTREAM 1-1 a 1"),
            ("", "RENAMENX a b"),
            ("", "COPY a b"),
            ("", "MOVE a 1"),
            ("", "RESTORE k 0 REPLACE"),
            ("migrate", "DEL k"),
            ("evalsha", "SET k v"),
            ("fcall", "RENAME a b"),
            ("", "EVAL x 0"),
            ("", "JSON.SET k . 1"),
            ("", "SET\0x k v"),
            ("my.module", "SET k v"),
            ("set", "JSON.SET k . 1"),
        ],
    );
    assert_eq!(reading::<&[u8]>("", &[]), Reading::Reads);
}

#[test]
fn copies_of_the_server_are_derived() {
    check(
        Reading::Derives,
        &[
            ("", "RENAME a b"),
            ("", "COPY a b REPLACE"),
            ("", "COPY a b db 2 replace"),
            ("", "SMOVE a b x"),
            ("", "SUNIONSTORE d a b"),
            ("sinterstore", "DEL d"),
            ("", "SORT l STORE d"),
            ("", "BITOP AND d a b"),
            ("", "PFMERGE d a"),
            ("", "SWAPDB 0 1"),
        ],
    );
}

/// As Redis 7.0.15 and 8.6.3 put `SET k v NX EX 9`, `SET k v EXAT 1`, `EXPIRE k -1 LT` and `SET k v IFEQ 1 PX 9` in the stream.
#[test]
fn what_the_server_leaves_out_is_in_doubt() {
    check(
        Reading::Perhaps,
        &[
            ("", "SET k v PXAT 5"),
            ("", "SET k v PX 5"),
            ("set", "DEL k"),
            ("expire", "DEL k"),
            ("hexpire", "HDEL h f"),
            ("hsetex", "HDEL h f"),
        ],
    );
}
