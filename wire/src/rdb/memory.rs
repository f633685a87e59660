//! How much memory a server takes for a key: an estimate of what `MEMORY USAGE key SAMPLES 0` says after a load.
//!
//! From the sizes of the structures in which each generation of servers holds values (`objectComputeSize` in `object.c`, `dict.h`,
//! `server.h`, `quicklist.h`; Valkey 8.1 `hashtable.c`), and what the allocator gives out for them. Where a server counts by a rule of
//! thumb itself (radix trees of streams), the constant is fitted to what these servers say. `tests/whole/report.rs` compares it with a
//! server for every type and encoding.
//!
//! | generation | a key's name | an element of a table |
//! | --- | --- | --- |
//! | Redis up to 8.0 | a string of its own, an entry of 24 bytes | an entry of 24 bytes, slots |
//! | Redis from 8.2 | in the object of its value | the same, strings of a field and its value in one |
//! | Valkey 8.0 | in the entry | in a set none, else 24 bytes |
//! | Valkey 8.1 | in the object of its value | a slot of a bucket |
//! | Valkey from 9.0 | the same, a short string in it in place of a pointer | the same, members of sorted sets in their nodes |
//!
//! Not in it, as not in `MEMORY USAGE`: the slots of the tables of databases and of TTLs, fragmentation, clients. A value that has
//! grown by writes may have spare room until it is loaded again.

use super::allocator::{allocated, string_allocated, string_bytes};
use super::measure::{Measure, Parts};
use super::table::ValueType;

/// The object of a value.
const OBJECT: u64 = 16;
/// An entry of a table: key, value, next.
const ENTRY: u64 = 24;
/// A table without its slots, and one of Valkey 8.1.
const TABLE: u64 = 56;
const BUCKET_TABLE: u64 = 96;
/// Entries in a bucket, and its bytes.
const BUCKET_ENTRIES: u64 = 7;
const BUCKET: u64 = 64;
/// A list and one of its nodes.
const LIST: u64 = 48;
const LIST_NODE: u64 = 32;
/// A sorted set, its skip list and the header of that.
const ZSET: u64 = 16 + 32 + 640;
/// A node of a skip list of one level, which 3 of 4 are, and what those of more levels have more, on average.
const NODE: u64 = 40;
const NODE_LEVELS: u64 = 5;
/// Expiry of a key or a field, where it stands beside it.
const EXPIRY: u64 = 8;
/// Longest string that Redis, and Valkey 8.0, put behind the object.
const EMBEDDED_MAX: u64 = 44;

/// A generation of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    Redis,
    Redis82,
    Valkey80,
    Valkey81,
    Valkey90,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryModel {
    generation: Generation,
    /// A list of one packed string is held as that alone (Redis 7.2).
    packed_lists: bool,
}

/// How a server holds a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredIn {
    /// Bytes, about. Of a module's value, which only the module knows: its bytes in the RDB.
    pub memory_bytes: u64,
    /// As `OBJECT ENCODING` says; `module` of a module's value.
    pub encoding: &'static str,
}

impl MemoryModel {
    /// That of a server of this version. Valkey counts as Redis 7.2 where nothing else is said.
    pub fn of(valkey: bool, version: (u32, u32)) -> Self {
        let generation = match (valkey, version) {
            (false, v) if v >= (8, 2) => Generation::Redis82,
            (false, _) => Generation::Redis,
            (true, v) if v >= (9, 0) => Generation::Valkey90,
            (true, v) if v >= (8, 1) => Generation::Valkey81,
            (true, _) => Generation::Valkey80,
        };
        Self { generation, packed_lists: valkey || version >= (7, 2) }
    }

    /// A key with a name of `key_len` bytes, and with a TTL or without, whose value takes `serialized` bytes in the RDB.
    pub fn stored(self, key_len: u64, expires: bool, of: ValueType, measure: &Measure, serialized: u64) -> StoredIn {
        if of == ValueType::String {
            return self.string(key_len, expires, &measure.parts);
        }
        let (value, encoding) = self.value(of, measure, serialized);
        StoredIn { memory_bytes: self.key(key_len, expires).saturating_add(value), encoding }
    }

    /// The key and the object of its value.
    fn key(self, len: u64, expires: bool) -> u64 {
        match self.generation {
            Generation::Redis => ENTRY + string_allocated(len) + OBJECT,
            Generation::Valkey80 => allocated(OBJECT + 1 + string_bytes(len)) + OBJECT,
            Generation::Redis82 | Generation::Valkey81 | Generation::Valkey90 => {
                allocated(OBJECT + 1 + string_bytes(len) + u64::from(expires) * EXPIRY)
            }
        }
    }

