//! Which keys and databases one command of the replication stream touches.

use smallvec::SmallVec;

use super::dependence::dependence;
use super::touch::Touch;
use crate::command::{NAME_MAX, lower_name};
use crate::word;

/// What an effect touches: its key scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyScope<'a> {
    /// These keys, each in its database, and no others; empty = none.
    Keys(SmallVec<[(u32, &'a [u8]); 2]>),
    /// Every key of these databases.
    Databases(SmallVec<[u32; 2]>),
    /// Every key of every database.
    Everything,
    /// Unknown: any key of any database.
    Unknown,
}

/// The key scope of a command in database `db`. `keys`: which arguments are its keys, if the journal knows.
pub fn key_scope<'a>(db: u32, args: &[&'a [u8]], keys: Option<&[usize]>) -> KeyScope<'a> {
    let mut room = [0; NAME_MAX];
    let Some(name) = args.first() else { return KeyScope::Unknown };
    let number = |at: usize| std::str::from_utf8(args.get(at)?).ok()?.parse::<u32>().ok();
    match lower_name(name, &mut room) {
        b"flushall" => return KeyScope::Everything,
        b"flushdb" => return KeyScope::Databases(SmallVec::from_slice(&[db])),
        b"swapdb" => {
            return match (number(1), number(2)) {
                (Some(a), Some(b)) => KeyScope::Databases(SmallVec::from_slice(&[a, b])),
                _ => KeyScope::Unknown,
            };
        }
        // Scripts and libraries themselves, and channels.
        b"script" | b"function" | b"publish" | b"spublish" => return KeyScope::Keys(SmallVec::new()),
        b"move" => {
            return match (args.get(1), number(2)) {
                (Some(key), Some(to)) => KeyScope::Keys(SmallVec::from_slice(&[(db, *key), (to, *key)])),
                _ => KeyScope::Unknown,
            };
        }
        b"copy" => {
            let (Some(from), Some(to)) = (args.get(1), args.get(2)) else { return KeyScope::Unknown };
            return match copied_to(db, args) {
                Some(there) => KeyScope::Keys(SmallVec::from_slice(&[(db, *from), (there, *to)])),
                None => KeyScope::Unknown,
            };
        }
        _ => {}
    }
    match keys {
        // Argument 0 is no key: the journal says so that there may be others (commands of modules).
        Some(keys) => {
            let keys = keys.iter().filter(|at| **at > 0).filter_map(|at| args.get(*at));
            KeyScope::Keys(keys.map(|key| (db, *key)).collect())
        }
        None => KeyScope::Unknown,
    }
}

/// The database into which a `COPY` copies.
pub fn copied_to(db: u32, args: &[&[u8]]) -> Option<u32> {
    match args.iter().skip(3).position(|arg| word::is(arg, "db")) {
        Some(at) => std::str::from_utf8(args.get(at + 4)?).ok()?.parse().ok(),
        None => Some(db),
    }
}

/// Whether a command in database `db` only reads `key` of `key_db`, which is in its scope, to write another key.
pub fn is_only_read(db: u32, args: &[&[u8]], key_db: u32, key: &[u8]) -> bool {
    let dependence = dependence(db, args, None);
    let mut touches = dependence.touched().iter().filter(|t| t.db == key_db && t.key == key).peekable();
    touches.peek().is_some() && touches.all(|t| t.touch == Touch::Read)
}

impl KeyScope<'_> {
    /// It touches something in this database, or may do so.
    pub fn may_be_in(&self, db: u32) -> bool {
        match self {
            Self::Keys(keys) => keys.iter().any(|(in_db, _)| *in_db == db),
            Self::Databases(dbs) => dbs.contains(&db),
            Self::Everything | Self::Unknown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(db: u32, line: &str, keys: Option<&[usize]>) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        match key_scope(db, &args, keys) {
            KeyScope::Keys(keys) => {
                let keys: Vec<String> =
                    keys.iter().map(|(db, key)| format!("{db}:{}", String::from_utf8_lossy(key))).collect();
                keys.join(" ")
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn sources_are_read_and_destinations_written() {
        for (line, key_db, key, only_read) in [
            ("COPY k a", 2, "k", true),
            ("COPY a k", 2, "k", false),
            ("COPY k k DB 5", 2, "k", true),
            ("COPY k k DB 5", 5, "k", false),
            ("COPY k k", 2, "k", false),
            ("SUNIONSTORE d k", 2, "k", true),
            ("sunionstore k a", 2, "k", false),
            ("PFMERGE k a", 2, "k", false),
            ("PFMERGE d k", 2, "k", true),
            ("BITOP AND d k a", 2, "k", true),
            ("BITOP AND k k a", 2, "k", false),
            ("SORT k BY x STORE d", 2, "k", true),
            ("SORT k STORE k", 2, "k", false),
            ("GEORADIUS k 0 0 1 km storedist d", 2, "k", true),
            ("RENAME k a", 2, "k", false),
            ("LMOVE k a LEFT LEFT", 2, "k", false),
            ("SET k v", 2, "k", false),
            ("SORT k", 2, "k", false),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(is_only_read(2, &args, key_db, key.as_bytes()), only_read, "{line} {key_db}");
        }
    }

    #[test]
    fn keys_and_databases() {
        for (line, keys, want) in [
            ("SET a 1", Some(&[1][..]), "2:a"),
            ("RENAME a b", Some(&[1, 2]), "2:a 2:b"),
            ("PUBLISH c m", Some(&[]), ""),
            ("FLUSHALL", None, "Everything"),
            ("flushdb ASYNC", None, "Databases([2])"),
            ("SWAPDB 0 7", None, "Databases([0, 7])"),
            ("SWAPDB x 7", None, "Unknown"),
            ("MOVE a 5", None, "2:a 5:a"),
            ("MOVE a", None, "Unknown"),
            ("COPY a b DB 5", None, "2:a 5:b"),
            ("COPY a b REPLACE", Some(&[1, 2]), "2:a 2:b"),
            ("COPY a b db\0x 5", Some(&[1, 2]), "2:a 5:b"),
            ("COPY a b DB", None, "Unknown"),
            ("SCRIPT LOAD x", None, ""),
            ("FUNCTION LOAD x", None, ""),
            ("EVAL x 1 a", None, "Unknown"),
            ("JSON.SET a . 1", None, "Unknown"),
            ("JSON.SET a . 1", Some(&[0, 1]), "2:a"),
        ] {
            assert_eq!(show(2, line, keys), want, "{line}");
        }
        assert_eq!(key_scope(0, &[], None), KeyScope::Unknown);
        let swapped = key_scope(3, &[b"SWAPDB", b"0", b"7"], None);
        assert!(swapped.may_be_in(7) && !swapped.may_be_in(3));
    }
}
