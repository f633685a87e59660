//! Total memory of all clients' buffers, and which client is disconnected when it exceeds `client-memory`.
//!
//! Each worker keeps a sum over its own clients and a count for each size class (powers of two); both are updated as
//! buffers change. Once a turn the change is added to the sum shared by all workers. Clients are scanned only while the
//! limit is exceeded.
//!
//! Over the limit, the worker with the client of the highest class disconnects its largest clients until it no longer
//! has the highest class or the limit holds. Any other worker that notices wakes that one. The disconnected client is
//! therefore the largest, or at least half as large. A client with `CLIENT NO-EVICT on` counts and stays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mio::Waker;

use super::OverMemory;

/// Size classes: the number of binary digits of a size. Class 0: empty, or may not be disconnected.
const CLASSES: usize = usize::BITS as usize + 1;

/// State shared by all workers.
#[derive(Debug)]
pub(crate) struct ClientMemory {
    total: AtomicUsize,
    workers: Box<[Seat]>,
}

#[derive(Debug, Default)]
struct Seat {
    /// Class of its largest client.
    highest: AtomicUsize,
    waker: OnceLock<Arc<Waker>>,
}

impl ClientMemory {
    /// For so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self { total: AtomicUsize::new(0), workers: (0..workers).map(|_| Seat::default()).collect() }
    }

    /// Bytes in the buffers of all clients.
    pub(crate) fn bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// The worker with the largest client (the first of several); `None` = no client may be disconnected.
    fn largest(&self) -> Option<usize> {
        let mut found = (0, None);
        for (worker, seat) in self.workers.iter().enumerate() {
            let class = seat.highest.load(Ordering::Relaxed);
            if class > found.0 {
                found = (class, Some(worker));
            }
        }
        found.1
    }

    pub(in crate::worker) fn wake(&self, worker: usize) {
        if let Some(waker) = self.workers.get(worker).and_then(|seat| seat.waker.get()) {
            // A worker that cannot be woken checks once a second.
            let _ = waker.wake();
        }
    }
}

/// The counted share of one client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::worker) struct Account {
    bytes: usize,
    class: usize,
}

impl Account {
    pub(super) fn bytes(self) -> usize {
        self.bytes
    }

    pub(super) fn may_be_disconnected(self) -> bool {
        self.class > 0
    }
}

/// State of one worker.
#[derive(Debug)]
pub(super) struct WorkerMemory {
    shared: Arc<ClientMemory>,
    worker: usize,
    bytes: usize,
    published: usize,
    classes: [u32; CLASSES],
    highest: usize,
    published_highest: usize,
}

impl WorkerMemory {
    pub(super) fn new(shared: Arc<ClientMemory>, worker: usize, waker: Arc<Waker>) -> Self {
        if let Some(seat) = shared.workers.get(worker) {
            // Each worker is started once.
            let _ = seat.waker.set(waker);
        }
        Self::without_waker(shared, worker)
    }

    pub(super) fn without_waker(shared: Arc<ClientMemory>, worker: usize) -> Self {
        Self { shared, worker, bytes: 0, published: 0, classes: [0; CLASSES], highest: 0, published_highest: 0 }
    }

    /// Updates a client's size; `stays`: it may not be disconnected.
    #[inline]
    pub(super) fn set(&mut self, account: &mut Account, bytes: usize, stays: bool) {
        let class = if stays { 0 } else { (usize::BITS - bytes.leading_zeros()) as usize };
        let before = std::mem::replace(account, Account { bytes, class });
        self.bytes = self.bytes - before.bytes + bytes;
        if before.class != class {
            self.move_class(before.class, class);
        }
    }

    fn move_class(&mut self, from: usize, to: usize) {
        if from > 0 {
            self.classes[from] -= 1;
        }
        if to > 0 {
            self.classes[to] += 1;
        }
        self.highest = self.highest.max(to);
        while self.highest > 0 && self.classes[self.highest] == 0 {
            self.highest -= 1;
        }
    }

    /// A client has left.
    pub(super) fn remove(&mut self, mut account: Account) {
        self.set(&mut account, 0, true);
    }

    /// Publishes the change; returns the sum over all workers.
    fn publish(&mut self) -> usize {
        if self.bytes != self.published {
            // Wrapping arithmetic: one addition handles growth and shrinkage.
            self.shared.total.fetch_add(self.bytes.wrapping_sub(self.published), Ordering::Relaxed);
            self.published = self.bytes;
        }
        if self.highest != self.published_highest {
            self.shared.workers[self.worker].highest.store(self.highest, Ordering::Relaxed);
            self.published_highest = self.highest;
        }
        self.shared.bytes()
    }

    /// Bytes in the buffers of all workers' clients.
    pub(super) fn total(&self) -> usize {
        self.shared.bytes()
    }

    /// Publishes the change; returns which worker must disconnect clients, if the sum exceeds the limit.
    pub(super) fn over(&mut self, limit: Option<usize>) -> OverMemory {
        let total = self.publish();
        match self.shared.largest().filter(|_| limit.is_some_and(|limit| total > limit)) {
            Some(worker) if worker == self.worker => OverMemory::Here,
            Some(worker) => OverMemory::Elsewhere(worker),
            None => OverMemory::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(n: usize) -> (Arc<ClientMemory>, Vec<WorkerMemory>) {
        let shared = Arc::new(ClientMemory::new(n));
        let all = (0..n).map(|worker| WorkerMemory::without_waker(shared.clone(), worker)).collect();
        (shared, all)
    }

    #[test]
    fn sums_follow_every_change_and_end_at_nothing() {
        let (shared, mut all) = workers(2);
        let mut accounts = [[Account::default(); 3]; 2];
        let mut seed = 7_usize;
        for _ in 0..1000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (worker, client) = (seed >> 33 & 1, (seed >> 35) % 3);
            let bytes = if (seed >> 40).is_multiple_of(4) { 0 } else { seed >> 44 };
            all[worker].set(&mut accounts[worker][client], bytes, (seed >> 50).is_multiple_of(8));
            all[worker].publish();
            let sum: usize = accounts.iter().flatten().map(|a| a.bytes).sum();
            assert_eq!(shared.bytes(), sum);
            let highest = |w: usize| accounts[w].iter().map(|a| a.class).max().unwrap_or(0);
            assert_eq!([all[0].highest, all[1].highest], [highest(0), highest(1)]);
        }
        for (worker, of_worker) in all.iter_mut().zip(accounts) {
            for account in of_worker {
                worker.remove(account);
            }
            worker.publish();
            assert_eq!((worker.bytes, worker.highest), (0, 0));
        }
        assert_eq!((shared.bytes(), shared.largest()), (0, None));
    }

    #[test]
    fn one_worker_has_the_largest_client() {
        let (shared, mut all) = workers(3);
        let mut accounts = [Account::default(); 4];
        assert_eq!(shared.largest(), None);
        for (worker, bytes) in [(1, 5000), (2, 6000)] {
            all[worker].set(&mut accounts[worker], bytes, false);
            all[worker].publish();
        }
        assert_eq!(shared.largest(), Some(1), "the first of those that are about as large");
        all[2].set(&mut accounts[2], 9000, false);
        assert_eq!(shared.largest(), Some(1), "not told yet");
        all[2].publish();
        assert_eq!(shared.largest(), Some(2));
        all[0].set(&mut accounts[0], usize::MAX, true);
        all[0].publish();
        assert_eq!(shared.largest(), Some(2), "the server has granted the first one that it stays");
        all[2].remove(accounts[2]);
        all[2].publish();
        assert_eq!(shared.largest(), Some(1));
    }
}
