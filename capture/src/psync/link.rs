//! The replication link: a replica's handshake, then the byte stream.
//!
//! Command order of a real replica (Redis 7.0 `replication.c`): `PING`, `AUTH`, `REPLCONF listening-port`, `REPLCONF
//! capa eof capa psync2`, (Valkey 8 and later: `REPLCONF version`), `PSYNC`; each reply is read before the next
//! command. redtape omits the `PING`: no server requires it, and a user with only `+psync +replconf` would get an entry
//! in the server's ACL LOG.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use redtape_journal::ReplOffset;
use redtape_net::{Connector, Stream};
use redtape_wire::psync::{PsyncReply, parse_psync_reply};
use redtape_wire::resp::encode_command;
use redtape_wire::url::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;

/// Time limit of a handshake step.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// `+FULLRESYNC` may take as long as the server's diskless delay and a fork; keep-alives arrive in between.
const PSYNC_TIMEOUT: Duration = Duration::from_mins(2);
/// Longest reply line.
const LINE_MAX: usize = 4096;
/// Version announced to Valkey, so that it sends hash-field TTLs instead of refusing the replica.
const ANNOUNCED_VERSION: &str = "9.1.0";
/// Bytes read at once.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// A read of fewer bytes has emptied the socket, since the buffer always has room for more.
const SHORT_READ: usize = READ_BYTES / 8;
/// Consecutive reads that may fail to empty the link.
const READS_MAX: usize = 8;

type Conn = Box<dyn Stream + Send>;

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection.
    #[error("no connection to {address}: {source}")]
    Unreachable {
        /// Of the server.
        address: String,
        /// What happened.
        source: io::Error,
    },
    /// The connection has ended.
    #[error("the replication link to {address}: {source}")]
    Io {
        /// Of the server.
        address: String,
        /// What happened.
        source: io::Error,
    },
    /// The server does not accept redtape as a replica.
    #[error("{address} refuses {command}: {reply}")]
    Refused {
        /// Of the server.
        address: String,
        /// Which command.
        command: &'static str,
        /// Its answer.
        reply: String,
    },
    /// The server cannot serve a replica at present.
    #[error("{address} cannot serve a replica now: {reply}")]
    Later {
        /// Of the server.
        address: String,
        /// Its answer.
        reply: String,
    },
}

/// A link on which the server has answered `PSYNC`.
pub struct Link {
    address: String,
    read: ReadHalf<Conn>,
    write: WriteHalf<Conn>,
    /// Over TLS a read ends with a TLS record, so a short read does not prove that the socket is empty.
    tls: bool,
    /// Received and not consumed yet.
    pub(crate) buf: BytesMut,
}

impl Link {
    /// Connects without sending anything.
    pub(crate) async fn connect(to: &Connector) -> Result<Self, LinkError> {
        let address = to.address();
        let stream =
            to.connect().await.map_err(|source| LinkError::Unreachable { address: address.clone(), source })?;
        let (read, write) = tokio::io::split(stream);
        let tls = to.tls_handle().is_some();
        Ok(Self { address, read, write, tls, buf: BytesMut::with_capacity(READ_BYTES) })
    }

    /// Asks to continue behind `from`, or for a full copy.
    pub(crate) async fn open(
        mut self,
        to: &Connector,
        from: Option<(&str, ReplOffset)>,
    ) -> Result<(Self, PsyncReply), LinkError> {
        self.introduce(to).await?;
        let address = self.address.clone();
        let (replid, offset) =
            from.map_or(("?".to_owned(), "-1".to_owned()), |(id, at)| (id.to_owned(), (at.0 + 1).to_string()));
        self.send(&["PSYNC", &replid, &offset]).await?;
        let timed_out = LinkError::Io { address: address.clone(), source: io::ErrorKind::TimedOut.into() };
        let line = timeout(PSYNC_TIMEOUT, self.line()).await.map_err(|_| timed_out)??;
        match parse_psync_reply(&line) {
            PsyncReply::Later(reply) => Err(LinkError::Later { address, reply }),
            PsyncReply::Refused(reply) => Err(LinkError::Refused { address, command: "PSYNC", reply }),
            reply => Ok((self, reply)),
        }
    }

    /// Performs the handshake up to `PSYNC`, to learn whether the server accepts a replica.
    pub async fn check(to: &Connector) -> Result<(), LinkError> {
        Self::connect(to).await?.introduce(to).await
    }

