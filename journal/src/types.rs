//! The newtypes and the unit of the journal: a stamped, ordered group of opaque commands.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::automatic_mark;

/// The number of one record in the journal: 1 for the first, without holes; 0 = before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

/// Microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// A position in the byte stream of the source (Redis: the replication offset).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplOffset(pub u64);

/// The number of a timeline: 1 for the first, one more for each break of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ReplOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Micros {
    /// The wall clock, now.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// RFC 3339, UTC, always six digits of the second: `2026-11-20T22:52:44.000123Z`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t:.6}"),
            Err(_) => write!(f, "@{}us", self.0),
        }
    }
}

/// When data is synced, in Redis's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncPolicy {
    /// After each batch of blocks (group commit).
    Always,
    /// At most a second after a write.
    #[default]
    EverySec,
    /// Only at a seal, and when asked.
    No,
}

/// Where a journal ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPosition {
    /// The last timeline begun.
    pub timeline: TimelineId,
    /// Id of its source (Redis: the replication id).
    pub source_id: String,
    /// Last LSN in the journal, 0 if there is none.
    pub last_lsn: Lsn,
    /// Time of the last group; 0 if there is none.
    pub last_ts: Micros,
    /// The journal is known to be complete up to this time.
    pub complete_until: Micros,
    /// Position in the source from which to resume.
    pub end_offset: ReplOffset,
    /// Database selected at that position.
    pub db: u32,
}

/// Who caused a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum OriginKind {
    /// A client of the proxy: `addr`, `user` and `name` say which.
    Client = 0,
    /// The server removed an expired key or field.
    Expiry = 1,
    /// The server removed a key because memory was full.
    Eviction = 2,
    /// A writer that did not come through the proxy.
    Outside = 3,
    /// Not known: the stamp was lost (restart, overflow), or capture has no tee.
    Unknown = 4,
}

impl OriginKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Client, Self::Expiry, Self::Eviction, Self::Outside, Self::Unknown];

    /// As in JSON, and in filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Expiry => "expiry",
            Self::Eviction => "eviction",
            Self::Outside => "outside",
            Self::Unknown => "unknown",
        }
    }
}

/// Who caused a group, in full. Empty strings = not known or not set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The kind of cause.
    pub kind: OriginKind,
    /// Address of the client, `ip:port`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub addr: String,
    /// ACL user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Name set with `CLIENT SETNAME`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The command that the client sent, where it differs from the effect (`EVALSHA`, `SPOP`, …).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub via: String,
}

/// For a person: who it was, as far as is known.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = match self.kind {
            OriginKind::Client => self.addr.clone(),
            OriginKind::Expiry => return f.pad("expiry"),
            OriginKind::Eviction => return f.pad("eviction"),
            OriginKind::Outside => return f.pad("outside the proxy"),
            OriginKind::Unknown if self.addr.is_empty() => return f.pad("unknown"),
            OriginKind::Unknown => format!("{} (user unknown)", self.addr),
        };
        if !self.name.is_empty() {
            text = format!("{text} {}", self.name);
        }
        if !self.user.is_empty() && self.user != "default" {
            text = format!("{text} as {}", self.user);
        }
        if !self.via.is_empty() {
            text = format!("{text} by {}", self.via.to_ascii_uppercase());
        }
        f.pad(&text)
    }
}

impl Origin {
    /// An origin without a client.
    pub fn of(kind: OriginKind) -> Self {
        Self { kind, addr: String::new(), user: String::new(), name: String::new(), via: String::new() }
    }
}

/// One command to be written: borrowed, so that the hot path copies its bytes once, into the block.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Database number in which it runs.
    pub db: u32,
    /// The command and its arguments.
    pub args: &'a [&'a [u8]],
    /// Which of the arguments are keys.
    pub keys: KeysAt<'a>,
}

/// Which arguments of a record are the keys that it touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeysAt<'a> {
    /// Not known, or it touches keys that it does not name: a search for any key finds the record.
    Unknown,
    /// These, and no others unless [`OTHERS_TOO`] is among them; empty = it touches none. Numbers that no argument has mean
    /// [`KeysAt::Unknown`].
    Arguments(&'a [usize]),
}

