//! How many elements a value has, and how long the longest is, without keeping any of them.

use super::allocator::{allocated, string_allocated};
use super::fault::{Fault, ReadError};
use super::input::Input;
use super::pack::listpack::Listpack;
use super::pack::ziplist::Ziplist;
use super::pack::{Item, intset};
use super::skip::{GroupSize, Look, Pack, PackForm, pass_value};
use super::string::{pass_and_keep_short, pass_string};
use super::table::ValueType;

/// Longest packed string of which the elements are counted. Servers pack some kilobytes, unless they are told otherwise.
pub const PACK_MEASURED_MAX: u64 = 64 << 20;

/// Longest text of an integer that fits into 64 bits: `-9223372036854775808`.
const INTEGER_TEXT_MAX: u64 = 20;

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measure {
    /// What `STRLEN`, `LLEN`, `SCARD`, `ZCARD`, `HLEN` or `XLEN` says; `None` = it is a module's, or elements are packed into a
    /// string of more than [`PACK_MEASURED_MAX`].
    pub elements: Option<u64>,
    /// Bytes of the longest element, member, field or value of a field, and of a string its length; `None` as above, and of streams.
    pub largest: Option<u64>,
    /// The id of a module's type, see [`module_type`](super::module_type).
    pub module: Option<u64>,
    /// In what a server holds it.
    pub parts: Parts,
}

/// The pieces of memory in which a server holds a value: what an estimate of its memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// Strings: elements, fields, values of fields, one by one.
    pub strings: u64,
    /// Their bytes.
    pub string_bytes: u64,
    /// What the allocator gives out for them, each with its header.
    pub strings_allocated: u64,
    /// Packed strings, as they are in memory: not compressed.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
    /// What the allocator gives out for them.
    pub packs_allocated: u64,
    /// Consumer groups of a stream.
    pub groups: u64,
    /// Their consumers.
    pub consumers: u64,
    /// Their pending entries.
    pub pending: u64,
    /// A string that is an integer of 64 bits.
    pub is_integer: bool,
}

impl Parts {
    fn add_string(&mut self, len: u64) {
        self.strings += 1;
        self.string_bytes = self.string_bytes.saturating_add(len);
        self.strings_allocated = self.strings_allocated.saturating_add(string_allocated(len));
    }

    fn add_pack(&mut self, len: u64) {
        self.packs += 1;
        self.pack_bytes = self.pack_bytes.saturating_add(len);
        self.packs_allocated = self.packs_allocated.saturating_add(allocated(len));
    }
}

/// Measures one value after the other.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    elements: u64,
    largest: u64,
    /// Something could not be counted.
    unknown: bool,
    module: Option<u64>,
    parts: Parts,
    /// The packed string in hand.
    packed: Vec<u8>,
}

impl Measuring {
    /// Passes over a value.
    pub(super) fn value(&mut self, input: &mut impl Input, of: ValueType) -> Result<Measure, ReadError> {
        (self.elements, self.largest, self.unknown, self.module) = (0, 0, false, None);
        self.parts = Parts::default();
        pass_value(input, of, self)?;
        let (elements, largest) = match of.type_name() {
            Some("string") => (Some(self.largest), Some(self.largest)),
            Some("stream") => (Some(self.elements), None),
            Some(_) => (Some(self.elements), Some(self.largest)),
            None => (None, None),
        };
        let known = !self.unknown;
        Ok(Measure {
            elements: elements.filter(|_| known),
            largest: largest.filter(|_| known),
            module: self.module,
            parts: self.parts,
        })
    }

    fn items<'a>(
        &mut self,
        pack: Pack,
        mut next: impl FnMut() -> Result<Option<Item<'a>>, Fault>,
    ) -> Result<(), Fault> {
        let mut seen = 0;
        while let Some(item) = next()? {
            if seen % pack.items < pack.own {
                self.largest = self.largest.max(item.len());
            }
            seen += 1;
        }
        self.elements += (seen / pack.items) as u64;
        Ok(())
    }

    fn packed(&mut self, pack: Pack, bytes: &[u8]) -> Result<(), Fault> {
        match pack.form {
            PackForm::Ziplist => {
                let mut list = Ziplist::new(bytes)?;
                self.items(pack, || list.next())
            }
            PackForm::Listpack => {
                let mut list = Listpack::new(bytes)?;
                self.items(pack, || list.next())
            }
            PackForm::Intset => {
                let mut numbers = intset::numbers(bytes)?;
                self.items(pack, || Ok(numbers.next().map(Item::Int)))
            }
        }
    }
}

