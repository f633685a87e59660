//! The history without the writes that are undone, and the two datasets that come of it.

use std::path::Path;
use std::sync::Arc;

use redtape_journal::query::{Filter, Since, Until, WriteFilter};
use redtape_journal::undo_file::OperationId;
use redtape_journal::{Catalog, Lsn, Mark, MarkError, Micros, Present, TimelineId};

use super::UndoWritesRequest;
use super::earlier::{concerning, read_all};
use super::pairs::Pairs;
use super::plan::WritesSeen;
use crate::error::RestoreError;
use crate::mistake::{At, Bounds, Earlier, Meant, Mistake, MistakeRange, Sample, Samples, Writer, find};
use crate::plan::{Facts, Plan, choose, make};
use crate::progress::{Event, Observer, Unit};
use crate::source::left_out::LeftOut;
use crate::source::present::{complete, not_complete};
use crate::source::tail::Replayed;
use crate::source::{Located, Source};
use crate::target::preflight::TargetFacts;
use crate::target::repair::{LEFT_KEYS_MAX, Operation};
use crate::target::rights::Repairs;
use crate::target::server::ServerTarget;

/// What needs a journal up to the present.
const WHAT: &str = "an undo of writes";
/// Clients that are named in a plan.
const CLIENTS_SHOWN: usize = 5;
/// Writes of each kind that are shown there.
const SAMPLES: usize = 5;

/// Digits of an undo's id that stand in the names of its marks.
const MARKED_DIGITS: usize = 8;

/// A key, with its database.
pub(super) type Place = (u32, Vec<u8>);

/// Which writes are undone, and what that concerns.
pub(super) struct History {
    pub(super) mistake: Mistake,
    pub(super) timeline: TimelineId,
    /// The last record that is looked at.
    pub(super) upto: Lsn,
    /// The last record that may be undone.
    last: Lsn,
    pub(super) journal_id: String,
    /// The keys that may differ.
    pub(super) filter: Filter,
    pub(super) include_dependent: bool,
    /// The first record of the group that holds the first write.
    begins: Lsn,
    /// Some earlier undo reaches back behind what can be replayed.
    earlier_too_old: bool,
    marks: Vec<Mark>,
}

/// Connects to the server, and looks at it.
pub(super) fn open_target(request: &UndoWritesRequest) -> Result<ServerTarget, RestoreError> {
    let (connector, commands) = (request.to.connector()?, request.to.commands.clone());
    let mut target = ServerTarget::open(connector, commands, &request.dataset(Filter::default(), Lsn(0)))?;
    let catalog = Catalog::open_with(&request.from, &request.keyring)?;
    if catalog.windows().is_empty() {
        return Err(not_complete(MarkError::NoBase, WHAT));
    }
    target.facts.compare_with(&catalog.timelines());
    check_server(request, &target.facts)?;
    Ok(target)
}

/// Refuses a server that is not the recorded one.
fn check_server(request: &UndoWritesRequest, facts: &TargetFacts) -> Result<(), RestoreError> {
    if facts.is_source {
        return Ok(());
    }
    Err(RestoreError::Unable(format!(
        "{} is not the server that {} records (its replication id is {}), so what it holds was not made by these writes: choose the recorded server, or restore the state before them with redtape restore --before lsn:N --to URL",
        facts.address,
        request.from.display(),
        facts.replid
    )))
}

