//! A line for each key, in the form of redis-rdb-tools (`rdb -c memory`), with one column more at the end.

use redtape_journal::Micros;
use redtape_restore::report::{BigKey, KeyFacts};
use redtape_wire::quoted::quote;

/// The first line. `size_in_bytes` is memory, as there.
pub(crate) const HEADER: &str =
    "database,type,key,size_in_bytes,encoding,num_elements,len_largest_element,expiry,serialized_bytes\n";

/// A line.
pub(crate) fn line(key: &KeyFacts<'_>) -> String {
    let number = |known: Option<u64>| known.map(|n| n.to_string()).unwrap_or_default();
    let expiry = key.expires_at_ms.map(|at| Micros(at.saturating_mul(1000)).to_string()).unwrap_or_default();
    format!(
        "{},{},{},{},{},{},{},{expiry},{}\n",
        key.db,
        field(key.type_name),
        field(&name(key.key)),
        key.memory_bytes,
        key.encoding,
        number(key.elements),
        number(key.largest),
        key.serialized_bytes
    )
}

/// The line of one of the biggest keys.
pub(crate) fn big_line(key: &BigKey) -> String {
    line(&KeyFacts {
        db: key.db,
        key: &key.key,
        type_name: &key.type_name,
        is_module: false,
        encoding: key.encoding,
        memory_bytes: key.memory_bytes,
        serialized_bytes: key.serialized_bytes,
        elements: key.elements,
        largest: key.largest,
        expires_at_ms: key.expires_at_ms,
    })
}

/// A key as it is, if it is text of one line; else in double quotes with escapes, as every command of redtape prints it and
/// takes it.
fn name(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if !text.is_empty() && !text.starts_with('"') && !text.contains(char::is_control) => text.to_owned(),
        _ => quote(key),
    }
}

/// A field (RFC 4180): quoted where it must be.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_one_field_each_and_can_be_told_apart() {
        let of = |key: &[u8]| field(&name(key));
        assert_eq!(of(b"user:1"), "user:1");
        assert_eq!(of(b"a b"), "a b");
        assert_eq!(of(b"a,b"), "\"a,b\"");
        assert_eq!(of("ä".as_bytes()), "ä");
        assert_eq!(of(b"\xff"), "\"\"\"\\xff\"\"\"");
        assert_eq!(of(b"\"\\xff\""), "\"\"\"\\\"\"\\\\xff\\\"\"\"\"\"");
        assert_eq!(of(b"a\nb"), "\"\"\"a\\nb\"\"\"");
        assert_eq!(of(b""), "\"\"\"\"\"\"");
    }

    #[test]
    fn a_line_has_the_columns_of_its_header() {
        let key = KeyFacts {
            db: 3,
            key: b"k",
            type_name: "stream",
            is_module: false,
            encoding: "stream",
            memory_bytes: 900,
            serialized_bytes: 77,
            elements: Some(4),
            largest: None,
            expires_at_ms: Some(1_790_000_000_123),
        };
        assert_eq!(line(&key), "3,stream,k,900,stream,4,,2026-09-21T14:13:20.123000Z,77\n");
        let columns = |line: &str| line.matches(',').count();
        assert_eq!(columns(&line(&key)), columns(HEADER));
    }
}
