//! What an effect writes of keys, as [`writes`](super::writes()) says it.

use smallvec::SmallVec;

/// What is there behind a write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum After<'a> {
    /// Nothing.
    Absent,
    /// A member of a set.
    Present,
    /// This value: of a field or a string.
    Is(&'a [u8]),
    /// This score.
    Score(f64),
    /// This time, in milliseconds since 1970: of a TTL.
    Until(i64),
    /// Something else than before.
    Changed,
    /// Something else than before, or nothing: an element that was taken may have been the last.
    ChangedOrAbsent,
    /// Anything, also the same as before or nothing: it comes from elsewhere.
    Any,
}

/// One write of a key's value, of one of its elements, or of its TTL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Write<'a> {
    /// What is there then.
    pub after: After<'a>,
    /// Something else was there before, or it was replaced as a whole. If not, all that is certain is what is there then; and where that is not said
    /// ([`After::Changed`], [`After::ChangedOrAbsent`], [`After::Any`]), it may not be written at all.
    pub certain: bool,
}

impl<'a> Write<'a> {
    pub(super) const fn certain(after: After<'a>) -> Self {
        Self { after, certain: true }
    }

    pub(super) const fn stated(after: After<'a>) -> Self {
        Self { after, certain: false }
    }

    /// It may have left everything as it was, and what is there then is not said.
    pub fn is_perhaps(&self) -> bool {
        !self.certain && matches!(self.after, After::Changed | After::ChangedOrAbsent | After::Any)
    }
}

/// What an effect writes of a key's elements.
#[derive(Debug, Clone, PartialEq)]
pub enum Elements<'a> {
    /// None.
    None,
    /// These and no others. One that is named twice stands there twice: the last one counts.
    Listed(SmallVec<[(&'a [u8], Write<'a>); 1]>),
    /// Some that it does not name.
    Unlisted,
    /// All that there were and are: the key is replaced or removed.
    Whole,
}

/// What an effect writes of one key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyWrite<'a> {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: &'a [u8],
    /// Its elements.
    pub elements: Elements<'a>,
    /// The value as a whole; `None` = it stays.
    pub value: Option<Write<'a>>,
    /// Its TTL; `None` = it stays.
    pub ttl: Option<Write<'a>>,
}

/// The keys that one effect writes. One that it names twice stands there twice.
pub type KeyWrites<'a> = SmallVec<[KeyWrite<'a>; 1]>;

/// What an effect writes.
#[derive(Debug, Clone, PartialEq)]
pub enum Writes<'a> {
    /// Of these keys, and of no others.
    Keys(KeyWrites<'a>),
    /// It empties its database.
    FlushDb,
    /// It empties every database.
    FlushAll,
    /// The contents of two databases change places.
    SwapDb(u32, u32),
    /// No key.
    Nothing,
    /// Anything of these keys.
    UnknownOf {
        /// Databases and keys.
        keys: SmallVec<[(u32, &'a [u8]); 2]>,
        /// It may write others beside them (commands of modules).
        others: bool,
    },
    /// Anything of any key.
    Unknown,
}
