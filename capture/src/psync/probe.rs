//! The side connection: probes of the offset, the server's commands, its backlog.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisError, Value};
use redtape_journal::{Micros, ReplOffset};
use redtape_net::Connector;
use redtape_wire::command::{CommandSpec, CommandTable};
use redtape_wire::info::info_field;
use redtape_wire::url::Secret;

use crate::identity::ServerFacts;
use crate::join::Probe;

/// Time limit of an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a server waits for its replicas, if it does: writes are paused then, and its offset does not move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReplicaWaits {
    /// `SHUTDOWN`: until each replica has acknowledged exactly this offset, or for `shutdown-timeout` (7.0 and later).
    pub(super) shutdown_at: Option<ReplOffset>,
    /// `FAILOVER`: until one replica has.
    pub(super) failover: bool,
}

impl ReplicaWaits {
    fn read(server: &str, replication: &str) -> Self {
        let offset = info_field(replication, "master_repl_offset").and_then(|n| n.parse().ok()).map(ReplOffset);
        Self {
            shutdown_at: info_field(server, "shutdown_in_milliseconds").and(offset),
            failover: info_field(replication, "master_failover_state") == Some("waiting-for-sync"),
        }
    }
}

/// A connection for questions about the server itself.
pub struct Prober {
    connection: MultiplexedConnection,
    role: Role,
}

/// The server's role in replication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    /// It follows the server at this address.
    Replica {
        primary: String,
    },
}

/// True if there was no answer: the connection failed, has ended, or is silent.
pub fn is_unreachable(e: &RedisError) -> bool {
    e.is_io_error() || e.is_connection_refusal() || e.is_timeout()
}

/// True if the server has answered with an error (`NOPERM`, `BUSY`, `LOADING`) or a `ROLE` without an offset.
pub(crate) fn is_answer(e: &RedisError) -> bool {
    e.code().is_some()
        || matches!(e.kind(), redis::ErrorKind::UnexpectedReturnType | redis::ErrorKind::AuthenticationFailed)
}

impl Prober {
    /// The client library runs on our own stream, so that all connections share one TLS implementation.
    pub async fn connect(to: &Connector) -> Result<Self, RedisError> {
        let stream = to.connect().await?;
        let mut login = RedisConnectionInfo::default();
        if let Some(user) = &to.url.username {
            login = login.set_username(user);
        }
        if let Some(password) = to.url.password.as_ref().map(Secret::expose) {
            // A user with minimal rights may not run `CLIENT SETINFO`, and each refusal is recorded in the server's ACL
            // LOG. Without a login it is sent: the library needs a reply to detect that TLS was refused.
            login = login.set_password(password).set_skip_set_lib_name();
        }
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
        let connecting = MultiplexedConnection::new_with_config(&login, stream, config);
        let timed_out = || std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer to the login");
        let (connection, driver) = tokio::time::timeout(TIMEOUT, connecting).await.map_err(|_| timed_out())??;
        // The task ends with the connection's last handle.
        tokio::spawn(driver);
        Ok(Self { connection, role: Role::Primary })
    }

    /// Requests `ROLE` and the counters of the server's own deletions.
    pub async fn probe(&mut self) -> Result<Probe, RedisError> {
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
        let (role, offset) = role_and_offset(&role)?;
        self.role = role;
        Ok(Probe {
            sent,
            received,
            offset,
            expired: count("expired_keys") + count("expired_subkeys") + count("expired_fields"),
            evicted: count("evicted_keys"),
        })
    }

    /// The role that the last probe found.
    pub(crate) fn role(&self) -> &Role {
        &self.role
    }

    /// The server's `INFO`.
    pub async fn facts(&mut self) -> Result<ServerFacts, RedisError> {
        let server: String = redis::cmd("INFO").arg("server").query_async(&mut self.connection).await?;
        let replication: String = redis::cmd("INFO").arg("replication").query_async(&mut self.connection).await?;
        let persistence: String = redis::cmd("INFO").arg("persistence").query_async(&mut self.connection).await?;
        let valkey = info_field(&server, "valkey_version");
        let field = |name: &str| info_field(&replication, name);
        let number = |name: &str| field(name).and_then(|v| v.parse::<u64>().ok());
        Ok(ServerFacts {
            software: if valkey.is_some() { "valkey" } else { "redis" }.to_owned(),
            version: valkey.or_else(|| info_field(&server, "redis_version")).unwrap_or_default().to_owned(),
            replid: field("master_replid").unwrap_or_default().to_owned(),
            previous: field("master_replid2")
                .zip(number("second_repl_offset"))
                .map(|(replid, first)| (replid.to_owned(), ReplOffset(first.saturating_sub(1)))),
            offset: ReplOffset(number("master_repl_offset").unwrap_or(0)),
            run_id: info_field(&server, "run_id").unwrap_or_default().to_owned(),
            is_primary: field("role") == Some("master"),
            is_loading: info_field(&persistence, "loading") == Some("1"),
            backlog_bytes: number("repl_backlog_size").unwrap_or(0),
            cluster: ["redis_mode", "server_mode"].iter().any(|name| info_field(&server, name) == Some("cluster")),
        })
    }

