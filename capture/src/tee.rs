//! The tee: messages from sessions to the join about the requests that they forward.
//!
//! ```text
//! worker: sessions ─► TeeSender ─► batch ─┐ full (bounded)
//!                        ▲                ▼
//!                        └── spare ◄── join: Tee::drain
//! ```
//!
//! Bounded and non-blocking: if the join is too slow, a batch is dropped and its messages are counted. A lost stamp
//! costs an origin, never an effect.
//!
//! Order: a worker flushes its sender *before* it forwards the requests. The join can therefore find the stamp of an
//! effect by draining the tee once after reading the effect. Messages of one session go through one sender and stay in
//! order; sessions of different workers interleave.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use foldhash::fast::FixedState;
use redtape_journal::Micros;
use redtape_wire::command::{CommandId, CommandSpec, CommandTable, NAME_MAX, lower_name};
use redtape_wire::word;
use smallvec::SmallVec;
use tokio::sync::Notify;

/// Batches that may wait for the join.
const BATCHES_MAX: usize = 1 << 16;
/// Messages that may wait for the join, in all batches.
const MESSAGES_MAX: usize = 1 << 18;
/// This many messages wake a join that waits for the stream, since writes that change nothing produce no stream. Each
/// message may be a batch of its own.
const MESSAGES_MANY: usize = BATCHES_MAX / 4;
/// A batch of this many messages is handed over early.
const BATCH_MAX: usize = 1 << 10;
/// Replies combined in one message.
const RUN_MAX: u32 = 1 << 10;
/// Initial capacity of a batch: many hold one message.
const BATCH_MIN: usize = 4;
/// Empty batches kept for reuse.
const SPARE_MAX: usize = 256;
/// Bytes at the front of an argument that are hashed, together with its length.
const HASHED_BYTES: usize = 96;

/// Identity of a session in the journal's form. Replaced as a whole when AUTH or SETNAME succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Address of the client, `ip:port`.
    pub addr: String,
    /// ACL user.
    pub user: String,
    /// Name set by `CLIENT SETNAME`.
    pub name: String,
    /// The server has not confirmed the user: only the address is certain.
    pub in_doubt: bool,
}

/// One command that may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Hash of all arguments behind the name; 0 = unknown.
    pub args_hash: u64,
    /// Hashes of its keys, then of its values.
    hashes: SmallVec<[u64; 2]>,
    /// Database in which it runs.
    pub db: u32,
    /// The command.
    pub name: CommandId,
    /// How many of the hashes are keys.
    keys: u8,
    /// The relevant options of a SET, as bits.
    set: u8,
}

/// The SET names an expiry time (EXAT, PXAT).
const SET_UNTIL: u8 = 1;
/// The SET returns the old value (GET), or may do so.
const SET_GETS: u8 = 2;

/// A request that is about to be forwarded.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Session number and running number; unique while it is in use.
    pub id: u64,
    /// When it was forwarded.
    pub at: Micros,
    /// The client.
    pub who: Arc<Identity>,
    /// The upstream connection that carries it: the server runs the requests of one connection in order.
    pub connection: u64,
    /// One command, or the commands of a transaction.
    pub parts: SmallVec<[Part; 1]>,
    /// The parts stand between MULTI and EXEC.
    pub transaction: bool,
}

/// What its reply shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It may have had an effect.
    Ran,
    /// It had an effect: this command always has one if it gets this kind of reply.
    Wrote,
    /// As `Wrote`, and the reply was this number.
    Number(i64),
    /// It may have had an effect, but the reply is 0, nil or false, as from a script that did nothing.
    Empty,
    /// The session ended before the reply: it may have run, but requests of live sessions are preferred.
    Gone,
    /// It had no effect.
    NoEffect,
}

/// A message from a session.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Half of the messages are stamps; boxing each would cost more than the space.
pub enum TeeMessage {
    /// A request is about to be forwarded.
    Stamp(Stamp),
    /// The server has answered an AUTH, SELECT or similar that was pending when these stamps were sent: only now are
    /// their identity and database known.
    Correct {
        /// Id of the first stamp.
        id: u64,
        /// Number of stamps with consecutive ids.
        count: u32,
        /// The identity.
        who: Arc<Identity>,
        /// The database; a transaction's own SELECTs still apply.
        db: u32,
    },
    /// Its reply was seen, and those of the stamps behind it: a pipeline is answered at once.
    Replied {
        /// Id of the first stamp.
        id: u64,
        /// Number of stamps with consecutive ids.
        count: u32,
        /// When the reply was read.
        at: Micros,
        /// The outcome.
        outcome: Outcome,
    },
}

