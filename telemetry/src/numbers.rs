//! Numbers of the status: each is held once, here. `/metrics` and `INFO` read them; clones share the value.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What has happened so often since the start.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// It has happened once more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// It has happened `n` times more.
    pub fn inc_by(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How often.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A whole number that rises and falls.
#[derive(Debug, Clone, Default)]
pub struct Level(Arc<AtomicI64>);

impl Level {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many more, or less.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// It is this.
    pub fn set(&self, to: i64) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A duration in seconds, possibly without end.
#[derive(Debug, Clone, Default)]
pub struct Seconds(Arc<AtomicU64>);

impl Seconds {
    /// It is this.
    pub fn set(&self, to: f64) {
        self.0.store(to.to_bits(), Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Every number of the status, by the part of redtape that reports it.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// The proxy's clients.
    pub clients: ClientNumbers,
    /// The capture.
    pub capture: CaptureNumbers,
    /// The journal.
    pub journal: JournalNumbers,
}

/// Numbers of the proxy's clients.
#[derive(Debug, Clone, Default)]
pub struct ClientNumbers {
    /// Clients connected now.
    pub sessions: Level,
    /// Clients that ever connected.
    pub sessions_total: Count,
    /// Commands received.
    pub commands: Count,
    /// Bytes received.
    pub received_bytes: Count,
    /// Bytes sent.
    pub sent_bytes: Count,
    /// Bytes in the buffers of all clients, both directions.
    pub memory_bytes: Level,
    /// Replies to writes that wait until the journal is synced.
    pub ack_waiting: Level,
    /// Upstream connections that sessions share, now.
    pub shared_conns: Level,
}

/// Numbers of the capture.
#[derive(Debug, Clone, Default)]
pub struct CaptureNumbers {
    /// Replication offset up to which everything was handed to the journal.
    pub offset: Level,
    /// Bytes of the stream that the server has produced and the journal has not taken.
    pub lag_bytes: Level,
    /// Size of the server's backlog.
    pub backlog_bytes: Level,
    /// Outage that the backlog covers at the present write rate; infinite without writes.
    pub backlog_covers: Seconds,
    /// Requests whose effect has not come yet.
    pub stamps_waiting: Level,
    /// Requests whose effects have no origin, as a queue was full.
    pub stamps_dropped: Count,
    /// Steps of the wall clock.
    pub clock_steps: Count,
}

/// Numbers of the journal.
#[derive(Debug, Clone, Default)]
pub struct JournalNumbers {
    /// Bytes of all segments.
    pub bytes: Level,
    /// Segments.
    pub segments: Level,
    /// The present timeline.
    pub timeline: Level,
    /// Gaps between restorable windows.
    pub gaps: Level,
}
