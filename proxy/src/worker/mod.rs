//! The data path: one thread that moves the bytes of its sessions, and waits for nothing but readiness.
//!
//! ```text
//!             ┌──────────────── one turn ────────────────────────────────────────────────┐
//!  epoll ───► │ requests: read clients ─► cut ─► route ─► stamps ─► append to connections│
//!             │ flush:    the tee, then one write for each connection                    │
//!             │ replies:  read connections ─► whose is it ─► write to clients            │
//!             └──────────────────────────────────────────────────────────────────────────┘
//!
//!  client ── session ──┬── pinned connection: the session's own, for all that has state
//!                      └── shared connections: of sessions of one user, database and protocol; one for reads, one for writes
//! ```
//!
//! The [`Worker`] keeps the loop and does the I/O. What it does is decided by components that own their state, return
//! actions, and know of no socket:
//!
//! | component | decides |
//! | --- | --- |
//! | [`ClientTable`] | who is to be served; whose time, memory or unread replies are too much |
//! | [`UpstreamPool`] | which shared connection serves whom; which is opened, retired, cut, kept alive |
//! | [`AckGate`] | with `--ack journal`: which replies are withheld and which go; when the server is asked how far it is |
//! | [`Liveness`] | whether the server lives, when a shared connection broke |
//! | [`SessionState`](crate::session::SessionState) | what a request and a reply mean for their session |
//!
//! They do not know each other. What concerns two of them (a route needs the session and the pool) is asked of both by the
//! worker, in [`requests`] and [`replies`].
//!
//! Invariants:
//! - A session's requests are in flight on one connection at a time: the pinned one, or a shared one. It changes over only when nothing
//!   is in flight and nothing pins it, so the order of its replies is the order of its requests.
//! - Only requests that are whole, well-formed and without effect on the connection are put on a shared connection, and no write on one
//!   for reads.
//! - The tee is flushed before requests are written, so the stamp is there before the effect.
//! - Bytes of a connection are scanned before they pass: where a reply ends is known when it ends.
//! - Nothing waits without a limit, and nobody is read from whose bytes cannot go on.
//!
//! What happens when something breaks is in [`disconnect`], when something hangs in [`stalls`].

mod ack_gate;
mod acks;
mod admin;
mod client_table;
mod clock;
mod dial;
mod disconnect;
mod liveness;
mod memory;
mod outcome;
mod pause;
mod refs;
mod replica_wait;
mod replies;
mod requests;
mod session_writes;
mod socket;
mod stalls;
mod timers;
mod upstream_pool;
mod write_gate;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use mio::{Events, Poll, Token, Waker};
use redtape_capture::tee::{Tee, TeeSender};
use redtape_capture::{DurabilityTracker, Waiter};
use redtape_journal::Micros;
use redtape_net::tls::TlsAcceptor;
use redtape_telemetry::{Metrics, Status};
use redtape_wire::command::CommandTable;
use redtape_wire::settings::Sharing;

use self::ack_gate::AckGate;
pub(crate) use self::client_table::ClientMemory;
use self::client_table::ClientTable;
use self::liveness::Liveness;
pub(crate) use self::pause::Pause;
use self::refs::ClientRef;
pub(crate) use self::socket::Stream;
use self::upstream_pool::UpstreamPool;
use crate::commands::AdminCommands;
use crate::live::Live;
use crate::parts::Parts;
use crate::upstream::Upstream;

/// Messages that may wait for a worker.
const INBOX_MAX: usize = 1024;
/// Events taken at once.
const EVENTS_MAX: usize = 1024;
/// Bytes read from one connection at once.
const READ_BYTES: usize = 128 * 1024;
/// How often in one turn it is looked whether more clients are ready, and requests that are enough at once.
const GATHER_ROUNDS: usize = 3;
const GATHER_MAX: usize = 32;
/// Reads of one connection in one turn.
const CONN_READS_MAX: usize = 8;
/// Sessions that are still busy so long after a shutdown began are cut.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A worker's number stands above this bit in the generations that it gives.
const WORKER_SHIFT: u32 = 48;

const WAKE: Token = Token(usize::MAX);

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Where requests go.
    pub upstream: Upstream,
    /// Whether sessions share connections.
    pub sharing: Sharing,
    /// Towards clients that speak TLS.
    pub acceptor: Option<Arc<TlsAcceptor>>,
    /// What can change while redtape runs.
    pub live: Arc<ArcSwap<Live>>,
    /// Where stamps go.
    pub tee: Arc<Tee>,
    /// The server's commands.
    pub table: Arc<ArcSwap<CommandTable>>,
    /// How far the journal is on the disk, and whether writes may pass.
    pub durability: Arc<DurabilityTracker>,
    /// Its numbers of clients are kept by the workers.
    pub status: Arc<Status>,
    /// Counts errors, and how long replies wait for the journal.
    pub metrics: Metrics,
    /// Clients of all workers.
    pub clients: AtomicUsize,
    /// What the buffers of all clients hold.
    pub client_memory: Arc<ClientMemory>,
    /// Whether clients are paused.
    pub pause: Pause,
    /// Answers `REDTAPE.*`.
    pub admin: AdminCommands,
    /// Threads that work for it.
    pub admin_threads: Arc<AtomicUsize>,
    /// What must not end unseen.
    pub parts: Parts,
}

