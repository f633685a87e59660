//! The capture's steps one at a time, on one thread, for a measurement of what each costs (`make measure`).

use std::sync::Arc;

use bytes::BytesMut;
use redtape_journal::{BlockBuilder, Lsn, Micros, ReplOffset};
use redtape_wire::command::CommandTable;

use crate::join::{Attributed, Join, WAIT_MAX};
use crate::psync::effects::{EffectParser, StreamEvent};
use crate::recorder::push_group;
use crate::tee::Tee;

/// A capture without a server and without a disk.
#[derive(Debug)]
pub struct Steps {
    table: Arc<CommandTable>,
    tee: Arc<Tee>,
    join: Join,
    parser: EffectParser,
    builder: BlockBuilder,
    attributed: Vec<Attributed>,
}

impl Steps {
    /// At the beginning of a stream.
    pub fn new(table: Arc<CommandTable>) -> Self {
        let mut join = Join::new(table.clone(), true);
        join.stream_starts(Micros(1), ReplOffset(0));
        Self {
            table,
            tee: Arc::default(),
            join,
            parser: EffectParser::new(ReplOffset(0), 0),
            builder: BlockBuilder::new(Lsn(1), Micros(0), ReplOffset(0), 0),
            attributed: Vec::new(),
        }
    }

    /// Where stamps go.
    pub fn tee(&self) -> &Arc<Tee> {
        &self.tee
    }

    /// Takes the stamps.
    pub fn drain(&mut self) {
        self.tee.drain(|message| self.join.tee(message));
    }

    /// Parses what the server has sent, and gives it to the join.
    pub fn parse(&mut self, wire: &mut BytesMut, arrived: Micros, now: Micros) {
        while let Ok(Some(StreamEvent::Group(group))) = self.parser.next(wire, arrived) {
            self.join.effect(group, now);
        }
    }

    /// Attributes everything, so late that nothing is waited for.
    pub fn attribute(&mut self, now: Micros) {
        self.attributed.extend(std::iter::from_fn(|| self.join.next(Micros(now.0 + WAIT_MAX))));
    }

    /// Encodes a block of what was attributed; gives how many groups are in it.
    pub fn write(&mut self, now: Micros) -> usize {
        let Self { attributed, builder, table, .. } = self;
        let written = attributed.drain(..).filter(|one| push_group(builder, one, table).is_ok()).count();
        self.builder.finish(now);
        written
    }
}
