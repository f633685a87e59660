//! The admin commands as data.

/// Prefix of their names, in lower case.
pub(super) const PREFIX: &[u8] = b"redtape.";
/// The module's name for clients.
pub(super) const MODULE: &str = "redtape";
/// The section in `INFO`.
pub(super) const SECTION: &str = "Redtape";

/// Which command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Info,
    Lsn,
    Mark,
    Snapshot,
    Get,
    Help,
}

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) id: Name,
    /// In lower case.
    pub(super) name: &'static str,
    /// Exact number of arguments, including the name.
    pub(super) arity: usize,
    /// Only for `admin-users`.
    pub(super) admin: bool,
    /// A summary in one line.
    pub(super) summary: &'static str,
    /// Names of the arguments after the command's name.
    pub(super) args: &'static [&'static str],
}

/// All commands, in the order of the listing.
pub(super) const COMMANDS: [Command; 6] = [
    Command {
        id: Name::Info,
        name: "redtape.info",
        arity: 1,
        admin: false,
        summary: "State of the proxy and its journal; the same as the section of INFO",
        args: &[],
    },
    Command {
        id: Name::Lsn,
        name: "redtape.lsn",
        arity: 1,
        admin: false,
        summary: "Number of the last journaled effect: captured, written, durable",
        args: &[],
    },
    Command {
        id: Name::Mark,
        name: "redtape.mark",
        arity: 2,
        admin: true,
        summary: "Names the present point in time, behind every acknowledged write, for restore --at mark:NAME",
        args: &["name"],
    },
    Command {
        id: Name::Snapshot,
        name: "redtape.snapshot",
        arity: 1,
        admin: true,
        summary: "Takes a full copy into the journal, so that later restores start from it",
        args: &[],
    },
    Command {
        id: Name::Get,
        name: "redtape.get",
        arity: 3,
        admin: true,
        summary: "What a key of the selected database held at a point in time, and who wrote it last, as JSON",
        args: &["key", "when"],
    },
    Command {
        id: Name::Help,
        name: "redtape.help",
        arity: 1,
        admin: false,
        summary: "What the commands do",
        args: &[],
    },
];

impl Command {
    /// Its flags in `COMMAND`; servers since 7.0 add a flag to modules' commands.
    pub(super) fn flags(&self, since_7: bool) -> Vec<&'static str> {
        let mut flags = if self.admin { vec!["admin", "noscript"] } else { vec!["readonly", "noscript"] };
        if since_7 {
            flags.insert(1, "module");
        }
        flags.extend(["loading", "stale"]);
        if !self.admin {
            flags.push("fast");
        }
        if since_7 {
            flags.push("no_multi");
        }
        flags
    }

    /// Its ACL categories, without the `@`.
    pub(super) fn categories(&self) -> &'static [&'static str] {
        if self.admin { &["admin", "slow", "dangerous"] } else { &["read", "fast"] }
    }
}

/// The reply to `REDTAPE.HELP`, laid out as Redis's own `HELP` subcommands do.
pub(super) const HELP: &[&str] = &[
    "REDTAPE.<command> [<arg>]. Commands are:",
    "INFO",
    "    State of the proxy and its journal; also in INFO, section redtape.",
    "LSN",
    "    Number of the last effect that was captured, written, and made durable.",
    "MARK <name>",
    "    Name the present point in time, behind every acknowledged write (admin-users only).",
    "    `redtape restore --at mark:<name>` goes back to it.",
    "SNAPSHOT",
    "    Take a full copy into the journal (admin-users only).",
    "GET <key> <when>",
    "    What a key of the selected database held then, and who wrote it last, as JSON (admin-users only).",
    "HELP",
    "    Print this help.",
];
