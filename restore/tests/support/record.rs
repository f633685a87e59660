//! Records a server into a journal, step by step: a small capture without join or clock.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redtape_journal::{
    BlockBuilder, GroupRef, Journal, KeysAt, Lsn, Mark, Micros, OpenOptions, Origin, OriginKind, RecordRef, ReplOffset,
    SnapshotKind, SnapshotManifest, SnapshotWriter, TimelineId, TimelineStart, Writer, add_mark,
};
use redtape_restore::client::Server as Client;
use redtape_wire::command::CommandTable;
use redtape_wire::effect::named_keys;
use redtape_wire::psync::{PsyncReply, RdbReceiver, parse_psync_reply};
use redtape_wire::rdb::RdbVerifier;
use redtape_wire::resp::{Args, Parsed, encode_command, parse_request};

use super::Running;

pub(crate) struct Recorder {
    pub(crate) dir: PathBuf,
    link: TcpStream,
    buffer: Vec<u8>,
    offset: u64,
    db: u32,
    transaction: Option<Vec<(u32, Vec<Vec<u8>>)>>,
    builder: BlockBuilder,
    timeline: TimelineId,
    writer: Option<Writer>,
    source: Client,
    table: CommandTable,
}

/// Sends a command, and reads the line of its answer.
fn say(link: &mut TcpStream, words: &[&str]) -> String {
    let mut bytes = Vec::new();
    encode_command(&mut bytes, words);
    link.write_all(&bytes).unwrap();
    let (mut line, mut byte) = (Vec::new(), [0u8]);
    while !line.ends_with(b"\r\n") {
        while patient(link.read(&mut byte)) == 0 {}
        if byte[0] != b'\n' || !line.is_empty() {
            line.push(byte[0]);
        }
    }
    String::from_utf8(line).unwrap()
}

impl Recorder {
    /// Takes the base of a new timeline.
    pub(crate) fn start(dir: &Path, source: &Running) -> Self {
        Self::start_with(dir, source, OpenOptions::default())
    }

    pub(crate) fn start_with(dir: &Path, source: &Running, options: OpenOptions) -> Self {
        let mut link = TcpStream::connect(("127.0.0.1", source.port)).unwrap();
        link.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut say = |words: &[&str]| say(&mut link, words);
        say(&["PING"]);
        say(&["REPLCONF", "listening-port", "1"]);
        say(&["REPLCONF", "capa", "eof", "capa", "psync2"]);
        say(&["REPLCONF", "version", "9.9.9"]);
        let answer = parse_psync_reply(say(&["PSYNC", "?", "-1"]).trim_end());
        let PsyncReply::FullResync { replid, offset } = answer else { panic!("{answer:?}") };
        let (mut receiver, mut rdb, mut buffer) = (RdbReceiver::new(), Vec::new(), Vec::new());
        let mut chunk = vec![0u8; 65536];
        loop {
            let n = patient(link.read(&mut chunk));
            let (used, done) = receiver.feed(&chunk[..n], &mut rdb).unwrap();
            if done {
                buffer.extend_from_slice(&chunk[used..n]);
                break;
            }
        }
        let mut verifier = RdbVerifier::new();
        verifier.update(&rdb);
        let summary = verifier.finish().unwrap();
        let made_by = summary.aux.iter().find(|(k, _)| k.ends_with("-ver")).map(|(_, v)| v.clone()).unwrap();
        let ts = Micros::now();
        let keyring = options.keyring.clone();
        let (journal, recovered) = Journal::create_or_open(dir, options).unwrap();
        let (timeline, last_lsn) = recovered.last.map_or((1, Lsn(0)), |l| (l.timeline.0 + 1, l.last_lsn));
        let writer = journal.start(|_| {});
        writer
            .begin_timeline(TimelineStart {
                timeline: TimelineId(timeline),
                source_id: replid.clone(),
                offset: ReplOffset(offset),
                reason: if timeline == 1 { "first".to_owned() } else { "the server was replaced".to_owned() },
                ts,
            })
            .unwrap();
        let mut snapshot = SnapshotWriter::create_with(dir, &keyring).unwrap();
        snapshot.write(&rdb).unwrap();
        snapshot
            .commit(SnapshotManifest {
                journal_id: String::new(),
                lsn: last_lsn,
                timeline: TimelineId(timeline),
                source_id: replid,
                offset: ReplOffset(offset),
                db: None,
                ts,
                kind: SnapshotKind::Base,
                bytes: 0,
                blake3: String::new(),
                magic_version: summary.version.to_string(),
                server_version: made_by,
                checksum_present: summary.checksum_present,
                encryption: None,
                command_table: None,
            })
            .unwrap();
        let builder = BlockBuilder::new(Lsn(last_lsn.0 + 1), ts, ReplOffset(offset), 0);
        let mut recorder = Self {
            dir: dir.to_owned(),
            link,
            buffer,
            offset,
            db: 0,
            transaction: None,
            builder,
            timeline: TimelineId(timeline),
            writer: Some(writer),
            source: source.client(),
            table: CommandTable::builtin(),
        };
        recorder.ack();
        recorder
    }

