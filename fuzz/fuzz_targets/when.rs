//! Any text is a moment or an error, and its moment can be told.
#![no_main]

use redtape_journal::Micros;
use redtape_journal::query::{When, Zone};

libfuzzer_sys::fuzz_target!(|text: &str| {
    match text.parse::<When>() {
        Ok(when) => {
            for zone in ["UTC", "CET-1CEST,M3.5.0,M10.5.0/3"] {
                let zone: Zone = zone.parse().expect("a zone");
                match when.resolve(Micros(1_795_000_000_000_000), &zone) {
                    Ok(point) => drop(format!("{point:?}")),
                    Err(error) => assert!(!error.to_string().is_empty()),
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
