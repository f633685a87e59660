//! Sends on the link with back-pressure: waits for a server that loads, and gives up on one that hangs.

use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use redtape_journal::Group;

use super::acks::{Acks, Heard};
use super::encode::Encoder;
use super::listener::ReplicaConnection;
use crate::client::{Info, Server};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;
use crate::progress::{Event, Observer};

/// Bytes of the stream that are sent in one write.
const WRITE_BYTES: usize = 256 * 1024;
/// Interval of checks of a server that does not read or acknowledge.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest time without progress, except while loading.
pub(super) const STALL_LIMIT: Duration = Duration::from_mins(1);
/// Between two keep-alives; far below any sensible `repl-timeout`.
const PING_EVERY: Duration = Duration::from_secs(5);

/// A link to a replica that has asked for its full sync.
#[derive(Debug)]
pub(super) struct Sender<'s> {
    /// The same server, as a client sees it.
    pub(super) server: &'s mut Server,
    socket: TcpStream,
    acks: Acks,
    /// The stream.
    pub(super) encoder: Encoder,
    last_move: Instant,
    last_ping: Instant,
    /// How long the server may stand still, and how long it may owe an answer.
    stall: Duration,
    interrupt: &'s Interrupt,
}

impl<'s> Sender<'s> {
    /// Answers the `PSYNC`.
    pub(super) fn begin(
        server: &'s mut Server,
        connection: ReplicaConnection,
        replid: &str,
        interrupt: &'s Interrupt,
    ) -> Result<Self, RestoreError> {
        let failed = |e: std::io::Error| RestoreError::Link(format!("the link to the target failed: {e}"));
        let ReplicaConnection { mut socket, pending } = connection;
        socket.set_write_timeout(Some(LOOK_EVERY)).map_err(failed)?;
        socket.write_all(format!("+FULLRESYNC {replid} 0\r\n").as_bytes()).map_err(failed)?;
        let acks = Acks::start(&socket, pending).map_err(failed)?;
        // A server that does not answer for so long stands still.
        let stall = STALL_LIMIT.min(server.reply_limit());
        server.set_reply_limit(stall)?;
        let now = Instant::now();
        Ok(Self { server, socket, acks, encoder: Encoder::default(), last_move: now, last_ping: now, stall, interrupt })
    }

    /// Sends the RDB; nothing may come between it and the stream.
    pub(super) fn send_rdb(
        &mut self,
        rdb: &mut dyn Read,
        bytes: u64,
        observer: &mut dyn Observer,
    ) -> Result<(), RestoreError> {
        const CHUNK_BYTES: usize = 1 << 20;
        self.write_all(format!("${bytes}\r\n").as_bytes())?;
        let mut chunk = vec![0u8; CHUNK_BYTES];
        let mut sent = 0;
        while sent < bytes {
            let wanted = usize::try_from(bytes - sent).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            rdb.read_exact(&mut chunk[..wanted]).map_err(RestoreError::io("read", "the RDB"))?;
            self.write_all(&chunk[..wanted])?;
            sent += wanted as u64;
            observer.on(&Event::At(sent));
        }
        Ok(())
    }

    /// Waits until the replica has loaded the RDB and reads the stream: its first ACK.
    pub(super) fn wait_loaded(&mut self, observer: &mut dyn Observer) -> Result<(), RestoreError> {
        // The stream begins with a SELECT, whether or not it has a group.
        self.encoder.select(0);
        let wanted = self.encoder.ask_for_ack();
        self.flush()?;
        loop {
            let heard = self.heard_of(wanted)?;
            if heard.acked.is_some_and(|a| a >= wanted) {
                return Ok(());
            }
            if heard.closed {
                return Err(Self::closed("loading the RDB"));
            }
            if let Some(percent) = self.look("loading the RDB")? {
                observer.on(&Event::At(percent));
            }
        }
    }

    /// A clock that moves by years must not look like a silent link to the server.
    pub(super) fn let_the_clock_jump(&mut self) -> Result<(), RestoreError> {
        self.server.call(&["CONFIG", "SET", "repl-timeout", "2147483647"]).map(drop)
    }

    /// Sends a keep-alive when it is time for one.
    pub(super) fn keep_alive(&mut self) -> Result<(), RestoreError> {
        self.interrupt.check()?;
        if self.last_ping.elapsed() >= PING_EVERY {
            self.encoder.ping();
            self.last_ping = Instant::now();
            self.flush()?;
        }
        Ok(())
    }

    /// Appends a group, and sends when enough has come together.
    pub(super) fn send_group(&mut self, group: &Group) -> Result<(), RestoreError> {
        self.encoder.group(group);
        if self.encoder.buffer.len() >= WRITE_BYTES {
            if self.last_ping.elapsed() >= PING_EVERY {
                self.encoder.ping();
                self.last_ping = Instant::now();
            }
            self.flush()?;
        }
        Ok(())
    }