    fn string(self, key_len: u64, expires: bool, parts: &Parts) -> StoredIn {
        let (len, key) = (parts.string_bytes, self.key(key_len, expires));
        if parts.is_integer {
            return StoredIn { memory_bytes: key, encoding: "int" };
        }
        // Behind its object a string has a header of 3 bytes, however short it is.
        let embedded = len.saturating_add(3 + 1);
        let together = OBJECT + 1 + string_bytes(key_len) + u64::from(expires) * EXPIRY + embedded;
        let memory = match self.generation {
            Generation::Redis | Generation::Valkey80 if len <= EMBEDDED_MAX => {
                Some(key - OBJECT + allocated(OBJECT + embedded))
            }
            Generation::Redis82 | Generation::Valkey81 if together <= 64 => Some(allocated(together)),
            // In place of the pointer.
            Generation::Valkey90 if together - 8 <= 128 => Some(allocated(together - 8)),
            _ => None,
        };
        match memory {
            Some(memory_bytes) => StoredIn { memory_bytes, encoding: "embstr" },
            None => StoredIn { memory_bytes: key.saturating_add(string_allocated(len)), encoding: "raw" },
        }
    }

    /// What the value takes beside its object, and its encoding.
    fn value(self, of: ValueType, measure: &Measure, serialized: u64) -> (u64, &'static str) {
        let (parts, elements) = (&measure.parts, measure.elements.unwrap_or(0));
        let table = || self.table(elements);
        match of {
            ValueType::List | ValueType::ListZiplist | ValueType::ListQuicklist | ValueType::ListQuicklist2 => {
                self.list(of, parts)
            }
            ValueType::Set => (table() + self.members(elements, parts), of.encoding()),
            ValueType::Zset | ValueType::Zset2 => {
                (table() + ZSET + self.scored_members(elements, parts), of.encoding())
            }
            ValueType::Hash => (table() + self.fields(elements, parts, 0), of.encoding()),
            ValueType::HashMetadata | ValueType::HashMetadataPreGa | ValueType::ValkeyHash2 => {
                (table() + self.fields(elements, parts, self.field_expiry()), of.encoding())
            }
            ValueType::HashListpackEx | ValueType::HashListpackExPreGa => (48 + parts.packs_allocated, of.encoding()),
            ValueType::Stream1 | ValueType::Stream2 | ValueType::Stream3 | ValueType::Stream4 => {
                (self.stream(parts), of.encoding())
            }
            ValueType::Module2 => (serialized, of.encoding()),
            _ => (parts.packs_allocated, of.encoding()),
        }
    }

    fn list(self, of: ValueType, parts: &Parts) -> (u64, &'static str) {
        if self.packed_lists && (parts.packs, parts.strings) == (1, 0) {
            return (parts.packs_allocated, "listpack");
        }
        // What Redis before 3.2 had is held as nodes, too.
        let nodes = parts.packs + parts.strings;
        let contents = parts.packs_allocated.saturating_add(parts.strings_allocated);
        let encoding = if of == ValueType::List { "quicklist" } else { ValueType::ListQuicklist2.encoding() };
        (LIST + nodes.saturating_mul(LIST_NODE).saturating_add(contents), encoding)
    }

    /// A table of so many elements, without these.
    fn table(self, elements: u64) -> u64 {
        if self.has_buckets() {
            // Some buckets are full and have another behind them.
            let buckets = elements.div_ceil(BUCKET_ENTRIES).max(1).next_power_of_two();
            return BUCKET_TABLE + buckets * BUCKET + elements + elements / 2;
        }
        TABLE + elements.max(4).next_power_of_two() * 8
    }

    fn has_buckets(self) -> bool {
        matches!(self.generation, Generation::Valkey81 | Generation::Valkey90)
    }

    fn members(self, elements: u64, parts: &Parts) -> u64 {
        match self.generation {
            Generation::Redis | Generation::Redis82 => elements * ENTRY + parts.strings_allocated,
            // Where two share a slot, they need an entry.
            Generation::Valkey80 => elements * 5 + parts.strings_allocated,
            Generation::Valkey81 | Generation::Valkey90 => parts.strings_allocated,
        }
    }

