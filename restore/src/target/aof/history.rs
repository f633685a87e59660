//! An append-only file with the history since the base: the base as the server saved it, and behind it every record of the journal up to
//! the restore point, in the form in which a server writes them with `aof-timestamp-enabled yes`.
//!
//! ```text
//! #TS:1796097600        the base's second
//! SELECT 0, SET …
//! #TS:1796097603        a later one; never inside a transaction, never earlier than one before it
//! MULTI, …, EXEC
//! ```
//!
//! So `redis-check-aof --truncate-to-timestamp SECONDS` cuts it back to the end of any second since the base.
//!
//! A server that loads it has a clock of a later time. Keys do not mind: while a server loads, none expires, and the journal says when
//! each was removed. Fields of hashes and whole scripts do, so histories with these are refused ([`check`]).
//!
//! The same base and records are replayed in a scratch server first. It refuses what cannot be replayed, and says what comes out.

use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use redtape_journal::{Group, Micros};
use redtape_wire::rdb::{Entry, RdbVerifier};

use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer, Unit};
use crate::replica_link::encode::Encoder;
use crate::source::Source;
use crate::source::binary::Binary;
use crate::target::new_file::cannot_write;
use crate::target::rdb::Job;
use crate::target::restored::{History, Written};
use crate::values::saved::Saved;

/// Bytes that are copied or written at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Groups between two reports of the progress.
const TELL_EVERY: u64 = 4096;

/// Whether a server can load this history and hold what was held. `other`: a server was named that does not load the base.
pub(crate) fn check(source: &Source, scratch: &Binary, other: Option<&Binary>) -> Result<(), RestoreError> {
    let refused = |why: String| Err(RestoreError::Unable(format!("{why}. Leave out --with-history")));
    if let Some(other) = other {
        return refused(format!(
            "{} does not load the base ({}), with which the history begins",
            other.version, source.rdb.version
        ));
    }
    if !scratch.version.has_redis(7, 0) {
        return refused(format!(
            "{} has no append-only files of several parts with times in them, as Redis 7.0 and later",
            scratch.version
        ));
    }
    if source.facts.field_ttl {
        return refused(
            "the history gives fields of hashes times of expiry (HPEXPIREAT and the like): a server that loads it later drops those whose time has passed too early"
                .to_owned(),
        );
    }
    if source.facts.scripts {
        return refused(
            "the history holds whole scripts (of a server before Redis 7.0), which see the clock of the server that loads them"
                .to_owned(),
        );
    }
    Ok(())
}

/// Writes base and history to empty files, and reads them again. The path is for messages.
pub(super) fn write(
    job: &Job<'_>,
    (base, increment, path): (&mut File, &mut File, &Path),
    observer: &mut dyn Observer,
) -> Result<Written, RestoreError> {
    let mut written = contents(job, observer)?;
    written.bytes = copy_base(job, base, path, observer)?;
    let history = put_history(job, increment, path, observer)?;
    written.rdb = Some(job.source.rdb.version.to_string());
    look_again(base, path, job.interrupt)?;
    let len = increment.metadata().map_err(|e| cannot_write(path, e))?.len();
    if len != history.bytes {
        return Err(RestoreError::Verify(format!("{} bytes of history were written, {len} are there", history.bytes)));
    }
    written.checks = vec![
        "a scratch server has replayed the same base and records, and refused none".to_owned(),
        "the base was read again: its checksum is right".to_owned(),
    ];
    written.history = Some(history);
    Ok(written)
}

/// What a server holds that has loaded it.
fn contents(job: &Job<'_>, observer: &mut dyn Observer) -> Result<Written, RestoreError> {
    let (mut scratch, delivered) = job.source.rebuild(observer)?;
    let saved = Saved::of(&mut scratch)?;
    let now_ms = Micros::now().0 / 1000;
    let mut written = Written { functions: delivered.functions, ..Written::default() };
    saved.walk(job.filter, &mut |entry| {
        job.interrupt.check()?;
        if let Entry::Key(key) = entry {
            *written.keys.entry(key.db).or_default() += 1;
            written.expired += u64::from(key.expires_at_ms.is_some_and(|at| at <= now_ms));
        }
        Ok(())
    })?;
    Ok(written)
}

/// Copies the base; gives its length.
fn copy_base(job: &Job<'_>, to: &mut File, path: &Path, observer: &mut dyn Observer) -> Result<u64, RestoreError> {
    let payload = job.source.payload()?;
    observer.on(&Event::Step { name: "writing the base", total: payload.rdb_bytes, unit: Unit::Bytes });
    let (mut from, mut chunk, mut copied) = (payload.rdb, vec![0; CHUNK_BYTES], 0);
    while copied < payload.rdb_bytes {
        job.interrupt.check()?;
        let wanted = CHUNK_BYTES.min(usize::try_from(payload.rdb_bytes - copied).unwrap_or(CHUNK_BYTES));
        from.read_exact(&mut chunk[..wanted]).map_err(RestoreError::io("read", "the base"))?;
        to.write_all(&chunk[..wanted]).map_err(|e| cannot_write(path, e))?;
        copied += wanted as u64;
        observer.on(&Event::At(copied));
    }
    observer.on(&Event::StepDone);
    Ok(copied)
}

