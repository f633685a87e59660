//! `redtape proxy` and `redtape follow`.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::process::ExitCode;

use clap::Args;
use redtape_wire::settings::ListenAddr;

use super::embedded::EmbeddedServer;
use super::settings::{FollowSettings, ProxySettings};
use crate::daemon::{Config, Daemon, Reread, Started};
use crate::headings::SERVER;
use crate::{defect, logging};

/// As what a journal knows the server of `--embedded`.
const EMBEDDED: &str = "the server of --embedded";

const PROXY_EXAMPLES: &str = "Examples:
  redtape proxy --upstream redis://127.0.0.1:6379 --dir journal
  # Keep a week; a snapshot every six hours lets older ones go.
  redtape proxy --upstream redis://127.0.0.1:6379 --dir journal --retention 7d --snapshot-every 6h
  # Reply to a write when it is synced in the journal.
  redtape proxy --upstream redis://127.0.0.1:6379 --dir journal --ack journal
  # Try it out, without a server.
  redtape proxy --embedded --dir journal";

const FOLLOW_EXAMPLES: &str = "Examples:
  redtape follow --upstream redis://127.0.0.1:6379 --dir journal
  redtape follow --upstream rediss://redis.example.com:6380 --upstream-tls-ca-cert-file ca.crt";

/// `redtape proxy`.
#[derive(Debug, Args)]
#[command(after_help = PROXY_EXAMPLES)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    settings: ProxySettings,
    /// Start a redis-server or valkey-server as upstream, to try things out; it ends with redtape.
    #[arg(long, conflicts_with = "upstream", help_heading = SERVER)]
    embedded: bool,
}

/// `redtape follow`.
#[derive(Debug, Args)]
#[command(after_help = FOLLOW_EXAMPLES)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    settings: FollowSettings,
}

/// Runs the proxy until SIGTERM or SIGINT.
pub(crate) fn run(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let ProxyArgs { mut settings, embedded } = args;
    let mut server = None;
    if embedded {
        let started = EmbeddedServer::start()?;
        settings.follow.capture.upstream = Some(started.url());
        defect::at_end(started.killer());
        server = Some(started);
    }
    let mut config = settings.config()?;
    // Each has another port, and nothing of the one before.
    config.known_as = embedded.then(|| EMBEDDED.to_owned());
    let dir = config.dir.clone();
    let reread = Box::new(move || settings.config().map_err(|e| e.to_string()));
    serve(config, reread, |started| {
        if embedded {
            embedded_hint(started, &dir);
        }
    })?;
    drop(server);
    Ok(ExitCode::SUCCESS)
}

/// Follows until SIGTERM or SIGINT.
pub(crate) fn follow(args: FollowArgs) -> anyhow::Result<ExitCode> {
    let read = move || args.settings.config("--upstream URL");
    let config = read()?;
    serve(config, Box::new(move || read().map_err(|e| e.to_string())), |_| {})?;
    Ok(ExitCode::SUCCESS)
}

/// For the person at the terminal.
fn embedded_hint(started: &Started, dir: &std::path::Path) {
    let Some(ListenAddr::Tcp(addr)) = started.listen.first() else { return };
    let (port, dir) = (addr.port(), dir.display());
    logging::say(&format!(
        "\nTry it:   redis-cli -p {port} SET greeting hello\n          redtape journal cat --from {dir}\n          redtape journal ls --from {dir}\nCtrl-C ends it.\n\n"
    ));
}

fn serve(config: Config, reread: Reread, started: impl FnOnce(&Started)) -> anyhow::Result<()> {
    let stop = async {
        use tokio::signal::unix::{SignalKind, signal};
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut term), Ok(mut int)) => {
                tokio::select! {
                    _ = term.recv() => {}
                    _ = int.recv() => {}
                }
            }
            _ => std::future::pending().await,
        }
    };
    let daemon = Daemon { config, reread, lost_log_lines: logging::lost_lines() };
    Ok(daemon.run(stop, started)?)
}
