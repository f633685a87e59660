//! Which opcodes and value types each version has. The numbers collide: 22 is a hash with field TTLs in Valkey 9 and
//! another one in release candidates of Redis 7.4; 243 is a slot import in Valkey and the metadata of a key in Redis.
//! So everything is looked up by magic, version and number, and what is not in these tables is refused by its name.
//!
//! Sources: `rdb.h` and `rdb.c` of each server named, and files that these servers wrote (`wire/tests/golden/`): Redis 6.0.16
//! writes REDIS0009, 7.0.15 REDIS0010, 8.0.2 and 8.0.6 REDIS0012, 8.6.3 REDIS0013; Valkey 8.0.1 and 8.1.1 REDIS0011,
//! 9.1.2 VALKEY080.
//!
//! | type | name | since | written by |
//! | --- | --- | --- | --- |
//! | 0 | string | 9 | all |
//! | 1 | list | 9 | Redis before 3.2; read by all |
//! | 2 | set | 9 | all |
//! | 3 | sorted set, scores as text | 9 | Redis before 4.0; read by all |
//! | 4 | hash | 9 | all |
//! | 5 | sorted set, scores as doubles | 9 | all |
//! | 6 | module value without opcodes | | release candidates of Redis 4.0; refused |
//! | 7 | module value | 9 | all |
//! | 9 | hash as zipmap | | Redis before 2.6; refused |
//! | 10 | list as ziplist | 9 | Redis before 3.2; read by all |
//! | 11 | set as intset | 9 | all |
//! | 12 | sorted set as ziplist | 9 | Redis up to 6.2 |
//! | 13 | hash as ziplist | 9 | Redis up to 6.2 |
//! | 14 | list as quicklist of ziplists | 9 | Redis up to 6.2 |
//! | 15 | stream | 9 | Redis 5.0 to 6.2 |
//! | 16 | hash as listpack | 10 | Redis 7.0, Valkey |
//! | 17 | sorted set as listpack | 10 | Redis 7.0, Valkey |
//! | 18 | list as quicklist of listpacks and plain nodes | 10 | Redis 7.0, Valkey |
//! | 19 | stream, with first id, greatest deleted id, entries added and read | 10 | Redis 7.0 |
//! | 20 | set as listpack | 11 | Redis 7.2, Valkey |
//! | 21 | stream, with the active time of consumers | 11 | Redis 7.2, Valkey |
//! | 22 | hash with field TTLs | 12 | release candidates of Redis 7.4 |
//! | 22 | hash with field TTLs | Valkey 80 | Valkey 9.0 |
//! | 23 | hash as listpack with field TTLs | 12 | release candidates of Redis 7.4 |
//! | 24 | hash with field TTLs, relative to the smallest | 12 | Redis 7.4 |
//! | 25 | hash as listpack with field TTLs, the smallest in front | 12 | Redis 7.4 |
//! | 26 | stream, with idempotent producers | 13 | Redis 8.6 |
//!
//! | opcode | name | since | |
//! | --- | --- | --- | --- |
//! | 243 | key metadata | 13 | Redis 8.6, by modules; stands in front of the type |
//! | 243 | slot import | Valkey 80 | Valkey 9.0, in cluster mode |
//! | 244 | slot info | 12 | Redis 7.4 in cluster mode; Valkey writes an auxiliary field `slot-info` instead |
//! | 245 | function library | 10 | Redis 7.0, Valkey |
//! | 246 | function library of release candidates of Redis 7.0 | | refused |
//! | 247 | auxiliary data of a module | 9 | |
//! | 248, 249 | LRU idle time, LFU frequency of the key that follows | 9 | |
//! | 250 | auxiliary field | 9 | |
//! | 251 | sizes of the database | 9 | |
//! | 252, 253 | expiry of the key that follows, in ms and in s | 9 | |
//! | 254 | number of the database | 9 | |
//! | 255 | end; the CRC64 follows | 9 | |

use super::fault::Fault;
use super::header::{Family, RdbVersion};

pub(super) const OPCODE_AUX: u8 = 250;
pub(super) const OPCODE_EXPIRE_MS: u8 = 252;
pub(super) const OPCODE_SELECT_DB: u8 = 254;
pub(super) const OPCODE_RESIZE_DB: u8 = 251;
pub(super) const OPCODE_FUNCTION: u8 = 245;
pub(super) const OPCODE_IDLE: u8 = 248;
pub(super) const OPCODE_FREQ: u8 = 249;
pub(super) const OPCODE_END: u8 = 255;

