//! The command line: the contract with users and scripts.

use clap::Parser;

use crate::commands::Command;
use crate::logging;

/// Transparent proxy for Redis and Valkey: records every write in a journal and restores any point in time.
#[derive(Debug, Parser)]
#[command(name = "redtape", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Write the log as JSON lines instead of text.
    #[arg(long, global = true, env = "REDTAPE_LOG_JSON", help_heading = None::<&str>)]
    pub log_json: bool,
}

const EXAMPLES: &str = "Examples:
  # Record; applications connect to port 6400.
  redtape proxy --upstream redis://127.0.0.1:6379 --dir journal
  # Who deleted what, and when?
  redtape log --from journal --command 'FLUSH*' --command DEL
  # What would an undo change?
  redtape undo --client intern --since '1h ago' --from journal --to redis://127.0.0.1:6400 --plan
  # Restore into an empty server.
  redtape restore --from journal --at '10m ago' --to redis://127.0.0.1:6380
`redtape COMMAND --help` describes every option of a command.";

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
    use std::collections::BTreeMap;

    use clap::{Command, CommandFactory as _};

    /// Of every command; they have no heading of their own.
    const GENERAL: [&str; 4] = ["config", "log-json", "help", "version"];

    fn leaves(command: &Command, visit: &mut dyn FnMut(&Command)) {
        let mut subcommands = command.get_subcommands().filter(|sub| sub.get_name() != "help").peekable();
        if subcommands.peek().is_none() {
            visit(command);
        }
        subcommands.for_each(|sub| leaves(sub, visit));
    }

    #[test]
    fn an_option_has_one_heading_in_every_command() {
        let mut headings: BTreeMap<String, (Option<String>, String)> = BTreeMap::new();
        let mut command = super::Args::command();
        command.build();
        leaves(&command, &mut |command| {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let heading = arg.get_help_heading().map(str::to_owned);
                let place = command.get_display_name().unwrap_or_default().to_owned();
                assert_eq!(heading.is_none(), GENERAL.contains(&long), "{place} --{long} stands under {heading:?}");
                let first = headings.entry(long.to_owned()).or_insert_with(|| (heading.clone(), place.clone()));
                assert_eq!(first.0, heading, "--{long} of {} and of {place}", first.1);
            }
        });
        assert!(headings.len() > 100, "{}", headings.len());
        for (prefix, heading) in
            [("to-tls-", "TLS to the target"), ("upstream-tls-", "TLS to the server"), ("tls-", "TLS to clients")]
        {
            for (long, (found, _)) in headings.iter().filter(|(long, _)| long.starts_with(prefix)) {
                assert!(found.as_ref().is_some_and(|found| found.starts_with(heading)), "--{long}: {found:?}");
            }
        }
    }

    #[test]
    fn every_command_says_what_it_does_and_has_examples() {
        let mut command = super::Args::command();
        command.build();
        leaves(&command, &mut |command| {
            let name = command.get_display_name().unwrap_or_default().replacen('-', " ", 2);
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!((20..=110).contains(&about.len()), "{name}: {about:?}");
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.starts_with("Examples:\n"), "{name}: {examples:?}");
            assert!(examples.contains(&format!("  {name}")), "{name}: {examples:?}");
            for arg in command.get_arguments() {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(!help.is_empty(), "{name} {} has no help", arg.get_id());
            }
        });
    }
}
