//! `redtape snapshot create | ls`; `report` is in [`super::snapshot_report`], `rm` in [`super::journal::prune`].

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use redtape_wire::units::ByteSize;
use serde_json::json;

use super::settings::{
    CaptureOptions, FileOption, FollowSettings, HousekeepingOptions, JournalOptions, KeyOptions, UpstreamTlsOptions,
};
use crate::daemon::take_snapshot;
use crate::headings::{JOURNAL, OUTPUT, RETENTION, SERVER};
use crate::output::{bytes, out};

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Take a snapshot now, while redtape proxy or follow runs on the journal.
    Create(Box<CreateArgs>),
    /// List the snapshots of a journal.
    Ls(LsArgs),
    /// Report what a snapshot, or any point in time, consists of: biggest keys, memory by type and prefix, TTLs.
    Report(Box<super::snapshot_report::ReportArgs>),
    /// Remove snapshots; the last one on which the journal builds always stays.
    Rm(super::journal::prune::RemoveArgs),
}

const CREATE_EXAMPLES: &str = "Examples:
  redtape snapshot create --dir journal --upstream redis://127.0.0.1:6379";

const LS_EXAMPLES: &str = "Examples:
  redtape snapshot ls --from journal";

#[derive(Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Directory of the journal [default: redtape-journal]
    #[arg(help_heading = JOURNAL, long, visible_alias = "from", env = "REDTAPE_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The server that the journal records, or a replica of it: redis://[user:password@]host[:port], rediss:// for TLS, or
    /// unix:///PATH of a socket. Give the password in REDTAPE_UPSTREAM_PASSWORD.
    #[arg(help_heading = SERVER, long, env = "REDTAPE_UPSTREAM", value_name = "URL", hide_env_values = true)]
    upstream: Option<String>,
    /// Receive the snapshot at no more than this a second, e.g. 20mb [default: no limit]
    #[arg(help_heading = RETENTION, long, env = "REDTAPE_SNAPSHOT_RATE", value_name = "SIZE")]
    snapshot_rate: Option<ByteSize>,
    #[command(flatten)]
    keys: KeyOptions,
    #[command(flatten)]
    upstream_tls: UpstreamTlsOptions,
    #[command(flatten)]
    file: FileOption,
    /// Print JSON.
    #[arg(long, help_heading = OUTPUT)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    journal: JournalOptions,
    /// Print JSON, one object a line.
    #[arg(help_heading = OUTPUT, long)]
    json: bool,
}

pub(crate) fn run(command: SnapshotCommand) -> anyhow::Result<ExitCode> {
    match command {
        SnapshotCommand::Create(args) => create(*args),
        SnapshotCommand::Ls(args) => ls(&args),
        SnapshotCommand::Report(args) => super::snapshot_report::run(&args),
        SnapshotCommand::Rm(args) => super::journal::prune::remove(&args),
    }
}

fn create(args: CreateArgs) -> anyhow::Result<ExitCode> {
    let CreateArgs { dir, upstream, snapshot_rate, keys, upstream_tls, file, json } = args;
    let housekeeping = HousekeepingOptions { snapshot_rate, ..HousekeepingOptions::default() };
    let capture = CaptureOptions { upstream, dir, ..CaptureOptions::default() };
    let settings = FollowSettings { capture, keys, housekeeping, upstream_tls, file, ..FollowSettings::default() };
    let config = settings.config("--upstream URL")?;
    let taken = take_snapshot(&config)?;
    if json {
        let line = json!({"lsn": taken.lsn.0, "ts": taken.ts.to_string(), "ts_us": taken.ts.0, "bytes": taken.bytes, "timeline": taken.timeline.0});
        out(&format!("{line}\n"))?;
    } else {
        out(&format!(
            "snapshot of {} at LSN {}, {} (timeline {})\n",
            taken.ts,
            taken.lsn,
            bytes(taken.bytes),
            taken.timeline
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ls(args: &LsArgs) -> anyhow::Result<ExitCode> {
    let catalog = args.journal.place()?.open()?;
    let mut text = String::new();
    for info in catalog.snapshots() {
        let m = &info.manifest;
        let kind = serde_json::to_value(m.kind)?;
        let kind = kind.as_str().unwrap_or("?").to_owned();
        let name = info.path.file_stem().unwrap_or_default().to_string_lossy();
        if args.json {
            let line = json!({
                "name": name, "lsn": m.lsn.0, "ts": m.ts.to_string(), "ts_us": m.ts.0, "kind": kind, "bytes": m.bytes, "key_index_bytes": info.key_index_bytes, "timeline": m.timeline.0,
                "offset": m.offset.0, "format": m.magic_version, "server_version": m.server_version, "key": m.encryption.as_ref().map(|e| &e.key_id), "blake3": m.blake3, "file": info.path,
            });
            text += &format!("{line}\n");
        } else {
            text += &format!(
                "{}  {}  LSN {:>10}  {:>9}  {:<9} timeline {}  {} (server {})\n",
                name,
                m.ts,
                m.lsn,
                bytes(m.bytes),
                kind,
                m.timeline,
                m.magic_version,
                m.server_version
            );
        }
    }
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}
