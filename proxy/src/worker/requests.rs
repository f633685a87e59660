//! From clients to the server: reads requests, chooses a route for each, and appends it to a connection.

use std::io;
use std::sync::Arc;

use redtape_capture::tee::next_session_id;
use redtape_journal::Micros;
use redtape_wire::command::CommandTable;
use redtape_wire::proxy_protocol::{self, ProxyHeader, Source};
use redtape_wire::resp::{Args, encode_command};
use redtape_wire::settings::Sharing;
use redtape_wire::word;
use smallvec::SmallVec;

use super::client_table::{CLIENT_OUT_HIGH, Client, SHARED_IN_FLIGHT_MAX, Stage};
use super::outcome::{Admission, Forwarded, Route};
use super::refs::ClientRef;
use super::upstream_pool::{CONN_OUT_MAX, SharedKey, SharedRoute};
use super::{Arrival, READ_BYTES, Worker, client_token};
use crate::session::{ClassifiedRequest, Scanned};
use crate::upstream::Unreachable;

/// A request as read.
#[derive(Debug, Clone, Copy)]
struct ReadRequest<'a> {
    /// May lack the end of a huge one.
    args: &'a [&'a [u8]],
    /// Number of all arguments.
    argc: usize,
    bytes: &'a [u8],
    /// Well-formed RESP, with its end.
    is_whole: bool,
}

impl ReadRequest<'_> {
    fn has_all_args(self) -> bool {
        self.argc == self.args.len()
    }
}

/// `SCRIPT KILL` and `FUNCTION KILL` write nothing, and must pass when nothing else does.
fn ends_a_script(args: &[&[u8]]) -> bool {
    let [name, what, ..] = args else { return false };
    word::is(what, "kill") && word::is_one_of(name, &["script", "function"])
}

impl Worker {
    /// A client was accepted.
    pub(super) fn arrive(&mut self, arrival: Arrival) {
        let mut socket = super::socket::Socket::plain(arrival.stream);
        let index = self.clients.vacant_key();
        let begun = socket.register(self.poll.registry(), client_token(index)).and_then(|()| {
            match (&self.shared.acceptor, arrival.tls && !arrival.header) {
                (Some(acceptor), true) => socket.accept_tls(acceptor.current()),
                _ => Ok(()),
            }
        });
        self.shared.status.numbers.clients.sessions.inc();
        self.shared.status.numbers.clients.sessions_total.inc();
        let session = next_session_id();
        let stage = if arrival.header { Stage::Header { tls: arrival.tls } } else { Stage::Open };
        let client = Client::new(socket, arrival.from.to_string(), session, stage, self.now);
        self.clients.insert(client);
        if let Err(e) = begun {
            tracing::warn!(error = %e, "a client cannot be served");
            self.close_client(index);
        }
    }

    /// Serves a client that is ready: what it sent is read and forwarded.
    pub(super) fn serve_client(&mut self, reference: ClientRef) {
        self.serve_requests(reference);
        self.account(reference.index);
    }

    fn serve_requests(&mut self, reference: ClientRef) {
        let Some(client) = self.clients.get_mut(reference) else { return };
        client.queued = false;
        let index = reference.index;
        match client.stage {
            Stage::Open => {}
            Stage::Header { tls } => return self.read_header(index, tls),
            Stage::Ending { .. } | Stage::Finishing { .. } => return,
            Stage::Lingering { .. } => return self.read_on_for_nothing(index),
        }
        if !client.takes_requests() {
            return;
        }
        if !client.input.is_empty() {
            let mut input = std::mem::take(&mut client.input);
            let used = self.take_requests(index, &input);
            if let Some(client) = self.clients.get_mut(reference)
                && used < input.len()
            {
                input.drain(..used);
                client.input = input;
            }
        }
        if self.clients.get_mut(reference).is_some_and(|c| c.takes_requests() && c.readable) {
            self.read_client(reference);
        }
        if let Some(client) = self.clients.get_mut(reference)
            && client.takes_requests()
        {
            if client.readable {
                self.clients.queue(reference);
            } else if client.eof {
                self.client_ended(index);
            }
        }
    }

