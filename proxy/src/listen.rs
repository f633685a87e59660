//! Accepts clients on TCP, TLS and unix sockets, on one thread, and hands each to the worker with the fewest.

use std::fs::Permissions;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use redtape_wire::settings::{ListenAddr, SocketMode, Switch};

use crate::worker::{Arrival, ClientAddr, Shared, Stream, WorkerHandle};

/// `listen()` backlog.
const LISTEN_BACKLOG: i32 = 1024;
/// File descriptors reserved for the journal, shared connections and the link.
const FILES_KEPT: u64 = 512;
/// Pause after an error that is not the client's, usually a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Redis's error text.
const MAX_CLIENTS: &[u8] = b"-ERR max number of clients reached\r\n";

const WAKE: Token = Token(usize::MAX);

#[derive(Debug)]
enum Socket {
    Tcp(mio::net::TcpListener),
    /// The socket file is removed with it.
    Unix(mio::net::UnixListener, PathBuf),
}

/// Where clients are served.
#[derive(Debug, Clone, Default)]
pub struct ListenOptions {
    /// Without TLS.
    pub plain: Vec<ListenAddr>,
    /// With TLS.
    pub tls: Vec<SocketAddr>,
    /// Mode of unix sockets; `None` = by the umask.
    pub unix_socket_mode: Option<SocketMode>,
    /// Every TCP connection starts with a PROXY protocol header (version 2) that holds the client's address.
    pub proxy_protocol: Switch,
}

/// One bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    tls: bool,
    header: bool,
}

impl Listener {
    /// Binds every address; reports the one that failed.
    pub fn bind_all(options: &ListenOptions) -> Result<Vec<Self>, (ListenAddr, io::Error)> {
        let mut bound = Vec::new();
        for (addr, tls) in options
            .plain
            .iter()
            .map(|a| (a.clone(), false))
            .chain(options.tls.iter().map(|a| (ListenAddr::Tcp(*a), true)))
        {
            let socket = match &addr {
                ListenAddr::Tcp(tcp) => bind_tcp(*tcp).map(Socket::Tcp),
                ListenAddr::Unix(path) => {
                    let mode = options.unix_socket_mode.map(|m| m.0);
                    bind_unix(path, mode).map(|s| Socket::Unix(s, path.clone()))
                }
            };
            let socket = socket.map_err(|e| (addr.clone(), e))?;
            // Load balancers connect by TCP; clients of a unix socket are on this machine.
            let header = options.proxy_protocol == Switch::On && matches!(socket, Socket::Tcp(_));
            bound.push(Self { socket, tls, header });
        }
        Ok(bound)
    }

    /// The address with the port that was given.
    pub fn address(&self) -> io::Result<ListenAddr> {
        match &self.socket {
            Socket::Tcp(s) => s.local_addr().map(ListenAddr::Tcp),
            Socket::Unix(_, path) => Ok(ListenAddr::Unix(path.clone())),
        }
    }

