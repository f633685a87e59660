//! Pieces on their way to a server.
//!
//! The key begins with a `RESTORE` that has a TTL, so that it never exists without one. Each piece ends with a `PEXPIRE`
//! that renews it: should the key get lost on the way (evicted, expired while this machine was asleep), what the next piece
//! makes anew goes as well. At most [`PieceLimits::unanswered`] pieces are under way, so that neither side holds more than those.

use std::collections::VecDeque;

use redtape_wire::quoted::in_quotes;
use redtape_wire::rdb::{RdbVersion, Value as Canonical, encode_dump};
use redtape_wire::resp::encode_command;

use super::cut::PieceLimits;
use super::error::BuildError;
use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;

/// How long a temporary key lives after its last piece: one hour, in ms.
pub const TEMPORARY_TTL_MS: u64 = 3_600_000;

/// Writes one temporary key.
pub(super) struct PieceWriter<'a> {
    server: &'a mut Server,
    name: &'a [u8],
    limits: PieceLimits,
    /// Commands of the piece that is not sent yet.
    packed: Vec<u8>,
    commands: Vec<&'static str>,
    /// Commands of the pieces that were sent, the oldest first.
    unanswered: VecDeque<Vec<&'static str>>,
    /// A piece did not find what was written before it.
    gone: bool,
    /// TTLs of fields are being set: with the last of them, the key may go.
    may_expire: bool,
    expired_fields: u64,
}

impl<'a> PieceWriter<'a> {
    pub(super) fn new(server: &'a mut Server, name: &'a [u8], limits: PieceLimits) -> Self {
        let (packed, commands, unanswered) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { server, name, limits, packed, commands, unanswered, gone: false, may_expire: false, expired_fields: 0 }
    }

    /// The first piece, which replaces what an earlier try may have left.
    pub(super) fn begin(&mut self, value: &Canonical, version: RdbVersion) -> Result<(), BuildError> {
        let payload = encode_dump(value, version)?;
        let ttl = TEMPORARY_TTL_MS.to_string();
        self.command("UNLINK", &[self.name]);
        self.command("RESTORE", &[self.name, ttl.as_bytes(), &payload]);
        self.flush()
    }

    /// Adds a command to the piece.
    pub(super) fn command(&mut self, command: &'static str, args: &[&[u8]]) {
        let mut all = vec![command.as_bytes()];
        all.extend_from_slice(args);
        encode_command(&mut self.packed, &all);
        self.commands.push(command);
    }

    /// Ends the piece if it is full.
    pub(super) fn flush_full(&mut self) -> Result<(), BuildError> {
        if self.packed.len() >= self.limits.bytes || self.commands.len() >= self.limits.elements {
            return self.flush();
        }
        Ok(())
    }

    /// Ends the piece and sends it.
    pub(super) fn flush(&mut self) -> Result<(), BuildError> {
        if self.commands.is_empty() {
            return Ok(());
        }
        let ttl = TEMPORARY_TTL_MS.to_string();
        self.command("PEXPIRE", &[self.name, ttl.as_bytes()]);
        while self.unanswered.len() >= self.limits.unanswered.max(1) {
            self.receive()?;
        }
        self.server.send(&self.packed)?;
        self.packed.clear();
        self.unanswered.push_back(std::mem::take(&mut self.commands));
        Ok(())
    }

    /// Sends what is left and takes all replies.
    pub(super) fn finish(&mut self) -> Result<(), BuildError> {
        self.flush()?;
        while !self.unanswered.is_empty() {
            self.receive()?;
        }
        Ok(())
    }

    /// The replies to the oldest piece.
    fn receive(&mut self) -> Result<(), BuildError> {
        let Some(commands) = self.unanswered.pop_front() else { return Ok(()) };
        let mut refused = None;
        for command in commands {
            match self.server.receive()? {
                // The first tells why; those behind it may only follow from it.
                Reply::Error(error) => refused = refused.or_else(|| Some(self.server.refused(command, &error))),
                Reply::Value(value) => self.look_at(command, &value),
            }
        }
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    fn look_at(&mut self, command: &str, reply: &Value) {
        match (command, reply) {
            // 1: the time was set; 2: it has passed, and the field is gone.
            ("HPEXPIREAT", Value::Array(codes)) => {
                self.expired_fields += codes.iter().filter(|code| **code == Value::Int(2)).count() as u64;
                self.gone |= !codes.iter().all(|code| matches!(code, Value::Int(1 | 2)));
            }
            ("XCLAIM", Value::Array(ids)) => self.gone |= ids.len() != 1,
            ("PEXPIRE", reply) => self.gone |= *reply != Value::Int(1) && !self.may_expire,
            _ => {}
        }
    }

    /// From now on fields get TTLs.
    pub(super) fn let_fields_expire(&mut self) {
        self.may_expire = true;
    }

    /// Fields whose time had passed when it was set.
    pub(super) fn expired_fields(&self) -> u64 {
        self.expired_fields
    }

    /// Fails unless the key has so many elements. All replies must have been taken.
    pub(super) fn check_length(&mut self, command: &'static str, want: u64) -> Result<(), BuildError> {
        let there = self.server.call(&[command.as_bytes(), self.name])?;
        if self.gone || there != Value::Int(want.cast_signed()) {
            return Err(self.lost());
        }
        Ok(())
    }

    /// Fails if a piece found something else than what was written before it.
    pub(super) fn check_whole(&self) -> Result<(), BuildError> {
        if self.gone { Err(self.lost()) } else { Ok(()) }
    }

    /// Whether the key exists.
    pub(super) fn exists(&mut self) -> Result<bool, BuildError> {
        Ok(self.server.call(&[b"EXISTS", self.name])? != Value::Int(0))
    }

    fn lost(&self) -> BuildError {
        BuildError::Lost(in_quotes(self.name))
    }

    /// Removes what was built. Only if the server was lost it stays, until its TTL has passed.
    pub(super) fn give_up(&mut self) -> Result<(), RestoreError> {
        while let Some(commands) = self.unanswered.pop_front() {
            for _ in commands {
                self.server.receive()?;
            }
        }
        self.server.call(&[b"UNLINK", self.name]).map(drop)
    }
}
