//! A connection to a server: raw commands in, values out, errors that say which command was refused.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use redtape_net::reply;
pub use redtape_net::reply::{ErrorReply, Value};
use redtape_wire::resp::encode_command;
use redtape_wire::url::{Endpoint, RedisUrl, Secret};

use crate::error::RestoreError;
use crate::refusal::{Refusal, advice, meaning};

/// Longest time to establish a connection.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest silence of a server that owes a reply: far more than the largest value takes, or a script of somebody else's,
/// behind which a server answers `BUSY` after some seconds.
pub const REPLY_LIMIT: Duration = Duration::from_mins(2);
/// Between two looks at the progress of a server that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// A connected socket.
#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A server that does not accept is waited for only when its backlog is full.
fn connect_unix(path: &str) -> io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(CONNECT_LIMIT))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

impl Socket {
    fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Unix(path) => connect_unix(path).map(Self::Unix),
            Endpoint::Tcp { host, port } => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
                        Ok(socket) => {
                            socket.set_nodelay(true)?;
                            return Ok(Self::Tcp(socket));
                        }
                        Err(e) => last = e,
                    }
                }
                Err(last)
            }
        }
    }

    fn set_limit(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(Some(limit)).and_then(|()| s.set_write_timeout(Some(limit))),
            Self::Unix(s) => s.set_read_timeout(Some(limit)).and_then(|()| s.set_write_timeout(Some(limit))),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(bytes),
            Self::Unix(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server's answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A value.
    Value(Value),
    /// The command was refused.
    Error(ErrorReply),
}

impl Reply {
    /// The value, if it is one.
    pub fn value(self) -> Option<Value> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }

    /// The refusal, if it is one.
    pub fn error(self) -> Option<ErrorReply> {
        if let Self::Error(error) = self { Some(error) } else { None }
    }
}

/// A connected server.
pub struct Server {
    /// For messages: never holds a secret.
    pub address: String,
    url: RedisUrl,
    socket: BufReader<Socket>,
    limit: Duration,
    /// Given again when it is connected again.
    name: Option<&'static str>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Connects and logs in.
    pub fn connect(url: &RedisUrl) -> Result<Self, RestoreError> {
        if url.tls {
            return Err(RestoreError::Tls);
        }
        let address = url.address();
        let failed = |e: io::Error| RestoreError::Unreachable { address: address.clone(), cause: e.to_string() };
        let socket = Socket::connect(&url.endpoint).map_err(failed)?;
        socket.set_limit(CONNECT_LIMIT).map_err(failed)?;
        let mut server = Self {
            address: address.clone(),
            url: url.clone(),
            socket: BufReader::with_capacity(READ_BYTES, socket),
            limit: CONNECT_LIMIT,
            name: None,
        };
        if url.username.is_some() || url.password.is_some() {
            let password = url.password.as_ref().map_or("", Secret::expose);
            let mut auth = vec!["AUTH"];
            auth.extend(url.username.as_deref());
            auth.push(password);
            if let Reply::Error(e) = server.try_call(&auth)? {
                return Err(RestoreError::Login { address, cause: e.text });
            }
        }
        server.set_reply_limit(REPLY_LIMIT)?;
        Ok(server)
    }

    /// Longest wait for a reply from now on.
    pub fn set_reply_limit(&mut self, limit: Duration) -> Result<(), RestoreError> {
        self.limit = limit;
        self.socket.get_ref().set_limit(limit).map_err(|e| self.lost(&e))
    }

    /// Longest wait for a reply at present.
    pub(crate) fn reply_limit(&self) -> Duration {
        self.limit
    }

    /// Another connection to the same server.
    pub(crate) fn another(&self) -> Result<Self, RestoreError> {
        let mut other = Self { address: self.address.clone(), ..Self::connect(&self.url)? };
        other.set_reply_limit(self.limit)?;
        Ok(other)
    }

