use super::*;
use Touch::{Modified, Overwritten, Read};

fn filter(globs: &[&str], dbs: &[u32]) -> Filter {
    Filter::new(globs, &[], dbs).expect("filter")
}

fn touch(db: u32, key: &str, touch: Touch) -> Touched<'_> {
    Touched { db, key: key.as_bytes(), touch }
}

#[test]
fn what_is_selected_is_needed_at_the_point() {
    let all = Needed::at_the_point(&Filter::default());
    assert!(all.is_everything() && all.needs(9, b"any") && all.exact_keys().is_none());
    let globs = Needed::at_the_point(&filter(&["a*"], &[]));
    assert!(globs.needs(9, b"ab") && !globs.needs(0, b"b") && !globs.is_nothing() && !globs.is_everything());
    let database = Needed::at_the_point(&filter(&[], &[2]));
    assert!(database.needs(2, b"any") && !database.needs(0, b"any") && database.exact_keys().is_none());
    let exact = Needed::at_the_point(&filter(&["a", "b"], &[2, 3]));
    assert!(exact.needs(2, b"a") && exact.needs(3, b"b") && !exact.needs(0, b"a") && !exact.needs(2, b"c"));
    assert_eq!(exact.exact_keys().map(|keys| keys.len()), Some(4));
    assert!(exact.wanted_keys().is_some());
    // In whichever database: those cannot be counted.
    let anywhere = Needed::at_the_point(&filter(&["a"], &[]));
    assert!(anywhere.needs(77, b"a") && anywhere.exact_keys().is_none());
}

#[test]
fn an_effect_is_kept_for_what_it_changes_and_needs_what_it_reads() {
    let mut needed = Needed::at_the_point(&filter(&["a"], &[0]));
    assert!(!needed.pass(&[touch(0, "a", Read), touch(0, "b", Overwritten)]), "a is only read");
    assert!(!needed.pass(&[touch(1, "a", Modified)]), "another database");
    assert!(needed.pass(&[touch(0, "a", Modified), touch(0, "c", Modified)]));
    assert!(needed.needs(0, b"a") && needed.needs(0, b"c"));
    assert!(needed.pass(&[touch(0, "a", Overwritten), touch(0, "d", Read)]));
    assert!(!needed.needs(0, b"a") && needed.needs(0, b"c") && needed.needs(0, b"d"));
    assert!(needed.pass(&[touch(0, "d", Read), touch(0, "d", Overwritten)]));
    assert!(needed.needs(0, b"d"), "read as well");
    assert!(needed.pass(&[touch(0, "c", Overwritten), touch(0, "x", Overwritten)]));
    assert!(needed.pass(&[touch(0, "d", Overwritten)]));
    assert!(needed.is_nothing());
}

#[test]
fn of_a_rest_keys_are_satisfied_and_needed_again() {
    for rest in [Filter::default(), filter(&["a*"], &[])] {
        let mut needed = Needed::at_the_point(&rest);
        assert!(needed.pass(&[touch(3, "a1", Overwritten)]));
        assert!(!needed.needs(3, b"a1") && needed.needs(0, b"a1") && needed.needs(3, b"a2"));
        assert!(!needed.pass(&[touch(3, "a1", Modified)]), "it is overwritten behind it");
        assert!(needed.pass(&[touch(3, "a2", Overwritten), touch(3, "a1", Read)]));
        assert!(needed.needs(3, b"a1"));
        assert!(!needed.is_nothing());
    }
}

#[test]
fn databases_are_emptied_and_change_places() {
    let mut needed = Needed::at_the_point(&filter(&["a"], &[0, 1]));
    assert!(needed.pass(&[touch(0, "a", Modified), touch(0, "zero", Read)]));
    assert!(needed.swap(0, 5));
    assert!(needed.needs(5, b"a") && needed.needs(5, b"zero") && !needed.needs(0, b"a") && needed.needs(1, b"a"));
    assert!(!needed.swap(0, 7), "nothing is needed of both");
    assert!(!needed.swap(5, 5) && needed.needs(5, b"zero"));
    assert!(!needed.flush(0));
    assert!(needed.flush(5));
    assert!(!needed.needs(5, b"a") && needed.needs(1, b"a"));
    assert!(needed.flush_all() && needed.is_nothing());
    assert!(!needed.flush_all());

    let mut all = Needed::at_the_point(&Filter::default());
    assert!(all.flush(3) && !all.needs(3, b"a") && all.needs(2, b"a") && !all.is_everything());
    assert!(all.swap(3, 4) && all.needs(3, b"a") && !all.needs(4, b"a"));
    all.need_everything();
    assert!(all.needs(4, b"a") && all.is_everything());
}

