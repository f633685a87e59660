use super::*;
use crate::effect::rules::every_name;
use crate::effect::written::{After, Elements, KeyWrite, Write};

/// `-` absent, `+` present, `=value`, `~` changed, `~-` changed or absent, `*` anything, and `?` where it is not certain.
fn show_write(write: &Write<'_>) -> String {
    let after = match write.after {
        After::Absent => "-".to_owned(),
        After::Present => "+".to_owned(),
        After::Is(value) => format!("={}", String::from_utf8_lossy(value)),
        After::Score(score) => format!("={score}"),
        After::Until(ms) => format!("={ms}"),
        After::Changed => "~".to_owned(),
        After::ChangedOrAbsent => "~-".to_owned(),
        After::Any => "*".to_owned(),
    };
    if write.certain { after } else { after + "?" }
}

fn show_key(write: &KeyWrite<'_>) -> String {
    let elements = match &write.elements {
        Elements::None => "none".to_owned(),
        Elements::Unlisted => "some".to_owned(),
        Elements::Whole => "all".to_owned(),
        Elements::Listed(listed) => {
            let one = |(element, write): &(&[u8], Write<'_>)| {
                format!("{}{}", String::from_utf8_lossy(element), show_write(write))
            };
            listed.iter().map(one).collect::<Vec<_>>().join(",")
        }
    };
    let shown = |name: &str, write: &Option<Write<'_>>| {
        write.as_ref().map_or_else(String::new, |write| format!(" {name}{}", show_write(write)))
    };
    let db = if write.db == 2 { String::new() } else { format!("{}:", write.db) };
    let key = String::from_utf8_lossy(write.key);
    format!("{db}{key}: {elements}{}{}", shown("v", &write.value), shown("t", &write.ttl))
}