type Batch = Vec<TeeMessage>;

/// The queue between workers and join.
#[derive(Debug)]
pub struct Tee {
    full: ArrayQueue<Batch>,
    spare: ArrayQueue<Batch>,
    /// Messages in `full`.
    waiting: AtomicUsize,
    dropped: AtomicU64,
    filled: Notify,
    many: Notify,
    /// For each sender, the time since which it may hold messages that are not handed over; [`AT_REST`] = none.
    busy_since: Mutex<Vec<Arc<AtomicI64>>>,
    /// Number of sessions that write without stamps, and when the last such session ended, in µs.
    unstamped: AtomicUsize,
    unstamped_ended: AtomicI64,
}

/// The sender has handed over all messages.
const AT_REST: i64 = i64::MAX;

impl Default for Tee {
    fn default() -> Self {
        Self {
            full: ArrayQueue::new(BATCHES_MAX),
            spare: ArrayQueue::new(SPARE_MAX),
            waiting: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            filled: Notify::new(),
            many: Notify::new(),
            busy_since: Mutex::default(),
            unstamped: AtomicUsize::new(0),
            unstamped_ended: AtomicI64::new(0),
        }
    }
}

/// A session whose writes may run without, or long after, a stamp: it sends bytes that cannot be parsed, or may be
/// blocked while its replies cannot be assigned. Counted until it is dropped.
#[derive(Debug)]
pub struct Unstamped(Arc<Tee>);

impl Unstamped {
    fn new(tee: &Arc<Tee>) -> Self {
        tee.unstamped.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(tee))
    }
}

impl Drop for Unstamped {
    fn drop(&mut self) {
        // This order matters: a reader that sees the count drop must see the end time.
        self.0.unstamped_ended.fetch_max(Micros::now().0, Ordering::AcqRel);
        self.0.unstamped.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Tee {
    /// A sender, for one worker thread.
    pub fn sender(self: &Arc<Self>) -> TeeSender {
        let busy_since = Arc::new(AtomicI64::new(AT_REST));
        self.busy_since.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&busy_since));
        TeeSender { tee: Arc::clone(self), batch: Vec::new(), busy_since, connection: 0 }
    }

    /// Every reply that a worker read before the returned time is found by a [`Self::drain`] that begins after this
    /// call.
    pub(crate) fn told_until(&self, now: Micros) -> Micros {
        let senders = self.busy_since.lock().unwrap_or_else(PoisonError::into_inner);
        Micros(senders.iter().map(|since| since.load(Ordering::Acquire)).fold(now.0, i64::min))
    }

    /// Until when a session may have written without a stamp: forever while there is one; `None` = there was none.
    pub fn unstamped_until(&self) -> Option<Micros> {
        if self.unstamped.load(Ordering::Acquire) > 0 {
            return Some(Micros(i64::MAX));
        }
        Some(Micros(self.unstamped_ended.load(Ordering::Acquire))).filter(|at| at.0 > 0)
    }

    /// Passes all messages flushed before the call to `take`, in flush order.
    pub fn drain(&self, mut take: impl FnMut(TeeMessage)) {
        // Concurrent flushes must not keep the join here.
        for _ in 0..=BATCHES_MAX {
            let Some(mut batch) = self.full.pop() else { return };
            self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            batch.drain(..).for_each(&mut take);
            // A batch beyond the limit is freed.
            let _ = self.spare.push(batch);
        }
    }

    /// Resolves after a [`TeeSender::flush_and_call`] since it last resolved.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Resolves when [`MESSAGES_MANY`] messages wait.
    pub(crate) async fn many(&self) {
        self.many.notified().await;
    }

    /// Number of dropped messages.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Collects the messages of one worker's sessions and hands them over in batches.
#[derive(Debug)]
pub struct TeeSender {
    tee: Arc<Tee>,
    batch: Batch,
    busy_since: Arc<AtomicI64>,
    connection: u64,
}

impl TeeSender {
    /// Called before the worker reads its sockets: until [`Self::rest`] it may hold messages that are not handed over.
    #[inline]
    pub fn begin(&self, now: Micros) {
        self.busy_since.store(now.0, Ordering::Release);
    }

    /// Called before the worker waits: hands over all messages.
    #[inline]
    pub fn rest(&mut self) {
        self.flush();
        self.busy_since.store(AT_REST, Ordering::Release);
    }

    /// A session starts to write without stamps.
    pub fn unstamped(&self) -> Unstamped {
        Unstamped::new(&self.tee)
    }

