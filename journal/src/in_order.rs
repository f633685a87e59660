//! Work on several threads of which the results are taken in the order in which it was given out.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};

/// More threads than this do not help: the results are taken by one.
const THREADS_MAX: usize = 4;
/// Pieces of work for each thread that are given out, and not yet taken.
const AHEAD: usize = 2;

/// Gives out work until there is none, or until `take` has enough. `take` runs in the caller's thread.
pub fn in_order<J: Send, T: Send>(
    mut next: impl FnMut() -> Option<J>,
    work: impl Fn(J) -> T + Sync,
    mut take: impl FnMut(T) -> ControlFlow<()>,
) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let (jobs, queue) = channel::<(J, SyncSender<T>)>();
    let queue = Mutex::new(queue);
    let run = || {
        loop {
            let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((job, done)) = job else { break };
            // The receiver is gone: enough was taken.
            let _ = done.send(work(job));
        }
    };
    std::thread::scope(|scope| {
        // It ends with this closure, and the threads with it.
        let jobs = jobs;
        for _ in 0..threads {
            scope.spawn(run);
        }
        let mut given = VecDeque::with_capacity(threads * AHEAD);
        loop {
            while given.len() < threads * AHEAD
                && let Some(job) = next()
            {
                let (done, result) = sync_channel(1);
                if jobs.send((job, done)).is_ok() {
                    given.push_back(result);
                }
            }
            // A thread that panicked gives no result; the scope passes its panic on.
            let Some(Ok(result)) = given.pop_front().map(|result| result.recv()) else { break };
            if take(result).is_break() {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_work() {
        let mut jobs = 0..100u64;
        let mut taken = Vec::new();
        let work = |n: u64| {
            std::thread::sleep(Duration::from_micros((n * 7919) % 500));
            n * 2
        };
        in_order(
            || jobs.next(),
            work,
            |n| {
                taken.push(n);
                ControlFlow::Continue(())
            },
        );
        assert_eq!(taken, (0..100).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn it_ends_when_enough_was_taken() {
        let mut given = 0..;
        let mut taken = 0;
        in_order(
            || given.next(),
            |n: u64| n,
            |_| {
                taken += 1;
                if taken == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        );
        assert_eq!(taken, 10);
        assert!(given.start < 10 + 1 + (THREADS_MAX * AHEAD) as u64, "{given:?}");
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_passed_on() {
        let mut jobs = 0..10;
        in_order(|| jobs.next(), |n: u64| assert_ne!(n, 5), |()| ControlFlow::Continue(()));
    }
}
