//! What must be known of a target before a plan can be made. Only reads.

use std::collections::{BTreeMap, BTreeSet};

use redtape_journal::TimelineInfo;
use redtape_wire::url::Endpoint;

use crate::client::{Info, Reply, Server, Value};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::target::claim::{OtherRestores, others};
use crate::target::limits::ServerLimits;
use crate::target::memory::MemoryState;
use crate::target::rights::Rights;
use crate::target::unfinished::{Unfinished, find};
use crate::version::{ServerVersion, parse_number};

/// Facts of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "independent answers of a server")]
pub struct TargetFacts {
    /// For messages.
    pub address: String,
    /// Family and version.
    pub version: ServerVersion,
    /// A node of a cluster.
    pub cluster: bool,
    /// The master that it follows, and whether that link is up.
    pub follows: Option<(String, bool)>,
    /// Replicas that follow it.
    pub replicas: u64,
    /// The id of its replication history; empty = not told.
    pub replid: String,
    /// The journal follows it; filled in by [`Self::compare_with`].
    pub is_source: bool,
    /// Its memory, and the limit of it.
    pub memory: MemoryState,
    /// It gives up keys for its limit even while it follows a master (`replica-ignore-maxmemory no`).
    pub replica_evicts: bool,
    /// It is loading its data: what it holds cannot be told yet.
    pub loading: bool,
    /// Why it takes no writes, as far as its own disk is concerned.
    pub disk_trouble: Option<String>,
    /// Other restores at work on it.
    pub others: OtherRestores,
    /// Restores into it that did not end, or are under way.
    pub unfinished: Vec<Unfinished>,
    /// Keys in each database that has some.
    pub keys: BTreeMap<u32, u64>,
    /// Function libraries.
    pub functions: usize,
    /// They cannot be seen by this user.
    pub functions_hidden: bool,
    /// It reaches its masters over TLS.
    pub tls_replication: bool,
    /// Clients may write to it while it follows a master.
    pub writable_replica: bool,
    /// Commands that it does not know, or not for this user.
    pub rights: Rights,
    /// Limits of what it takes.
    pub limits: ServerLimits,
    /// Commands that have other names there, by their usual ones in upper case.
    pub renamed: BTreeSet<Vec<u8>>,
    /// Reached over TLS.
    pub tls: bool,
    /// The port that it announces to a master.
    pub announced_port: u16,
    /// Reached by a unix socket.
    pub unix: bool,
    /// Commands of the journal that it does not know; filled in by [`unknown_commands`].
    pub unknown_commands: Vec<String>,
}

impl TargetFacts {
    /// Asks the target.
    pub fn read(server: &mut Server) -> Result<Self, RestoreError> {
        let info = server.info(None)?;
        let valkey = info.get("server_name") == Some("valkey") || info.get("valkey_version").is_some();
        let number = info.get("valkey_version").or_else(|| info.get("redis_version")).and_then(parse_number);
        let number = number.ok_or_else(|| {
            RestoreError::Unable(format!(
                "{} does not say its version in INFO: is it a Redis or Valkey?",
                server.address
            ))
        })?;
        let follows = (info.get("role") == Some("slave")).then(|| {
            let field = |name| info.get(name).unwrap_or("?");
            (format!("{}:{}", field("master_host"), field("master_port")), info.get("master_link_status") == Some("up"))
        });
        let own_port = info.get("tcp_port").and_then(|p| p.parse().ok()).unwrap_or(0);
        let announced = server.setting("replica-announce-port")?.and_then(|p| p.parse().ok()).filter(|p| *p != 0);
        let mut memory = MemoryState::of(&info);
        if memory.limit.is_none() {
            memory.limit = server.setting("maxmemory")?.and_then(|limit| limit.parse().ok());
        }
        let tls_replication = server.setting("tls-replication")?.as_deref() == Some("yes");
        Ok(Self {
            address: server.address.clone(),
            version: ServerVersion { valkey, number },
            cluster: info.get("cluster_enabled") == Some("1"),
            follows,
            replicas: info.number("connected_slaves").unwrap_or(0),
            replid: info.get("master_replid").unwrap_or_default().to_owned(),
            is_source: false,
            memory,
            replica_evicts: server.setting("replica-ignore-maxmemory")?.as_deref() == Some("no"),
            loading: info.get("loading") == Some("1") || info.get("async_loading") == Some("1"),
            disk_trouble: disk_trouble(server, &info)?,
            others: others(server)?,
            unfinished: find(server)?,
            keys: info.keyspace(),
            functions: server.functions()?.unwrap_or(0),
            functions_hidden: matches!(server.try_call(&["FUNCTION", "LIST"])?, Reply::Error(e) if meaning(&e.code) == Refusal::Denied),
            tls_replication,
            writable_replica: server.setting("replica-read-only")?.as_deref() == Some("no"),
            rights: Rights::read(server, ServerVersion { valkey, number })?,
            limits: ServerLimits::read(server, &info)?,
            renamed: server.names().renamed().map(<[u8]>::to_vec).collect(),
            tls: server.url().tls,
            announced_port: announced.unwrap_or(own_port),
            unix: matches!(server.url().endpoint, Endpoint::Unix(_)),
            unknown_commands: Vec::new(),
        })
    }

