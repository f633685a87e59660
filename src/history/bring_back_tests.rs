use redtape_journal::query::Filter;
use redtape_journal::{Micros, OriginKind, ReplOffset};

use super::super::selection::Wanted;
use super::*;

/// What the options are is not looked at here: only their words.
fn bring_back(key_words: &[&str], cause_words: &[&str]) -> BringBack {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    BringBack {
        journal_words: Vec::new(),
        key_words: words(key_words),
        cause_words: words(cause_words),
        can_repeat_filters: true,
        has_other_names: false,
    }
}

fn write(lsn: u64, kind: OriginKind, line: &str) -> Group {
    let args: Vec<_> = line.split(' ').map(|word| word.as_bytes().to_vec().into()).collect();
    let keys = match args.len() {
        1 => None,
        2.. if line.starts_with("SWAPDB") || line.starts_with("FLUSH") => None,
        _ if line.starts_with("SET") => Some([1].into_iter().collect()),
        len => Some((1..len).collect()),
    };
    Group {
        ts: Micros(1),
        slack: 0,
        origin: Arc::new(Origin { addr: "10.0.0.5:1".to_owned(), ..Origin::of(kind) }),
        atomic: false,
        end_offset: ReplOffset(1),
        records: vec![Record { lsn: Lsn(lsn), db: 2, args, keys }],
    }
}

fn removal(bring_back: &BringBack, keys: &Filter, lsn: u64, kind: OriginKind, line: &str) -> Option<Removal> {
    let selection = Selection::new(Wanted { keys: keys.clone(), ..Wanted::default() }).expect("a selection");
    let group = write(lsn, kind, line);
    bring_back.removal(&selection, TimelineId(1), &group, &group.records[0])
}

#[test]
fn each_write_has_its_commands() {
    let all = Filter::default;
    let key = |dbs: &[u32]| Filter::new(&["k"], &[], dbs).expect("a key");
    let glob = || Filter::new(&["k*"], &[], &[]).expect("a glob");
    let nine = "DEL 1 2 3 4 5 6 7 8 9";
    for (line, keys, words, want) in [
        ("DEL k", all(), &[][..], Some(("lsn:9", Some("--db 2 --exact-key k --on-conflict skip")))),
        (
            "UNLINK a\tb k",
            all(),
            &[],
            Some(("lsn:9", Some("--db 2 --exact-key '\"a\\tb\"' --exact-key k --on-conflict skip"))),
        ),
        (nine, all(), &[], Some(("lsn:9", None))),
        (nine, glob(), &["--key 'k*'"], None),
        (
            "DEL k a",
            key(&[]),
            &["--key k"],
            Some(("lsn:9 --db 2 --exact-key k", Some("--db 2 --exact-key k --on-conflict skip"))),
        ),
        (
            "DEL k1 a",
            glob(),
            &["--key 'k*'"],
            Some(("lsn:9 --db 2 --exact-key k1", Some("--db 2 --exact-key k1 --on-conflict skip"))),
        ),
        ("RENAME a k", all(), &[], Some(("lsn:9", Some("--db 2 --exact-key k --on-conflict rename")))),
        ("RENAME k a", key(&[]), &["--key k"], None),
        ("RENAME k k", all(), &[], None),
        ("RENAMENX a k", all(), &[], None),
        ("FLUSHALL", all(), &[], Some(("lsn:9", Some("--on-conflict merge")))),
        ("FLUSHALL", all(), &["--db 7"], Some(("lsn:9 --db 7", Some("--db 7 --on-conflict merge")))),
        ("FLUSHALL", glob(), &["--key 'k*'"], Some(("lsn:9 --key 'k*'", Some("--key 'k*' --on-conflict merge")))),
        ("FLUSHALL", key(&[]), &["--key k"], Some(("lsn:9 --exact-key k", Some("--exact-key k --on-conflict merge")))),
        ("FLUSHDB", all(), &[], Some(("lsn:9", Some("--db 2 --on-conflict merge")))),
        (
            "FLUSHDB",
            glob(),
            &["--key 'k*'", "--db 2", "--db 3"],
            Some(("lsn:9 --key 'k*' --db 2 --db 3", Some("--key 'k*' --db 2 --on-conflict merge"))),
        ),
        ("SWAPDB 2 3", all(), &[], Some(("lsn:9", None))),
        ("SET k v", all(), &[], None),
    ] {
        let bring_back = bring_back(words, &["--client x"]);
        let found = removal(&bring_back, &keys, 9, OriginKind::Client, line).map(|found| bring_back.commands(&found));
        let want = want.map(|(undo, restore)| Commands {
            undo: format!("redtape undo {undo} --to URL"),
            restore: restore.map(|words| format!("redtape restore --before lsn:9 {words} --to URL")),
        });
        assert_eq!(found, want, "{line} {words:?}");
    }
    // The server did so by itself.
    for kind in [OriginKind::Expiry, OriginKind::Eviction] {
        assert!(removal(&bring_back(&[], &[]), &all(), 9, kind, "DEL k").is_none());
    }
}

