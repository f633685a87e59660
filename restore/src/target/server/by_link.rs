//! redtape is the target's master for a while: with what the journal holds, or with the result of a scratch server.

use redtape_journal::Group;

use super::digest::compare_digests;
use super::room::{self, Carrier};
use super::{ServerTarget, full_warning};
use crate::client::Server;
use crate::error::RestoreError;
use crate::progress::Observer;
use crate::replica_link::{Delivered, Expected, Payload, Replica, deliver};
use crate::source::Source;
use crate::target::memory::MemoryState;
use crate::target::restored::Restored;

/// Sends base and journal; the target replays.
pub(super) fn restore(
    target: &mut ServerTarget,
    source: &Source,
    observer: &mut dyn Observer,
) -> Result<Restored, RestoreError> {
    let payload = source.payload()?;
    let delivered =
        deliver(replica(target), payload, observer, &mut |_, _| Ok(())).map_err(RestoreError::before_the_target)?;
    promoted(target, delivered, Vec::new())
}

/// A scratch server replays; the target gets what came out.
pub(super) fn restore_from_scratch(
    target: &mut ServerTarget,
    source: &Source,
    observer: &mut dyn Observer,
) -> Result<Restored, RestoreError> {
    let (mut scratch, replayed) = source.rebuild(observer)?;
    room::check(target, &mut scratch, &replayed.keys, Carrier::Link, observer)
        .map_err(RestoreError::before_the_target)?;
    let file = scratch.save()?;
    target.claim()?;
    let rdb_bytes = std::fs::metadata(&file).map_err(RestoreError::io("read", &file))?.len();
    let rdb = std::fs::File::open(&file).map_err(RestoreError::io("open", &file))?;
    let nothing: Vec<Group> = Vec::new();
    let payload = Payload { rdb: Box::new(rdb), rdb_bytes, replay: &nothing, records: 0 };
    let mut checks = Vec::new();
    // Fields of hashes that have expired by the target's clock are not in its digest.
    let still = !target.facts.version.has_field_ttl();
    let mut compare = |target: &mut Server, delivered: &Delivered| {
        if delivered.keys != replayed.keys || delivered.functions != replayed.functions {
            return Err(RestoreError::Verify(format!(
                "it holds {:?} keys and {} function libraries instead of {:?} and {}",
                delivered.keys, delivered.functions, replayed.keys, replayed.functions
            )));
        }
        checks.push("keys in each database and functions equal those of the scratch server".to_owned());
        checks.push(compare_digests(&mut scratch.server, target, &delivered.keys, still)?);
        Ok(())
    };
    let delivered =
        deliver(replica(target), payload, observer, &mut compare).map_err(RestoreError::before_the_target)?;
    promoted(target, delivered, checks)
}

/// The target as a replica of redtape.
fn replica(target: &mut ServerTarget) -> Replica<'_> {
    let port = target.facts.announced_port;
    let expected = Expected { port: (!target.facts.unix && port != 0).then_some(port), password: None };
    let accept_eviction = target.accept_eviction;
    Replica { server: &mut target.server, expected, clock: None, accept_eviction, interrupt: &target.interrupt }
}

/// What is in the target, when it was looked at after its promotion.
fn promoted(
    target: &mut ServerTarget,
    delivered: Delivered,
    mut checks: Vec<String>,
) -> Result<Restored, RestoreError> {
    let warnings = check_promoted(target, &delivered).map_err(|cause| RestoreError::Undone {
        cause: Box::new(cause),
        aftermath: "The target was promoted before: it is a master, and what it holds is not sure".to_owned(),
    })?;
    checks.extend(link_checks(&delivered));
    let Delivered { keys, functions, expired, .. } = delivered;
    Ok(Restored { keys, expired, functions, checks, warnings, outcome: None, file: None })
}

/// Looks at a target after its promotion: the same run of the server, a master, and nothing evicted.
fn check_promoted(target: &mut ServerTarget, delivered: &Delivered) -> Result<Vec<String>, RestoreError> {
    let memory = MemoryState::settled(&mut target.server)?;
    let info = target.server.info(None)?;
    let address = target.server.address.clone();
    if info.get("run_id").unwrap_or_default() != delivered.run_id {
        return Err(RestoreError::Unable(format!(
            "{address} was started again just after its promotion: see in its log why"
        )));
    }
    if info.get("role") != Some("master") {
        return Err(RestoreError::Unable(format!("{address} was made a replica just after its promotion")));
    }
    let evicted = memory.evicted.saturating_sub(delivered.memory.evicted);
    let mut warnings = Vec::from_iter(full_warning(&memory));
    if evicted > 0 && target.accept_eviction {
        warnings.push(format!("the target has evicted {evicted} of these keys (maxmemory-policy {})", memory.policy));
    } else if evicted > 0 {
        let meant = delivered.keys.values().sum();
        return Err(RestoreError::Lost { address, lost: evicted, meant, why: memory.advice(evicted) });
    }
    Ok(warnings)
}

fn link_checks(delivered: &Delivered) -> Vec<String> {
    vec![
        format!("the target acknowledged all {} bytes of the stream", delivered.stream_bytes),
        if delivered.errors_counted {
            "the target counted no error (unexpected_error_replies)".to_owned()
        } else {
            "errors could not be counted: the target is older than Redis 7.0".to_owned()
        },
    ]
}
