//! A connection to a server: raw commands in, values out, errors that say which command was refused.

mod connection;
mod info;
mod names;

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redtape_net::Connector;
pub use redtape_net::reply::{ErrorReply, Value};
use redtape_net::tls::{ClientTls, TlsFailure};
use redtape_wire::url::{RedisUrl, Secret};

use self::connection::Connection;
pub use self::info::Info;
pub use self::names::CommandNames;
use crate::error::RestoreError;
use crate::refusal::{Refusal, advice, meaning};

/// Longest silence of a server that owes a reply: far more than the largest value takes, or a script of somebody else's,
/// behind which a server answers `BUSY` after some seconds.
pub const REPLY_LIMIT: Duration = Duration::from_mins(2);
/// Between two looks at the progress of a server that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
    connector: Connector,
    names: CommandNames,
    connection: Arc<Mutex<Connection>>,
    limit: Duration,
    /// Given again when it is connected again.
    name: Option<&'static str>,
    /// A thread keeps the connection from being idle.
    kept_alive: bool,
    /// A node of a cluster: a command or transaction may name keys of one slot only.
    in_cluster: bool,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Connects and logs in, with the machine's own trust where the URL asks for TLS.
    pub fn connect(url: &RedisUrl) -> Result<Self, RestoreError> {
        let connector = Connector::new(url.clone(), &ClientTls::default());
        Self::open(connector.map_err(|e| RestoreError::Usage(e.to_string()))?, CommandNames::default())
    }

    /// Connects and logs in to a server in which commands may have other names.
    pub fn open(connector: Connector, names: CommandNames) -> Result<Self, RestoreError> {
        let address = connector.address();
        let stream = connector.connect_blocking().map_err(|e| unreachable(&address, &e, ""))?;
        let mut server = Self {
            address,
            connector,
            names,
            connection: Arc::new(Mutex::new(Connection::new(stream))),
            limit: redtape_net::CONNECT_TIMEOUT,
            name: None,
            kept_alive: false,
            in_cluster: false,
        };
        server.log_in()?;
        server.set_reply_limit(REPLY_LIMIT)?;
        Ok(server)
    }

    fn log_in(&mut self) -> Result<(), RestoreError> {
        let RedisUrl { username, password, .. } = self.connector.url.clone();
        if username.is_none() && password.is_none() {
            return Ok(());
        }
        let mut auth = vec!["AUTH"];
        auth.extend(username.as_deref());
        auth.push(password.as_ref().map_or("", Secret::expose));
        match self.try_call(&auth)? {
            Reply::Value(_) => Ok(()),
            Reply::Error(e) if advice(&e.code).is_some() => Err(self.refused("AUTH", &e)),
            Reply::Error(e) => Err(RestoreError::Login { address: self.address.clone(), cause: e.text }),
        }
    }

    /// From now on the connection is never idle for long, whatever is done meanwhile: a server with a `timeout` would close it,
    /// and with it would go its name and what it watches.
    pub fn keep_alive(&mut self) -> Result<(), RestoreError> {
        let mut ping = Vec::new();
        self.encode(&mut ping, &["PING"]);
        connection::keep_alive(&self.connection, ping).map_err(|e| self.lost(&e))?;
        self.kept_alive = true;
        Ok(())
    }

    /// From now on it is known that this is a node of a cluster.
    pub(crate) fn set_in_cluster(&mut self) {
        self.in_cluster = true;
    }

    /// A command or transaction may name keys of one slot only.
    pub(crate) fn is_in_cluster(&self) -> bool {
        self.in_cluster
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Longest wait for a reply from now on.
    pub fn set_reply_limit(&mut self, limit: Duration) -> Result<(), RestoreError> {
        self.limit = limit;
        let set = self.lock().set_limit(limit);
        set.map_err(|e| self.lost(&e))
    }

    /// Longest wait for a reply at present.
    pub(crate) fn reply_limit(&self) -> Duration {
        self.limit
    }

    /// Another connection to the same server.
    pub(crate) fn another(&self) -> Result<Self, RestoreError> {
        let other = Self::open(self.connector.clone(), self.names.clone())?;
        let mut other = Self { address: self.address.clone(), in_cluster: self.in_cluster, ..other };
        other.set_reply_limit(self.limit)?;
        if self.kept_alive {
            other.keep_alive()?;
        }
        Ok(other)
    }

    /// Replaces a broken connection by a new one, with the same limit and name.
    pub fn reconnect(&mut self) -> Result<(), RestoreError> {
        let Self { limit, name, kept_alive, in_cluster, .. } = *self;
        let address = self.address.clone();
        *self = Self { address, in_cluster, ..Self::open(self.connector.clone(), self.names.clone())? };
        self.set_reply_limit(limit)?;
        if let Some(name) = name {
            self.set_name(name)?;
        }
        if kept_alive { self.keep_alive() } else { Ok(()) }
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
        &self.connector.url
    }

    /// What commands are called there.
    pub fn names(&self) -> &CommandNames {
        &self.names
    }

    /// Appends a command under the name that it has in this server.
    pub fn encode<A: AsRef<[u8]>>(&self, into: &mut Vec<u8>, args: &[A]) {
        self.names.encode(into, args);
    }

    /// Runs one command; an error reply is a value of its own.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply, RestoreError> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes, args);
        let mut connection = self.lock();
        let reply = connection.send(&bytes).and_then(|()| connection.reply());
        drop(connection);
        reply.map_err(|e| self.lost(&e))
    }

    /// Runs one command that has to succeed.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Value, RestoreError> {
        let name = args.first().map(|a| String::from_utf8_lossy(a.as_ref()).into_owned()).unwrap_or_default();
        let reply = self.try_call(args)?;
        self.must(&name, reply)
    }

    /// Runs encoded commands ([`Self::encode`]) in one go; one result for each.
    pub fn pipeline(&mut self, packed: &[u8], count: usize) -> Result<Vec<Reply>, RestoreError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut connection = self.lock();
        let replies: io::Result<Vec<Reply>> =
            connection.send(packed).and_then(|()| (0..count).map(|_| connection.reply()).collect());
        drop(connection);
        replies.map_err(|e| self.lost(&e))
    }

    /// Sends so many encoded commands ([`Self::encode`]), of which each owes a reply to [`Self::receive`].
    pub(crate) fn send(&mut self, packed: &[u8], commands: usize) -> Result<(), RestoreError> {
        let sent = self.lock().send_ahead(packed, commands);
        sent.map_err(|e| self.lost(&e))
    }

    /// The next reply to what was sent.
    pub(crate) fn receive(&mut self) -> Result<Reply, RestoreError> {
        let reply = self.lock().reply();
        reply.map_err(|e| self.lost(&e))
    }

    /// Takes the next replies to what was sent while they are the usual `+OK` and have come, so many at most; returns how many.
    pub(crate) fn take_oks(&mut self, most: usize) -> usize {
        self.lock().take_oks(most)
    }

    /// Passes over all replies that are owed for what was sent.
    pub(crate) fn pass_over(&mut self) -> Result<(), RestoreError> {
        let passed = self.lock().pass_over();
        passed.map_err(|e| self.lost(&e))
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
        self.encode(&mut bytes, &[command]);
        let sent = self.lock().send(&bytes);
        sent.map_err(|e| self.lost(&e))?;
        let usual = self.limit;
        self.set_reply_limit(LOOK_EVERY.min(limit))?;
        let (mut last, mut moved) = (progress(), Instant::now());
        loop {
            let waited = self.lock().wait();
            match waited {
                Ok(()) => break,
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
        let reply = self.lock().reply();
        let reply = reply.map_err(|e| self.lost(&e))?;
        self.must(command, reply)
    }

    fn lost(&self, error: &io::Error) -> RestoreError {
        if is_timeout(error) {
            return RestoreError::Silent { address: self.address.clone(), seconds: self.limit.as_secs() };
        }
        unreachable(&self.address, error, "the connection was lost: ")
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
            Refusal::OtherNode => RestoreError::OtherNode { address, cause },
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

fn unreachable(address: &str, error: &io::Error, what: &str) -> RestoreError {
    let address = address.to_owned();
    if TlsFailure::is_in(error) {
        return RestoreError::Tls { address, cause: error.to_string() };
    }
    RestoreError::Unreachable { address, cause: format!("{what}{error}") }
}

/// Nothing came in time.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
