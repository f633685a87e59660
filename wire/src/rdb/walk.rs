//! What stands in an RDB, in its order, through one buffer: the keys with the place of their values, and all between.

use std::io::Read;

use super::fault::{Fault, ReadError};
use super::header::{HEADER_LEN, RdbError, RdbVersion, TRAILER_LEN, parse_header};
use super::input::{Input, SliceInput};
use super::length::read_count;
use super::measure::{Measure, Measuring};
use super::module;
use super::skip::skip_value;
use super::stream::StreamInput;
use super::string::{read_string_into, skip_or_keep, skip_string};
use super::table::{self, Opcode, ValueType};

/// Longest key that is read: the longest string that a server accepts (`proto-max-bulk-len`).
pub const KEY_MAX: u64 = 512 << 20;
/// Longest name of an auxiliary field, and longest value that is kept. Redis up to 6.2 writes scripts as fields (`lua`).
pub const AUX_KEPT_MAX: u64 = 64 << 10;

/// A piece of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extent {
    /// Offset of its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

impl Extent {
    fn between(from: u64, to: u64) -> Self {
        Self { offset: from, len: to - from }
    }

    /// Offset of the byte behind it.
    pub fn end(self) -> u64 {
        self.offset + self.len
    }
}

/// One thing in an RDB.
#[derive(Debug, PartialEq, Eq)]
// There is one at a time, and nearly all are keys.
#[allow(clippy::large_enum_variant)]
pub enum Entry<'a> {
    /// An auxiliary field, in front of the keys or between them (Valkey's `slot-info`).
    Aux {
        /// Its name.
        name: &'a [u8],
        /// Its value; `None` if that is longer than [`AUX_KEPT_MAX`].
        value: Option<&'a [u8]>,
    },
    /// A function library: the extent of the string with its code.
    Function(Extent),
    /// Data of a module beside its keys.
    ModuleAux {
        /// The id of the module's type, see [`module_type`](super::module_type).
        id: u64,
        /// With the opcode.
        extent: Extent,
    },
    /// The keys that follow are in this database.
    SelectDb(u32),
    /// How many keys the database has, and how many of them have a TTL: a hint.
    ResizeDb {
        /// Keys.
        keys: u64,
        /// Keys with a TTL.
        expiring: u64,
    },
    /// How many keys of a slot follow (cluster mode): a hint.
    SlotInfo {
        /// The slot.
        slot: u64,
        /// Its keys.
        keys: u64,
        /// Its keys with a TTL.
        expiring: u64,
    },
    /// Valkey was importing slots: the keys of these are not its own yet.
    SlotImport {
        /// With the opcode.
        extent: Extent,
    },
    /// A key.
    Key(KeyEntry<'a>),
    /// The end: everything was read, and the checksum is right.
    End(End),
}

/// A key, and where its value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyEntry<'a> {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: &'a [u8],
    /// When it expires, in ms since 1970.
    pub expires_at_ms: Option<i64>,
    /// LRU: seconds since it was used.
    pub idle_seconds: Option<u64>,
    /// LFU: its logarithmic counter.
    pub frequency: Option<u8>,
    /// Metadata of modules on this key, with the opcode (Redis 8.6).
    pub metadata: Option<Extent>,
    /// How the value is stored.
    pub value_type: ValueType,
    /// The value, without its type and its key.
    pub value: Extent,
    /// Everything that belongs to the key, from its expiry to the last byte of its value.
    pub entry: Extent,
    /// What its value is made of, where a [`Walker::measuring`] has looked.
    pub measure: Option<Measure>,
}

/// What is known at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The checksum; `None` where the server writes none (`rdbchecksum no`).
    pub crc64: Option<u64>,
    /// Length of the file.
    pub bytes: u64,
}

/// Reads an RDB once, from front to end.
///
/// Memory: one buffer, the key in hand, one auxiliary field. A value costs nothing but the time to pass over it.
pub struct Walker<R> {
    input: StreamInput<R>,
    version: RdbVersion,
    db: u32,
    key: Vec<u8>,
    aux: Vec<u8>,
    measuring: Option<Measuring>,
    /// Set at the end and by the first fault: there is nothing to go on with.
    over: bool,
}

impl<R> std::fmt::Debug for Walker<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walker").field("version", &self.version).field("db", &self.db).finish_non_exhaustive()
    }
}

