//! A dataset as it would be without some records: the history up to the first of them goes over the link, which is exact; the rest
//! over an ordinary connection, whose replies tell what would have gone otherwise ([`super::tail`]).

use redtape_journal::{Group, Lsn, ReadError};

use super::journal_range::ReplaySource;
use super::left_out::LeftOut;
use super::scratch::Scratch;
use super::tail::{Replayed, Tail};
use super::{Replay, Source};
use crate::error::RestoreError;
use crate::progress::{Event, Observer, Unit};
use crate::replica_link::Payload;
use crate::slice::Kept;

/// The groups of a history before a record.
struct Before<'a> {
    all: &'a dyn ReplaySource,
    end: Lsn,
}

impl ReplaySource for Before<'_> {
    fn groups(&self) -> Box<dyn Iterator<Item = Result<Group, ReadError>> + '_> {
        let end = self.end;
        Box::new(
            self.all.groups().take_while(move |group| group.as_ref().map_or(true, |group| ends_before(group, end))),
        )
    }
}

fn ends_before(group: &Group, end: Lsn) -> bool {
    group.records.last().is_none_or(|record| record.lsn < end)
}

impl Source {
    /// The dataset without what is left out, in a scratch server.
    pub(crate) fn rebuild_without(&self, observer: &mut dyn Observer) -> Result<(Scratch, Replayed), RestoreError> {
        let range = self.replay.range();
        let nothing = LeftOut::default();
        let without = range.without.as_deref().unwrap_or(&nothing);
        let begins = without.begins;
        let binary = self.binary.as_ref().ok_or_else(|| RestoreError::NoScratch("none was chosen".to_owned()))?;
        let mut scratch = Scratch::start(binary, self.facts.max_db + 1, self.limits, &self.interrupt)?;
        let all = self.replay.source();
        let before = Before { all, end: begins };
        let records = self.records_before(begins);
        let payload = Payload { replay: &before, records, ..self.payload()? };
        scratch.load(payload, observer, &self.interrupt).map_err(RestoreError::before_the_target)?;
        let total = self.facts.records.saturating_sub(records);
        observer.on(&Event::Step { name: "replaying the rest", total, unit: Unit::Records });
        let mut tail = Tail::new(&mut scratch, &self.interrupt);
        let mut done = 0;
        for group in all.groups() {
            let group = group.map_err(|error| RestoreError::unreadable(error, &range.catalog))?;
            if ends_before(&group, begins) {
                continue;
            }
            done += group.records.len() as u64;
            if tail.group(&group, &without.removals)? {
                observer.on(&Event::At(done));
            }
        }
        let replayed = tail.finish()?;
        observer.on(&Event::StepDone);
        Ok((scratch, replayed))
    }

    /// How many records go over the link: those of the groups before this one.
    fn records_before(&self, begins: Lsn) -> u64 {
        match &self.replay {
            Replay::All(range) => begins.0.saturating_sub(1).saturating_sub(range.after.0),
            Replay::Kept(kept) => match &kept.kept {
                Kept::Noted(lsns) => lsns.count_below(begins),
                Kept::Held(groups) => {
                    let before = groups.iter().filter(|group| ends_before(group, begins));
                    before.map(|group| group.records.len() as u64).sum()
                }
            },
        }
    }
}