/// The record behind which the writes are looked for.
fn first_of(filter: &WriteFilter, catalog: &Catalog, timeline: TimelineId, last: Lsn) -> Result<Lsn, RestoreError> {
    let unreadable = |error| RestoreError::unreadable(error, catalog);
    let since = match filter.since {
        None => Lsn(0),
        Some(Since::After(lsn)) => lsn,
        // What ran at this microsecond is meant as well.
        Some(Since::Time(ts)) => catalog.find_cut_by_ts(timeline, Micros(ts.0 - 1)).map_err(unreadable)?.lsn,
    };
    let named = filter.lsns.iter().map(|range| Lsn(range.first.0.saturating_sub(1))).min().unwrap_or_default();
    let begins = catalog.timelines().iter().find(|info| info.id == timeline).map_or(Lsn(0), |info| info.first_lsn);
    let wanted = since.max(named);
    if !filter.lsns.is_empty() && wanted.0.saturating_add(1) < begins.0 {
        return Err(RestoreError::Unable(format!(
            "the history from LSN {} to now is not whole: the journal's present timeline begins at LSN {begins}, so what was built on those writes is not known. `redtape journal ls` shows the gap; redtape restore --before lsn:{} brings back what was there",
            wanted.0 + 1,
            wanted.0 + 1
        )));
    }
    Ok(wanted.max(Lsn(begins.0.saturating_sub(1))).min(last))
}

fn nothing_selected(mistake: &Mistake) -> RestoreError {
    let hint = match mistake.doubtful.count {
        0 if mistake.not_judged.count > 0 => {
            "functions are not undone: load the library again, or see redtape restore".to_owned()
        }
        0 => "look with redtape log and the same filters".to_owned(),
        n => format!("{n} writes of unknown origin may be meant: --include-unknown takes them in"),
    };
    RestoreError::Unable(format!("no write of the present timeline is selected, so there is nothing to undo; {hint}"))
}

impl History {
    /// The selected writes, for the plan.
    pub(super) fn selected(&self) -> WritesSeen {
        let selected = &self.mistake.selected;
        let mut clients: Vec<String> =
            selected.clients.iter().take(CLIENTS_SHOWN).map(|(who, count)| format!("{}: {count}", name(who))).collect();
        let shown: u64 = selected.clients.iter().take(CLIENTS_SHOWN).map(|(_, count)| count).sum();
        let others = selected.samples.count.saturating_sub(shown);
        if others > 0 {
            clients.push(format!("others: {others}"));
        }
        let (first, last) = selected.span.unzip();
        let lsn = |at: Option<At>| at.map(|at| at.lsn.0);
        WritesSeen { first_lsn: lsn(first), last_lsn: lsn(last), clients, ..seen(&selected.samples) }
    }

    /// What was built on them.
    pub(super) fn built_on(&self) -> WritesSeen {
        let all = self.mistake.affected.dependents();
        let more = u64::from(self.mistake.affected.dependents_overflow().is_some());
        let samples = all.iter().take(SAMPLES).map(sample).collect();
        WritesSeen { count: all.len() as u64 + more, samples, ..WritesSeen::default() }
    }

    /// Records by which redtape has written affected keys, other than by these undos: how many, and the last one.
    fn by_redtape(&self, ids: &[OperationId]) -> Option<(u64, Lsn)> {
        let all = &self.mistake.by_redtape;
        let own: u64 = ids.iter().map(|id| self.written_by(id)).sum();
        let others = all.count().saturating_sub(own);
        (others > 0).then_some((others, all.last()?))
    }

    /// How many of them lie between the marks of an undo.
    fn written_by(&self, id: &OperationId) -> u64 {
        let all = &self.mistake.by_redtape;
        let id: String = id.to_string().chars().take(MARKED_DIGITS).collect();
        let of = |when: &str| {
            let name = format!("{when}-undo-{id}");
            self.marks.iter().filter(move |mark| mark.name == name).map(|mark| mark.lsn)
        };
        let Some(begin) = of("before").min() else { return 0 };
        // One that was interrupted has not set the second.
        let is_open = of("before").count() > of("after").count();
        let end = if is_open { Lsn(u64::MAX) } else { of("after").max().unwrap_or(begin) };
        let upto = |lsn: Lsn| all.count_below(Lsn(lsn.0.saturating_add(1)));
        upto(end).saturating_sub(upto(begin))
    }

