//! How to reach a server: its URL, and TLS where that says `rediss://`.
//!
//! All connections to servers start here, so that there is one way through TLS: the replication link and
//! the probes take [`Connector::connect`]; a restore [`Connector::connect_blocking`]; a loop that drives rustls by hand
//! [`Connector::tls`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redtape_wire::url::{Endpoint, RedisUrl};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::blocking::{BlockingStream, CONNECT_TIMEOUT, Socket};
use crate::tls::{ClientTls, Explained, OptionNames, TlsConnector, TlsError, TlsFailure};

/// A peer that does not acknowledge sent bytes for so long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// What a name server has answered holds for so long: repeated attempts to connect do not ask it each time.
const NAME_HOLDS: Duration = Duration::from_secs(2);
/// Idle connections are probed after this time (what Redis has as the default of `tcp-keepalive`).
const KEEPALIVE: Duration = Duration::from_mins(5);

/// Bytes both ways, whatever carries them.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// How to reach one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connector {
    /// Where, and as whom.
    pub url: RedisUrl,
    tls: Option<Tls>,
    /// What became of the last look-up of the name.
    found: Arc<Mutex<Option<(Instant, Found)>>>,
}

/// The addresses of a name, or why it has none.
type Found = Result<Vec<SocketAddr>, String>;

#[derive(Debug, Clone)]
struct Tls {
    handle: Arc<TlsConnector>,
    name: ServerName<'static>,
    options: OptionNames,
}

impl Connector {
    /// Reads the files of `tls` if the URL needs them.
    pub fn new(url: RedisUrl, tls: &ClientTls) -> Result<Self, TlsError> {
        let tls = match &url.endpoint {
            Endpoint::Tcp { host, .. } if url.tls => {
                let name = tls.server_name(host)?;
                Some(Tls { handle: Arc::new(TlsConnector::new(tls.clone())?), name, options: tls.names })
            }
            _ => None,
        };
        Ok(Self { url, tls, found: Arc::default() })
    }

    /// `host:port`, or the socket's path.
    pub fn address(&self) -> String {
        self.url.address()
    }

    /// For a connection that is driven by hand: what `rustls::ClientConnection::new` takes. `None` = no TLS.
    pub fn tls(&self) -> Option<(Arc<rustls::ClientConfig>, ServerName<'static>)> {
        self.tls.as_ref().map(|tls| (tls.handle.current(), tls.name.clone()))
    }

    /// The TLS configuration, to be reloaded.
    pub fn tls_handle(&self) -> Option<&Arc<TlsConnector>> {
        self.tls.as_ref().map(|tls| &tls.handle)
    }

    /// Opens a connection whose reads and writes block, TLS handshake included. Each step takes [`CONNECT_TIMEOUT`] at most.
    pub fn connect_blocking(&self) -> io::Result<BlockingStream> {
        let socket = match &self.url.endpoint {
            Endpoint::Unix(path) => Socket::unix(path, CONNECT_TIMEOUT)?,
            Endpoint::Tcp { host, port } => Socket::tcp(host, *port, CONNECT_TIMEOUT)?,
        };
        match &self.tls {
            None => BlockingStream::plain(socket, CONNECT_TIMEOUT),
            Some(tls) => {
                BlockingStream::tls(socket, tls.handle.current(), tls.name.clone(), tls.options, CONNECT_TIMEOUT)
            }
        }
    }

    /// Opens a connection, TLS handshake included.
    pub async fn connect(&self) -> io::Result<Box<dyn Stream + Send>> {
        let (host, port) = match &self.url.endpoint {
            Endpoint::Unix(path) => return Ok(Box::new(in_time(UnixStream::connect(path)).await?)),
            Endpoint::Tcp { host, port } => (host.as_str(), *port),
        };
        let stream = in_time(self.connect_tcp(host, port)).await?;
        configure_tcp(&stream)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let handshake = tokio_rustls::TlsConnector::from(tls.handle.current()).connect(tls.name.clone(), stream);
        let handshake = async { handshake.await.map_err(TlsFailure::in_handshake) };
        match in_time(handshake).await {
            Err(e) if e.kind() == io::ErrorKind::TimedOut => Err(TlsFailure::no_handshake(&e)),
            result => Ok(Box::new(Explained(result?))),
        }
    }
}

impl Connector {
    async fn connect_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let found = if let Some(found) = self.found_lately() {
            found
        } else {
            let found = tokio::net::lookup_host((host, port)).await;
            let found = found.map(Iterator::collect).map_err(|e| e.to_string());
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), found.clone()));
            found
        };
        TcpStream::connect(&found.map_err(io::Error::other)?[..]).await
    }

    fn found_lately(&self) -> Option<Found> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().filter(|(at, _)| at.elapsed() < NAME_HOLDS).map(|(_, found)| found.clone())
    }
}

/// What a connection to a server needs of the kernel.
pub fn configure_tcp<S: AsFd>(stream: &S) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(PEER_TIMEOUT))?;
    socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))
}

async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))
    })?
}
