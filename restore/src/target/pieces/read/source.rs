//! The key that is read.

use crate::client::{Reply, Server, Value, text};
use crate::refusal::{Refusal, meaning};
use crate::target::pieces::cut::PieceLimits;
use crate::target::pieces::error::ReadPiecesError;

/// A key of a server.
pub(super) struct Source<'a> {
    pub(super) server: &'a mut Server,
    pub(super) key: &'a [u8],
    pub(super) limits: PieceLimits,
}

/// Type and length.
pub(super) struct State {
    pub(super) kind: String,
    /// `None` where the type has none.
    pub(super) length: Option<u64>,
}

impl Source<'_> {
    /// Runs a command on the key; `more` stands behind the key.
    pub(super) fn ask(&mut self, command: &'static str, more: &[&[u8]]) -> Result<Value, ReadPiecesError> {
        self.ask_words(command, &[command.as_bytes()], more)
    }

    /// The same with a subcommand before the key.
    pub(super) fn ask_words(
        &mut self,
        command: &'static str,
        words: &[&[u8]],
        more: &[&[u8]],
    ) -> Result<Value, ReadPiecesError> {
        match self.server.try_call(&[words, &[self.key], more].concat())? {
            Reply::Value(value) => Ok(value),
            Reply::Error(error) if meaning(&error.code) == Refusal::WrongType => Err(ReadPiecesError::Changed),
            Reply::Error(error) => Err(self.server.refused(command, &error).into()),
        }
    }

    pub(super) fn state(&mut self) -> Result<State, ReadPiecesError> {
        let kind = text(&self.ask("TYPE", &[])?);
        let command = match kind.as_str() {
            "string" => "STRLEN",
            "list" => "LLEN",
            "set" => "SCARD",
            "zset" => "ZCARD",
            "hash" => "HLEN",
            "stream" => "XLEN",
            _ => return Ok(State { kind, length: None }),
        };
        let length = match self.ask(command, &[])? {
            Value::Int(length) => u64::try_from(length).ok(),
            _ => return Err(ReadPiecesError::Reply(command)),
        };
        Ok(State { kind, length })
    }
}