    /// The following stamps are of requests on this upstream connection.
    #[inline]
    pub fn on_connection(&mut self, connection: u64) {
        self.connection = connection;
    }

    /// A request that will be forwarded after the next flush.
    #[inline]
    pub fn stamp(&mut self, mut stamp: Stamp) {
        stamp.connection = self.connection;
        self.push(TeeMessage::Stamp(stamp));
    }

    /// The server has confirmed the identity and database of these stamps.
    #[inline]
    pub fn correct(&mut self, id: u64, count: u32, who: Arc<Identity>, db: u32) {
        self.push(TeeMessage::Correct { id, count, who, db });
    }

    /// A reply was read.
    #[inline]
    pub fn replied(&mut self, id: u64, at: Micros, outcome: Outcome) {
        if let Some(TeeMessage::Replied { id: first, count, at: then, outcome: before }) = self.batch.last_mut()
            && *before == outcome
            && matches!(outcome, Outcome::Ran | Outcome::Wrote)
            && *first + u64::from(*count) == id
            && *then == at
            && *count < RUN_MAX
        {
            *count += 1;
            return;
        }
        self.push(TeeMessage::Replied { id, count: 1, at, outcome });
    }

    #[inline]
    fn push(&mut self, message: TeeMessage) {
        if self.batch.len() == self.batch.capacity() {
            self.make_room();
        }
        self.batch.push(message);
    }

    #[cold]
    fn make_room(&mut self) {
        if self.batch.len() >= BATCH_MAX {
            self.flush();
        }
        if self.batch.capacity() == 0 {
            self.batch = self.tee.spare.pop().unwrap_or_else(|| Vec::with_capacity(BATCH_MIN));
        }
    }

    /// Flushes, and wakes the join if it waits.
    #[inline]
    pub fn flush_and_call(&mut self) {
        self.flush();
        self.tee.filled.notify_one();
    }

    /// Hands all collected messages to the join; if the queue is full, drops and counts them.
    #[inline]
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let messages = batch.len();
        let before = self.tee.waiting.fetch_add(messages, Ordering::Relaxed);
        let fits = before + messages <= MESSAGES_MAX;
        let refused = if fits { self.tee.full.push(batch).err() } else { Some(batch) };
        if let Some(mut batch) = refused {
            self.tee.waiting.fetch_sub(messages, Ordering::Relaxed);
            self.tee.dropped.fetch_add(messages as u64, Ordering::Relaxed);
            batch.clear();
            self.batch = batch;
        } else if before < MESSAGES_MANY && before + messages >= MESSAGES_MANY {
            self.tee.many.notify_one();
        }
    }
}

impl Drop for TeeSender {
    fn drop(&mut self) {
        self.rest();
    }
}

/// A session number, unique in this process.
pub fn next_session_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// An argument of this length rarely occurs in another request by chance.
const TELLING_BYTES: usize = 6;
/// Flag in an argument's hash: it has at least [`TELLING_BYTES`].
const TELLING: u64 = 2;

/// Whether an argument, by its hash, is long enough to tell requests apart.
pub(crate) fn is_telling(hash: u64) -> bool {
    hash & TELLING != 0
}

/// Hash of one argument, from its length and its beginning. Always odd; see also [`is_telling`].
#[inline]
pub(crate) fn hash_arg(arg: &[u8]) -> u64 {
    const STATE: FixedState = FixedState::with_seed(0x7265_6474_6170_6531);
    let mut h = STATE.build_hasher();
    h.write_usize(arg.len());
    h.write(&arg[..arg.len().min(HASHED_BYTES)]);
    let telling = if arg.len() >= TELLING_BYTES { TELLING } else { 0 };
    (h.finish() & !TELLING) | telling | 1
}

