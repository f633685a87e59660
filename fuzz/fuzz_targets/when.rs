//! Any text is a moment or an error, and its moment can be told.
#![no_main]

use redtape_journal::Micros;
use redtape_journal::query::When;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match text.parse::<When>() {
        Ok(when) => drop(format!("{:?}", when.resolve(Micros(1_795_000_000_000_000)))),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
