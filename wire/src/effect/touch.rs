//! What an effect does with keys, as [`dependence`](super::dependence()) says it.

use smallvec::SmallVec;

/// What an effect does with one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Its value matters and stays as it is.
    Read,
    /// Its value matters (also that it is absent), and is another one then.
    Modified,
    /// What it held does not matter: not for what it holds then, nor for whether the command succeeds.
    Overwritten,
}

/// A key, and what happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched<'a> {
    /// Its database.
    pub db: u32,
    /// Its name.
    pub key: &'a [u8],
    /// What happens to it.
    pub touch: Touch,
}

/// Where the contents of a database are when those of `a` and `b` have changed places.
pub fn swapped(db: u32, a: u32, b: u32) -> u32 {
    match db {
        _ if db == a => b,
        _ if db == b => a,
        _ => db,
    }
}

/// The keys of one effect. One that it names twice stands there twice.
pub type TouchedKeys<'a> = SmallVec<[Touched<'a>; 2]>;

/// What an effect needs of the values before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dependence<'a> {
    /// It touches these keys and no others.
    Keys(TouchedKeys<'a>),
    /// It changes these keys and no others, and reads keys that it does not name (`SORT … BY … GET …`).
    ReadsOthers(TouchedKeys<'a>),
    /// It empties its database.
    FlushDb,
    /// It empties every database.
    FlushAll,
    /// The contents of two databases change places.
    SwapDb(u32, u32),
    /// It changes the functions or the script cache, and no key.
    Libraries,
    /// It leaves everything as it is (`PUBLISH`).
    Nothing,
    /// Unknown.
    Unknown,
}

impl<'a> Dependence<'a> {
    /// The keys that it names.
    pub fn touched(&self) -> &[Touched<'a>] {
        match self {
            Self::Keys(touched) | Self::ReadsOthers(touched) => touched,
            _ => &[],
        }
    }
}
