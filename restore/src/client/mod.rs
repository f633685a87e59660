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

/// Longest silence of a server that owes a reply: far more than the largest value takes, or another client's script,
/// during which a server answers `BUSY` after some seconds.
pub const REPLY_LIMIT: Duration = Duration::from_mins(2);
/// Interval of progress checks during a long command.
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
    /// For messages: contains no secret.
    pub address: String,
    connector: Connector,
    names: CommandNames,
    connection: Arc<Mutex<Connection>>,
    limit: Duration,
    /// The name to set again after a reconnect.
    name: Option<&'static str>,
    /// True if a thread keeps the connection from being idle.
    kept_alive: bool,
    /// True for a node of a cluster: a command or transaction may name keys of one slot only.
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

    /// Connects and logs in to a server with renamed commands.
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

    /// From now on the connection is kept from being idle: a server with a `timeout` would close it, and its name and
    /// watched keys would be lost.
    pub fn keep_alive(&mut self) -> Result<(), RestoreError> {
        let mut ping = Vec::new();
        self.encode(&mut ping, &["PING"]);
        connection::keep_alive(&self.connection, ping).map_err(|e| self.lost(&e))?;
        self.kept_alive = true;
        Ok(())
    }

    /// Marks the server as a node of a cluster.
    pub(crate) fn set_in_cluster(&mut self) {
        self.in_cluster = true;
    }

    /// True if a command or transaction may name keys of one slot only.
    pub(crate) fn is_in_cluster(&self) -> bool {
        self.in_cluster
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the longest wait for a reply.
    pub fn set_reply_limit(&mut self, limit: Duration) -> Result<(), RestoreError> {
        self.limit = limit;
        let set = self.lock().set_limit(limit);
        set.map_err(|e| self.lost(&e))
    }

    /// The longest wait for a reply.
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

    /// Replaces a broken connection by a new one with the same time limit and name.
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

    /// Names the connection in the server's list of clients; returns the reason if that is not allowed.
    pub(crate) fn set_name(&mut self, name: &'static str) -> Result<Option<String>, RestoreError> {
        let refused = self.try_call(&["CLIENT", "SETNAME", name])?.error();
        self.name = refused.is_none().then_some(name);
        Ok(refused.map(|e| e.text))
    }

    /// Removes the name.
    pub(crate) fn clear_name(&mut self) -> Result<(), RestoreError> {
        self.name = None;
        self.call(&["CLIENT", "SETNAME", ""]).map(drop)
    }

    /// Address and login.
    pub fn url(&self) -> &RedisUrl {
        &self.connector.url
    }

    /// The server's command names.
    pub fn names(&self) -> &CommandNames {
        &self.names
    }

    /// Appends a command under its name in this server.
    pub fn encode<A: AsRef<[u8]>>(&self, into: &mut Vec<u8>, args: &[A]) {
        self.names.encode(into, args);
    }

    /// Runs one command; an error reply is returned as a value.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply, RestoreError> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes, args);
        let mut connection = self.lock();
        let reply = connection.send(&bytes).and_then(|()| connection.reply());
        drop(connection);
        reply.map_err(|e| self.lost(&e))
    }

    /// Runs one command that must succeed.
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

    /// Sends this many encoded commands ([`Self::encode`]); each requires a [`Self::receive`].
    pub(crate) fn send(&mut self, packed: &[u8], commands: usize) -> Result<(), RestoreError> {
        let sent = self.lock().send_ahead(packed, commands);
        sent.map_err(|e| self.lost(&e))
    }

    /// The next reply to a sent command.
    pub(crate) fn receive(&mut self) -> Result<Reply, RestoreError> {
        let reply = self.lock().reply();
        reply.map_err(|e| self.lost(&e))
    }

    /// Reads up to this many available replies that are the usual `+OK`; returns their number.
    pub(crate) fn take_oks(&mut self, most: usize) -> usize {
        self.lock().take_oks(most)
    }

    /// Skips all outstanding replies.
    pub(crate) fn pass_over(&mut self) -> Result<(), RestoreError> {
        let passed = self.lock().pass_over();
        passed.map_err(|e| self.lost(&e))
    }

    /// Runs one command that may take long. It fails when neither a reply arrives nor `progress`, a number that changes
    /// while the server works, has changed for `limit`.
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

    /// The value of a reply to a command that must succeed.
    pub(crate) fn must(&self, command: &str, reply: Reply) -> Result<Value, RestoreError> {
        match reply {
            Reply::Value(value) => Ok(value),
            Reply::Error(error) => Err(self.refused(command, &error)),
        }
    }

    /// The error for a refused command.
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

    /// One setting; `None` if `CONFIG` is not allowed or the setting does not exist.
    pub fn setting(&mut self, name: &str) -> Result<Option<String>, RestoreError> {
        let Reply::Value(Value::Array(pair)) = self.try_call(&["CONFIG", "GET", name])? else { return Ok(None) };
        Ok(pair.get(1).map(text))
    }

    /// Checks that the connection still works: a server may have closed it while it was idle.
    pub(crate) fn ensure_connected(&mut self) -> Result<(), RestoreError> {
        match self.try_call(&["PING"]) {
            Err(RestoreError::Unreachable { .. }) => self.reconnect(),
            other => other.map(drop),
        }
    }

    /// Number of function libraries; `None` if functions are unknown or not allowed.
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

/// True if no reply arrived in time.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