/// Writes the records behind the base.
fn put_history(
    job: &Job<'_>,
    to: &mut File,
    path: &Path,
    observer: &mut dyn Observer,
) -> Result<History, RestoreError> {
    let (payload, since) = (job.source.payload()?, job.source.point.base.manifest.ts);
    observer.on(&Event::Step { name: "writing the history", total: payload.records, unit: Unit::Records });
    let failed = |e| cannot_write(path, e);
    let (mut out, mut stream, mut groups) = (BufWriter::with_capacity(CHUNK_BYTES, to), Stream::since(since), 0);
    for group in payload.replay.groups() {
        let group = group.map_err(|e| RestoreError::unreadable(e, job.source.catalog()))?;
        stream.put(&group);
        stream.write_to(&mut out).map_err(failed)?;
        groups += 1;
        if groups % TELL_EVERY == 0 {
            job.interrupt.check()?;
            observer.on(&Event::At(stream.records));
        }
    }
    stream.write_to(&mut out).and_then(|()| out.flush()).map_err(failed)?;
    observer.on(&Event::StepDone);
    if stream.records != payload.records {
        return Err(RestoreError::Verify(format!(
            "{} records of history were written, the plan said {}",
            stream.records, payload.records
        )));
    }
    Ok(History { since: since.to_string(), records: stream.records, bytes: stream.bytes })
}

/// The history as bytes. Pure.
struct Stream {
    encoder: Encoder,
    /// Of the last annotation.
    second: i64,
    records: u64,
    bytes: u64,
}

impl Stream {
    /// With an annotation, so that it can be cut back to the base.
    fn since(base: Micros) -> Self {
        let mut stream = Self { encoder: Encoder::default(), second: i64::MIN, records: 0, bytes: 0 };
        stream.annotate(base);
        stream
    }

    fn annotate(&mut self, at: Micros) {
        let second = at.0.div_euclid(1_000_000);
        if second > self.second {
            self.second = second;
            self.encoder.buffer.extend_from_slice(format!("#TS:{second}\r\n").as_bytes());
        }
    }

    fn put(&mut self, group: &Group) {
        self.annotate(group.ts);
        self.encoder.group(group);
        self.records += group.records.len() as u64;
    }

    fn write_to(&mut self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        out.write_all(&self.encoder.buffer)?;
        self.bytes += self.encoder.buffer.len() as u64;
        self.encoder.mark_sent();
        Ok(())
    }
}

/// Reads the base that was written.
fn look_again(base: &mut File, path: &Path, interrupt: &Interrupt) -> Result<(), RestoreError> {
    let mut verifier = RdbVerifier::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    base.seek(SeekFrom::Start(0)).map_err(RestoreError::io("read", path))?;
    loop {
        interrupt.check()?;
        match base.read(&mut chunk).map_err(RestoreError::io("read", path))? {
            0 => break,
            read => verifier.update(&chunk[..read]),
        }
    }
    let wrong = |e| RestoreError::Verify(format!("the base that was written cannot be read: {e}"));
    verifier.finish().map(drop).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::journal_range::by_hand::group;

    #[test]
    fn seconds_never_go_back_and_stand_outside_of_transactions() {
        let mut stream = Stream::since(Micros(5_900_000));
        for (lsn, ts, atomic, commands) in [
            (1, 5_950_000, false, &[(0, "SET a 1")][..]),
            (2, 7_000_000, true, &[(0, "SET a 2"), (1, "SET b 1")]),
            (4, 6_000_000, false, &[(1, "SET b 2")]),
            (5, 8_000_001, false, &[(1, "DEL b")]),
        ] {
            stream.put(&group(lsn, ts, atomic, commands));
        }
        let mut out = Vec::new();
        stream.write_to(&mut out).expect("bytes in memory");
        assert_eq!((stream.records, stream.bytes), (5, out.len() as u64));
        let text = String::from_utf8(out).expect("text");
        // Lengths are left out.
        let words: Vec<&str> =
            text.split("\r\n").filter(|word| !word.is_empty() && !word.starts_with(['*', '$'])).collect();
        assert_eq!(
            words.join(" "),
            "#TS:5 SELECT 0 SET a 1 #TS:7 MULTI SET a 2 SELECT 1 SET b 1 EXEC SET b 2 #TS:8 DEL b"
        );
    }
}