#[test]
fn what_is_selected_goes_with_its_database() {
    // The filter speaks of the databases as they are at the point.
    let mut filter = filter(&["a*"], &[]);
    filter.add_key(Some(1), *b"pair");
    let mut needed = Needed::at_the_point(&filter);
    assert!(needed.needs(1, b"pair") && !needed.needs(0, b"pair") && needed.needs(0, b"a"));
    assert!(needed.swap(0, 1));
    assert!(needed.needs(0, b"pair") && !needed.needs(1, b"pair") && needed.needs(1, b"a") && needed.needs(5, b"a"));
    assert!(needed.swap(0, 9) && needed.needs(9, b"pair") && !needed.needs(0, b"pair"));
    assert!(needed.flush(9) && !needed.needs(9, b"pair") && needed.needs(0, b"a"));
}

#[test]
fn pairs_alone_are_listed() {
    let mut filter = Filter::default();
    filter.add_key(Some(1), *b"a");
    filter.add_key(Some(4), *b"b");
    let mut needed = Needed::at_the_point(&filter);
    assert_eq!(needed.exact_keys(), Some(vec![(1, &b"a"[..]), (4, b"b")]));
    assert!(!needed.needs(0, b"a") && needed.pass(&[touch(1, "a", Overwritten)]));
    assert!(needed.pass(&[touch(4, "b", Overwritten)]) && needed.is_nothing());
    let none = Filter::new::<&str>(&[], &[], &[0]).expect("filter");
    let mut none = none.of_types(["set"]);
    none.add_key(Some(1), *b"a");
    assert!(Needed::at_the_point(&none).is_nothing(), "of databases that exclude each other");
}

#[test]
fn more_keys_than_can_be_listed_are_needed_all_the_same() {
    let keys: Vec<String> = (0..ADDED_MAX).map(|n| format!("key:{n}")).collect();
    let many = filter(&[], &[3, 4]).and_exact_keys(keys.iter().map(|key| key.as_bytes()));
    let mut needed = Needed::at_the_point(&many);
    assert!(needed.exact_keys().is_none() && !needed.is_full() && !needed.is_nothing());
    assert!(keys.iter().all(|key| needed.needs(3, key.as_bytes())) && !needed.needs(0, b"key:1"));
    assert!(needed.swap(3, 0) && needed.needs(0, b"key:1") && !needed.needs(0, b"key:x"));
    let long = vec![b'x'; ADDED_BYTES_MAX];
    let long = filter(&[], &[3]).and_exact_keys([&long[..]]);
    assert!(Needed::at_the_point(&long).exact_keys().is_none());
}

#[test]
fn an_excluded_key_is_needed_only_for_others() {
    let filter = filter(&["a*"], &[0]).excluding(&["*:tmp"]).expect("globs");
    let mut needed = Needed::at_the_point(&filter);
    assert!(needed.needs(0, b"a") && !needed.needs(0, b"a:tmp"));
    assert!(!needed.pass(&[touch(0, "a:tmp", Overwritten)]));
    assert!(needed.pass(&[touch(0, "a", Overwritten), touch(0, "a:tmp", Read)]) && needed.needs(0, b"a:tmp"));
    assert!(needed.pass(&[touch(0, "a:tmp", Overwritten)]) && !needed.needs(0, b"a:tmp"));
    let everything_else = Needed::at_the_point(&Filter::default().excluding(&["tmp"]).expect("globs"));
    assert!(everything_else.needs(9, b"a") && !everything_else.needs(9, b"tmp") && !everything_else.is_everything());
}

#[test]
fn memory_is_bounded_and_what_does_not_fit_is_kept() {
    let mut all = Needed::at_the_point(&Filter::default());
    let keys: Vec<String> = (0..SATISFIED_MAX + 20).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        assert!(all.pass(&[touch(0, key, Overwritten)]));
    }
    let satisfied = keys.iter().filter(|key| !all.needs(0, key.as_bytes())).count();
    assert_eq!(satisfied, SATISFIED_MAX);
    // One that is needed again makes room.
    assert!(all.pass(&[touch(0, "other", Overwritten), touch(0, &keys[0], Read)]));
    assert_eq!(all.satisfied, SATISFIED_MAX - 1);
    all.flush(0);
    assert_eq!(all.satisfied, 0);

    let mut few = Needed::at_the_point(&filter(&["a"], &[0]));
    for key in &keys[..ADDED_MAX - 1] {
        assert!(few.pass(&[touch(0, "a", Modified), touch(0, key, Read)]) && !few.is_full());
    }
    few.pass(&[touch(0, "a", Modified), touch(0, "more", Read)]);
    assert!(few.is_full());
    few.pass(&[touch(0, "more", Overwritten)]);
    assert!(!few.is_full());
    few.pass(&[touch(0, "a", Modified), touch(0, &"x".repeat(ADDED_BYTES_MAX), Read)]);
    assert!(few.is_full());
    few.flush_all();
    assert_eq!((few.added, few.added_bytes), (0, 0));
}
