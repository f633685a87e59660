//! Applies changes of function libraries to the target in one transaction, so that no client sees only some of them.
//!
//! Each former code is in the undo file, and the file on the disk, before the transaction is sent. `WATCH` does not
//! cover functions. So the transaction lists them first: a library that another client loaded in between and this
//! overwrote is added to the undo file afterwards, where the last entry counts.

use std::collections::BTreeSet;

use redtape_wire::rdb::functions_payload;

use super::{Change, Libraries, code_digest, of_list};
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::target::repair::{Before, UndoLog};
use crate::values::digest::NOTHING;

/// Applies the changes. `live`: the state from which they were computed.
pub(crate) fn put(
    server: &mut Server,
    log: &mut dyn UndoLog,
    live: &Libraries,
    changes: &[Change],
) -> Result<(), RestoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let before = |name: &[u8], was: Option<&Vec<u8>>, log: &mut dyn UndoLog| {
        let wanted = changes.iter().find(|change| change.name == name).and_then(|change| change.wanted.as_ref());
        let written = wanted.map_or(NOTHING, |code| code_digest(code));
        log.add(0, &Before::Library { name, code: was.map(Vec::as_slice), written })
    };
    for change in changes {
        before(&change.name, change.was.as_ref(), log)?;
    }
    log.sync()?;
    let (payload, mode) = payload(live, changes);
    let mut packed = Vec::new();
    server.encode(&mut packed, &["MULTI"]);
    server.encode(&mut packed, &["FUNCTION", "LIST", "WITHCODE"]);
    server.encode(&mut packed, &[&b"FUNCTION"[..], b"RESTORE", &payload, mode]);
    server.encode(&mut packed, &["EXEC"]);
    let found = run(server, &packed)?;
    let flushed = mode == FLUSH;
    let written: BTreeSet<&[u8]> = changes.iter().map(|change| &change.name[..]).collect();
    for (name, code) in &found {
        if live.get(name) != Some(code) && (flushed || written.contains(&name[..])) {
            before(name, Some(code), log)?;
        }
    }
    log.sync()?;
    log.done()
}

const FLUSH: &[u8] = b"FLUSH";
const REPLACE: &[u8] = b"REPLACE";

/// What is sent, and how: where libraries go, all that stay are sent with those that come.
fn payload(live: &Libraries, changes: &[Change]) -> (Vec<u8>, &'static [u8]) {
    if changes.iter().all(|change| change.wanted.is_some()) {
        return (functions_payload(changes.iter().filter_map(|change| change.wanted.as_deref())), REPLACE);
    }
    let mut all = live.clone();
    for Change { name, wanted, .. } in changes {
        match wanted {
            Some(code) => all.insert(name.clone(), code.clone()),
            None => all.remove(name),
        };
    }
    (functions_payload(all.values().map(Vec::as_slice)), FLUSH)
}

/// Runs the transaction; which libraries were there before.
fn run(server: &mut Server, packed: &[u8]) -> Result<Libraries, RestoreError> {
    let mut replies = server.pipeline(packed, 4)?;
    let exec = replies.pop();
    for reply in replies {
        server.must("FUNCTION RESTORE", reply)?;
    }
    let Some(Reply::Value(Value::Array(done))) = exec else {
        return Err(RestoreError::Link(format!("{} did not run the transaction of FUNCTION RESTORE", server.address)));
    };
    if let Some(Value::Error(error)) = done.last() {
        // All or nothing: none was changed.
        return Err(server.refused("FUNCTION RESTORE", error));
    }
    Ok(if let Some(Value::Array(listed)) = done.first() { of_list(listed) } else { Libraries::new() })
}
