//! The headings under which `--help` shows options. An option has the same heading in every command; a test holds that.

/// Which journal, and how it is written.
pub(crate) const JOURNAL: &str = "Journal";
/// Points in time and ranges.
pub(crate) const TIME: &str = "Time";
/// Which keys: the options of [`crate::key_selection`], and those that a command adds to them.
pub(crate) const KEYS: &str =
    "Selection of keys (one kind: any; different kinds: all; exclusions last; names are one kind)";
/// Which writes.
pub(crate) const WRITES: &str = "Selection of writes (one kind: any; different kinds: all)";
/// The server that a command writes to.
pub(crate) const TARGET: &str = "Target";
/// Certificates of the connection to it.
pub(crate) const TARGET_TLS: &str = "TLS to the target (rediss://)";
/// A restore that does not go into a server.
pub(crate) const TARGET_FILE: &str = "Target file";
/// A restore that is shown to clients.
pub(crate) const TARGET_SERVE: &str = "Read-only server";
/// Keys that the target holds.
pub(crate) const CONFLICTS: &str = "Conflicts (keys that the target holds already)";
/// What an operation has overwritten.
pub(crate) const UNDO_FILE: &str = "Undo file";
/// How the data of a point in time is rebuilt and delivered.
pub(crate) const METHOD: &str = "Method";
/// What is printed, and what is asked first.
pub(crate) const OUTPUT: &str = "Plan and output";
/// The server that is recorded.
pub(crate) const SERVER: &str = "Server";
/// Certificates of the connection to it.
pub(crate) const SERVER_TLS: &str = "TLS to the server (rediss://)";
/// What is kept of the journal, and when snapshots are taken.
pub(crate) const RETENTION: &str = "Retention and snapshots";
/// Marks that are set without being asked for.
pub(crate) const MARKS: &str = "Automatic marks";
/// The clients of the proxy.
pub(crate) const CLIENTS: &str = "Clients";
/// Certificates of the connections to clients.
pub(crate) const CLIENTS_TLS: &str = "TLS to clients";
/// Metrics and health.
pub(crate) const MONITORING: &str = "Monitoring";