    fn accept(&self) -> io::Result<Arrival> {
        let (stream, from) = match &self.socket {
            Socket::Tcp(s) => s.accept().map(|(stream, addr)| (Stream::Tcp(stream), ClientAddr::Addr(addr)))?,
            Socket::Unix(s, path) => {
                let (stream, _) = s.accept()?;
                (Stream::Unix(stream), ClientAddr::Unix(path.display().to_string()))
            }
        };
        Ok(Arrival { stream, from, tls: self.tls, header: self.header })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // The file may have been removed already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(addr: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// Replaces a socket file without a listener; leaves anything else.
fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<mio::net::UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
        && matches!(std::os::unix::net::UnixStream::connect(path), Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let listener = mio::net::UnixListener::bind(path)?;
    if let Some(mode) = mode {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(listener)
}

/// The thread that accepts.
#[derive(Debug)]
pub(crate) struct Acceptor {
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<WorkerHandle>>,
}

impl Acceptor {
    /// Accepts on all listeners and spreads over the workers.
    pub(crate) fn start(
        mut listeners: Vec<Listener>,
        workers: Vec<WorkerHandle>,
        shared: Arc<Shared>,
        keepalive: Option<Duration>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        for (n, listener) in listeners.iter_mut().enumerate() {
            match &mut listener.socket {
                Socket::Tcp(s) => poll.registry().register(s, Token(n), Interest::READABLE)?,
                Socket::Unix(s, _) => poll.registry().register(s, Token(n), Interest::READABLE)?,
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let room = room_for_clients();
        let wanted = shared.live.load().max_clients;
        if wanted > room {
            tracing::warn!(
                maxclients = wanted,
                room,
                "the limit on open files has room for fewer clients than maxclients; raise it (ulimit -n, LimitNOFILE=)"
            );
        }
        let parts = shared.parts.clone();
        let accepting = Accepting { poll, listeners, workers, shared, keepalive, stop: stop.clone(), room };
        let thread = parts.thread("accept", move || accepting.run())?;
        Ok(Self { waker, stop, thread })
    }

    /// Stops accepting, lets sessions finish their requests, and ends the workers.
    pub(crate) fn drain(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(e) = self.waker.wake() {
            tracing::error!(error = %e, "cannot stop accepting");
        }
        let Ok(workers) = self.thread.join() else {
            return tracing::error!("accepting ended with a panic");
        };
        workers.iter().for_each(WorkerHandle::begin_drain);
        workers.into_iter().for_each(WorkerHandle::join);
    }
}

struct Accepting {
    poll: Poll,
    listeners: Vec<Listener>,
    workers: Vec<WorkerHandle>,
    shared: Arc<Shared>,
    keepalive: Option<Duration>,
    stop: Arc<AtomicBool>,
    /// Clients for whom there are enough file descriptors.
    room: usize,
}

/// Number of clients that the limit on open files allows: each needs one descriptor for itself and one for the server.
fn room_for_clients() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files.saturating_sub(FILES_KEPT) / 2).unwrap_or(usize::MAX).max(1)
}

impl Accepting {
    fn run(mut self) -> Vec<WorkerHandle> {
        let mut events = Events::with_capacity(64);
        let mut again = false;
        while !self.stop.load(Ordering::Relaxed) {
            match self.poll.poll(&mut events, again.then_some(ACCEPT_PAUSE)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    tracing::error!(error = %e, "cannot wait for clients; no more are accepted");
                    break;
                }
            }
            again = false;
            for listener in &self.listeners {
                again |= !self.accept_all(listener);
            }
        }
        self.workers
    }

    /// False = no more at present.
    fn accept_all(&self, listener: &Listener) -> bool {
        loop {
            match listener.accept() {
                Ok(arrival) => self.hand_over(arrival),
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock => return true,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        // Existing clients are served.
                        tracing::warn!(error = %e, "cannot accept a client");
                        return false;
                    }
                },
            }
        }
    }

    fn hand_over(&self, mut arrival: Arrival) {
        if self.shared.clients.fetch_add(1, Ordering::Relaxed) >= self.shared.live.load().max_clients.min(self.room) {
            self.shared.clients.fetch_sub(1, Ordering::Relaxed);
            self.shared.metrics.error("max_clients");
            if !arrival.tls {
                // With unread input, the kernel would discard our answer.
                let _ = arrival.stream.read(&mut [0; 4096]);
                let _ = arrival.stream.write(MAX_CLIENTS);
            }
            return;
        }
        if let Stream::Tcp(stream) = &arrival.stream {
            let socket = socket2::SockRef::from(stream);
            // Without these options a client is served more slowly, or its loss is detected later.
            let _ = socket.set_tcp_nodelay(true);
            if let Some(time) = self.keepalive {
                let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(time));
            }
        }
        if let Some(worker) = self.workers.iter().min_by_key(|w| w.load()) {
            worker.take(arrival);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stale_socket_file_is_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("redtape.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a server that was killed leaves its file");
        let first = bind_unix(&path, Some(0o600)).expect("taken over");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let kind = |r: io::Result<_>| r.map(|_: mio::net::UnixListener| ()).map_err(|e| e.kind());
        assert_eq!(kind(bind_unix(&path, None)), Err(io::ErrorKind::AddrInUse), "it is being served");
        drop(Socket::Unix(first, path.clone()));
        assert!(!path.exists());
        std::fs::write(&path, "precious").expect("written");
        assert_eq!(kind(bind_unix(&path, None)), Err(io::ErrorKind::AddrInUse));
        assert_eq!(std::fs::read(&path).expect("there"), b"precious");
    }
}
