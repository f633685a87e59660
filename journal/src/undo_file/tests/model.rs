//! Random runs against a model: appends, syncs, crashes.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::{Place, UndoEntry, UndoFileError, bytes};
use crate::crypto::Keyring;
use crate::model::keyring;
use crate::undo_file::part::PART_BYTES;
use crate::undo_file::{EntryNumber, WrittenPlace, read_anything};

#[derive(Debug, Clone)]
enum Step {
    Append(UndoEntry<'static>),
    /// So many entries are done, all but so many of the last ones.
    Done(usize, usize),
    /// One of the last entries was not written.
    NotWritten(usize),
    Sync,
    /// The process ends; so much of what was not synced is in the file.
    Crash(u16),
}

fn any_entry() -> impl Strategy<Value = UndoEntry<'static>> {
    let key = prop::sample::select(vec!["", "a", "b", "c\0", "long key ".repeat(30).leak()]).prop_map(bytes);
    let element = prop::sample::select(vec!["", "a", "b"]).prop_map(bytes);
    let value = prop::collection::vec(any::<u8>(), 0..300);
    (0u8..6, 0u32..2, key, element, value, any::<i64>(), any::<[u8; 16]>()).prop_map(
        |(kind, db, key, element, value, expires_ms, written)| match kind {
            0 => UndoEntry::Absent { db, key, written },
            1 => UndoEntry::Value { db, key, expires_ms, dump: value.into(), written },
            2 => UndoEntry::ElementAbsent { db, key, element, written },
            3 => UndoEntry::Element { db, key, element, value: value.into(), expires_ms, written },
            4 => UndoEntry::Ttl { db, key, expires_ms, written_ms: !expires_ms },
            _ => UndoEntry::Moved { db, key, temporary: value.into(), written },
        },
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_entry().prop_map(Step::Append),
        2 => (1usize..9, 0usize..4).prop_map(|(entries, but)| Step::Done(entries, but)),
        1 => (0usize..4).prop_map(Step::NotWritten),
        2 => Just(Step::Sync),
        1 => any::<u16>().prop_map(Step::Crash),
    ]
}

