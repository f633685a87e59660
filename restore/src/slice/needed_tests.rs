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