    /// Finds out whether it is the server of one of these histories.
    pub fn compare_with(&mut self, timelines: &[TimelineInfo]) {
        self.is_source = !self.replid.is_empty() && timelines.iter().any(|t| t.had_source(&self.replid));
    }

    /// What is in it, in words; `None` = nothing.
    pub fn contents(&self) -> Option<String> {
        contents(&self.keys, self.functions)
    }
}

/// What is in a server, in words; `None` = nothing.
pub fn contents(keys: &BTreeMap<u32, u64>, functions: usize) -> Option<String> {
    let mut parts: Vec<String> =
        keys.iter().map(|(db, n)| format!("{n} key{} in db {db}", if *n == 1 { "" } else { "s" })).collect();
    if functions > 0 {
        parts.push(format!("{functions} function librar{}", if functions == 1 { "y" } else { "ies" }));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Why a server takes no writes because of its own disk: the rules of `writeCommandsDeniedByDiskError` in `server.c`.
fn disk_trouble(server: &mut Server, info: &Info) -> Result<Option<String>, RestoreError> {
    if info.get("aof_last_write_status") == Some("err") {
        return Ok(Some("it could not write its append-only file (aof_last_write_status:err)".to_owned()));
    }
    if info.get("rdb_last_bgsave_status") != Some("err") {
        return Ok(None);
    }
    let is = |setting: Option<String>, value| setting.as_deref() == Some(value);
    if is(server.setting("stop-writes-on-bgsave-error")?, "no") || is(server.setting("save")?, "") {
        return Ok(None);
    }
    Ok(Some("its last save to disk failed (rdb_last_bgsave_status:err)".to_owned()))
}

/// Which of these commands the server does not know.
pub fn unknown_commands<'a>(
    server: &mut Server,
    names: impl Iterator<Item = &'a Vec<u8>>,
) -> Result<Vec<String>, RestoreError> {
    let names: Vec<&Vec<u8>> = names.collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut args: Vec<&[u8]> = vec![b"COMMAND", b"INFO"];
    let known: Vec<Vec<u8>> = names.iter().map(|n| server.names().get(n).to_vec()).collect();
    args.extend(known.iter().map(Vec::as_slice));
    // Not allowed to ask: the link's own checks will tell.
    let Reply::Value(Value::Array(rows)) = server.try_call(&args)? else { return Ok(Vec::new()) };
    let unknown = names.iter().zip(&rows).filter(|(_, row)| match row {
        Value::Nil => true,
        Value::Array(fields) => fields.is_empty(),
        _ => false,
    });
    Ok(unknown.map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect())
}
