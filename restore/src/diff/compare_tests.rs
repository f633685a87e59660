use redtape_journal::Lsn;
use redtape_wire::rdb::{Field, Group, Score, Stream, StreamEntry};

use super::*;
use crate::judge::Why;

const LISTING: Listing = Listing { elements: 10, ttl_slack_ms: 0 };

fn seen(value: impl Into<Option<Value>>) -> Option<Seen> {
    let value = value.into()?;
    let type_name = value.type_name().to_owned();
    Some(Seen { value, type_name, expires_at_ms: None })
}

fn until(value: Value, at: i64) -> Option<Seen> {
    seen(value).map(|seen| Seen { expires_at_ms: Some(at), ..seen })
}

fn bytes(all: &[&str]) -> Vec<Bytes> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn string(text: &str) -> Value {
    Value::String(text.into())
}

fn list(all: &[&str]) -> Value {
    Value::List(bytes(all))
}

fn hash(fields: &[(&str, &str, Option<i64>)]) -> Value {
    let field = |(name, value, expires_at_ms): &(&str, &str, Option<i64>)| Field {
        name: (*name).into(),
        value: (*value).into(),
        expires_at_ms: *expires_at_ms,
    };
    Value::Hash(fields.iter().map(field).collect())
}

fn stream(ids: &[u64], groups: &[(&str, u64)]) -> Value {
    let id = |ms: u64| StreamId { ms, seq: 0 };
    let group = |(name, last): &(&str, u64)| Group {
        name: (*name).into(),
        last_id: id(*last),
        entries_read: None,
        consumers: Vec::new(),
        pending: Vec::new(),
    };
    Value::Stream(Box::new(Stream {
        entries: ids.iter().map(|ms| StreamEntry { id: id(*ms), fields: Vec::new() }).collect(),
        last_id: id(9),
        first_id: id(ids.first().copied().unwrap_or(0)),
        max_deleted_id: id(0),
        entries_added: 9,
        groups: groups.iter().map(group).collect(),
        idempotence: None,
    }))
}

