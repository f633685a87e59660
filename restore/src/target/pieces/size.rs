//! Whether a value is large, without the server looking at all of it.

use redtape_wire::rdb::Value as Canonical;

use crate::client::{Reply, Server, Value, text};
use crate::error::RestoreError;

/// Larger values are built and read in pieces: 1 MiB.
pub const LARGE_BYTES: u64 = 1 << 20;
/// Of a value whose elements are not measured, so many are taken for large: they would have 1 KiB each.
const LARGE_ELEMENTS: u64 = 1024;
/// Elements that the server measures.
const SAMPLES: &str = "5";
/// What an element takes beside its bytes, about.
const ELEMENT_COST: u64 = 64;

/// How large a value is, about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// There is no such key.
    Absent,
    /// Bytes of memory. Of a value with elements, from a few of them: one that is much longer than the others may be missed.
    Bytes(u64),
    /// Elements, where the server does not tell bytes.
    Elements(u64),
    /// A value of a module, where the server does not tell bytes.
    Unknown,
}

impl Size {
    /// Whether the value is to be handled in pieces. One that only may be large is: that costs a little time.
    pub fn is_large(self) -> bool {
        match self {
            Self::Absent | Self::Unknown => false,
            Self::Bytes(bytes) => bytes > LARGE_BYTES,
            Self::Elements(elements) => elements > LARGE_ELEMENTS,
        }
    }
}

/// Asks for `MEMORY USAGE` with few samples; where that is refused, for the type and the length.
pub fn sizes(server: &mut Server, keys: &[&[u8]]) -> Result<Vec<Size>, RestoreError> {
    let mut packed = Vec::new();
    for key in keys {
        server.encode(&mut packed, &[&b"MEMORY"[..], b"USAGE", *key, b"SAMPLES", SAMPLES.as_bytes()]);
    }
    let replies = server.pipeline(&packed, keys.len())?;
    let size = |(key, reply): (&&[u8], Reply)| match reply {
        Reply::Value(Value::Int(bytes)) => Ok(Size::Bytes(bytes.unsigned_abs())),
        Reply::Value(Value::Nil) => Ok(Size::Absent),
        _ => length(server, key),
    };
    keys.iter().zip(replies).map(size).collect()
}

fn length(server: &mut Server, key: &[u8]) -> Result<Size, RestoreError> {
    let kind = server.call(&[b"TYPE", key])?;
    let (command, size): (&[u8], fn(u64) -> Size) = match text(&kind).as_str() {
        "none" => return Ok(Size::Absent),
        "string" => (b"STRLEN", Size::Bytes),
        "list" => (b"LLEN", Size::Elements),
        "set" => (b"SCARD", Size::Elements),
        "zset" => (b"ZCARD", Size::Elements),
        "hash" => (b"HLEN", Size::Elements),
        "stream" => (b"XLEN", Size::Elements),
        _ => return Ok(Size::Unknown),
    };
    match server.try_call(&[command, key])? {
        Reply::Value(Value::Int(length)) => Ok(size(length.unsigned_abs())),
        // Another client has made something else of it: then it is not the value that was asked for.
        _ => Ok(Size::Unknown),
    }
}

/// Bytes that a value in hand will take on a server, about.
pub fn weight(value: &Canonical) -> u64 {
    let elements = |lengths: &mut dyn Iterator<Item = usize>| lengths.map(|len| len as u64 + ELEMENT_COST).sum();
    match value {
        Canonical::String(bytes) => bytes.len() as u64,
        Canonical::List(all) | Canonical::Set(all) => elements(&mut all.iter().map(Vec::len)),
        Canonical::Zset(members) => elements(&mut members.iter().map(|(member, _)| member.len())),
        Canonical::Hash(fields) => elements(&mut fields.iter().map(|field| field.name.len() + field.value.len())),
        Canonical::Stream(stream) => {
            let fields = stream
                .entries
                .iter()
                .map(|entry| entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>());
            let pending = stream.groups.iter().map(|group| group.pending.len() as u64 * ELEMENT_COST).sum::<u64>();
            elements(&mut fields.into_iter()) + pending
        }
        Canonical::Module { data, .. } => data.len() as u64,
    }
}

/// Bytes of the longest part of a value that goes in one piece; a string has none, as it is cut anywhere.
pub fn longest_element(value: &Canonical) -> u64 {
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0) as u64;
    match value {
        Canonical::String(_) => 0,
        Canonical::List(all) | Canonical::Set(all) => longest(&mut all.iter().map(Vec::len)),
        Canonical::Zset(members) => longest(&mut members.iter().map(|(member, _)| member.len())),
        Canonical::Hash(fields) => longest(&mut fields.iter().map(|field| field.name.len() + field.value.len())),
        Canonical::Stream(stream) => longest(
            &mut stream
                .entries
                .iter()
                .map(|entry| entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()),
        ),
        Canonical::Module { data, .. } => data.len() as u64,
    }
}

/// Whether a value in hand is large.
pub fn is_large(value: &Canonical) -> bool {
    weight(value) > LARGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_or_not() {
        assert!(!Size::Bytes(LARGE_BYTES).is_large() && Size::Bytes(LARGE_BYTES + 1).is_large());
        assert!(!Size::Elements(1024).is_large() && Size::Elements(1025).is_large());
        assert!(!Size::Absent.is_large() && !Size::Unknown.is_large());
        assert!(!is_large(&Canonical::Set(vec![vec![b'x'; 1000]; 900])));
        assert!(is_large(&Canonical::Set(vec![vec![b'x'; 1000]; 1100])));
        assert!(is_large(&Canonical::List(vec![vec![]; 20_000])));
        assert_eq!(longest_element(&Canonical::Set(vec![vec![b'x'; 10], vec![b'x'; 1000]])), 1000);
        assert_eq!(longest_element(&Canonical::String(vec![b'x'; 1000])), 0);
    }
}
