//! Random lives of a journal, compared with a model.

use proptest::prelude::*;

use crate::crypto::Keyring;
use crate::model::{Fixture, OwnedGroup, any_groups, keyring, options};
use crate::open::OpenOptions;
use crate::verify::verify_with;

#[derive(Debug, Clone)]
enum Step {
    Block(Vec<OwnedGroup>),
    Timeline,
    Reopen,
    Kill,
    /// Kill, then lose this many bytes of the last segment. A packed one was synced as a whole before it got
    /// its name: no crash takes anything from it, or adds to it.
    Tear(u64),
    /// Other keys, from the next file on: so many of `KEYS`, the last one current.
    Keys(usize),
    /// Kill, then find this many zeros behind the last segment.
    Zeros(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_groups(0..4).prop_map(Step::Block),
        1 => Just(Step::Timeline),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => (0u64..600).prop_map(Step::Tear),
        1 => (0usize..=KEYS.len()).prop_map(Step::Keys),
        1 => (1usize..5000).prop_map(Step::Zeros),
    ]
}

const KEYS: [&str; 3] = ["a", "b", "c"];

/// All keys, of which the `count`th is the current one.
fn current_of(count: usize) -> Keyring {
    let line = |(n, id): (usize, &&str)| {
        format!("{}{id}:{}", if n + 1 == count { "*" } else { "" }, blake3::hash(id.as_bytes()))
    };
    Keyring::parse(&KEYS.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")).unwrap()
}

/// By its header's form.
fn is_packed(path: &std::path::Path) -> bool {
    std::fs::read(path).unwrap()[128] == 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]
    #[test]
    fn a_journal_keeps_what_it_was_given(
        steps in prop::collection::vec(any_step(), 1..40), segment_bytes in 300u64..3000, compact: bool, encrypted: bool,
    ) {
        let mut journal = Fixture::with(OpenOptions { compact, ..options(segment_bytes) });
        let everything = keyring(&KEYS);
        journal.timeline();
        for step in steps {
            match step {
                Step::Block(groups) => journal.block(&groups),
                Step::Keys(count) if encrypted && count > 0 => {
                    // Older keys stay; the current one is the last of the first `count`.
                    journal.options.keyring = current_of(count);
                    journal.writer().set_keyring(current_of(count));
                }
                Step::Keys(_) => {}
                Step::Timeline => journal.timeline(),
                Step::Reopen => {
                    journal.close();
                    journal.check();
                    journal.reopen();
                    prop_assert!(journal.recovered.notes.is_empty());
                    journal.check();
                }
                Step::Kill => {
                    journal.kill();
                    journal.check();
                    journal.reopen();
                    prop_assert!(journal.recovered.notes.is_empty());
                    journal.check();
                }
                Step::Tear(bytes) => {
                    journal.kill();
                    let path = journal.last_segment();
                    let len = std::fs::metadata(&path).unwrap().len();
                    let bytes = if is_packed(&path) { 0 } else { bytes };
                    let file = std::fs::File::options().write(true).open(&path).unwrap();
                    // Headers are synced before anything is reported; see `crash` for them.
                    let header = std::fs::read(&path).unwrap();
                    let header = u64::from(u32::from_le_bytes(header[12..16].try_into().unwrap()));
                    file.set_len(len.saturating_sub(bytes).max(header)).unwrap();
                    journal.reopen();
                    journal.forget_lost();
                    journal.check();
                }
                Step::Zeros(bytes) => {
                    journal.kill();
                    let path = journal.last_segment();
                    let mut content = std::fs::read(&path).unwrap();
                    if is_packed(&path) {
                        journal.reopen();
                        continue;
                    }
                    content.resize(content.len() + bytes, 0);
                    std::fs::write(&path, content).unwrap();
                    journal.check();
                    journal.reopen();
                    prop_assert_eq!(journal.recovered.notes.len(), 1);
                    journal.check();
                }
            }
        }
        journal.close();
        journal.check();
        let report = verify_with(journal.dir(), true, &everything, |_| ()).unwrap();
        prop_assert_eq!(&report.problems, &[]);
        prop_assert_eq!(&report.notes, &Vec::<String>::new());
        let groups: usize = journal.expected.iter().map(|(_, groups)| groups.len()).sum();
        prop_assert_eq!(report.groups, groups as u64);
    }
}
