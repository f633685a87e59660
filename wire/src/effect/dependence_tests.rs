use super::*;
use crate::command::CommandTable;
use crate::effect::{Touch, Touched};

/// `r`, `m` or `o` (read, modified, overwritten), the database unless it is 2, and the key.
fn show(args: &[&[u8]], keys: Option<&[usize]>) -> String {
    let found = dependence(2, args, keys);
    let mut shown: Vec<String> = Vec::new();
    if matches!(found, Dependence::ReadsOthers(_)) {
        shown.push("reads others:".to_owned());
    }
    for Touched { db, key, touch } in found.touched() {
        let touch = match touch {
            Touch::Read => "r",
            Touch::Modified => "m",
            Touch::Overwritten => "o",
        };
        let db = if *db == 2 { String::new() } else { format!("{db}:") };
        shown.push(format!("{touch} {db}{}", String::from_utf8_lossy(key)));
    }
    if shown.is_empty() { format!("{found:?}") } else { shown.join(" ") }
}

fn check(cases: &[(&str, &str)]) {
    for (line, want) in cases {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_eq!(show(&args, None), *want, "{line}");
    }
}

#[test]
fn strings() {
    check(&[
        ("SET k v", "o k"),
        ("set k v PXAT 5", "o k"),
        ("SET k v px\0x 5", "o k"),
        ("SET k v EX 5", "o k"),
        ("SET k v NX", "m k"),
        ("SET k v XX", "m k"),
        ("SET k v KEEPTTL", "m k"),
        ("SET k v GET", "m k"),
        ("SET k v PX 5 NX", "m k"),
        ("SET k v IFEQ 5", "m k"),
        ("SET k v WHATEVER 5", "m k"),
        ("SET k", "Unknown"),
        ("SETEX k 5 v", "o k"),
        ("PSETEX k 5", "Unknown"),
        ("SETNX k v", "m k"),
        ("GETSET k v", "m k"),
        ("APPEND k v", "m k"),
        ("MSET a 1 b 2", "o a o b"),
        ("MSET a 1 b", "Unknown"),
        ("MSETNX a 1 b 2", "m a m b"),
        ("MSETEX 2 a 1 b 2 EX 5", "m a m b"),
        ("MSETEX 2 a 1 b", "Unknown"),
        ("BITOP AND d a b", "o d r a r b"),
        ("BITOP NOT d d", "o d r d"),
        ("BITOP NOT d", "Unknown"),
        ("PFADD k a", "m k"),
        ("PFMERGE d a b", "m d r a r b"),
        ("PFMERGE d", "m d"),
        ("PFCOUNT a b", "m a m b"),
        ("PEXPIREAT k 5", "m k"),
        ("PERSIST k", "m k"),
    ]);
}

#[test]
fn whole_keys() {
    check(&[
        ("DEL a b", "o a o b"),
        ("UNLINK a", "o a"),
        ("DEL", "Unknown"),
        ("RENAME a b", "m a o b"),
        ("RENAME a a", "m a o a"),
        ("RENAME a", "Unknown"),
        ("RENAMENX a b", "m a m b"),
        ("COPY a b", "r a m b"),
        ("COPY a b REPLACE", "r a o b"),
        ("COPY a b DB 5", "r a m 5:b"),
        ("COPY a b db\0x 5 replace", "r a o 5:b"),
        ("COPY a b DB", "Unknown"),
        ("COPY a b OTHER", "Unknown"),
        ("MOVE a 5", "m a m 5:a"),
        ("MOVE a x", "Unknown"),
        ("RESTORE k 0 \u{1}data", "m k"),
        ("RESTORE k 0 \u{1}data REPLACE", "o k"),
        ("RESTORE k 5 \u{1}data absttl replace IDLETIME 3 FREQ 5", "o k"),
        ("RESTORE k 0 \u{1}data REPLACE OTHER", "Unknown"),
        // Values of modules.
        ("RESTORE k 0 \u{6}data REPLACE", "Unknown"),
        ("RESTORE k 0 \u{7}data REPLACE", "Unknown"),
        ("FLUSHDB ASYNC", "FlushDb"),
        ("flushall", "FlushAll"),
        ("SWAPDB 0 7", "SwapDb(0, 7)"),
        ("SWAPDB 0", "Unknown"),
        ("SWAPDB +1 2", "Unknown"),
    ]);
}

#[test]
fn results_that_are_stored() {
    check(&[
        ("SUNIONSTORE d a b", "o d r a r b"),
        ("SINTERSTORE d d a", "o d r d r a"),
        ("SDIFFSTORE d", "Unknown"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "o d r a r b"),
        ("ZINTERSTORE d 3 a b", "Unknown"),
        ("ZDIFFSTORE d 0 a", "Unknown"),
        ("ZDIFFSTORE d x a", "Unknown"),
        ("ZRANGESTORE d a 0 -1", "o d r a"),
        ("GEOSEARCHSTORE d a FROMMEMBER x BYRADIUS 1 m", "o d r a"),
        ("GEORADIUS g 1 2 3 m STORE d", "o d r g"),
        ("GEORADIUS g 1 2 3 m COUNT 5 ANY ASC storedist d", "o d r g"),
        ("GEORADIUSBYMEMBER g store 3 m STORE d", "o d r g"),
        ("GEORADIUS g 1 2 3 m STORE d STOREDIST e", "Unknown"),
        ("GEORADIUS g 1 2 3 m", "Unknown"),
        ("SORT l STORE d", "o d r l"),
        ("SORT l LIMIT 0 5 ALPHA desc store\0 d", "o d r l"),
        ("SORT l BY w_* STORE d", "reads others: o d r l"),
        ("SORT l BY store STORE d", "reads others: o d r l"),
        ("SORT l GET # GET o_* STORE d", "reads others: o d r l"),
        ("SORT l STORE d STORE e", "Unknown"),
        ("SORT l", "Unknown"),
    ]);
}

