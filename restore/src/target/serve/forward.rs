//! Passes the bytes of clients to the scratch server, which listens on a socket in its folder only, and back.
//!
//! The address is taken before anything else is done, so that one that is in use is known at once; clients are accepted when the data is
//! there. What is under way is bounded: clients by [`CLIENTS_MAX`], bytes of one by two buffers of [`BUFFER_BYTES`].

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_keepalive;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::RestoreError;

/// Clients at one time.
pub const CLIENTS_MAX: usize = 1000;
/// What a client is told beyond that: the words of servers.
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";
const BUFFER_BYTES: usize = 32 << 10;
/// Threads that pass bytes on.
const THREADS: usize = 2;
/// Until the next client is looked for where one could not be accepted: no more files may be open, say.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Takes the address.
pub(super) fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr), RestoreError> {
    let failed = |source| RestoreError::Listen { address: at.to_string(), source };
    let listener = TcpListener::bind(at).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    // Accepted connections have it from the listener: a client whose machine is gone does not hold its place.
    set_socket_keepalive(&listener, true).map_err(|e| failed(e.into()))?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Accepts clients until it is dropped, which closes their connections.
#[derive(Debug)]
pub(super) struct Forwarder(Option<Runtime>);

impl Forwarder {
    pub(super) fn start(listener: TcpListener, socket: &Path) -> Result<Self, RestoreError> {
        let failed = |source| RestoreError::Listen { address: "the address of clients".to_owned(), source };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(THREADS).thread_name("serve").enable_all().build().map_err(failed)?;
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        drop(entered);
        let (socket, places) = (Arc::new(socket.to_owned()), Arc::new(Semaphore::new(CLIENTS_MAX)));
        runtime.spawn(accept(listener, socket, places));
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, socket: Arc<PathBuf>, places: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => drop(tokio::spawn(pass(client, Arc::clone(&socket), place))),
                Err(_) => drop(tokio::spawn(refuse(client))),
            },
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

/// One client, until either side ends. Errors are an end like any other: both sides see it.
async fn pass(mut client: TcpStream, socket: Arc<PathBuf>, _place: OwnedSemaphorePermit) {
    let Ok(mut server) = UnixStream::connect(&*socket).await else { return };
    // Otherwise replies wait for more of them; without it they come a little later.
    let _ = client.set_nodelay(true);
    let _ = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER_BYTES, BUFFER_BYTES).await;
}

async fn refuse(mut client: TcpStream) {
    let _ = client.write_all(TOO_MANY).await;
}
