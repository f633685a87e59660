//! Random lives of a journal, compared with a model.

use proptest::prelude::*;

use crate::model::{Fixture, OwnedGroup, any_groups, options};
use crate::open::OpenOptions;
use crate::verify::verify;

#[derive(Debug, Clone)]
enum Step {
    Block(Vec<OwnedGroup>),
    Timeline,
    Reopen,
    Kill,
    /// Kill, then lose this many bytes of the last segment. A packed one was synced as a whole before it got
    /// its name: no crash takes anything from it, or adds to it.
    Tear(u64),
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
        1 => (1usize..5000).prop_map(Step::Zeros),
    ]
}

/// By its header's form.
fn is_packed(path: &std::path::Path) -> bool {
    std::fs::read(path).unwrap()[128] == 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]
    #[test]
    fn a_journal_keeps_what_it_was_given(
        steps in prop::collection::vec(any_step(), 1..40), segment_bytes in 300u64..3000, pack: bool,
    ) {
        let mut journal = Fixture::with(OpenOptions { pack, ..options(segment_bytes) });
        journal.timeline();
        for step in steps {
            match step {
                Step::Block(groups) => journal.block(&groups),
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
                    file.set_len(len.saturating_sub(bytes).max(170).min(len)).unwrap();
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
        let report = verify(journal.dir(), true, |_| ()).unwrap();
        prop_assert_eq!(&report.problems, &[]);
        let groups: usize = journal.expected.iter().map(|(_, groups)| groups.len()).sum();
        prop_assert_eq!(report.groups, groups as u64);
    }
}