    fn read_client(&mut self, reference: ClientRef) {
        let index = reference.index;
        let mut scratch = std::mem::take(&mut self.scratch);
        let client = &mut self.clients[index];
        let read = client.socket.read(&mut scratch);
        match read {
            Ok(0) => {
                client.readable = false;
                client.eof = true;
            }
            Ok(n) => {
                if client.socket.is_drained_by(n, READ_BYTES) && !client.read_closed {
                    client.readable = false;
                }
                client.active = self.now;
                self.counts.received += n as u64;
                self.take_bytes(reference, &scratch[..n]);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => client.readable = false,
            Err(e) => {
                if e.kind() == io::ErrorKind::InvalidData {
                    self.shared.metrics.error("client_tls");
                }
                tracing::debug!(session = client.state.id(), error = %e, "a client's connection broke");
                self.close_client(index);
            }
        }
        self.scratch = scratch;
    }

    /// Handles new input after the buffered rest.
    fn take_bytes(&mut self, reference: ClientRef, bytes: &[u8]) {
        let index = reference.index;
        let kept = std::mem::take(&mut self.clients[index].input);
        if kept.is_empty() {
            let used = self.take_requests(index, bytes);
            if let Some(client) = self.clients.get_mut(reference) {
                // Exact capacity, so that a client idle in the middle of a request stays small.
                client.input = bytes[used..].to_vec();
            }
            return;
        }
        let mut input = kept;
        input.extend_from_slice(bytes);
        let used = self.take_requests(index, &input);
        if let Some(client) = self.clients.get_mut(reference)
            && used < input.len()
        {
            input.drain(..used);
            client.input = input;
        }
    }

    /// Forwards the requests at the front of `buf`; returns how many bytes were used.
    fn take_requests(&mut self, index: usize, buf: &[u8]) -> usize {
        let table = Arc::clone(&self.table);
        let now = Micros::now();
        let mut spans = Args::new();
        let mut at = 0;
        while self.clients.at(index).is_some_and(Client::takes_requests) {
            let rest = &buf[at..];
            let scanned = self.clients[index].scan.next(rest, &mut spans);
            let Some(used) = self.take_scanned(index, scanned, rest, &spans, &table, now) else { break };
            at += used;
        }
        at
    }

    /// Handles the front of `rest`; returns how many bytes were used, `None` = it must wait, or more bytes are needed.
    fn take_scanned(
        &mut self,
        index: usize,
        scanned: Scanned,
        rest: &[u8],
        spans: &Args,
        table: &CommandTable,
        now: Micros,
    ) -> Option<usize> {
        match scanned {
            Scanned::Incomplete { heavy: false } => None,
            Scanned::Whole(_) | Scanned::Inline(..) | Scanned::Begun(_) | Scanned::Opaque
                if self.clients[index].state.is_leaving() =>
            {
                // A server that closes with unread input resets the connection, and replies may be lost.
                self.wait(index);
                None
            }
            Scanned::Incomplete { heavy: true } => {
                if !self.is_refused_already(index) {
                    return None;
                }
                self.clients[index].scan.stop();
                Some(0)
            }
            Scanned::Empty(len) => {
                if self.clients[index].state.nothing_asked() {
                    self.send_pinned(index, &rest[..len]);
                }
                Some(len)
            }
            Scanned::Rest(len) => {
                if !self.has_room_on_pinned(index) {
                    // These bytes were scanned and forwarded, and no more is read.
                    self.clients[index].waiting = true;
                }
                self.send_pinned(index, &rest[..len]);
                Some(len)
            }
            Scanned::Whole(len) => {
                let args: SmallVec<[&[u8]; 8]> = spans.iter().map(|(a, b)| &rest[*a..*b]).collect();
                let read = ReadRequest { args: &args, argc: args.len(), bytes: &rest[..len], is_whole: true };
                self.take_request(index, read, table, now)
            }
            Scanned::Inline(len, Some(words)) => {
                let args: SmallVec<[&[u8]; 8]> = words.iter().map(Vec::as_slice).collect();
                let read = ReadRequest { args: &args, argc: args.len(), bytes: &rest[..len], is_whole: false };
                self.take_request(index, read, table, now)
            }
            Scanned::Begun(begun) => {
                let args: SmallVec<[&[u8]; 8]> = spans.iter().map(|(a, b)| &rest[*a..*b]).collect();
                let read = ReadRequest { args: &args, argc: begun.argc, bytes: &rest[..begun.len], is_whole: false };
                let used = self.take_request(index, read, table, now)?;
                if let Some(client) = self.clients.at_mut(index) {
                    client.scan.go_on(begun);
                    if client.pinned.is_none() {
                        // It was refused: the rest cannot be parsed as requests.
                        self.finish(index);
                    }
                }
                Some(used)
            }
            Scanned::Inline(_, None) | Scanned::Opaque => {
                (self.forward_opaque(index, rest, now) == Forwarded::Done).then_some(rest.len())
            }
        }
    }

    fn take_request(
        &mut self,
        index: usize,
        read: ReadRequest<'_>,
        table: &CommandTable,
        now: Micros,
    ) -> Option<usize> {
        let request = self.clients[index].state.classify(table, read.args, read.argc);
        (self.forward(index, request, read, now) == Forwarded::Done).then_some(read.bytes.len())
    }

    /// True if the server does not accept the client and would read no more of an incomplete request. The server is
    /// asked first; more input may arrive meanwhile.
    fn is_refused_already(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if client.state.is_admitted() {
            client.questioned = false;
            return false;
        }
        if client.state.replies.is_desynced() {
            // The server could not be asked; it decides by the bytes it gets.
            return true;
        }
        if client.in_flight() > 0 || !client.state.is_answered_at_once() {
            // Checked again after the answer.
            client.waiting = client.in_flight() > 0;
            return false;
        }
        if std::mem::take(&mut client.questioned) {
            return true;
        }
        if client.pinned.is_some() || self.open_pinned(index).is_ok() {
            self.ask_pinned(index);
            self.clients[index].questioned = true;
        }
        false
    }

    /// Hands over one request.
    fn forward(
        &mut self,
        index: usize,
        request: ClassifiedRequest<'_>,
        read: ReadRequest<'_>,
        now: Micros,
    ) -> Forwarded {
        if request.is_admin && read.has_all_args() && self.clients[index].state.may_use_admin_commands() {
            return self.answer_admin(index, read.args);
        }
        if let Some(stopped) = self.admit(index, &request, read).stopped() {
            return stopped;
        }
        let mut route = self.route(index, read.is_whole && request.shareable, request.may_write());
        if route == Route::Pinned && !request.is_plain() && self.clients[index].state.has_internal_request() {
            // Suppressed replies would include that one.
            route = Route::Wait;
        }
        match route {
            Route::Wait => {
                self.wait(index);
                return Forwarded::Waits;
            }
            Route::Shared(conn) => self.forward_shared(index, conn, request, read, now),
            Route::Pinned => self.forward_pinned(index, request, read, now),
        }
        self.counts.commands += 1;
        Forwarded::Done
    }

    /// True if a request may be sent to the server now, on any connection.
    fn admit(&mut self, index: usize, request: &ClassifiedRequest<'_>, read: ReadRequest<'_>) -> Admission {
        if request.is_unclear() && self.clients[index].in_flight() > 0 {
            self.wait(index);
            return Admission::Wait;
        }
        if self.gates_writes && !ends_a_script(read.args) {
            let (writes, queues) = (self.clients[index].state.writes(request), request.queues_a_write());
            let admission = match (writes, queues) {
                (true, _) => self.admit_write(index, request.name() == b"exec", read.has_all_args()),
                (_, true) => self.admit_to_probe(index, read.has_all_args()),
                _ => Admission::Forward,
            };
            if admission != Admission::Forward {
                return admission;
            }
            if writes || queues {
                self.clients[index].state.writes_unseen();
            }
        }
        if read.has_all_args() { self.wait_for_replicas(index, request, read.args) } else { Admission::Forward }
    }

    fn forward_shared(
        &mut self,
        index: usize,
        conn: usize,
        request: ClassifiedRequest<'_>,
        read: ReadRequest<'_>,
        now: Micros,
    ) {
        let writes = request.may_write();
        let client = &mut self.clients[index];
        self.tee.on_connection(self.pool[conn].generation);
        client.state.forward(request, read.args, read.argc, &mut self.tee, now);
        let shared = &mut self.pool[conn];
        client.on_shared = true;
        client.on_writes = shared.is_for_writes();
        client.behind = true;
        if writes {
            client.wrote.by(shared.reference(conn), self.now);
        }
        let reference = ClientRef { index, generation: client.generation };
        shared.wait(reference, self.now);
        shared.out.push(read.bytes);
        self.pool.make_dirty(conn);
    }

    fn forward_pinned(&mut self, index: usize, request: ClassifiedRequest<'_>, read: ReadRequest<'_>, now: Micros) {
        if self.clients[index].pinned.is_none()
            && let Err(unreachable) = self.open_pinned(index)
        {
            return self.refuse(index, &unreachable);
        }
        let client = &mut self.clients[index];
        if !request.is_plain() {
            client.shared_conns = [None; 2];
        }
        if let Some(millis) = client.state.pauses(&request).filter(|_| client.state.user().is_some()) {
            self.shared.pause.asked(millis, self.now);
        }
        if let Some(pinned) = self.pool.pinned(client.pinned) {
            self.tee.on_connection(pinned.generation);
        }
        client.state.forward(request, read.args, read.argc, &mut self.tee, now);
        self.send_pinned(index, read.bytes);
    }

    /// The client's next request must wait.
    fn wait(&mut self, index: usize) {
        self.clients[index].waiting = true;
        self.nudge_pinned(index);
    }

    /// Input that was left on a client's pinned connection is retried: the obstacle may be gone.
    pub(super) fn nudge_pinned(&mut self, index: usize) {
        self.pool.nudge(self.clients[index].pinned);
    }

    /// Hands over bytes that are no requests.
    fn forward_opaque(&mut self, index: usize, bytes: &[u8], now: Micros) -> Forwarded {
        if self.route(index, false, true) == Route::Wait || self.clients[index].state.changes_a_reply() {
            self.clients[index].waiting = true;
            return Forwarded::Waits;
        }
        // Their effect is unknown.
        if self.gates_writes && !bytes.is_empty() {
            if self.shared.durability.refuses().is_some() {
                self.shared.metrics.error("journal_reject");
                self.finish(index);
                return Forwarded::Done;
            }
            if let Some(stopped) = self.admit_to_probe(index, true).stopped() {
                return stopped;
            }
        }
        if self.clients[index].pinned.is_none()
            && let Err(unreachable) = self.open_pinned(index)
        {
            self.refuse(index, &unreachable);
            self.finish(index);
            return Forwarded::Done;
        }
        let client = &mut self.clients[index];
        if !client.state.replies.is_desynced() && !bytes.is_empty() {
            self.shared.metrics.error("client_protocol");
            client.state.close(&mut self.tee, now);
            client.scan.stop();
        }
        if !bytes.is_empty() {
            client.state.writes_unseen();
            client.state.writes_unstamped(&self.tee);
        }
        self.send_pinned(index, bytes);
        Forwarded::Done
    }

    fn route(&mut self, index: usize, shareable: bool, writes: bool) -> Route {
        let client = &self.clients[index];
        let in_flight = client.in_flight();
        if client.on_shared && in_flight > 0 {
            let resp3 = client.state.replies.resp3;
            let quiet = self.pool.pinned(client.pinned).is_some_and(|pinned| pinned.is_quiet(resp3));
            return match client.shared() {
                // A write never uses the shared connection for reads. After its own write, a session's reads follow it
                // there, so they cannot overtake it.
                Some(shared)
                    if shareable
                        && (client.on_writes || !writes)
                        && !(writes && client.wrote.stays_pinned())
                        && quiet
                        && in_flight < SHARED_IN_FLIGHT_MAX
                        && client.unsaid() < CLIENT_OUT_HIGH
                        && self.pool.goes_on(shared) =>
                {
                    Route::Shared(shared.index)
                }
                _ => Route::Wait,
            };
        }
        if shareable
            && client.state.is_multiplexable()
            && client.unsaid() < CLIENT_OUT_HIGH
            && self.shared.sharing == Sharing::Auto
            && !(writes && client.wrote.stays_pinned())
            && let Some(conn) = self.shared_for(index, writes)
        {
            return Route::Shared(conn);
        }
        if self.has_room_on_pinned(index) { Route::Pinned } else { Route::Wait }
    }

    fn has_room_on_pinned(&self, index: usize) -> bool {
        let client = &self.clients[index];
        client.in_flight() < client.in_flight_max()
            && self.pool.pinned(client.pinned).is_none_or(|conn| conn.out.len() < CONN_OUT_MAX)
    }

    /// The shared connection that a multiplexable session may use now.
    fn shared_for(&mut self, index: usize, writes: bool) -> Option<usize> {
        let now = self.now;
        if self.shared.pause.holds(now) {
            return None;
        }
        let client = &mut self.clients[index];
        // A session without a pinned connection is unknown to the server.
        self.pool.pinned(client.pinned).filter(|pinned| pinned.is_quiet(client.state.replies.resp3))?;
        let state = &client.state;
        let key = || {
            let (db, resp3, credential) = state.context();
            SharedKey { credential: credential.cloned(), db, resp3, writes }
        };
        match self.pool.route(&mut client.shared_conns[usize::from(writes)], key, now) {
            SharedRoute::Use(conn) => Some(conn),
            SharedRoute::Open(key) => {
                self.open_shared(key);
                None
            }
            SharedRoute::None => None,
        }
    }

    /// Appends to the output of the pinned connection, which is open.
    pub(super) fn send_pinned(&mut self, index: usize, bytes: &[u8]) {
        let client = &mut self.clients[index];
        client.on_shared = false;
        client.behind = false;
        client.pinned_active = self.now;
        if let Some(pinned) = client.pinned {
            self.pool[pinned].out.push(bytes);
            self.pool.make_dirty(pinned);
        }
    }

    /// Asks the server whether it accepts a session. `HELLO` with the present protocol changes nothing and needs no
    /// right; a `PING` may be refused and recorded in the ACL LOG.
    pub(super) fn ask_pinned(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.state.ask_internally();
        let protocol = if client.state.replies.resp3 { "3" } else { "2" };
        let mut hello = Vec::new();
        encode_command(&mut hello, &["HELLO", protocol]);
        self.send_pinned(index, &hello);
    }

    /// A request cannot be forwarded.
    pub(super) fn refuse(&mut self, index: usize, unreachable: &Unreachable) {
        match unreachable {
            Unreachable::End => self.finish(index),
            Unreachable::Say(sentence) => {
                let client = &mut self.clients[index];
                client.say(format!("-ERR {sentence}\r\n").as_bytes());
                let reference = ClientRef { index, generation: client.generation };
                self.client_writable(reference);
            }
        }
    }

    /// All input of the client was read and forwarded.
    fn client_ended(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let answered = client.in_flight() == 0 && client.unsaid() == 0;
        match client.pinned {
            // The shared connection stays: the answers are awaited here.
            _ if client.on_shared && client.in_flight() > 0 => {}
            // The server closes its side after the last answer.
            Some(pinned) => {
                self.pool[pinned].ending = true;
                self.pool.make_dirty(pinned);
            }
            None if answered => self.close_client(index),
            None => {}
        }
    }

    /// Reads the PROXY protocol header; what follows it stays in the socket.
    fn read_header(&mut self, index: usize, tls: bool) {
        let client = &mut self.clients[index];
        let mut room = [0; proxy_protocol::HEADER_MAX];
        let n = match client.socket.peek(&mut room) {
            Ok(0) => return self.close_client(index),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                client.readable = false;
                return;
            }
            Err(_) => return self.close_client(index),
        };
        let (source, len) = match proxy_protocol::parse(&room[..n]) {
            Ok(ProxyHeader::Complete { source, len }) => (source, len),
            // More bytes come with another event.
            Ok(ProxyHeader::Incomplete { .. }) if !client.read_closed => return,
            Ok(ProxyHeader::Incomplete { .. }) => return self.close_client(index),
            Err(e) => {
                self.shared.metrics.error("proxy_header");
                tracing::warn!(session = client.state.id(), "a client is refused: {e}");
                return self.close_client(index);
            }
        };
        if !matches!(client.socket.read(&mut room[..len]), Ok(n) if n == len) {
            return self.close_client(index);
        }
        match source {
            Source::Addr(addr) => client.state.rename_addr(addr.to_string()),
            Source::Local | Source::Unix => {}
        }
        client.stage = Stage::Open;
        if let (true, Some(acceptor)) = (tls, &self.shared.acceptor)
            && client.socket.accept_tls(acceptor.current()).is_err()
        {
            return self.close_client(index);
        }
        // What follows may be there already.
        client.readable = true;
        let reference = ClientRef { index, generation: client.generation };
        self.clients.queue(reference);
    }
}