impl<R: Read> Walker<R> {
    /// Reads the header. `from` needs no buffer of its own.
    pub fn new(from: R) -> Result<Self, ReadError> {
        let mut input = StreamInput::new(from);
        let header: [u8; HEADER_LEN] = input.fixed("its header")?;
        let version = parse_header(&header).map_err(|e| Fault::Whole(e).at(0))?;
        if !table::is_known(version) {
            return Err(Fault::UnknownVersion(version).at(0));
        }
        Ok(Self { input, version, db: 0, key: Vec::new(), aux: Vec::new(), measuring: None, over: false })
    }

    /// From now on it says of each value what it is made of. It costs the time to look into packed values, and the memory for one
    /// packed string.
    #[must_use]
    pub fn measuring(mut self) -> Self {
        self.measuring = Some(Measuring::default());
        self
    }

    /// Magic and version.
    pub fn version(&self) -> RdbVersion {
        self.version
    }

    /// How many bytes have been read.
    pub fn offset(&self) -> u64 {
        self.input.at()
    }

    /// The next thing; `None` behind the end, and after a fault.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, ReadError> {
        if self.over {
            return Ok(None);
        }
        // Until this entry is known to be whole.
        self.over = true;
        let at = self.input.at();
        let number = self.input.byte("the file: its end mark is missing")?;
        let opcode = if table::is_opcode(number) {
            Some(table::find_opcode(self.version, number).map_err(|fault| fault.at(at))?)
        } else {
            None
        };
        let entry = match opcode {
            None | Some(Opcode::KeyMetadata | Opcode::Idle | Opcode::Freq | Opcode::ExpireMs | Opcode::Expire) => {
                let measuring = self.measuring.as_mut();
                let parts = read_key(&mut self.input, self.version, (at, number), &mut self.key, measuring)?;
                Entry::Key(parts.entry(self.db, &self.key))
            }
            Some(Opcode::End) => return self.end().map(|end| Some(Entry::End(end))),
            Some(Opcode::Aux) => {
                let kept = self.read_aux()?;
                Entry::Aux { name: &self.key, value: kept.then_some(&self.aux[..]) }
            }
            Some(opcode) => self.read_other(opcode, at)?,
        };
        self.over = false;
        Ok(Some(entry))
    }

    /// Name and value of an auxiliary field; false if the value is too long to be kept.
    fn read_aux(&mut self) -> Result<bool, ReadError> {
        const WHAT: &str = "an auxiliary field";
        read_string_into(&mut self.input, AUX_KEPT_MAX, WHAT, &mut self.key)?;
        skip_or_keep(&mut self.input, AUX_KEPT_MAX, WHAT, &mut self.aux)
    }

    fn read_other(&mut self, opcode: Opcode, at: u64) -> Result<Entry<'static>, ReadError> {
        let input = &mut self.input;
        Ok(match opcode {
            Opcode::SelectDb => {
                let number = read_count(input, "the number of a database")?;
                let number = i32::try_from(number).ok().and_then(|n| u32::try_from(n).ok());
                self.db = number.ok_or_else(|| Fault::Invalid("a database has a number that none can have").at(at))?;
                Entry::SelectDb(self.db)
            }
            Opcode::ResizeDb => {
                const WHAT: &str = "the sizes of a database";
                Entry::ResizeDb { keys: read_count(input, WHAT)?, expiring: read_count(input, WHAT)? }
            }
            Opcode::SlotInfo => {
                const WHAT: &str = "the sizes of a slot";
                let (slot, keys) = (read_count(input, WHAT)?, read_count(input, WHAT)?);
                Entry::SlotInfo { slot, keys, expiring: read_count(input, WHAT)? }
            }
            Opcode::SlotImport => {
                const WHAT: &str = "a slot import";
                skip_string(input, WHAT)?;
                for _ in 0..read_count(input, WHAT)? {
                    read_count(input, WHAT)?;
                    read_count(input, WHAT)?;
                }
                Entry::SlotImport { extent: Extent::between(at, input.at()) }
            }
            Opcode::Function => {
                let from = input.at();
                skip_string(input, "a function library")?;
                Entry::Function(Extent::between(from, input.at()))
            }
            Opcode::ModuleAux => {
                let id = module::skip_aux(input)?;
                Entry::ModuleAux { id, extent: Extent::between(at, input.at()) }
            }
            _ => return Err(Fault::Invalid("an opcode in a wrong place").at(at)),
        })
    }

    fn end(&mut self) -> Result<End, ReadError> {
        let (bytes, computed) = (self.input.at(), self.input.crc64());
        let stored = u64::from_le_bytes(self.input.fixed::<TRAILER_LEN>("its checksum")?);
        if stored != 0 && stored != computed {
            return Err(Fault::Whole(RdbError::Checksum { stored, computed, bytes }).at(bytes));
        }
        let end = self.input.at();
        if !self.input.is_at_end()? {
            return Err(Fault::Invalid("more bytes follow its checksum").at(end));
        }
        Ok(End { crc64: (stored != 0).then_some(stored), bytes: end })
    }
}

