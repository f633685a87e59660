//! Accepts clients and spreads them over worker threads, each with a runtime of its own.
//!
//! A session stays on its worker; nothing on its path is shared but counters and the tee's queue.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use crate::session::{Shared, serve};
use crate::upstream::KEEPALIVE;

/// Clients that may wait for a worker to take them.
const HANDOVER_MAX: usize = 1024;
/// `listen()` backlog.
const LISTEN_BACKLOG: i32 = 1024;
/// Sessions that are still busy so long after a shutdown began are cut.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Binds a listening socket.
pub(crate) fn bind(addr: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

struct Worker {
    send: mpsc::Sender<(std::net::TcpStream, SocketAddr)>,
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// The running workers.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    drain: watch::Sender<bool>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts `count` workers.
    pub(crate) fn start(count: usize, shared: &Arc<Shared>) -> std::io::Result<Self> {
        let (drain, draining) = watch::channel(false);
        let workers =
            (0..count.max(1)).map(|n| start_worker(n, shared.clone(), draining.clone())).collect::<Result<_, _>>()?;
        Ok(Self { workers, drain })
    }

    /// Accepts clients until dropped.
    pub(crate) async fn accept(&self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, addr)) => self.hand_over(stream, addr).await,
                Err(e) => {
                    // Out of file descriptors, mostly: those who are here go on.
                    tracing::warn!(error = %e, "can't accept a client");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    async fn hand_over(&self, stream: TcpStream, addr: SocketAddr) {
        let Some(worker) = self.workers.iter().min_by_key(|w| w.load.load(Ordering::Relaxed)) else { return };
        if let Ok(stream) = stream.into_std() {
            worker.load.fetch_add(1, Ordering::Relaxed);
            // A worker ends only after the acceptor.
            let _ = worker.send.send((stream, addr)).await;
        }
    }

    /// Lets sessions finish what is under way, at most [`DRAIN_TIMEOUT`], and ends the workers.
    pub(crate) fn drain(self) {
        // Workers that have no session any more do not listen.
        let _ = self.drain.send(true);
        for worker in self.workers {
            drop(worker.send);
            if worker.thread.join().is_err() {
                tracing::error!("a worker ended with a panic");
            }
        }
    }
}

fn start_worker(n: usize, shared: Arc<Shared>, draining: watch::Receiver<bool>) -> std::io::Result<Worker> {
    let (send, mut receive) = mpsc::channel::<(std::net::TcpStream, SocketAddr)>(HANDOVER_MAX);
    let load = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let counted = load.clone();
    let thread = std::thread::Builder::new().name(format!("worker-{n}")).spawn(move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let mut sessions = tokio::task::JoinSet::new();
            while let Some((stream, addr)) = receive.recv().await {
                while sessions.try_join_next().is_some() {}
                let (shared, draining, load) = (shared.clone(), draining.clone(), counted.clone());
                sessions.spawn_local(async move {
                    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
                    // Without it a client that is gone is found out later: no reason to refuse it.
                    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                    if stream.set_nodelay(true).is_ok()
                        && let Ok(stream) = TcpStream::from_std(stream)
                    {
                        serve(stream, addr.to_string(), shared, draining).await;
                    }
                    load.fetch_sub(1, Ordering::Relaxed);
                });
            }
            let all = async { while sessions.join_next().await.is_some() {} };
            if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
                tracing::warn!("clients that were still busy are disconnected");
            }
        });
    })?;
    Ok(Worker { send, load, thread })
}
