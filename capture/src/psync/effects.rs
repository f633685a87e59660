//! Parses the bytes of the replication link into groups of effects.
//!
//! Pure. Tracks the offset and the selected database, and skips what is no effect: `PING`, `REPLCONF GETACK`, `SELECT`,
//! and the `MULTI`/`EXEC` around a group (Redis 7.0 `replication.c`).
//!
//! The effects of one read share its buffer and store their positions in it.
//!
//! Invariant: [`EffectParser::position`] is the end of a whole group and the database selected there, so a link resumed
//! from it neither repeats nor omits an effect.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use redtape_journal::{Micros, ReplOffset};
use redtape_wire::resp::{Args, Parsed, parse_request};
use smallvec::SmallVec;

use crate::group::{Effect, EffectGroup};

/// Largest group that is kept in memory; a larger one ends the timeline, with the reason recorded.
pub(crate) const GROUP_BYTES_MAX: usize = 2 << 30;

/// One event of the stream.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are groups, and they are moved on at once.
pub(crate) enum StreamEvent {
    /// A whole group.
    Group(EffectGroup),
    /// The server requests an acknowledgement.
    GetAck,
}

/// The bytes are no valid replication stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    /// The bytes are no command.
    #[error("the replication stream is not RESP at offset {0}")]
    NotResp(u64),
    /// A command or transaction larger than [`GROUP_BYTES_MAX`].
    #[error("a command or transaction in the replication stream is larger than {GROUP_BYTES_MAX} bytes")]
    GroupTooLarge,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EffectParser {
    offset: u64,
    db: u32,
    position: (ReplOffset, u32),
    open: Option<SmallVec<[Effect; 1]>>,
    open_bytes: usize,
    /// No further parsing before this many bytes are there.
    need: usize,
    /// The bytes read, less than 4 GiB; may end inside a command.
    chunk: Rc<Bytes>,
    /// Number of bytes consumed.
    used: usize,
    args: Args,
}

impl EffectParser {
    /// Starts at `offset` with `db` selected.
    pub(crate) fn new(offset: ReplOffset, db: u32) -> Self {
        Self {
            offset: offset.0,
            db,
            position: (offset, db),
            open: None,
            open_bytes: 0,
            need: 0,
            chunk: Rc::default(),
            used: 0,
            args: Args::new(),
        }
    }

    /// End of the last whole group, and the database selected there.
    pub(crate) fn position(&self) -> (ReplOffset, u32) {
        self.position
    }

