//! Which keys an effect touches, for the journal's key filters.
//!
//! Invariant: what is named is all that the effect can touch. Where that is not certain, nothing is named, and a
//! search for any key finds the effect. Commands of modules name their keys and are marked: they may touch others beside them.

use crate::command::{CommandTable, KeyPositions, NAME_MAX, lower_name};
use crate::word;

/// Stands among the named keys, in front of them, where there may be others: argument 0 is the command itself, and never a key.
pub const OTHERS_TOO: usize = 0;

/// The arguments that are its keys; `None` = not known, or others beside them.
pub fn named_keys(table: &CommandTable, args: &[&[u8]]) -> Option<KeyPositions> {
    let mut room = [0; NAME_MAX];
    let name = lower_name(args.first()?, &mut room);
    match name {
        // Channels, not keys.
        b"publish" | b"spublish" => return Some(KeyPositions::new()),
        // They also touch keys of another database.
        b"copy" if args.iter().skip(3).any(|arg| word::is(arg, "db")) => return None,
        // So does this; and scripts may touch what they do not declare.
        b"move" | b"eval" | b"evalsha" | b"fcall" => return None,
        _ => {}
    }
    let spec = table.get_lower(name).filter(|spec| spec.keys_are_known())?;
    let mut keys = spec.keys(args, args.len());
    // Without a key, it may touch them all: FLUSHALL, SWAPDB, FUNCTION, …
    if keys.is_empty() {
        return None;
    }
    // What a module names may not be all.
    if spec.module {
        keys.insert(0, OTHERS_TOO);
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use crate::command::CommandSpec;

    use super::*;

    #[test]
    fn keys_are_named_only_where_they_are_all() {
        let table = CommandTable::builtin();
        for (line, keys) in [
            ("SET a 1", Some(vec![1])),
            ("del a b", Some(vec![1, 2])),
            ("MSET a 1 b 2", Some(vec![1, 3])),
            ("RENAME a b", Some(vec![1, 2])),
            ("ZUNIONSTORE c 2 a b", Some(vec![1, 3, 4])),
            ("SORT l STORE d", Some(vec![1, 3])),
            ("COPY a b", Some(vec![1, 2])),
            ("COPY a b REPLACE", Some(vec![1, 2])),
            ("COPY a b db 2", None),
            ("COPY a b DB\0 2", None),
            ("MOVE a 2", None),
            ("PUBLISH a b", Some(vec![])),
            ("FLUSHALL", None),
            ("FLUSHDB ASYNC", None),
            ("SWAPDB 0 1", None),
            ("EVAL x 1 a", None),
            ("SCRIPT LOAD x", None),
            ("JSON.SET a . 1", None),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(named_keys(&table, &args).map(|keys| keys.to_vec()), keys, "{line}");
        }
        assert_eq!(named_keys(&table, &[]), None);
    }

    #[test]
    fn a_module_may_touch_more_than_it_names() {
        let module = CommandSpec::new("json.set", -4, &["write", "module"], 1, 1, 1);
        let table = CommandTable::from_specs([module]);
        let keys = named_keys(&table, &[b"JSON.SET", b"k", b".", b"1"]).map(|keys| keys.to_vec());
        assert_eq!(keys, Some(vec![OTHERS_TOO, 1]));
    }
}