#[test]
fn elements() {
    check(&[
        ("LPUSH k a", "m k"),
        ("HSET k f v", "m k"),
        ("HPEXPIREAT k 5 FIELDS 1 f", "m k"),
        ("HGETDEL k FIELDS 1 f", "m k"),
        ("XADD k 1-1 f v", "m k"),
        ("XGROUP CREATE k g $", "m k"),
        ("XGROUP CREATE", "Unknown"),
        ("XCLAIM k g c 0 1-1", "m k"),
        ("LMOVE a b LEFT LEFT", "m a m b"),
        ("RPOPLPUSH a b", "m a m b"),
        ("SMOVE a b x", "m a m b"),
        ("LMPOP 2 a b LEFT", "m a m b"),
        ("ZMPOP 1 a MIN", "m a"),
        ("BLMPOP 0 2 a b LEFT", "m a m b"),
        ("LMPOP 3 a", "Unknown"),
        ("BLPOP a b 0", "m a m b"),
        ("BLPOP 0", "Unknown"),
    ]);
}

#[test]
fn without_keys_and_unknown() {
    check(&[
        ("PUBLISH a b", "Nothing"),
        ("FUNCTION LOAD x", "Libraries"),
        ("SCRIPT FLUSH", "Libraries"),
        ("EVAL x 1 a", "Unknown"),
        ("EVALSHA x 1 a", "Unknown"),
        ("FCALL f 1 a", "Unknown"),
        ("JSON.SET k . 1", "Unknown"),
        ("VADD k VALUES 1 1 e", "Unknown"),
        ("PFDEBUG TODENSE k", "Unknown"),
        ("GET k", "Unknown"),
        ("SET\0 k v", "Unknown"),
        ("SETT k v", "Unknown"),
        ("", "Unknown"),
    ]);
    assert_eq!(dependence::<&[u8]>(0, &[], None), Dependence::Unknown);
}

#[test]
fn where_the_journal_names_other_keys_nothing_is_sure() {
    for (line, keys, want) in [
        ("SET a 1", &[1][..], "o a"),
        ("SET a 1", &[2], "Unknown"),
        ("SET a 1", &[1, 2], "Unknown"),
        ("SET a 1", &[], "Unknown"),
        ("RENAME a b", &[1, 2], "m a o b"),
        ("RENAME a b", &[1], "Unknown"),
        ("SORT l BY w STORE d", &[1, 5], "reads others: o d r l"),
        ("PUBLISH a b", &[], "Nothing"),
        ("DEL a a", &[1, 2], "o a o a"),
        ("SET a 1", &[9], "Unknown"),
    ] {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_eq!(show(&args, Some(keys)), want, "{line}");
    }
}

#[test]
fn every_command_that_writes_has_a_rule_or_is_meant_to_be_unknown() {
    // Never in a replication stream, or it cannot be told what they do.
    let unknown = ["debug", "eval", "evalsha", "exec", "fcall", "migrate", "pfdebug", "restore-asking", "xreadgroup"];
    let table = CommandTable::builtin();
    for row in table.to_text().lines() {
        let name = row.split(' ').next().unwrap_or_default();
        let writes = table.get(name.as_bytes()).is_some_and(|spec| spec.write);
        let known = rule(name.as_bytes()).is_some();
        assert!(known == writes || unknown.contains(&name), "{name}: writes {writes}, known {known}");
        assert!(!(known && unknown.contains(&name)), "{name}");
    }
}

/// What the capture names as keys must be what is expected here, or every such command would keep everything before it.
#[test]
fn the_command_table_names_the_same_keys() {
    let table = CommandTable::builtin();
    for line in [
        "SET a 1",
        "MSET a 1 b 2",
        "RENAME a b",
        "COPY a b",
        "COPY a b REPLACE",
        "ZUNIONSTORE d 2 a b",
        "BITOP AND d a b",
        "SORT l STORE d",
        "SORT l BY store STORE d",
        "SORT store GET store STORE d",
        "GEORADIUSBYMEMBER g store 5 m STORE d",
        "GEORADIUS g 1 2 3 m COUNT 5 STOREDIST d",
        "LMPOP 2 a b LEFT",
        "XGROUP CREATE s g $",
        "PFCOUNT a",
        "PFMERGE d a",
        "SMOVE a b x",
        "GEOSEARCHSTORE d a FROMMEMBER x BYRADIUS 1 m",
        "ZRANGESTORE d a 0 -1",
        "BLPOP a b 0",
    ] {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let keys = table.get(args[0]).map(|spec| spec.keys(&args, args.len()).to_vec());
        assert_ne!(show(&args, keys.as_deref()), "Unknown", "{line}: {keys:?}");
    }
}
