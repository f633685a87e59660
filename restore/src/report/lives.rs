//! How long keys live from the moment on, in classes.

use super::tally::{KeyFacts, Tally};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A class: keys that expire within so many ms, and not in the class before; `None` = later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// In JSON.
    pub name: &'static str,
    /// For people.
    pub words: &'static str,
    /// Where it ends, in ms from the moment on.
    pub within_ms: Option<i64>,
}

const fn life(name: &'static str, words: &'static str, within_ms: Option<i64>) -> Life {
    Life { name, words, within_ms }
}

/// Number of classes.
const CLASSES: usize = 9;

/// The classes, in their order.
pub const LIVES: [Life; CLASSES] = [
    life("expired", "expired, not removed yet", Some(-1)),
    life("minute", "up to a minute", Some(MINUTE_MS)),
    life("ten_minutes", "up to 10 minutes", Some(10 * MINUTE_MS)),
    life("hour", "up to an hour", Some(HOUR_MS)),
    life("day", "up to a day", Some(DAY_MS)),
    life("week", "up to 7 days", Some(7 * DAY_MS)),
    life("month", "up to 30 days", Some(30 * DAY_MS)),
    life("year", "up to 365 days", Some(365 * DAY_MS)),
    life("longer", "longer", None),
];

/// Keys by how long they live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lives {
    /// As [`LIVES`].
    pub classes: [Tally; CLASSES],
    /// Keys without a TTL.
    pub forever: Tally,
}

impl Lives {
    /// Counts a key. `now_ms`: the moment.
    pub(super) fn add(&mut self, key: &KeyFacts<'_>, now_ms: i64) {
        let Some(at) = key.expires_at_ms else { return self.forever.add(key) };
        let left = at.saturating_sub(now_ms);
        let class = LIVES.iter().position(|life| life.within_ms.is_none_or(|within| left <= within));
        // The last one has no end.
        self.classes[class.unwrap_or(CLASSES - 1)].add(key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::string;
    use super::*;

    #[test]
    fn each_time_has_its_class() {
        const NOW: i64 = 1_790_000_000_000;
        let class = |expires_at_ms| {
            let mut lives = Lives::default();
            lives.add(&KeyFacts { expires_at_ms, ..string(b"k", 8) }, NOW);
            let found = lives.classes.iter().position(|tally| tally.keys == 1);
            assert_eq!(lives.forever.keys, u64::from(found.is_none()));
            found.map(|class| LIVES[class].name)
        };
        for (left, name) in [
            (i64::MIN, "expired"),
            (-1, "expired"),
            // A server keeps a key for the millisecond in which it expires.
            (0, "minute"),
            (60_000, "minute"),
            (60_001, "ten_minutes"),
            (3_600_000, "hour"),
            (86_400_000, "day"),
            (7 * 86_400_000, "week"),
            (8 * 86_400_000, "month"),
            (31 * 86_400_000, "year"),
            (366 * 86_400_000, "longer"),
            (i64::MAX, "longer"),
        ] {
            assert_eq!(class(Some(NOW.saturating_add(left))), Some(name), "{left}");
        }
        assert_eq!(class(None), None);
    }
}
