//! Two worlds that are told the same: a server reached directly, and its twin reached through redtape.

use crate::harness::clock::{Clock, SharedClock};
use crate::harness::conn::{Conn, int, items, text};
use crate::harness::journal::{self, Group};
use crate::harness::{Args, Dir, Redtape, Server, now_us, wait_for};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A server reads at most so much of one connection in one turn of its event loop.
const READ_PER_TURN: usize = 16 * 1024;

/// One client connection.
pub struct Link {
    stream: TcpStream,
    pub local_port: u16,
    /// What came and was not yet compared.
    pub got: Vec<u8>,
    /// What was compared last.
    pub compared: Vec<u8>,
    pub closed: bool,
    /// It ended with a reset, which takes what was on its way with it.
    pub reset: bool,
    /// As `CLIENT ID` said.
    pub id: Option<i64>,
}

impl Link {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        stream.set_nonblocking(true).expect("nonblocking");
        let local_port = stream.local_addr().expect("an address").port();
        Self { stream, local_port, got: Vec::new(), compared: Vec::new(), closed: false, reset: false, id: None }
    }

    /// Takes what is there; how much that was.
    pub fn drain(&mut self) -> usize {
        let before = self.got.len();
        let mut chunk = [0; 64 * 1024];
        while !self.closed {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(n) => self.got.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // A reset is an end.
                Err(_) => (self.closed, self.reset) = (true, true),
            }
        }
        self.got.len() - before
    }

    /// Ends the sending direction.
    pub fn shut(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

/// One world.
pub struct Side {
    _server: Server,
    /// Straight to the server, in both worlds.
    pub control: Conn,
    port: u16,
    pub links: Vec<Link>,
}

/// What the server says of one of its connections.
#[derive(Clone, Debug, Default)]
pub struct ClientState {
    pub blocked: bool,
    pub in_multi: bool,
    pub subscribed: bool,
    pub broadcast: bool,
    pub resp3: bool,
    /// The invalidations of another come here.
    pub is_redirected_to: bool,
}

impl Side {
    fn new(server: Server, port: u16, links: usize) -> Self {
        let control = server.conn();
        Self { _server: server, control, port, links: (0..links).map(|_| Link::open(port)).collect() }
    }

    pub fn reopen(&mut self, link: usize) {
        self.links[link] = Link::open(self.port);
    }

    pub fn drain(&mut self) -> usize {
        self.links.iter_mut().map(Link::drain).sum()
    }

    /// Writes while it reads: neither side of a connection waits for the other.
    pub fn send(&mut self, link: usize, mut piece: &[u8]) {
        let started = Instant::now();
        while !piece.is_empty() && !self.links[link].closed {
            match self.links[link].stream.write(piece) {
                Ok(n) => piece = &piece[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.drain();
                    std::thread::sleep(Duration::from_micros(100));
                    assert!(started.elapsed() < Duration::from_secs(20), "a connection takes no more bytes");
                }
                // Closed by a reset, and the error is told once: the reader sees an orderly end.
                Err(_) => {
                    self.links[link].reset = true;
                    break;
                }
            }
        }
        self.drain();
    }

    pub fn ask(&mut self, command: &Args) -> crate::harness::conn::Value {
        self.control.must(command)
    }

    /// Reads until the server has nothing more to do. The server is directly behind these sockets: what was
    /// sent lies with it already, and it answers a PING behind what it found in the same turn.
    pub fn settle(&mut self, sent: usize) {
        let (mut turns, mut quiet) = (sent / READ_PER_TURN + 1, 0);
        while turns > 0 || quiet < 2 {
            self.ask(&args!["PING"]);
            turns = turns.saturating_sub(1);
            quiet = if self.drain() == 0 { quiet + 1 } else { 0 };
        }
    }

    /// As the server lists them.
    pub fn clients(&mut self) -> String {
        text(&self.ask(&args!["CLIENT", "LIST"]))
    }

    /// For each connection of a server without anything in between.
    pub fn client_states(&mut self) -> Vec<ClientState> {
        let list = self.clients();
        let mut by_port = BTreeMap::new();
        let is_redirected_to = |id: &str| list.split([' ', '\n']).any(|f| f.strip_prefix("redir=") == Some(id));
        for line in list.lines() {
            let field = |name: &str| line.split(' ').find_map(|f| f.strip_prefix(name)).unwrap_or("");
            let flags = field("flags=");
            let subscribed = ["sub=", "psub=", "ssub="].iter().any(|f| !matches!(field(f), "" | "0"));
            let port: u16 = field("addr=").rsplit(':').next().and_then(|p| p.parse().ok()).unwrap_or(0);
            let state = ClientState {
                blocked: flags.contains('b'),
                in_multi: flags.contains('x'),
                subscribed,
                broadcast: flags.contains('B'),
                resp3: field("resp=") == "3",
                is_redirected_to: is_redirected_to(field("id=")),
            };
            by_port.insert(port, state);
        }
        self.links.iter().map(|l| by_port.get(&l.local_port).cloned().unwrap_or_default()).collect()
    }

    /// What has effects that no reply tells of.
    pub fn silent_state(&mut self) -> SilentState {
        let mut channels: Vec<String> = items(&self.ask(&args!["PUBSUB", "CHANNELS"])).iter().map(text).collect();
        channels.sort();
        SilentState {
            digest: text(&self.ask(&args!["DEBUG", "DIGEST"])),
            blocked_clients: self.control.info("clients", "blocked_clients"),
            patterns: int(&self.ask(&args!["PUBSUB", "NUMPAT"])),
            channels,
        }
    }
}

/// See [`Side::silent_state`].
#[derive(Debug, PartialEq, Eq)]
pub struct SilentState {
    digest: String,
    blocked_clients: String,
    patterns: i64,
    channels: Vec<String>,
}

/// Both, equally set up, on one clock that only the test moves.
pub struct Worlds {
    pub clock: &'static SharedClock,
    pub direct: Side,
    pub proxied: Side,
    /// Sessions share connections.
    pub shares: bool,
    redtape: Redtape,
    journal: Dir,
}

impl Worlds {
    /// The end: all groups of the journal.
    pub fn journal(mut self) -> Vec<Group> {
        self.redtape.wait_caught_up();
        assert_eq!(self.redtape.terminate(), Some(0));
        journal::cat(self.journal.path())
    }

    pub fn start(links: usize, sharing: &str, extra: &[&str], setup: impl Fn(&mut Conn)) -> Self {
        let clock = SharedClock::at(now_us());
        let mut options = vec![
            // Timers run by the turns of the event loop: often enough that none has to be waited for long.
            "--hz",
            "100",
            "--dynamic-hz",
            "no",
            "--activerehashing",
            "no",
            // What the compressor makes depends on what its memory held before.
            "--rdbcompression",
            "no",
            // The clock jumps: nobody is late because of that.
            "--repl-timeout",
            "1000000000",
            "--slowlog-log-slower-than",
            "-1",
        ];
        options.extend_from_slice(extra);
        let start = || {
            let server = Server::new(&options, Clock::Twin(clock));
            let mut conn = server.conn();
            // Only reading a key finds that its time is over: when the timer does is chance.
            conn.must(&args!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
            setup(&mut conn);
            server
        };
        let (direct, behind) = (start(), start());
        // How long a disk takes to sync is not what this is about.
        let journal = Dir::in_memory("journal");
        let redtape = Redtape::start(&behind.url(), journal.path(), super::flags(sharing));
        let mut control = behind.conn();
        // While a child writes the first copy, the server does not resize its tables.
        wait_for("the end of the first copy", Duration::from_secs(10), || {
            (control.info("persistence", "rdb_bgsave_in_progress") == "0").then_some(())
        });
        let (direct_port, proxy_port) = (direct.port, redtape.port);
        Self {
            clock,
            direct: Side::new(direct, direct_port, links),
            proxied: Side::new(behind, proxy_port, links),
            shares: sharing != "off",
            redtape,
            journal,
        }
    }

    /// Moves the clock of both, and waits until their timers have seen it.
    pub fn advance(&mut self, by: Duration) {
        self.clock.advance(by.as_micros() as i64);
        std::thread::sleep(Duration::from_millis(25));
        for side in [&mut self.direct, &mut self.proxied] {
            for _ in 0..3 {
                side.ask(&args!["PING"]);
            }
        }
    }
}

impl Drop for Worlds {
    fn drop(&mut self) {
        self.clock.remove();
    }
}