    fn ack(&mut self) {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, &["REPLCONF", "ACK", &self.offset.to_string()]);
        self.link.write_all(&bytes).unwrap();
    }

    /// Journals everything that the source has done so far, and waits until readers see it; returns a moment after it.
    pub(crate) fn catch_up(&mut self) -> Micros {
        let wanted = self.source.info(Some("replication")).unwrap().number("master_repl_offset").unwrap();
        let mut chunk = vec![0u8; 65536];
        loop {
            self.parse();
            if self.offset >= wanted {
                break;
            }
            // A source that was still busy with the base misses the first ACK: it wants another.
            let n = patient(self.link.read(&mut chunk));
            if n == 0 {
                self.ack();
            }
            self.buffer.extend_from_slice(&chunk[..n]);
        }
        self.ack();
        self.submit()
    }

    /// Journals what the source has sent so far in a block of its own.
    pub(crate) fn submit(&mut self) -> Micros {
        let now = Micros::now();
        self.builder.set_end_offset(ReplOffset(self.offset));
        let block = self.builder.finish(now);
        let writer = self.writer.as_ref().unwrap();
        writer.submit(block).unwrap();
        let started = Instant::now();
        while writer.progress().timeline != self.timeline || writer.progress().written_offset.0 < self.offset {
            assert!(started.elapsed() < Duration::from_secs(20), "the writer does not write: {:?}", writer.failed());
            std::thread::sleep(Duration::from_millis(1));
        }
        // A point in time after it is another one.
        std::thread::sleep(Duration::from_millis(2));
        now
    }

    fn parse(&mut self) {
        let mut args = Args::new();
        let mut at = 0;
        while let Parsed::Whole { len } = parse_request(&self.buffer[at..], &mut args).unwrap() {
            let words: Vec<Vec<u8>> = args.iter().map(|(a, b)| self.buffer[at + a..at + b].to_vec()).collect();
            at += len;
            self.offset += len as u64;
            self.command(words);
        }
        self.buffer.drain(..at);
    }

    fn command(&mut self, words: Vec<Vec<u8>>) {
        match words[0].to_ascii_uppercase().as_slice() {
            b"PING" | b"REPLCONF" => {}
            b"SELECT" => self.db = std::str::from_utf8(&words[1]).unwrap().parse().unwrap(),
            b"MULTI" => self.transaction = Some(Vec::new()),
            b"EXEC" => {
                let group = self.transaction.take().unwrap();
                // Redis 6.0 sends some of which nothing is in it.
                if !group.is_empty() {
                    self.push(&group, true);
                }
            }
            _ => match &mut self.transaction {
                Some(open) => open.push((self.db, words)),
                None => self.push(&[(self.db, words)], false),
            },
        }
    }

    /// Journals a command that the source never ran.
    pub(crate) fn inject(&mut self, line: &str) {
        let words = line.split(' ').map(|w| w.as_bytes().to_vec()).collect();
        self.push(&[(0, words)], false);
    }

    fn push(&mut self, commands: &[(u32, Vec<Vec<u8>>)], atomic: bool) {
        let args: Vec<Vec<&[u8]>> = commands.iter().map(|(_, c)| c.iter().map(Vec::as_slice).collect()).collect();
        let keys: Vec<_> = args.iter().map(|args| named_keys(&self.table, args)).collect();
        let records: Vec<RecordRef<'_>> = commands
            .iter()
            .zip(&args)
            .zip(&keys)
            .map(|(((db, _), args), keys)| {
                let keys = keys.as_deref().map_or(KeysAt::Unknown, KeysAt::Arguments);
                RecordRef { db: *db, args, keys }
            })
            .collect();
        let group = GroupRef {
            ts: Micros::now(),
            slack: 0,
            origin: &Arc::new(Origin::of(OriginKind::Outside)),
            atomic,
            end_offset: ReplOffset(self.offset),
            records: &records,
        };
        self.builder.push(&group).unwrap();
    }

    /// Adds a command to those whose keys are known: a row of the command table.
    pub(crate) fn knows(&mut self, row: &str) {
        self.table = CommandTable::from_text(&format!("{}{row}\n", self.table.to_text()));
    }

    /// The last LSN so far.
    pub(crate) fn lsn(&self) -> Lsn {
        Lsn(self.builder.next_lsn().0 - 1)
    }

    pub(crate) fn mark(&self, name: &str) {
        add_mark(&self.dir, &Mark { name: name.to_owned(), ts: Micros::now(), lsn: self.lsn() }).unwrap();
    }

    /// Seals the journal.
    pub(crate) fn finish(mut self) {
        self.writer.take().unwrap().close().unwrap();
    }
}

/// 0 = nothing came in time.
fn patient(read: std::io::Result<usize>) -> usize {
    match read {
        Ok(0) => panic!("the source closed the link"),
        Ok(n) => n,
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => 0,
        Err(e) => panic!("{e}"),
    }
}
