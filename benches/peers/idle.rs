//! Many clients that do nothing: how fast they get in, and how much memory each holds.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use socket2::{Domain, Socket, Type};

use crate::cpu;
use crate::load::histogram;
use crate::peers::{Binary, Name, Peer};
use crate::process::{answers, local};
use crate::rounds::{Field, Plan};

/// Clients from one loopback address: well below the kernel's range of ports.
const FROM_ONE_ADDRESS: usize = 4_000;
/// Connections that are being made at once.
const AT_ONCE: usize = 128;

/// What one peer did with its crowd.
#[derive(Serialize)]
pub(crate) struct Crowd {
    pub(crate) peer: Name,
    pub(crate) clients: usize,
    /// Connections accepted, and their first PING answered, each second; one for each round.
    pub(crate) per_second: Vec<f64>,
    /// From connect to PONG, milliseconds; one for each round.
    pub(crate) p99_ms: Vec<f64>,
    /// Memory for each client once it is connected, and once it has sent one command.
    pub(crate) connected: Option<Memory>,
    pub(crate) used: Option<Memory>,
    pub(crate) failed: Option<String>,
}

/// Bytes for each client (PSS; what the kernel holds for the sockets is not in it).
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Memory {
    pub(crate) server: f64,
    pub(crate) proxy: f64,
}

/// As many files as this process may have, and its children with it.
pub(crate) fn raise_file_limit() -> u64 {
    const WANTED: u64 = 200_000;
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(WANTED);
    // Only root may raise the hard one.
    if hard >= WANTED || setrlimit(Resource::Nofile, Rlimit { current: Some(WANTED), maximum: Some(WANTED) }).is_err() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(WANTED)
}

/// A proxy may need two files for each client.
pub(crate) fn clients_within(wanted: usize, files: u64) -> usize {
    wanted.min((files.saturating_sub(200) / 2) as usize)
}

pub(crate) fn measure(names: &[Name], clients: usize, plan: &Plan, binary: &Binary, dir: &Path) -> Vec<Crowd> {
    let mut field = Field::start(names, binary, false, dir);
    let crowd = |&peer: &Name| Crowd {
        peer,
        clients,
        per_second: Vec::new(),
        p99_ms: Vec::new(),
        connected: None,
        used: None,
        failed: None,
    };
    let mut crowds: Vec<Crowd> = names.iter().map(crowd).collect();
    // Memory first: no process gives back all that it once had.
    field.each(0, |peer| {
        let (connected, used) = memory(peer, clients)?;
        for crowd in crowds.iter_mut().filter(|c| c.peer == peer.name) {
            (crowd.connected, crowd.used) = (Some(connected), Some(used));
        }
        Ok(())
    });
    for round in 0..plan.rounds {
        field.each(round, |peer| {
            let (per_second, p99_ms) = arrive(peer, clients)?;
            cpu::wait_quiet(&peer.pids(), Duration::from_secs(20))?;
            for crowd in crowds.iter_mut().filter(|c| c.peer == peer.name) {
                crowd.per_second.push(per_second);
                crowd.p99_ms.push(p99_ms);
            }
            Ok(())
        });
    }
    for crowd in &mut crowds {
        crowd.failed = field.failure(crowd.peer);
    }
    crowds
}

/// A socket of the `n`th client; connecting has begun.
fn begin(n: usize, to: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("one more socket")?;
    let from = Ipv4Addr::new(127, 0, 1, 1 + (n / FROM_ONE_ADDRESS) as u8);
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    // Closing leaves no port waiting: the next round needs it again.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Err(e).with_context(|| format!("connect client {n}"))
        }
        _ => Ok(socket),
    }
}

fn memory(peer: &Peer, clients: usize) -> Result<(Memory, Memory)> {
    let to = local(peer.port);
    let bytes = || -> Result<[u64; 2]> {
        let proxy = peer.proxy.as_ref().map_or(Ok(0), |p| cpu::memory_bytes(p.pid()))?;
        Ok([cpu::memory_bytes(peer.server.pid())?, proxy])
    };
    let settled = || -> Result<[u64; 2]> {
        cpu::wait_quiet(&peer.pids(), Duration::from_secs(20))?;
        // Redis gives back a client's first buffers after some seconds.
        std::thread::sleep(Duration::from_secs(6));
        bytes()
    };
    let before = bytes()?;
    let each = |after: [u64; 2]| Memory {
        server: (after[0] as f64 - before[0] as f64) / clients as f64,
        proxy: (after[1] as f64 - before[1] as f64) / clients as f64,
    };
    let mut streams: Vec<TcpStream> = Vec::with_capacity(clients);
    for n in 0..clients {
        streams.push(begin(n, to)?.into());
        // Who comes later is answered later: now all before have been let in.
        if n % AT_ONCE == AT_ONCE - 1 || n == clients - 1 {
            ensure!(answers(to), "no answer after {n} clients");
        }
    }
    let connected = each(settled()?);
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).with_context(|| format!("PONG for client {n}"))?;
        ensure!(&reply == b"+PONG\r\n", "client {n} got {}", reply.escape_ascii());
    }
    let used = each(settled()?);
    drop(streams);
    cpu::wait_quiet(&peer.pids(), Duration::from_secs(20))?;
    Ok((connected, used))
}

/// All clients connect and ping, and stay; gives how many did in a second, and the p99 of their waits in ms.
fn arrive(peer: &Peer, clients: usize) -> Result<(f64, f64)> {
    let to = local(peer.port);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(AT_ONCE);
    // Connection, when it was begun, whether PING was sent, whether PONG came.
    let mut all: Vec<(mio::net::TcpStream, Instant, bool, bool)> = Vec::with_capacity(clients);
    let (mut waits, mut done) = (histogram(), 0);
    let started = Instant::now();
    while done < clients {
        while all.len() < clients && all.len() - done < AT_ONCE {
            let begun = Instant::now();
            let mut stream = mio::net::TcpStream::from_std(begin(all.len(), to)?.into());
            poll.registry().register(&mut stream, Token(all.len()), Interest::READABLE | Interest::WRITABLE)?;
            all.push((stream, begun, false, false));
        }
        poll.poll(&mut events, Some(Duration::from_secs(10)))?;
        if events.is_empty() {
            bail!("{done} of {clients} clients were served, then nobody for 10 s");
        }
        for event in &events {
            let (stream, begun, asked, answered) = &mut all[event.token().0];
            if !*asked && event.is_writable() {
                if let Some(e) = stream.take_error()? {
                    return Err(e).with_context(|| format!("connect client {}", event.token().0));
                }
                stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
                *asked = true;
            }
            if *asked && !*answered && event.is_readable() {
                let mut reply = [0; 7];
                match stream.read(&mut reply) {
                    Ok(7) if &reply == b"+PONG\r\n" => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                    other => bail!("client {} got {other:?}: {}", event.token().0, reply.escape_ascii()),
                }
                *answered = true;
                done += 1;
                waits.saturating_record(begun.elapsed().as_nanos() as u64);
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    drop(all);
    Ok((clients as f64 / seconds, waits.value_at_quantile(0.99) as f64 / 1e6))
}