/// Among the arguments that are keys (it is the command's name, which is no key): it may touch keys that it does not name, so that no
/// key filter rules it out.
pub const OTHERS_TOO: usize = 0;

/// One group to be written.
#[derive(Debug, Clone, Copy)]
pub struct GroupRef<'a> {
    /// When it ran; must not be smaller than the predecessor's.
    pub ts: Micros,
    /// How many µs earlier than `ts` it may have run.
    pub slack: u64,
    /// Who caused it. Groups that share one are encoded fastest.
    pub origin: &'a Arc<Origin>,
    /// It stood between `MULTI` and `EXEC`.
    pub atomic: bool,
    /// Position in the source just after it.
    pub end_offset: ReplOffset,
    /// What it did; never empty.
    pub records: &'a [RecordRef<'a>],
}

/// One command read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub lsn: Lsn,
    /// Database number in which it runs.
    pub db: u32,
    /// The command and its arguments.
    pub args: Vec<bytes::Bytes>,
    /// Which of the arguments are the keys that it touches; `None` = not known, or others beside them; so does [`OTHERS_TOO`].
    pub keys: Option<SmallVec<[usize; 2]>>,
}

impl Record {
    /// Whether it touches this key, or may do so.
    pub fn may_touch(&self, db: u32, key: &[u8]) -> bool {
        let Some(keys) = &self.keys else { return true };
        self.db == db && keys.iter().any(|at| self.args.get(*at).is_some_and(|arg| arg == key))
    }
}

/// One group read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// When it ran.
    pub ts: Micros,
    /// How many µs earlier than `ts` it may have run.
    pub slack: u64,
    /// Who caused it.
    pub origin: Arc<Origin>,
    /// It stood between `MULTI` and `EXEC`.
    pub atomic: bool,
    /// Position in the source just after it.
    pub end_offset: ReplOffset,
    /// What it did, in order; never empty.
    pub records: Vec<Record>,
}

/// A named restore point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its name, unique as people use it; the newest of a name counts.
    pub name: String,
    /// When it was set.
    pub ts: Micros,
    /// Everything up to this LSN is before it.
    pub lsn: Lsn,
}

impl Mark {
    /// Whether a mark may be called so: it can be typed as `mark:NAME` and printed as it is. The error
    /// says what is wrong with it.
    pub fn check_name(name: &str) -> Result<(), &'static str> {
        const LONGEST: usize = 128;
        if name.trim() != name {
            return Err("a mark's name does not begin or end with a blank");
        }
        if name.chars().any(char::is_control) {
            return Err("a mark's name holds no control characters");
        }
        if !(1..=LONGEST).contains(&name.chars().count()) {
            return Err("a mark's name has 1 to 128 characters");
        }
        if automatic_mark::is_automatic(name) {
            return Err("names like before-FLUSHALL@TIME belong to the marks that redtape sets by itself");
        }
        Ok(())
    }

    /// The mark that redtape sets by itself before a write at `ts`; `lsn`: the last record before it. `command` is in capital letters.
    #[must_use]
    pub fn automatic(command: &str, ts: Micros, lsn: Lsn) -> Self {
        Self { name: automatic_mark::name(command, ts), ts, lsn }
    }

    /// redtape has set it by itself.
    #[must_use]
    pub fn is_automatic(&self) -> bool {
        automatic_mark::is_automatic(&self.name)
    }

    /// The same with its LSN in its name.
    #[must_use]
    pub(crate) fn with_lsn_in_name(self) -> Self {
        Self { name: automatic_mark::with_lsn(&self.name, self.lsn), ..self }
    }

    /// Its name for a terminal: what would control it is escaped.
    pub fn shown_name(&self) -> String {
        let mut shown = String::with_capacity(self.name.len());
        for c in self.name.chars() {
            if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
        }
        shown
    }
}