    async fn introduce(&mut self, to: &Connector) -> Result<(), LinkError> {
        if let Some(password) = to.url.password.as_ref().map(Secret::expose) {
            let user = to.url.username.as_deref();
            let auth: Vec<&str> = ["AUTH"].into_iter().chain(user).chain([password]).collect();
            self.step("AUTH", &auth, true).await?;
        }
        self.step("REPLCONF", &["REPLCONF", "listening-port", "0"], true).await?;
        self.step("REPLCONF", &["REPLCONF", "capa", "eof", "capa", "psync2"], true).await?;
        // Servers that do not know this command answer with an error.
        self.step("REPLCONF", &["REPLCONF", "version", ANNOUNCED_VERSION], false).await
    }

    async fn step(&mut self, command: &'static str, args: &[&str], must: bool) -> Result<(), LinkError> {
        self.send(args).await?;
        let timed_out = || LinkError::Io { address: self.address.clone(), source: io::ErrorKind::TimedOut.into() };
        let timed_out = timed_out();
        let reply = timeout(STEP_TIMEOUT, self.line()).await.map_err(|_| timed_out)??;
        if must && reply.starts_with('-') {
            if let PsyncReply::Later(reply) = parse_psync_reply(&reply) {
                return Err(LinkError::Later { address: self.address.clone(), reply });
            }
            return Err(LinkError::Refused { address: self.address.clone(), command, reply: reply[1..].to_owned() });
        }
        Ok(())
    }

    async fn send(&mut self, args: &[&str]) -> Result<(), LinkError> {
        let mut out = Vec::new();
        encode_command(&mut out, args);
        let sent = async {
            self.write.write_all(&out).await?;
            // TLS buffers what the socket did not accept at once.
            self.write.flush().await
        };
        sent.await.map_err(|source| LinkError::Io { address: self.address.clone(), source })
    }

    /// Reads one line and skips keep-alive newlines before it.
    async fn line(&mut self) -> Result<String, LinkError> {
        loop {
            while self.buf.first() == Some(&b'\n') {
                let _ = self.buf.split_to(1);
            }
            if let Some(end) = self.buf.iter().position(|b| *b == b'\n') {
                let line = self.buf.split_to(end + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.buf.len() > LINE_MAX {
                let source = io::Error::new(io::ErrorKind::InvalidData, "an endless line");
                return Err(LinkError::Io { address: self.address.clone(), source });
            }
            self.receive().await?;
        }
    }

    /// Reads more into `buf`; returns the number of bytes. The end of the connection is an error. Cancel-safe.
    pub(crate) async fn receive(&mut self) -> Result<usize, LinkError> {
        // The rest of the buffer is used before another is allocated: frames in it may still be referenced.
        if self.buf.capacity() - self.buf.len() < SHORT_READ {
            self.buf.reserve(READ_BYTES);
        }
        match self.read.read_buf(&mut self.buf).await {
            Ok(0) => Err(LinkError::Io { address: self.address.clone(), source: io::ErrorKind::UnexpectedEof.into() }),
            Ok(n) => Ok(n),
            Err(source) => Err(LinkError::Io { address: self.address.clone(), source }),
        }
    }

    /// As [`Self::receive`], but returns `None` if nothing is readable.
    pub(crate) async fn receive_now(&mut self) -> Option<Result<usize, LinkError>> {
        tokio::select! {
            biased;
            r = self.receive() => Some(r),
            () = std::future::ready(()) => None,
        }
    }

    /// Reads what is available after a read of `last` bytes; returns the number of bytes and whether the link is now
    /// empty. The end of the connection is reported by the next read, so that what was read before it is processed
    /// first.
    pub(crate) async fn receive_rest(&mut self, mut last: usize) -> (usize, bool) {
        let mut more = 0;
        for _ in 0..READS_MAX {
            if last < SHORT_READ && !self.tls {
                return (more, true);
            }
            match self.receive_now().await {
                None => return (more, true),
                Some(Ok(n)) => last = n,
                Some(Err(_)) => break,
            }
            more += last;
        }
        (more, false)
    }

    /// Acknowledges an offset: see [`super::bystander`].
    pub(crate) async fn ack(&mut self, offset: ReplOffset) -> Result<(), LinkError> {
        self.send(&["REPLCONF", "ACK", &offset.0.to_string()]).await
    }
}
