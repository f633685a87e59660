//! A value as clients see it, whatever it was encoded as. Two values are equal if and only if their canonical forms are,
//! but for those of modules, which only the module could compare.

/// Any bytes: keys, fields, members, elements.
pub type Bytes = Vec<u8>;

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A string, also one that holds a number.
    String(Bytes),
    /// Elements from left to right.
    List(Vec<Bytes>),
    /// Members in the order of their bytes.
    Set(Vec<Bytes>),
    /// Members in the order of `ZRANGE`: by score, then by bytes.
    Zset(Vec<(Bytes, Score)>),
    /// Fields in the order of their bytes.
    Hash(Vec<Field>),
    /// A stream.
    Stream(Box<Stream>),
    /// A value of a module: opaque. Unequal bytes say nothing: a vector set (Redis 8.0) is written in another order after
    /// each load.
    Module {
        /// The id of its type, see [`module_type`](super::module_type).
        id: u64,
        /// Everything behind the id.
        data: Bytes,
    },
}

/// A score, compared by its bits: `-0` and `0` are told apart, as `ZSCORE` does. Never NaN.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Score(u64);

impl Score {
    /// `None` for what is no number: no server has such a score.
    pub fn new(score: f64) -> Option<Self> {
        (!score.is_nan()).then(|| Self(score.to_bits()))
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl std::fmt::Debug for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.get())
    }
}

/// A field of a hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// Its name.
    pub name: Bytes,
    /// Its value.
    pub value: Bytes,
    /// When it expires, in ms since 1970.
    pub expires_at_ms: Option<i64>,
}

/// The id of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct StreamId {
    /// Milliseconds.
    pub ms: u64,
    /// Number inside the millisecond.
    pub seq: u64,
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Entries in the order of their ids.
    pub entries: Vec<StreamEntry>,
    /// The greatest id ever given.
    pub last_id: StreamId,
    /// Id of the first entry; `0-0` if there is none.
    pub first_id: StreamId,
    /// The greatest id that was deleted. Before Redis 7.0 nothing is stored; a newer server takes `0-0` then.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added. Before Redis 7.0 nothing is stored; a newer server takes the length then.
    pub entries_added: u64,
    /// Groups in the order of their names.
    pub groups: Vec<Group>,
    /// Redis 8.6: idempotent producers.
    pub idempotence: Option<Idempotence>,
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its id.
    pub id: StreamId,
    /// Fields and values as they were added; a name may stand twice.
    pub fields: Vec<(Bytes, Bytes)>,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: Bytes,
    /// The last entry that was delivered.
    pub last_id: StreamId,
    /// How many entries were read; `None` where the server does not know, and before Redis 7.0.
    pub entries_read: Option<u64>,
    /// Consumers in the order of their names.
    pub consumers: Vec<Consumer>,
    /// Pending entries in the order of their ids.
    pub pending: Vec<Pending>,
}

/// A consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name.
    pub name: Bytes,
    /// When it asked last, in ms since 1970.
    pub seen_ms: i64,
    /// When it was given something last; -1: never. Before Redis 7.2 nothing is stored; a newer server takes `seen_ms`.
    pub active_ms: i64,
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its id; the entry itself may be deleted.
    pub id: StreamId,
    /// When it was delivered last, in ms since 1970.
    pub delivered_ms: i64,
    /// How often.
    pub deliveries: u64,
    /// Its consumer: an index into [`Group::consumers`].
    pub consumer: usize,
}

/// What a stream keeps so that an entry is not added twice (`XADD … IDMP`, Redis 8.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotence {
    /// How long an id is kept, in seconds.
    pub duration_seconds: u64,
    /// How many ids of a producer are kept.
    pub max_ids: u64,
    /// Producers in the order of their names, each with its ids in the order in which they were added.
    pub producers: Vec<(Bytes, Vec<(Bytes, StreamId)>)>,
    /// Entries that were added with an id.
    pub added: u64,
    /// Entries that were not added, since their id was kept.
    pub duplicates: u64,
}

impl Stream {
    /// Forgets what each server counts for itself and does not replicate: when consumers were seen, how many entries
    /// groups have read. For comparisons of two servers.
    pub fn forget_unreplicated(&mut self) {
        for group in &mut self.groups {
            group.entries_read = None;
            for consumer in &mut group.consumers {
                (consumer.seen_ms, consumer.active_ms) = (0, 0);
            }
        }
    }
}

impl Value {
    /// The name that `TYPE` gives.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Zset(_) => "zset",
            Self::Hash(_) => "hash",
            Self::Stream(_) => "stream",
            Self::Module { .. } => "module",
        }
    }
}
