//! A canonical value, built under a temporary name.

use std::collections::BTreeMap;
use std::iter::once;

use redtape_wire::rdb::{Field, Inexpressible, RdbVersion, Score, Value, losses};

use super::cut::{PieceLimits, cut};
use super::error::BuildError;
use super::stream;
use super::writer::PieceWriter;
use crate::client::Server;
use crate::error::RestoreError;
use crate::version::ServerVersion;

const EMPTY: BuildError = BuildError::NotInPieces("a value without elements");

/// Builds values on a server of this version.
#[derive(Debug, Clone, Copy)]
pub struct Builder {
    /// Of the server.
    pub version: ServerVersion,
    /// How large a piece may be.
    pub limits: PieceLimits,
}

/// What was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Fields of a hash whose TTL had passed when it was set: they are not in it.
    pub expired_fields: u64,
    /// The temporary key exists. It does not if all fields of a hash have expired: then the value is that of no key.
    pub exists: bool,
}

impl Builder {
    /// With pieces of the usual size.
    pub fn new(version: ServerVersion) -> Self {
        Self { version, limits: PieceLimits::default() }
    }

    /// Finds out what stands against building a value; nothing is written.
    pub fn check(&self, value: &Value) -> Result<(), BuildError> {
        let version = self.version.writes();
        let losses = losses(value, version);
        if !losses.is_empty() {
            return Err(Inexpressible { version, type_name: value.type_name(), losses }.into());
        }
        match value {
            Value::Module { .. } => Err(BuildError::NotInPieces("a value of a module")),
            Value::Stream(stream) => stream::check(stream),
            Value::List(elements) | Value::Set(elements) if elements.is_empty() => Err(EMPTY),
            Value::Zset(members) if members.is_empty() => Err(EMPTY),
            Value::Hash(fields) if fields.is_empty() => Err(EMPTY),
            _ => Ok(()),
        }
    }

    /// Builds a value under a temporary name in the selected database, and replaces what is there. Then
    /// [`swap`](mod@super::swap) puts it in the place of its key.
    ///
    /// Nothing is written of a value that cannot be built in full ([`Self::check`]). What was built is removed after a failure.
    pub fn build(&self, server: &mut Server, name: &[u8], value: &Value) -> Result<Built, BuildError> {
        self.check(value)?;
        let mut writer = PieceWriter::new(server, name, self.limits);
        let work = Work { writer: &mut writer, name, version: self.version.writes(), limits: self.limits };
        let result = work.write(value).and_then(|()| {
            let expired_fields = writer.expired_fields();
            Ok(Built { expired_fields, exists: writer.exists()? })
        });
        // A server that was lost is not asked again; the TTL removes the key.
        let lost = |error: &BuildError| {
            matches!(error, BuildError::Server(RestoreError::Unreachable { .. } | RestoreError::Silent { .. }))
        };
        if result.as_ref().is_err_and(|error| !lost(error)) {
            writer.give_up()?;
        }
        result
    }
}

/// One value on its way.
struct Work<'w, 'a> {
    writer: &'w mut PieceWriter<'a>,
    name: &'a [u8],
    version: RdbVersion,
    limits: PieceLimits,
}

impl Work<'_, '_> {
    fn write(mut self, value: &Value) -> Result<(), BuildError> {
        match value {
            Value::String(bytes) => self.string(bytes),
            Value::List(elements) => self.plain(elements, Value::List, "RPUSH", "LLEN"),
            Value::Set(members) => self.plain(members, Value::Set, "SADD", "SCARD"),
            Value::Zset(members) => self.zset(members),
            Value::Hash(fields) => self.hash(fields),
            Value::Stream(stream) => stream::write(stream, self.writer, self.name, self.version, self.limits),
            Value::Module { .. } => Ok(()),
        }
    }

    fn string(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        let mut pieces = bytes.chunks(self.limits.bytes.max(1));
        let first = pieces.next().unwrap_or_default();
        self.writer.begin(&Value::String(first.to_vec()), self.version)?;
        for piece in pieces {
            self.writer.command("APPEND", &[self.name, piece]);
            self.writer.flush()?;
        }
        self.end("STRLEN", bytes.len())
    }

