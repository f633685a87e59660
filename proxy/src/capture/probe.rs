//! The side connection: probes of the offset, the server's commands, its backlog.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Value};
use redtape_journal::{Micros, ReplOffset};
use redtape_wire::command::{CommandSpec, CommandTable};
use redtape_wire::url::Secret;

use crate::connect::Connector;
use crate::join::Probe;

/// An answer that takes longer counts as none.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What the server says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerFacts {
    /// `redis` or `valkey`.
    pub software: String,
    /// Its version.
    pub version: String,
    /// `master_replid`: which history it has.
    pub(crate) replid: String,
    /// `repl_backlog_size` in bytes.
    pub backlog_bytes: u64,
    /// A node of a cluster (`redis_mode`, in Valkey `server_mode`).
    pub(crate) cluster: bool,
}

/// See the module.
pub(crate) struct Prober {
    connection: MultiplexedConnection,
}

impl Prober {
    /// Our own stream below the client library: one way through TLS for all.
    pub(crate) async fn connect(to: &Connector) -> Result<Self, RedisError> {
        let stream = to.connect().await?;
        let mut login = RedisConnectionInfo::default();
        if let Some(user) = &to.url.username {
            login = login.set_username(user);
        }
        if let Some(password) = to.url.password.as_ref().map(Secret::expose) {
            login = login.set_password(password);
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
        let connecting = MultiplexedConnection::new_with_config(&login, stream, config);
        let timed_out = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer to the login");
        let (connection, driver) = tokio::time::timeout(TIMEOUT, connecting).await.map_err(|_| timed_out())??;
        // It ends with the connection's last handle.
        tokio::spawn(driver);
        Ok(Self { connection })
    }

    /// `ROLE` and the counters of what the server removed by itself.
    pub(crate) async fn probe(&mut self) -> Result<Probe, RedisError> {
        let sent = Micros::now();
        let (role, stats): (Value, Result<String, RedisError>) = {
            let mut pipe = redis::pipe();
            pipe.cmd("ROLE").cmd("INFO").arg("stats").ignore_errors();
            let mut values: Vec<Value> = pipe.query_async(&mut self.connection).await?;
            let stats = values.pop().unwrap_or(Value::Nil);
            let role = values.pop().unwrap_or(Value::Nil);
            (role, redis::from_redis_value(stats).map_err(Into::into))
        };
        let received = Micros::now();
        let stats = stats.unwrap_or_default();
        let count = |name: &str| info_field(&stats, name).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        Ok(Probe {
            sent,
            received,
            offset: role_offset(&role)?,
            expired: count("expired_keys") + count("expired_subkeys") + count("expired_fields"),
            evicted: count("evicted_keys"),
        })
    }

    pub(crate) async fn facts(&mut self) -> Result<ServerFacts, RedisError> {
        let server: String = redis::cmd("INFO").arg("server").query_async(&mut self.connection).await?;
        let replication: String = redis::cmd("INFO").arg("replication").query_async(&mut self.connection).await?;
        let valkey = info_field(&server, "valkey_version");
        Ok(ServerFacts {
            software: if valkey.is_some() { "valkey" } else { "redis" }.to_owned(),
            version: valkey.or_else(|| info_field(&server, "redis_version")).unwrap_or_default().to_owned(),
            replid: info_field(&replication, "master_replid").unwrap_or_default().to_owned(),
            backlog_bytes: info_field(&replication, "repl_backlog_size").and_then(|v| v.parse().ok()).unwrap_or(0),
            cluster: ["redis_mode", "server_mode"].iter().any(|name| info_field(&server, name) == Some("cluster")),
        })
    }

    /// Which history the server has, and how far it is: whatever anybody was told before this was sent
    /// has its effect at or before the offset (Redis moves it while the command runs; replies leave later).
    pub(crate) async fn history(&mut self) -> Result<(String, ReplOffset), RedisError> {
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut self.connection).await?;
        let wrong = |what| RedisError::from((redis::ErrorKind::UnexpectedReturnType, what));
        let replid = info_field(&info, "master_replid").ok_or_else(|| wrong("INFO gave no replication id"))?;
        let offset = info_field(&info, "master_repl_offset").and_then(|v| v.parse().ok());
        Ok((replid.to_owned(), ReplOffset(offset.ok_or_else(|| wrong("INFO gave no replication offset"))?)))
    }

    /// The server's commands; `None` where it does not let us ask.
    pub(crate) async fn commands(&mut self) -> Option<CommandTable> {
        let reply: Value = redis::cmd("COMMAND").query_async(&mut self.connection).await.ok()?;
        let Value::Array(rows) = reply else { return None };
        let table = CommandTable::from_specs(rows.iter().filter_map(command_spec));
        (!table.is_empty()).then_some(table)
    }
}

fn role_offset(role: &Value) -> Result<ReplOffset, RedisError> {
    let wrong = || RedisError::from((redis::ErrorKind::UnexpectedReturnType, "ROLE gave no replication offset"));
    if let Value::ServerError(e) = role {
        return Err(e.clone().into());
    }
    let Value::Array(items) = role else { return Err(wrong()) };
    let kind = items.first().and_then(text).ok_or_else(wrong)?;
    let at = if kind == "master" { 1 } else { 4 };
    items.get(at).and_then(int).and_then(|n| u64::try_from(n).ok()).map(ReplOffset).ok_or_else(wrong)
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(*n),
        _ => None,
    }
}

fn command_spec(row: &Value) -> Option<CommandSpec> {
    let Value::Array(row) = row else { return None };
    let flags = |row: &[Value]| match row.get(2) {
        Some(Value::Array(flags) | Value::Set(flags)) => flags.iter().filter_map(text).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let position = |row: &[Value], i: usize| row.get(i).and_then(int).and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    let mut all = flags(row);
    let (mut first, mut last, mut step) = (position(row, 3), position(row, 4), position(row, 5));
    // A container's flags and keys are those of its subcommands.
    if let Some(Value::Array(subcommands)) = row.get(9) {
        for sub in subcommands {
            let Value::Array(sub) = sub else { continue };
            if flags(sub).iter().any(|f| f == "write") {
                all.push("write".to_owned());
                (first, last, step) = (position(sub, 3), position(sub, 4), position(sub, 5));
            }
        }
    }
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Some(CommandSpec::new(&text(row.first()?)?, position(row, 1), &all, first, last, step))
}

/// One field of an `INFO` text.
pub(crate) fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
