//! Values of modules: opcodes by which anybody can pass over them, also without the module (`rdbLoadCheckModuleValue`).

use super::fault::{Fault, ReadError};
use super::input::{Input, SliceInput};
use super::length::read_count;
use super::string::skip_string;

const WHAT: &str = "a module's value";
const NAME_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The opcode of an unsigned number.
const UNSIGNED: u64 = 2;

/// Passes over everything up to and with the opcode that ends a module's data.
pub(super) fn skip_items(input: &mut impl Input) -> Result<(), ReadError> {
    loop {
        let at = input.at();
        match read_count(input, WHAT)? {
            0 => return Ok(()),
            1 | UNSIGNED => drop(read_count(input, WHAT)?),
            3 => input.skip(4, WHAT)?,
            4 => input.skip(8, WHAT)?,
            5 => skip_string(input, WHAT)?,
            _ => return Err(Fault::Invalid("a module's value has an opcode that does not exist").at(at)),
        }
    }
}

/// What a module saved beside its keys: its id; the rest is passed over.
pub(super) fn skip_aux(input: &mut impl Input) -> Result<u64, ReadError> {
    let id = read_count(input, WHAT)?;
    let at = input.at();
    if read_count(input, WHAT)? != UNSIGNED {
        return Err(Fault::Invalid("a module's auxiliary data does not begin with its `when` field").at(at));
    }
    read_count(input, WHAT)?;
    skip_items(input)?;
    Ok(id)
}

/// Metadata that modules have put on the key that follows (`rdbLoadKeyMetadata` of Redis 8.6).
pub(super) fn skip_key_metadata(input: &mut impl Input) -> Result<(), ReadError> {
    /// `KEY_META_MAX_NUM_MODULES`.
    const CLASSES_MAX: u64 = 7;
    let at = input.at();
    let classes = read_count(input, "a key's metadata")?;
    if classes > CLASSES_MAX {
        return Err(Fault::Invalid("a key has metadata of more modules than there can be").at(at));
    }
    for _ in 0..classes {
        input.skip(4, "a key's metadata")?;
        skip_items(input)?;
    }
    Ok(())
}

/// Name and encoding version of a module's type: nine characters of six bits, then ten bits.
pub fn module_type(id: u64) -> (String, u16) {
    let name = (1..=9).rev().map(|place| {
        let index = (id >> (4 + 6 * place)) & 0x3f;
        char::from(NAME_CHARS[index as usize])
    });
    (name.collect(), (id & 0x3ff) as u16)
}

/// The name of the type of a module's value, of which this is the front (9 bytes are enough).
pub fn module_type_of(value: &[u8]) -> Result<String, ReadError> {
    read_count(&mut SliceInput::new(value, 0), WHAT).map(|id| module_type(id).0)
}

#[cfg(test)]
mod tests {
    use super::super::length::write_length;
    use super::*;

    #[test]
    fn a_name_comes_out_of_its_id() {
        // "bf--" with padding as RedisBloom writes it: each character six bits, the encoding version below.
        let id = b"MBbloom--".iter().fold(0u64, |id, byte| {
            let index = NAME_CHARS.iter().position(|c| c == byte).expect("a character of names") as u64;
            id << 6 | index
        });
        assert_eq!(module_type(id << 10 | 4), ("MBbloom--".to_owned(), 4));
        let mut value = Vec::new();
        write_length(id << 10 | 4, &mut value);
        assert!(value.len() <= 9, "{value:?}");
        value.extend([2, 1, 0]);
        assert_eq!(module_type_of(&value).ok().as_deref(), Some("MBbloom--"));
        assert!(module_type_of(&value[..4]).is_err());
    }

    #[test]
    fn each_opcode_is_passed_over() {
        let bytes = b"\x01\x05\x02\x40\xff\x03abcd\x04abcdefgh\x05\x03xyz\x00rest";
        let mut input = SliceInput::new(bytes, 0);
        skip_items(&mut input).expect("sound");
        assert_eq!(input.rest(), b"rest");
        assert!(skip_items(&mut SliceInput::new(b"\x06", 0)).is_err());
        for len in 0..bytes.len() - 4 {
            assert!(skip_items(&mut SliceInput::new(&bytes[..len], 0)).is_err(), "cut at {len}");
        }
    }
}