/// Reads the entry of one key that was cut out of an RDB (`KeyEntry::entry`). Extents count from its first byte.
/// The key's bytes go to `key`.
pub fn read_key_entry<'k>(
    version: RdbVersion,
    db: u32,
    entry: &[u8],
    key: &'k mut Vec<u8>,
) -> Result<KeyEntry<'k>, ReadError> {
    if !table::is_known(version) {
        return Err(Fault::UnknownVersion(version).at(0));
    }
    let mut input = SliceInput::new(entry, 0);
    let first = input.byte("a key")?;
    let parts = read_key(&mut input, version, (0, first), key, None)?;
    if !input.rest().is_empty() {
        return Err(input.fault(Fault::Invalid("more bytes follow a key's value")));
    }
    Ok(parts.entry(db, key))
}

/// Reads the key at the front of an entry (`KeyEntry::entry`), of which `entry` needs to give no more than what stands before
/// the value.
pub fn read_entry_key(version: RdbVersion, entry: impl Read) -> Result<Vec<u8>, ReadError> {
    if !table::is_known(version) {
        return Err(Fault::UnknownVersion(version).at(0));
    }
    let mut input = StreamInput::new(entry);
    let first = input.byte("a key")?;
    let mut key = Vec::new();
    read_front(&mut input, version, 0, first, &mut key)?;
    Ok(key)
}

/// Everything of a [`KeyEntry`] but the key.
struct KeyParts {
    expires_at_ms: Option<i64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
    metadata: Option<Extent>,
    value_type: ValueType,
    value: Extent,
    entry: Extent,
    measure: Option<Measure>,
}

impl KeyParts {
    fn entry(self, db: u32, key: &[u8]) -> KeyEntry<'_> {
        let Self { expires_at_ms, idle_seconds, frequency, metadata, value_type, value, entry, measure } = self;
        KeyEntry { db, key, expires_at_ms, idle_seconds, frequency, metadata, value_type, value, entry, measure }
    }
}

/// `at`: where `number`, its first byte, stands.
fn read_key(
    input: &mut impl Input,
    version: RdbVersion,
    (at, number): (u64, u8),
    key: &mut Vec<u8>,
    measuring: Option<&mut Measuring>,
) -> Result<KeyParts, ReadError> {
    let mut parts = read_front(input, version, at, number, key)?;
    let from = input.at();
    match measuring {
        Some(measuring) => parts.measure = Some(measuring.value(input, parts.value_type)?),
        None => skip_value(input, parts.value_type)?,
    }
    (parts.value, parts.entry) = (Extent::between(from, input.at()), Extent::between(at, input.at()));
    Ok(parts)
}

/// Everything before the value; the extents are still empty.
fn read_front(
    input: &mut impl Input,
    version: RdbVersion,
    at: u64,
    mut number: u8,
    key: &mut Vec<u8>,
) -> Result<KeyParts, ReadError> {
    const WHAT: &str = "the part before a key";
    let (mut expires_at_ms, mut idle_seconds, mut frequency, mut metadata) = (None, None, None, None);
    let mut here = at;
    while table::is_opcode(number) {
        let twice = match table::find_opcode(version, number).map_err(|fault| fault.at(here))? {
            Opcode::ExpireMs => expires_at_ms.replace(i64::from_le_bytes(input.fixed(WHAT)?)).is_some(),
            Opcode::Expire => {
                let seconds = i32::from_le_bytes(input.fixed(WHAT)?);
                expires_at_ms.replace(i64::from(seconds) * 1000).is_some()
            }
            Opcode::Idle => idle_seconds.replace(read_count(input, WHAT)?).is_some(),
            Opcode::Freq => frequency.replace(input.byte(WHAT)?).is_some(),
            Opcode::KeyMetadata => {
                module::skip_key_metadata(input)?;
                metadata.replace(Extent::between(here, input.at())).is_some()
            }
            _ => return Err(Fault::Invalid("an opcode between a key and its attributes").at(here)),
        };
        if twice {
            return Err(Fault::Invalid("an attribute of a key is given twice").at(here));
        }
        here = input.at();
        number = input.byte(WHAT)?;
    }
    let value_type = ValueType::find(version, number).map_err(|fault| fault.at(here))?;
    read_string_into(input, KEY_MAX, "a key", key)?;
    let (value, entry) = (Extent::default(), Extent::default());
    Ok(KeyParts { expires_at_ms, idle_seconds, frequency, metadata, value_type, value, entry, measure: None })
}
