//! Function libraries of a server: read, and what is done with them where a target holds others.
//!
//! - `changes`: which are loaded, replaced, removed, and which stay (pure).
//! - `put`: all of that at once, with an entry in the undo file for each.

mod changes;
mod put;

use std::collections::BTreeMap;

pub(crate) use self::changes::{Change, Changes, Rule, Stays, changes};
pub use self::changes::{LibrariesDone, LibrariesPlan};
pub(crate) use self::put::put;
use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::values::digest::{Digest, digest_of_string};

/// Code by the name of the library.
pub(crate) type Libraries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Those of a server; none before Redis 7.0. `None` = the user may not list them.
pub(crate) fn read(server: &mut Server) -> Result<Option<Libraries>, RestoreError> {
    match server.try_call(&["FUNCTION", "LIST", "WITHCODE"])? {
        Reply::Value(Value::Array(listed)) => Ok(Some(of_list(&listed))),
        Reply::Error(error) if meaning(&error.code) == Refusal::Denied => Ok(None),
        _ => Ok(Some(Libraries::new())),
    }
}

/// Those of a reply to `FUNCTION LIST WITHCODE`.
fn of_list(listed: &[Value]) -> Libraries {
    let mut all = Libraries::new();
    for library in listed {
        let Value::Array(fields) = library else { continue };
        let field = |name: &str| fields.chunks_exact(2).find(|pair| text(&pair[0]) == name).map(|pair| &pair[1]);
        if let (Some(Value::Bytes(name)), Some(Value::Bytes(code))) = (field("library_name"), field("library_code")) {
            all.insert(name.clone(), code.clone());
        }
    }
    all
}

/// Loads one that the server does not have.
pub(crate) fn load(server: &mut Server, name: &str, code: &[u8]) -> Result<(), RestoreError> {
    match server.try_call(&[b"FUNCTION", &b"LOAD"[..], code])? {
        Reply::Value(_) => Ok(()),
        Reply::Error(e) => Err(RestoreError::Unable(format!(
            "{} does not take the function library {name}: {}. Functions are left out where only some keys are wanted (--key '*')",
            server.address, e.text
        ))),
    }
}

/// Of a library's code, as undo files keep it.
pub(crate) fn code_digest(code: &[u8]) -> Digest {
    digest_of_string(code)
}
