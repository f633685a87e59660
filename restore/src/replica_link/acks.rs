//! Reads the replica's acknowledgements on the link, in a thread.
//!
//! The thread ends when the link does; dropping [`Acks`] shuts the socket down and joins it.

use std::io::Read as _;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use redtape_wire::resp::{Args, Parsed, parse_request};

/// State of the replica's messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Highest offset that the replica has acknowledged; `None` = none yet.
    pub(super) acked: Option<u64>,
    /// The replica has closed the link, or sent something that is not RESP.
    pub(super) closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading side of a link.
#[derive(Debug)]
pub(super) struct Acks {
    shared: Arc<Shared>,
    socket: TcpStream,
    thread: Option<JoinHandle<()>>,
}

impl Acks {
    /// Starts to read; `pending` was read already.
    pub(super) fn start(socket: &TcpStream, pending: Vec<u8>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (mut reader, socket) = (socket.try_clone()?, socket.try_clone()?);
        reader.set_read_timeout(None)?;
        let state = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("link acks".to_owned()).spawn(move || {
            read_acks(&mut reader, pending, &state);
            state.lock().closed = true;
            state.changed.notify_all();
        })?;
        Ok(Self { shared, socket, thread: Some(thread) })
    }

    /// What was heard so far.
    pub(super) fn heard(&self) -> Heard {
        *self.shared.lock()
    }

    /// Waits until this offset is acknowledged or the link closed, at most so long.
    pub(super) fn wait(&self, offset: u64, limit: Duration) -> Heard {
        let waiting = |heard: &mut Heard| !heard.closed && heard.acked.is_none_or(|a| a < offset);
        let guard = self.shared.lock();
        let (guard, _) =
            self.shared.changed.wait_timeout_while(guard, limit, waiting).unwrap_or_else(PoisonError::into_inner);
        *guard
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        // The replica may have closed it first.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // A panic of the reader has shown itself as a closed link.
            let _ = thread.join();
        }
    }
}

fn read_acks(reader: &mut TcpStream, mut buffer: Vec<u8>, shared: &Shared) {
    let mut args = Args::new();
    let mut chunk = [0u8; 4096];
    loop {
        let mut at = 0;
        loop {
            match parse_request(&buffer[at..], &mut args) {
                Ok(Parsed::Whole { len }) => {
                    let words: Vec<&[u8]> = args.iter().map(|(a, b)| &buffer[at + a..at + b]).collect();
                    if let [name, option, offset, ..] = words[..]
                        && name.eq_ignore_ascii_case(b"REPLCONF")
                        && option.eq_ignore_ascii_case(b"ACK")
                        && let Some(offset) = std::str::from_utf8(offset).ok().and_then(|o| o.parse::<u64>().ok())
                    {
                        let mut heard = shared.lock();
                        heard.acked = heard.acked.max(Some(offset));
                        shared.changed.notify_all();
                    }
                    at += len;
                }
                Ok(Parsed::Inline { len, .. }) => at += len,
                Ok(Parsed::Partial(_)) => break,
                Err(_) => return,
            }
        }
        buffer.drain(..at);
        match reader.read(&mut chunk) {
            Ok(0) => return,
            Ok(n) => buffer.extend_from_slice(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
