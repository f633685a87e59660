//! Opens connections without waiting, and sends what waits on them.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use redtape_net::{CONNECT_TIMEOUT, configure_tcp};
use redtape_wire::resp::encode_command;

use super::refs::ClientRef;
use super::shared_conns::SharedKey;
use super::socket::{Socket, Stream};
use super::timers::TICK_CONNECTING;
use super::upstream_conn::{Role, Stage, UpstreamConn};
use super::{Worker, conn_token};
use crate::upstream::{NoWay, Target};

/// A unix socket says at once that too many wait; the server takes them within moments.
const UNIX_TRIES: usize = 50;
const UNIX_PAUSE: Duration = Duration::from_millis(1);

impl Worker {
    /// Opens the session's own connection; what is sent meanwhile waits in it.
    pub(super) fn open_pinned(&mut self, client: usize) -> Result<(), NoWay> {
        self.shared.upstream.may_try()?;
        let reference = ClientRef { index: client, generation: self.clients[client].generation };
        let pinned = self.dial(Role::Pinned(reference), self.now + CONNECT_TIMEOUT)?;
        self.clients[client].pinned = Some(pinned);
        Ok(())
    }

    /// Opens a shared connection; it can be used as soon as the server has let it in.
    pub(super) fn open_shared(&mut self, key: SharedKey) {
        if key.introduction().is_none() {
            return self.shared_conns.refused(key, self.now);
        }
        let is_ready = |conn: usize| self.conns.get(conn).is_some_and(UpstreamConn::is_ready);
        if self.shared_conns.is_showing(key.credential.as_ref(), is_ready) {
            return;
        }
        if self.shared.upstream.may_try().is_ok()
            && let Ok(conn) = self.dial(Role::Shared(key.clone()), self.now + CONNECT_TIMEOUT)
        {
            self.shared_conns.opened(key, conn);
            self.shared.metrics.clients.shared_conns.inc();
        }
    }

    /// Begins to connect, by the first way that does not fail at once.
    pub(super) fn dial(&mut self, role: Role, until: Instant) -> Result<usize, NoWay> {
        let index = self.conns.vacant_key();
        let (socket, attempt) = self.begin(index, 0).map_err(|e| self.shared.upstream.failed(&e.to_string()))?;
        let generation = self.generation();
        self.conns.insert(UpstreamConn::new(socket, role, Stage::Connecting { attempt, until }, generation, self.now));
        self.connecting += 1;
        self.next_tick = self.next_tick.min(self.now + TICK_CONNECTING);
        Ok(index)
    }

    /// Begins with the `attempt`-th way or one behind it.
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

    /// A connection that is being connected shows a sign.
    pub(super) fn go_on_connecting(&mut self, index: usize) {
        let mut nothing = [0; 1];
        let conn = &mut self.conns[index];
        let result = match conn.socket.connected() {
            Ok(None) => return,
            Ok(Some(())) if conn.socket.is_handshaking() => match conn.socket.read(&mut nothing) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && conn.socket.is_handshaking() => return,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Ok(0) => Err(io::Error::other(
                    "the server closed the connection during the TLS handshake; is this its tls-port?",
                )),
                Ok(_) => Err(io::Error::other("the server spoke before it was asked")),
                Err(e) => Err(e),
            },
            other => other.map(drop),
        };
        match result {
            Ok(()) => self.conn_connected(index),
            Err(e) => self.try_next(index, &e),
        }
    }

    /// This way did not work: the next, or none.
    pub(super) fn try_next(&mut self, index: usize, error: &io::Error) {
        let conn = &mut self.conns[index];
        let Stage::Connecting { attempt, until } = conn.stage else { return };
        conn.socket.deregister(self.poll.registry());
        match self.begin(index, attempt + 1) {
            Ok((socket, attempt)) => {
                let conn = &mut self.conns[index];
                conn.socket = socket;
                (conn.readable, conn.read_closed) = (false, false);
                conn.stage = Stage::Connecting { attempt, until };
            }
            Err(_) => self.connect_failed(index, &error.to_string()),
        }
    }

    fn conn_connected(&mut self, index: usize) {
        let said = matches!(self.conns[index].role, Role::OffsetProbe).then(|| self.introduce_offset_probe());
        let conn = &mut self.conns[index];
        if let Stage::Connecting { attempt, .. } = conn.stage {
            self.shared.upstream.answered(attempt);
        }
        self.connecting -= 1;
        conn.stage = Stage::Ready;
        match &conn.role {
            Role::Pinned(_) => {}
            Role::Shared(key) => {
                if let Some((bytes, answers)) = key.introduction() {
                    conn.out.push(&bytes);
                    conn.progress = self.now;
                    conn.stage = Stage::Greeting(answers);
                }
            }
            Role::OffsetProbe => conn.out.push(&said.unwrap_or_default()),
            // Any answer will do, and this one needs no right.
            Role::Probe | Role::Witness => {
                let mut hello = Vec::new();
                encode_command(&mut hello, &["HELLO", "2"]);
                conn.out.push(&hello);
            }
        }
        // TLS may have read more than the handshake.
        conn.readable = true;
        self.make_dirty(index);
    }

    /// The socket takes more.
    pub(super) fn conn_writable(&mut self, index: usize) {
        if matches!(self.conns[index].stage, Stage::Connecting { .. }) {
            self.go_on_connecting(index);
        } else {
            self.make_dirty(index);
        }
    }

    pub(super) fn make_dirty(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Sends what waits on connections, after the stamps of what is sent have gone to the tee.
    pub(super) fn flush_conns(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        self.tee.flush();
        for index in std::mem::take(&mut self.dirty) {
            // Another connection may have its number by now: one flush too many does no harm.
            if let Some(conn) = self.conns.get_mut(index)
                && conn.dirty
            {
                conn.dirty = false;
                self.flush_conn(index);
            }
        }
    }

    fn flush_conn(&mut self, index: usize) {
        let conn = &mut self.conns[index];
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
        let conn = &mut self.conns[index];
        let Ok(done) = sent else {
            // The server has closed: what it said before still goes to the client.
            conn.out.clear();
            conn.readable = true;
            conn.read_closed = true;
            return self.ready_conns.push(reference);
        };
        if !done {
            return;
        }
        conn.all_sent();
        if conn.ending {
            conn.socket.shutdown();
        }
        if let Role::Pinned(owner) = &conn.role {
            let owner = *owner;
            if let Some(client) = self.client(owner)
                && client.waiting
                && !client.on_shared
            {
                client.waiting = false;
                self.queue_client(owner);
            }
        }
    }

    /// A client's socket takes more.
    pub(super) fn client_writable(&mut self, reference: ClientRef) {
        self.send_to_client(reference);
        self.account(reference.index);
    }

    fn send_to_client(&mut self, reference: ClientRef) {
        let Some(client) = self.client(reference) else { return };
        match client.out.send(&mut client.socket, false) {
            Err(_) => self.close_client(reference.index),
            Ok(false) => {}
            // The rest follows when it may.
            Ok(true) if client.withholds() => {}
            Ok(true) => {
                match client.stage {
                    super::client::Stage::Finishing { .. } => self.linger(reference.index),
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

/// A server whose queue of connections is full for a moment is not one that is gone.
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
