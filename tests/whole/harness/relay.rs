//! A TCP relay that can cut, refuse and delay what runs through it.
//!
//! Knows two things of what it carries: whether a connection has sent `PSYNC` (or `SYNC`), so that the
//! replication link can be cut while the sessions go on; and whether it has the name of redtape's shared connections.

use super::wait_for;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub struct Relay {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<u16>,
    links: Mutex<Vec<Arc<Link>>>,
    delay_ms: AtomicU64,
    refuse: AtomicBool,
    over: AtomicBool,
}

struct Link {
    client: TcpStream,
    server: TcpStream,
    replication: AtomicBool,
    shared: AtomicBool,
    deaf: AtomicBool,
    closed: AtomicBool,
}

impl Link {
    fn cut(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Relay {
    /// Listens on a free port and carries everything to `target` on loopback.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, super::free_port()))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, super::free_port())))
            .expect("a port for the relay");
        let port = listener.local_addr().expect("the relay's address").port();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            links: Mutex::default(),
            delay_ms: AtomicU64::new(0),
            refuse: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &for_thread));
        Self { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where new connections go from now on.
    pub fn redirect(&self, target: u16) {
        *self.shared.target.lock().expect("no panic in the relay") = target;
    }

    /// Each chunk waits this long before it is passed on, both ways.
    pub fn delay(&self, by: Duration) {
        self.shared.delay_ms.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// While true, new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Cuts the replication links; returns how many there were.
    pub fn cut_replication(&self) -> usize {
        self.cut(|l| l.replication.load(Ordering::SeqCst))
    }

    /// Waits for a replication link to be there, then cuts it.
    pub fn cut_replication_when_there(&self) {
        wait_for("a replication link to cut", Duration::from_secs(20), || (self.cut_replication() > 0).then_some(()));
    }

    /// How many connections there are that sessions share.
    pub fn shared(&self) -> usize {
        let links = self.shared.links.lock().expect("no panic in the relay");
        links.iter().filter(|l| l.shared.load(Ordering::SeqCst) && !l.closed.load(Ordering::SeqCst)).count()
    }

    /// From here on the server hears nothing of the connections that sessions share now; returns how many there are.
    pub fn deafen_shared(&self) -> usize {
        let links = self.shared.links.lock().expect("no panic in the relay");
        let is_shared = |l: &&Arc<Link>| l.shared.load(Ordering::SeqCst) && !l.closed.load(Ordering::SeqCst);
        links.iter().filter(is_shared).map(|l| l.deaf.store(true, Ordering::SeqCst)).count()
    }

    pub fn cut_all(&self) -> usize {
        self.cut(|_| true)
    }

    fn cut(&self, which: impl Fn(&Link) -> bool) -> usize {
        let mut links = self.shared.links.lock().expect("no panic in the relay");
        links.retain(|l| !l.closed.load(Ordering::SeqCst));
        let chosen: Vec<_> = links.iter().filter(|l| which(l)).collect();
        for link in &chosen {
            link.cut();
        }
        chosen.len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.cut_all();
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        if shared.refuse.load(Ordering::SeqCst) {
            continue;
        }
        let target = *shared.target.lock().expect("no panic in the relay");
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
        let (Ok(()), Ok(())) = (client.set_nodelay(true), server.set_nodelay(true)) else { continue };
        let link = Arc::new(Link {
            client,
            server,
            replication: false.into(),
            shared: false.into(),
            deaf: false.into(),
            closed: false.into(),
        });
        shared.links.lock().expect("no panic in the relay").push(Arc::clone(&link));
        for up in [true, false] {
            let (link, shared) = (Arc::clone(&link), Arc::clone(shared));
            std::thread::spawn(move || {
                let _ = carry(&link, &shared, up);
                link.cut();
            });
        }
    }
}

fn carry(link: &Link, shared: &Shared, up: bool) -> std::io::Result<()> {
    let (mut from, mut to) = if up { (&link.client, &link.server) } else { (&link.server, &link.client) };
    let mut buffer = vec![0; 64 * 1024];
    // The handshake is short: the start of what a client sends tells what the connection is for.
    let mut start = Vec::new();
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        if up && start.len() < 2048 {
            start.extend_from_slice(&buffer[..n.min(2048)]);
            start.make_ascii_uppercase();
            if start.windows(6).any(|w| w == b"PSYNC\r" || w == b"\nSYNC\r") {
                link.replication.store(true, Ordering::SeqCst);
            }
            if start.windows(12).any(|w| w == b"REDTAPE-LANE") {
                link.shared.store(true, Ordering::SeqCst);
            }
        }
        if up && link.deaf.load(Ordering::SeqCst) {
            continue;
        }
        let delay = shared.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        to.write_all(&buffer[..n])?;
    }
}
