//! Replies as bytes: where one ends, and what may differ between two servers that were told the same.
//!
//! Every rule names what it lets pass and why; everything else must be equal byte for byte.

use std::collections::{BTreeMap, BTreeSet};

/// What may differ in the replies to one command. It is sent alone, so that nothing else is excused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Exact,
    /// Only the kind of reply counts: figures of the process (memory, clients, sockets), or dice.
    Kind,
    /// The items of an array in any order: the order of the keyspace depends on when the server's timer
    /// resized it.
    Unordered,
    /// Ids of connections are given by the server in the order of its connections: they must name the same session.
    Ids,
    /// The proxy adds its own commands, `redtape…`, to the server's.
    CommandRows,
}

/// A push that names another connection by its id.
const BROKEN_REDIRECTION: &[u8] = b">2\r\n$21\r\ntracking-redir-broken\r\n";

/// The end of the value that starts at `at`; `None` while it is not whole, or not a reply.
pub fn end_of_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut values = 1_usize;
    while values > 0 {
        let line_end = at + memchr::memmem::find(bytes.get(at..)?, b"\r\n")?;
        let (kind, rest) = bytes[at..line_end].split_first()?;
        let number = || std::str::from_utf8(rest).ok()?.parse::<i64>().ok();
        at = line_end + 2;
        values -= 1;
        match kind {
            b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
            b'$' | b'!' | b'=' => {
                if let Ok(len) = usize::try_from(number()?) {
                    at += len + 2;
                    if at > bytes.len() {
                        return None;
                    }
                }
            }
            b'*' | b'~' | b'>' => values += usize::try_from(number()?).unwrap_or(0),
            b'%' => values += 2 * usize::try_from(number()?).ok()?,
            // An attribute, then the value that it belongs to.
            b'|' => values += 2 * usize::try_from(number()?).ok()? + 1,
            _ => return None,
        }
    }
    Some(at)
}

/// The whole values of a stream, and what is left.
pub fn values(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut all = Vec::new();
    while let Some(end) = end_of_value(bytes, 0) {
        let (value, rest) = bytes.split_at(end);
        all.push(value);
        bytes = rest;
    }
    (all, bytes)
}

/// The head line and the items of an aggregate.
fn items(value: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let head = memchr::memmem::find(value, b"\r\n").map_or(value.len(), |n| n + 2);
    match value.first() {
        Some(b'*' | b'~' | b'>' | b'%') => (&value[..head], values(&value[head..]).0),
        _ => (value, Vec::new()),
    }
}

