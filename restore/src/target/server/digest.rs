//! Comparing the data of two servers.

use std::collections::BTreeMap;

use crate::client::{Server, text};
use crate::error::RestoreError;

/// Compares `DEBUG DIGEST` where both allow it and it is cheap. A difference is an error only if nothing
/// can have expired meanwhile (`still`).
pub(super) fn compare_digests(
    scratch: &mut Server,
    target: &mut Server,
    keys: &BTreeMap<u32, u64>,
    still: bool,
) -> Result<String, RestoreError> {
    const CHEAP_KEYS: u64 = 100_000;
    const CHEAP_BYTES: u64 = 64 << 20;
    let memory = scratch.info(Some("memory"))?.number("used_memory").unwrap_or(u64::MAX);
    if keys.values().sum::<u64>() >= CHEAP_KEYS || memory >= CHEAP_BYTES {
        return Ok("digests not compared: it would take long, and DEBUG DIGEST holds a server up".to_owned());
    }
    let digest = |server: &mut Server| -> Result<Option<String>, RestoreError> {
        Ok(server.try_call(&["DEBUG", "DIGEST"])?.value().as_ref().map(text))
    };
    match (digest(target)?, digest(scratch)?) {
        (Some(there), Some(here)) if there == here => {
            Ok("the digests of target and scratch server are equal".to_owned())
        }
        (Some(_), Some(_)) if !still => Ok("digests not compared: keys expire".to_owned()),
        (Some(there), Some(here)) => Err(RestoreError::Verify(format!(
            "its DEBUG DIGEST is {there}, the scratch server's {here} (if no other client has written to it meanwhile)"
        ))),
        _ => Ok("digests not compared: DEBUG is not allowed".to_owned()),
    }
}