    /// What cannot be judged, in words.
    pub(super) fn not_judged(&self, ids: &[OperationId]) -> Vec<String> {
        let Samples { count, first } = &self.mistake.not_judged;
        let mut words: Vec<String> = first.iter().take(SAMPLES).map(sample).collect();
        if *count > words.len() as u64 {
            words.push(format!("{count} in all"));
        }
        if self.earlier_too_old {
            words.push(
                "an earlier undo reaches back behind the oldest base: what it undid counts here as it was written"
                    .to_owned(),
            );
        }
        if let Some((count, last)) = self.by_redtape(ids) {
            words.push(format!(
                "redtape itself has written these keys {count} times since, the last time at LSN {last} (a restore, another undo, or undo --file): what it wrote there stays. Undo writes of several clients together, in one undo; what undo --file put back, by its own undo file; what came later, with --since behind it"
            ));
        }
        words
    }
}

/// Some records of one kind.
pub(super) fn seen(samples: &Samples) -> WritesSeen {
    let first = samples.first.iter().take(SAMPLES).map(sample).collect();
    WritesSeen { count: samples.count, samples: first, ..WritesSeen::default() }
}

/// A record in one line.
fn sample(sample: &Sample) -> String {
    let Sample { at, who, db, command, why } = sample;
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!("LSN {} {} db {db} {}: {command}{why}", at.lsn, at.ts, who)
}

/// A client, in words.
fn name(Writer { addr, name, user }: &Writer) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" {name}") };
    let user = if user.is_empty() || user == "default" { String::new() } else { format!(" (user {user})") };
    format!("{addr}{name}{user}")
}

/// Both datasets, and what went otherwise in the one without the writes.
pub(super) struct Rebuilt {
    pub(super) pairs: Pairs,
    pub(super) replayed: Replayed,
}

impl Rebuilt {
    /// Rebuilds them in scratch servers; with the plan that says whether the target takes what comes of it.
    pub(super) fn of(
        history: &History,
        request: &UndoWritesRequest,
        target: &mut ServerTarget,
        observer: &mut dyn Observer,
    ) -> Result<(Self, Plan), RestoreError> {
        let begins = history.begins;
        let mut without = source(history, request, Lsn(begins.0.saturating_sub(1)), observer)?;
        let facts = Facts {
            point: &without.point,
            rdb: without.rdb.version,
            range: &without.facts,
            target: &target.facts,
            base_memory: without.base_memory(),
            base_bytes: without.base_bytes(),
            base_highest_db: None,
            slice: without.slice.as_ref(),
            whole: false,
            filter: &history.filter,
            repairs: Repairs::UNDO,
            forced: None,
        };
        let (method, reason) = choose(&facts)?;
        let binary = without.find_binary(request.server_bin.as_deref(), target.facts.version)?;
        let plan = make(&facts, method, reason, Some(&binary));
        let mut was = source(history, request, history.upto, observer)?;
        was.binary = Some(binary.clone());
        without.binary = Some(binary);
        let (was, _) = was.rebuild(observer)?;
        let (without, replayed) = without.rebuild_without(observer)?;
        Ok((Self { pairs: Pairs::new(without, was)?, replayed }, plan))
    }
}

/// One of the datasets at the end of the history, with a base that is no later than `base`; without the writes, where that lies
/// before the end.
fn source(
    history: &History,
    request: &UndoWritesRequest,
    base: Lsn,
    observer: &mut dyn Observer,
) -> Result<Source, RestoreError> {
    let dataset = request.dataset(history.filter.clone(), base);
    let mut located = Located::find(&dataset)?;
    if located.point.timeline != history.timeline {
        return Err(RestoreError::Unable(format!(
            "what was there before LSN {} lies in timeline {}, and the journal has lost writes between it and the present one ({}): redtape restore --before lsn:{} brings back what was there",
            base.0 + 1,
            located.point.timeline,
            history.timeline,
            base.0 + 1
        )));
    }
    // Warnings of that point are none of the present's.
    located.point.warnings.clear();
    if base < history.upto {
        located.point.lsn = history.upto;
        located.without = Some(Arc::new(LeftOut {
            records: history.mistake.selected.lsns.clone().and(&history.mistake.earlier),
            removals: history.mistake.expiries.clone(),
            begins: history.begins,
        }));
    }
    located.check(&dataset, observer)
}