    /// True if no part of the next group was read.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.open.is_none() && self.need == 0 && self.used == self.chunk.len()
    }

    /// Takes the next event from `buf`; `None` = more bytes are needed. The caller may only append to `buf` after
    /// `None`.
    pub(crate) fn next(&mut self, buf: &mut BytesMut, now: Micros) -> Result<Option<StreamEvent>, StreamError> {
        loop {
            let fresh = self.used == self.chunk.len();
            if fresh && buf.len() < self.need.max(1) {
                return Ok(None);
            }
            let rest = if fresh { &buf[..] } else { &self.chunk[self.used..] };
            let len = match parse_request(rest, &mut self.args) {
                Ok(Parsed::Whole { len }) => len,
                Ok(Parsed::Partial(missing)) => {
                    // Lower limit of the missing bytes, so that a long command is not parsed again for every few bytes:
                    // an argument takes at least six bytes.
                    let least = missing.map_or(0, |m| (m.consumed + 6 * m.args_left).saturating_add(m.bytes_left));
                    if self.open_bytes.saturating_add(least) > GROUP_BYTES_MAX {
                        // Fails before the command is collected in memory.
                        return Err(StreamError::GroupTooLarge);
                    }
                    self.need = least.max(rest.len() + 1);
                    if !fresh {
                        buf.extend_from_slice(&self.chunk[self.used..]);
                        self.forget_chunk();
                    }
                    return Ok(None);
                }
                Ok(Parsed::Inline { .. }) | Err(_) => return Err(StreamError::NotResp(self.offset)),
            };
            self.need = 0;
            if len > GROUP_BYTES_MAX {
                return Err(StreamError::GroupTooLarge);
            }
            if fresh {
                let size = if buf.len() > u32::MAX as usize { len } else { buf.len() };
                (self.chunk, self.used) = (Rc::new(buf.split_to(size).freeze()), 0);
            }
            let at = self.used;
            self.used += len;
            self.offset += len as u64;
            let event = self.command(at, len, now)?;
            if self.used == self.chunk.len() {
                self.forget_chunk();
            }
            if let Some(event) = event {
                return Ok(Some(event));
            }
        }
    }

    /// Its memory is reused once its effects are dropped.
    fn forget_chunk(&mut self) {
        (self.chunk, self.used) = (Rc::default(), 0);
    }

    /// Handles the command of `len` bytes at `at` in the chunk.
    fn command(&mut self, at: usize, len: usize, now: Micros) -> Result<Option<StreamEvent>, StreamError> {
        let frame = &self.chunk[at..at + len];
        let arg = |n: usize| self.args.get(n).map_or(&[][..], |(a, b)| &frame[*a..*b]);
        match if self.args.is_empty() { Special::Nothing } else { special(arg(0)) } {
            Special::No => {}
            Special::Select => {
                let db = std::str::from_utf8(arg(1)).ok().and_then(|s| s.parse().ok());
                self.db = db.ok_or(StreamError::NotResp(self.offset))?;
                self.skip();
                return Ok(None);
            }
            Special::Multi => {
                self.open = Some(SmallVec::new());
                self.open_bytes = 0;
                return Ok(None);
            }
            Special::Exec => {
                let effects = self.open.take().unwrap_or_default();
                return Ok((!effects.is_empty()).then(|| self.group(effects, true, now)).or_else(|| self.skip()));
            }
            Special::Replconf => {
                let get_ack = arg(1).eq_ignore_ascii_case(b"getack");
                self.skip();
                return Ok(get_ack.then_some(StreamEvent::GetAck));
            }
            Special::Nothing => {
                self.skip();
                return Ok(None);
            }
        }
        if self.open_bytes + len > GROUP_BYTES_MAX {
            return Err(StreamError::GroupTooLarge);
        }
        let args = self.args.iter().map(|(a, b)| ((at + a) as u32, (at + b) as u32)).collect();
        let effect = Effect { db: self.db, chunk: Rc::clone(&self.chunk), args };
        if let Some(open) = &mut self.open {
            self.open_bytes += len;
            open.push(effect);
            return Ok(None);
        }
        Ok(Some(self.group(smallvec::smallvec![effect], false, now)))
    }

    /// Moves the position past a command that is no effect.
    fn skip(&mut self) -> Option<StreamEvent> {
        if self.open.is_none() {
            self.position = (ReplOffset(self.offset), self.db);
        }
        None
    }

    fn group(&mut self, effects: SmallVec<[Effect; 1]>, atomic: bool, now: Micros) -> StreamEvent {
        self.position = (ReplOffset(self.offset), self.db);
        self.open_bytes = 0;
        let (end_offset, end_db) = self.position;
        StreamEvent::Group(EffectGroup { effects, atomic, end_offset, end_db, arrived: now })
    }
}

/// Commands in the stream that are no effects.
enum Special {
    No,
    Select,
    Multi,
    Exec,
    Replconf,
    /// A keep-alive, or an empty array.
    Nothing,
}

fn special(name: &[u8]) -> Special {
    let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
    match name.len() {
        4 if is(b"exec") => Special::Exec,
        4 if is(b"ping") => Special::Nothing,
        5 if is(b"multi") => Special::Multi,
        6 if is(b"select") => Special::Select,
        8 if is(b"replconf") => Special::Replconf,
        _ => Special::No,
    }
}

#[cfg(test)]
mod tests {
    use redtape_wire::resp::encode_command;

    use super::*;

    fn stream(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for l in lines {
            encode_command(&mut out, &l.split(' ').collect::<Vec<_>>());
        }
        out
    }

