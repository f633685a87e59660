//! What is asked of the servers before anything is changed anywhere: a wrong URL, password or server ends the start here.

use redtape_capture::{Judgement, Link, LinkError, Probe, Prober, Recorded, ServerFacts, is_unreachable};
use redtape_net::Connector;
use redtape_net::tls::TlsFailure;
use redtape_wire::command::CommandTable;

use super::common::Servers;
use super::config::Config;
use super::error::StartError;

const ADVICE_ACL: &str = "redtape needs a user with +psync +replconf on the server it follows and +role +info on the upstream; give its URL as redis://user:password@host or set REDTAPE_UPSTREAM_PASSWORD";

/// What is not covered where the upstream is a node of a cluster.
const CLUSTER: &str = "the upstream is a node of a cluster, of which redtape covers only this one: what is recorded, and can be restored, are the keys in its own slots; \
    replies that send clients to other nodes (MOVED, ASK, CLUSTER SLOTS, SHARDS and NODES) name those nodes' own addresses, so that clients go round redtape; \
    slots that move away and a failover to another node are not followed. Every node needs a redtape of its own";

/// What the upstream has answered.
pub(super) struct Found {
    /// Where its stream was.
    pub(super) first_probe: Probe,
    /// What it says of itself.
    pub(super) facts: ServerFacts,
    /// Its commands, if it lets us ask.
    pub(super) commands: Option<CommandTable>,
}

/// Asks all servers, and whether the journal may record them.
pub(super) async fn ask(config: &Config, servers: &Servers) -> Result<Found, StartError> {
    let found = greet(&servers.upstream).await?;
    may_follow(servers.source()).await?;
    if let Some(follow) = &servers.follow {
        is_replica_of(follow, &servers.upstream, &found.facts).await?;
    }
    may_record(config, &found.facts)?;
    Ok(found)
}

/// Asks the upstream who it is; nothing is changed anywhere.
async fn greet(to: &Connector) -> Result<Found, StartError> {
    let failed = |e: &redis::RedisError| {
        let address = to.address();
        if TlsFailure::is_in(e) {
            StartError::Tls { address, why: e.to_string() }
        } else if is_unreachable(e) {
            StartError::Unreachable { address, why: e.to_string() }
        } else {
            let why = e.detail().map_or_else(|| e.to_string(), str::to_owned);
            StartError::Refused { address, why, advice: ADVICE_ACL }
        }
    };
    let mut prober = Prober::connect(to).await.map_err(|e| failed(&e))?;
    let probe = prober.probe().await.map_err(|e| failed(&e))?;
    let facts = prober.facts().await.map_err(|e| failed(&e))?;
    tracing::info!(upstream = to.address(), software = facts.software, version = facts.version, "upstream found");
    if facts.cluster {
        tracing::warn!(upstream = to.address(), "{CLUSTER}");
    }
    Ok(Found { first_probe: probe, facts, commands: prober.commands().await })
}

/// Refuses a server with another history than the upstream's, if it tells (else capture finds out).
async fn is_replica_of(source: &Connector, upstream: &Connector, facts: &ServerFacts) -> Result<(), StartError> {
    let Ok(mut prober) = Prober::connect(source).await else { return Ok(()) };
    match prober.facts().await {
        Ok(found) if found.replid != facts.replid => {
            Err(StartError::Foreign { followed: source.address(), upstream: upstream.address() })
        }
        _ => Ok(()),
    }
}

/// Refuses a server that the journal does not record. One that loads its data is asked again by the capture.
fn may_record(config: &Config, facts: &ServerFacts) -> Result<(), StartError> {
    let recorded = Recorded::load(&config.dir)?;
    if facts.is_loading {
        return Ok(());
    }
    match recorded.judge(facts, &config.recorded_address(), config.accept_new_history) {
        Judgement::Unrelated(mismatch) => {
            Err(StartError::OtherServer { dir: config.dir.clone(), mismatch: Box::new(mismatch) })
        }
        _ => Ok(()),
    }
}

/// Whether the server would let us follow it: everything of the handshake but `PSYNC` itself.
async fn may_follow(source: &Connector) -> Result<(), StartError> {
    match Link::check(source).await {
        Ok(()) | Err(LinkError::Later { .. }) => Ok(()),
        Err(LinkError::Unreachable { address, source } | LinkError::Io { address, source }) => {
            let why = source.to_string();
            Err(if TlsFailure::is_in(&source) {
                StartError::Tls { address, why }
            } else {
                StartError::Unreachable { address, why }
            })
        }
        Err(LinkError::Refused { address, command, reply }) => {
            Err(StartError::Refused { address, why: format!("{command}: {reply}"), advice: ADVICE_ACL })
        }
    }
}
