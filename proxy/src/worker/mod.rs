//! The data path: one thread that moves the bytes of its sessions and blocks only on readiness.
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
//! The [`Worker`] runs the loop and does the I/O. Decisions are made by components that own their state, return
//! actions, and use no sockets:
//!
//! | component | decides |
//! | --- | --- |
//! | [`ClientTable`] | which client is served next; which exceeds a limit of time, memory or unread replies |
//! | [`UpstreamPool`] | which shared connection a session uses; which is opened, retired, cut, kept alive |
//! | [`AckGate`] | with `--ack journal`: which replies are withheld and released; when the server's offset is requested |
//! | [`Liveness`] | whether the server lives, after a shared connection broke |
//! | [`SessionState`](crate::session::SessionState) | what a request and a reply mean for their session |
//!
//! They do not refer to each other. Where a decision needs two of them (a route needs session and pool), the worker
//! asks both, in [`requests`] and [`replies`].
//!
//! Invariants:
//! - A session's requests are in flight on one connection at a time: the pinned one, or a shared one. It changes
//!   connections only when nothing is in flight and nothing pins it, so its replies keep the order of its requests.
//! - A shared connection carries only whole, well-formed requests without effect on the connection, and the one for
//!   reads carries no writes.
//! - The tee is flushed before requests are written, so the join has the stamp before the effect.
//! - Bytes of a connection are scanned before they are passed on, so the end of each reply is known.
//! - Every wait has a limit, and no socket is read whose bytes cannot be passed on.
//!
//! Failures are handled in [`disconnect`], stalled connections in [`stalls`].

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
/// Polls per turn for further ready clients, and the number of requests that ends them.
const GATHER_ROUNDS: usize = 3;
const GATHER_MAX: usize = 32;
/// Reads of one connection in one turn.
const CONN_READS_MAX: usize = 8;
/// Sessions still busy this long after a shutdown began are closed.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Bits of a generation below the worker's number.
const WORKER_SHIFT: u32 = 48;

const WAKE: Token = Token(usize::MAX);

/// State shared by all workers.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The server.
    pub upstream: Upstream,
    /// Whether sessions share connections.
    pub sharing: Sharing,
    /// TLS for clients.
    pub acceptor: Option<Arc<TlsAcceptor>>,
    /// Settings that can change at run time.
    pub live: Arc<ArcSwap<Live>>,
    /// Receives the stamps.
    pub tee: Arc<Tee>,
    /// The server's commands.
    pub table: Arc<ArcSwap<CommandTable>>,
    /// The durable position, and whether writes may pass.
    pub durability: Arc<DurabilityTracker>,
    /// The workers update its numbers of clients.
    pub status: Arc<Status>,
    /// Counts errors and measures how long replies wait for the journal.
    pub metrics: Metrics,
    /// Number of clients of all workers.
    pub clients: AtomicUsize,
    /// Memory of all clients' buffers.
    pub client_memory: Arc<ClientMemory>,
    /// Whether clients are paused.
    pub pause: Pause,
    /// Answers `REDTAPE.*`.
    pub admin: AdminCommands,
    /// Number of threads that work for admin commands.
    pub admin_threads: Arc<AtomicUsize>,
    /// Parts of redtape whose end is fatal.
    pub parts: Parts,
}

/// A client that was just accepted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub stream: Stream,
    pub from: ClientAddr,
    /// The client uses TLS.
    pub tls: bool,
    /// A PROXY protocol header comes first.
    pub header: bool,
}

/// Origin of a client.
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
            // The format of `CLIENT LIST`.
            Self::Unix(path) => write!(f, "{path}:0"),
        }
    }
}

#[derive(Debug)]
enum Message {
    Arrival(Arrival),
    Drain,
    /// An answer by the proxy itself.
    Answered(ClientRef, Vec<u8>),
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    inbox: SyncSender<Message>,
    waker: Arc<Waker>,
    /// Number of its clients, including those being handed over.
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

    /// Number of clients.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Hands a client over. Blocks while the worker's inbox is full.
    pub(crate) fn take(&self, arrival: Arrival) {
        self.load.fetch_add(1, Ordering::Relaxed);
        self.tell(Message::Arrival(arrival));
    }

    fn tell(&self, message: Message) {
        // A worker outlives its handle unless it panics, which ends the process.
        if let Err(TrySendError::Full(message)) = self.inbox.try_send(message) {
            let _ = self.waker.wake();
            let _ = self.inbox.send(message);
        }
        if let Err(e) = self.waker.wake() {
            tracing::error!(error = %e, "cannot wake a worker");
        }
    }

    /// Lets sessions finish their requests, for at most [`DRAIN_TIMEOUT`].
    pub(crate) fn begin_drain(&self) {
        self.tell(Message::Drain);
    }

    /// Waits for the thread to end.
    pub(crate) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a worker ended with a panic");
        }
    }
}

/// Counters of one turn, added to the metrics once.
#[derive(Debug, Default)]
struct Counts {
    commands: u64,
    received: u64,
    sent: u64,
}

/// One worker thread.
#[derive(Debug)]
struct Worker {
    poll: Poll,
    messages: Receiver<Message>,
    /// A sender for its own threads.
    inbox: SyncSender<Message>,
    waker: Arc<Waker>,
    load: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    tee: TeeSender,
    table: Arc<CommandTable>,
    live: Arc<Live>,
    clients: ClientTable,
    pool: UpstreamPool,
    /// Writes may have to be refused or delayed.
    gates_writes: bool,
    /// With `--ack journal`.
    ack_gate: Option<AckGate>,
    /// With `--ack journal`: wakes this worker when the durable position advances.
    durable_waiter: Option<Arc<Waiter>>,
    liveness: Liveness,
    scratch: Box<[u8]>,
    counts: Counts,
    now: Instant,
    next_tick: Instant,
    /// Time of the next check of all clients.
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
            // Connection numbers are unique across workers: the join orders requests by them.
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
            // Blocked clients get the reason when they try again.
            let _ = self.reopen_offset_probe();
            // The offset is requested before more requests are sent: a write then waits for no later writes' sync.
            self.serve_conns();
            self.ask_offset();
        }
        self.serve_clients();
        for _ in 0..GATHER_ROUNDS {
            if !self.more_may_come() {
                break;
            }
            // A thread waiting for this core probably has requests for this worker: yielding lets one system call serve
            // more requests. If none waits, it takes no time.
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

    /// True if requests are about to go to the server by shared connections, and more clients of these may be ready.
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

    /// Records which sockets are ready.
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
