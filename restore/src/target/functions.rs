//! Function libraries of a server, by their code.

use std::collections::BTreeMap;

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;

/// Code by the name of the library.
pub(crate) type Libraries = BTreeMap<String, Vec<u8>>;

/// Those of a server; one before Redis 7.0 has none.
pub(crate) fn libraries(server: &mut Server) -> Result<Libraries, RestoreError> {
    let Reply::Value(Value::Array(libraries)) = server.try_call(&["FUNCTION", "LIST", "WITHCODE"])? else {
        return Ok(Libraries::new());
    };
    let mut all = Libraries::new();
    for library in libraries {
        let Value::Array(fields) = library else { continue };
        let field = |name: &str| fields.chunks_exact(2).find(|pair| text(&pair[0]) == name).map(|pair| &pair[1]);
        if let (Some(name), Some(Value::Bytes(code))) = (field("library_name"), field("library_code")) {
            all.insert(text(name), code.clone());
        }
    }
    Ok(all)
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
