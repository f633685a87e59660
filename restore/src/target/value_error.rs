//! What is said of one key's value that cannot go where it should.

use std::fmt::Display;

use crate::client::{ErrorReply, Server};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::lookup::show;

/// A value whose bytes make no sense to us.
pub(crate) fn unreadable(key: &[u8], error: impl Display) -> RestoreError {
    RestoreError::Unable(format!("cannot read the value of {}: {error}", show(key)))
}

/// A server has refused to `RESTORE` a value. What it says to one that it cannot read is a plain `ERR`.
pub(crate) fn not_taken(server: &Server, key: &[u8], error: &ErrorReply) -> RestoreError {
    if meaning(&error.code) != Refusal::Plain {
        return server.refused("RESTORE", error);
    }
    RestoreError::Unable(format!(
        "{} does not take the value of {} ({}): it is older than what the journal holds, or lacks a module. Restore to a newer server",
        server.address,
        show(key),
        error.text
    ))
}
