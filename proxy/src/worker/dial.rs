//! Opens links without waiting, and sends what waits on them.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use redtape_net::{CONNECT_TIMEOUT, configure_tcp};
use redtape_wire::resp::encode_command;

use super::shared_conns::LaneKey;
use super::socket::{Socket, Stream};
use super::timers::TICK_CONNECTING;
use super::upstream_conn::{ClientRef, Link, Role, Stage};
use super::{Worker, link_token};
use crate::upstream::{NoWay, Target};

/// A unix socket says at once that too many wait; the server takes them within moments.
const UNIX_TRIES: usize = 50;
const UNIX_PAUSE: Duration = Duration::from_millis(1);

impl Worker {
    /// Opens the session's own connection; what is sent meanwhile waits in it.
    pub(super) fn open_home(&mut self, client: usize) -> Result<(), NoWay> {
        self.shared.upstream.may_try()?;
        let reference = ClientRef { index: client, generation: self.clients[client].generation };
        let home = self.dial(Role::Home(reference), self.now + CONNECT_TIMEOUT)?;
        self.clients[client].home = Some(home);
        Ok(())
    }

    /// Opens a lane; it can be used as soon as the server has let it in.
    pub(super) fn open_lane(&mut self, key: LaneKey) {
        if key.introduction().is_none() {
            return self.lanes.refused(key, self.now);
        }
        let is_ready = |link: usize| self.links.get(link).is_some_and(Link::is_ready);
        if self.lanes.is_showing(key.credential.as_ref(), is_ready) {
            return;
        }
        if self.shared.upstream.may_try().is_ok()
            && let Ok(link) = self.dial(Role::Lane(key.clone()), self.now + CONNECT_TIMEOUT)
        {
            self.lanes.opened(key, link);
            self.shared.metrics.clients.shared_conns.inc();
        }
    }

    /// Begins to connect, by the first way that does not fail at once.
    pub(super) fn dial(&mut self, role: Role, until: Instant) -> Result<usize, NoWay> {
        let index = self.links.vacant_key();
        let (socket, attempt) = self.begin(index, 0).map_err(|e| self.shared.upstream.failed(&e.to_string()))?;
        let generation = self.generation();
        self.links.insert(Link::new(socket, role, Stage::Connecting { attempt, until }, generation, self.now));
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
        socket.register(self.poll.registry(), link_token(index))?;
        Ok(socket)
    }

    /// A link that is being connected shows a sign.
    pub(super) fn go_on_connecting(&mut self, index: usize) {
        let mut nothing = [0; 1];
        let link = &mut self.links[index];
        let result = match link.socket.connected() {
            Ok(None) => return,
            Ok(Some(())) if link.socket.is_handshaking() => match link.socket.read(&mut nothing) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && link.socket.is_handshaking() => return,
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
            Ok(()) => self.link_connected(index),
            Err(e) => self.try_next(index, &e),
        }
    }

    /// This way did not work: the next, or none.
    pub(super) fn try_next(&mut self, index: usize, error: &io::Error) {
        let link = &mut self.links[index];
        let Stage::Connecting { attempt, until } = link.stage else { return };
        link.socket.deregister(self.poll.registry());
        match self.begin(index, attempt + 1) {
            Ok((socket, attempt)) => {
                let link = &mut self.links[index];
                link.socket = socket;
                (link.readable, link.read_closed) = (false, false);
                link.stage = Stage::Connecting { attempt, until };
            }
            Err(_) => self.connect_failed(index, &error.to_string()),
        }
    }

    fn link_connected(&mut self, index: usize) {
        let said = matches!(self.links[index].role, Role::Barrier).then(|| self.introduce_barrier());
        let link = &mut self.links[index];
        if let Stage::Connecting { attempt, .. } = link.stage {
            self.shared.upstream.answered(attempt);
        }
        self.connecting -= 1;
        link.stage = Stage::Ready;
        match &link.role {
            Role::Home(_) => {}
            Role::Lane(key) => {
                if let Some((bytes, answers)) = key.introduction() {
                    link.out.push(&bytes);
                    link.progress = self.now;
                    link.stage = Stage::Greeting(answers);
                }
            }
            Role::Barrier => link.out.push(&said.unwrap_or_default()),
            // Any answer will do, and this one needs no right.
            Role::Probe | Role::Witness => {
                let mut hello = Vec::new();
                encode_command(&mut hello, &["HELLO", "2"]);
                link.out.push(&hello);
            }
        }
        // TLS may have read more than the handshake.
        link.readable = true;
        self.make_dirty(index);
    }

    /// The socket takes more.
    pub(super) fn link_writable(&mut self, index: usize) {
        if matches!(self.links[index].stage, Stage::Connecting { .. }) {
            self.go_on_connecting(index);
        } else {
            self.make_dirty(index);
        }
    }

    pub(super) fn make_dirty(&mut self, index: usize) {
        let link = &mut self.links[index];
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(index);
        }
    }

    /// Sends what waits on links, after the stamps of what is sent have gone to the tee.
    pub(super) fn flush_links(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        self.tee.flush();
        for index in std::mem::take(&mut self.dirty) {
            // Another link may have its number by now: one flush too many does no harm.
            if let Some(link) = self.links.get_mut(index)
                && link.dirty
            {
                link.dirty = false;
                self.flush_link(index);
            }
        }
    }

    fn flush_link(&mut self, index: usize) {
        let link = &mut self.links[index];
        if matches!(link.stage, Stage::Connecting { .. }) {
            return;
        }
        let generation = link.generation;
        let shared = matches!(link.role, Role::Lane(_));
        if link.gathers() {
            return;
        }
        let sent = link.out.send(&mut link.socket, shared);
        if let Role::Home(owner) = link.role {
            self.account(owner.index);
        }
        let link = &mut self.links[index];
        let Ok(done) = sent else {
            // The server has closed: what it said before still goes to the client.
            link.out.clear();
            link.readable = true;
            link.read_closed = true;
            return self.ready_links.push((index, generation));
        };
        if !done {
            return;
        }
        link.all_sent();
        if link.ending {
            link.socket.shutdown();
        }
        if let Role::Home(owner) = &link.role {
            let owner = *owner;
            if let Some(client) = self.client(owner)
                && client.waiting
                && !client.on_lane
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
                    _ if client.eof && client.home.is_none() && client.in_flight() == 0 && client.input.is_empty() => {
                        self.close_client(reference.index);
                    }
                    _ => {
                        // Its home may have waited for this.
                        self.nudge_home(reference.index);
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
