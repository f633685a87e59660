use redtape_journal::query::Filter;
use redtape_journal::{Lsn, Micros, OriginKind, Record, ReplOffset};

use super::table::{NAME_BYTES_MAX, VALUES_MAX};
use super::values::Value;
use super::*;
use crate::history::selection::Wanted;

fn group(ts: i64, origin: Origin, line: &str) -> Group {
    let args: Vec<_> = line.split(' ').map(|word| word.as_bytes().to_vec().into()).collect();
    let at: Option<&[usize]> = match line.split(' ').next() {
        Some("FLUSHALL" | "EVAL") => None,
        Some("PUBLISH") => Some(&[]),
        Some("MSET") => Some(&[1, 3]),
        _ => Some(&[1]),
    };
    let keys = at.map(|at| at.iter().copied().collect());
    let records = vec![Record { lsn: Lsn(1), db: 0, args, keys }];
    Group { ts: Micros(ts), slack: 0, origin: Arc::new(origin), atomic: false, end_offset: ReplOffset(1), records }
}

fn client(addr: &str, user: &str, name: &str) -> Origin {
    let [addr, user, name] = [addr, user, name].map(str::to_owned);
    Origin { addr, user, name, ..Origin::of(OriginKind::Client) }
}

fn count_by(by: By, depth: usize, keys: &[&str], groups: &[Group]) -> Table {
    let keys = Filter::new(keys, &[], &[]).expect("keys");
    let selection = Selection::new(Wanted { keys, ..Wanted::default() }).expect("a selection");
    let mut counter = Counter::new(&selection, Asked { by, depth }, Table::new());
    for group in groups {
        counter.count(group);
    }
    counter.table
}

/// Rows as `WRITES VALUE`, those with the most writes first.
fn rows(table: &Table) -> Vec<String> {
    let shown = |value: &Value<'_>| match value {
        Value::Named(name) => String::from_utf8_lossy(name).into_owned(),
        Value::Without(why) => why.shown().to_owned(),
    };
    table.sorted().iter().map(|row| format!("{} {}", row.tally.writes, shown(&row.value))).collect()
}

#[test]
fn clients_and_users() {
    let groups = [
        group(1, client("10.0.0.5:1", "alice", "billing"), "SET a 1"),
        group(2, client("10.0.0.6:1", "alice", "billing"), "SET a 1"),
        group(3, client("10.0.0.5:1", "bob", ""), "SET a 1"),
        group(4, client("[::1]:7", "", ""), "SET a 1"),
        group(5, Origin::of(OriginKind::Expiry), "DEL a"),
        group(6, Origin::of(OriginKind::Outside), "DEL a"),
        group(7, Origin { addr: "10.0.0.7:9".to_owned(), ..Origin::of(OriginKind::Unknown) }, "DEL a"),
        group(8, Origin::of(OriginKind::Unknown), "DEL a"),
    ];
    let by_client = count_by(By::Client, 1, &[], &groups);
    assert_eq!(
        rows(&by_client),
        ["2 billing", "1 10.0.0.5", "1 10.0.0.7", "1 [::1]", "1 (expiry)", "1 (outside the proxy)", "1 (unknown)"]
    );
    let by_user = count_by(By::User, 1, &[], &groups);
    assert_eq!(rows(&by_user), ["3 (unknown)", "2 alice", "1 bob", "1 (expiry)", "1 (outside the proxy)"]);
    assert_eq!((by_user.writes(), by_client.writes()), (8, 8));
    let billing = by_client.sorted()[0].tally;
    assert_eq!((billing.first, billing.last), (Micros(1), Micros(2)));
}

#[test]
fn commands_and_prefixes() {
    let one = || client("10.0.0.5:1", "", "");
    let groups = [
        group(1, one(), "SET user:1:name x"),
        group(2, one(), "set user:2:name x"),
        group(3, one(), "MSET user:3 x cart:1 y"),
        group(4, one(), "MSET user:3 x user:4 y"),
        group(5, one(), "SET plain x"),
        group(6, one(), "FLUSHALL"),
        group(7, one(), "EVAL s 0"),
        group(8, one(), "PUBLISH c m"),
    ];
    let commands = rows(&count_by(By::Command, 1, &[], &groups));
    assert_eq!(commands, ["3 SET", "2 MSET", "1 EVAL", "1 FLUSHALL", "1 PUBLISH"]);
    let prefixes = count_by(By::Prefix, 1, &[], &groups);
    let want = ["4 user:", "1 cart:", "1 (keys without a colon)", "1 (no key)", "1 (every key)", "1 (keys not known)"];
    assert_eq!((rows(&prefixes).as_slice(), prefixes.writes()), (&want.map(str::to_owned)[..], 8));
    let deeper = rows(&count_by(By::Prefix, 2, &["user:*"], &groups));
    assert_eq!(deeper, ["2 user:", "1 user:1:", "1 user:2:", "1 (every key)", "1 (keys not known)"]);
}

