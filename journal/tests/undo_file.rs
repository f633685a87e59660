//! Undo files as they are in use: values of many parts, and progress over millions of keys in bounded memory.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::borrow::Cow;
use std::time::Instant;

use redtape_journal::undo_file::{EntryNumber, Operation, OperationId, StateDir, UndoEntry, UndoReader, UndoTarget};
use redtape_journal::{Keyring, Micros};

fn operation() -> Operation {
    Operation {
        journal_id: "6a6f75726e616c20696e207465737473".to_owned(),
        id: OperationId::derive(&[("test", b"")]),
        target: UndoTarget { address: "redis://127.0.0.1:6379".to_owned(), replication_id: String::new() },
        created: Micros::now(),
        what: "a test".to_owned(),
    }
}

fn keyrings() -> [Keyring; 2] {
    [Keyring::default(), Keyring::parse(&format!("key-1:{}", "5".repeat(64))).unwrap()]
}

/// A number of `/proc/self/status`, in MiB.
fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn a_value_of_many_parts_comes_back_and_is_torn_as_a_whole() {
    for keyring in keyrings() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::new(root.path());
        let dump: Vec<u8> = (0..5_000_003u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let value = UndoEntry::Value {
            db: 0,
            key: Cow::from(&b"large"[..]),
            expires_ms: 0,
            dump: dump.into(),
            written: [1; 16],
        };
        let small = UndoEntry::Absent { db: 0, key: Cow::from(&b"small"[..]), written: [2; 16] };
        let mut writer = dir.begin(&operation(), &keyring).unwrap().writer;
        assert_eq!(writer.append(&small).unwrap(), EntryNumber(0));
        assert_eq!(writer.append(&value).unwrap(), EntryNumber(1));
        assert_eq!(writer.append(&small).unwrap(), EntryNumber(6));
        writer.sync().unwrap();
        let path = writer.path().to_owned();
        drop(writer);
        let mut reader = UndoReader::open(&path, &keyring).unwrap();
        let mut ends = Vec::new();
        for expected in [&small, &value, &small] {
            let stored = reader.next_entry().unwrap().unwrap();
            assert!(stored.entry == *expected);
            ends.push(stored.position);
        }
        assert!(reader.next_entry().unwrap().is_none() && reader.torn().is_none());
        drop(reader);

        // Some of its parts are whole: they go with the rest of it.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(ends[1] + 3_500_000).unwrap();
        let begun = dir.begin(&operation(), &keyring).unwrap();
        let torn = begun.progress.unwrap().torn().cloned().unwrap();
        assert_eq!((torn.at, torn.bytes), (ends[1], 3_500_000));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), ends[1]);
    }
}

/// A value of 600 MiB, then 10 million keys.
#[test]
#[ignore = "make measure: a minute, and gigabytes on the disk"]
fn the_largest_value_and_ten_million_keys_take_the_memory_that_is_stated() {
    const KEYS: u32 = 10_000_000;
    let before = memory("VmRSS");
    for keyring in keyrings() {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = StateDir::new(root.path());
        let mut writer = dir.begin(&operation(), &keyring).unwrap().writer;
        let begun = Instant::now();
        for n in 0..KEYS {
            let key = Cow::from(format!("user:{n}:profile").into_bytes());
            let last = writer.append(&UndoEntry::Absent { db: 0, key, written: [1; 16] }).unwrap();
            if n % 1000 == 999 {
                writer.sync().unwrap();
                writer.append(&UndoEntry::Done { first: EntryNumber(0), last }).unwrap();
            }
        }
        writer.sync().unwrap();
        let written = begun.elapsed();
        let bytes = std::fs::metadata(writer.path()).unwrap().len();
        drop(writer);
        let begun = Instant::now();
        let resumed = dir.begin(&operation(), &keyring).unwrap();
        let read = begun.elapsed();
        let progress = resumed.progress.unwrap();
        assert_eq!((progress.done(), progress.in_doubt()), (u64::from(KEYS), 0));
        let begun = Instant::now();
        assert!((0..KEYS).all(|n| progress.is_key_done(0, format!("user:{n}:profile").as_bytes())));
        assert!(!(0..1000).any(|n| progress.is_key_done(1, format!("user:{n}:profile").as_bytes())));
        let kept = memory("VmRSS") - before;
        println!(
            "encrypted {}: {KEYS} keys written in {written:.1?} with {} syncs, {} MiB; read in {read:.1?}; looked up in {:.1?}; {kept} MiB kept, {} MiB at most",
            keyring.current().is_some(),
            KEYS / 1000,
            bytes >> 20,
            begun.elapsed(),
            memory("VmHWM") - before,
        );
        assert!(kept < 200, "{kept} MiB");
        assert!(memory("VmHWM") - before < 400, "{} MiB", memory("VmHWM"));
        drop((progress, resumed.writer));
    }
    let dump = vec![b'x'; 600 << 20];
    for keyring in keyrings() {
        let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let dir = StateDir::new(root.path());
        let mut writer = dir.begin(&operation(), &keyring).unwrap().writer;
        let key = Cow::from(&b"largest"[..]);
        let value = UndoEntry::Value { db: 0, key, expires_ms: 0, dump: Cow::from(&dump), written: [1; 16] };
        let before = memory("VmRSS");
        writer.append(&value).unwrap();
        writer.sync().unwrap();
        let more = memory("VmRSS").saturating_sub(before);
        assert!(more < 16, "{more} MiB to write it");
        let path = writer.path().to_owned();
        drop(writer);
        let mut reader = UndoReader::open(&path, &keyring).unwrap();
        assert!(reader.next_entry().unwrap().unwrap().entry == value);
    }
}