    /// Replaces a broken connection by a new one, with the same limit and name.
    pub fn reconnect(&mut self) -> Result<(), RestoreError> {
        let (limit, name, address) = (self.limit, self.name, self.address.clone());
        *self = Self { address, ..Self::connect(&self.url)? };
        self.set_reply_limit(limit)?;
        if let Some(name) = name {
            self.set_name(name)?;
        }
        Ok(())
    }

    /// Names the connection in the server's list of clients; says why where that is not allowed.
    pub(crate) fn set_name(&mut self, name: &'static str) -> Result<Option<String>, RestoreError> {
        let refused = self.try_call(&["CLIENT", "SETNAME", name])?.error();
        self.name = refused.is_none().then_some(name);
        Ok(refused.map(|e| e.text))
    }

    /// Takes the name away.
    pub(crate) fn clear_name(&mut self) -> Result<(), RestoreError> {
        self.name = None;
        self.call(&["CLIENT", "SETNAME", ""]).map(drop)
    }

    /// How it is reached.
    pub fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// Runs one command; an error reply is a value of its own.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply, RestoreError> {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, args);
        self.socket.get_mut().write_all(&bytes).map_err(|e| self.lost(&e))?;
        self.reply()
    }

    /// Runs one command that has to succeed.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value, RestoreError> {
        let name = args.first().map(|a| String::from_utf8_lossy(a.as_ref()).into_owned()).unwrap_or_default();
        let reply = self.try_call(args)?;
        self.must(&name, reply)
    }

    /// Runs encoded commands in one go; one result for each.
    pub fn pipeline(&mut self, packed: &[u8], count: usize) -> Result<Vec<Reply>, RestoreError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        self.socket.get_mut().write_all(packed).map_err(|e| self.lost(&e))?;
        (0..count).map(|_| self.reply()).collect()
    }

    /// Runs one command that may take long. The server is given up when neither a reply comes nor `progress`, a number that
    /// moves while it works, has moved for as long as `limit`.
    pub(crate) fn call_watched(
        &mut self,
        command: &str,
        limit: Duration,
        progress: &mut dyn FnMut() -> u64,
    ) -> Result<Value, RestoreError> {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, &[command]);
        self.socket.get_mut().write_all(&bytes).map_err(|e| self.lost(&e))?;
        let usual = self.limit;
        self.set_reply_limit(LOOK_EVERY.min(limit))?;
        let (mut last, mut moved) = (progress(), Instant::now());
        loop {
            match self.socket.fill_buf() {
                Ok(_) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if is_timeout(&e) => {
                    let now = progress();
                    if now != last {
                        (last, moved) = (now, Instant::now());
                    } else if moved.elapsed() >= limit {
                        return Err(RestoreError::Silent { address: self.address.clone(), seconds: limit.as_secs() });
                    }
                }
                Err(e) => return Err(self.lost(&e)),
            }
        }
        self.set_reply_limit(usual)?;
        let reply = self.reply()?;
        self.must(command, reply)
    }

    fn reply(&mut self) -> Result<Reply, RestoreError> {
        Ok(match reply::read(&mut self.socket).map_err(|e| self.lost(&e))? {
            Ok(value) => Reply::Value(value),
            Err(error) => Reply::Error(error),
        })
    }

    fn lost(&self, error: &io::Error) -> RestoreError {
        if is_timeout(error) {
            return RestoreError::Silent { address: self.address.clone(), seconds: self.limit.as_secs() };
        }
        RestoreError::Unreachable { address: self.address.clone(), cause: format!("the connection was lost: {error}") }
    }

    /// The value of a reply to a command that has to succeed.
    pub(crate) fn must(&self, command: &str, reply: Reply) -> Result<Value, RestoreError> {
        match reply {
            Reply::Value(value) => Ok(value),
            Reply::Error(error) => Err(self.refused(command, &error)),
        }
    }

    /// Says that a command was refused.
    pub fn refused(&self, command: &str, error: &ErrorReply) -> RestoreError {
        let (address, command, cause) = (self.address.clone(), command.to_owned(), error.text.clone());
        match meaning(&error.code) {
            Refusal::Denied => RestoreError::Denied { address, command, cause },
            Refusal::Login => RestoreError::Login { address, cause },
            Refusal::OtherNode => RestoreError::Unable(format!(
                "{address} is a node of a cluster and does not hold all keys ({cause}); restoring into clusters is not supported yet: choose a server outside of a cluster"
            )),
            _ => match advice(&error.code) {
                Some(advice) => RestoreError::Unwilling { address, command, cause, advice },
                None => RestoreError::Refused { address, command, cause },
            },
        }
    }

    /// All fields of `INFO`'s default sections, or of one.
    pub fn info(&mut self, section: Option<&str>) -> Result<Info, RestoreError> {
        let args: Vec<&str> = std::iter::once("INFO").chain(section).collect();
        let reply = self.call(&args)?;
        Ok(Info::parse(&text(&reply)))
    }

    /// One setting; `None` where `CONFIG` is not allowed or does not know it.
    pub fn setting(&mut self, name: &str) -> Result<Option<String>, RestoreError> {
        let Reply::Value(Value::Array(pair)) = self.try_call(&["CONFIG", "GET", name])? else { return Ok(None) };
        Ok(pair.get(1).map(text))
    }

    /// Makes sure that the connection still stands: a server may have closed it while it was idle.
    pub(crate) fn ensure_connected(&mut self) -> Result<(), RestoreError> {
        match self.try_call(&["PING"]) {
            Err(RestoreError::Unreachable { .. }) => self.reconnect(),
            other => other.map(drop),
        }
    }

    /// Number of function libraries; `None` where functions are unknown or not allowed.
    pub fn functions(&mut self) -> Result<Option<usize>, RestoreError> {
        match self.try_call(&["FUNCTION", "LIST"])? {
            Reply::Value(Value::Array(libraries)) => Ok(Some(libraries.len())),
            _ => Ok(None),
        }
    }
}

