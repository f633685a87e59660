use super::*;
use crate::source::journal_range::by_hand::group;

/// A pass that nobody watches.
fn new_pass(filter: &Filter) -> Pass<'static> {
    Pass::new(filter, None, Box::leak(Box::new(|_: &Group, _: &Needed| ())))
}

/// Passes over groups of one command each (database, words), LSNs from 1 on; gives the LSNs that are kept, where all before is kept,
/// and the pass.
fn pass(globs: &[&str], dbs: &[u32], commands: &[(u32, &str)]) -> (Vec<u64>, Option<u64>, Pass<'static>) {
    let filter = Filter::new(globs, &[], dbs).expect("filter");
    let groups: Vec<Group> =
        commands.iter().zip(1..).map(|(command, lsn)| group(lsn, lsn as i64, false, &[*command])).collect();
    let mut pass = new_pass(&filter);
    pass.groups(&groups);
    let lsns = std::mem::replace(&mut pass.keeper, Keeper::new(false)).lsns();
    let kept = (1..=commands.len() as u64).filter(|lsn| lsns.contains(Lsn(*lsn))).collect();
    let forced = pass.forced.as_ref().map(|forced| forced.lsn.0);
    (kept, forced, pass)
}

fn kept(globs: &[&str], dbs: &[u32], commands: &[(u32, &str)]) -> Vec<u64> {
    pass(globs, dbs, commands).0
}

#[test]
fn of_a_whole_history_dead_writes_are_left_out() {
    assert_eq!(kept(&[], &[], &[(0, "SET a 1"), (0, "SET b 1"), (0, "SET a 2"), (0, "APPEND a x")]), [2, 3, 4]);
    assert_eq!(kept(&[], &[], &[(0, "SET a 1"), (0, "SET a 2 XX"), (0, "PUBLISH c m")]), [1, 2]);
    // What functions there are does not follow from keys.
    let commands = [(0, "FUNCTION LOAD x"), (0, "SET a 1"), (0, "FLUSHALL"), (0, "SET b 1")];
    assert_eq!(kept(&[], &[], &commands), [1, 3, 4]);
    assert_eq!(kept(&["*"], &[], &commands), [3, 4]);
}

#[test]
fn of_a_key_what_it_depends_on_is_kept() {
    let commands = [
        (0, "SADD s 1"),
        (0, "SADD t 1"),
        (0, "SUNIONSTORE u s"),
        (0, "SET other 1"),
        (0, "RENAME u v"),
        (0, "MOVE v 1"),
        (0, "SWAPDB 1 2"),
        (2, "SADD v 2"),
        (2, "SADD t 2"),
    ];
    assert_eq!(kept(&["v"], &[2], &commands), [1, 3, 5, 6, 7, 8]);
    // The source of a RENAME that is kept for its destination, and the other way round.
    assert_eq!(kept(&["b"], &[0], &[(0, "SET a 1"), (0, "SET b 1"), (0, "RENAME a b")]), [1, 3]);
    assert_eq!(kept(&["a"], &[0], &[(0, "SET a 1"), (0, "SET b 1"), (0, "RENAME a b")]), [1, 3]);
    assert_eq!(kept(&["b"], &[0], &[(0, "SET a 1"), (0, "SET b 1"), (0, "RENAMENX a b")]), [1, 2, 3]);
    assert_eq!(kept(&["a"], &[0], &[(0, "SET a 1"), (0, "SET b 1"), (0, "COPY a b")]), [1]);
}

#[test]
fn what_nobody_can_tell_keeps_all_before_it() {
    for command in ["EVAL x 1 a", "JSON.SET zzz . 1", "MODULE.DO", "SORT l BY w STORE a"] {
        let commands = [(0, "SET x 1"), (0, "SET x 2"), (0, command), (0, "SET y 1"), (0, "APPEND a 1")];
        let (kept, forced, pass) = super::tests::pass(&["a"], &[0], &commands);
        assert_eq!((kept, forced), (vec![1, 2, 3, 5], Some(3)), "{command}");
        assert!(pass.needed.is_everything());
        let (kept, forced, _) = super::tests::pass(&[], &[], &commands);
        assert_eq!((kept, forced), (vec![1, 2, 3, 4, 5], Some(3)), "{command}");
        // Behind it, the key is set anew: nothing before matters.
        let commands = [(0, "SET x 1"), (0, command), (0, "SET a 1")];
        assert_eq!(kept_and_forced(&["a"], &[0], &commands), (vec![3], None), "{command}");
    }
    // Its destination is not needed.
    let commands = [(0, "RPUSH l 1"), (0, "SORT l BY w STORE d"), (0, "SET a 1")];
    assert_eq!(kept_and_forced(&["l"], &[0], &commands), (vec![1], None));
}

fn kept_and_forced(globs: &[&str], dbs: &[u32], commands: &[(u32, &str)]) -> (Vec<u64>, Option<u64>) {
    let (kept, forced, _) = pass(globs, dbs, commands);
    (kept, forced)
}

#[test]
fn the_pass_ends_when_nothing_is_needed() {
    let (_, _, pass) = pass(&["a", "b"], &[0], &[(0, "SET b 1"), (0, "MSET a 1 c 2")]);
    assert!(pass.is_done());
    assert_eq!((pass.facts.records, pass.facts.groups), (2, 2));
    let (_, _, pass) = super::tests::pass(&["a", "b"], &[0], &[(0, "SET b 1 NX"), (0, "SET a 1")]);
    assert!(!pass.is_done());
    let (_, _, pass) = super::tests::pass(&[], &[], &[(0, "FLUSHALL")]);
    assert!(!pass.is_done(), "functions");
}

#[test]
fn a_group_keeps_its_order_and_only_what_is_needed() {
    let filter = Filter::new(&["a"], &[], &[0]).expect("filter");
    let mut pass = new_pass(&filter);
    let whole = group(5, 1, true, &[(0, "SET a 1"), (0, "SET b 1"), (0, "APPEND a 2"), (3, "SET a 1")]);
    pass.groups(&[whole]);
    let (super::super::kept::Kept::Held(groups), _) = pass.keeper.finish() else { panic!("few are held") };
    let [group] = &groups[..] else { panic!("{groups:?}") };
    assert!(group.atomic);
    assert_eq!(group.records.iter().map(|record| record.lsn.0).collect::<Vec<_>>(), [5, 7]);
    assert_eq!((pass.facts.max_db, pass.facts.records), (0, 2));
}

#[test]
fn too_many_keys_keep_everything_before() {
    let sources: Vec<String> = (0..60).map(|n| format!("s{n}")).collect();
    let union = format!("SUNIONSTORE a {}", sources.join(" "));
    let (kept, forced, pass) = pass(&["a"], &[0], &[(0, "SET x 1"), (0, &union), (0, "SADD a 1")]);
    assert_eq!((kept, forced), (vec![1, 2, 3], Some(2)));
    assert!(pass.forced.is_some_and(|forced| forced.reason.contains("more keys")));
}