    /// Elements that are added as they are.
    fn plain(
        &mut self,
        elements: &[Vec<u8>],
        make: fn(Vec<Vec<u8>>) -> Value,
        add: &'static str,
        length: &'static str,
    ) -> Result<(), BuildError> {
        let mut pieces = cut(elements, self.limits, Vec::len);
        let first = pieces.next().ok_or(EMPTY)?;
        self.writer.begin(&make(first.to_vec()), self.version)?;
        for piece in pieces {
            let args: Vec<&[u8]> = once(self.name).chain(piece.iter().map(Vec::as_slice)).collect();
            self.writer.command(add, &args);
            self.writer.flush()?;
        }
        self.end(length, elements.len())
    }

    /// Redis 7.2 and later keep scores of small sorted sets as integers where they can, and so make 0 of -0. So members with
    /// that score come last, when the set is not small any more; a small one cannot hold them on these servers.
    fn zset(&mut self, members: &[(Vec<u8>, Score)]) -> Result<(), BuildError> {
        let is_negative_zero = |score: Score| score.get() == 0.0 && score.get().is_sign_negative();
        let (last, usual): (Vec<_>, Vec<_>) =
            members.iter().partition::<Vec<&(Vec<u8>, Score)>, _>(|(_, score)| is_negative_zero(*score));
        let ordered = [usual, last].concat();
        let mut pieces = cut(&ordered, self.limits, |(member, _)| member.len());
        let first = pieces.next().ok_or(EMPTY)?;
        self.writer.begin(&Value::Zset(first.iter().copied().cloned().collect()), self.version)?;
        for piece in pieces {
            // The shortest text that is read back as the same bits.
            let scores: Vec<String> = piece.iter().map(|(_, score)| score.get().to_string()).collect();
            let pairs = scores.iter().zip(piece).flat_map(|(score, (member, _))| [score.as_bytes(), member]);
            let args: Vec<&[u8]> = once(self.name).chain(pairs).collect();
            self.writer.command("ZADD", &args);
            self.writer.flush()?;
        }
        self.end("ZCARD", members.len())
    }

    /// TTLs come last: a hash whose fields have all expired is gone, and what follows would make another key of its name.
    fn hash(&mut self, fields: &[Field]) -> Result<(), BuildError> {
        let mut pieces = cut(fields, self.limits, |field| field.name.len() + field.value.len());
        let first = pieces.next().ok_or(EMPTY)?.iter();
        let first = first.map(|field| Field { expires_at_ms: None, ..field.clone() }).collect();
        self.writer.begin(&Value::Hash(first), self.version)?;
        for piece in pieces {
            let pairs = piece.iter().flat_map(|field| [&field.name[..], &field.value]);
            let args: Vec<&[u8]> = once(self.name).chain(pairs).collect();
            self.writer.command("HSET", &args);
            self.writer.flush()?;
        }
        self.end("HLEN", fields.len())?;
        self.field_ttls(fields)
    }

    fn field_ttls(&mut self, fields: &[Field]) -> Result<(), BuildError> {
        let mut by_time: BTreeMap<i64, Vec<&[u8]>> = BTreeMap::new();
        for field in fields {
            if let Some(at) = field.expires_at_ms {
                by_time.entry(at).or_default().push(&field.name);
            }
        }
        self.writer.let_fields_expire();
        for (at, names) in by_time {
            let at = at.to_string();
            for names in cut(&names, self.limits, |name| name.len()) {
                let count = names.len().to_string();
                let head = [self.name, at.as_bytes(), b"FIELDS", count.as_bytes()];
                self.writer.command("HPEXPIREAT", &[&head[..], names].concat());
                self.writer.flush_full()?;
            }
        }
        self.writer.finish()?;
        self.writer.check_whole()
    }

    fn end(&mut self, length: &'static str, count: usize) -> Result<(), BuildError> {
        self.writer.finish()?;
        self.writer.check_length(length, count as u64)
    }
}
