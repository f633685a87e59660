//! Finds the later groups in which a script's arguments appear: the script caused one of those and not the present one.
//! Pure.
//!
//! ```text
//!      attributed │ start … indexed … upto │ not indexed yet
//! held: ──────────┴──────────────────────┴──────────────────► stream
//! ```
//!
//! A group is indexed on the first search that reaches it and removed when it leaves. A stream without scripts is never
//! indexed.

use std::collections::{HashMap, VecDeque};

use redtape_journal::ReplOffset;
use smallvec::SmallVec;

use super::{EFFECTS_MAX, Held};

/// Groups behind the present one that are searched.
const LOOKAHEAD_MAX: usize = 4096;
/// Groups returned for one argument.
const FOUND_MAX: usize = 16;
/// Distinct arguments in the index.
const NOTED_MAX: usize = 1 << 18;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    /// For the hash of an argument: ends of the groups that contain it, in stream order.
    groups: HashMap<u64, VecDeque<ReplOffset>, foldhash::fast::FixedState>,
    /// Groups that end behind the first offset and at or before the second are indexed.
    noted: (ReplOffset, ReplOffset),
}

impl Lookahead {
    /// Ends of the `held` groups that contain any of these arguments, up to the group that ends at `end`.
    pub(super) fn find(
        &mut self,
        args: &[u64],
        held: &VecDeque<Held>,
        end: Option<ReplOffset>,
    ) -> SmallVec<[ReplOffset; 8]> {
        let Some(last) = held.get(LOOKAHEAD_MAX - 1).or(held.back()) else { return SmallVec::new() };
        let (first, last) = (held[0].group.end_offset, last.group.end_offset);
        let end = end.map_or(last, |end| end.min(last));
        self.note(held, first, end);
        // The group being attributed may be among them.
        let within = |at: &&ReplOffset| **at >= first && **at <= end;
        let ends = args.iter().filter_map(|arg| self.groups.get(arg));
        let mut found: SmallVec<[ReplOffset; 8]> =
            ends.flat_map(|ends| ends.iter().filter(within).take(FOUND_MAX)).copied().collect();
        found.dedup();
        found
    }

    /// Number of `held` groups that contain this argument, counted up to `most`.
    pub(super) fn count(&mut self, arg: u64, held: &VecDeque<Held>, most: usize) -> usize {
        let Some(last) = held.get(LOOKAHEAD_MAX - 1).or(held.back()) else { return 0 };
        let (first, last) = (held[0].group.end_offset, last.group.end_offset);
        self.note(held, first, last);
        let Some(ends) = self.groups.get(&arg) else { return 0 };
        let from = ends.partition_point(|at| *at < first);
        // An argument may occur several times in a group.
        let mut groups: SmallVec<[ReplOffset; 8]> = ends.range(from..).take(most * EFFECTS_MAX).copied().collect();
        groups.dedup();
        groups.len().min(most)
    }

    fn note(&mut self, held: &VecDeque<Held>, first: ReplOffset, end: ReplOffset) {
        if self.noted.1 < first {
            self.clear();
            self.noted.0 = ReplOffset(first.0.saturating_sub(1));
            self.noted.1 = self.noted.0;
        }
        let from = held.partition_point(|h| h.group.end_offset <= self.noted.1);
        for group in held.range(from..).take_while(|h| h.group.end_offset <= end) {
            if self.groups.len() >= NOTED_MAX {
                break;
            }
            self.noted.1 = group.group.end_offset;
            for word in group.words() {
                self.groups.entry(*word).or_default().push_back(self.noted.1);
            }
        }
    }

    /// The first group leaves.
    pub(super) fn left(&mut self, held: &Held) {
        let end = held.group.end_offset;
        if end <= self.noted.0 || end > self.noted.1 {
            return;
        }
        self.noted.0 = end;
        for word in held.words() {
            if let Some(ends) = self.groups.get_mut(word) {
                ends.pop_front();
                if ends.is_empty() {
                    self.groups.remove(word);
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::OnceCell;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use redtape_journal::Micros;

    use super::*;
    use crate::group::EffectGroup;

    fn held(rng: &mut StdRng, end: u64) -> Held {
        let words: Box<[u64]> = (0..rng.random_range(0..4)).map(|_| rng.random_range(0..40)).collect();
        let end_offset = ReplOffset(end);
        let group = EffectGroup { effects: SmallVec::new(), atomic: false, end_offset, end_db: 0, arrived: Micros(0) };
        Held { group, parts: SmallVec::new(), words: OnceCell::from(words), quiet: Micros(0) }
    }

    #[test]
    fn what_stands_behind_is_found_as_by_looking_at_each_group() {
        let mut found = 0;
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut lookahead, mut waiting, mut end) = (Lookahead::default(), VecDeque::new(), 0);
            for _ in 0..400 {
                for _ in 0..rng.random_range(0..3) {
                    end += rng.random_range(1..20);
                    waiting.push_back(held(&mut rng, end));
                }
                // As in the join: the first group is attributed, and leaves or keeps waiting.
                let Some(first) = waiting.pop_front() else { continue };
                for _ in 0..rng.random_range(0..3) {
                    let args: Vec<u64> = (0..rng.random_range(0..3)).map(|_| rng.random_range(0..50)).collect();
                    let until = rng.random_bool(0.7).then(|| ReplOffset(end.saturating_sub(rng.random_range(0..100))));
                    let near = waiting.iter().take_while(|h| until.is_none_or(|until| h.group.end_offset <= until));
                    let expected = near.into_iter().any(|h| h.words().iter().any(|w| args.contains(w)));
                    assert_eq!(!lookahead.find(&args, &waiting, until).is_empty(), expected, "seed {seed}");
                    found += usize::from(expected);
                }
                if rng.random_bool(0.8) {
                    lookahead.left(&first);
                } else {
                    waiting.push_front(first);
                }
            }
            waiting.drain(..).for_each(|h| lookahead.left(&h));
            assert!(lookahead.groups.is_empty(), "what has left is remembered");
        }
        assert!(found > 1000, "{found}");
    }
}
