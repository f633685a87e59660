//! A set of LSNs, for records that are met in their order, from the last one to the first or the other way.

use std::collections::BTreeMap;

use redtape_journal::Lsn;
use roaring::RoaringBitmap;

/// Compressed: about a bit for each LSN where many are in it, two bytes for each where few are.
#[derive(Debug, Clone, Default)]
pub struct Lsns {
    /// By the upper 32 bits.
    maps: BTreeMap<u32, RoaringBitmap>,
    /// Those added last, one after the other, first and last.
    run: Option<(u64, u64)>,
}

fn halves(lsn: u64) -> (u32, u32) {
    ((lsn >> 32) as u32, lsn as u32)
}

impl Lsns {
    /// Adds one; cheapest if it is the one before or behind that added last.
    pub(crate) fn add(&mut self, lsn: Lsn) {
        match &mut self.run {
            Some((first, _)) if lsn.0.checked_add(1) == Some(*first) => *first = lsn.0,
            Some((_, last)) if last.checked_add(1) == Some(lsn.0) => *last = lsn.0,
            _ => {
                self.end_run();
                self.run = Some((lsn.0, lsn.0));
            }
        }
    }

    /// Adds these, from the first to the last.
    pub(crate) fn add_range(&mut self, first: Lsn, last: Lsn) {
        self.end_run();
        self.run = (first <= last).then_some((first.0, last.0));
        self.end_run();
    }

    /// All of them, as the first and the last of each stretch without a gap.
    pub(crate) fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let all = self
            .maps
            .iter()
            .flat_map(|(number, map)| map.iter().map(move |low| u64::from(*number) << 32 | u64::from(low)));
        for lsn in all {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(lsn) => *last = lsn,
                _ => ranges.push((lsn, lsn)),
            }
        }
        ranges
    }

    /// Nothing is added any more.
    pub(crate) fn finish(mut self) -> Self {
        self.end_run();
        self
    }

    fn end_run(&mut self) {
        let Some((first, last)) = self.run.take() else { return };
        let ((from, low), (to, high)) = (halves(first), halves(last));
        for map in from..=to {
            let begin = if map == from { low } else { 0 };
            let end = if map == to { high } else { u32::MAX };
            self.maps.entry(map).or_default().insert_range(begin..=end);
        }
    }

    /// These and the others.
    pub(crate) fn and(mut self, others: &Self) -> Self {
        for (number, map) in &others.maps {
            *self.maps.entry(*number).or_default() |= map;
        }
        self
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.maps.values().map(RoaringBitmap::len).sum()
    }

    /// The greatest.
    pub fn last(&self) -> Option<Lsn> {
        let (number, map) = self.maps.last_key_value()?;
        Some(Lsn(u64::from(*number) << 32 | u64::from(map.max()?)))
    }

    /// Whether it holds this one.
    pub fn contains(&self, lsn: Lsn) -> bool {
        let (map, low) = halves(lsn.0);
        self.maps.get(&map).is_some_and(|map| map.contains(low))
    }

    /// How many of them are less than this one.
    pub(crate) fn count_below(&self, end: Lsn) -> u64 {
        let (number, low) = halves(end.0);
        let below: u64 = self.maps.range(..number).map(|(_, map)| map.len()).sum();
        let in_its_map = |map: &RoaringBitmap| if low == 0 { 0 } else { map.range_cardinality(..low) };
        below + self.maps.get(&number).map_or(0, in_its_map)
    }

    /// Whether it holds one of these, from the first to the last.
    pub fn any(&self, first: Lsn, last: Lsn) -> bool {
        if first > last {
            return false;
        }
        let ((from, low), (to, high)) = (halves(first.0), halves(last.0));
        self.maps.range(from..=to).any(|(number, map)| {
            let begin = if *number == from { low } else { 0 };
            let end = if *number == to { high } else { u32::MAX };
            map.range_cardinality(begin..=end) > 0
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_was_added(
            offset in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 50), Just(u64::MAX - 300)],
            lsns in prop::collection::btree_set(0u64..300, 0..200),
            forward: bool,
            asked in prop::collection::vec((0u64..300, 0u64..300), 20),
        ) {
            let mut set = Lsns::default();
            if forward {
                for lsn in &lsns {
                    set.add(Lsn(lsn + offset));
                }
            } else {
                lsns.iter().rev().for_each(|lsn| set.add(Lsn(lsn + offset)));
            }
            let set = set.finish();
            prop_assert_eq!(set.count(), lsns.len() as u64);
            let mut again = Lsns::default();
            for (first, last) in set.ranges() {
                again.add_range(Lsn(first), Lsn(last));
            }
            prop_assert_eq!(again.finish().ranges(), set.ranges());
            let model: BTreeSet<u64> = lsns.iter().map(|lsn| lsn + offset).collect();
            for lsn in offset..offset + 300 {
                prop_assert_eq!(set.contains(Lsn(lsn)), model.contains(&lsn));
                prop_assert_eq!(set.count_below(Lsn(lsn)), model.range(..lsn).count() as u64);
            }
            prop_assert_eq!(set.last().map(|lsn| lsn.0), model.last().copied());
            for (first, last) in asked.iter().copied() {
                let (first, last) = (first + offset, last + offset);
                let any = first <= last && model.range(first..=last).next().is_some();
                prop_assert_eq!(set.any(Lsn(first), Lsn(last)), any);
            }
            let mut others = Lsns::default();
            asked.iter().map(|(lsn, _)| *lsn).collect::<BTreeSet<_>>().into_iter().rev().for_each(|lsn| others.add(Lsn(lsn + offset)));
            let both = set.and(&others.finish());
            for lsn in 0..300 {
                let known = lsns.contains(&lsn) || asked.iter().any(|(asked, _)| *asked == lsn);
                prop_assert_eq!(both.contains(Lsn(lsn + offset)), known);
            }
        }
    }
}
