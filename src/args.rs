//! The command line: the contract with users and scripts.

use clap::Parser;

use crate::commands::Command;
use crate::logging;

/// A flight recorder for Redis and Valkey: applications talk to it as to Redis, it keeps every
/// write on tape and brings back any microsecond.
#[derive(Debug, Parser)]
#[command(name = "redtape", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Log in JSON lines instead of text.
    #[arg(long, global = true, env = "REDTAPE_LOG_JSON", help_heading = None::<&str>)]
    pub log_json: bool,
}

impl Args {
    /// The command runs until it is stopped.
    pub(crate) fn runs_on(&self) -> bool {
        matches!(self.command, Command::Proxy(_) | Command::Follow(_))
    }
}

/// Logs go to stderr; `RUST_LOG` says how much, `info` by default for what runs on and `warn` for the rest.
pub(crate) fn init_log(args: &Args) {
    let default = if args.runs_on() { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    logging::start(filter, args.log_json, args.runs_on());
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    /// Under which heading an option belongs that has one in `redtape proxy`.
    fn heading(long: &str) -> Option<&'static str> {
        match long {
            "listen"
            | "unixsocketperm"
            | "proxy-protocol"
            | "sharing"
            | "ack"
            | "on-journal-failure"
            | "maxclients"
            | "timeout"
            | "tcp-keepalive"
            | "handshake-timeout"
            | "client-output-buffer-limit"
            | "client-memory"
            | "admin-users"
            | "workers" => Some("Clients"),
            "retention" | "journal-max-size" | "snapshot-every" | "snapshot-at" | "snapshot-rate" => {
                Some("Retention and snapshots")
            }
            "automatic-marks" | "mass-delete-keys" | "mass-delete-seconds" => Some("Automatic marks"),
            _ if long.starts_with("upstream-tls-") => Some("TLS towards the server (rediss://)"),
            _ if long.starts_with("tls-") => Some("TLS towards clients"),
            _ => None,
        }
    }

    fn walk(command: &Command, path: &str, seen: &mut usize) {
        const FILTERS: [&str; 6] = ["command", "client", "user", "origin", "field", "grep"];
        const KEYS: [&str; 7] = ["key", "exact-key", "keys-from", "key-regex", "exclude-key", "db", "type"];
        let of_the_proxy = command.get_arguments().any(|arg| arg.get_long() == Some("segment-mib"));
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            let found = arg.get_help_heading();
            let under = |heading: &str| found.is_some_and(|found| found.starts_with(heading));
            if under("Filters (") || under("Keys (") {
                let known = if under("Keys (") { &KEYS[..] } else { &FILTERS };
                assert!(known.contains(&long), "{path} --{long} stands under {found:?}");
            } else if of_the_proxy || found.is_some() {
                assert_eq!(found, heading(long), "{path} --{long}");
            }
            *seen += usize::from(found.is_some());
        }
        for sub in command.get_subcommands() {
            walk(sub, &format!("{path} {}", sub.get_name()), seen);
        }
    }

    #[test]
    fn every_option_stands_under_its_own_heading() {
        let (mut command, mut seen) = (super::Args::command(), 0);
        command.build();
        walk(&command, "redtape", &mut seen);
        assert!(seen > 80, "{seen}");
    }
}