/// The hints under writes with these LSNs, newest first.
fn runs(bring_back: &BringBack, keys: &Filter, writes: &[(u64, OriginKind, &str)]) -> Vec<Removal> {
    let mut runs: Vec<Removal> = Vec::new();
    for (lsn, kind, line) in writes {
        let next = removal(bring_back, keys, *lsn, *kind, line).expect("a removal");
        let next = match runs.last_mut() {
            Some(run) => bring_back.join(run, next),
            None => Some(next),
        };
        runs.extend(next);
    }
    runs
}

#[test]
fn deletes_of_one_client_are_one_hint() {
    use OriginKind::{Client, Outside};
    let undo = |bring_back: &BringBack, writes: &[(u64, OriginKind, &str)]| -> Vec<String> {
        runs(bring_back, &Filter::default(), writes).iter().map(|run| bring_back.commands(run).undo).collect()
    };
    let plain = bring_back(&[], &["--client x"]);
    assert_eq!(undo(&plain, &[(9, Client, "DEL a"), (8, Client, "DEL b")]), ["redtape undo lsn:8..9 --to URL"]);
    assert_eq!(undo(&plain, &[(8, Client, "DEL a"), (9, Client, "UNLINK b")]), ["redtape undo lsn:8..9 --to URL"]);
    // What the filters hide between them stays.
    assert_eq!(
        undo(&plain, &[(9, Client, "DEL a"), (5, Client, "DEL b")]),
        ["redtape undo lsn:5..9 --client x --to URL"]
    );
    let apart = ["redtape undo lsn:9 --to URL", "redtape undo lsn:5 --to URL"];
    assert_eq!(undo(&plain, &[(9, Client, "DEL a"), (5, Outside, "DEL b")]), apart);
    let only_log_knows = BringBack { can_repeat_filters: false, ..bring_back(&[], &[]) };
    assert_eq!(undo(&only_log_knows, &[(9, Client, "DEL a"), (5, Client, "DEL b")]), apart);
    assert_eq!(
        undo(&only_log_knows, &[(9, Client, "DEL a"), (8, Client, "DEL b")]),
        ["redtape undo lsn:8..9 --to URL"]
    );
    let other_kind = undo(&plain, &[(9, Client, "FLUSHALL"), (8, Client, "DEL b"), (7, Client, "RENAME a b")]);
    assert_eq!(other_kind.len(), 3, "{other_kind:?}");

    // Before all of them, all of their keys, as long as they are few.
    let deletes: Vec<(u64, OriginKind, String)> = (0..9).map(|n| (20 - n, Client, format!("DEL k{}", n % 8))).collect();
    let deletes: Vec<(u64, OriginKind, &str)> =
        deletes.iter().map(|(lsn, kind, line)| (*lsn, *kind, &line[..])).collect();
    let run = runs(&plain, &Filter::default(), &deletes).pop().expect("a run");
    let restore = plain.commands(&run).restore.expect("a restore");
    assert!(
        restore.contains("--before lsn:12 ")
            && restore.contains("--exact-key k0 ")
            && restore.contains("--exact-key k7 ")
    );
    let more = [&deletes[..], &[(11, Client, "DEL other")]].concat();
    assert_eq!(plain.commands(&runs(&plain, &Filter::default(), &more)[0]).restore, None);
}

#[test]
fn names_in_different_databases_are_not_mixed_up() {
    let key = |db: Option<u32>, key: &str| (db, key.as_bytes().to_vec());
    let words = |keys: &[(Option<u32>, Vec<u8>)]| named_keys(keys).map(|words| words.join(" "));
    assert_eq!(words(&[key(Some(0), "a"), key(Some(1), "a")]).as_deref(), Some("--db 0 --db 1 --exact-key a"));
    assert_eq!(words(&[key(Some(0), "a"), key(Some(1), "b")]), None);
    assert_eq!(words(&[key(None, "a"), key(Some(1), "a")]), None);
    assert_eq!(words(&[key(None, "a"), key(None, "b")]).as_deref(), Some("--exact-key a --exact-key b"));
    assert_eq!(words(&[]), None);
}
