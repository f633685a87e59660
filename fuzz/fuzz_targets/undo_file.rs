#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| redtape_journal::fuzzing::undo_file(bytes));
