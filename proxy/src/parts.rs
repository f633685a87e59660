//! The parts of the proxy that run until they are told to stop: none of them may end unseen.
//!
//! A part that panics ends the process, since the process's panic hook does that. A part that
//! returns though nobody has stopped it panics here, so that the same comes of it. Threads that end by themselves
//! (one `REDTAPE.*` request, a name that is looked up) need only the hook.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Starts parts, and knows whether they may end.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    stopping: Arc<AtomicBool>,
}

/// While this is there, no part may end.
#[derive(Debug)]
pub struct Running(Parts);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stopping.store(true, Ordering::SeqCst);
    }
}

impl Parts {
    /// To be dropped before any part is told to stop.
    pub fn running(&self) -> Running {
        Running(self.clone())
    }

    /// A thread for a part.
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

    /// A task for a part.
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