fn show(line: &str, keys: Option<&[usize]>) -> String {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    match writes(2, &args, keys) {
        Writes::Keys(keys) => keys.iter().map(show_key).collect::<Vec<_>>().join("; "),
        Writes::UnknownOf { keys, others } => {
            let keys: Vec<_> = keys.iter().map(|(_, key)| String::from_utf8_lossy(key).into_owned()).collect();
            format!("unknown of {}{}", keys.join(" "), if others { " and others" } else { "" })
        }
        other => format!("{other:?}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (line, expected) in cases {
        assert_eq!(show(line, None), *expected, "{line}");
    }
}

#[test]
fn elements_are_listed() {
    check(&[
        ("HSET h a 1 b 2", "h: a=1?,b=2? v~"),
        ("HMSET h a 1", "h: a=1? v~"),
        ("HSETNX h a 1", "h: a=1? v~"),
        ("HSET h a 1 b", "Unknown"),
        ("HSET h", "Unknown"),
        ("HDEL h a", "h: a- v~- t~-?"),
        ("HDEL h a b", "h: a-?,b-? v~- t~-?"),
        ("HINCRBY h a 1", "h: a~ v~"),
        ("HINCRBYFLOAT h a 1", "h: a~ v~"),
        ("SADD s a", "s: a+ v~"),
        ("SADD s a b", "s: a+?,b+? v~"),
        ("SREM s a", "s: a- v~- t~-?"),
        ("SMOVE s d a", "s: a- v~- t~-?; d: a+? v~?"),
        ("SMOVE s s a", "s: a+? v~?; s: a+? v~?"),
        ("ZADD z 1 a", "z: a=1 v~"),
        ("ZADD z CH 1.50 a -inf b", "z: a=1.5?,b=-inf? v~"),
        ("ZADD z NX 1 a 2 b", "z: a~?,b~? v~"),
        ("ZADD z gt ch 1 a", "z: a~ v~"),
        ("ZADD z INCR 1 a", "z: a~ v~"),
        // A server reads more forms of numbers.
        ("ZADD z 0x1 a", "z: a~ v~"),
        ("ZADD z 1", "Unknown"),
        ("ZINCRBY z 1 a", "z: a~ v~"),
        ("ZREM z a b", "z: a-?,b-? v~- t~-?"),
        ("GEOADD g 1 2 a", "g: a~ v~"),
        ("GEOADD g XX CH 1 2 a 3 4 b", "g: a~?,b~? v~"),
        ("GEOADD g 1 2", "Unknown"),
    ]);
}

#[test]
fn fields_with_ends() {
    check(&[
        ("HPEXPIREAT h 5 FIELDS 1 a", "h: a~ v~"),
        ("HEXPIRE h 5 NX fields 2 a b", "h: a~?,b~? v~"),
        ("HPERSIST h FIELDS 1 a", "h: a~ v~"),
        ("HGETEX h PXAT 5 FIELDS 1 a", "h: a~ v~"),
        ("HSETEX h FNX PXAT 5 FIELDS 2 a 1 b 2", "h: a~,b~ v~"),
        ("HGETDEL h FIELDS 2 a b", "h: a-?,b-? v~- t~-?"),
        ("HPEXPIREAT h 5 FIELDS 2 a", "Unknown"),
        ("HPEXPIREAT h 5 FIELDS 1 a b", "Unknown"),
        ("HPEXPIREAT h 5", "Unknown"),
        ("HSETEX h FIELDS 1 a", "Unknown"),
        ("HSETEX h FIELDS 9223372036854775807 a", "Unknown"),
    ]);
}

#[test]
fn what_cannot_be_listed() {
    check(&[
        ("LPUSH l a", "l: some v~"),
        ("LPOP l", "l: some v~- t~-?"),
        ("LMPOP 1 l LEFT", "l: some v~-? t~-?"),
        ("LMOVE a b LEFT LEFT", "a: some v~- t~-?; b: some v~"),
        ("LMOVE a a LEFT RIGHT", "a: some v~; a: some v~"),
        ("ZREMRANGEBYSCORE z 0 1", "z: some v~- t~-?"),
        ("INCR s", "s: some v~"),
        ("PFCOUNT p", "p: some v~?"),
        ("PFMERGE p q", "p: some v~"),
        ("XADD x 1-1 f v", "x: some v~"),
        ("XGROUP CREATE x g 0", "x: some v~"),
    ]);
}

#[test]
fn ttls_and_whole_keys() {
    check(&[
        ("PEXPIREAT k 5", "k: none t=5?"),
        ("EXPIREAT k 5", "k: none t=5000?"),
        ("EXPIRE k 5", "k: none t~"),
        ("PERSIST k", "k: none t-"),
        ("GETEX k PERSIST", "k: none t*"),
        ("SET k v", "k: all v=v? t-?"),
        ("SET k v PXAT 5", "k: all v=v? t=5?"),
        ("SET k v NX EX 5", "k: all v=v? t~"),
        ("SET k v KEEPTTL", "k: all v=v?"),
        ("SET k v IFEQ KEEPTTL", "k: all v=v? t-?"),
        ("SET k v XX GET", "k: all v=v? t-?"),
        ("SET k v OTHER", "k: all v=v? t~?"),
        ("SETEX k 5 v", "k: all v=v? t~"),
        ("GETSET k v", "k: all v=v? t-?"),
        ("MSET a 1 b 2", "a: all v=1? t-?; b: all v=2? t-?"),
        ("MSETEX 2 a 1 b 2 PXAT 7", "a: all v=1? t=7?; b: all v=2? t=7?"),
        ("MSETEX 1 a 1 KEEPTTL", "a: all v=1?"),
        ("DEL a", "a: all v- t-?"),
        ("UNLINK a b", "a: all v-? t-?; b: all v-? t-?"),
        ("GETDEL a", "a: all v- t-?"),
        ("RENAME a b", "a: all v- t-?; b: all v* t*"),
        ("MOVE a 5", "a: all v- t-?; 5:a: all v* t*"),
        ("COPY a b DB 5", "5:b: all v* t*"),
        ("RESTORE k 0 \u{1}data", "k: all v* t-?"),
        ("RESTORE k 5 \u{1}data REPLACE ABSTTL", "k: all v* t=5?"),
        ("RESTORE k 5 \u{1}data", "k: all v* t~"),
        ("RESTORE k 0 \u{7}module", "k: all v* t-?"),
        ("SUNIONSTORE d a b", "d: all v* t-?"),
        ("SORT l BY w STORE d", "d: all v* t-?"),
        ("BITOP AND d a b", "d: all v* t-?"),
        ("FLUSHDB", "FlushDb"),
        ("FLUSHALL ASYNC", "FlushAll"),
        ("SWAPDB 1 2", "SwapDb(1, 2)"),
        ("PUBLISH a b", "Nothing"),
        ("FUNCTION LOAD x", "Nothing"),
    ]);
}

#[test]
fn what_is_not_known() {
    for (line, keys, expected) in [
        ("EVAL x 1 a", None, "Unknown"),
        ("JSON.SET k . 1", Some(&[0, 1][..]), "unknown of k and others"),
        ("NEWER k", Some(&[1]), "unknown of k"),
        ("NEWER k", Some(&[7]), "Unknown"),
        ("SET k v", Some(&[1]), "k: all v=v? t-?"),
        // The journal says otherwise.
        ("SET k v", Some(&[2]), "Unknown"),
        ("SET k", None, "Unknown"),
        ("", None, "Unknown"),
    ] {
        assert_eq!(show(line, keys), expected, "{line} {keys:?}");
    }
}

#[test]
fn every_command_whose_keys_are_known_has_a_shape() {
    for (name, has_keys) in every_name() {
        let shape = element_shapes::shape(name);
        assert_eq!(shape.is_some(), has_keys, "{}: {shape:?}", String::from_utf8_lossy(name));
    }
}
