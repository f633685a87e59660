//! The load generator: one thread, epoll, a closed loop. Each client writes a pipeline of requests, waits for
//! all replies, checks them, and writes the next.
//!
//! `redis-benchmark` does the same, but knows no p99.9 and does not look at what it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConnection;

use crate::cells::Cell;
use crate::requests::{Batch, Random, Requests};

/// Nobody may be silent for longer.
const SILENCE: Duration = Duration::from_secs(20);

/// What was seen in one stretch of time.
pub(crate) struct Measured {
    pub(crate) replies: u64,
    pub(crate) seconds: f64,
    /// Nanoseconds from the writing of a pipeline to the reading of a reply.
    pub(crate) latency: Histogram<u32>,
}

pub(crate) fn histogram() -> Histogram<u32> {
    Histogram::new_with_bounds(100, 120_000_000_000, 3).expect("bounds that fit")
}

struct Client {
    stream: mio::net::TcpStream,
    tls: Option<Box<ClientConnection>>,
    batch: Batch,
    /// Bytes of `batch.out` that were written (or, with TLS, all of them and this is its length).
    sent: usize,
    since: Instant,
    idle: bool,
}

/// Clients connected to one peer.
pub(crate) struct Load {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    requests: Requests,
    random: Random,
    buffer: Vec<u8>,
}

impl Load {
    /// Connects all clients, their TLS handshakes included; nothing is asked yet.
    pub(crate) fn connect(cell: &Cell, addr: SocketAddr, tls: Option<&Arc<rustls::ClientConfig>>) -> Result<Self> {
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(cell.clients);
        for n in 0..cell.clients {
            let mut stream = TcpStream::connect(addr).with_context(|| format!("connect client {n} to {addr}"))?;
            stream.set_nodelay(true)?;
            let tls = tls.map(|config| handshake(config, &mut stream)).transpose()?.map(Box::new);
            stream.set_nonblocking(true)?;
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(n), Interest::READABLE | Interest::WRITABLE)?;
            let batch = Batch::new(cell.pipeline);
            clients.push(Client { stream, tls, batch, sent: 0, since: Instant::now(), idle: true });
        }
        let (requests, random) = (Requests::of(cell), Random(0xdead_beef_cafe_f00d));
        Ok(Self { poll, events: Events::with_capacity(1024), clients, requests, random, buffer: vec![0; 256 << 10] })
    }

    /// Asks for as long as this; then requests are still under way.
    pub(crate) fn run_for(&mut self, time: Duration) -> Result<Measured> {
        for client in self.clients.iter_mut().filter(|c| c.idle) {
            client.start(&self.requests, &mut self.random, Instant::now())?;
        }
        self.turn(Some(time))
    }

    /// Waits for the replies that are still due, and asks no more.
    pub(crate) fn drain(&mut self) -> Result<Measured> {
        self.turn(None)
    }

    /// With a time: until it is over. Without: until nothing is under way.
    fn turn(&mut self, time: Option<Duration>) -> Result<Measured> {
        let started = Instant::now();
        let mut measured = Measured { replies: 0, seconds: 0.0, latency: histogram() };
        let (mut last_reply, mut seen) = (started, 0);
        loop {
            if time.is_some_and(|t| started.elapsed() >= t) || time.is_none() && self.clients.iter().all(|c| c.idle) {
                break;
            }
            match self.poll.poll(&mut self.events, Some(Duration::from_millis(20))) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &self.events {
                let client = &mut self.clients[event.token().0];
                client.flush()?;
                if event.is_readable() {
                    let more = time.is_some().then_some(&mut self.random);
                    client.read(&self.requests, more, &mut self.buffer, &mut measured)?;
                }
            }
            if measured.replies > seen {
                (seen, last_reply) = (measured.replies, Instant::now());
            } else if last_reply.elapsed() > SILENCE {
                bail!("no reply for {} s", SILENCE.as_secs());
            }
        }
        measured.seconds = started.elapsed().as_secs_f64();
        Ok(measured)
    }
}

impl Client {
    fn start(&mut self, requests: &Requests, random: &mut Random, now: Instant) -> Result<()> {
        self.batch.refill(requests, random);
        (self.sent, self.since, self.idle) = (0, now, false);
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&self.batch.out)?;
            self.sent = self.batch.out.len();
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(e.into()),
                    Ok(_) => {}
                }
            }
            return Ok(());
        }
        while !self.idle && self.sent < self.batch.out.len() {
            match self.stream.write(&self.batch.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Reads what is there; goes on to the next pipeline at once if `more` is wanted.
    fn read(
        &mut self,
        requests: &Requests,
        mut more: Option<&mut Random>,
        buffer: &mut [u8],
        measured: &mut Measured,
    ) -> Result<()> {
        loop {
            let (n, last) = match self.receive(buffer)? {
                Some(0) => bail!("the connection was closed"),
                Some(n) => (n, self.tls.is_none() && n < buffer.len()),
                None => return Ok(()),
            };
            let now = Instant::now();
            let replies = self.batch.take(&buffer[..n], requests)?;
            if replies > 0 {
                measured.replies += replies as u64;
                let ns = now.duration_since(self.since).as_nanos() as u64;
                measured.latency.saturating_record_n(ns, replies as u32);
            }
            if !self.idle && self.batch.done() {
                self.idle = true;
                if let Some(random) = more.as_deref_mut() {
                    self.start(requests, random, now)?;
                }
            }
            // A short read has emptied the socket; what comes later is a new event.
            if last {
                return Ok(());
            }
        }
    }

    /// `None` when nothing is there.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return unless_blocked(self.stream.read(buffer)) };
        loop {
            if let Some(n) = unless_blocked(tls.reader().read(buffer))? {
                return Ok(Some(n));
            }
            match unless_blocked(tls.read_tls(&mut self.stream))? {
                None => return Ok(None),
                Some(0) => return Ok(Some(0)),
                Some(_) => {
                    tls.process_new_packets()?;
                }
            }
        }
    }
}

fn unless_blocked(result: std::io::Result<usize>) -> Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn handshake(config: &Arc<rustls::ClientConfig>, stream: &mut TcpStream) -> Result<ClientConnection> {
    let mut tls = ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?;
    tls.set_buffer_limit(None);
    while tls.is_handshaking() {
        tls.complete_io(stream).context("TLS handshake")?;
    }
    Ok(tls)
}
