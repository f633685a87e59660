//! Reading keys of the live target.

use redtape_wire::resp::encode_command;

use super::image::Image;
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::target::lookup::milliseconds;

/// What was read of some keys.
#[derive(Debug)]
pub(crate) struct Live {
    /// The target's clock.
    pub(crate) now_ms: i64,
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
    let told = if let Reply::Value(Value::Array(time)) = reply { milliseconds(time) } else { None };
    told.unwrap_or_else(|| redtape_journal::Micros::now().0 / 1000)
}

/// Reads keys. `watch`: a `MULTI` that follows on the connection fails if one of them changes until then.
pub(crate) fn read(target: &mut Server, keys: &[&[u8]], absolute: bool, watch: bool) -> Result<Live, RestoreError> {
    let mut packed = Vec::new();
    if watch {
        let args: Vec<&[u8]> = std::iter::once(&b"WATCH"[..]).chain(keys.iter().copied()).collect();
        encode_command(&mut packed, &args);
    }
    for key in keys {
        encode_command(&mut packed, &[b"DUMP", *key]);
        encode_command(&mut packed, &[if absolute { b"PEXPIRETIME" } else { &b"PTTL"[..] }, *key]);
    }
    encode_command(&mut packed, &[b"TIME"]);
    let mut replies = target.pipeline(&packed, usize::from(watch) + keys.len() * 2 + 1)?.into_iter();
    if watch {
        let watched = replies.next().ok_or_else(|| short(target))?;
        target.must("WATCH", watched)?;
    }
    let mut read = Vec::with_capacity(keys.len());
    for _ in keys {
        let (Some(dump), Some(ttl)) = (replies.next(), replies.next()) else { return Err(short(target)) };
        let dump = target.must("DUMP", dump)?;
        let ttl = target.must("PTTL", ttl)?;
        read.push(match (dump, ttl) {
            (Value::Bytes(dump), Value::Int(ttl)) => Some((dump, ttl)),
            _ => None,
        });
    }
    let now_ms = time(&replies.next().ok_or_else(|| short(target))?);
    let expires = |ttl: i64| match ttl {
        ..0 => 0,
        _ if absolute => ttl,
        _ => now_ms + ttl,
    };
    let image = |(dump, ttl)| Image { dump, expires_ms: expires(ttl) };
    Ok(Live { now_ms, keys: read.into_iter().map(|key| key.map(image)).collect() })
}

fn short(target: &Server) -> RestoreError {
    RestoreError::Link(format!("{} gave fewer replies than commands were sent", target.address))
}
