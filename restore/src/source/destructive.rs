//! A last write before the cut that removed much: a person who asks for that point in time usually wants the state before it.

use redtape_journal::{Catalog, Group, Lsn, Origin, OriginKind, Record, Window};
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
    let first = last.records.first()?.lsn;
    let reaches = |w: &Window| w.timeline == point.timeline && w.from_lsn < first && first.0 <= w.to_lsn.0 + 1;
    let before = if catalog.windows().iter().any(reaches) {
        // The record before the first one of a timeline may be the last one of another timeline.
        let begins = catalog.timelines().iter().any(|t| t.id == point.timeline && t.first_lsn >= first);
        if begins { Before::Write(first) } else { Before::Record(Lsn(first.0 - 1)) }
    } else {
        Before::Nothing
    };
    warning(&last, before)
}

/// What there is just before a write.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// This record of the same timeline.
    Record(Lsn),
    /// The beginning of the timeline, before the write with this LSN.
    Write(Lsn),
    /// Nothing that can be restored.
    Nothing,
}

fn warning(last: &Group, before: Before) -> Option<String> {
    let what = removed_by(last)?;
    let before = match before {
        Before::Record(lsn) => format!("just before it: --at lsn:{lsn}"),
        Before::Write(lsn) => format!("just before it: --before lsn:{lsn}"),
        Before::Nothing => "the state before it cannot be restored from this journal".to_owned(),
    };
    Some(format!("the last write included is {what} by {}; {before}", who(&last.origin)))
}

/// A client by its name, else its address, with its user; what is no client as the log has it.
fn who(origin: &Origin) -> String {
    let client = if origin.name.is_empty() { &origin.addr } else { &origin.name };
    match origin.kind {
        OriginKind::Client if !matches!(&origin.user[..], "" | "default") => format!("{client} as {}", origin.user),
        OriginKind::Client => client.clone(),
        _ => origin.to_string(),
    }
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
    let deletions: Vec<&Record> = group.records.iter().filter(deletes).collect();
    let keys: usize = deletions.iter().map(|record| record.args.len() - 1).sum();
    let command = deletions.first().map(|record| name(record).to_ascii_uppercase())?;
    let same = deletions.iter().all(|record| name(record).eq_ignore_ascii_case(&command));
    let what = if same { String::from_utf8_lossy(&command).into_owned() } else { "DEL and UNLINK".to_owned() };
    (keys >= MANY_KEYS).then(|| format!("{what} of {keys} keys"))
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
            (&[(0, &many)], Some("DEL of 100 keys")),
            (&[(0, &half), (1, &half)], Some("DEL of 100 keys")),
            (&[(0, &half), (1, &half.replace("DEL", "unlink"))], Some("DEL and UNLINK of 100 keys")),
            (&[(0, &many.replace("DEL", "Unlink"))], Some("UNLINK of 100 keys")),
            (&[(0, &few)], None),
            (&[(0, "SET flushall 1")], None),
        ] {
            assert_eq!(removed_by(&group(1, 1, true, commands)).as_deref(), want, "{commands:?}");
        }
    }

    #[test]
    fn the_moment_before_it_is_named() {
        let by = |kind: OriginKind, addr: &str, name: &str, user: &str| {
            let [addr, name, user] = [addr, name, user].map(str::to_owned);
            let mut flushed = group(18_547, 1, true, &[(0, "SET a 1"), (0, "FLUSHALL")]);
            flushed.origin = std::sync::Arc::new(Origin { kind, addr, name, user, via: "exec".to_owned() });
            flushed
        };
        for (group, want) in [
            (by(OriginKind::Client, "10.0.0.5:1", "intern", "default"), "intern"),
            (by(OriginKind::Client, "10.0.0.5:1", "billing", "alice"), "billing as alice"),
            (by(OriginKind::Client, "10.0.0.5:1", "", ""), "10.0.0.5:1"),
            (by(OriginKind::Outside, "", "", ""), "outside the proxy"),
        ] {
            let told = format!("the last write included is FLUSHALL by {want}; just before it: --at lsn:18546");
            assert_eq!(warning(&group, Before::Record(Lsn(18_546))), Some(told));
        }
        let first = by(OriginKind::Client, "", "intern", "");
        for (before, words) in [
            (Before::Write(Lsn(18_547)), "just before it: --before lsn:18547"),
            (Before::Nothing, "the state before it cannot be restored from this journal"),
        ] {
            let told = format!("the last write included is FLUSHALL by intern; {words}");
            assert_eq!(warning(&first, before), Some(told));
        }
        assert_eq!(warning(&group(5, 1, false, &[(0, "SET a 1")]), Before::Nothing), None);
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