/// A client that was just accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub stream: Stream,
    pub from: ClientAddr,
    /// It speaks TLS.
    pub tls: bool,
    /// A load balancer says first who it is.
    pub header: bool,
}

/// From where a client comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientAddr {
    Addr(SocketAddr),
    /// The socket's path.
    Unix(String),
}

impl std::fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            // As `CLIENT LIST` has it.
            Self::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

#[derive(Debug)]
enum Message {
    Arrival(Arrival),
    Drain,
    /// What the proxy itself answers a client.
    Answered(ClientRef, Vec<u8>),
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    inbox: SyncSender<Message>,
    waker: Arc<Waker>,
    /// Clients it has, or is about to have.
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl WorkerHandle {
    /// Starts the `n`-th worker.
    pub(crate) fn start(n: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let (inbox, messages) = sync_channel(INBOX_MAX);
        let load = Arc::new(AtomicUsize::new(0));
        let parts = shared.parts.clone();
        let mut worker = Worker::new(n, poll, (inbox.clone(), messages), waker.clone(), load.clone(), shared);
        let thread = parts.thread(format!("worker-{n}"), move || worker.run())?;
        Ok(Self { inbox, waker, load, thread })
    }

    /// How many clients it has.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Hands a client over. Waits while the worker has too much to do.
    pub(crate) fn take(&self, arrival: Arrival) {
        self.load.fetch_add(1, Ordering::Relaxed);
        self.tell(Message::Arrival(arrival));
    }

    fn tell(&self, message: Message) {
        // A worker ends only after its handle; by a panic, with the process.
        if let Err(TrySendError::Full(message)) = self.inbox.try_send(message) {
            let _ = self.waker.wake();
            let _ = self.inbox.send(message);
        }
        if let Err(e) = self.waker.wake() {
            tracing::error!(error = %e, "cannot wake a worker");
        }
    }

    /// Lets sessions finish what is under way, at most [`DRAIN_TIMEOUT`].
    pub(crate) fn begin_drain(&self) {
        self.tell(Message::Drain);
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a worker ended with a panic");
        }
    }
}

/// Numbers of one turn, told to the metrics once.
#[derive(Debug, Default)]
struct Counts {
    commands: u64,
    received: u64,
    sent: u64,
}

/// See the module.
#[derive(Debug)]
struct Worker {
    poll: Poll,
    messages: Receiver<Message>,
    /// Its own, for threads that work for it.
    inbox: SyncSender<Message>,
    waker: Arc<Waker>,
    load: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    tee: TeeSender,
    table: Arc<CommandTable>,
    live: Arc<Live>,
    clients: ClientTable,
    pool: UpstreamPool,
    /// Writes may have to be refused, or to wait.
    gates_writes: bool,
    /// With `--ack journal`.
    ack_gate: Option<AckGate>,
    /// With `--ack journal`: this worker is woken when more is durable.
    durable_waiter: Option<Arc<Waiter>>,
    liveness: Liveness,
    scratch: Box<[u8]>,
    counts: Counts,
    now: Instant,
    next_tick: Instant,
    /// When all clients are looked at.
    next_check: Instant,
    draining: Option<Instant>,
}

fn client_token(index: usize) -> Token {
    Token(index * 2)
}

fn conn_token(index: usize) -> Token {
    Token(index * 2 + 1)
}

impl Worker {
    fn new(
        n: usize,
        poll: Poll,
        (inbox, messages): (SyncSender<Message>, Receiver<Message>),
        waker: Arc<Waker>,
        load: Arc<AtomicUsize>,
        shared: Arc<Shared>,
    ) -> Self {
        let now = Instant::now();
        let gates_writes = shared.durability.gates_writes();
        let clients = ClientTable::new(shared.client_memory.clone(), n, waker.clone());
        let ack_gate = shared.durability.is_awaited().then(|| AckGate::new(now));
        let durable_waiter = ack_gate.as_ref().map(|_| shared.durability.waiter(waker.clone()));
        Self {
            poll,
            messages,
            inbox,
            waker,
            load,
            tee: shared.tee.sender(),
            table: shared.table.load_full(),
            live: shared.live.load_full(),
            shared,
            clients,
            // No two connections of all workers have the same number: the join orders requests by it.
            pool: UpstreamPool::new((n as u64) << WORKER_SHIFT),
            gates_writes,
            ack_gate,
            durable_waiter,
            liveness: Liveness::default(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            counts: Counts::default(),
            now,
            next_tick: now,
            next_check: now,
            draining: None,
        }
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.is_drained() {
            let nothing_left = !self.clients.has_ready() && !self.pool.has_ready() && !self.liveness.has_verdict();
            let next = self.clients.next_count().map_or(self.next_tick, |count| self.next_tick.min(count));
            let timeout = if nothing_left { next.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    tracing::error!(error = %e, "a worker cannot wait for its sockets; it ends");
                    return;
                }
            }
            self.turn(&mut events);
        }
        self.close_all();
    }

