//! `redtape proxy` and `redtape follow`: settings from flags, environment and `redtape.toml`.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use redtape_journal::SyncPolicy;
use redtape_proxy::{Config, StartError, Started};
use serde::Deserialize;

use super::embedded::EmbeddedServer;
use super::url;
use crate::exit::{Failure, USAGE};

/// Port on which clients are served if nothing else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:6400";
const DEFAULT_DIR: &str = "redtape-journal";
const MIB: u64 = 1 << 20;

/// When the journal is synced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sync {
    /// After each batch of effects.
    Always,
    /// At most a second after a write.
    Everysec,
    /// When the operating system likes to.
    No,
}

/// What proxy and follow have in common.
#[derive(Debug, Args, Default)]
pub(crate) struct CaptureArgs {
    /// The server: redis://[user:password@]host[:port]. Its password may also come from
    /// REDTAPE_UPSTREAM_PASSWORD or the file named by REDTAPE_UPSTREAM_PASSWORD_FILE.
    #[arg(long, env = "REDTAPE_UPSTREAM", value_name = "URL", hide_env_values = true)]
    upstream: Option<String>,
    /// Directory of the journal [default: redtape-journal]
    #[arg(long, env = "REDTAPE_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Serve /metrics, /healthz and /readyz here.
    #[arg(long, env = "REDTAPE_METRICS", value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// When the journal is synced to the disk [default: everysec]
    #[arg(long, env = "REDTAPE_SYNC", value_enum)]
    sync: Option<Sync>,
    /// Size at which a segment of the journal is sealed, in MiB [default: 64]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=4096))]
    segment_mib: Option<u64>,
    /// Settings, one `name = value` a line, named as the flags; flags and environment win.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// `redtape proxy`.
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    capture: CaptureArgs,
    /// Serve clients here; may be given several times [default: 127.0.0.1:6400]
    #[arg(long, env = "REDTAPE_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// Follow this replica instead of the upstream: then the full copies are made there. Password
    /// as with --upstream, from REDTAPE_FOLLOW_PASSWORD.
    #[arg(long, env = "REDTAPE_FOLLOW", value_name = "URL", hide_env_values = true)]
    follow: Option<String>,
    /// Start a redis-server (or valkey-server) of our own as upstream, for trying things out.
    #[arg(long, conflicts_with = "upstream")]
    embedded: bool,
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
}

/// `redtape follow`.
#[derive(Debug, Args)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    capture: CaptureArgs,
}

/// `redtape.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    upstream: Option<String>,
    follow: Option<String>,
    #[serde(default)]
    listen: Vec<SocketAddr>,
    dir: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    sync: Option<Sync>,
    segment_mib: Option<u64>,
    workers: Option<u16>,
}

fn read_file(path: Option<&PathBuf>) -> anyhow::Result<File> {
    let Some(path) = path else { return Ok(File::default()) };
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::new(USAGE, format!("can't read --config {}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| Failure::new(USAGE, format!("{}: {}", path.display(), e.message())).into())
}

impl CaptureArgs {
    fn config(self, file: File, needs: &str) -> anyhow::Result<Config> {
        let upstream = self.upstream.or(file.upstream).ok_or_else(|| {
            Failure::new(USAGE, format!("which server? Give {needs}, for example --upstream redis://127.0.0.1:6379"))
        })?;
        let sync = match self.sync.or(file.sync).unwrap_or(Sync::Everysec) {
            Sync::Always => SyncPolicy::Always,
            Sync::Everysec => SyncPolicy::EverySec,
            Sync::No => SyncPolicy::No,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Config {
            listen: Vec::new(),
            upstream: url(&upstream, "--upstream", "REDTAPE_UPSTREAM_PASSWORD")?,
            follow: None,
            dir: self.dir.or(file.dir).unwrap_or_else(|| DEFAULT_DIR.into()),
            metrics: self.metrics.or(file.metrics),
            sync,
            segment_bytes: self.segment_mib.or(file.segment_mib).unwrap_or(64) * MIB,
            workers: file.workers.map_or(cores, usize::from),
        })
    }
}

/// Runs the proxy until SIGTERM or SIGINT.
pub(crate) fn run(mut args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let mut file = read_file(args.capture.config.as_ref())?;
    let listen = if args.listen.is_empty() { std::mem::take(&mut file.listen) } else { args.listen };
    let follow = args.follow.or(file.follow.take());
    let mut server = None;
    if args.embedded {
        let started = EmbeddedServer::start()?;
        args.capture.upstream = Some(started.url());
        server = Some(started);
    }
    let mut config = args.capture.config(file, "--upstream URL, or --embedded to try things out")?;
    config.listen = if listen.is_empty() { vec![DEFAULT_LISTEN.parse()?] } else { listen };
    config.follow = follow.map(|f| url(&f, "--follow", "REDTAPE_FOLLOW_PASSWORD")).transpose()?;
    if let Some(workers) = args.workers {
        config.workers = workers.into();
    }
    let embedded = server.is_some();
    let dir = config.dir.clone();
    serve(config, |started| {
        if embedded {
            embedded_hint(started, &dir);
        }
    })?;
    drop(server);
    Ok(ExitCode::SUCCESS)
}

/// Follows until SIGTERM or SIGINT.
pub(crate) fn follow(args: FollowArgs) -> anyhow::Result<ExitCode> {
    let file = read_file(args.capture.config.as_ref())?;
    let config = args.capture.config(file, "--upstream URL")?;
    serve(config, |_| {})?;
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stderr)] // For the person at the terminal.
fn embedded_hint(started: &Started, dir: &std::path::Path) {
    let Some(addr) = started.listen.first() else { return };
    let (port, dir) = (addr.port(), dir.display());
    eprintln!(
        "\nTry it:   redis-cli -p {port} SET greeting hello\n          redtape journal cat --from {dir}\n          redtape journal ls --from {dir}\nCtrl-C ends it.\n"
    );
}

fn serve(config: Config, started: impl FnOnce(&Started)) -> anyhow::Result<()> {
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
    redtape_proxy::run(config, stop, started).map_err(|e: StartError| Failure::new(e.exit_code(), e).into())
}