    fn scored_members(self, elements: u64, parts: &Parts) -> u64 {
        let of_the_table = if self.has_buckets() { 0 } else { ENTRY };
        let node_and_member = match self.generation {
            Generation::Redis | Generation::Valkey80 | Generation::Valkey81 => {
                return elements * (of_the_table + allocated(NODE) + NODE_LEVELS) + parts.strings_allocated;
            }
            // In place of the pointer to it.
            Generation::Redis82 | Generation::Valkey90 => {
                allocated(NODE - 8 + 1 + string_bytes(parts.string_bytes / elements.max(1)))
            }
        };
        elements.saturating_mul(of_the_table + node_and_member + NODE_LEVELS)
    }

    fn field_expiry(self) -> u64 {
        match self.generation {
            Generation::Redis | Generation::Valkey80 => 3 * EXPIRY,
            Generation::Redis82 => 2 * EXPIRY,
            Generation::Valkey81 | Generation::Valkey90 => EXPIRY,
        }
    }

    fn fields(self, elements: u64, parts: &Parts, expiry: u64) -> u64 {
        // Of a field with its value, on average: two headers and end marks.
        let together = (parts.string_bytes / elements.max(1)).saturating_add(6);
        let each = match self.generation {
            Generation::Redis | Generation::Valkey80 => {
                return elements * (ENTRY + expiry) + parts.strings_allocated;
            }
            Generation::Redis82 => ENTRY + together + expiry,
            Generation::Valkey81 | Generation::Valkey90 => allocated(together + expiry),
        };
        elements.saturating_mul(each)
    }

    /// By what servers say: a node of entries costs so much beside these, a group or consumer, a pending entry.
    fn stream(self, parts: &Parts) -> u64 {
        let (stream, node, group, pending) = match self.generation {
            Generation::Redis | Generation::Valkey80 => (96, 504, 500, 1040),
            Generation::Redis82 => (96, 64, 240, 238),
            Generation::Valkey81 | Generation::Valkey90 => (96, 60, 115, 140),
        };
        let nodes = parts.packs.saturating_mul(node).saturating_add(parts.packs_allocated);
        let groups = (parts.groups + parts.consumers) * group + parts.pending.saturating_mul(pending);
        (stream + nodes).saturating_add(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(len: u64) -> Measure {
        let parts =
            Parts { strings: 1, string_bytes: len, strings_allocated: string_allocated(len), ..Parts::default() };
        Measure { elements: Some(len), largest: Some(len), module: None, parts }
    }

    fn of_string(model: MemoryModel, key: u64, len: u64) -> (u64, &'static str) {
        let stored = model.stored(key, false, ValueType::String, &string(len), len);
        (stored.memory_bytes, stored.encoding)
    }

    /// What `MEMORY USAGE` said of these strings: 7.0.15, 8.6.3; Valkey 8.0.1, 9.1.2.
    #[test]
    fn strings_are_as_large_as_servers_say() {
        let (redis, redis82) = (MemoryModel::of(false, (7, 0)), MemoryModel::of(false, (8, 6)));
        let (valkey80, valkey90) = (MemoryModel::of(true, (8, 0)), MemoryModel::of(true, (9, 1)));
        assert_eq!(of_string(redis, 10, 1), (72, "embstr"));
        assert_eq!(of_string(redis, 40, 44), (136, "embstr"));
        assert_eq!(of_string(redis, 40, 45), (152, "raw"));
        assert_eq!(of_string(redis, 10, 1000), (1080, "raw"));
        assert_eq!(of_string(redis82, 10, 20), (64, "embstr"));
        assert_eq!(of_string(redis82, 10, 44), (80, "raw"));
        assert_eq!(of_string(valkey80, 40, 45), (144, "raw"));
        assert_eq!(of_string(valkey90, 10, 100), (128, "embstr"));
        assert_eq!(of_string(valkey90, 40, 100), (176, "raw"));
    }

    #[test]
    fn nothing_overflows() {
        let parts = Parts {
            strings: u64::MAX >> 20,
            string_bytes: u64::MAX >> 8,
            strings_allocated: u64::MAX >> 8,
            packs: u64::MAX >> 20,
            pack_bytes: u64::MAX >> 8,
            packs_allocated: u64::MAX >> 8,
            groups: u64::MAX >> 20,
            consumers: u64::MAX >> 20,
            pending: u64::MAX >> 20,
            is_integer: false,
        };
        let measure = Measure { elements: Some(u64::MAX >> 20), largest: None, module: None, parts };
        for model in [MemoryModel::of(false, (6, 0)), MemoryModel::of(false, (8, 6)), MemoryModel::of(true, (9, 1))] {
            for of in [ValueType::String, ValueType::Set, ValueType::Zset2, ValueType::Hash, ValueType::Stream3] {
                assert!(model.stored(u64::MAX >> 8, true, of, &measure, 1).memory_bytes > 1 << 40);
            }
        }
    }
}
