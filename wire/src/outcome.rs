//! What the first line of a reply says of its command's effect.
//!
//! `request` is the command's name in lower case; `kind` and `line` are the type byte of the reply and what stands
//! behind it in the first line.

/// Whether a command is a script or a transaction: anything can come of it.
#[inline]
pub fn is_script(request: &[u8]) -> bool {
    matches!(request, b"eval" | b"evalsha" | b"fcall" | b"exec")
}

/// 0, nil or false: what scripts return that did nothing, as a rule.
#[inline]
pub fn says_nothing(kind: u8, line: &[u8]) -> bool {
    matches!((kind, line), (b':', b"0") | (b'$' | b'*', b"-1") | (b'_', _) | (b'#', b"f"))
}

/// Whether a command whose reply does not say "nothing was done" always stands in the stream. A wrong yes holds back what is behind it
/// on its connection until the next probe, so the list has what is certain on every server: not `ZINCRBY` (by 0), `XADD` (`IDMP`),
/// `FLUSHDB` (6.x) or `SMOVE` (into the same set).
#[inline]
pub fn always_writes(request: &[u8], kind: u8, line: &[u8]) -> bool {
    match request {
        b"setex" | b"psetex" | b"getset" | b"mset" | b"hmset" | b"hset" | b"incrby" | b"decrby" | b"hincrby"
        | b"incrbyfloat" | b"hincrbyfloat" | b"flushall" => true,
        b"smove" => false,
        b"spop" | b"lpop" | b"rpop" | b"getdel" | b"lmove" | b"rpoplpush" | b"lmpop" | b"zmpop" | b"blpop"
        | b"brpop" | b"blmove" | b"brpoplpush" | b"blmpop" | b"bzmpop" | b"bzpopmin" | b"bzpopmax" | b"zpopmin"
        | b"zpopmax" => !(matches!(kind, b'*' | b'~') && line == b"0"),
        _ => kind == b':' && ZERO_IS_NO_EFFECT.contains(&request),
    }
}

/// Says that nothing was done, or an error, and may have changed something all the same: claims of entries that are
/// gone are removed, a group gets a consumer, keys were deleted before the error; and a module's effect is unknown.
#[inline]
pub fn may_write_silently(request: &[u8], kind: u8) -> bool {
    matches!(request, b"xclaim" | b"xautoclaim" | b"xreadgroup" | b"migrate")
        || (matches!(kind, b'-' | b'!') && request.contains(&b'.'))
}

/// Commands that changed nothing where they answer with 0, and something where they answer with another number.
const ZERO_IS_NO_EFFECT: [&[u8]; 29] = [
    b"sadd",
    b"srem",
    b"smove",
    b"hdel",
    b"hsetnx",
    b"del",
    b"unlink",
    b"expire",
    b"pexpire",
    b"expireat",
    b"pexpireat",
    b"persist",
    b"move",
    b"copy",
    b"renamenx",
    b"setnx",
    b"msetnx",
    b"lrem",
    b"lpushx",
    b"rpushx",
    b"linsert",
    b"zrem",
    b"zremrangebyrank",
    b"zremrangebyscore",
    b"zremrangebylex",
    b"xdel",
    b"xack",
    b"xtrim",
    b"pfadd",
];

/// Whether the first line of a reply (type byte and rest) says that the command changed nothing.
#[inline]
pub fn says_no_effect(request: &[u8], kind: u8, line: &[u8]) -> bool {
    match (kind, line) {
        (b'-' | b'!', _) => !is_script(request) || request == b"exec" || line.starts_with(b"NOSCRIPT "),
        (b':', b"0") => ZERO_IS_NO_EFFECT.contains(&request),
        (b':', b"-1") => request == b"linsert",
        (b'$' | b'*' | b'_', b"-1" | b"") => matches!(
            request,
            b"exec"
                | b"getdel"
                | b"getex"
                | b"spop"
                | b"lpop"
                | b"rpop"
                | b"lmpop"
                | b"zmpop"
                | b"lmove"
                | b"rpoplpush"
                | b"blpop"
                | b"brpop"
                | b"blmove"
                | b"brpoplpush"
                | b"blmpop"
                | b"bzmpop"
                | b"bzpopmin"
                | b"bzpopmax"
                | b"xadd"
                | b"xreadgroup"
        ),
        (b'*', b"0") => matches!(request, b"zpopmin" | b"zpopmax" | b"xclaim"),
        _ => false,
    }
}
