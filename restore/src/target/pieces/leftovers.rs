//! What an operation that was killed has left: temporary keys that will not be renamed any more.

use redtape_journal::undo_file::OperationId;

use super::name::{parse, pattern};
use crate::client::{Server, Value};
use crate::error::RestoreError;
use crate::target::lookup::select;

/// Keys that a step of `SCAN` looks at.
const SCAN_COUNT: &str = "1000";

/// The temporary keys of an operation in the selected database. Asks the server for all keys, some at a time.
pub fn find(server: &mut Server, operation: &OperationId) -> Result<Vec<Vec<u8>>, RestoreError> {
    let pattern = pattern(operation);
    let mut cursor = b"0".to_vec();
    let mut found = Vec::new();
    loop {
        let args: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", pattern.as_bytes(), b"COUNT", SCAN_COUNT.as_bytes()];
        let reply = server.call(&args)?;
        let Value::Array(parts) = reply else { return Err(not_understood(server)) };
        let mut parts = parts.into_iter();
        let (Some(Value::Bytes(next)), Some(Value::Array(keys))) = (parts.next(), parts.next()) else {
            return Err(not_understood(server));
        };
        let bytes = |key| if let Value::Bytes(key) = key { Some(key) } else { None };
        let is_ours = |key: &Vec<u8>| parse(key).is_some_and(|name| name.operation == *operation);
        found.extend(keys.into_iter().filter_map(bytes).filter(is_ours));
        if next == b"0" {
            break;
        }
        cursor = next;
    }
    // SCAN may give a key twice.
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Removes them; returns how many there were.
pub fn remove(server: &mut Server, operation: &OperationId) -> Result<u64, RestoreError> {
    let found = find(server, operation)?;
    let mut packed = Vec::new();
    for name in &found {
        server.encode(&mut packed, &[b"UNLINK", name.as_slice()]);
    }
    let mut removed = 0;
    for reply in server.pipeline(&packed, found.len())? {
        removed += u64::from(server.must("UNLINK", reply)? == Value::Int(1));
    }
    Ok(removed)
}

fn not_understood(server: &Server) -> RestoreError {
    RestoreError::Unable(format!("{} gave no reply to SCAN that is understood", server.address))
}

/// The same of all databases, when what the operation moved aside was taken up: what is left has no use any more.
pub(crate) fn remove_everywhere(server: &mut Server, operation: &OperationId) -> Result<(), RestoreError> {
    for db in server.info(Some("keyspace"))?.keyspace().into_keys() {
        select(server, db)?;
        remove(server, operation)?;
    }
    Ok(())
}
