//! The options that say where a restore goes, and how that server is reached.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, clippy::struct_field_names, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::Args;
use redtape_net::tls::{CaFiles, ClientTls, OptionNames};
use redtape_restore::client::CommandNames;
use redtape_restore::{FileAddress, FileFormat, Output, ServerAddress};
use redtape_wire::url::RedisUrl;

use super::settings::pair;
use crate::exit::{Failure, USAGE};
use crate::headings::{TARGET, TARGET_FILE, TARGET_TLS};
use crate::input::{PASSWORD_LIMIT, password_file, url};

/// Flattened into a command's arguments.
#[derive(Debug, Args)]
pub(crate) struct TargetOptions {
    /// The server that is written to: redis://[user:password@]host[:port], rediss:// for TLS, or unix:///PATH of a socket. Give
    /// the password in REDTAPE_TO_PASSWORD or by --to-password-file.
    #[arg(help_heading = TARGET, long, value_name = "URL")]
    to: Option<String>,
    /// File that holds the target's password.
    #[arg(help_heading = TARGET, long, value_name = "FILE", requires = "to")]
    to_password_file: Option<PathBuf>,
    /// CA certificates that sign the target's certificate [default: those of this machine]
    #[arg(help_heading = TARGET_TLS, long, env = "REDTAPE_TO_TLS_CA_CERT_FILE", value_name = "FILE")]
    to_tls_ca_cert_file: Option<PathBuf>,
    /// Directory of files with CA certificates
    #[arg(help_heading = TARGET_TLS, long, env = "REDTAPE_TO_TLS_CA_CERT_DIR", value_name = "DIR")]
    to_tls_ca_cert_dir: Option<PathBuf>,
    /// Certificate that is shown to the target (PEM); needs --to-tls-key-file
    #[arg(help_heading = TARGET_TLS, long, env = "REDTAPE_TO_TLS_CERT_FILE", value_name = "FILE")]
    to_tls_cert_file: Option<PathBuf>,
    /// Key of --to-tls-cert-file (PEM, not encrypted)
    #[arg(help_heading = TARGET_TLS, long, env = "REDTAPE_TO_TLS_KEY_FILE", value_name = "FILE")]
    to_tls_key_file: Option<PathBuf>,
    /// Name that the target's certificate must have, instead of the host of --to
    #[arg(help_heading = TARGET_TLS, long, env = "REDTAPE_TO_TLS_SNI", value_name = "NAME")]
    to_tls_sni: Option<String>,
    /// Do not check the target's certificate: any server that answers is trusted. For tests only
    #[arg(help_heading = TARGET_TLS, long, env = "REDTAPE_TO_TLS_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    to_tls_insecure: Option<bool>,
    /// A command that the target has renamed (rename-command), such as RESTORE=secret; may be given several times
    #[arg(help_heading = TARGET, long, value_name = "OLD=NEW", requires = "to")]
    target_command: Vec<String>,
}

/// The options of a restore into a file.
#[derive(Debug, Args)]
pub(crate) struct FileOptions {
    /// Write an RDB file that servers load. It must not exist. Its version is that of the scratch server, or that of the server
    /// named by --server-bin.
    #[arg(help_heading = TARGET_FILE, long, value_name = "FILE")]
    to_rdb: Option<PathBuf>,
    /// Write a directory from which a server starts with appendonly yes and this dir. It must not exist. Versions as for --to-rdb.
    #[arg(help_heading = TARGET_FILE, long, value_name = "DIR")]
    to_aof: Option<PathBuf>,
    /// With --to-aof: keep every write since the base, with its second (#TS:), instead of the dataset alone. redis-check-aof
    /// --truncate-to-timestamp SECONDS then cuts it back to any second. Needs Redis 7.0 or later, and all keys.
    #[arg(help_heading = TARGET_FILE, long, requires = "to_aof")]
    with_history: bool,
    /// Write JSON lines, which `redtape restore --from FILE.jsonl` writes into a server of any version: a file that must not exist,
    /// or - for stdout.
    #[arg(help_heading = TARGET_FILE, long, value_name = "FILE")]
    to_jsonl: Option<PathBuf>,
}

impl FileOptions {
    /// The file, if the target is one.
    pub(crate) fn address(&self) -> Option<FileAddress> {
        let output = |path: &PathBuf| match path.as_os_str().as_encoded_bytes() {
            b"-" => Output::Stdout,
            _ => Output::Path(path.clone()),
        };
        let history = self.with_history;
        let of = |format, path: &PathBuf| FileAddress { format, to: output(path), history };
        let rdb = self.to_rdb.iter().map(|path| of(FileFormat::Rdb, path));
        let aof = self.to_aof.iter().map(|path| of(FileFormat::Aof, path));
        rdb.chain(aof).chain(self.to_jsonl.iter().map(|path| of(FileFormat::JsonLines, path))).next()
    }
}

impl TargetOptions {
    /// The target.
    pub(crate) fn address(&self) -> anyhow::Result<ServerAddress> {
        let url = self.url()?;
        let mut commands = CommandNames::default();
        for renamed in &self.target_command {
            commands.add(renamed).map_err(|why| Failure::new(USAGE, format!("--target-command: {why}")))?;
        }
        Ok(ServerAddress { url, tls: self.tls()?, commands })
    }

    fn url(&self) -> anyhow::Result<RedisUrl> {
        let to = self.to.as_deref().ok_or_else(|| Failure::new(USAGE, "which server? Give --to URL"))?;
        let to = url(to, "--to", "REDTAPE_TO_PASSWORD")?;
        let Some(path) = &self.to_password_file else { return Ok(to) };
        Ok(to.with_password(password_file(path, "--to-password-file", PASSWORD_LIMIT)?))
    }

    fn tls(&self) -> Result<ClientTls, Failure> {
        let names = ["--to-tls-cert-file", "--to-tls-key-file"];
        Ok(ClientTls {
            pair: pair(names, self.to_tls_cert_file.clone(), self.to_tls_key_file.clone())?,
            ca: CaFiles { file: self.to_tls_ca_cert_file.clone(), dir: self.to_tls_ca_cert_dir.clone() },
            sni: self.to_tls_sni.clone(),
            insecure: self.to_tls_insecure.unwrap_or(false),
            names: OptionNames::TARGET,
        })
    }
}
