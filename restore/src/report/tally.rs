//! A key that is counted, and a sum of such.

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFacts<'a> {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: &'a [u8],
    /// As `TYPE` gives it.
    pub type_name: &'a str,
    /// It is a module's.
    pub is_module: bool,
    /// As `OBJECT ENCODING` gives it; `module` of a module's value.
    pub encoding: &'static str,
    /// Bytes of memory that the server takes for it: an estimate ([`redtape_wire::rdb::MemoryModel`]).
    pub memory_bytes: u64,
    /// Bytes in the RDB, with its name and its TTL.
    pub serialized_bytes: u64,
    /// Elements; of a string its length; `None` = not known (a module's).
    pub elements: Option<u64>,
    /// Bytes of the longest element; `None` = not known (a module's, a stream's).
    pub largest: Option<u64>,
    /// When it expires, in ms since 1970.
    pub expires_at_ms: Option<i64>,
}

/// Keys, and their sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub keys: u64,
    /// How many of them have a TTL.
    pub with_ttl: u64,
    /// Their memory, estimated.
    pub memory_bytes: u64,
    /// Their bytes in the RDB.
    pub serialized_bytes: u64,
    /// Their elements, as far as they are known; strings have none.
    pub elements: u64,
}

impl Tally {
    /// Counts a key.
    pub(super) fn add(&mut self, key: &KeyFacts<'_>) {
        let elements = if key.type_name == "string" { 0 } else { key.elements.unwrap_or(0) };
        self.add_all(&Self {
            keys: 1,
            with_ttl: u64::from(key.expires_at_ms.is_some()),
            memory_bytes: key.memory_bytes,
            serialized_bytes: key.serialized_bytes,
            elements,
        });
    }

    /// Counts what another one has counted.
    pub fn add_all(&mut self, more: &Self) {
        self.keys += more.keys;
        self.with_ttl += more.with_ttl;
        self.memory_bytes = self.memory_bytes.saturating_add(more.memory_bytes);
        self.serialized_bytes = self.serialized_bytes.saturating_add(more.serialized_bytes);
        self.elements = self.elements.saturating_add(more.elements);
    }
}

/// A key for tests: a string of so many bytes in memory.
#[cfg(test)]
pub(super) fn string(key: &[u8], memory_bytes: u64) -> KeyFacts<'_> {
    KeyFacts {
        db: 0,
        key,
        type_name: "string",
        is_module: false,
        encoding: "raw",
        memory_bytes,
        serialized_bytes: memory_bytes / 2,
        elements: Some(memory_bytes),
        largest: Some(memory_bytes),
        expires_at_ms: None,
    }
}