/// What must be known of the entries that are there.
fn check_progress(place: &Place, model: &[(EntryNumber, UndoEntry<'static>)]) -> super::Begun {
    let mut begun = place.begin();
    let progress = begun.progress.take().unwrap();
    let said_done = |number: EntryNumber| {
        model.iter().position(
            |(_, entry)| matches!(entry, UndoEntry::Done { first, last } if (*first..=*last).contains(&number)),
        )
    };
    let taken_back =
        |number: EntryNumber| model.iter().position(|(_, entry)| *entry == UndoEntry::NotWritten { entry: number });
    // What is said first counts.
    let not_written = |number| match (taken_back(number), said_done(number)) {
        (Some(back), Some(done)) => back < done,
        (back, _) => back.is_some(),
    };
    let is_done = |number: EntryNumber| said_done(number).is_some();
    let writes = || model.iter().filter(|(number, entry)| entry.place().is_some() && !not_written(*number));
    let mut places: BTreeMap<_, bool> = BTreeMap::new();
    for (number, entry) in writes() {
        *places.entry(entry.place()).or_insert(true) &= is_done(*number);
    }
    for (place, is_done) in &places {
        let WrittenPlace { db, key, element, .. } = place.unwrap();
        let said = match element {
            None => progress.is_key_done(db, key),
            Some(element) => progress.is_element_done(db, key, element),
        };
        assert_eq!(said, *is_done, "{place:?}");
    }
    assert_eq!(progress.done(), places.values().filter(|is_done| **is_done).count() as u64);
    let mut doubtful = Vec::new();
    let mut reader = begun.writer.read_back().unwrap();
    let each = progress.each_in_doubt(&mut reader, |number, entry| {
        doubtful.push((number, entry.into_owned()));
        Ok::<_, UndoFileError>(())
    });
    each.unwrap();
    assert_eq!(doubtful, writes().filter(|(number, _)| !is_done(*number)).cloned().collect::<Vec<_>>());
    let mut moved = Vec::new();
    for (at, (number, entry)) in model.iter().enumerate() {
        let UndoEntry::Moved { db, key, .. } = entry else { continue };
        if taken_back(*number).is_some() {
            continue;
        }
        let holds = |(_, later): &&(EntryNumber, UndoEntry<'_>)| {
            let is_value = matches!(later, UndoEntry::Value { .. } | UndoEntry::Absent { .. });
            is_value && later.place() == Some(WrittenPlace { db: *db, key, element: None, is_library: false })
        };
        let stored = model[at..].iter().find(holds).map(|(number, _)| *number);
        // An entry that comes behind the last `Done` that covers it does not settle anything.
        if !stored.is_some_and(is_done) {
            moved.push((*number, stored, is_done(*number)));
        }
    }
    let said: Vec<_> = progress.moved().iter().map(|moved| (moved.number, moved.stored, moved.is_done)).collect();
    assert_eq!(said, moved);
    begun
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn random_runs_with_crashes_lose_nothing_that_was_synced(
        steps in prop::collection::vec(any_step(), 1..60),
        is_encrypted: bool,
    ) {
        let place = Place::new(if is_encrypted { keyring(&["key-1"]) } else { Keyring::default() });
        let mut begun = place.begin();
        let path = place.file();
        let mut model: Vec<(EntryNumber, UndoEntry<'static>)> = Vec::new();
        // Entries, and bytes, that were synced.
        let (mut synced, mut synced_bytes) = (0, fs::metadata(&path).unwrap().len());
        for step in steps {
            match step {
                Step::Append(entry) => model.push((begun.writer.append(&entry).unwrap(), entry)),
                Step::Done(entries, but) if but < model.len() => {
                    let last = model.len() - 1 - but;
                    let first = last.saturating_sub(entries - 1);
                    let entry = UndoEntry::Done { first: model[first].0, last: model[last].0 };
                    model.push((begun.writer.append(&entry).unwrap(), entry));
                }
                Step::NotWritten(but) if but < model.len() => {
                    let entry = UndoEntry::NotWritten { entry: model[model.len() - 1 - but].0 };
                    model.push((begun.writer.append(&entry).unwrap(), entry));
                }
                Step::Done(..) | Step::NotWritten(_) => {}
                Step::Sync => {
                    begun.writer.sync().unwrap();
                    (synced, synced_bytes) = (model.len(), fs::metadata(&path).unwrap().len());
                }
                Step::Crash(part) => {
                    drop(begun.writer.read_back().unwrap());
                    drop(begun);
                    let len = fs::metadata(&path).unwrap().len();
                    let kept = synced_bytes + (len - synced_bytes) * u64::from(part) / u64::from(u16::MAX);
                    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(kept).unwrap();
                    let left = place.read(&path).unwrap();
                    prop_assert!(left.entries.len() >= synced);
                    model.truncate(left.entries.len());
                    prop_assert_eq!(&left.entries, &model);
                    begun = check_progress(&place, &model);
                    (synced, synced_bytes) = (model.len(), fs::metadata(&path).unwrap().len());
                }
            }
        }
        begun.writer.sync().unwrap();
        drop(begun);
        prop_assert_eq!(place.read(&path).unwrap().entries, model);
    }
}

proptest! {
    #[test]
    fn any_changed_bytes_are_read_without_harm(
        entries in prop::collection::vec(any_entry(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        more in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut all = Vec::new();
        for entry in &entries {
            let (begin, rest) = entry.encode();
            let mut whole = [&begin[..], rest].concat();
            whole.truncate(PART_BYTES);
            all.extend_from_slice(&(whole.len() as u32).to_le_bytes());
            all.extend_from_slice(&[1, 0, 0, 0]);
            all.extend_from_slice(&[0; 24]);
            all.extend_from_slice(&whole);
        }
        all.extend_from_slice(&more);
        for (at, byte) in changes {
            let at = at.index(all.len());
            all[at] = byte;
        }
        prop_assert!(read_anything(&all) <= all.len() as u64 / 32);
    }
}