/// Numbers from here on are opcodes in every version read here.
const FIRST_OPCODE: u8 = 243;

/// How a value is stored. The table at the top says which version has which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ValueType {
    String,
    List,
    Set,
    Zset,
    Hash,
    Zset2,
    Module2,
    ListZiplist,
    SetIntset,
    ZsetZiplist,
    HashZiplist,
    ListQuicklist,
    Stream1,
    HashListpack,
    ZsetListpack,
    ListQuicklist2,
    Stream2,
    SetListpack,
    Stream3,
    HashMetadataPreGa,
    HashListpackExPreGa,
    HashMetadata,
    HashListpackEx,
    Stream4,
    ValkeyHash2,
}

/// What a number of 243 or more means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    KeyMetadata,
    SlotImport,
    SlotInfo,
    Function,
    ModuleAux,
    Idle,
    Freq,
    Aux,
    ResizeDb,
    ExpireMs,
    Expire,
    SelectDb,
    End,
}

/// First version of each family that has it; 0: no version of this family.
#[derive(Debug, Clone, Copy)]
struct Since {
    redis: u32,
    valkey: u32,
}

impl Since {
    fn includes(self, version: RdbVersion) -> bool {
        let first = match version.family {
            Family::Redis => self.redis,
            Family::Valkey => self.valkey,
        };
        first != 0 && version.version >= first
    }
}

const fn both(redis: u32) -> Since {
    Since { redis, valkey: 80 }
}

const fn redis(version: u32) -> Since {
    Since { redis: version, valkey: 0 }
}

const VALKEY_80: Since = Since { redis: 0, valkey: 80 };
const NEVER: Since = Since { redis: 0, valkey: 0 };

/// What no version has a row for.
const UNKNOWN: &str = "of no known version";

struct TypeRow {
    number: u8,
    name: &'static str,
    since: Since,
    /// `None` for what is known by name alone.
    is: Option<ValueType>,
}

const fn row(number: u8, name: &'static str, since: Since, is: ValueType) -> TypeRow {
    TypeRow { number, name, since, is: Some(is) }
}

const fn only_named(number: u8, name: &'static str) -> TypeRow {
    TypeRow { number, name, since: NEVER, is: None }
}

const TYPES: &[TypeRow] = &[
    row(0, "STRING", both(9), ValueType::String),
    row(1, "LIST", both(9), ValueType::List),
    row(2, "SET", both(9), ValueType::Set),
    row(3, "ZSET", both(9), ValueType::Zset),
    row(4, "HASH", both(9), ValueType::Hash),
    row(5, "ZSET_2", both(9), ValueType::Zset2),
    only_named(6, "MODULE_PRE_GA"),
    row(7, "MODULE_2", both(9), ValueType::Module2),
    only_named(9, "HASH_ZIPMAP"),
    row(10, "LIST_ZIPLIST", both(9), ValueType::ListZiplist),
    row(11, "SET_INTSET", both(9), ValueType::SetIntset),
    row(12, "ZSET_ZIPLIST", both(9), ValueType::ZsetZiplist),
    row(13, "HASH_ZIPLIST", both(9), ValueType::HashZiplist),
    row(14, "LIST_QUICKLIST", both(9), ValueType::ListQuicklist),
    row(15, "STREAM_LISTPACKS", both(9), ValueType::Stream1),
    row(16, "HASH_LISTPACK", both(10), ValueType::HashListpack),
    row(17, "ZSET_LISTPACK", both(10), ValueType::ZsetListpack),
    row(18, "LIST_QUICKLIST_2", both(10), ValueType::ListQuicklist2),
    row(19, "STREAM_LISTPACKS_2", both(10), ValueType::Stream2),
    row(20, "SET_LISTPACK", both(11), ValueType::SetListpack),
    row(21, "STREAM_LISTPACKS_3", both(11), ValueType::Stream3),
    row(22, "HASH_METADATA_PRE_GA", redis(12), ValueType::HashMetadataPreGa),
    row(22, "HASH_2", VALKEY_80, ValueType::ValkeyHash2),
    row(23, "HASH_LISTPACK_EX_PRE_GA", redis(12), ValueType::HashListpackExPreGa),
    row(24, "HASH_METADATA", redis(12), ValueType::HashMetadata),
    row(25, "HASH_LISTPACK_EX", redis(12), ValueType::HashListpackEx),
    row(26, "STREAM_LISTPACKS_4", redis(13), ValueType::Stream4),
    // Later versions: named, so that a message says what it is about.
    only_named(23, "PATH_HASH of VALKEY081"),
    only_named(27, "STREAM_LISTPACKS_5 of REDIS0014"),
    only_named(28, "ARRAY of REDIS0015"),
];