/// Combines the hash of the earlier arguments with the hash of the next one.
#[inline]
fn hash_on(before: u64, arg: u64) -> u64 {
    (before.rotate_left(23) ^ arg).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The arguments of a command that survive rewriting: the value of a SET, the last field of an XADD, the arguments of a
/// script behind its keys.
#[inline]
fn surviving(name: &[u8], keys: usize, known: usize, complete: bool) -> std::ops::Range<usize> {
    let range = match name {
        b"set" | b"getset" | b"setnx" => 2..3,
        b"setex" | b"psetex" => 3..4,
        b"xadd" if complete => known - 1..known,
        b"eval" | b"evalsha" | b"fcall" => 3 + keys..known,
        _ => 0..0,
    };
    if range.end <= known && range.start <= range.end { range } else { 0..0 }
}

/// Describes one command, identically for a request and for an effect.
///
/// `args` holds the known arguments. A huge request may be described before it has arrived completely: then `argc` is
/// larger than `args.len()` and the hash of all arguments is 0.
pub(crate) fn describe(table: &CommandTable, args: &[&[u8]], argc: usize, db: u32) -> Part {
    let mut room = [0; NAME_MAX];
    let name = lower_name(args[0], &mut room);
    let spec = table.get_lower(name);
    let id = spec.map_or_else(|| CommandId::of(name), |spec| spec.id);
    describe_named(name, id, spec, args, argc, db)
}

/// As `describe`, for a caller that has looked the command up: `name` is [`lower_name`] of the first argument,
/// `id` its number, and `spec` its row of the table.
#[inline]
pub fn describe_named(
    name: &[u8],
    id: CommandId,
    spec: Option<&CommandSpec>,
    args: &[&[u8]],
    argc: usize,
    db: u32,
) -> Part {
    let complete = args.len() == argc;
    let positions = spec.map(|spec| spec.keys(args, argc)).unwrap_or_default();
    // Avoids hashing an argument twice.
    let mut each = SmallVec::<[u64; Part::FEW_ARGS]>::new();
    let mut args_hash = 0;
    if complete {
        for arg in &args[1..] {
            let hash = hash_arg(arg);
            args_hash = hash_on(args_hash, hash);
            if each.len() < Part::FEW_ARGS {
                each.push(hash);
            }
        }
        args_hash |= 1;
    }
    let hash_at = |i: usize| each.get(i.wrapping_sub(1)).copied().unwrap_or_else(|| hash_arg(args[i]));
    let mut hashes = SmallVec::new();
    for position in positions.iter().take(Part::HASHES_MAX) {
        hashes.push(hash_at(*position));
    }
    let keys = hashes.len();
    for position in surviving(name, keys, args.len(), complete).take(Part::HASHES_MAX) {
        hashes.push(hash_at(position));
    }
    let option = |names: &[&str]| name == b"set" && args.iter().skip(3).any(|a| word::is_one_of(a, names));
    let until = if option(&["exat", "pxat"]) { SET_UNTIL } else { 0 };
    let gets = if !complete || option(&["get"]) { SET_GETS } else { 0 };
    Part { args_hash, hashes, db, name: id, keys: keys as u8, set: until | gets }
}

impl Part {
    /// Keys, and values, of one command that are hashed.
    pub(crate) const HASHES_MAX: usize = 64;
    /// Commands with up to this many arguments keep the hashes while they are described.
    const FEW_ARGS: usize = 4;

    /// Size in memory, in bytes.
    #[inline]
    pub fn buffered(&self) -> usize {
        size_of::<Self>() + if self.hashes.spilled() { self.hashes.capacity() * size_of::<u64>() } else { 0 }
    }

    /// A SET that names an expiry time, which may be in the past.
    pub(crate) fn is_until(&self) -> bool {
        self.set & SET_UNTIL != 0
    }

    /// A SET that returns the old value, so nil says nothing about its effect.
    pub(crate) fn gets(&self) -> bool {
        self.set & SET_GETS != 0
    }

    /// Hashes of its keys; empty if it has none.
    #[inline]
    pub(crate) fn keys(&self) -> &[u64] {
        &self.hashes[..usize::from(self.keys)]
    }

    /// Hashes of the arguments that survive rewriting.
    #[inline]
    pub(crate) fn values(&self) -> &[u64] {
        &self.hashes[usize::from(self.keys)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replied(id: u64) -> TeeMessage {
        TeeMessage::Replied { id, count: 1, at: Micros(1), outcome: Outcome::Ran }
    }

    fn ids(tee: &Tee) -> Vec<u64> {
        let mut ids = Vec::new();
        tee.drain(|m| match m {
            TeeMessage::Replied { id, count, .. } => ids.extend((id..).take(count as usize)),
            other => panic!("{other:?}"),
        });
        ids
    }

    #[test]
    fn messages_come_in_order_and_only_after_a_flush() {
        let tee = Arc::new(Tee::default());
        let mut sender = tee.sender();
        (0..5).for_each(|id| sender.push(replied(id)));
        assert_eq!(ids(&tee), [0; 0]);
        sender.flush();
        sender.push(replied(5));
        assert_eq!(ids(&tee), [0, 1, 2, 3, 4]);
        drop(sender);
        assert_eq!(ids(&tee), [5]);
        // A large batch is flushed automatically; draining makes room again.
        let mut sender = tee.sender();
        for id in 0..3 * MESSAGES_MAX as u64 {
            sender.push(replied(id));
            if id % 1000 == 999 {
                assert!(ids(&tee).len() <= 2 * BATCH_MAX);
            }
        }
        assert_eq!(tee.dropped(), 0);
    }

    #[tokio::test]
    async fn a_join_that_waits_for_the_stream_is_called_before_much_is_lost() {
        let tee = Arc::new(Tee::default());
        let mut sender = tee.sender();
        let mut send = |n: usize| {
            for id in 0..n as u64 {
                sender.push(replied(id));
                sender.flush();
            }
        };
        let called = || tokio::time::timeout(std::time::Duration::from_millis(10), tee.many());
        send(MESSAGES_MANY - 1);
        assert!(called().await.is_err(), "for a few it is not worth it");
        send(1);
        assert!(called().await.is_ok());
        send(MESSAGES_MANY);
        assert!(called().await.is_err(), "once");
        assert_eq!((ids(&tee).len(), tee.dropped()), (2 * MESSAGES_MANY, 0));
        send(MESSAGES_MANY);
        assert!(called().await.is_ok());
    }

    #[test]
    fn the_replies_to_a_pipeline_are_one_message() {
        let tee = Arc::new(Tee::default());
        let mut sender = tee.sender();
        (0..10).for_each(|id| sender.replied(id, Micros(1), Outcome::Ran));
        assert_eq!(sender.batch.len(), 1);
        sender.replied(11, Micros(1), Outcome::Ran);
        sender.replied(12, Micros(2), Outcome::Ran);
        sender.replied(13, Micros(2), Outcome::NoEffect);
        sender.replied(14, Micros(2), Outcome::Number(1));
        sender.replied(15, Micros(2), Outcome::Ran);
        assert_eq!(sender.batch.len(), 6);
        sender.flush();
        assert_eq!(ids(&tee), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]);
    }

    #[test]
    fn a_join_that_is_too_slow_costs_whole_batches_that_are_counted() {
        let tee = Arc::new(Tee::default());
        let mut sender = tee.sender();
        for id in 0..BATCHES_MAX as u64 + 10 {
            sender.push(replied(id));
            sender.flush();
        }
        assert_eq!((tee.dropped(), ids(&tee).len()), (10, BATCHES_MAX));
        for id in 0..MESSAGES_MAX as u64 + 3 * BATCH_MAX as u64 {
            sender.push(replied(id));
        }
        sender.flush();
        let got = ids(&tee).len();
        assert!(got <= MESSAGES_MAX && got + 2 * BATCH_MAX > MESSAGES_MAX, "{got}");
        assert_eq!(tee.dropped() as usize - 10 + got, MESSAGES_MAX + 3 * BATCH_MAX);
        // Sending continues afterwards.
        sender.push(replied(7));
        sender.flush();
        assert_eq!(ids(&tee), [7]);
    }

    #[test]
    fn a_request_and_its_effect_are_described_alike() {
        let table = CommandTable::builtin();
        let part = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            describe(&table, &args, args.len(), 0)
        };
        let (set, again) = (part("SET k v EX 5"), part("set k v PXAT 99"));
        assert_eq!((set.name, set.keys(), set.values()), (again.name, again.keys(), again.values()));
        assert_eq!((set.keys(), set.values()), (&[hash_arg(b"k")][..], &[hash_arg(b"v")][..]));
        assert_ne!(set.args_hash, again.args_hash);
        assert_ne!(part("SET ab c").args_hash, part("SET a bc").args_hash);
        assert_ne!(part("LREM l 1 2").args_hash, part("LREM l 2 1").args_hash);
        let mset = part("MSET a 1 b 2 c 3 d 4");
        assert_eq!(mset.keys(), ["a", "b", "c", "d"].map(|k| hash_arg(k.as_bytes())));
        let script = part("EVALSHA cafe 2 a b x y");
        assert_eq!((script.keys().len(), script.values()), (2, &[hash_arg(b"x"), hash_arg(b"y")][..]));
        assert_eq!(part("XADD s * f last").values(), [hash_arg(b"last")]);
        assert!(part("SET k").values().is_empty() && part("MY.THING k").keys().is_empty());
        // The rest has not arrived yet.
        let huge = describe(&table, &[b"SET", b"k"], 3, 0);
        assert_eq!((huge.args_hash, huge.keys(), huge.values().len()), (0, set.keys(), 0));
    }

    #[test]
    fn a_stamp_is_small() {
        assert!(size_of::<Part>() <= 40 && size_of::<TeeMessage>() <= 88, "{}", size_of::<TeeMessage>());
    }
}