impl Look for Measuring {
    fn string(&mut self, input: &mut impl Input, what: &'static str) -> Result<(), ReadError> {
        let len = pass_string(input, what)?;
        self.largest = self.largest.max(len);
        self.parts.add_string(len);
        Ok(())
    }

    fn whole(&mut self, input: &mut impl Input, what: &'static str) -> Result<(), ReadError> {
        self.largest = pass_and_keep_short(input, INTEGER_TEXT_MAX, what, &mut self.packed)?;
        self.parts.is_integer = is_integer(&self.packed);
        self.parts.add_string(self.largest);
        Ok(())
    }

    fn stream_node(&mut self, input: &mut impl Input, what: &'static str) -> Result<(), ReadError> {
        self.parts.add_pack(pass_string(input, what)?);
        Ok(())
    }

    fn group(&mut self, size: GroupSize) {
        self.parts.groups += 1;
        self.parts.consumers += size.consumers;
        self.parts.pending += size.pending;
    }

    fn pack(&mut self, input: &mut impl Input, pack: Pack, what: &'static str) -> Result<(), ReadError> {
        let (at, mut bytes) = (input.at(), std::mem::take(&mut self.packed));
        let len = pass_and_keep_short(input, PACK_MEASURED_MAX, what, &mut bytes)?;
        self.parts.add_pack(len);
        if len <= PACK_MEASURED_MAX {
            self.packed(pack, &bytes).map_err(|fault| fault.at(at))?;
        } else {
            self.unknown = true;
        }
        self.packed = bytes;
        Ok(())
    }

    fn elements(&mut self, count: u64) {
        self.elements = self.elements.saturating_add(count);
    }

    fn module(&mut self, id: u64) {
        self.module = Some(id);
    }
}

/// As the server sees it (`string2l`): no sign or zero in front that need not be there.
fn is_integer(text: &[u8]) -> bool {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::super::input::SliceInput;
    use super::*;

    fn measured(of: ValueType, bytes: &[u8]) -> Option<Measure> {
        let mut input = SliceInput::new(bytes, 0);
        let measure = Measuring::default().value(&mut input, of).ok()?;
        let measure = Measure { parts: Parts::default(), ..measure };
        assert!(input.rest().is_empty(), "all of it was passed over");
        Some(measure)
    }

    fn known(elements: u64, largest: u64) -> Measure {
        Measure { elements: Some(elements), largest: Some(largest), ..Measure::default() }
    }

    #[test]
    fn strings_are_as_long_as_clients_see_them() {
        assert_eq!(measured(ValueType::String, b"\x05hello"), Some(known(5, 5)));
        assert_eq!(measured(ValueType::String, b"\xc0\xff"), Some(known(2, 2)), "-1");
        assert_eq!(measured(ValueType::String, b"\xc2\0\0\0\x80"), Some(known(11, 11)), "-2147483648");
        // Ten bytes, compressed: one as it is, and the nine behind are that one again.
        assert_eq!(measured(ValueType::String, b"\xc3\x05\x0a\x00a\xe0\x00\x00"), Some(known(10, 10)));
        assert_eq!(measured(ValueType::String, b"\x05hell"), None);
    }

    #[test]
    fn elements_one_by_one() {
        assert_eq!(measured(ValueType::Set, b"\x03\x01a\x03abc\xc0\x07"), Some(known(3, 3)));
        assert_eq!(measured(ValueType::Hash, b"\x01\x01f\x04long"), Some(known(1, 4)));
        assert_eq!(measured(ValueType::Zset2, b"\x01\x02ab\0\0\0\0\0\0\0\0"), Some(known(1, 2)));
        assert_eq!(measured(ValueType::Set, b"\x03\x01a"), None);
    }

    #[test]
    fn packed_elements_without_scores() {
        let set = b"\x0c\x02\0\0\0\x02\0\0\0\x9c\xff\x01\0";
        assert_eq!(measured(ValueType::SetIntset, set), Some(known(2, 4)), "-100 and 1");
        // "ab" with the score 5, and its end mark.
        let zset = b"\x0d\x0d\0\0\0\x02\0\x82ab\x03\x05\x01\xff";
        assert_eq!(measured(ValueType::ZsetListpack, zset), Some(known(1, 2)));
        assert_eq!(measured(ValueType::HashListpack, zset), Some(known(1, 2)));
        let mut damaged = *zset;
        damaged[5] = 3;
        assert_eq!(measured(ValueType::ZsetListpack, &damaged), None);
    }
}
