//! The input of a restore.

use std::path::PathBuf;

use redtape_journal::query::{AsOf, When, WriteQuery, Zone};
use redtape_journal::{Keyring, Micros};

use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::plan::ForcedMethod;
use crate::target::Target;
use crate::target::repair::Policy;
use redtape_journal::query::Filter;

/// One restore, as it is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The journal's directory.
    pub from: PathBuf,
    /// The keys of an encrypted journal.
    pub keyring: Keyring,
    /// The point in time.
    pub as_of: AsOf,
    /// The time zone of times without one.
    pub zone: Zone,
    /// The target.
    pub to: Target,
    /// Fill a target with too small a `maxmemory` anyway, with evictions.
    pub accept_eviction: bool,
    /// Which keys.
    pub filter: Filter,
    /// Only what the wanted keys depend on is read and replayed ([`mod@crate::slice`]), as opposed to everything.
    pub slice: bool,
    /// What to do with wanted keys that the target holds; `None` = not given: such keys are a conflict, and a restore
    /// of everything needs an empty target.
    pub repair: Option<Policy>,
    /// For a merge: only parts last written by these writes go back.
    pub broken_by: Option<WriteQuery>,
    /// For a repair: only keys that the target holds as recorded at this point in time are written.
    pub unchanged_since: Option<When>,
    /// For a repair: limit of keys written per second.
    pub rate: Option<u32>,
    /// Directory of undo files; `None` = the default.
    pub state_dir: Option<PathBuf>,
    /// The method, if the user chose one.
    pub method: Option<ForcedMethod>,
    /// The scratch server's program, if the user chose one.
    pub server_bin: Option<PathBuf>,
    /// The present, for "ago".
    pub now: Micros,
    /// Ends the restore when it is set.
    pub interrupt: Interrupt,
    /// Time limits for servers.
    pub limits: Limits,
}

/// What a command asks for that reads a dataset and writes to no target.
pub(crate) struct Reading {
    pub(crate) from: PathBuf,
    pub(crate) keyring: Keyring,
    pub(crate) as_of: AsOf,
    pub(crate) zone: Zone,
    pub(crate) filter: Filter,
    pub(crate) slice: bool,
    pub(crate) server_bin: Option<PathBuf>,
    pub(crate) now: Micros,
    pub(crate) interrupt: Interrupt,
    pub(crate) limits: Limits,
}

impl From<Reading> for Request {
    fn from(reading: Reading) -> Self {
        let Reading { from, keyring, as_of, zone, filter, slice, server_bin, now, interrupt, limits } = reading;
        Self {
            from,
            keyring,
            as_of,
            zone,
            to: Target::Reader,
            accept_eviction: false,
            filter,
            slice,
            repair: None,
            broken_by: None,
            unchanged_since: None,
            rate: None,
            state_dir: None,
            method: None,
            server_bin,
            now,
            interrupt,
            limits,
        }
    }
}

impl Request {
    /// Replaces everything in the target.
    pub fn replaces_all(&self) -> bool {
        self.repair.as_ref().is_some_and(|policy| policy.replace_all)
    }

    /// Only what the wanted keys depend on is read and replayed. A history that is kept is whole.
    pub(crate) fn slices(&self) -> bool {
        self.slice && !matches!(&self.to, Target::File(file) if file.history)
    }

    /// True without a selection and with an empty target; false if wanted keys are written into a target that may hold
    /// others.
    pub fn is_whole(&self) -> bool {
        self.filter.is_everything() && self.repair.is_none()
    }
}
