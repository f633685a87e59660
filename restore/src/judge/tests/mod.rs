//! Verdicts of histories that are written down, and of random ones beside a model.

mod model;
mod random;
mod tables;

use std::sync::Arc;

use redtape_journal::query::{WriteFilter, WriteQuery, Zone};
use redtape_journal::{Group, Lsn, Micros, Origin, OriginKind, Record, ReplOffset, Searched};

use super::pass::Pass;
use super::{Meant, Part, Question, Verdict};

pub(super) fn filter(text: &str) -> WriteFilter {
    let query: WriteQuery = text.parse().expect("a filter");
    query.resolve(Micros(0), &Zone::utc(), &[]).expect("times")
}

/// A client of this name; with `?` in front, it is not known who it was. `expiry` and `outside` are no clients.
pub(super) fn origin(who: &str) -> Arc<Origin> {
    Arc::new(match who {
        "expiry" => Origin::of(OriginKind::Expiry),
        "outside" => Origin::of(OriginKind::Outside),
        _ if who.starts_with('?') => Origin::of(OriginKind::Unknown),
        name => Origin { addr: "10.0.0.1:5".to_owned(), name: name.to_owned(), ..Origin::of(OriginKind::Client) },
    })
}

/// A group of commands (database, words) from this LSN on.
pub(super) fn group(lsn: u64, ts_ms: i64, who: &str, commands: &[(u32, &str)]) -> Group {
    let record = |((db, line), lsn): (&(u32, &str), u64)| {
        let args: Vec<bytes::Bytes> = line.split(' ').map(|word| word.as_bytes().to_vec().into()).collect();
        // As the capture names the keys of a module.
        let module = args[0].contains(&b'.').then(|| [0, 1].into_iter().collect());
        Record { lsn: Lsn(lsn), db: *db, args, keys: module }
    };
    Group {
        ts: Micros(ts_ms * 1000),
        slack: 0,
        origin: origin(who),
        atomic: commands.len() > 1,
        end_offset: ReplOffset(0),
        records: commands.iter().zip(lsn..).map(record).collect(),
    }
}

/// `0:key`, `0:key/element`, `0:key@` for the TTL.
pub(super) fn question(text: &str) -> Question {
    let (db, rest) = text.split_once(':').expect("a database");
    let (key, part) = if let Some(key) = rest.strip_suffix('@') {
        (key, Part::Ttl)
    } else if let Some((key, element)) = rest.split_once('/') {
        (key, Part::Element(element.as_bytes().to_vec()))
    } else {
        (rest, Part::Whole)
    };
    let db = db.parse().expect("a number");
    Question { db, key: key.as_bytes().to_vec(), part, expires_before: None, expires_after: None }
}

/// Asks without a journal: groups, oldest first.
pub(super) fn ask(groups: &[Group], questions: &[Question], filter: &WriteFilter) -> Vec<Verdict> {
    ask_of(groups, questions, &Meant { filter, any_writer: false })
}

/// The same of all writes: which was the last.
pub(super) fn ask_any(groups: &[Group], questions: &[Question]) -> Vec<Verdict> {
    ask_of(groups, questions, &Meant { filter: &WriteFilter::default(), any_writer: true })
}

fn ask_of(groups: &[Group], questions: &[Question], meant: &Meant<'_>) -> Vec<Verdict> {
    let mut pass = Pass::new(questions, meant);
    groups.iter().rev().for_each(|group| pass.group(group));
    pass.finish(None);
    pass.judged(Searched::default(), None).verdicts
}

/// `selected N`, `other N`, `uncertain N Why`, `not written`.
pub(super) fn show(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Selected { lsn } => format!("selected {lsn}"),
        Verdict::Other { lsn, .. } => format!("other {lsn}"),
        Verdict::Uncertain { lsn, why, .. } => format!("uncertain {lsn} {why:?}"),
        Verdict::NotWritten => "not written".to_owned(),
    }
}
