use super::*;

const SMALL: Bounds = Bounds {
    keys: 3,
    key_bytes: 100,
    elements_of_key: 2,
    parts: 8,
    part_bytes: 100,
    dependents: 4,
    samples: 2,
    clients: 1,
    command_bytes: 12,
};

#[test]
fn with_too_many_keys_a_database_is_affected_as_a_whole() {
    let lines = ["bad|1:SET x 1", "bad|SET a 1", "bad|SET b 1", "bad|SET c 1"];
    let mistake = find_of(&history(&lines), "client=bad", false, SMALL);
    assert_eq!(affected(&mistake, &["0:a", "0:other", "1:x", "1:other", "2:other"]), "0:a 0:other 1:x");
    assert_eq!(mistake.affected.whole_databases(), Some(vec![0]));
    let filter = mistake.affected.filter().expect("some");
    assert!(filter.wants(0, b"other") && filter.wants(1, b"x") && !filter.wants(2, b"x"));
    // The room of what is not listed any more is used again.
    let lines = [&lines[..], &["bad|1:SET y 1", "bad|1:SET z 1"]].concat();
    let mistake = find_of(&history(&lines), "client=bad", false, SMALL);
    assert_eq!(affected(&mistake, &["1:y", "1:z", "1:other"]), "1:y 1:z");
}

#[test]
fn with_too_many_elements_the_whole_key_depends() {
    let lines = ["bad|HSET a f 1", "app|HINCRBY a 1 1", "app|HINCRBY a 2 1", "app|HINCRBY a 3 1"];
    let mistake = find_of(&history(&lines), "client=bad", false, SMALL);
    assert_eq!(depends(&mistake, "0:a/1"), 2);
    assert_eq!((depends(&mistake, "0:a/3"), depends(&mistake, "0:a/other")), (4, 4));
}

#[test]
fn with_too_many_dependents_everything_depends() {
    let lines =
        ["bad|MSET a 1 b 1 c 1 d 1", "app|INCR a;INCR a", "app|INCR b", "app|INCR c", "app|INCR d", "app|INCR e"];
    let mistake = find_of(&history(&lines), "client=bad", false, SMALL);
    assert_eq!(mistake.affected.dependents_overflow().map(|dependent| dependent.at.lsn), Some(Lsn(7)));
    let depends = |asked| depends(&mistake, asked);
    assert_eq!((depends("0:a"), depends("0:d"), depends("0:e"), depends("0:z"), depends("1:z")), (2, 6, 7, 7, 0));
}

#[test]
fn samples_clients_and_commands_have_limits() {
    let lines = ["bad|SET a 1", "worse|SET a 1", "bad|SET a-long-name a-long-value more", "bad|SET a 1"];
    let selected = find_of(&history(&lines), "client=bad,client=worse", false, SMALL).selected;
    assert_eq!((selected.samples.count, selected.samples.first.len()), (4, 2));
    assert_eq!((selected.clients.len(), selected.clients[0].1, selected.by_other_clients), (1, 3, 1));
    let long = find_of(&history(&lines[2..3]), "client=bad", false, SMALL).selected;
    assert_eq!(long.samples.first[0].command, "SET a-long-name …");
}
