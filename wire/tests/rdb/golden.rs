//! Small files that real servers wrote, one of each version, and what they hold as text: they are read the same on every
//! machine, also where these servers cannot be had. `REDTAPE_BLESS=1` writes the file of the server that is tested, and
//! the texts.

use redtape_wire::rdb::{DECODED_MAX, Entry, Walker, decode_value};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub(crate) fn write(server_version: &str, file: &[u8]) {
    let magic = String::from_utf8_lossy(&file[..9]).into_owned();
    std::fs::create_dir_all(folder()).expect("the folder");
    std::fs::write(folder().join(format!("{magic}-{server_version}.rdb")), file).expect("the file");
}

/// Everything in the file, one thing a line.
fn text(file: &[u8]) -> String {
    let mut out = String::new();
    let mut walker = Walker::new(file).expect("a header");
    while let Some(entry) = walker.next_entry().expect("sound") {
        match entry {
            Entry::Aux { name, value } => {
                let value = value.expect("a short value").escape_ascii();
                writeln!(out, "aux {} = {value}", name.escape_ascii()).expect("text");
            }
            Entry::Key(key) => {
                let bytes = &file[key.value.offset as usize..key.value.end() as usize];
                let value = decode_value(key.value_type, bytes, DECODED_MAX).expect("a value");
                let (db, name, expiry) = (key.db, key.key.escape_ascii(), key.expires_at_ms);
                writeln!(out, "db {db} {name} {} expires {expiry:?}: {value:?}", key.value_type.name()).expect("text");
            }
            other => writeln!(out, "{other:?}").expect("text"),
        }
    }
    out
}

#[test]
fn files_of_every_version_are_read_as_ever() {
    let bless = std::env::var_os("REDTAPE_BLESS").is_some();
    let mut versions = std::collections::BTreeSet::new();
    for path in std::fs::read_dir(folder()).expect("the folder").map(|entry| entry.expect("an entry").path()) {
        if path.extension().is_none_or(|e| e != "rdb") {
            continue;
        }
        let got = text(&std::fs::read(&path).expect("the file"));
        let beside = path.with_extension("txt");
        if bless {
            std::fs::write(&beside, &got).expect("the text");
        }
        assert_eq!(got, std::fs::read_to_string(&beside).expect("the text"), "{}", path.display());
        versions.insert(path.file_name().expect("a name").to_string_lossy()[..9].to_owned());
    }
    let want = ["REDIS0009", "REDIS0010", "REDIS0011", "REDIS0012", "REDIS0013", "VALKEY080"];
    assert!(versions.iter().map(String::as_str).eq(want), "{versions:?}");
}
