//! Signals that ask a command to end, for commands that have to tidy up first.

use std::time::Duration;

use redtape_restore::Interrupt;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::INTERRUPTED;

/// From [`Signals::listen`] on, these signals do not end the process any more; a thread waits for them instead.
pub(crate) struct Signals {
    runtime: tokio::runtime::Runtime,
    signals: Vec<Signal>,
}

impl Signals {
    /// SIGINT and SIGTERM.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Self::listen_to(&[SignalKind::interrupt(), SignalKind::terminate()])
    }

    /// These.
    pub(crate) fn listen_to(kinds: &[SignalKind]) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let signals = kinds.iter().map(|kind| signal(*kind)).collect::<Result<_, _>>()?;
        drop(entered);
        Ok(Self { runtime, signals })
    }

    /// Waits for the next of them.
    pub(crate) fn wait(&mut self) {
        self.runtime.block_on(next(&mut self.signals));
    }

    /// Waits for the next of them, at most so long.
    pub(crate) fn wait_within(&mut self, limit: Duration) {
        let Self { runtime, signals } = self;
        // Whether one came or the time is over, the wait has ended.
        let _ = runtime.block_on(async { tokio::time::timeout(limit, next(signals)).await });
    }

    /// Has a thread of its own wait.
    pub(crate) fn watch(self, act: impl FnOnce(Self) + Send + 'static) -> std::io::Result<()> {
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || act(self)).map(drop)
    }
}

/// The first SIGINT or SIGTERM sets the interrupt, which has scratch servers removed; the second one ends the process.
pub(crate) fn set_at_signal(interrupt: Interrupt) -> std::io::Result<()> {
    Signals::listen()?.watch(move |mut signals| {
        signals.wait();
        interrupt.set();
        signals.wait();
        std::process::exit(i32::from(INTERRUPTED));
    })
}

/// The first that any of them tells. A signal that cannot come any more counts as one that came.
async fn next(signals: &mut [Signal]) {
    std::future::poll_fn(|context| {
        if signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