    /// The server's history and its present offset. Every effect acknowledged before this call ends at or before the
    /// offset (Redis advances it while the command runs; replies leave later).
    pub async fn history(&mut self) -> Result<(String, ReplOffset), RedisError> {
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut self.connection).await?;
        let wrong = |what| RedisError::from((redis::ErrorKind::UnexpectedReturnType, what));
        let replid = info_field(&info, "master_replid").ok_or_else(|| wrong("INFO gave no replication id"))?;
        let offset = info_field(&info, "master_repl_offset").and_then(|v| v.parse().ok());
        Ok((replid.to_owned(), ReplOffset(offset.ok_or_else(|| wrong("INFO gave no replication offset"))?)))
    }

    /// Whether the server waits for its replicas, and the present end of its history.
    pub(crate) async fn waits(&mut self) -> Result<ReplicaWaits, RedisError> {
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("server").cmd("INFO").arg("replication");
        let (server, replication): (String, String) = pipe.query_async(&mut self.connection).await?;
        Ok(ReplicaWaits::read(&server, &replication))
    }

    /// The server's commands; `None` if the user may not ask.
    pub async fn commands(&mut self) -> Option<CommandTable> {
        let reply: Value = redis::cmd("COMMAND").query_async(&mut self.connection).await.ok()?;
        let Value::Array(rows) = reply else { return None };
        let table = CommandTable::from_specs(rows.iter().filter_map(command_spec));
        (!table.is_empty()).then_some(table)
    }
}

fn role_and_offset(reply: &Value) -> Result<(Role, ReplOffset), RedisError> {
    let wrong = || RedisError::from((redis::ErrorKind::UnexpectedReturnType, "ROLE gave no replication offset"));
    if let Value::ServerError(e) = reply {
        return Err(e.clone().into());
    }
    let Value::Array(items) = reply else { return Err(wrong()) };
    let offset = |at: usize| items.get(at).and_then(int).and_then(|n| u64::try_from(n).ok()).map(ReplOffset);
    let word = |at: usize| items.get(at).and_then(text);
    if word(0).ok_or_else(wrong)? == "master" {
        return Ok((Role::Primary, offset(1).ok_or_else(wrong)?));
    }
    let port = items.get(2).and_then(int).unwrap_or_default();
    let primary = format!("{}:{port}", word(1).unwrap_or_default());
    Ok((Role::Replica { primary }, offset(4).ok_or_else(wrong)?))
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
    // The flags and keys of a container command are those of its subcommands.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_is_an_answer() {
        let no_offset = Value::Array(vec![
            Value::BulkString(b"slave".to_vec()),
            Value::BulkString(b"127.0.0.1".to_vec()),
            Value::Int(1),
            Value::BulkString(b"connecting".to_vec()),
            Value::Int(-1),
        ]);
        let error = role_and_offset(&no_offset).expect_err("no offset");
        assert!(is_answer(&error) && !is_unreachable(&error), "{error}");
        for said in ["-NOPERM no\r\n", "-BUSY a script\r\n", "-LOADING wait\r\n", "-ERR other\r\n"] {
            let said = redis::parse_redis_value(said.as_bytes()).expect("a reply");
            let error = role_and_offset(&said).expect_err("an error");
            assert!(is_answer(&error) && !is_unreachable(&error), "{error}");
        }
        for gone in [std::io::ErrorKind::ConnectionRefused, std::io::ErrorKind::TimedOut] {
            let error = RedisError::from(std::io::Error::from(gone));
            assert!(!is_answer(&error) && is_unreachable(&error), "{error}");
        }
    }

    #[test]
    fn replica_waits_are_parsed() {
        let replication = |state| format!("role:master\r\nmaster_failover_state:{state}\r\nmaster_repl_offset:70\r\n");
        let quiet = ReplicaWaits::default();
        assert_eq!(ReplicaWaits::read("redis_version:7.0.15\r\n", &replication("no-failover")), quiet);
        let shutting = ReplicaWaits { shutdown_at: Some(ReplOffset(70)), ..quiet };
        assert_eq!(ReplicaWaits::read("shutdown_in_milliseconds:9876\r\n", &replication("no-failover")), shutting);
        let failover = ReplicaWaits { failover: true, ..quiet };
        assert_eq!(ReplicaWaits::read("redis_version:7.0.15\r\n", &replication("waiting-for-sync")), failover);
        assert_eq!(ReplicaWaits::read("", &replication("failover-in-progress")), quiet);
    }
}
