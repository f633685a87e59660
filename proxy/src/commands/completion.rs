//! Adds redtape's part to the server's replies to `INFO` and `COMMAND`.
//!
//! A request is examined when it is forwarded; its reply is completed once it is whole. An unexpected reply (an error,
//! `+QUEUED` inside MULTI) is left unchanged.

use redtape_wire::word;

use super::glob;
use super::reply::{aggregate, element_end, error, extended, head, push_bulk};
use super::rows::{Shape, push_docs, push_row};
use super::table::{COMMANDS, Command, MODULE, SECTION};

/// What is missing from a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Completion(Lacks);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Lacks {
    /// The section, at the end of the text.
    Section,
    /// All rows, after the server's.
    AllRows,
    /// As above, for an older server that returns none at all.
    AllRowsIfAny,
    /// Rows in place of nils: for each requested name, the index of the admin command.
    Rows(Vec<Option<usize>>),
    /// A number to be added.
    Count(usize),
    /// These names.
    Names(Vec<usize>),
    /// These entries.
    Docs(Vec<usize>),
    /// That a command has no keys, instead of an error that it does not exist.
    NoKeys,
}

/// What the server's reply to this request will lack; `args[0]` is the command's name in any case.
pub(crate) fn completion(args: &[&[u8]]) -> Option<Completion> {
    let (name, rest) = args.split_first()?;
    let lacks = match name.len() {
        4 if name.eq_ignore_ascii_case(b"info") => shows_section(rest).then_some(Lacks::Section),
        7 if name.eq_ignore_ascii_case(b"command") => of_command(rest),
        _ => None,
    };
    lacks.map(Completion)
}

/// `INFO` with these arguments shows a module's section.
fn shows_section(sections: &[&[u8]]) -> bool {
    let shows = |s: &&[u8]| word::is_one_of(s, &["all", "everything", "default", "modules", MODULE]);
    sections.is_empty() || sections.iter().any(shows)
}

fn of_command(args: &[&[u8]]) -> Option<Lacks> {
    let Some((subcommand, rest)) = args.split_first() else { return Some(Lacks::AllRows) };
    let all = || (0..COMMANDS.len()).collect();
    let any = |found: Vec<usize>| (!found.is_empty()).then_some(found);
    match (word::seen(subcommand).to_ascii_lowercase().as_slice(), rest) {
        (b"count", []) => Some(Lacks::Count(COMMANDS.len())),
        (b"info", []) => Some(Lacks::AllRowsIfAny),
        (b"info", names) => {
            let rows: Vec<_> = names.iter().map(|name| index_of(name)).collect();
            rows.iter().any(Option::is_some).then_some(Lacks::Rows(rows))
        }
        (b"docs", []) => Some(Lacks::Docs(all())),
        (b"docs", names) => any(names.iter().filter_map(|name| index_of(name)).collect()).map(Lacks::Docs),
        (b"list", []) => Some(Lacks::Names(all())),
        (b"list", [filter, by, what]) if word::is(filter, "filterby") => any(filtered(by, what)).map(Lacks::Names),
        (b"getkeys" | b"getkeysandflags", [name, ..]) => index_of(name).map(|_| Lacks::NoKeys),
        _ => None,
    }
}

/// The index of an admin command.
fn index_of(name: &[u8]) -> Option<usize> {
    COMMANDS.iter().position(|c| name.eq_ignore_ascii_case(c.name.as_bytes()))
}

/// `COMMAND LIST FILTERBY <by> <what>`.
fn filtered(by: &[u8], what: &[u8]) -> Vec<usize> {
    let keep = |c: &Command| match word::seen(by).to_ascii_lowercase().as_slice() {
        b"module" => what == MODULE.as_bytes(),
        b"aclcat" => c.categories().iter().any(|category| word::is(what, category)),
        b"pattern" => glob::matches(what, c.name.as_bytes()),
        _ => false,
    };
    COMMANDS.iter().enumerate().filter(|(_, c)| keep(c)).map(|(i, _)| i).collect()
}

