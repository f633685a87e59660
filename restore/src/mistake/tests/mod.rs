//! Mistakes in histories that are written down.

mod limits;
mod tables;

use std::sync::Arc;

use redtape_journal::query::{WriteQuery, Zone};
use redtape_journal::{Group, Lsn, Micros, Origin, OriginKind, Record, ReplOffset};

use super::record::State;
use super::{Bounds, Earlier, Meant, Mistake};

/// A client of this name, and behind a slash the command that it sent; `?` is nobody known.
fn origin(who: &str) -> Arc<Origin> {
    let (name, via) = who.split_once('/').unwrap_or((who, ""));
    let kind = match name {
        "expiry" => OriginKind::Expiry,
        "eviction" => OriginKind::Eviction,
        "outside" => OriginKind::Outside,
        "?" => OriginKind::Unknown,
        _ => OriginKind::Client,
    };
    let mut origin = Origin::of(kind);
    if kind == OriginKind::Client {
        origin.addr = "10.0.0.1:5".to_owned();
        name.clone_into(&mut origin.name);
    }
    via.clone_into(&mut origin.via);
    Arc::new(origin)
}

/// Groups, one a second: who, `|`, and commands with `;` between, each in its database (`1:SET k v`, else 0).
fn history(lines: &[&str]) -> Vec<Group> {
    let mut lsn = 0;
    let mut record = |command: &str| {
        lsn += 1;
        let (db, line) = match command.split_once(':') {
            Some((db, line)) if db.len() == 1 => (db.parse().expect("a database"), line),
            _ => (0, command),
        };
        let args: Vec<bytes::Bytes> = line.split(' ').map(|word| word.as_bytes().to_vec().into()).collect();
        // As the capture names the keys of a module.
        let keys = args[0].contains(&b'.').then(|| [0, 1].into_iter().collect());
        Record { lsn: Lsn(lsn), db, args, keys }
    };
    let groups = lines.iter().zip(1i64..).map(|(line, second)| {
        let (who, commands) = line.split_once('|').expect("who");
        let records: Vec<Record> = commands.split(';').map(&mut record).collect();
        let (ts, atomic) = (Micros(second * 1_000_000), records.len() > 1);
        Group { ts, slack: 0, origin: origin(who), atomic, end_offset: ReplOffset(0), records }
    });
    groups.collect()
}

fn find_of(groups: &[Group], filter: &str, include_unknown: bool, bounds: Bounds) -> Mistake {
    let query: WriteQuery = filter.parse().expect("a filter");
    let filter = query.resolve(Micros(0), &Zone::utc(), &[]).expect("times");
    let earlier = Earlier::default();
    let mut state = State::new(Meant { filter: &filter, include_unknown, earlier: &earlier }, bounds);
    for group in groups {
        state.group(group);
    }
    state.finish()
}

fn find(lines: &[&str], filter: &str) -> Mistake {
    find_of(&history(lines), filter, false, Bounds::default())
}

/// `0:key` of those that are asked about and affected.
fn affected(mistake: &Mistake, asked: &[&str]) -> String {
    let is = |asked: &&&str| {
        let (db, key) = asked.split_once(':').expect("a database");
        mistake.affected.may_be(db.parse().expect("a number"), key.as_bytes())
    };
    asked.iter().filter(is).copied().collect::<Vec<_>>().join(" ")
}

/// The LSN of the first dependent of `0:key`, `0:key/element` or `0:key@`; 0 = none.
fn depends(mistake: &Mistake, asked: &str) -> u64 {
    let (db, key) = asked.split_once(':').expect("a database");
    let db = db.parse().expect("a number");
    let found = match (key.strip_suffix('@'), key.split_once('/')) {
        (Some(key), _) => mistake.affected.depends_on_ttl(db, key.as_bytes()),
        (_, Some((key, element))) => mistake.affected.depends(db, key.as_bytes(), Some(element.as_bytes())),
        _ => mistake.affected.depends(db, key.as_bytes(), None),
    };
    found.map_or(0, |dependent| dependent.at.lsn.0)
}
