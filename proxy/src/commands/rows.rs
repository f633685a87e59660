//! redtape's commands as rows of `COMMAND` and entries of `COMMAND DOCS`, in the server's own shape.
//!
//! A row has 7 elements before Redis 7.0 and 10 since. In RESP3 some elements are sets, and which ones depends on the
//! server. So a row of the server is copied in shape:
//!
//! ```text
//! name  arity  [flags]  first  last  step  [categories]  |  [tips]  [key specs]  [subcommands]
//! ```

use super::reply::{aggregate, element_end, push_bulk, push_header, push_status};
use super::table::{Command, MODULE};
use super::wording::Wording;

/// Elements of a row since Redis 7.0.
const SINCE_7: usize = 10;
/// Elements of a row that every server with ACLs gives.
const ALWAYS: usize = 7;

/// The type byte of each element of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape(Vec<u8>);

impl Shape {
    /// Shape of a row of this version, if there is no row to examine.
    pub(super) fn usual(wording: Wording, resp3: bool) -> Self {
        let list = if resp3 { b'~' } else { b'*' };
        let mut kinds = vec![b'$', b':', list, b':', b':', b':', list];
        if wording.since_7() {
            kinds.extend([list, list, b'*']);
        }
        Self(kinds)
    }

    /// Shape of the rows in a reply to `COMMAND` or `COMMAND INFO`; `None` if there are none.
    pub(super) fn of_rows(reply: &[u8]) -> Option<Self> {
        let (_, rows, mut at) = aggregate(reply)?;
        let mut found = None;
        for _ in 0..rows {
            let end = element_end(reply, at)?;
            if let Some((shape, plain)) = Self::of_row(&reply[at..end]) {
                if plain {
                    return Some(shape);
                }
                found = found.or(Some(shape));
            }
            at = end;
        }
        found
    }

    /// Also returns whether its last element is empty, as in redtape's rows: a non-empty list may have another type.
    fn of_row(row: &[u8]) -> Option<(Self, bool)> {
        let (kind, elements, mut at) = aggregate(row)?;
        if kind != b'*' || elements < ALWAYS {
            return None;
        }
        let (mut kinds, mut plain) = (Vec::with_capacity(elements), false);
        for _ in 0..elements {
            let end = element_end(row, at)?;
            kinds.push(row[at]);
            plain = aggregate(&row[at..end]).is_some_and(|(_, n, _)| n == 0);
            at = end;
        }
        Some((Self(kinds), plain || elements == ALWAYS))
    }
}

/// Appends the row of one command.
pub(super) fn push_row(out: &mut Vec<u8>, command: &Command, shape: &Shape) {
    let kinds = &shape.0;
    let list = |i: usize| if kinds[i] == b'~' { b'~' } else { b'*' };
    push_header(out, b'*', kinds.len());
    push_bulk(out, command.name);
    push_header(out, b':', command.arity);
    let flags = command.flags(kinds.len() >= SINCE_7);
    push_header(out, list(2), flags.len());
    for flag in flags {
        push_status(out, flag);
    }
    // No keys.
    (0..3).for_each(|_| push_header(out, b':', 0));
    push_header(out, list(6), command.categories().len());
    command.categories().iter().for_each(|category| push_status(out, &format!("@{category}")));
    (ALWAYS..kinds.len()).for_each(|i| push_header(out, list(i), 0));
}

/// Appends name and documentation of one command; `map` is the type of maps: `%`, or `*` in RESP2.
pub(super) fn push_docs(out: &mut Vec<u8>, command: &Command, map: u8) {
    let pairs = |out: &mut Vec<u8>, n: usize| push_header(out, map, if map == b'%' { n } else { n * 2 });
    push_bulk(out, command.name);
    pairs(out, 4 + usize::from(!command.args.is_empty()));
    for (name, value) in
        [("summary", command.summary), ("since", env!("CARGO_PKG_VERSION")), ("group", "module"), ("module", MODULE)]
    {
        push_bulk(out, name);
        push_bulk(out, value);
    }
    if command.args.is_empty() {
        return;
    }
    push_bulk(out, "arguments");
    push_header(out, b'*', command.args.len());
    for arg in command.args {
        pairs(out, 2);
        for (name, value) in [("name", *arg), ("type", "string")] {
            push_bulk(out, name);
            push_bulk(out, value);
        }
    }
}
