//! The byte stream to a server, and a thread that keeps it from being idle.
//!
//! The thread and the connection's user share it behind a lock. Between two commands the thread sends a `PING` when
//! nothing was sent for [`IDLE_MAX`], and reads the reply once it has arrived; it never waits for one. At most one such
//! reply is outstanding, and the next use of the connection skips it.

use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::{Duration, Instant};

use redtape_net::{BlockingStream, reply};

use super::Reply;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;
/// A command is sent after this idle time: a server's shortest `timeout` is a second.
const IDLE_MAX: Duration = Duration::from_millis(400);
/// Interval at which the thread checks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A connection on which commands and replies follow each other.
pub(super) struct Connection {
    stream: BufReader<BlockingStream>,
    /// Outstanding replies before that of the next command.
    owed: u32,
    /// Time of the last command.
    used: Instant,
    /// Outstanding replies to pipelined commands.
    under_way: usize,
    /// True between two commands; false inside one or after a failure.
    at_rest: bool,
}

impl Connection {
    pub(super) fn new(stream: BlockingStream) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_BYTES, stream),
            owed: 0,
            used: Instant::now(),
            under_way: 0,
            at_rest: true,
        }
    }

    pub(super) fn set_limit(&mut self, limit: Duration) -> io::Result<()> {
        self.stream.get_mut().set_limit(limit)
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.used = Instant::now();
        self.at_rest = false;
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends commands whose replies are read later, possibly after more commands.
    pub(super) fn send_ahead(&mut self, bytes: &[u8], replies: usize) -> io::Result<()> {
        self.under_way += replies;
        self.send(bytes)
    }

    /// Waits for the next reply.
    pub(super) fn reply(&mut self) -> io::Result<Reply> {
        self.at_rest = false;
        while self.owed > 0 {
            // Any reply, including an error, is an answer of the server.
            let _ = reply::read(&mut self.stream)?;
            self.owed -= 1;
        }
        let reply = match reply::read(&mut self.stream)? {
            Ok(value) => Reply::Value(value),
            Err(error) => Reply::Error(error),
        };
        self.used = Instant::now();
        self.under_way = self.under_way.saturating_sub(1);
        self.at_rest = self.under_way == 0;
        Ok(reply)
    }

    /// Reads up to this many available replies that are the usual `+OK`; returns their number. Does not allocate.
    pub(super) fn take_oks(&mut self, most: usize) -> usize {
        const OK: &[u8] = b"+OK\r\n";
        if self.owed > 0 {
            return 0;
        }
        let oks = self.stream.buffer().chunks_exact(OK.len()).take(most).take_while(|reply| *reply == OK).count();
        if oks > 0 {
            self.stream.consume(oks * OK.len());
            self.used = Instant::now();
            self.under_way = self.under_way.saturating_sub(oks);
            self.at_rest = self.under_way == 0;
        }
        oks
    }

    /// Skips the replies to everything sent ahead.
    pub(super) fn pass_over(&mut self) -> io::Result<()> {
        while self.under_way > 0 {
            self.reply()?;
        }
        Ok(())
    }

    /// Waits until data has arrived.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.stream.fill_buf().map(drop)
    }

    /// Called from time to time while the connection is unused. A failure is reported by the next command.
    fn when_idle(&mut self, ping: &[u8]) -> io::Result<()> {
        if !self.at_rest || !self.stream.buffer().is_empty() || self.used.elapsed() < IDLE_MAX {
            return Ok(());
        }
        self.used = Instant::now();
        self.take_owed()?;
        if self.owed == 0 {
            self.stream.get_mut().write_all(ping)?;
            self.owed = 1;
        }
        Ok(())
    }

    /// Takes replies to earlier pings that have come.
    fn take_owed(&mut self) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.receive_now()?;
        while self.owed > 0 {
            let mut rest = stream.held();
            match reply::read(&mut rest) {
                Ok(_) => {
                    let taken = stream.held().len() - rest.len();
                    stream.consume(taken);
                    self.owed -= 1;
                }
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Starts the thread; it ends when the connection is dropped or has failed.
pub(super) fn keep_alive(connection: &Arc<Mutex<Connection>>, ping: Vec<u8>) -> io::Result<()> {
    let connection = Arc::downgrade(connection);
    let run = move || while look(&connection, &ping) {};
    std::thread::Builder::new().name("keep-alive".to_owned()).spawn(run).map(drop)
}

/// False = nothing to keep alive any more.
fn look(connection: &Weak<Mutex<Connection>>, ping: &[u8]) -> bool {
    std::thread::sleep(LOOK_EVERY);
    let Some(connection) = connection.upgrade() else { return false };
    match connection.try_lock() {
        Ok(mut connection) => connection.when_idle(ping).is_ok(),
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Poisoned(_)) => false,
    }
}
