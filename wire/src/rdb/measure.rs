//! How many elements a value has, and how long the longest is, without keeping any of them.

use super::fault::{Fault, ReadError};
use super::input::Input;
use super::pack::listpack::Listpack;
use super::pack::ziplist::Ziplist;
use super::pack::{Item, intset};
use super::skip::{Look, Pack, PackForm, pass_value};
use super::string::{pass_string, skip_or_keep};
use super::table::ValueType;

/// Longest packed string of which the elements are counted. Servers pack some kilobytes, unless they are told otherwise.
pub const PACK_MEASURED_MAX: u64 = 64 << 20;

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
}

/// Measures one value after the other.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    elements: u64,
    largest: u64,
    /// Something could not be counted.
    unknown: bool,
    module: Option<u64>,
    /// The packed string in hand.
    packed: Vec<u8>,
}

impl Measuring {
    /// Passes over a value.
    pub(super) fn value(&mut self, input: &mut impl Input, of: ValueType) -> Result<Measure, ReadError> {
        (self.elements, self.largest, self.unknown, self.module) = (0, 0, false, None);
        pass_value(input, of, self)?;
        let (elements, largest) = match of.type_name() {
            Some("string") => (Some(self.largest), Some(self.largest)),
            Some("stream") => (Some(self.elements), None),
            Some(_) => (Some(self.elements), Some(self.largest)),
            None => (None, None),
        };
        let known = !self.unknown;
        Ok(Measure { elements: elements.filter(|_| known), largest: largest.filter(|_| known), module: self.module })
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
        self.largest = self.largest.max(pass_string(input, what)?);
        Ok(())
    }

    fn pack(&mut self, input: &mut impl Input, pack: Pack, what: &'static str) -> Result<(), ReadError> {
        let (at, mut bytes) = (input.at(), std::mem::take(&mut self.packed));
        if skip_or_keep(input, PACK_MEASURED_MAX, what, &mut bytes)? {
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

#[cfg(test)]
mod tests {
    use super::super::input::SliceInput;
    use super::*;

    fn measured(of: ValueType, bytes: &[u8]) -> Option<Measure> {
        let mut input = SliceInput::new(bytes, 0);
        let measure = Measuring::default().value(&mut input, of).ok()?;
        assert!(input.rest().is_empty(), "all of it was passed over");
        Some(measure)
    }

    fn known(elements: u64, largest: u64) -> Measure {
        Measure { elements: Some(elements), largest: Some(largest), module: None }
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
