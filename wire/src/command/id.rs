//! Command names as small numbers, so that who compares and stores many of them need not carry text.
//!
//! Process-wide and append-only: an id once given stands for its name for ever, whichever table it is
//! met in. Names come from clients too (modules, typing errors), so their number is bounded.

use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock};

use super::NAME_MAX;

/// Names that get an id of their own; those that come later share [`CommandId::OTHER`].
const IDS_MAX: usize = 4096;

static NAMES: [OnceLock<Box<[u8]>>; IDS_MAX] = [const { OnceLock::new() }; IDS_MAX];
static IDS: RwLock<Option<HashMap<Box<[u8]>, CommandId>>> = RwLock::new(None);

/// The name of a command: two are equal if the lower-case names are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(u16);

impl CommandId {
    /// Names beyond the limit; they cannot be told apart.
    pub const OTHER: Self = Self(0);

    /// The id of a name in lower case.
    pub fn of(lower: &[u8]) -> Self {
        debug_assert!(!lower.iter().any(u8::is_ascii_uppercase), "ids are of lower-case names");
        let lower = &lower[..lower.len().min(NAME_MAX)];
        let known = |ids: &Option<HashMap<Box<[u8]>, Self>>| ids.as_ref().and_then(|ids| ids.get(lower).copied());
        if let Some(id) = known(&IDS.read().unwrap_or_else(PoisonError::into_inner)) {
            return id;
        }
        let mut ids = IDS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = known(&ids) {
            return id;
        }
        let ids = ids.get_or_insert_default();
        // The first number is that of all the others.
        let next = ids.len() + 1;
        if next >= IDS_MAX {
            return Self::OTHER;
        }
        NAMES[next].get_or_init(|| lower.into());
        let id = Self(next as u16);
        ids.insert(lower.into(), id);
        id
    }

    /// The id of a name in lower case that has one already, else [`Self::OTHER`]. For names from clients that the server
    /// has not admitted: they must not use the numbers up.
    pub fn known(lower: &[u8]) -> Self {
        let lower = &lower[..lower.len().min(NAME_MAX)];
        let ids = IDS.read().unwrap_or_else(PoisonError::into_inner);
        ids.as_ref().and_then(|ids| ids.get(lower).copied()).unwrap_or(Self::OTHER)
    }

    /// The name, in lower case.
    pub fn name(self) -> &'static [u8] {
        NAMES[usize::from(self.0)].get().map_or(b"?", |name| name)
    }
}

impl std::fmt::Debug for CommandId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_id_and_gives_it_back() {
        let (set, get) = (CommandId::of(b"set"), CommandId::of(b"get"));
        assert_ne!(set, get);
        assert_eq!((set, set.name(), get.name()), (CommandId::of(b"set"), &b"set"[..], &b"get"[..]));
        let spec = crate::command::CommandTable::builtin().get(b"SeT").map(|s| s.id);
        assert_eq!(spec, Some(set));
        assert_eq!((CommandId::known(b"set"), CommandId::known(b"never.met")), (set, CommandId::OTHER));
    }
}