struct OpcodeRow {
    number: u8,
    name: &'static str,
    since: Since,
    is: Option<Opcode>,
}

const fn opcode(number: u8, name: &'static str, since: Since, is: Opcode) -> OpcodeRow {
    OpcodeRow { number, name, since, is: Some(is) }
}

const OPCODES: &[OpcodeRow] = &[
    opcode(243, "KEY_META", redis(13), Opcode::KeyMetadata),
    opcode(243, "SLOT_IMPORT", VALKEY_80, Opcode::SlotImport),
    opcode(244, "SLOT_INFO", redis(12), Opcode::SlotInfo),
    opcode(OPCODE_FUNCTION, "FUNCTION2", both(10), Opcode::Function),
    OpcodeRow { number: 246, name: "FUNCTION_PRE_GA", since: NEVER, is: None },
    opcode(247, "MODULE_AUX", both(9), Opcode::ModuleAux),
    opcode(OPCODE_IDLE, "IDLE", both(9), Opcode::Idle),
    opcode(OPCODE_FREQ, "FREQ", both(9), Opcode::Freq),
    opcode(OPCODE_AUX, "AUX", both(9), Opcode::Aux),
    opcode(OPCODE_RESIZE_DB, "RESIZEDB", both(9), Opcode::ResizeDb),
    opcode(OPCODE_EXPIRE_MS, "EXPIRETIME_MS", both(9), Opcode::ExpireMs),
    opcode(253, "EXPIRETIME", both(9), Opcode::Expire),
    opcode(OPCODE_SELECT_DB, "SELECTDB", both(9), Opcode::SelectDb),
    opcode(OPCODE_END, "EOF", both(9), Opcode::End),
];

/// Whether the tables have this version.
pub(super) fn is_known(version: RdbVersion) -> bool {
    match version.family {
        Family::Redis => (9..=13).contains(&version.version),
        Family::Valkey => version.version == 80,
    }
}

/// Whether a number can only be an opcode's.
pub(super) fn is_opcode(number: u8) -> bool {
    number >= FIRST_OPCODE
}

pub(super) fn find_opcode(version: RdbVersion, number: u8) -> Result<Opcode, Fault> {
    let rows = || OPCODES.iter().filter(|row| row.number == number);
    rows().find(|row| row.since.includes(version)).and_then(|row| row.is).ok_or_else(|| Fault::UnknownOpcode {
        number,
        name: rows().next().map_or(UNKNOWN, |row| row.name),
        version,
    })
}

impl ValueType {
    /// The type that `number` is in this version.
    pub fn find(version: RdbVersion, number: u8) -> Result<Self, Fault> {
        let rows = || TYPES.iter().filter(|row| row.number == number);
        rows().find(|row| row.since.includes(version)).and_then(|row| row.is).ok_or_else(|| Fault::UnknownType {
            number,
            name: rows().next_back().map_or(UNKNOWN, |row| row.name),
            version,
        })
    }

    /// The number that stands in a file.
    pub fn number(self) -> u8 {
        self.row().map_or(0, |row| row.number)
    }