    fn turn(&mut self, events: &mut Events) {
        self.now = Instant::now();
        self.tee.begin(Micros::now());
        self.note(events);
        self.renew_settings();
        self.count_replicas();
        if self.ack_gate.is_some() {
            // Why there is none, those who wait hear when they try again.
            let _ = self.reopen_offset_probe();
            // The server is asked how far it is before it gets more: a write waits for no later ones' sync.
            self.serve_conns();
            self.ask_offset();
        }
        self.serve_clients();
        for _ in 0..GATHER_ROUNDS {
            if !self.more_may_come() {
                break;
            }
            // A thread that waits for this core probably has work for this worker: with it, one system call serves more
            // requests. When none waits, this takes no time.
            std::thread::yield_now();
            if self.poll.poll(events, Some(Duration::ZERO)).is_err() || events.is_empty() {
                break;
            }
            self.note(events);
            self.serve_clients();
        }
        self.flush_conns();
        self.serve_conns();
        self.pass_verdict();
        self.flush_conns();
        self.ask_offset();
        self.release();
        self.tick();
        self.limit_client_memory();
        self.tee.rest();
        self.tell_counts();
    }

    /// Some requests are about to go to the server by shared connections, and other clients of theirs may have more.
    fn more_may_come(&self) -> bool {
        let gathered = self.pool.gathered();
        gathered > 0 && gathered < GATHER_MAX.min(self.clients.len() / 2)
    }

    fn serve_conns(&mut self) {
        for conn in self.pool.take_ready() {
            self.serve_conn(conn);
        }
    }

    fn serve_clients(&mut self) {
        for client in self.clients.take_ready() {
            self.serve_client(client);
        }
    }

    /// Takes note of who is ready for what.
    fn note(&mut self, events: &Events) {
        let mut woken = false;
        for event in events {
            match event.token() {
                WAKE => woken = true,
                Token(t) if t % 2 == 0 => self.client_event(t / 2, event),
                Token(t) => self.conn_event(t / 2, event),
            }
        }
        if woken {
            self.read_messages();
        }
    }

    fn client_event(&mut self, index: usize, event: &mio::event::Event) {
        let Some(client) = self.clients.at_mut(index) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            client.readable = true;
            client.read_closed |= event.is_read_closed() || event.is_error();
        }
        let (writable, reference) = (event.is_writable(), ClientRef { index, generation: client.generation });
        if client.readable {
            self.clients.queue(reference);
        }
        if writable {
            self.client_writable(reference);
        }
    }

    fn conn_event(&mut self, index: usize, event: &mio::event::Event) {
        let Some(conn) = self.pool.at(index) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            conn.readable = true;
            conn.read_closed |= event.is_read_closed() || event.is_error();
        }
        let reference = conn.reference(index);
        if event.is_writable() {
            self.conn_writable(index);
        }
        if self.pool.get(reference).is_some_and(|conn| conn.readable) {
            self.pool.queue(reference);
        }
    }

    fn renew_settings(&mut self) {
        let table = self.shared.table.load();
        if !Arc::ptr_eq(&table, &self.table) {
            self.table = arc_swap::Guard::into_inner(table);
        }
        let live = self.shared.live.load();
        if !Arc::ptr_eq(&live, &self.live) {
            self.live = arc_swap::Guard::into_inner(live);
        }
    }

    fn read_messages(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Arrival(arrival) => self.arrive(arrival),
                Message::Answered(client, bytes) => self.admin_answer(client, &bytes),
                Message::Drain => self.draining = Some(self.now + DRAIN_TIMEOUT),
            }
        }
    }

    fn is_drained(&self) -> bool {
        let Some(until) = self.draining else { return false };
        let late = self.now >= until && !self.clients.is_empty();
        if late {
            tracing::warn!(clients = self.clients.len(), "clients that were still busy are disconnected");
        }
        late || self.clients.is_empty()
    }

    fn tell_counts(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        let numbers = &self.shared.status.numbers.clients;
        for (n, counter) in [
            (counts.commands, &numbers.commands),
            (counts.received, &numbers.received_bytes),
            (counts.sent, &numbers.sent_bytes),
        ] {
            if n > 0 {
                counter.inc_by(n);
            }
        }
    }
}
