//! What `DUMP` answers: a value with its type, the version of its RDB, a CRC64 (`createDumpPayload` in `cluster.c`).

use crc_fast::{CrcAlgorithm, checksum};

use super::fault::{Fault, ReadError};
use super::header::{Family, RdbError, RdbVersion};
use super::input::{Input, SliceInput};
use super::module;
use super::string::write_string;
use super::table::{self, Opcode, ValueType};

/// Bytes behind the value: two of the version, eight of the CRC64.
pub const FOOTER_LEN: usize = 10;

/// A payload whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpPayload<'a> {
    /// The version of the value.
    pub version: RdbVersion,
    /// How it is stored.
    pub value_type: ValueType,
    /// Metadata of modules on the key, with the opcode (Redis 8.6); empty if there are none.
    pub metadata: &'a [u8],
    /// The value, for [`decode_value`](super::decode_value).
    pub value: &'a [u8],
}

/// The payload of a value that was cut out of an RDB of this version: what `DUMP` would give.
///
/// `metadata`: what [`KeyEntry::metadata`](super::KeyEntry::metadata) refers to, or nothing; `value`: without its type.
pub fn dump_payload(version: RdbVersion, value_type: ValueType, metadata: &[u8], value: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(metadata.len() + 1 + value.len() + FOOTER_LEN);
    payload.extend_from_slice(metadata);
    payload.push(value_type.number());
    payload.extend_from_slice(value);
    end_dump(&mut payload, 0, version);
    payload
}

/// Opcode of a function library (`RDB_OPCODE_FUNCTION2` in `rdb.h`, Redis 7.0).
const FUNCTION: u8 = 245;
/// The oldest version with function libraries: every server that has functions takes it.
const WITH_FUNCTIONS: RdbVersion = RdbVersion { family: Family::Redis, version: 10 };

/// A payload for `FUNCTION RESTORE`: the code of each library, as `FUNCTION DUMP` would give it (`createFunctionDumpPayload` in
/// `functions.c`).
pub fn functions_payload<'a>(libraries: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut payload = Vec::new();
    for code in libraries {
        payload.push(FUNCTION);
        write_string(code, &mut payload);
    }
    end_dump(&mut payload, 0, WITH_FUNCTIONS);
    payload
}

/// Ends a payload that was built in place: from `begin` on, metadata, number of the type, and value stand in `bytes`.
pub fn end_dump(bytes: &mut Vec<u8>, begin: usize, version: RdbVersion) {
    bytes.extend_from_slice(&(version.version as u16).to_le_bytes());
    let crc = checksum(CrcAlgorithm::Crc64Redis, bytes.get(begin..).unwrap_or_default());
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// Takes a payload apart and compares its checksum; a checksum of zero is none (Redis 8 for trusted peers).
///
/// A payload has no magic: Valkey's versions begin at 80, and it has reserved everything from 12 to 79 for Redis.
pub fn parse_dump(payload: &[u8]) -> Result<DumpPayload<'_>, ReadError> {
    let truncated = || Fault::Truncated { what: "a payload of DUMP" }.at(payload.len() as u64);
    let (body, footer) = payload.len().checked_sub(FOOTER_LEN).map(|at| payload.split_at(at)).ok_or_else(truncated)?;
    let (number, crc) = footer.split_at(2);
    let number = u32::from(number[0]) | u32::from(number[1]) << 8;
    let family = if number >= 80 { Family::Valkey } else { Family::Redis };
    let version = RdbVersion { family, version: number };
    if !table::is_known(version) {
        return Err(Fault::UnknownVersion(version).at(body.len() as u64));
    }
    let stored = crc.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let covered = &payload[..payload.len() - 8];
    let computed = checksum(CrcAlgorithm::Crc64Redis, covered);
    if stored != 0 && stored != computed {
        let bytes = covered.len() as u64;
        return Err(Fault::Whole(RdbError::Checksum { stored, computed, bytes }).at(bytes));
    }
    let mut input = SliceInput::new(body, 0);
    let mut metadata = &body[..0];
    let mut number = input.byte("a payload of DUMP")?;
    if table::is_opcode(number) {
        match table::find_opcode(version, number).map_err(|fault| fault.at(0))? {
            Opcode::KeyMetadata => module::skip_key_metadata(&mut input)?,
            _ => return Err(Fault::Invalid("a payload of DUMP begins with an opcode").at(0)),
        }
        metadata = &body[..body.len() - input.rest().len()];
        number = input.byte("a payload of DUMP")?;
    }
    let at = input.at() - 1;
    let value_type = ValueType::find(version, number).map_err(|fault| fault.at(at))?;
    Ok(DumpPayload { version, value_type, metadata, value: input.rest() })
}