impl History {
    /// Reads the journal. `own`: the undo file of this undo, if it has begun. `again`: the same writes, for some keys alone, up to the present.
    pub(super) fn read(
        request: &UndoWritesRequest,
        own: Option<&Path>,
        again: Option<(&Self, Vec<Place>)>,
        observer: &mut dyn Observer,
    ) -> Result<Self, RestoreError> {
        let present = complete(&request.from, &request.keyring, WHAT)?;
        let Present { timeline, lsn: upto, .. } = present;
        let catalog = Catalog::open_for_search(&request.from, &request.keyring)?;
        let filter = request.writes.resolve(request.now, &request.zone, catalog.marks());
        let mut filter = filter.map_err(|error| RestoreError::Usage(error.to_string()))?;
        filter.keys = request.keys.clone();
        let last = again.as_ref().map_or(upto, |(before, _)| before.last);
        let after = first_of(&filter, &catalog, timeline, last)?;
        // What the culprit writes while this runs was not planned for.
        filter.until = Some(match filter.until {
            Some(until @ (Until::Time(_) | Until::Upto(_))) => until,
            None => Until::Upto(last),
        });
        let total = upto.0.saturating_sub(after.0);
        observer.on(&Event::Step { name: "looking for the writes", total, unit: Unit::Records });
        let range = MistakeRange { catalog: &catalog, timeline, after, upto };
        let mut on_progress = |passed| observer.on(&Event::At(passed));
        let mut find_with = |earlier: &Earlier| {
            let meant = Meant { filter: &filter, include_unknown: request.include_unknown, earlier };
            let after = earlier.first.map_or(after, |first| after.min(Lsn(first.0 - 1)));
            let range = MistakeRange { after, ..range };
            find(range, meant, Bounds::default(), &request.interrupt, &mut on_progress)
        };
        let mut earlier = Earlier::default();
        let mut mistake = find_with(&earlier)?;
        if let Some((first, _)) = mistake.selected.span {
            let folder = Operation::folder(request.state_dir.as_deref(), &catalog.meta().journal_id)?;
            let begins = catalog.windows().iter().filter(|w| w.timeline == timeline).map(|w| w.from_lsn).min();
            let begins = Lsn(begins.unwrap_or_default().0.saturating_add(1));
            earlier = concerning(&read_all(&folder, timeline, own), (first.lsn, first.ts), begins);
            if earlier.first.is_some() || !earlier.written.is_empty() {
                mistake = find_with(&earlier)?;
            }
        }
        observer.on(&Event::StepDone);
        let (Some((first, _)), Some(affected)) = (mistake.selected.span, mistake.affected.filter()) else {
            return Err(nothing_selected(&mistake));
        };
        let affected = match again {
            Some((_, keys)) => only(keys, &affected),
            None => affected,
        };
        let first = earlier.first.map_or(first.lsn, |earlier| earlier.min(first.lsn));
        let before = catalog.find_cut_by_lsn(timeline, Lsn(first.0 - 1));
        let before = before.map_err(|error| RestoreError::unreadable(error, &catalog))?;
        Ok(Self {
            timeline,
            upto,
            last,
            journal_id: catalog.meta().journal_id.clone(),
            filter: affected,
            include_dependent: request.include_dependent,
            begins: Lsn(before.lsn.0 + 1),
            marks: catalog.marks().to_vec(),
            earlier_too_old: earlier.too_old,
            mistake,
        })
    }
}

/// These keys alone; where there are too many to be noted, all.
fn only(keys: Vec<Place>, all: &Filter) -> Filter {
    if keys.len() >= LEFT_KEYS_MAX {
        return all.clone();
    }
    let mut filter = Filter::default();
    for (db, key) in keys {
        filter.add_key(Some(db), key);
    }
    filter
}
