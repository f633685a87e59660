//! Describes the findings in the history, for the plan.

use super::history::History;
use super::plan::WritesSeen;
use crate::mistake::{At, Sample, Samples, Writer};

/// Clients listed by name.
const CLIENTS_SHOWN: usize = 5;
/// Writes of each kind that are listed.
const SAMPLES: usize = 5;

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

    /// The writes that depend on them.
    pub(super) fn built_on(&self) -> WritesSeen {
        let all = self.mistake.affected.dependents();
        let more = u64::from(self.mistake.affected.dependents_overflow().is_some());
        let samples = all.iter().take(SAMPLES).map(sample).collect();
        WritesSeen { count: all.len() as u64 + more, samples, ..WritesSeen::default() }
    }

    /// Describes what cannot be judged.
    pub(super) fn not_judged(&self) -> Vec<String> {
        let Samples { count, first } = &self.mistake.not_judged;
        let mut words: Vec<String> = first.iter().take(SAMPLES).map(sample).collect();
        if *count > words.len() as u64 {
            words.push(format!("{count} in all"));
        }
        if self.earlier_too_old {
            words.push(
                "an earlier undo reaches back before the oldest base: the writes that it undid count here as written"
                    .to_owned(),
            );
        }
        let by_redtape = &self.mistake.by_redtape;
        if let Some(last) = by_redtape.last() {
            let count = by_redtape.count();
            words.push(format!(
                "redtape itself has written these keys {count} times since, the last time at LSN {last} (a restore, another undo, or undo --file): what it wrote there stays. Undo writes of several clients together, in one undo; what undo --file put back, by its own undo file; what came later, with --since behind it"
            ));
        }
        words
    }
}

/// Lists some records of one kind.
pub(super) fn seen(samples: &Samples) -> WritesSeen {
    let first = samples.first.iter().take(SAMPLES).map(sample).collect();
    WritesSeen { count: samples.count, samples: first, ..WritesSeen::default() }
}

/// Describes a record in one line.
fn sample(sample: &Sample) -> String {
    let Sample { at, who, db, command, why } = sample;
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!("LSN {} {} db {db} {}: {command}{why}", at.lsn, at.ts, who)
}

/// Describes a client.
fn name(Writer { addr, name, user }: &Writer) -> String {
    let name = if name.is_empty() { String::new() } else { format!(" {name}") };
    let user = if user.is_empty() || user == "default" { String::new() } else { format!(" (user {user})") };
    format!("{addr}{name}{user}")
}
