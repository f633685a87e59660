//! Opens connections without blocking, and sends their buffered output.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use redtape_net::{CONNECT_TIMEOUT, configure_tcp};

use super::clock::TICK_CONNECTING;
use super::refs::{ClientRef, ConnRef};
use super::socket::{Socket, Stream};
use super::upstream_pool::SharedKey;
use super::upstream_pool::{Role, Stage};
use super::{Worker, conn_token};
use crate::upstream::{Target, Unreachable};

/// A unix socket refuses at once when its accept queue is full; the server empties it quickly.
const UNIX_TRIES: usize = 50;
const UNIX_PAUSE: Duration = Duration::from_millis(1);

impl Worker {
    /// Opens the session's pinned connection; output is buffered meanwhile.
    pub(super) fn open_pinned(&mut self, client: usize) -> Result<(), Unreachable> {
        self.shared.upstream.may_try()?;
        let reference = ClientRef { index: client, generation: self.clients[client].generation };
        let pinned = self.dial(Role::Pinned(reference), self.now + CONNECT_TIMEOUT)?;
        self.clients[client].pinned = Some(pinned.index);
        Ok(())
    }

    /// Opens a shared connection, usable after the server has accepted its login.
    pub(super) fn open_shared(&mut self, key: SharedKey) {
        if self.shared.upstream.may_try().is_ok() && self.dial(Role::Shared(key), self.now + CONNECT_TIMEOUT).is_ok() {
            self.shared.status.numbers.clients.shared_conns.inc();
        }
    }

    /// Starts to connect, to the first address that does not fail at once.
    pub(super) fn dial(&mut self, role: Role, until: Instant) -> Result<ConnRef, Unreachable> {
        let index = self.pool.vacant_key();
        let (socket, attempt) = self.begin(index, 0).map_err(|e| self.shared.upstream.failed(&e.to_string()))?;
        self.next_tick = self.next_tick.min(self.now + TICK_CONNECTING);
        Ok(self.pool.insert(socket, role, Stage::Connecting { attempt, until }, self.now))
    }

