//! Waits for the target's connection, and rejects others.
//!
//! The listener is bound to the address from which the target was reached, on a port chosen by the system, for one
//! restore. Connections from other addresses, and those without the target's handshake, are closed without an answer.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use redtape_net::route;
use redtape_wire::resp::{Args, Parsed, parse_request};
use redtape_wire::url::{Endpoint, RedisUrl};

use super::handshake::{Answer, Expected, Handshake};
use crate::error::RestoreError;
use crate::interrupt::Interrupt;

/// How long the target may take to connect and greet.
pub(super) const ACCEPT_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at the listener.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest silence inside a greeting.
const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// Longest greeting of a real replica, by far.
const GREETING_BYTES: usize = 16 * 1024;

/// Waits for one replica.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    peer: IpAddr,
}

/// A replica that has asked for its full sync.
#[derive(Debug)]
pub(super) struct ReplicaConnection {
    /// The link.
    pub(super) socket: TcpStream,
    /// What it sent behind `PSYNC`.
    pub(super) pending: Vec<u8>,
}

impl Listener {
    /// Opens a port on the address from which this server is reached.
    pub(super) fn open(url: &RedisUrl) -> Result<Self, RestoreError> {
        let (local, peer) = match &url.endpoint {
            Endpoint::Unix(_) => (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Endpoint::Tcp { host, port } => route(host, *port)
                .map_err(|e| RestoreError::Unreachable { address: url.address(), cause: e.to_string() })?,
        };
        let failed = |e: std::io::Error| RestoreError::Link(format!("cannot listen on {local} for the target: {e}"));
        let socket = TcpListener::bind((local, 0)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, local, peer: peer.to_canonical() })
    }

    /// The address for the target's `REPLICAOF`.
    pub(super) fn address(&self) -> SocketAddr {
        self.local
    }

    /// Waits for the expected replica.
    pub(super) fn wait(&self, expected: &Expected, interrupt: &Interrupt) -> Result<ReplicaConnection, RestoreError> {
        let start = Instant::now();
        let mut turned_away: Vec<String> = Vec::new();
        while start.elapsed() < ACCEPT_LIMIT {
            interrupt.check()?;
            let (socket, from) = match self.socket.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    std::thread::sleep(LOOK_EVERY);
                    continue;
                }
                Err(e) => {
                    turned_away.push(format!("accept failed: {e}"));
                    std::thread::sleep(LOOK_EVERY);
                    continue;
                }
            };
            if from.ip().to_canonical() != self.peer {
                turned_away.push(format!("{} (the target is {})", from.ip(), self.peer));
                continue;
            }
            match greet(socket, expected) {
                Ok(connection) => return Ok(connection),
                Err(why) => turned_away.push(format!("{from}: {why}")),
            }
        }
        turned_away.dedup();
        turned_away.truncate(3);
        let strangers = if turned_away.is_empty() {
            "nothing connected: a firewall, NAT or container network may be between".to_owned()
        } else {
            format!("turned away: {}", turned_away.join("; "))
        };
        Err(RestoreError::Link(format!(
            "the target did not connect back to {} within {} s ({strangers}); use --via scratch, which needs no connection from the target",
            self.local,
            ACCEPT_LIMIT.as_secs()
        )))
    }
}

/// Goes through the handshake up to `PSYNC`.
fn greet(mut socket: TcpStream, expected: &Expected) -> Result<ReplicaConnection, String> {
    let io = |e: std::io::Error| e.to_string();
    socket.set_nonblocking(false).map_err(io)?;
    socket.set_nodelay(true).map_err(io)?;
    socket.set_read_timeout(Some(GREETING_LIMIT)).map_err(io)?;
    let mut handshake = Handshake::new(expected);
    let mut buffer = Vec::new();
    let mut args = Args::new();
    let mut chunk = [0u8; 4096];
    loop {
        match parse_request(&buffer, &mut args).map_err(|e| e.to_string())? {
            Parsed::Whole { len } => {
                let words: Vec<&[u8]> = args.iter().map(|(a, b)| &buffer[*a..*b]).collect();
                let answer = handshake.answer(&words);
                buffer.drain(..len);
                match answer {
                    Answer::Say(text) => socket.write_all(text.as_bytes()).map_err(io)?,
                    Answer::FullSync => return Ok(ReplicaConnection { socket, pending: buffer }),
                    Answer::Stranger(why) => return Err(why),
                }
                continue;
            }
            Parsed::Inline { len, args: Some(words) } => {
                if !words.is_empty() {
                    return Err("not a replica".to_owned());
                }
                buffer.drain(..len);
                continue;
            }
            Parsed::Inline { .. } => return Err("not a replica".to_owned()),
            Parsed::Partial(_) if buffer.len() > GREETING_BYTES => return Err("not a replica".to_owned()),
            Parsed::Partial(_) => {}
        }
        match socket.read(&mut chunk).map_err(io)? {
            0 => return Err("closed the connection".to_owned()),
            n => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_closed_and_the_replica_gets_in() {
        let target = TcpListener::bind("127.0.0.1:0").expect("port");
        let port = target.local_addr().expect("address").port();
        let url = format!("redis://127.0.0.1:{port}").parse().expect("URL");
        let listener = Listener::open(&url).expect("listener");
        let address = listener.address();
        assert!(address.ip().is_loopback());
        let visitors = std::thread::spawn(move || {
            for greeting in
                ["GET / HTTP/1.1\r\n\r\n", "*1\r\n$4\r\nKEYS\r\n", "*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n"]
            {
                let mut socket = TcpStream::connect(address).expect("connect");
                socket.write_all(greeting.as_bytes()).expect("write");
                let mut answer = Vec::new();
                // Closed with or without a reset: nothing came.
                let _ = socket.read_to_end(&mut answer);
                assert!(answer.is_empty());
            }
            let mut replica = TcpStream::connect(address).expect("connect");
            replica
                .write_all(b"*3\r\n$8\r\nREPLCONF\r\n$14\r\nlistening-port\r\n$4\r\n6380\r\n*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n\n")
                .expect("write");
            let mut answer = [0; 5];
            replica.read_exact(&mut answer).expect("answer");
            assert_eq!(&answer, b"+OK\r\n");
        });
        let connection =
            listener.wait(&Expected { port: Some(6380), password: None }, &Interrupt::default()).expect("connection");
        assert!(connection.pending.len() <= 1);
        visitors.join().expect("visitors");
    }
}
