//! The tee: what sessions tell the join about the requests that they forward.
//!
//! Bounded and never waiting: when the queue is full the stamp is dropped and counted. A lost stamp
//! costs an origin, never an effect.
//!
//! Order: a session queues the stamp *before* it forwards the request, so that whoever has read an
//! effect from the replication link finds its stamp by draining the queue once.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use redtape_journal::Micros;
use smallvec::SmallVec;

/// Messages that may wait for the join.
const QUEUE_MAX: usize = 1 << 16;
/// Bytes at the front of an argument that go into its hash, beside its length.
const HASHED_BYTES: usize = 96;

/// Who a session is, as the journal names it. Replaced as a whole when AUTH or SETNAME succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    /// Address of the client, `ip:port`.
    pub addr: String,
    /// ACL user.
    pub user: String,
    /// Name set by `CLIENT SETNAME`.
    pub name: String,
}

/// Lower-case command name.
pub(crate) type Name = SmallVec<[u8; 16]>;

/// One command that may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Lower-case name.
    pub name: Name,
    /// Database in which it runs.
    pub db: u32,
    /// Hashes of its keys; empty where it has none.
    pub keys: SmallVec<[u64; 2]>,
    /// Hash of all arguments behind the name; 0 = not known.
    pub args_hash: u64,
    /// Hashes of the arguments that survive rewriting: the value of a SET, the last field of an
    /// XADD, what a script is given behind its keys.
    pub values: SmallVec<[u64; 2]>,
}

/// A request on its way to the server.
#[derive(Debug, Clone)]
pub(crate) struct Stamp {
    /// Unique while it matters: session number and running number.
    pub id: u64,
    /// When it was forwarded.
    pub at: Micros,
    /// By whom.
    pub who: Arc<Identity>,
    /// One part, or the parts of a transaction.
    pub parts: SmallVec<[Part; 1]>,
    /// The parts stand between MULTI and EXEC.
    pub transaction: bool,
}

/// What its reply said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It may have had an effect.
    Ran,
    /// The same, and the reply was this number.
    Number(i64),
    /// The session ended before the reply: it may have run, but whoever still waits comes first.
    Gone,
    /// It certainly had none.
    NoEffect,
}

/// What sessions queue.
#[derive(Debug)]
pub(crate) enum TeeMessage {
    /// A request is about to be forwarded.
    Stamp(Box<Stamp>),
    /// The server refused an AUTH or SELECT on which the stamp was built.
    Correct {
        /// Of which stamp.
        id: u64,
        /// Who it was.
        who: Arc<Identity>,
        /// In which database it ran; a transaction's own selections stand.
        db: u32,
    },
    /// The reply to it was seen.
    Replied {
        /// Of which stamp.
        id: u64,
        /// When.
        at: Micros,
        /// With what outcome.
        outcome: Outcome,
    },
}

/// The queue between sessions and join.
#[derive(Debug)]
pub(crate) struct Tee {
    queue: ArrayQueue<TeeMessage>,
    dropped: AtomicU64,
}

impl Default for Tee {
    fn default() -> Self {
        Self { queue: ArrayQueue::new(QUEUE_MAX), dropped: AtomicU64::new(0) }
    }
}

impl Tee {
    /// Queues, or drops and counts.
    pub(crate) fn send(&self, message: TeeMessage) {
        if self.queue.push(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes the oldest message.
    pub(crate) fn take(&self) -> Option<TeeMessage> {
        self.queue.pop()
    }

    /// How many messages were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A number for a session, unique in this process.
pub(crate) fn next_session_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn hasher() -> impl std::hash::Hasher {
    foldhash::fast::FixedState::with_seed(0x7265_6474_6170_6531).build_hasher()
}

/// Hash of one argument: of its length and its beginning. Never 0.
pub(crate) fn hash_arg(arg: &[u8]) -> u64 {
    let mut h = hasher();
    h.write_usize(arg.len());
    h.write(&arg[..arg.len().min(HASHED_BYTES)]);
    h.finish() | 1
}

/// Hash of a list of arguments. Never 0.
pub(crate) fn hash_args<'a>(args: impl Iterator<Item = &'a [u8]>) -> u64 {
    let mut h = hasher();
    for arg in args {
        h.write_usize(arg.len());
        h.write(&arg[..arg.len().min(HASHED_BYTES)]);
    }
    h.finish() | 1
}

/// Describes one command, the same way for a request and for an effect.
///
/// `args` are the arguments that are known (a huge request may be described before its end has
/// come: then `argc` is larger than their number and the hashes are 0).
pub(crate) fn describe(table: &redtape_wire::command::CommandTable, args: &[&[u8]], argc: usize, db: u32) -> Part {
    let mut name = Name::from_slice(&args[0][..args[0].len().min(redtape_wire::command::NAME_MAX)]);
    name.make_ascii_lowercase();
    let complete = args.len() == argc;
    let keys = table.get(&name).map_or_else(SmallVec::new, |spec| {
        let positions = spec.keys(|i| args.get(i).copied(), argc);
        positions.iter().filter_map(|i| args.get(*i)).take(Part::KEYS_MAX).map(|k| hash_arg(k)).collect()
    });
    let values = match &*name {
        b"set" | b"getset" | b"setnx" => args.get(2..3),
        b"setex" | b"psetex" => args.get(3..4),
        b"xadd" if complete => args.get(args.len() - 1..),
        b"eval" | b"evalsha" | b"fcall" => args.get(3 + keys.len()..),
        _ => None,
    };
    Part {
        db,
        keys,
        args_hash: if complete { hash_args(args[1..].iter().copied()) } else { 0 },
        values: values.unwrap_or_default().iter().take(Part::KEYS_MAX).map(|v| hash_arg(v)).collect(),
        name,
    }
}

impl Part {
    /// Keys and values of one command that are looked at.
    pub(crate) const KEYS_MAX: usize = 64;
}
