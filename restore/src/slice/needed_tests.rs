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
    let many = filter(&[], &[3, 4]).and_exact_keys(keys.iter().map(String::as_bytes));
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
    let keys: Vec<String> = (0..NOTED_MAX + 20).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        assert!(all.pass(&[touch(0, key, Overwritten)]));
    }
    let satisfied = keys.iter().filter(|key| !all.needs(0, key.as_bytes())).count();
    assert_eq!((satisfied, all.noted), (NOTED_MAX, NOTED_MAX));
    // One that is needed again makes no room.
    assert!(all.pass(&[touch(0, "other", Overwritten), touch(0, &keys[0], Read)]));
    assert!(all.needs(0, keys[0].as_bytes()) && all.needs(0, b"other"));
    assert_eq!(all.noted, NOTED_MAX);
    all.flush(0);
    assert_eq!(all.noted, 0);

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

fn pass_set(needed: &mut Needed, db: u32, key: &str, bytes: u32) -> Passed {
    let hash = needed.hasher().hash(key.as_bytes());
    needed.touch(db, hash);
    needed.pass_set(db, key.as_bytes(), hash, Some(bytes))
}

/// The keys that are folded of each database, their bytes, and how many were taken out.
fn folded(needed: &mut Needed) -> (Vec<(u32, u64, u64)>, usize) {
    let (keys, taken_out) = needed.folded();
    (keys.into_iter().map(|(db, folded)| (db, folded.keys, folded.bytes)).collect(), taken_out.len())
}

#[test]
fn a_key_of_one_plain_set_is_folded() {
    let mut all = Needed::at_the_point(&Filter::default());
    assert_eq!(pass_set(&mut all, 0, "a", 10), Passed::Folded);
    assert_eq!(pass_set(&mut all, 0, "a", 10), Passed::LeftOut);
    assert_eq!(pass_set(&mut all, 3, "a", 20), Passed::Folded);
    assert!(!all.pass(&[touch(0, "a", Modified)]), "it is overwritten behind it");
    assert!(!all.needs(0, b"a") && all.needs(1, b"a"));
    assert_eq!(folded(&mut all), (vec![(0, 1, 10), (3, 1, 20)], 0));
    // Too large to be noted.
    let hash = all.hasher().hash(b"large");
    assert_eq!(all.pass_set(0, b"large", hash, None), Passed::Kept);
    assert_eq!(all.pass_set(0, b"large", hash, Some(9)), Passed::LeftOut);
    // Only where everything is wanted.
    for filter in [filter(&["a*"], &[]), filter(&[], &[0]), filter(&["a"], &[0])] {
        let mut some = Needed::at_the_point(&filter);
        assert_eq!(pass_set(&mut some, 0, "a", 10), Passed::Kept);
        assert_eq!(pass_set(&mut some, 0, "a", 10), Passed::LeftOut);
        assert_eq!(folded(&mut some), (vec![], 0));
    }
}

#[test]
fn a_key_that_another_kept_record_touches_is_not_folded() {
    for other in [Read, Modified, Overwritten] {
        // Before it in the journal: it was to be folded.
        let mut all = Needed::at_the_point(&Filter::default());
        assert_eq!(pass_set(&mut all, 0, "a", 10), Passed::Folded);
        assert!(all.pass(&[touch(0, "b", Modified), touch(0, "a", other)]));
        assert_eq!(folded(&mut all), (vec![], 1), "{other:?}");
        assert_eq!(all.needs(0, b"a"), other != Overwritten);
        // Where it is needed again, the one before is kept.
        let again = if other == Overwritten { Passed::LeftOut } else { Passed::Kept };
        assert_eq!(pass_set(&mut all, 0, "a", 10), again, "{other:?}");
        // Behind it.
        let mut all = Needed::at_the_point(&Filter::default());
        assert!(all.pass(&[touch(0, "b", Modified), touch(0, "a", other)]));
        assert_eq!(pass_set(&mut all, 0, "a", 10), again, "{other:?}");
        assert_eq!(folded(&mut all), (vec![], 0), "{other:?}");
    }
    let mut all = Needed::at_the_point(&Filter::default());
    assert_eq!(pass_set(&mut all, 0, "a", 10), Passed::Folded);
    assert!(all.pass(&[touch(0, "b", Modified), touch(1, "a", Read)]));
    assert_eq!(folded(&mut all), (vec![(0, 1, 10)], 0), "the same name in another database");
}

#[test]
fn databases_that_are_emptied_or_change_places_end_folding() {
    let change: [fn(&mut Needed) -> bool; 3] = [|all| all.flush(1), Needed::flush_all, |all| all.swap(0, 1)];
    for change in change {
        let mut all = Needed::at_the_point(&Filter::default());
        assert_eq!(pass_set(&mut all, 0, "a", 10), Passed::Folded);
        assert!(change(&mut all));
        assert_eq!(folded(&mut all), (vec![], 0));
        assert_ne!(pass_set(&mut all, 2, "b", 10), Passed::Folded);
    }
    let mut all = Needed::at_the_point(&Filter::default());
    assert_eq!(pass_set(&mut all, 0, "a", 10), Passed::Folded);
    assert!(!all.swap(1, 1));
    assert_eq!(folded(&mut all).0, [(0, 1, 10)], "nothing has changed");
    all.need_everything();
    assert_eq!(folded(&mut all), (vec![], 0));
}

#[test]
fn what_cannot_be_noted_any_more_ends_folding_for_what_lies_before() {
    let mut all = Needed::at_the_point(&Filter::default());
    assert_eq!(pass_set(&mut all, 0, "a", 10), Passed::Folded);
    for n in 0..TIED_MAX {
        assert!(all.pass(&[touch(0, &format!("tied:{n}"), Modified)]));
    }
    assert_eq!(pass_set(&mut all, 0, "b", 10), Passed::Kept);
    assert_eq!(folded(&mut all), (vec![(0, 1, 10)], 0));
    assert!(all.pass(&[touch(0, "new", Modified), touch(0, "a", Read)]));
    assert_eq!(folded(&mut all), (vec![], 1), "that is still found out");

    let mut all = Needed::at_the_point(&Filter::default());
    for n in 0..NOTED_MAX {
        assert_eq!(pass_set(&mut all, 0, &format!("key:{n}"), 10), Passed::Folded);
    }
    assert_eq!(pass_set(&mut all, 0, "one more", 10), Passed::Kept);
    assert_eq!(pass_set(&mut all, 0, "one more", 10), Passed::Kept, "it was not noted");
    assert_eq!(pass_set(&mut all, 0, "key:0", 10), Passed::LeftOut);
    for n in 0..=TAKEN_OUT_MAX {
        assert!(all.pass(&[touch(0, "other", Modified), touch(0, &format!("key:{n}"), Overwritten)]));
    }
    assert_eq!(folded(&mut all), (vec![], 0), "more than can be taken out");

    let mut all = Needed::at_the_point(&Filter::default());
    assert_eq!(pass_set(&mut all, 0, "a", FOLDED_BYTES_MAX as u32), Passed::Folded);
    assert_eq!(pass_set(&mut all, 0, "b", 10), Passed::Kept);
    assert_eq!(pass_set(&mut all, 1, "b", 10), Passed::Folded);
}