fn told(difference: &KeyDifference) -> String {
    let name = |element: &Element| match element {
        Element::Field(field) => String::from_utf8_lossy(&field.name).into_owned(),
        Element::Member(name) | Element::Scored(name, _) => String::from_utf8_lossy(name).into_owned(),
        Element::Item(at, item) => format!("{at}={}", String::from_utf8_lossy(item)),
        Element::Entry(entry) => entry.id.to_string(),
        Element::Group(group) => format!("group {}", String::from_utf8_lossy(&group.name)),
    };
    let one = |listed: &ListedElement| match &listed.change {
        ElementChange::Added(element) => format!("+{}", name(element)),
        ElementChange::Removed(element) => format!("-{}", name(element)),
        ElementChange::Changed { after, .. } => format!("~{}", name(after)),
    };
    difference.elements.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// `=` = they are the same.
fn compared(before: Option<Seen>, after: Option<Seen>) -> String {
    let Some(difference) = compare((0, b"k"), before, after, LISTING) else { return "=".to_owned() };
    let parts: Vec<String> = difference
        .questions()
        .into_iter()
        .map(|question| match question.part {
            Part::Whole => "whole".to_owned(),
            Part::Element(name) => format!("/{}", String::from_utf8_lossy(&name)),
            Part::Ttl => "ttl".to_owned(),
        })
        .collect();
    format!("{} ? {}", told(&difference), parts.join(" "))
}

#[test]
fn what_differs_and_what_is_asked_of_it() {
    let score = |n| Score::new(n).expect("a number");
    let zset = |all: &[(&str, f64)]| Value::Zset(all.iter().map(|(m, s)| ((*m).into(), score(*s))).collect());
    for (before, after, want) in [
        (None, None, "="),
        (seen(string("a")), seen(string("a")), "="),
        (seen(string("a")), seen(string("b")), " ? whole"),
        (None, seen(string("b")), " ? whole"),
        (until(string("a"), 5), None, " ? whole"),
        (until(string("a"), 5), until(string("a"), 5), "="),
        (until(string("a"), 5), until(string("a"), 6), " ? ttl"),
        (until(string("a"), 5), seen(string("b")), " ? whole ttl"),
        (
            seen(hash(&[("a", "1", None), ("b", "1", None), ("d", "1", None)])),
            seen(hash(&[("b", "2", None), ("c", "1", None), ("d", "1", Some(7))])),
            "-a ~b +c ~d ? /a /b /c /d",
        ),
        (None, seen(hash(&[("a", "1", None)])), "+a ? whole"),
        (seen(Value::Set(bytes(&["a"]))), seen(Value::Set(bytes(&["b"]))), "-a +b ? /a /b"),
        (seen(zset(&[("a", 1.0), ("b", 2.0)])), seen(zset(&[("b", 1.0), ("a", 1.0)])), "~b ? /b"),
        (seen(Value::Set(bytes(&["a"]))), seen(list(&["a"])), "-a +0=a ? whole"),
        (seen(stream(&[1, 2], &[])), seen(stream(&[2, 3], &[("g", 2)])), "-1-0 +3-0 +group g ? whole"),
        (seen(stream(&[1], &[("g", 1), ("h", 1)])), seen(stream(&[1], &[("g", 2)])), "~group g -group h ? whole"),
    ] {
        assert_eq!(compared(before.clone(), after.clone()), want, "{before:?} {after:?}");
    }
}

#[test]
fn of_lists_what_stands_between_what_is_the_same() {
    for (before, after, want) in [
        (&["a", "b"][..], &["x", "a", "b"][..], "+0=x"),
        (&["a", "b"], &["a", "b", "x"], "+2=x"),
        (&["a", "b", "c"], &["a", "c"], "-1=b"),
        (&["a", "b", "c"], &["a", "x", "c"], "-1=b +1=x"),
        (&["a", "a"], &["a"], "-1=a"),
        (&["a"], &["a", "a", "a"], "+1=a +2=a"),
        (&["a", "b"], &["b", "a"], "-0=a -1=b +0=b +1=a"),
    ] {
        let difference = compare((0, b"k"), seen(list(before)), seen(list(after)), LISTING).expect("a difference");
        assert_eq!(told(&difference), want);
    }
}

#[test]
fn all_are_counted_and_some_are_listed() {
    let members = |from: usize| (from..from + 30).map(|n| format!("{n:03}").into_bytes()).collect();
    let (before, after) = (seen(Value::Set(members(0))), seen(Value::Set(members(20))));
    let difference = compare((0, b"k"), before, after, LISTING).expect("a difference");
    assert_eq!((difference.added, difference.removed, difference.changed), (20, 20, 0));
    assert_eq!((difference.elements.len(), difference.more(), difference.questions().len()), (10, 30, 10));
}

#[test]
fn times_of_expiry_may_be_off_where_servers_count_from_their_own_now() {
    let listing = Listing { ttl_slack_ms: 250, ..LISTING };
    let of = |at| compare((0, b"k"), until(string("a"), 1000), at, listing).is_some();
    assert!(!of(until(string("a"), 1250)) && !of(until(string("a"), 750)));
    assert!(of(until(string("a"), 1251)) && of(seen(string("a"))));
}

#[test]
fn answers_go_to_what_was_asked() {
    let (before, after) = (until(hash(&[("a", "1", None)]), 5), seen(hash(&[("b", "1", None)])));
    let mut difference = compare((0, b"k"), before, after, LISTING).expect("a difference");
    let uncertain = |lsn| LastWrite::Uncertain { write: None, lsn: Lsn(lsn), why: Why::UnknownCommand };
    difference.answer(&mut [uncertain(1), uncertain(2), LastWrite::Nothing].into_iter());
    let writes: Vec<&LastWrite> = difference.elements.iter().map(|element| &element.last_write).collect();
    assert_eq!(writes, [&uncertain(1), &uncertain(2)]);
    assert_eq!((&difference.last_write, &difference.ttl_write), (&LastWrite::NotAsked, &LastWrite::Nothing));
}
