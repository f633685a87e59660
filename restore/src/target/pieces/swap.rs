//! A temporary key takes the place of its key: one transaction, in which nothing takes long.
//!
//! `UNLINK` leaves the old value to another thread of the server, while `RENAME` over a key frees it on the spot. The TTL is
//! set behind the `RENAME`: a time that has passed removes the key then, while before it `RENAME` would find no key and fail.
//! To other clients the order is not visible.

use redtape_wire::resp::encode_command;

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;

/// Puts the commands of the swap into `packed`, to be run inside `MULTI` and `EXEC`; returns how many they are.
/// `expires_at_ms`: when the key expires, in ms since 1970; `None`: never.
pub fn encode_swap(packed: &mut Vec<u8>, name: &[u8], key: &[u8], expires_at_ms: Option<i64>) -> usize {
    encode_command(packed, &[b"UNLINK", key]);
    encode_command(packed, &[b"RENAME", name, key]);
    match expires_at_ms {
        Some(at) => encode_command(packed, &[b"PEXPIREAT", key, at.to_string().as_bytes()]),
        None => encode_command(packed, &[b"PERSIST", key]),
    }
    3
}

/// The swap as a transaction of its own. The temporary key must exist.
pub fn swap(server: &mut Server, name: &[u8], key: &[u8], expires_at_ms: Option<i64>) -> Result<(), RestoreError> {
    let mut packed = Vec::new();
    encode_command(&mut packed, &["MULTI"]);
    let commands = encode_swap(&mut packed, name, key, expires_at_ms);
    encode_command(&mut packed, &["EXEC"]);
    let mut refused = None;
    let mut replies = server.pipeline(&packed, commands + 2)?;
    let done = replies.pop();
    for (reply, command) in replies.into_iter().zip(["MULTI", "UNLINK", "RENAME", "PEXPIREAT"]) {
        if let Reply::Error(error) = reply {
            refused = refused.or_else(|| Some(server.refused(command, &error)));
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    match done {
        Some(Reply::Value(Value::Array(results))) => {
            let renamed = results.get(1).map(text).unwrap_or_default();
            if renamed == "OK" {
                return Ok(());
            }
            let address = server.address.clone();
            Err(RestoreError::Refused { address, command: "RENAME".to_owned(), cause: renamed })
        }
        Some(Reply::Error(error)) => Err(server.refused("EXEC", &error)),
        _ => Err(RestoreError::Unable(format!("{} gave no reply to EXEC that is understood", server.address))),
    }
}
