use redtape_journal::{Journal, OpenOptions, ReplOffset, add_server};

use super::*;

fn facts(run_id: &str, replid: &str, previous: Option<&str>) -> ServerFacts {
    ServerFacts {
        run_id: run_id.to_owned(),
        replid: replid.to_owned(),
        previous: previous.map(|id| (id.to_owned(), ReplOffset(7))),
        is_primary: true,
        ..ServerFacts::default()
    }
}

/// A journal that has recorded these servers, one after the other.
fn recorded(servers: &[(ServerFacts, &str)]) -> Recorded {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions { source: "redis://user:***@first:6379".to_owned(), ..OpenOptions::default() };
    let _open = Journal::create_or_open(dir.path(), options).unwrap();
    for (facts, address) in servers {
        add_server(dir.path(), &identity(facts, (*address).to_owned())).unwrap();
    }
    Recorded::load(dir.path()).unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Known,
    Replaced,
    Unrelated,
}

fn judged(recorded: &Recorded, facts: &ServerFacts, address: &str) -> Is {
    let with = |accept| recorded.judge(facts, address, accept);
    match (with(false), with(true)) {
        (Judgement::Known, Judgement::Known) => Is::Known,
        (Judgement::Replaced(a), Judgement::Replaced(b)) if a == b => Is::Replaced,
        (Judgement::Unrelated(a), Judgement::Accepted(b)) if a == b => Is::Unrelated,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_is_known_by_its_history_or_its_process() {
    let first = recorded(&[(facts("run1", "one", None), "a:1")]);
    let replica = |run: &str, id: &str| ServerFacts { is_primary: false, ..facts(run, id, None) };
    for (found, at_a, at_b) in [
        (facts("run1", "one", None), Is::Known, Is::Known),
        // It restarted with its data, or a replica of it was promoted.
        (facts("run2", "two", Some("one")), Is::Known, Is::Known),
        // A replica of it.
        (replica("run2", "one"), Is::Known, Is::Known),
        // The same process, after its backlog has expired.
        (facts("run1", "two", None), Is::Known, Is::Known),
        // The same process with the data of another server, which it follows or followed.
        (replica("run1", "two"), Is::Replaced, Is::Unrelated),
        (facts("run1", "two", Some("three")), Is::Replaced, Is::Unrelated),
        // It restarted without its data, or is another one.
        (facts("run2", "two", None), Is::Replaced, Is::Unrelated),
        (facts("", "", None), Is::Replaced, Is::Unrelated),
    ] {
        assert_eq!(judged(&first, &found, "a:1"), at_a, "{found:?}");
        assert_eq!(judged(&first, &found, "b:1"), at_b, "{found:?}");
    }
}

#[test]
fn the_address_that_counts_is_the_last_one_and_histories_are_never_forgotten() {
    let moved = recorded(&[
        (facts("run1", "one", None), "a:1"),
        (facts("run2", "two", Some("one")), "b:1"),
        (facts("run3", "three", None), "b:1"),
    ]);
    let stranger = facts("run9", "nine", None);
    assert_eq!(judged(&moved, &stranger, "b:1"), Is::Replaced);
    assert_eq!(judged(&moved, &stranger, "a:1"), Is::Unrelated);
    assert_eq!(judged(&moved, &facts("run4", "one", None), "c:1"), Is::Known);
    assert_eq!(judged(&moved, &facts("run4", "four", Some("two")), "c:1"), Is::Known);
}

#[test]
fn a_new_journal_takes_any_server() {
    let empty = recorded(&[]);
    assert_eq!(empty.judge(&facts("run1", "one", None), "a:1", false), Judgement::First);
    let nowhere = Recorded::load(Path::new("/nonexistent/journal")).unwrap();
    assert_eq!(nowhere.judge(&facts("run1", "one", None), "a:1", false), Judgement::First);
}

#[test]
fn without_the_file_timelines_and_the_first_address_tell() {
    let old = Recorded {
        histories: vec!["one".to_owned(), "two".to_owned()],
        source: Some("first:6379".to_owned()),
        ..Recorded::default()
    };
    assert_eq!(judged(&old, &facts("", "one", None), "b:1"), Is::Known);
    assert_eq!(judged(&old, &facts("", "x", Some("two")), "b:1"), Is::Known);
    assert_eq!(judged(&old, &facts("", "x", None), "first:6379"), Is::Replaced);
    assert_eq!(judged(&old, &facts("", "x", None), "b:1"), Is::Unrelated);
    // Neither is known.
    let bare = Recorded { source: None, ..old };
    assert_eq!(judged(&bare, &facts("", "x", None), "first:6379"), Is::Unrelated);
}

#[test]
fn both_are_shown() {
    let first = recorded(&[(facts("run1", "one", None), "a:1")]);
    let Judgement::Unrelated(mismatch) = first.judge(&facts("run2", "two", None), "b:2", false) else { panic!() };
    let said = mismatch.to_string();
    for word in ["a:1", "one", "run1", "b:2", "two", "run2"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}
