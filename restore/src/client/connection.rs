//! Bytes to and from a server, and a thread that keeps the connection from being idle.
//!
//! The thread and the server's user share the connection behind a lock. Between two commands the thread sends a `PING` when nothing
//! was sent for [`IDLE_MAX`], and takes the reply when it has come; it never waits for one. At most one such reply is owed, and
//! the next use of the connection passes over it.

use std::io::{self, BufRead as _, BufReader, ErrorKind};
use std::sync::{Arc, Mutex, TryLockError, Weak};
use std::time::{Duration, Instant};

use redtape_net::{BlockingStream, reply};

use super::Reply;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;
/// After so long without a command, one is sent: the shortest `timeout` of a server is a second.
const IDLE_MAX: Duration = Duration::from_millis(400);
/// Between two looks of the thread.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A connection on which commands and replies follow each other.
pub(super) struct Connection {
    stream: BufReader<BlockingStream>,
    /// Replies that come before that of the next command.
    owed: u32,
    /// When something was sent last.
    used: Instant,
    /// Replies to commands that were sent one behind the other, which are still to be read.
    under_way: usize,
    /// Between two commands, as opposed to inside one or broken off.
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

    /// Sends commands of which the replies are read later, perhaps behind more commands.
    pub(super) fn send_ahead(&mut self, bytes: &[u8], replies: usize) -> io::Result<()> {
        self.under_way += replies;
        self.send(bytes)
    }

    /// Waits for the next reply.
    pub(super) fn reply(&mut self) -> io::Result<Reply> {
        self.at_rest = false;
        while self.owed > 0 {
            // Whatever it says, an error included, the server has answered.
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

    /// Takes replies that have come and are the usual `+OK`, so many at most; returns how many. Nothing is allocated for them.
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

    /// Passes over the replies to all that was sent ahead.
    pub(super) fn pass_over(&mut self) -> io::Result<()> {
        while self.under_way > 0 {
            self.reply()?;
        }
        Ok(())
    }

    /// Waits until something has come.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.stream.fill_buf().map(drop)
    }

    /// Called now and then while nobody uses the connection. Its failure is met by the next command.
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

/// Starts the thread; it ends when the connection is dropped, or has failed.
pub(super) fn keep_alive(connection: &Arc<Mutex<Connection>>, ping: Vec<u8>) -> io::Result<()> {
    let connection = Arc::downgrade(connection);
    let run = move || while look(&connection, &ping) {};
    std::thread::Builder::new().name("keep-alive".to_owned()).spawn(run).map(drop)
}

/// False = there is nothing to keep alive any more.
fn look(connection: &Weak<Mutex<Connection>>, ping: &[u8]) -> bool {
    std::thread::sleep(LOOK_EVERY);
    let Some(connection) = connection.upgrade() else { return false };
    match connection.try_lock() {
        Ok(mut connection) => connection.when_idle(ping).is_ok(),
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Poisoned(_)) => false,
    }
}
