//! A last write before the cut that removed much: a person who asks for that point in time usually wants the state before it.

use redtape_journal::{Catalog, Group, Lsn, Record};
use redtape_wire::effect::{KeyScope, key_scope};

use crate::point::RestorePoint;

/// `DEL` and `UNLINK` of so many keys in one group count.
const MANY_KEYS: usize = 100;
/// So many groups before the cut are looked at: those that touch no key (`PUBLISH`) are passed over.
const LOOK_BACK_GROUPS: usize = 64;

/// Says so, if the last write before the cut is one. What cannot be read is no concern of this.
pub(super) fn last_write(catalog: &Catalog, point: &RestorePoint) -> Option<String> {
    let groups = catalog.groups_back(point.lsn, point.timeline).take(LOOK_BACK_GROUPS);
    let last = groups.map_while(Result::ok).find(|group| group.records.iter().any(touches_keys))?;
    let what = removed_by(&last)?;
    let first = last.records.first().map_or(Lsn(0), |record| record.lsn);
    Some(format!(
        "the last write before this point is {what} by {} at {} (LSN {first}); --before lsn:{first} gives the state before it",
        last.origin, last.ts
    ))
}

fn arguments(record: &Record) -> Vec<&[u8]> {
    record.args.iter().map(|arg| &arg[..]).collect()
}

fn touches_keys(record: &Record) -> bool {
    let args = arguments(record);
    !matches!(key_scope(record.db, &args, record.keys.as_deref()), KeyScope::Keys(keys) if keys.is_empty())
}

/// What a group did that removes much; the last of several.
fn removed_by(group: &Group) -> Option<String> {
    let name = |record: &Record| record.args.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
    let whole = |record: &Record| match &name(record)[..] {
        b"flushall" => Some("FLUSHALL".to_owned()),
        b"flushdb" => Some(format!("FLUSHDB of db {}", record.db)),
        b"swapdb" => {
            let arg = |at: usize| record.args.get(at).map_or("?".into(), |arg| String::from_utf8_lossy(arg));
            Some(format!("SWAPDB {} {}", arg(1), arg(2)))
        }
        _ => None,
    };
    if let Some(what) = group.records.iter().rev().find_map(whole) {
        return Some(what);
    }
    let deletes = |record: &&Record| matches!(&name(record)[..], b"del" | b"unlink");
    let keys: usize = group.records.iter().filter(deletes).map(|record| record.args.len() - 1).sum();
    (keys >= MANY_KEYS).then(|| format!("a deletion of {keys} keys"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::journal_range::by_hand::group;

    #[test]
    fn what_removes_much() {
        let del = |n: usize| format!("DEL{}", " k".repeat(n));
        let many = del(MANY_KEYS);
        let (half, few) = (del(MANY_KEYS / 2), del(MANY_KEYS - 1));
        for (commands, want) in [
            (&[(0, "FLUSHALL")][..], Some("FLUSHALL")),
            (&[(3, "flushdb ASYNC")], Some("FLUSHDB of db 3")),
            (&[(0, "SWAPDB 0 1")], Some("SWAPDB 0 1")),
            (&[(0, "FLUSHDB"), (0, "SET a 1")], Some("FLUSHDB of db 0")),
            (&[(0, &many)], Some("a deletion of 100 keys")),
            (&[(0, &half), (1, &half)], Some("a deletion of 100 keys")),
            (&[(0, &few)], None),
            (&[(0, "SET flushall 1")], None),
        ] {
            assert_eq!(removed_by(&group(1, 1, true, commands)).as_deref(), want, "{commands:?}");
        }
    }

    #[test]
    fn what_touches_no_key_is_passed_over() {
        let touches = |line: &str, keys: Option<&[usize]>| {
            let mut group = group(1, 1, false, &[(0, line)]);
            group.records[0].keys = keys.map(Into::into);
            touches_keys(&group.records[0])
        };
        assert!(!touches("PUBLISH a b", Some(&[])) && !touches("SCRIPT LOAD x", None));
        assert!(touches("SET a b", Some(&[1])) && touches("FLUSHALL", None) && touches("MODULE.DO", None));
    }
}
