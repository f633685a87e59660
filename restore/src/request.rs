//! What is asked for.

use std::path::PathBuf;

use redtape_journal::query::{AsOf, Zone};
use redtape_journal::{Keyring, Micros};

use crate::interrupt::Interrupt;
use crate::limits::Limits;
use crate::plan::ForcedMethod;
use crate::target::Target;
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
