//! One element of a value: a field of a hash, a member, an element of a list, an entry of a stream.

use redtape_wire::rdb::{Field, Score, StreamEntry, StreamId, Value};

/// An element that was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Element<'a> {
    Field(&'a Field),
    /// Of a set.
    Member(&'a [u8]),
    /// Of a sorted set.
    Scored(&'a [u8], Score),
    /// Of a list, from the left.
    Item(usize, &'a [u8]),
    Entry(&'a StreamEntry),
}

/// Looks for an element. `Ok(None)` = there is none of that name; the error says why the name can be none.
pub(crate) fn find<'a>(value: &'a Value, name: &[u8]) -> Result<Option<Element<'a>>, String> {
    match value {
        Value::String(_) => Err("it is a string, which has no elements: leave the last argument out".to_owned()),
        Value::Module { .. } => Err("it is a module's value, whose elements redtape cannot read".to_owned()),
        Value::Hash(fields) => Ok(fields.iter().find(|field| field.name == name).map(Element::Field)),
        Value::Set(members) => Ok(members.iter().find(|member| *member == name).map(|m| Element::Member(m))),
        Value::Zset(members) => {
            Ok(members.iter().find(|(member, _)| member == name).map(|(m, score)| Element::Scored(m, *score)))
        }
        Value::List(items) => {
            let index = number::<i64>(name).ok_or("it is a list: name an element by its index, 0 or -1")?;
            let from_left = if index < 0 { items.len() as i64 + index } else { index };
            let at = usize::try_from(from_left).ok();
            Ok(at.and_then(|at| items.get(at).map(|item| Element::Item(at, item))))
        }
        Value::Stream(stream) => {
            let id = stream_id(name).ok_or("it is a stream: name an entry by its id, 1795176000000-0")?;
            Ok(stream.entries.iter().find(|entry| entry.id == id).map(Element::Entry))
        }
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `ms-seq`; without a number, that is 0.
fn stream_id(text: &[u8]) -> Option<StreamId> {
    let text = std::str::from_utf8(text).ok()?;
    let (ms, seq) = text.split_once('-').unwrap_or((text, "0"));
    Some(StreamId { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
}

/// A score as servers print it.
pub(crate) fn score(score: Score) -> String {
    const PLAIN: std::ops::Range<f64> = 1e-5..1e17;
    let number = score.get();
    if number == 0.0 || !number.is_finite() || PLAIN.contains(&number.abs()) {
        return number.to_string();
    }
    // An exponent has a sign.
    let text = format!("{number:e}");
    if text.contains("e-") { text } else { text.replace('e', "e+") }
}

/// The bytes of a string or of one element, for pipes; the error says what to ask for.
pub(crate) fn raw(value: &Value, element: Option<&Element<'_>>) -> Result<Vec<u8>, String> {
    match (element, value) {
        (None, Value::String(bytes)) => Ok(bytes.clone()),
        (None, value) => Err(format!(
            "--raw prints the bytes of a string or of one element, and this is a {}: name an element of it, or use --json",
            value.type_name()
        )),
        (Some(Element::Field(field)), _) => Ok(field.value.clone()),
        (Some(Element::Member(member)), _) => Ok(member.to_vec()),
        (Some(Element::Scored(_, number)), _) => Ok(score(*number).into_bytes()),
        (Some(Element::Item(_, item)), _) => Ok(item.to_vec()),
        (Some(Element::Entry(_)), _) => {
            Err("--raw prints bytes, and an entry of a stream has fields: use --json".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_by_name_index_and_id() {
        let list = Value::List(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        for (index, want) in
            [("0", Some(0)), ("2", Some(2)), ("-1", Some(2)), ("-3", Some(0)), ("3", None), ("-4", None)]
        {
            let found = find(&list, index.as_bytes()).expect("an index");
            assert_eq!(found.map(|e| if let Element::Item(at, _) = e { at } else { 99 }), want, "{index}");
        }
        assert!(find(&list, b"x").expect_err("no index").contains("index"));
        let set = Value::Set(vec![b"\xff".to_vec()]);
        assert_eq!(find(&set, b"\xff"), Ok(Some(Element::Member(b"\xff"))));
        assert_eq!(find(&set, b"x"), Ok(None));
        let field = Field { name: b"f".to_vec(), value: b"v".to_vec(), expires_at_ms: None };
        let hash = Value::Hash(vec![field.clone()]);
        assert_eq!(find(&hash, b"f"), Ok(Some(Element::Field(&field))));
        let zset = Value::Zset(vec![(b"m".to_vec(), Score::new(1.5).expect("a number"))]);
        let found = find(&zset, b"m").expect("a member").expect("it is there");
        assert_eq!(raw(&zset, Some(&found)), Ok(b"1.5".to_vec()));
        assert!(find(&Value::String(Vec::new()), b"0").is_err());
        for (text, id) in [("5-1", Some((5, 1))), ("5", Some((5, 0))), ("5-", None), ("x", None), ("5-1-1", None)] {
            assert_eq!(stream_id(text.as_bytes()).map(|id| (id.ms, id.seq)), id, "{text}");
        }
    }

    #[test]
    fn raw_is_the_bytes_and_nothing_else() {
        assert_eq!(raw(&Value::String(b"a\0\n\xff".to_vec()), None), Ok(b"a\0\n\xff".to_vec()));
        let list = Value::List(vec![b"a".to_vec()]);
        assert!(raw(&list, None).expect_err("a container").contains("this is a list"));
        assert_eq!(raw(&list, Some(&Element::Item(0, b"a"))), Ok(b"a".to_vec()));
    }

    #[test]
    fn scores_as_servers_print_them() {
        for (number, want) in [
            (1.0, "1"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.1, "0.1"),
            (1e16, "10000000000000000"),
            (1e300, "1e+300"),
            (1e-9, "1e-9"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(score(Score::new(number).expect("a number")), want);
        }
    }
}
