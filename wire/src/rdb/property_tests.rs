//! Properties over any bytes, and over any change of files that real servers wrote.

use proptest::prelude::*;

use super::input::{Input, SliceInput};
use super::length::{Length, read_length, write_length};
use super::*;

/// A decoded value may take so much here.
const LIMIT: u64 = 1 << 20;

const FILES: [&[u8]; 4] = [
    include_bytes!("../../tests/golden/REDIS0009-6.0.16.rdb"),
    include_bytes!("../../tests/golden/REDIS0012-8.0.6.rdb"),
    include_bytes!("../../tests/golden/REDIS0013-8.6.3.rdb"),
    include_bytes!("../../tests/golden/VALKEY080-9.1.2.rdb"),
];

/// Walks and decodes as far as it goes; whether it came to a sound end.
fn read_all(file: &[u8]) -> bool {
    let Ok(mut walker) = Walker::new(file) else { return false };
    loop {
        match walker.next_entry() {
            Ok(Some(Entry::Key(key))) => {
                let value = &file[key.value.offset as usize..key.value.end() as usize];
                let _ = decode_value(key.value_type, value, LIMIT);
            }
            Ok(Some(Entry::End(_))) => return true,
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return false,
        }
    }
}

proptest! {
    #[test]
    fn a_length_comes_back(len: u64, shift in 0u32..64) {
        let len = len >> shift;
        let mut bytes = Vec::new();
        write_length(len, &mut bytes);
        let mut input = SliceInput::new(&bytes, 0);
        prop_assert_eq!(read_length(&mut input, "a length").ok(), Some(Length::Plain(len)));
        prop_assert_eq!(input.at(), bytes.len() as u64);
    }

    #[test]
    fn any_bytes_are_a_value_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), number in 0u8..27) {
        for magic in ["REDIS0009", "REDIS0013", "VALKEY080"] {
            let version = parse_header(magic.as_bytes()).expect("a header");
            let Ok(value_type) = ValueType::find(version, number) else { continue };
            if decode_value(value_type, &bytes, LIMIT).is_ok() {
                // What can be decoded can be passed over, to the very end.
                let entry = [&[number, 1, b'k'][..], &bytes].concat();
                let mut key = Vec::new();
                let found = read_key_entry(version, 0, &entry, &mut key).expect("a value that was decoded");
                prop_assert_eq!(found.value.len, bytes.len() as u64);
            }
        }
    }

    /// Bursts of damage, also where the file says that it has no checksum.
    #[test]
    fn damage_never_panics(
        which in 0..FILES.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        unchecked: bool,
    ) {
        let mut file = FILES[which].to_vec();
        let end = file.len() - 8;
        for (at, byte) in changes {
            file[at.index(end)] = byte;
        }
        if unchecked {
            file[end..].fill(0);
            read_all(&file);
        } else {
            prop_assert_eq!(read_all(&file), file == FILES[which], "a change that no check finds");
        }
    }
}
