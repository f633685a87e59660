//! A connection to a server whose reads and writes block: TCP, a unix socket, TLS over TCP.
//!
//! Invariants:
//! - No wait is without a limit: a read or a write fails when nothing has moved for so long.
//! - A pipeline is written as a whole before its replies are read. A proxy before the server may stop reading until its replies
//!   are taken, so both directions can be full at once: a write that would block takes what has come meanwhile and holds it for
//!   the next read ([`HELD_MAX`]).
//! - What a server said before it closed the connection is read, though a write has met the end first.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::ClientConnection;
use rustls_pki_types::ServerName;

use crate::tls::{OptionNames, TlsFailure};

/// A connection attempt that takes longer has failed, and so has a TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes that are held of what has come while a pipeline is written. Beyond it they wait in the kernel, and with them the
/// server: larger replies to a pipeline do not occur in practice.
const HELD_MAX: usize = 256 << 20;
/// Bytes that are received at once.
const RECEIVE_BYTES: usize = 64 * 1024;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Who waits for a call on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The call itself, as long as the limit allows.
    Blocking,
    /// Does not wait.
    Never,
}

impl Socket {
    /// `limit`: for each address of the host.
    pub(crate) fn tcp(host: &str, port: u16, limit: Duration) -> io::Result<Self> {
        let mut last = io::Error::from(ErrorKind::NotFound);
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, limit) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(Self::Tcp(socket));
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    /// A server that does not accept is waited for only when its backlog is full.
    pub(crate) fn unix(path: &str, limit: Duration) -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(limit))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self::Unix(socket.into()))
    }

    fn set_read_limit(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_read_timeout(Some(limit)),
            Self::Unix(socket) => socket.set_read_timeout(Some(limit)),
        }
    }

    fn receive(&self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        let flags = if wait == Wait::Never { RecvFlags::DONTWAIT } else { RecvFlags::empty() };
        let (received, _) = recv(self, buffer, flags)?;
        Ok(received)
    }

    /// Sends what the kernel takes at once.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    /// Waits until the socket is ready for one of these; what it is ready for.
    fn wait_for(&self, flags: PollFlags, limit: Duration) -> io::Result<PollFlags> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
            let mut fds = [PollFd::new(self, flags)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) if left.is_zero() => return Err(ErrorKind::TimedOut.into()),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(fds[0].revents()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// The socket as rustls reads and writes it.
struct Raw<'a>(&'a Socket, Wait);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buffer, self.1)
    }
}

impl io::Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_now(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection whose reads and writes block.
pub struct BlockingStream {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    options: OptionNames,
    /// Received and not read yet, from `held_from` on.
    held: Vec<u8>,
    held_from: usize,
    /// The other side has ended.
    ended: bool,
    limit: Duration,
}

impl std::fmt::Debug for BlockingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tls = self.tls.is_some();
        f.debug_struct("BlockingStream").field("socket", &self.socket).field("tls", &tls).finish_non_exhaustive()
    }
}

impl BlockingStream {
    pub(crate) fn plain(socket: Socket, limit: Duration) -> io::Result<Self> {
        socket.set_read_limit(limit)?;
        let (held, options) = (Vec::new(), OptionNames::default());
        Ok(Self { socket, tls: None, options, held, held_from: 0, ended: false, limit })
    }

    pub(crate) fn tls(
        socket: Socket,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
        options: OptionNames,
        limit: Duration,
    ) -> io::Result<Self> {
        let connection = ClientConnection::new(config, name)
            .map_err(|e| io::Error::new(ErrorKind::InvalidInput, TlsFailure::explain_to(&e, options)))?;
        let mut stream = Self::plain(socket, limit)?;
        (stream.tls, stream.options) = (Some(Box::new(connection)), options);
        stream.shake_hands(limit)?;
        Ok(stream)
    }

    /// Longest time without progress, from now on.
    pub fn set_limit(&mut self, limit: Duration) -> io::Result<()> {
        self.limit = limit;
        self.socket.set_read_limit(limit)
    }