/// The text of a reply that is a string of any kind.
pub fn text(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Status(text) => text.clone(),
        Value::Int(n) => n.to_string(),
        Value::Error(error) => error.text.clone(),
        Value::Nil | Value::Array(_) => String::new(),
    }
}

/// The fields of an `INFO` reply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(HashMap<String, String>);

impl Info {
    /// Reads `name:value` lines.
    pub fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(k, v)| (k.to_owned(), v.trim_end().to_owned())).collect())
    }

    /// One field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// One field as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Keys in each database.
    pub fn keyspace(&self) -> BTreeMap<u32, u64> {
        self.in_databases("keys=")
    }

    /// Keys with a TTL in each database.
    pub fn volatile(&self) -> BTreeMap<u32, u64> {
        self.in_databases("expires=")
    }

    fn in_databases(&self, what: &str) -> BTreeMap<u32, u64> {
        let count = |(name, value): (&String, &String)| {
            let db = name.strip_prefix("db")?.parse().ok()?;
            let keys = value.split(',').find_map(|f| f.strip_prefix(what))?.parse().ok()?;
            Some((db, keys))
        };
        self.0.iter().filter_map(count).filter(|(_, keys)| *keys > 0).collect()
    }
}

/// Nothing came in time.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_fields() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.0.15\r\nmaxmemory:0\r\n# Keyspace\r\ndb0:keys=3,expires=1,avg_ttl=0\r\ndb12:keys=1,expires=0,avg_ttl=0,subexpiry=0\r\n",
        );
        assert_eq!(info.get("redis_version"), Some("7.0.15"));
        assert_eq!(info.number("maxmemory"), Some(0));
        assert_eq!(info.keyspace(), BTreeMap::from([(0, 3), (12, 1)]));
        assert_eq!(info.volatile(), BTreeMap::from([(0, 1)]));
        assert_eq!(info.get("nope"), None);
    }
}
