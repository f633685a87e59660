//! A non-blocking connection: TCP or a unix socket, with or without TLS.
//!
//! Invariants: nothing here blocks; what does not fit is reported as a short count or `WouldBlock`. With edge-triggered
//! readiness a caller continues until [`Socket::read`] returns `WouldBlock`, or [`Socket::is_drained_by`] shows that
//! the last read took everything.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use redtape_net::tls::TlsFailure;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::ServerName;

/// The kernel's byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(s) => s,
            Self::Unix(s) => s,
        }
    }

    /// Whether a connection attempt has completed; `None` = not yet.
    pub(super) fn connected(&self) -> io::Result<Option<()>> {
        let (error, peer) = match self {
            Self::Tcp(s) => (s.take_error()?, s.peer_addr().map(drop)),
            Self::Unix(s) => (s.take_error()?, s.peer_addr().map(drop)),
        };
        match (error, peer) {
            (Some(e), _) | (None, Err(e)) if e.kind() != io::ErrorKind::NotConnected => Err(e),
            (None, Ok(())) => Ok(Some(())),
            _ => Ok(None),
        }
    }
}

impl io::Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let r = match self {
                Self::Tcp(s) => s.read(buf),
                Self::Unix(s) => s.read(buf),
            };
            match r {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                r => return r,
            }
        }
    }
}

impl io::Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            let r = match self {
                Self::Tcp(s) => s.write(buf),
                Self::Unix(s) => s.write(buf),
            };
            match r {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                r => return r,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of TLS read at once.
const TLS_READ: usize = 32 * 1024;
/// Size limit of a record.
const TLS_RECORD_MAX: usize = 17 * 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    tls: Option<Box<rustls::Connection>>,
    /// With TLS: the last read emptied the kernel's buffer.
    drained: bool,
}

impl Socket {
    pub(super) fn plain(stream: Stream) -> Self {
        Self { stream, tls: None, drained: false }
    }

    /// Starts TLS as the server. Everything read before was plain.
    pub(super) fn accept_tls(&mut self, config: Arc<ServerConfig>) -> io::Result<()> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        self.tls = Some(Box::new(tls.into()));
        Ok(())
    }

    /// Starts TLS as the client.
    pub(super) fn start_tls(&mut self, config: Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<()> {
        let tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        self.tls = Some(Box::new(tls.into()));
        Ok(())
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.stream.source(), token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) {
        // A socket that was never registered, or is broken, is closed anyway.
        let _ = registry.deregister(self.stream.source());
    }

    pub(super) fn connected(&self) -> io::Result<Option<()>> {
        self.stream.connected()
    }

    /// Reads without consuming.
    pub(super) fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.stream {
            Stream::Tcp(s) => s.peek(buf),
            Stream::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// A TLS handshake is under way.
    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// True if a read of `n` bytes into a buffer of `room` bytes has taken everything available.
    pub(super) fn is_drained_by(&self, n: usize, room: usize) -> bool {
        n < room && (self.tls.is_none() || self.drained)
    }

    /// Reads what is available; 0 = the other side has closed.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.read(buf) };
        // The plaintext of `TLS_READ` bytes and of an earlier partial record fits in front of them.
        let large = buf.len().checked_sub(TLS_READ).filter(|room| *room >= TLS_READ + TLS_RECORD_MAX);
        loop {
            // The client sends first.
            if tls.is_handshaking() && tls.wants_write() {
                send_tls(tls, &mut self.stream)?;
            }
            match tls.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // An end without `close_notify`: RESP frames carry their lengths, so truncation is detected.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                r => return r,
            }
            self.drained = false;
            let (ended, n) = if let Some(room) = large {
                // One system call. rustls itself would use one for each 4 KiB and another to see the end.
                let (plain, sealed) = buf.split_at_mut(room);
                let n = self.stream.read(sealed)?;
                self.drained = n > 0 && n < sealed.len();
                (n == 0, open_all(tls, &mut self.stream, &sealed[..n], plain)?)
            } else {
                let n = tls.read_tls(&mut self.stream)?;
                process(tls, &mut self.stream)?;
                (n == 0, 0)
            };
            if tls.wants_write() {
                send_tls(tls, &mut self.stream)?;
            }
            if n > 0 {
                return Ok(n);
            }
            if ended && tls.is_handshaking() {
                return Ok(0);
            }
        }
    }

    /// Writes what fits. Accepted bytes may be buffered: see [`Self::flush`].
    pub(super) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.stream.write(buf) };
        if tls.wants_write() && !send_tls(tls, &mut self.stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = tls.writer().write(buf)?;
        send_tls(tls, &mut self.stream)?;
        if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    /// Sends buffered bytes; false = the kernel accepts no more now.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            Some(tls) if tls.wants_write() => send_tls(tls, &mut self.stream),
            _ => Ok(true),
        }
    }

    /// Closes the write side.
    pub(super) fn shutdown(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = send_tls(tls, &mut self.stream);
        }
        // One that is already closed needs nothing.
        let _ = match &self.stream {
            Stream::Tcp(s) => s.shutdown(std::net::Shutdown::Write),
            Stream::Unix(s) => s.shutdown(std::net::Shutdown::Write),
        };
    }
}

/// Decrypts received bytes into `plain` and returns how many it filled. Without received bytes: the other side has
/// closed.
fn open_all(
    tls: &mut rustls::Connection,
    stream: &mut Stream,
    mut sealed: &[u8],
    plain: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        // Nothing is accepted after `close_notify`.
        let taken = tls.read_tls(&mut sealed)?;
        process(tls, stream)?;
        // The next read reports the error again.
        filled += tls.reader().read(&mut plain[filled..]).unwrap_or(0);
        if sealed.is_empty() || taken == 0 {
            return Ok(filled);
        }
    }
}

fn process(tls: &mut rustls::Connection, stream: &mut Stream) -> io::Result<()> {
    let Err(e) = tls.process_new_packets() else { return Ok(()) };
    // The alert that tells the other side the reason.
    let _ = tls.write_tls(stream);
    let why = match tls {
        rustls::Connection::Client(_) => TlsFailure::explain(&e).to_string(),
        rustls::Connection::Server(_) => format!("TLS: {e}"),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// True = everything was sent.
fn send_tls(tls: &mut rustls::Connection, stream: &mut Stream) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}

/// Output buffer, in order.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

/// Capacity kept for reuse in a buffer that is in constant use.
const KEPT_ROOM: usize = 256 * 1024;

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory in bytes, including sent bytes that are not released yet.
    pub(super) fn memory(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends what the socket accepts; false = some is left. `keep`: keep the capacity for reuse.
    pub(super) fn send(&mut self, socket: &mut Socket, keep: bool) -> io::Result<bool> {
        while !self.is_empty() {
            match socket.write(&self.bytes[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // The sent part of a long queue is released from time to time.
                    if self.sent > self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.sent = 0;
                        self.bytes.shrink_to(self.bytes.len() * 2);
                    }
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        self.sent = 0;
        if keep && self.bytes.capacity() <= KEPT_ROOM {
            self.bytes.clear();
        } else {
            self.bytes = Vec::new();
        }
        socket.flush()
    }

    /// Sends `bytes` after the buffered ones; buffers what the socket does not accept.
    pub(super) fn send_through(&mut self, socket: &mut Socket, mut bytes: &[u8]) -> io::Result<()> {
        if self.is_empty() {
            while !bytes.is_empty() {
                match socket.write(bytes) {
                    Ok(n) => bytes = &bytes[n..],
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e),
                }
            }
        }
        self.push(bytes);
        Ok(())
    }
}