#[test]
fn names_beyond_the_limit_are_counted_together_and_none_in_part() {
    let set = |n: usize| group(n as i64, client("10.0.0.5:1", "", ""), &format!("SET k{n}: x"));
    let mut groups: Vec<Group> = (0..VALUES_MAX + 20).map(set).collect();
    groups.extend([set(3), set(VALUES_MAX + 3), group(1, Origin::of(OriginKind::Unknown), "FLUSHALL")]);
    groups.push(group(2, client("10.0.0.5:1", "", ""), &format!("SET {}: x", "n".repeat(NAME_BYTES_MAX))));
    let table = count_by(By::Prefix, 1, &[], &groups);
    assert_eq!(table.sorted().len(), VALUES_MAX + 1);
    assert_eq!((rows(&table)[0].as_str(), table.others.writes), ("2 k3:", 20 + 1 + 1));
    assert_eq!(table.writes(), groups.len() as u64);
    let summed: u64 = table.sorted().iter().map(|row| row.tally.writes).sum();
    assert_eq!(summed + table.others.writes, table.writes());

    let asked = Asked { by: By::Prefix, depth: 1 };
    let text = stats_text(&table, asked, 2).expect("text");
    assert!(
        text.contains("(others: more than 100, or longer than 256 bytes)") && text.contains("and 99 more"),
        "{text}"
    );
    let json = stats_json(&table, asked, 2);
    assert_eq!((json["others"]["writes"].as_u64(), json["rows_left_out"].as_u64()), (Some(22), Some(99)));
    assert_eq!((json["rows"][0]["value"].as_str(), json["rows"].as_array().map(Vec::len)), (Some("k3:"), Some(2)));
    assert!(stats_json(&Table::new(), asked, 2)["others"].is_null());
}

#[test]
fn tables_of_parts_make_one() {
    let set = |ts: i64, n: usize| group(ts, client("10.0.0.5:1", "", ""), &format!("SET k{n}: x"));
    let part = |groups: &[Group]| {
        let selection = Selection::new(Wanted::default()).expect("everything");
        let mut counter = Counter::new(&selection, Asked { by: By::Prefix, depth: 1 }, Table::of_part());
        for group in groups {
            counter.count(group);
        }
        counter.table
    };
    // More names than have a row, in one part: those of the part before keep theirs.
    let mut table = Table::new();
    table.merge(part(&[set(900, VALUES_MAX + 50)]));
    table.merge(part(&(0..VALUES_MAX + 60).map(|n| set(n as i64, n)).collect::<Vec<_>>()));
    let first = table.sorted()[0];
    assert_eq!(
        (rows(&table)[0].as_str(), first.tally.last),
        (format!("2 k{}:", VALUES_MAX + 50).as_str(), Micros(900))
    );
    assert_eq!(first.tally.first, Micros(VALUES_MAX as i64 + 50));
    assert_eq!((table.sorted().len(), table.others.writes), (VALUES_MAX, 60));
}

#[test]
fn what_is_no_name_is_not_mixed_up_with_one() {
    let groups =
        [group(1, client("1.2.3.4:5", "", "(expiry)"), "SET a 1"), group(2, client("1.2.3.4:5", "", "a b"), "SET a 1")];
    let text = stats_text(&count_by(By::Client, 1, &[], &groups), Asked { by: By::Client, depth: 1 }, 9).expect("text");
    assert!(text.contains("  \"(expiry)\"\n") && text.contains("  \"a b\"\n") && text.contains(" 50.0 %  "), "{text}");
    assert_eq!(stats_text(&Table::new(), Asked { by: By::Client, depth: 1 }, 9).expect("text"), "");
}
