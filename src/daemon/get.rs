//! What answers `REDTAPE.GET`: `redtape get --json` of this process's own journal, within bounds.
//!
//! It works beside the clients of a server that is in use. So it may take less time and memory than the command, and what
//! is too large for it is refused with a hint at the command, which can run elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redtape_capture::KeyringHandle;
use redtape_journal::query::{AsOf, When, Zone};
use redtape_journal::{Keyring, Micros};
use redtape_proxy::{KeyQuery, KeyReader, ReadFailure};
use redtape_restore::get::{Bounds, GetRequest, get};
use redtape_restore::{ErrorKind, Interrupt, Limits, RestoreError, Silent};

use crate::get::json::{Part, object};

/// A scratch server that owes a reply is given up after so long.
const REPLY_MAX: Duration = Duration::from_secs(10);
/// What a value may take in memory; the reply is a few times as long at most.
const VALUE_BYTES_MAX: u64 = 4 << 20;
/// Elements of a value that are listed.
const ELEMENTS_MAX: usize = 1000;

/// What one answer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GetLimits {
    /// It is given up after so long.
    time: Duration,
    /// What a scratch server is given at most.
    dataset_bytes: u64,
}

impl Default for GetLimits {
    fn default() -> Self {
        Self { time: Duration::from_mins(1), dataset_bytes: 1 << 30 }
    }
}

impl GetLimits {
    /// Those in force. Tests of the whole program would need a minute and a GiB to meet them: a program that is built for tests takes
    /// others from its environment (seconds, bytes).
    pub(super) fn in_force() -> Self {
        let others = cfg!(debug_assertions).then(|| std::env::var("REDTAPE_TEST_GET_LIMITS").ok()).flatten();
        others.and_then(|limits| Self::parse(&limits)).unwrap_or_default()
    }

    fn parse(limits: &str) -> Option<Self> {
        let (seconds, bytes) = limits.split_once(' ')?;
        Some(Self { time: Duration::from_secs(seconds.parse().ok()?), dataset_bytes: bytes.parse().ok()? })
    }
}

/// Reads keys of the journal in a directory.
#[derive(Debug)]
pub(super) struct PastKeys {
    pub(super) dir: PathBuf,
    pub(super) keyring: KeyringHandle,
    pub(super) limits: GetLimits,
}

impl KeyReader for PastKeys {
    fn read(&self, query: &KeyQuery) -> Result<String, ReadFailure> {
        let when: When = query.when.parse().map_err(|e| ReadFailure { code: "ERR", message: format!("{e}") })?;
        let request = GetRequest {
            from: self.dir.clone(),
            keyring: Keyring::clone(&self.keyring.load()),
            as_of: AsOf::At(when),
            // Where the client is, is not known.
            zone: Zone::utc(),
            now: Micros::now(),
            db: query.db,
            elsewhere: false,
            key: query.key.clone(),
            server_bin: None,
            interrupt: Interrupt::by(Arc::clone(&query.cancelled)).within(self.limits.time),
            limits: Limits { reply: REPLY_MAX, ..Limits::default() },
            bounds: Bounds { value_bytes: VALUE_BYTES_MAX, dataset_bytes: Some(self.limits.dataset_bytes) },
        };
        let got = get(&request, &mut Silent).map_err(|error| failure(&error))?;
        Ok(object(&got, Part::Whole(ELEMENTS_MAX)).to_string())
    }
}

fn failure(error: &RestoreError) -> ReadFailure {
    let code = match error.kind() {
        ErrorKind::Storage(_) => "JOURNAL",
        _ => "ERR",
    };
    ReadFailure { code, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_and_what_is_no_journal_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let (keyring, limits) = (KeyringHandle::default(), GetLimits::default());
        let reader = PastKeys { dir: dir.path().join("none"), keyring, limits };
        let read = |when: &str| {
            let query = KeyQuery { key: b"k".to_vec(), db: 0, when: when.to_owned(), cancelled: Arc::default() };
            reader.read(&query).expect_err(when)
        };
        let refused = read("tomorrow");
        assert!(refused.code == "ERR" && refused.message.contains("is not a point in time"), "{refused:?}");
        let refused = read("latest");
        assert!(refused.code == "JOURNAL" && refused.message.contains("cannot open the journal"), "{refused:?}");
    }

    #[test]
    fn the_limits_are_a_minute_and_a_gib() {
        let GetLimits { time, dataset_bytes } = GetLimits::default();
        assert_eq!((time.as_secs(), dataset_bytes), (60, 1_073_741_824));
        assert_eq!(GetLimits::parse("2 4096"), Some(GetLimits { time: Duration::from_secs(2), dataset_bytes: 4096 }));
        assert_eq!([GetLimits::parse("2"), GetLimits::parse("2 x"), GetLimits::parse("")], [None; 3]);
    }
}
