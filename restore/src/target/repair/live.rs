//! Reading keys of the live target.

use redtape_wire::resp::encode_command;

use super::image::Image;
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::target::lookup::{milliseconds, ttl_command};

/// What `PTTL` and `PEXPIRETIME` say of a key that is not there.
const GONE: i64 = -2;
/// By how much times of expiry may be off where the target's clock may not be asked for.
const UNTOLD_SLACK_MS: i64 = 50;

/// What was read of some keys.
#[derive(Debug)]
pub(crate) struct Live {
    /// The target's clock.
    pub(crate) now_ms: i64,
    /// By how much times of expiry may be off: before Redis 7.0 a server says only what is left, and its clock must be asked for beside it.
    pub(crate) slack_ms: i64,
    /// In the order in which they were asked for; `None` = the target does not have it.
    pub(crate) keys: Vec<Option<Image>>,
}

/// Which of these keys exist.
pub(crate) fn exist(target: &mut Server, keys: &[&[u8]]) -> Result<Vec<bool>, RestoreError> {
    let mut packed = Vec::new();
    keys.iter().for_each(|key| encode_command(&mut packed, &[b"EXISTS", *key]));
    let replies = target.pipeline(&packed, keys.len())?;
    replies.into_iter().map(|reply| Ok(target.must("EXISTS", reply)? != Value::Int(0))).collect()
}

/// The target's clock in ms; where `TIME` is not allowed, clocks are taken to agree.
pub(crate) fn clock(target: &mut Server) -> Result<i64, RestoreError> {
    Ok(time(&target.try_call(&["TIME"])?))
}

fn time(reply: &Reply) -> i64 {
    told(reply).unwrap_or_else(|| redtape_journal::Micros::now().0 / 1000)
}

fn told(reply: &Reply) -> Option<i64> {
    if let Reply::Value(Value::Array(time)) = reply { milliseconds(time) } else { None }
}

/// Reads keys. `watch`: a `MULTI` that follows on the connection fails if one of them changes until then.
pub(crate) fn read(target: &mut Server, keys: &[&[u8]], absolute: bool, watch: bool) -> Result<Live, RestoreError> {
    let mut packed = Vec::new();
    if watch {
        let args: Vec<&[u8]> = std::iter::once(&b"WATCH"[..]).chain(keys.iter().copied()).collect();
        encode_command(&mut packed, &args);
    }
    keys.iter().for_each(|key| encode_command(&mut packed, &[b"DUMP", *key]));
    // Times close to each other: between these two, no value is read.
    encode_command(&mut packed, &[b"TIME"]);
    keys.iter().for_each(|key| encode_command(&mut packed, &[ttl_command(absolute), *key]));
    encode_command(&mut packed, &[b"TIME"]);
    let mut replies = target.pipeline(&packed, usize::from(watch) + keys.len() * 2 + 2)?.into_iter();
    if watch {
        let watched = replies.next().ok_or_else(|| short(target))?;
        target.must("WATCH", watched)?;
    }
    let ttl_name = if absolute { "PEXPIRETIME" } else { "PTTL" };
    let dumps: Vec<Reply> = replies.by_ref().take(keys.len()).collect();
    let begin = replies.next().ok_or_else(|| short(target))?;
    let mut read = Vec::with_capacity(keys.len());
    for dump in dumps {
        let dump = target.must("DUMP", dump)?;
        let ttl = target.must(ttl_name, replies.next().ok_or_else(|| short(target))?)?;
        read.push(match (dump, ttl) {
            // It has expired between the two.
            (_, Value::Int(GONE)) => None,
            (Value::Bytes(dump), Value::Int(ttl)) => Some((dump, ttl)),
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

fn short(target: &Server) -> RestoreError {
    RestoreError::Link(format!("{} gave fewer replies than commands were sent", target.address))
}
