//! Limits the keys written per second.

use std::time::{Duration, Instant};

use super::datasets::Batch;
use crate::error::RestoreError;
use crate::interrupt::Interrupt;

/// Longest sleep between two checks for an interruption.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Portions per second into which writing is divided.
const PORTIONS: u32 = 20;

/// The rate limiter.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<u32>,
    /// When the next key may be written.
    next: Instant,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), next: Instant::now() }
    }

    /// Splits a batch into portions.
    pub(super) fn split(&self, mut batch: Batch) -> Vec<Batch> {
        let Some(rate) = self.rate else { return vec![batch] };
        let portion = rate.div_ceil(PORTIONS) as usize;
        let mut portions = Vec::new();
        while batch.keys.len() > portion {
            let rest = batch.keys.split_off(portion);
            portions.push(Batch { db: batch.db, keys: std::mem::replace(&mut batch.keys, rest), ..Batch::default() });
        }
        portions.push(batch);
        portions
    }

    /// Waits until this many keys may be written.
    pub(super) fn wait(&mut self, keys: usize, interrupt: &Interrupt) -> Result<(), RestoreError> {
        let Some(rate) = self.rate else { return Ok(()) };
        loop {
            interrupt.check()?;
            let left = self.next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::sleep(left.min(SLEEP_MAX));
        }
        self.next = self.next.max(Instant::now()) + Duration::from_secs_f64(keys as f64 / f64::from(rate));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::repair::wanted::Wanted;
    use crate::values::image::Image;

    #[test]
    fn portions_hold_all_keys_and_wait_for_each_other() {
        let wanted = |n: u32| Wanted {
            key: n.to_be_bytes().to_vec(),
            image: Image { dump: Vec::new(), expires_ms: 0 },
            digest: [0; 16],
            large: false,
            expected: None,
            new: true,
        };
        let batch = || Batch { db: 3, keys: (0..25).map(wanted).collect(), ..Batch::default() };
        assert_eq!(Pace::new(None).split(batch()).len(), 1);
        let mut pace = Pace::new(Some(200));
        let portions = pace.split(batch());
        assert_eq!(portions.iter().map(|portion| portion.keys.len()).collect::<Vec<_>>(), [10, 10, 5]);
        assert!(portions.iter().all(|portion| portion.db == 3));
        assert_eq!(portions.into_iter().flat_map(|portion| portion.keys).collect::<Vec<_>>(), batch().keys);
        let began = Instant::now();
        for _ in 0..3 {
            pace.wait(10, &Interrupt::default()).expect("no interrupt");
        }
        assert!(began.elapsed() >= Duration::from_millis(99));
    }
}