    /// Sends all of it.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = if self.tls.is_some() { self.write_tls(bytes) } else { self.write_plain(bytes) };
        match written {
            // What the other side said last tells more than that it has gone.
            Err(e) if e.kind() != ErrorKind::TimedOut => {
                self.receive_now()?;
                if self.held().is_empty() { Err(e) } else { Ok(()) }
            }
            other => other,
        }
    }

    /// Takes what has come, without waiting.
    pub fn receive_now(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; RECEIVE_BYTES];
        while !self.ended && self.held().len() < HELD_MAX {
            match self.receive(&mut chunk, Wait::Never) {
                Ok(0) => self.ended = true,
                Ok(n) => self.hold(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What was taken and not read yet.
    pub fn held(&self) -> &[u8] {
        &self.held[self.held_from..]
    }

    /// So much of what is held was read.
    pub fn consume(&mut self, bytes: usize) {
        self.held_from += bytes.min(self.held().len());
        if self.held_from == self.held.len() {
            (self.held, self.held_from) = (Vec::new(), 0);
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    fn write_plain(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.send_now(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait_writable()?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_tls(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(tls) = &mut self.tls {
            if bytes.is_empty() {
                break;
            }
            let taken = io::Write::write(&mut tls.writer(), bytes)?;
            bytes = &bytes[taken..];
            self.send_records()?;
        }
        Ok(())
    }

    /// Sends what TLS has made.
    fn send_records(&mut self) -> io::Result<()> {
        while let Some(tls) = &mut self.tls
            && tls.wants_write()
        {
            match tls.write_tls(&mut Raw(&self.socket, Wait::Never)) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.wait_writable()?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Waits until the kernel takes more, and takes what has come meanwhile.
    fn wait_writable(&mut self) -> io::Result<()> {
        let mut flags = PollFlags::OUT;
        flags.set(PollFlags::IN, !self.ended && self.held().len() < HELD_MAX);
        let ready = self.socket.wait_for(flags, self.limit)?;
        if ready.contains(PollFlags::IN) { self.receive_now() } else { Ok(()) }
    }

    /// Received bytes, decrypted; 0 = the other side has ended.
    fn receive(&mut self, buffer: &mut [u8], wait: Wait) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.receive(buffer, wait) };
        loop {
            match tls.reader().read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            tls.read_tls(&mut Raw(&self.socket, wait))?;
            let processed = tls.process_new_packets();
            // An alert that tells the other side why, or an answer to a key update: never waited for.
            if tls.wants_write() {
                let _ = tls.write_tls(&mut Raw(&self.socket, Wait::Never));
            }
            processed.map_err(|e| failure(&e, self.options))?;
        }
    }

    /// The handshake, within the limit as a whole.
    fn shake_hands(&mut self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        while let Some(tls) = &mut self.tls {
            let flags = if tls.wants_write() {
                PollFlags::OUT
            } else if tls.is_handshaking() {
                PollFlags::IN
            } else {
                break;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(not_in_time(limit));
            }
            match self.socket.wait_for(flags, left) {
                Err(e) if e.kind() == ErrorKind::TimedOut => return Err(not_in_time(limit)),
                other => drop(other?),
            }
            let mut raw = Raw(&self.socket, Wait::Never);
            let moved = if flags == PollFlags::OUT { tls.write_tls(&mut raw) } else { tls.read_tls(&mut raw) };
            match moved {
                Ok(0) => return Err(TlsFailure::closed_in_handshake()),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(TlsFailure::closed_in_handshake()),
                Err(e) => return Err(e),
            }
            if let Err(e) = tls.process_new_packets() {
                let _ = tls.write_tls(&mut raw);
                return Err(failure(&e, self.options));
            }
        }
        Ok(())
    }
}

impl Read for BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.held().is_empty() {
            let n = self.held().len().min(buffer.len());
            buffer[..n].copy_from_slice(&self.held()[..n]);
            self.consume(n);
            return Ok(n);
        }
        if self.ended {
            return Ok(0);
        }
        self.receive(buffer, Wait::Blocking)
    }
}

/// Our address and the server's, as the system routes between them.
pub fn route(host: &str, port: u16) -> io::Result<(IpAddr, IpAddr)> {
    match Socket::tcp(host, port, CONNECT_TIMEOUT)? {
        Socket::Tcp(socket) => Ok((socket.local_addr()?.ip(), socket.peer_addr()?.ip())),
        Socket::Unix(_) => Err(ErrorKind::Unsupported.into()),
    }
}

fn failure(error: &rustls::Error, options: OptionNames) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, TlsFailure::explain_to(error, options))
}

fn not_in_time(limit: Duration) -> io::Error {
    let why = format!("no answer within {} s", limit.as_secs());
    TlsFailure::no_handshake(&io::Error::new(ErrorKind::TimedOut, why))
}

#[cfg(test)]
mod tests;