/// That all keys are invalid. One connection gets it for itself and for those who redirect to it, in the order in
/// which the server walks through its connections, and in the protocol of each.
fn is_flush(value: &[u8]) -> bool {
    [&b">2\r\n$10\r\ninvalidate\r\n"[..], b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n"]
        .iter()
        .any(|head| matches!(value.strip_prefix(*head), Some(b"_\r\n" | b"$-1\r\n" | b"*-1\r\n")))
}

/// Keys that invalidations name, as the protocol has them.
pub type Keys = BTreeSet<Vec<u8>>;

/// `bytes` as they are compared. `ids`: the connections of this world by the ids that it gave them. `late`: how invalidations are
/// divided into messages does not count, and a key among these may be named once more; `None` = there is no such excuse.
pub fn comparable(bytes: &[u8], rule: Rule, ids: &BTreeMap<i64, usize>, late: Option<&Keys>) -> Vec<u8> {
    let mut bytes = hello_without_id(bytes);
    if let Some(late) = late {
        bytes = invalidations_last(&bytes, late);
    }
    let (mut all, rest) = values(&bytes);
    all.chunk_by_mut(|a, b| is_flush(a) && is_flush(b)).for_each(<[&[u8]]>::sort_unstable);
    let mut out = Vec::new();
    for value in all {
        match rule {
            _ if value.starts_with(BROKEN_REDIRECTION) => named_ids(value, ids, &mut out),
            Rule::Exact => out.extend_from_slice(value),
            Rule::Kind => out.push(if value.starts_with(b"-") { b'-' } else { value[0] }),
            Rule::Unordered => unordered(value, &mut out),
            Rule::Ids => named_ids(value, ids, &mut out),
            Rule::CommandRows => without_own_commands(value, &mut out),
        }
    }
    out.extend_from_slice(rest);
    out
}

/// The reply to HELLO has the id of the connection among its fields.
fn hello_without_id(bytes: &[u8]) -> Vec<u8> {
    const FIELD: &[u8] = b"$2\r\nid\r\n:";
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memmem::find(rest, FIELD) {
        let after = at + FIELD.len();
        let digits = rest[after..].iter().take_while(|b| b.is_ascii_digit()).count();
        let is_hello = rest[after + digits..].starts_with(b"\r\n$4\r\nmode\r\n");
        out.extend_from_slice(&rest[..after]);
        out.extend_from_slice(if is_hello { b"ID" } else { &rest[after..after + digits] });
        rest = &rest[after + digits..];
    }
    out.extend_from_slice(rest);
    out
}

/// The keys that an invalidation names; `None` = it is none.
fn named_keys(value: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (head, parts) = items(value);
    let is_push = head == b">2\r\n" && parts[0] == b"$10\r\ninvalidate\r\n";
    let is_message =
        parts.len() == 3 && parts[0] == b"$7\r\nmessage\r\n" && parts[1] == b"$20\r\n__redis__:invalidate\r\n";
    if !is_push && !is_message {
        return None;
    }
    let list = *parts.last()?;
    // After FLUSHALL there is no list: all keys.
    let named = items(list).1;
    Some(if named.is_empty() { vec![list.to_vec()] } else { named.into_iter().map(<[u8]>::to_vec).collect() })
}

/// All keys that the invalidations in `bytes` name.
pub fn invalidated(bytes: &[u8]) -> Keys {
    values(bytes).0.into_iter().filter_map(named_keys).flatten().collect()
}

/// With BCAST the server collects keys until its event loop turns, and when it turns depends on how
/// the requests came in: the keys of a step must be the same, not how they are divided into messages. So one of them may be named
/// again when the step is already compared.
fn invalidations_last(bytes: &[u8], late: &Keys) -> Vec<u8> {
    let (all, rest) = values(bytes);
    let (mut out, mut keys, mut broken) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for value in all {
        if value.starts_with(BROKEN_REDIRECTION) {
            // Said at each turn at which there was something to say.
            broken.insert(value);
        } else if let Some(named) = named_keys(value) {
            keys.extend(named.into_iter().filter(|key| !late.contains(key)));
        } else {
            out.extend_from_slice(value);
        }
    }
    broken.iter().for_each(|b| out.extend_from_slice(b));
    out.extend_from_slice(rest);
    if !keys.is_empty() {
        out.extend_from_slice(b"<invalidated>");
        keys.iter().for_each(|k| out.extend_from_slice(k));
    }
    out
}

fn unordered(value: &[u8], out: &mut Vec<u8>) {
    let (head, mut parts) = items(value);
    out.extend_from_slice(head);
    // SCAN: the cursor, then the keys.
    if parts.len() == 2 && parts[1].starts_with(b"*") {
        out.extend_from_slice(parts[0]);
        return unordered(parts[1], out);
    }
    parts.sort_unstable();
    parts.iter().for_each(|p| out.extend_from_slice(p));
}

fn named_ids(value: &[u8], ids: &BTreeMap<i64, usize>, out: &mut Vec<u8>) {
    let (head, parts) = items(value);
    let id = head.strip_prefix(b":").and_then(|n| std::str::from_utf8(&n[..n.len() - 2]).ok()?.parse::<i64>().ok());
    match id.and_then(|id| ids.get(&id)) {
        Some(conn) => out.extend_from_slice(format!("<id of connection {conn}>").as_bytes()),
        None => out.extend_from_slice(head),
    }
    parts.iter().for_each(|p| named_ids(p, ids, out));
}

fn without_own_commands(value: &[u8], out: &mut Vec<u8>) {
    let is_own = |v: &[u8]| {
        let (head, parts) = items(v);
        let name = parts.first().copied().unwrap_or(head).to_ascii_lowercase();
        memchr::memmem::find(&name[..name.len().min(24)], b"\nredtape").is_some()
    };
    let (head, parts) = items(value);
    match head.first() {
        // COMMAND COUNT.
        Some(b':') => out.extend_from_slice(b"<count>"),
        // COMMAND DOCS: name, what is said of it, …
        Some(b'%') => pairs(&parts, is_own, out),
        Some(b'*')
            if parts.get(1).is_some_and(|p| p.starts_with(b"*") || p.starts_with(b"%"))
                && parts[0].starts_with(b"$") =>
        {
            pairs(&parts, is_own, out);
        }
        Some(b'*') => parts.iter().filter(|p| !is_own(p)).for_each(|p| out.extend_from_slice(p)),
        _ => out.extend_from_slice(head),
    }
}

fn pairs(parts: &[&[u8]], is_own: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    for pair in parts.chunks(2).filter(|p| !is_own(p[0])) {
        pair.iter().for_each(|p| out.extend_from_slice(p));
    }
}

#[test]
fn a_key_is_invalidated_once_more_only_where_it_was_just_before() {
    let push = |keys: &[&str]| {
        let mut push = format!(">2\r\n$10\r\ninvalidate\r\n*{}\r\n", keys.len());
        keys.iter().for_each(|key| push += &format!("${}\r\n{key}\r\n", key.len()));
        push.into_bytes()
    };
    let compared = |bytes: &[u8], late: &Keys| comparable(bytes, Rule::Exact, &BTreeMap::new(), Some(late));
    let (none, before) = (Keys::new(), invalidated(&push(&["l1", "x"])));
    assert_eq!(compared(&[push(&["a", "b"]), push(&["a"])].concat(), &none), compared(&push(&["b", "a"]), &none));
    // A server whose loop has turned between two writes on one key names it twice.
    assert_eq!(compared(&push(&["l1"]), &before), b"");
    assert_eq!(compared(&push(&["l1", "other"]), &before), compared(&push(&["other"]), &none));
    assert_ne!(compared(&push(&["l1"]), &none), b"");
    assert_ne!(comparable(&push(&["l1"]), Rule::Exact, &BTreeMap::new(), None), b"");
}