    fn show(group: &EffectGroup) -> String {
        let effects: Vec<String> = group
            .effects
            .iter()
            .map(|e| {
                e.with_args(|a| {
                    format!("{}:{}", e.db, a.iter().map(|x| String::from_utf8_lossy(x)).collect::<Vec<_>>().join(" "))
                })
            })
            .collect();
        format!("{}{}", if group.atomic { "atomic " } else { "" }, effects.join("; "))
    }

    #[test]
    fn oversized_commands_are_detected_by_their_announced_length() {
        for (announced, too_large) in
            [(GROUP_BYTES_MAX - 1000, false), (GROUP_BYTES_MAX, true), (usize::MAX >> 2, true)]
        {
            let mut parser = EffectParser::new(ReplOffset(0), 0);
            let begun = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${announced}\r\nx");
            let next = parser.next(&mut BytesMut::from(begun.as_bytes()), Micros(1));
            assert_eq!(
                next.map(|event| event.is_none()),
                if too_large { Err(StreamError::GroupTooLarge) } else { Ok(true) }
            );
        }
        // The limit also covers a transaction of small commands.
        let mut parser = EffectParser::new(ReplOffset(0), 0);
        let mut bytes = BytesMut::from(&stream(&["MULTI", "SET a 1"])[..]);
        bytes.extend_from_slice(format!("*2\r\n$3\r\nDEL\r\n${}\r\n", GROUP_BYTES_MAX - 40).as_bytes());
        assert_eq!(parser.next(&mut bytes, Micros(1)).map(|e| e.is_none()), Err(StreamError::GroupTooLarge));
    }

    #[test]
    fn groups_offsets_and_databases_at_every_split() {
        let lines = [
            "SELECT 2",
            "SET a 1",
            "ping",
            "MULTI",
            "INCR a",
            "SELECT 3",
            "DEL b",
            "EXEC",
            "REPLCONF GETACK *",
            "SELECT 0",
            "multi",
            "exec",
            "lpush l x",
        ];
        let wire = stream(&lines);
        let end = |n: usize| 100 + stream(&lines[..n]).len() as u64;
        for step in 1..wire.len() {
            let (mut parser, mut buf) = (EffectParser::new(ReplOffset(100), 9), BytesMut::new());
            let (mut groups, mut acks) = (Vec::new(), 0);
            for chunk in wire.chunks(step) {
                buf.extend_from_slice(chunk);
                while let Some(event) = parser.next(&mut buf, Micros(1)).expect("sound") {
                    match event {
                        StreamEvent::Group(g) => groups.push((show(&g), g.end_offset.0, g.end_db)),
                        StreamEvent::GetAck => acks += 1,
                    }
                }
                // Never inside a transaction.
                let at = parser.position().0.0;
                assert!(!(end(3)..end(8)).contains(&at) || at == end(3), "step {step}");
            }
            let want = [
                ("2:SET a 1".to_owned(), end(2), 2),
                ("atomic 2:INCR a; 3:DEL b".to_owned(), end(8), 3),
                ("0:lpush l x".to_owned(), end(13), 0),
            ];
            assert_eq!(groups, want, "step {step}");
            assert_eq!((acks, parser.position()), (1, (ReplOffset(end(13)), 0)));
        }
    }

    #[test]
    fn a_command_with_many_arguments_is_not_parsed_over_and_over() {
        let words: Vec<String> = (0..20_000).map(|n| format!("argument-number-{n}")).collect();
        let mut wire = Vec::new();
        encode_command(&mut wire, &words);
        let (mut parser, mut buf, mut parses) = (EffectParser::new(ReplOffset(0), 0), BytesMut::new(), 0);
        let mut found = 0;
        for chunk in wire.chunks(16) {
            buf.extend_from_slice(chunk);
            parses += usize::from(buf.len() >= parser.need);
            found += usize::from(parser.next(&mut buf, Micros(1)).expect("sound").is_some());
        }
        assert_eq!(found, 1);
        assert!(parses < 400, "{parses} parses of {} chunks", wire.len() / 16);
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [
            &b"+OK
"[..],
            b"*1
:1
",
            b"
",
        ] {
            assert!(EffectParser::new(ReplOffset(0), 0).next(&mut BytesMut::from(bad), Micros(1)).is_err());
        }
    }
}
