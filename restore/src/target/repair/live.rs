//! Reads keys of the live target.

use redtape_wire::rdb::encode_dump;

use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::target::lookup::{milliseconds, ttl_command};
use crate::target::pieces::ReadPiecesError;
use crate::target::pieces::read::Reader;
use crate::target::pieces::size::sizes;
use crate::values::image::Image;
use crate::version::ServerVersion;

/// Attempts to read a large value that clients write to.
const READ_TRIES: usize = 3;
/// Keys in one command.
const GROUP_KEYS: usize = 64;
/// Reply of `PTTL` and `PEXPIRETIME` for a missing key.
const GONE: i64 = -2;
/// Inaccuracy of expiry times if the target's clock cannot be read.
const UNTOLD_SLACK_MS: i64 = 50;

/// The result of reading some keys.
#[derive(Debug)]
pub(crate) struct Live {
    /// The target's clock.
    pub(crate) now_ms: i64,
    /// Inaccuracy of expiry times: before Redis 7.0 a server reports only the remaining time, and its clock is read
    /// separately.
    pub(crate) slack_ms: i64,
    /// In request order; `None` = the key does not exist.
    pub(crate) keys: Vec<Option<Image>>,
}

/// Which of these keys exist.
pub(crate) fn exist(target: &mut Server, keys: &[&[u8]]) -> Result<Vec<bool>, RestoreError> {
    let mut packed = Vec::new();
    for key in keys {
        target.encode(&mut packed, &[b"EXISTS", *key]);
    }
    let replies = target.pipeline(&packed, keys.len())?;
    replies.into_iter().map(|reply| Ok(target.must("EXISTS", reply)? != Value::Int(0))).collect()
}

/// As [`exist`], for different keys of which nearly all or nearly none exist. They are queried in groups; only the keys
/// of a mixed group are queried one by one.
pub(crate) fn exist_by_groups(target: &mut Server, keys: &[&[u8]]) -> Result<Vec<bool>, RestoreError> {
    if target.is_in_cluster() {
        return exist(target, keys);
    }
    let mut packed = Vec::new();
    for group in keys.chunks(GROUP_KEYS) {
        let args: Vec<&[u8]> = std::iter::once(&b"EXISTS"[..]).chain(group.iter().copied()).collect();
        target.encode(&mut packed, &args);
    }
    let replies = target.pipeline(&packed, keys.len().div_ceil(GROUP_KEYS))?;
    let mut there = Vec::with_capacity(keys.len());
    for (group, reply) in keys.chunks(GROUP_KEYS).zip(replies) {
        match target.must("EXISTS", reply)? {
            Value::Int(0) => there.resize(there.len() + group.len(), false),
            Value::Int(all) if all == group.len() as i64 => there.resize(there.len() + group.len(), true),
            _ => there.extend(exist(target, group)?),
        }
    }
    Ok(there)
}

/// The target's clock in ms; if `TIME` is not allowed, the local clock.
pub(crate) fn clock(target: &mut Server) -> Result<i64, RestoreError> {
    Ok(time(&target.try_call(&["TIME"])?))
}

/// The time in a reply to `TIME`.
pub(crate) fn time(reply: &Reply) -> i64 {
    told(reply).unwrap_or_else(|| redtape_journal::Micros::now().0 / 1000)
}

fn told(reply: &Reply) -> Option<i64> {
    if let Reply::Value(Value::Array(time)) = reply { milliseconds(time) } else { None }
}

/// Reads keys of a server of this version; large values in pieces. `watch`: a later `MULTI` on the connection fails if
/// one of the keys has changed by then.
pub(crate) fn read(
    target: &mut Server,
    keys: &[&[u8]],
    version: ServerVersion,
    watch: bool,
) -> Result<Live, RestoreError> {
    if watch {
        let args: Vec<&[u8]> = std::iter::once(&b"WATCH"[..]).chain(keys.iter().copied()).collect();
        target.call(&args)?;
    }
    let mut large = Vec::new();
    let sizes = sizes(target, keys)?;
    for (key, size) in keys.iter().zip(sizes) {
        large.push(if size.is_large() { in_pieces(target, key, version)? } else { None });
    }
    let absolute = version.has_redis(7, 0);
    let mut packed = Vec::new();
    for (key, large) in keys.iter().zip(&large) {
        // A large value is not fetched twice.
        let dump: &[&[u8]] = if large.is_some() { &[b"EXISTS", key] } else { &[b"DUMP", key] };
        target.encode(&mut packed, dump);
    }
    // No value is read between these two, so the times belong together.
    target.encode(&mut packed, &[b"TIME"]);
    for key in keys {
        target.encode(&mut packed, &[ttl_command(absolute), *key]);
    }
    target.encode(&mut packed, &[b"TIME"]);
    let mut replies = target.pipeline(&packed, keys.len() * 2 + 2)?.into_iter();
    let ttl_name = if absolute { "PEXPIRETIME" } else { "PTTL" };
    let dumps: Vec<Reply> = replies.by_ref().take(keys.len()).collect();
    let begin = replies.next().ok_or_else(|| short(target))?;
    let mut read = Vec::with_capacity(keys.len());
    for (dump, large) in dumps.into_iter().zip(large) {
        let dump = target.must("DUMP", dump)?;
        let ttl = target.must(ttl_name, replies.next().ok_or_else(|| short(target))?)?;
        read.push(match (dump, ttl) {
            // It expired between the two commands.
            (_, Value::Int(GONE)) => None,
            (Value::Bytes(dump), Value::Int(ttl)) => Some((dump, ttl)),
            (Value::Int(1), Value::Int(ttl)) => large.map(|dump| (dump, ttl)),
            _ => None,
        });
    }
    let end = replies.next().ok_or_else(|| short(target))?;
    let now_ms = time(&end);
    let slack_ms = match (told(&begin), told(&end)) {
        _ if absolute => 0,
        (Some(begin), Some(end)) => (end - begin).max(0),
        _ => UNTOLD_SLACK_MS,
    };
    let expires = |ttl: i64| match ttl {
        ..0 => 0,
        _ if absolute => ttl,
        _ => now_ms + ttl,
    };
    let image = |(dump, ttl)| Image { dump, expires_ms: expires(ttl) };
    Ok(Live { now_ms, slack_ms, keys: read.into_iter().map(|key| key.map(image)).collect() })
}

/// A large value as a `DUMP` payload; `None` if it can only be read whole.
fn in_pieces(target: &mut Server, key: &[u8], version: ServerVersion) -> Result<Option<Vec<u8>>, RestoreError> {
    for _ in 0..READ_TRIES {
        match Reader::new(version).read(target, key) {
            Ok(value) => return Ok(encode_dump(&value, version.writes()).ok()),
            Err(ReadPiecesError::Changed | ReadPiecesError::Gone) => {}
            Err(ReadPiecesError::Server(error)) => return Err(error),
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

fn short(target: &Server) -> RestoreError {
    RestoreError::Link(format!("{} gave fewer replies than commands were sent", target.address))
}
