//! What is asked for.

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
    /// What it is encrypted with, if it is.
    pub keyring: Keyring,
    /// The point in time.
    pub as_of: AsOf,
    /// The zone of times that do not say theirs.
    pub zone: Zone,
    /// Where the dataset goes.
    pub to: Target,
    /// A target with too small a `maxmemory` is filled all the same, and evicts.
    pub accept_eviction: bool,
    /// Which keys.
    pub filter: Filter,
    /// Only what the wanted keys depend on is read and replayed ([`mod@crate::slice`]), as opposed to everything.
    pub slice: bool,
    /// What is done where the target holds wanted keys; `None` = not asked for: such keys are a conflict, and everything goes
    /// into an empty target only.
    pub repair: Option<Policy>,
    /// Of a repair that merges: only what these writes wrote last goes back.
    pub broken_by: Option<WriteQuery>,
    /// Of a repair: only keys that the target holds as they were recorded at this moment are written.
    pub unchanged_since: Option<When>,
    /// Of a repair: keys that are written in a second at most.
    pub rate: Option<u32>,
    /// Where the undo files of repairs are; `None` = the usual place.
    pub state_dir: Option<PathBuf>,
    /// By which method, if the person insists.
    pub method: Option<ForcedMethod>,
    /// Which scratch server, if the person insists.
    pub server_bin: Option<PathBuf>,
    /// The present, for "ago".
    pub now: Micros,
    /// Ends the restore when it is set.
    pub interrupt: Interrupt,
    /// How long servers are waited for.
    pub limits: Limits,
}

impl Request {
    /// What the target holds makes room for what is wanted.
    pub fn replaces_all(&self) -> bool {
        self.repair.as_ref().is_some_and(|policy| policy.replace_all)
    }

    /// Only what the wanted keys depend on is read and replayed. A history that is kept is whole.
    pub(crate) fn slices(&self) -> bool {
        self.slice && !matches!(&self.to, Target::File(file) if file.history)
    }

    /// Everything is wanted, in an empty target; else wanted keys are written into a target that may hold others.
    pub fn is_whole(&self) -> bool {
        self.filter.is_everything() && self.repair.is_none()
    }
}
