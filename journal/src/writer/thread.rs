//! The writer's thread: take a batch, append it, sync when the policy says so, publish.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::append::Appender;
use super::queue::{Batch, End, Item};
use super::{Progress, Published, Shared};
use crate::error::{AppendError, WriterFailure};
use crate::segment::tally::Extent;
use crate::types::{Lsn, SyncPolicy};

/// With `everysec`, a write is synced no later than this.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Starts the thread. If even that fails, the writer has failed from the beginning.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    appender: Appender,
    policy: SyncPolicy,
    on_progress: impl Fn(Progress) + Send + 'static,
) -> Option<JoinHandle<()>> {
    let mut loop_ = Loop {
        shared: Arc::clone(shared),
        appender,
        policy,
        on_progress,
        unsynced_since: None,
        published: Published::default(),
    };
    // What was found at the opening is durable.
    loop_.written();
    loop_.durable();
    shared.publish(loop_.published);
    let spawned = std::thread::Builder::new().name("journal".to_owned()).spawn(move || loop_.run());
    match spawned {
        Ok(thread) => Some(thread),
        Err(e) => {
            shared.queue.fail(WriterFailure::new(AppendError::NoThread(e)));
            None
        }
    }
}

struct Loop<F> {
    shared: Arc<Shared>,
    appender: Appender,
    policy: SyncPolicy,
    on_progress: F,
    unsynced_since: Option<Instant>,
    published: Published,
}

/// Whatever ends the thread, no caller waits for it for ever.
struct RefuseAtEnd(Arc<Shared>);

impl Drop for RefuseAtEnd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.fail(WriterFailure::new(AppendError::Panicked));
        }
    }
}

impl<F: Fn(Progress)> Loop<F> {
    fn run(mut self) {
        let _refuse = RefuseAtEnd(Arc::clone(&self.shared));
        loop {
            let batch = self.shared.queue.take(self.deadline());
            let end = batch.end;
            match self.handle(batch) {
                Ok(()) if end.is_some() => return,
                Ok(()) => {}
                Err(e) => {
                    self.published.progress.failed = true;
                    self.published.progress.doubtful = e.leaves_doubt();
                    self.shared.queue.fail(WriterFailure::new(e));
                    self.publish();
                    return;
                }
            }
        }
    }

    /// When the next sync is due.
    fn deadline(&self) -> Option<Instant> {
        match self.policy {
            SyncPolicy::EverySec => self.unsynced_since.map(|since| since + SYNC_EVERY),
            SyncPolicy::Always | SyncPolicy::No => None,
        }
    }

    fn handle(&mut self, batch: Batch) -> Result<(), AppendError> {
        for item in batch.items {
            match item {
                Item::Block(block) => {
                    self.appender.append(block)?;
                    self.unsynced_since.get_or_insert_with(Instant::now);
                }
                Item::Timeline(start) => {
                    // Seals and syncs the segment in use, and syncs the new one's header.
                    self.appender.begin_timeline(start)?;
                    self.written();
                    self.durable();
                    self.publish();
                }
                Item::Source(source_id) => {
                    // The same.
                    self.appender.change_source(source_id)?;
                    self.written();
                    self.durable();
                    self.publish();
                }
            }
        }
        self.written();
        match batch.end {
            Some(End::Seal) => self.appender.finish()?,
            Some(End::Leave) if self.policy != SyncPolicy::No => self.appender.sync()?,
            _ if batch.sync || self.is_due() => {
                self.publish();
                self.appender.sync()?;
            }
            _ => {
                self.publish();
                return Ok(());
            }
        }
        self.durable();
        self.publish();
        // No caller waits for this.
        self.appender.extend_filters_file();
        if matches!(batch.end, Some(End::Seal)) {
            self.appender.compact_rest();
            self.written();
            self.publish();
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.unsynced_since.is_some_and(|since| match self.policy {
            SyncPolicy::Always => true,
            SyncPolicy::EverySec => since.elapsed() >= SYNC_EVERY,
            SyncPolicy::No => false,
        })
    }

    fn written(&mut self) {
        (self.published.journal_bytes, self.published.segments) = self.appender.size();
        self.published.progress.complete_until = self.appender.complete_until();
        if let Some(Extent { next_lsn, last_ts, end_offset }) = self.appender.extent() {
            let progress = &mut self.published.progress;
            progress.written_lsn = Lsn(next_lsn.0 - 1);
            progress.written_offset = end_offset;
            progress.written_ts = last_ts;
            progress.timeline = self.appender.timeline();
        }
    }

    /// All that is written has been synced.
    fn durable(&mut self) {
        self.unsynced_since = None;
        let progress = &mut self.published.progress;
        progress.syncs += 1;
        progress.durable_lsn = progress.written_lsn;
        progress.durable_offset = progress.written_offset;
        progress.durable_ts = progress.written_ts;
    }

    /// Shows where the writer is, and calls back if that is news.
    fn publish(&mut self) {
        let before = self.shared.read().progress;
        self.shared.publish(self.published);
        if before != self.published.progress {
            (self.on_progress)(self.published.progress);
        }
    }
}
