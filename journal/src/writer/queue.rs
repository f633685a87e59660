//! The bounded queue between those who submit and the writer's thread.
//!
//! Lock order: the queue's lock is never held during I/O or a callback.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::block::Block;
use crate::error::{SubmitError, WriterFailure};
use crate::writer::TimelineStart;

/// `submit` waits while more than this is queued. A single larger block passes through an empty
/// queue.
pub const MAX_QUEUED_BYTES: usize = if cfg!(test) { 64 << 10 } else { 256 << 20 };
/// No more than this is taken at once, so that a sync is never far away.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// Something to be written, in order.
#[derive(Debug)]
pub(super) enum Item {
    Block(Block),
    Timeline(TimelineStart),
    Source(String),
}

impl Item {
    fn len_bytes(&self) -> usize {
        match self {
            Self::Block(block) => block.len_bytes(),
            Self::Timeline(_) | Self::Source(_) => 0,
        }
    }
}

/// How the writer's thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Write all, seal.
    Seal,
    /// Write all, leave the segment open: the last handle was dropped without `close`.
    Leave,
}

/// What the thread has to do next.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    /// A sync was requested.
    pub(super) sync: bool,
    /// Nothing comes after this batch.
    pub(super) end: Option<End>,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    sync: bool,
    end: Option<End>,
    failed: Option<WriterFailure>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends; if it is full, waits or gives the item back.
    #[expect(clippy::result_large_err, reason = "the caller gets its block back")]
    pub(super) fn push(&self, item: Item, wait: bool) -> Result<(), (Item, SubmitError)> {
        let len = item.len_bytes();
        let mut state = self.lock();
        loop {
            if let Some(reason) = &state.failed {
                let reason = reason.clone();
                return Err((item, SubmitError::Failed(reason)));
            }
            if state.end.is_some() {
                return Err((item, SubmitError::Closed));
            }
            if state.bytes == 0 || state.bytes + len <= MAX_QUEUED_BYTES {
                break;
            }
            if !wait {
                return Err((item, SubmitError::Full));
            }
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += len;
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(super) fn ask_sync(&self) {
        self.lock().sync = true;
        self.filled.notify_one();
    }

    pub(super) fn ask_end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.filled.notify_one();
        self.drained.notify_all();
    }

    /// The writer is finished: drops what is queued, refuses everything from now on. The first
    /// reason stays.
    pub(super) fn fail(&self, reason: WriterFailure) {
        let mut state = self.lock();
        state.failed.get_or_insert(reason);
        state.items.clear();
        state.bytes = 0;
        drop(state);
        self.drained.notify_all();
    }

    pub(super) fn failed(&self) -> Option<WriterFailure> {
        self.lock().failed.clone()
    }

    /// Waits for something to do, at most until `deadline`.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Batch {
        let mut state = self.lock();
        while state.items.is_empty() && !state.sync && state.end.is_none() {
            state = match deadline {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let waited = self.filled.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        let mut batch = Batch { items: Vec::new(), sync: false, end: None };
        let mut taken = 0;
        while taken < MAX_BATCH_BYTES
            && let Some(item) = state.items.pop_front()
        {
            taken += item.len_bytes();
            batch.items.push(item);
        }
        state.bytes -= taken;
        if state.items.is_empty() {
            batch.sync = std::mem::take(&mut state.sync);
            batch.end = state.end;
        }
        drop(state);
        self.drained.notify_all();
        batch
    }
}
