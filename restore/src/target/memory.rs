//! What a server tells of its memory limit, and of keys that it gave up for it.
//!
//! A server over its `maxmemory` evicts when it next runs a command, some keys at a time, unless its policy is `noeviction`: then
//! it refuses writes. A replica does neither by default (`replica-ignore-maxmemory`), so that the keys go only when a restored
//! server is promoted.

use std::time::{Duration, Instant};

use crate::client::{Info, Server};
use crate::error::RestoreError;

/// How long a server is waited for that evicts.
const EVICTION_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A server that is over its limit and has evicted nothing more in so many looks cannot.
const LOOKS_WITHOUT_MOVE: u32 = 10;

/// Memory and evictions of a server, from `INFO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryState {
    /// Its memory limit, 0 = none; `None` = it does not tell.
    pub limit: Option<u64>,
    /// What it does at the limit.
    pub policy: String,
    /// Bytes in use that count for the limit.
    pub used: u64,
    /// Keys evicted since it was started.
    pub evicted: u64,
}

impl MemoryState {
    /// Reads all sections, or `memory` and `stats`.
    pub fn of(info: &Info) -> Self {
        let number = |name| info.number(name);
        Self {
            limit: number("maxmemory"),
            policy: info.get("maxmemory_policy").unwrap_or("noeviction").to_owned(),
            used: number("used_memory").unwrap_or(0).saturating_sub(number("mem_not_counted_for_evict").unwrap_or(0)),
            evicted: number("evicted_keys").unwrap_or(0),
        }
    }

    /// It is over its limit.
    pub fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| limit > 0 && self.used > limit)
    }

    /// At the limit it gives up keys.
    pub fn evicts(&self) -> bool {
        self.policy != "noeviction"
    }

    /// What is to be done about a server that evicts.
    pub(crate) fn advice(&self, evicted: u64) -> String {
        format!(
            "it has evicted {evicted} since (maxmemory {} bytes, maxmemory-policy {}). Raise maxmemory, empty it and restore again, or restore to a server with more memory",
            self.limit.unwrap_or(0),
            self.policy
        )
    }

    /// Asks the server.
    pub(crate) fn ask(server: &mut Server) -> Result<Self, RestoreError> {
        Ok(Self::of(&server.info(None)?))
    }

    /// Asks again until a server that evicts is through with it.
    pub(crate) fn settled(server: &mut Server) -> Result<Self, RestoreError> {
        let start = Instant::now();
        let mut memory = Self::ask(server)?;
        let mut idle = 0;
        while memory.is_over() && memory.evicts() && idle < LOOKS_WITHOUT_MOVE && start.elapsed() < EVICTION_LIMIT {
            std::thread::sleep(LOOK_EVERY);
            let next = Self::ask(server)?;
            idle = if next.evicted == memory.evicted { idle + 1 } else { 0 };
            memory = next;
        }
        Ok(memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_the_limit_or_not() {
        let memory = |text: &str| MemoryState::of(&Info::parse(text));
        let full = memory(
            "maxmemory:100\nmaxmemory_policy:allkeys-lru\nused_memory:150\nmem_not_counted_for_evict:40\nevicted_keys:3\n",
        );
        assert_eq!((full.limit, full.used, full.evicted), (Some(100), 110, 3));
        assert!(full.is_over() && full.evicts());
        assert!(!memory("maxmemory:100\nused_memory:150\nmem_not_counted_for_evict:50\n").is_over());
        assert!(!memory("maxmemory:0\nused_memory:150\n").is_over());
        let silent = memory("used_memory:150\n");
        assert!(silent.limit.is_none() && !silent.is_over() && !silent.evicts());
        assert!(full.advice(3).contains("evicted 3") && full.advice(3).contains("allkeys-lru"));
    }
}