    /// Waits until the replica has processed everything so far.
    pub(super) fn barrier(&mut self) -> Result<(), RestoreError> {
        let wanted = self.encoder.ask_for_ack();
        self.flush()?;
        self.last_move = Instant::now();
        let mut before = self.acks.heard().acked;
        loop {
            let heard = self.heard_of(wanted)?;
            if heard.acked.is_some_and(|a| a >= wanted) {
                return Ok(());
            }
            if heard.closed {
                return Err(Self::closed("replaying the journal"));
            }
            if heard.acked != before {
                before = heard.acked;
                self.last_move = Instant::now();
            }
            self.look("replaying the journal")?;
        }
    }

    /// Waits for this ACK until it is time to look at the server.
    fn heard_of(&self, wanted: u64) -> Result<Heard, RestoreError> {
        let heard = self.acks.wait(wanted, LOOK_EVERY);
        self.interrupt.check()?;
        Ok(heard)
    }

    /// Sends what has come together.
    pub(super) fn flush(&mut self) -> Result<(), RestoreError> {
        let buffer = std::mem::take(&mut self.encoder.buffer);
        let result = self.write_all(&buffer);
        self.encoder.buffer = buffer;
        self.encoder.mark_sent();
        result
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), RestoreError> {
        while !bytes.is_empty() {
            self.interrupt.check()?;
            match self.socket.write(bytes) {
                Ok(n) => {
                    bytes = &bytes[n..];
                    self.last_move = Instant::now();
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.acks.heard().closed {
                        return Err(Self::closed("taking the data"));
                    }
                    self.look("taking the data")?;
                }
                Err(_) => return Err(Self::closed("taking the data")),
            }
        }
        Ok(())
    }

    /// Checks a server without progress; returns the percentage loaded, if it loads.
    fn look(&mut self, doing: &str) -> Result<Option<u64>, RestoreError> {
        let info = match self.server.info(None) {
            Ok(info) => info,
            Err(_) if self.last_move.elapsed() < self.stall => {
                // Busy, or gone: the next check decides.
                let _ = self.server.reconnect();
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        if info.get("role") != Some("slave") {
            return Err(RestoreError::Link(
                "the target's role was changed during the restore: it no longer follows redtape".to_owned(),
            ));
        }
        let loading = info.get("loading") == Some("1") || info.get("async_loading") == Some("1");
        if !loading && self.last_move.elapsed() >= self.stall {
            return Err(RestoreError::Link(format!(
                "the target stood still for {} s while {doing}; look at its log",
                self.stall.as_secs()
            )));
        }
        if loading {
            self.last_move = Instant::now();
        }
        let percent = info.get("loading_loaded_perc").and_then(|p| p.parse::<f64>().ok());
        Ok(loading.then(|| percent.unwrap_or(0.0) as u64))
    }

    fn closed(doing: &str) -> RestoreError {
        RestoreError::Link(format!(
            "the target closed the link while {doing}; its log says why (an RDB that it cannot load, no memory or disk left, more databases than its `databases` setting)"
        ))
    }

    /// Compares offsets and errors at the end of the stream.
    pub(super) fn check(&mut self, errors_before: Option<u64>) -> Result<Info, RestoreError> {
        /// The offset in INFO follows the ACK at once.
        const SETTLE_LIMIT: Duration = Duration::from_secs(10);
        const ASK_EVERY: Duration = Duration::from_millis(10);
        let start = Instant::now();
        loop {
            let info = self.server.info(None)?;
            let up = info.get("master_link_status") == Some("up");
            let offset = info.number("slave_repl_offset");
            if up && offset == Some(self.encoder.offset()) {
                let errors = unexpected_errors(&info);
                if errors > errors_before {
                    return Err(RestoreError::Link(format!(
                        "the target refused {} of the journal's commands (INFO unexpected_error_replies); look at its log",
                        errors.unwrap_or(0) - errors_before.unwrap_or(0)
                    )));
                }
                return Ok(info);
            }
            if start.elapsed() >= SETTLE_LIMIT {
                return Err(RestoreError::Link(format!(
                    "the target's link is {} at offset {} instead of {}",
                    if up { "up" } else { "down" },
                    offset.map_or_else(|| "?".to_owned(), |o| o.to_string()),
                    self.encoder.offset()
                )));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }
}

/// Errors of commands on the link, if the server counts them (7.0 and later).
pub(super) fn unexpected_errors(info: &Info) -> Option<u64> {
    info.number("unexpected_error_replies")
}
