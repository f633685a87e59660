//! `redtape config check | show`.

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand};

use redtape_journal::KEYS_VARIABLE;

use super::settings::ProxySettings;
use crate::exit::{Failure, USAGE};
use crate::output::out;

const CHECK_EXAMPLES: &str = "Examples:
  redtape config check --config redtape.toml";

const SHOW_EXAMPLES: &str = "Examples:
  redtape config show --config redtape.toml --maxclients 5000";

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the settings of redtape proxy, TLS files included; nothing is started or changed.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Box<ConfigArgs>),
    /// Print the settings in force as redtape.toml, secrets as ***, and where each comes from.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Box<ConfigArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(flatten)]
    settings: ProxySettings,
}

/// Runs the command; `matches` tells flags from the environment.
pub(crate) fn run(command: ConfigCommand, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check(args) => check(&args.settings),
        ConfigCommand::Show(args) => show(&args.settings, matches),
    }
}

fn check(settings: &ProxySettings) -> anyhow::Result<ExitCode> {
    let config = settings.config()?;
    let warnings = config.check().map_err(|e| Failure::new(USAGE, e))?;
    let mut text = String::new();
    for warning in warnings {
        text += &format!("warning: {warning}\n");
    }
    text += "the settings are good\n";
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn show(settings: &ProxySettings, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let config = settings.config()?;
    let file = settings.follow.file.read()?;
    let matches = matches.subcommand_matches("config").and_then(|m| m.subcommand_matches("show"));
    let mut text = "# The settings in force. Passwords are shown as ***: do not use this as it is.\n".to_owned();
    for setting in config.settings() {
        let name = setting.name;
        let source = given(matches, name).or_else(|| file.place(name)).unwrap_or_else(|| "default".to_owned());
        let live = if setting.live { "; SIGHUP changes it" } else { "" };
        if setting.value.is_null() {
            text += &format!("# {name} is not set\n");
        } else {
            text += &format!("{name} = {}  # {source}{live}\n", toml::Value::try_from(&setting.value)?);
        }
    }
    if std::env::var_os(KEYS_VARIABLE).is_some() {
        text += &format!("# {KEYS_VARIABLE} = ***\n");
    }
    if let Some(current) = config.keyring.current() {
        let ids: Vec<String> = config.keyring.ids().map(|id| format!("`{id}`")).collect();
        text +=
            &format!("# the journal is encrypted with the key `{current}`; keys to read with: {}\n", ids.join(", "));
    }
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// By a flag or in the environment.
fn given(matches: Option<&ArgMatches>, name: &str) -> Option<String> {
    let matches = matches?;
    let id = name.replace('-', "_");
    // Not every option can be given so.
    matches.try_contains_id(&id).ok()?;
    match matches.value_source(&id)? {
        ValueSource::CommandLine => Some(format!("--{name}")),
        ValueSource::EnvVariable => Some(format!("environment, REDTAPE_{}", id.to_ascii_uppercase())),
        _ => None,
    }
}
