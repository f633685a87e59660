//! Keys of a scratch server at rest, asked for by name.

use super::image::Image;
use crate::client::{Server, Value};
use crate::error::RestoreError;
use crate::target::lookup::{expiry, ttl_command};

/// The values of keys of a server of ours, whole; `None` = it does not have it. Times of expiry are not read.
pub(crate) fn read_whole(scratch: &mut Server, keys: &[&[u8]]) -> Result<Vec<Option<Image>>, RestoreError> {
    let mut packed = Vec::new();
    for key in keys {
        scratch.encode(&mut packed, &[b"DUMP", *key]);
    }
    let replies = scratch.pipeline(&packed, keys.len())?;
    let image = |reply| match scratch.must("DUMP", reply)? {
        Value::Bytes(dump) => Ok(Some(Image { dump, expires_ms: 0 })),
        _ => Ok(None),
    };
    replies.into_iter().map(image).collect()
}

/// The same with their times of expiry. `absolute`: it has `PEXPIRETIME`; `at_ms`: what its clock shows, which stands still.
pub(crate) fn read_with_ends(
    scratch: &mut Server,
    keys: &[&[u8]],
    absolute: bool,
    at_ms: i64,
) -> Result<Vec<Option<Image>>, RestoreError> {
    let mut held = read_whole(scratch, keys)?;
    let there: Vec<&[u8]> = keys.iter().zip(&held).filter_map(|(key, held)| held.as_ref().map(|_| *key)).collect();
    let mut packed = Vec::new();
    for key in &there {
        scratch.encode(&mut packed, &[ttl_command(absolute), *key]);
    }
    let replies = scratch.pipeline(&packed, there.len())?;
    for (image, reply) in held.iter_mut().flatten().zip(replies) {
        if let Value::Int(ttl) = scratch.must("PEXPIRETIME", reply)? {
            image.expires_ms = expiry(ttl, absolute, at_ms);
        }
    }
    Ok(held)
}
