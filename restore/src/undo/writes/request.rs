//! What is asked for.

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
    /// What it is encrypted with, if it is.
    pub keyring: Keyring,
    /// Which writes are undone: by whom, with which command, when.
    pub writes: WriteQuery,
    /// On which keys.
    pub keys: Filter,
    /// Writes of unknown origin that may be among them are undone as well.
    pub include_unknown: bool,
    /// What later writes that read it have made of it is computed anew, rather than left.
    pub include_dependent: bool,
    /// The zone of times that do not say theirs.
    pub zone: Zone,
    /// The server that is recorded.
    pub to: ServerAddress,
    /// Which scratch server, if the person insists.
    pub server_bin: Option<PathBuf>,
    /// Where undo files are; `None` = the usual place.
    pub state_dir: Option<PathBuf>,
    /// The present, for "ago".
    pub now: Micros,
    /// Ends it when it is set.
    pub interrupt: Interrupt,
    /// How long servers are waited for.
    pub limits: Limits,
}

impl UndoWritesRequest {
    /// The request for one of the datasets: of these keys, as they were behind a record.
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
