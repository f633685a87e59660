//! What a server says of its own limits, beside memory. Only reads; what it does not tell is `None`.

use crate::client::{Info, Reply, Server};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};

/// Databases that are looked for by `SELECT` at most.
const DATABASES_MAX: u32 = 1 << 20;
/// What nearly every server has.
const USUAL_DATABASES: u32 = 16;

/// Limits of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// Number of databases.
    pub databases: Option<u32>,
    /// Largest argument of a command (`proto-max-bulk-len`).
    pub bulk_bytes: Option<u64>,
    /// Largest command (`client-query-buffer-limit`).
    pub query_bytes: Option<u64>,
    /// It keeps its data on its disk: saves now and then, or an append-only file.
    pub persists: Option<bool>,
    /// Why it takes no writes for want of replicas.
    pub few_replicas: Option<String>,
}

impl ServerLimits {
    /// Asks the server.
    pub(crate) fn read(server: &mut Server, info: &Info) -> Result<Self, RestoreError> {
        let number = |setting: Option<String>| setting.and_then(|n| n.parse().ok());
        Ok(Self {
            databases: databases(server)?,
            bulk_bytes: number(server.setting("proto-max-bulk-len")?),
            query_bytes: number(server.setting("client-query-buffer-limit")?),
            persists: match info.get("aof_enabled") {
                Some("1") => Some(true),
                _ => server.setting("save")?.map(|save| !save.is_empty()),
            },
            few_replicas: few_replicas(server, info)?,
        })
    }

    /// Bytes of the largest value that one `RESTORE` can bring; `None` = the server tells neither limit.
    pub(crate) fn value_bytes(&self) -> Option<u64> {
        /// The rest of the command; a key's name comes on top.
        const AROUND: u64 = 128;
        let query = self.query_bytes.map(|bytes| bytes.saturating_sub(AROUND));
        self.bulk_bytes.into_iter().chain(query).min()
    }
}

/// Number of databases: what the setting says, or else the first number that `SELECT` refuses.
fn databases(server: &mut Server) -> Result<Option<u32>, RestoreError> {
    if let Some(databases) = server.setting("databases")?.and_then(|n| n.parse().ok()) {
        return Ok(Some(databases));
    }
    let found = first_missing(&mut |db| has_database(server, db))?;
    if found.is_some() {
        server.call(&["SELECT", "0"])?;
    }
    Ok(found)
}

/// `None` = that cannot be seen.
fn has_database(server: &mut Server, db: u32) -> Result<Option<bool>, RestoreError> {
    Ok(match server.try_call(&["SELECT", &db.to_string()])? {
        Reply::Value(_) => Some(true),
        Reply::Error(e) if meaning(&e.code) == Refusal::Plain => Some(false),
        Reply::Error(_) => None,
    })
}

/// The lowest number that `has` denies, found by halving; numbers below it are there.
fn first_missing(has: &mut dyn FnMut(u32) -> Result<Option<bool>, RestoreError>) -> Result<Option<u32>, RestoreError> {
    if has(0)? != Some(true) {
        return Ok(None);
    }
    let (mut there, mut missing) = (0, USUAL_DATABASES);
    while has(missing)? == Some(true) {
        if missing >= DATABASES_MAX {
            return Ok(None);
        }
        (there, missing) = (missing, missing * 2);
    }
    while missing - there > 1 {
        let middle = there + (missing - there) / 2;
        if has(middle)? == Some(true) { there = middle } else { missing = middle }
    }
    Ok(Some(missing))
}

/// The rule of `checkGoodReplicasStatus` in `replication.c`.
fn few_replicas(server: &mut Server, info: &Info) -> Result<Option<String>, RestoreError> {
    // Told only where some are asked for.
    let Some(good) = info.number("min_slaves_good_slaves") else { return Ok(None) };
    let wanted = server.setting("min-replicas-to-write")?.and_then(|n| n.parse::<u64>().ok()).unwrap_or(1);
    Ok((good < wanted).then(|| {
        format!("{good} of the replicas that it needs for writes are connected, not {wanted} (min-replicas-to-write)")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_counted_by_halving() {
        for databases in [1u32, 2, 15, 16, 17, 1000] {
            let mut asked = 0;
            let found = first_missing(&mut |db| {
                asked += 1;
                Ok(Some(db < databases))
            });
            assert_eq!(found.expect("asked"), Some(databases));
            assert!(asked < 24, "{databases}: {asked}");
        }
        assert_eq!(first_missing(&mut |_| Ok(None)).expect("asked"), None);
        assert_eq!(first_missing(&mut |_| Ok(Some(true))).expect("asked"), None);
    }

    #[test]
    fn the_smaller_of_two_limits_counts() {
        let limits = |bulk_bytes, query_bytes| ServerLimits { bulk_bytes, query_bytes, ..ServerLimits::default() };
        assert_eq!(limits(Some(1000), Some(5000)).value_bytes(), Some(1000));
        assert_eq!(limits(Some(5000), Some(1000)).value_bytes(), Some(872));
        assert_eq!(limits(None, Some(1000)).value_bytes(), Some(872));
        assert_eq!(limits(None, None).value_bytes(), None);
    }
}