    /// The name in `rdb.h`, without its prefix.
    pub fn name(self) -> &'static str {
        self.row().map_or(UNKNOWN, |row| row.name)
    }

    /// What `TYPE` gives; `None` = the value is a module's, which has its own ([`module_type_of`](super::module_type_of)).
    pub fn type_name(self) -> Option<&'static str> {
        match self {
            Self::String => Some("string"),
            Self::List | Self::ListZiplist | Self::ListQuicklist | Self::ListQuicklist2 => Some("list"),
            Self::Set | Self::SetIntset | Self::SetListpack => Some("set"),
            Self::Zset | Self::Zset2 | Self::ZsetZiplist | Self::ZsetListpack => Some("zset"),
            Self::Hash
            | Self::HashZiplist
            | Self::HashListpack
            | Self::HashMetadataPreGa
            | Self::HashListpackExPreGa
            | Self::HashMetadata
            | Self::HashListpackEx
            | Self::ValkeyHash2 => Some("hash"),
            Self::Stream1 | Self::Stream2 | Self::Stream3 | Self::Stream4 => Some("stream"),
            Self::Module2 => None,
        }
    }

    /// How `OBJECT ENCODING` calls what a server of that version had in memory; a newer one may take another.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "linkedlist",
            Self::Set | Self::Hash | Self::HashMetadataPreGa | Self::HashMetadata | Self::ValkeyHash2 => "hashtable",
            Self::Zset | Self::Zset2 => "skiplist",
            Self::SetIntset => "intset",
            Self::ListZiplist | Self::ZsetZiplist | Self::HashZiplist => "ziplist",
            Self::SetListpack | Self::ZsetListpack | Self::HashListpack => "listpack",
            Self::HashListpackExPreGa | Self::HashListpackEx => "listpackex",
            Self::ListQuicklist | Self::ListQuicklist2 => "quicklist",
            Self::Stream1 | Self::Stream2 | Self::Stream3 | Self::Stream4 => "stream",
            Self::Module2 => "module",
        }
    }

    fn row(self) -> Option<&'static TypeRow> {
        TYPES.iter().find(|row| row.is == Some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> RdbVersion {
        super::super::header::parse_header(text.as_bytes()).expect("a header")
    }

    #[test]
    fn one_number_is_one_thing_in_each_version() {
        let versions = (9..=13).map(|v| version(&format!("REDIS{v:04}"))).chain([version("VALKEY080")]);
        for version in versions {
            assert!(is_known(version));
            for number in 0..=255 {
                assert!(TYPES.iter().filter(|r| r.number == number && r.since.includes(version)).count() <= 1);
                assert!(OPCODES.iter().filter(|r| r.number == number && r.since.includes(version)).count() <= 1);
                let known = ValueType::find(version, number);
                assert!(known.is_err() || find_opcode(version, number).is_err(), "{number} is a type and an opcode");
                assert!(known.is_err() || !is_opcode(number));
                if let Ok(found) = known {
                    assert_eq!(found.number(), number);
                }
            }
        }
    }

    #[test]
    fn a_type_has_the_name_that_type_gives() {
        for row in TYPES {
            let Some(is) = row.is else { continue };
            // The server's own name begins with that of the type.
            let family = row.name.split('_').next().unwrap_or_default().to_ascii_lowercase();
            assert_eq!(is.type_name().unwrap_or("module"), family, "{}", row.name);
        }
    }

    #[test]
    fn numbers_that_collide_are_told_apart_by_the_magic() {
        let types = |v| ValueType::find(version(v), 22).ok();
        assert_eq!(types("REDIS0012"), Some(ValueType::HashMetadataPreGa));
        assert_eq!(types("VALKEY080"), Some(ValueType::ValkeyHash2));
        assert_eq!(types("REDIS0011"), None);
        let opcodes = |v| find_opcode(version(v), 243).ok();
        assert_eq!(opcodes("REDIS0013"), Some(Opcode::KeyMetadata));
        assert_eq!(opcodes("VALKEY080"), Some(Opcode::SlotImport));
        assert_eq!(opcodes("REDIS0012"), None);
    }

    #[test]
    fn what_is_refused_is_named() {
        let type_of = |v, number| ValueType::find(version(v), number).expect_err("refused").to_string();
        assert_eq!(type_of("REDIS0009", 20), "value type 20 (SET_LISTPACK) is not read in REDIS0009");
        assert_eq!(type_of("REDIS0013", 9), "value type 9 (HASH_ZIPMAP) is not read in REDIS0013");
        assert_eq!(type_of("VALKEY080", 23), "value type 23 (PATH_HASH of VALKEY081) is not read in VALKEY080");
        assert_eq!(type_of("REDIS0013", 8), "value type 8 (of no known version) is not read in REDIS0013");
        let opcode = find_opcode(version("REDIS0009"), 245).expect_err("refused").to_string();
        assert_eq!(opcode, "opcode 245 (FUNCTION2) is not part of REDIS0009");
        for unknown in ["REDIS0008", "REDIS0014", "VALKEY081", "REDIS0080"] {
            assert!(!is_known(version(unknown)), "{unknown}");
        }
    }
}
