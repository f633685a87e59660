//! The input of an undo of writes.

use std::path::PathBuf;

use redtape_journal::query::{AsOf, When, WriteQuery, Zone};
use redtape_journal::{Keyring, Lsn, Micros};

use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::plan::ForcedMethod;
use crate::request::Request;
use crate::target::{ServerAddress, Target};
use redtape_journal::query::Filter;

/// One undo of writes.
#[derive(Debug, Clone)]
pub struct UndoWritesRequest {
    /// The journal's directory.
    pub from: PathBuf,
    /// The keys of an encrypted journal.
    pub keyring: Keyring,
    /// Selects the writes: by client, command and time.
    pub writes: WriteQuery,
    /// On which keys.
    pub keys: Filter,
    /// Also undo writes of unknown origin that may match.
    pub include_unknown: bool,
    /// Recompute the results of later writes that depend on them, instead of leaving them.
    pub include_dependent: bool,
    /// The time zone of times without one.
    pub zone: Zone,
    /// The recorded server.
    pub to: ServerAddress,
    /// The scratch server's program, if the user chose one.
    pub server_bin: Option<PathBuf>,
    /// Directory of undo files; `None` = the default.
    pub state_dir: Option<PathBuf>,
    /// The present, for "ago".
    pub now: Micros,
    /// Ends the undo when it is set.
    pub interrupt: Interrupt,
    /// Time limits for servers.
    pub limits: Limits,
}

impl UndoWritesRequest {
    /// The request for one of the datasets: these keys after a record.
    pub(super) fn dataset(&self, filter: Filter, at: Lsn) -> Request {
        Request {
            from: self.from.clone(),
            keyring: self.keyring.clone(),
            as_of: AsOf::At(When::Lsn(at)),
            zone: self.zone.clone(),
            to: Target::Server(self.to.clone()),
            accept_eviction: false,
            filter,
            slice: true,
            repair: Some(crate::target::repair::Policy::default()),
            broken_by: None,
            unchanged_since: None,
            rate: None,
            state_dir: self.state_dir.clone(),
            method: Some(ForcedMethod::Scratch),
            server_bin: self.server_bin.clone(),
            now: self.now,
            interrupt: self.interrupt.clone(),
            limits: self.limits,
        }
    }
}