impl Completion {
    /// Size in memory, in bytes.
    pub(crate) fn buffered(&self) -> usize {
        let listed = match &self.0 {
            Lacks::Rows(rows) => rows.capacity() * size_of::<Option<usize>>(),
            Lacks::Names(which) | Lacks::Docs(which) => which.capacity() * size_of::<usize>(),
            _ => 0,
        };
        size_of::<Self>() + listed
    }

    /// The whole reply including redtape's part; `None` = unchanged. `usual`: the shape of a row, if the reply shows
    /// none.
    pub(super) fn apply(&self, reply: &[u8], section: impl FnOnce() -> String, usual: &Shape) -> Option<Vec<u8>> {
        let shape = || Shape::of_rows(reply).unwrap_or_else(|| usual.clone());
        match &self.0 {
            Lacks::Section => with_section(reply, &section()),
            Lacks::AllRows => with_rows(reply, &shape()),
            Lacks::AllRowsIfAny => Shape::of_rows(reply).and_then(|shape| with_rows(reply, &shape)),
            Lacks::Rows(asked) => with_rows_for_nils(reply, asked, &shape()),
            Lacks::Count(more) => match head(reply, 0)? {
                (b':', count, _) => Some(format!(":{}\r\n", count + *more as i64).into_bytes()),
                _ => None,
            },
            Lacks::Names(which) => {
                let mut names = Vec::new();
                for i in which {
                    push_bulk(&mut names, COMMANDS[*i].name);
                }
                aggregate(reply).filter(|(kind, ..)| *kind != b'%')?;
                extended(reply, which.len(), &names)
            }
            Lacks::Docs(which) => {
                let (map, ..) = aggregate(reply)?;
                let mut docs = Vec::new();
                for i in which {
                    push_docs(&mut docs, &COMMANDS[*i], map);
                }
                extended(reply, which.len() * if map == b'%' { 1 } else { 2 }, &docs)
            }
            Lacks::NoKeys => {
                reply.starts_with(b"-ERR Invalid command").then(|| error("ERR The command has no key arguments"))
            }
        }
    }
}

/// Sections are separated by an empty line.
fn with_section(reply: &[u8], section: &str) -> Option<Vec<u8>> {
    let (kind, len, body) = head(reply, 0)?;
    let format: &[u8] = match kind {
        b'$' => b"",
        b'=' => b"txt:",
        _ => return None,
    };
    let whole = reply.get(body..body.checked_add(usize::try_from(len).ok()?)?)?;
    let text = whole.strip_prefix(format)?;
    let apart: &[u8] = if text.is_empty() { b"" } else { b"\r\n" };
    let len = whole.len() + apart.len() + section.len();
    Some([&[kind], len.to_string().as_bytes(), b"\r\n", whole, apart, section.as_bytes(), b"\r\n"].concat())
}

fn with_rows(reply: &[u8], shape: &Shape) -> Option<Vec<u8>> {
    let mut rows = Vec::new();
    for command in &COMMANDS {
        push_row(&mut rows, command, shape);
    }
    aggregate(reply).filter(|(kind, ..)| *kind == b'*')?;
    extended(reply, COMMANDS.len(), &rows)
}

fn with_rows_for_nils(reply: &[u8], asked: &[Option<usize>], shape: &Shape) -> Option<Vec<u8>> {
    let (_, count, mut at) = aggregate(reply).filter(|(kind, count, _)| *kind == b'*' && *count == asked.len())?;
    let mut out = format!("*{count}\r\n").into_bytes();
    for row in asked {
        let end = element_end(reply, at)?;
        let is_nil = matches!(&reply[at..end], b"$-1\r\n" | b"*-1\r\n" | b"_\r\n");
        match row {
            Some(i) if is_nil => push_row(&mut out, &COMMANDS[*i], shape),
            _ => out.extend_from_slice(&reply[at..end]),
        }
        at = end;
    }
    Some(out)
}

// `SECTION` is the argument of `INFO`, in its own case.
const _: () = assert!(SECTION.as_bytes().eq_ignore_ascii_case(MODULE.as_bytes()));

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "completion_tests.rs"]
mod tests;