    /// Starts with the `attempt`-th address or a later one.
    fn begin(&mut self, index: usize, mut attempt: usize) -> io::Result<(Socket, usize)> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
        while let Some(target) = self.shared.upstream.target(attempt) {
            match self.connect_to(&target, index) {
                Ok(socket) => return Ok((socket, attempt)),
                Err(e) => last = e,
            }
            attempt += 1;
        }
        Err(last)
    }

    fn connect_to(&self, target: &Target, index: usize) -> io::Result<Socket> {
        let stream = match target {
            Target::Tcp(addr) => {
                let stream = mio::net::TcpStream::connect(*addr)?;
                configure_tcp(&stream)?;
                Stream::Tcp(stream)
            }
            Target::Unix(path) => Stream::Unix(connect_unix(Path::new(path))?),
        };
        let mut socket = Socket::plain(stream);
        if let Some((config, name)) = self.shared.upstream.connector.tls() {
            socket.start_tls(config, name)?;
        }
        socket.register(self.poll.registry(), conn_token(index))?;
        Ok(socket)
    }

    /// A connecting socket is ready.
    pub(super) fn go_on_connecting(&mut self, index: usize) {
        let mut nothing = [0; 1];
        let conn = &mut self.pool[index];
        let result = match conn.socket.connected() {
            Ok(None) => return,
            Ok(Some(())) if conn.socket.is_handshaking() => match conn.socket.read(&mut nothing) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && conn.socket.is_handshaking() => return,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Ok(0) => Err(io::Error::other(
                    "the server closed the connection during the TLS handshake; is this its tls-port?",
                )),
                Ok(_) => Err(io::Error::other("the server sent data before any request")),
                Err(e) => Err(e),
            },
            other => other.map(drop),
        };
        match result {
            Ok(()) => self.conn_connected(index),
            Err(e) => self.try_next(index, &e),
        }
    }

    /// This address failed: tries the next one, or gives up.
    pub(super) fn try_next(&mut self, index: usize, error: &io::Error) {
        let conn = &mut self.pool[index];
        let Stage::Connecting { attempt, until } = conn.stage else { return };
        conn.socket.deregister(self.poll.registry());
        match self.begin(index, attempt + 1) {
            Ok((socket, attempt)) => {
                let conn = &mut self.pool[index];
                conn.socket = socket;
                (conn.readable, conn.read_closed) = (false, false);
                conn.stage = Stage::Connecting { attempt, until };
            }
            Err(_) => self.connect_failed(index, &error.to_string()),
        }
    }

    fn conn_connected(&mut self, index: usize) {
        if matches!(self.pool[index].role, Role::OffsetProbe) {
            let introduction = self.introduce_offset_probe();
            self.pool[index].out.push(&introduction);
        }
        if let Some(attempt) = self.pool.connected(index, self.now) {
            self.shared.upstream.answered(attempt);
        }
        self.pool.make_dirty(index);
    }

    /// The socket accepts more output.
    pub(super) fn conn_writable(&mut self, index: usize) {
        if matches!(self.pool[index].stage, Stage::Connecting { .. }) {
            self.go_on_connecting(index);
        } else {
            self.pool.make_dirty(index);
        }
    }

    /// Sends buffered output of connections, after the tee has the stamps.
    pub(super) fn flush_conns(&mut self) {
        if self.pool.is_clean() {
            return;
        }
        self.tee.flush();
        for index in self.pool.take_dirty() {
            // The index may belong to another connection by now: an additional flush is harmless.
            if self.pool.begin_flush(index) {
                self.flush_conn(index);
            }
        }
    }

    fn flush_conn(&mut self, index: usize) {
        let conn = &mut self.pool[index];
        if matches!(conn.stage, Stage::Connecting { .. }) {
            return;
        }
        let reference = conn.reference(index);
        let shared = matches!(conn.role, Role::Shared(_));
        if conn.gathers() {
            return;
        }
        let sent = conn.out.send(&mut conn.socket, shared);
        if let Role::Pinned(owner) = conn.role {
            self.account(owner.index);
        }
        let conn = &mut self.pool[index];
        let Ok(done) = sent else {
            // The server has closed: what it sent before still goes to the client.
            conn.out.clear();
            conn.readable = true;
            conn.read_closed = true;
            return self.pool.queue(reference);
        };
        if !done {
            return;
        }
        conn.all_sent();
        if conn.ending {
            conn.socket.shutdown();
        }
        if let Role::Pinned(owner) = &conn.role {
            self.clients.pinned_has_room(*owner);
        }
    }

    /// A client's socket accepts more output.
    pub(super) fn client_writable(&mut self, reference: ClientRef) {
        self.send_to_client(reference);
        self.account(reference.index);
    }

    fn send_to_client(&mut self, reference: ClientRef) {
        let Some(client) = self.clients.get_mut(reference) else { return };
        match client.out.send(&mut client.socket, false) {
            Err(_) => self.close_client(reference.index),
            Ok(false) => {}
            // Withheld replies follow later.
            Ok(true) if client.withholds() => {}
            Ok(true) => {
                match client.stage {
                    super::client_table::Stage::Finishing { .. } => self.linger(reference.index),
                    _ if client.eof
                        && client.pinned.is_none()
                        && client.in_flight() == 0
                        && client.input.is_empty() =>
                    {
                        self.close_client(reference.index);
                    }
                    _ => {
                        // Its pinned connection may have waited for this.
                        self.nudge_pinned(reference.index);
                    }
                }
            }
        }
    }
}

/// A full accept queue is temporary and does not mean that the server is gone.
fn connect_unix(path: &Path) -> io::Result<mio::net::UnixStream> {
    let mut tries = 0;
    loop {
        match mio::net::UnixStream::connect(path) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && tries < UNIX_TRIES => {
                tries += 1;
                std::thread::sleep(UNIX_PAUSE);
            }
            r => return r,
        }
    }
}
