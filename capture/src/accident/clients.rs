//! The windows of the clients that have taken something away lately.
//!
//! Two generations: when the younger is full, it becomes the older one, whose windows are dropped if they were not used since. So the ones
//! that were used last stay, and no search is needed to find which go.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use super::window::Window;

/// Windows of a generation. At most twice as many are kept: half a MiB.
const GENERATION_MAX: usize = 512;

/// See the module. Clients are known by a hash of 64 bits, so that none costs an allocation.
#[derive(Debug, Default)]
pub(super) struct Clients {
    younger: HashMap<u64, Window>,
    older: HashMap<u64, Window>,
    hasher: foldhash::fast::FixedState,
}

impl Clients {
    /// The window of this client, a new one if it is not known.
    pub(super) fn window(&mut self, client: &impl Hash) -> &mut Window {
        let key = self.hasher.hash_one(client);
        if !self.younger.contains_key(&key) {
            let window = self.older.remove(&key).unwrap_or_default();
            if self.younger.len() >= GENERATION_MAX {
                // The map's memory is kept.
                std::mem::swap(&mut self.younger, &mut self.older);
                self.younger.clear();
            }
            self.younger.insert(key, window);
        }
        self.younger.entry(key).or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use redtape_journal::{Lsn, Micros};

    use super::*;
    use crate::accident::Loss;
    use crate::accident::window::First;
    use crate::options::Thresholds;

    #[test]
    fn those_used_last_stay_and_their_number_is_limited() {
        let thresholds = Thresholds { enabled: true, mass_keys: 2, mass_time: Duration::from_secs(10) };
        let mut clients = Clients::default();
        let mut add = |client: usize| {
            let write = First { loss: Loss::Del, ts: Micros(1), before: Lsn(client as u64) };
            let found = clients.window(&client).add(write, 1, &thresholds).is_some();
            assert!(clients.younger.len() <= GENERATION_MAX && clients.older.len() <= GENERATION_MAX);
            found
        };
        assert!(!add(0));
        for other in 1..GENERATION_MAX * 3 {
            assert!(!add(other), "{other} has written once");
            if other == GENERATION_MAX - 1 {
                assert!(add(0), "known, as it was used lately");
            }
        }
        assert!(!add(0), "long gone: it begins anew");
    }
}
