//! Threads and tasks that run until they are stopped: an unexpected end is fatal.
//!
//! A part that panics ends the process through its panic hook. A part that returns without being stopped panics here,
//! with the same result. Threads that end by themselves (one `REDTAPE.*` request, a DNS lookup) need only the hook.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Starts parts, and tracks whether they may end.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    stopping: Arc<AtomicBool>,
}

/// While it exists, no part may end.
#[derive(Debug)]
pub struct Running(Parts);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }
}

impl Parts {
    /// Must be dropped before any part is stopped.
    pub fn running(&self) -> Running {
        Running(self.clone())
    }

    /// Starts a thread.
    pub fn thread<T: Send + 'static>(
        &self,
        name: impl Into<String>,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let (parts, name) = (self.clone(), name.into());
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            let result = run();
            parts.ended(&name);
            result
        })
    }

    /// Starts a task.
    pub async fn task(self, name: &'static str, run: impl Future<Output = ()>) {
        run.await;
        self.ended(name);
    }

    fn ended(&self, name: &str) {
        assert!(self.stopping.load(Ordering::SeqCst), "the part `{name}` has ended though nobody has stopped it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_may_end_only_when_all_are_stopped() {
        let parts = Parts::default();
        let running = parts.running();
        let early = parts.thread("early", || 5).expect("a thread").join();
        let panic = early.expect_err("it has ended unseen");
        let said = panic.downcast_ref::<String>().expect("words");
        assert!(said.contains("`early` has ended"), "{said}");
        drop(running);
        assert_eq!(parts.thread("late", || 5).expect("a thread").join().expect("stopped"), 5);
    }

    #[tokio::test]
    async fn so_may_a_task() {
        let parts = Parts::default();
        let running = parts.running();
        assert!(tokio::spawn(parts.clone().task("early", async {})).await.is_err());
        drop(running);
        assert!(tokio::spawn(parts.task("late", async {})).await.is_ok());
    }
}
