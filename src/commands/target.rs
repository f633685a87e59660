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
use crate::input::{PASSWORD_LIMIT, password_file, url};

/// Flattened into a command's arguments.
#[derive(Debug, Args)]
pub(crate) struct TargetOptions {
    /// The server to restore to: redis://[user:password@]host[:port], rediss:// for TLS, or unix: and the path of a
    /// socket. Its password may also come from REDTAPE_TO_PASSWORD or --to-password-file.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// File that holds the target's password.
    #[arg(long, value_name = "FILE", requires = "to")]
    to_password_file: Option<PathBuf>,
    /// CA certificates that sign the target's certificate [default: those of this machine]
    #[arg(long, env = "REDTAPE_TO_TLS_CA_CERT_FILE", value_name = "FILE")]
    to_tls_ca_cert_file: Option<PathBuf>,
    /// A directory of such files
    #[arg(long, env = "REDTAPE_TO_TLS_CA_CERT_DIR", value_name = "DIR")]
    to_tls_ca_cert_dir: Option<PathBuf>,
    /// The certificate that is shown to the target (PEM)
    #[arg(long, env = "REDTAPE_TO_TLS_CERT_FILE", value_name = "FILE")]
    to_tls_cert_file: Option<PathBuf>,
    /// Its key (PEM, not encrypted)
    #[arg(long, env = "REDTAPE_TO_TLS_KEY_FILE", value_name = "FILE")]
    to_tls_key_file: Option<PathBuf>,
    /// Name to ask the target for, and to find in its certificate, instead of the URL's host
    #[arg(long, env = "REDTAPE_TO_TLS_SNI", value_name = "NAME")]
    to_tls_sni: Option<String>,
    /// Do not check the target's certificate: any server that answers is trusted
    #[arg(long, env = "REDTAPE_TO_TLS_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    to_tls_insecure: Option<bool>,
    /// The name of a command in a target that renames it (rename-command), as in RESTORE=secret; may be given several times
    #[arg(long, value_name = "OLD=NEW", requires = "to")]
    target_command: Vec<String>,
}

/// The options of a restore into a file.
#[derive(Debug, Args)]
pub(crate) struct FileOptions {
    /// Write an RDB that servers load: a file that does not exist yet. Its version is that of the scratch server; with --server-bin
    /// that of the named one, also where that does not load the recorded data itself.
    #[arg(long, value_name = "FILE")]
    to_rdb: Option<PathBuf>,
    /// Write a folder that a server starts from with appendonly yes, as its dir: one that does not exist yet. For the same versions as
    /// --to-rdb.
    #[arg(long, value_name = "DIR")]
    to_aof: Option<PathBuf>,
    /// With --to-aof: keep every write since the base, with its second (#TS:), instead of the dataset alone. redis-check-aof
    /// --truncate-to-timestamp SECONDS then cuts it back to any second. Needs Redis 7.0 or later, and all keys.
    #[arg(long, requires = "to_aof")]
    with_history: bool,
    /// Write JSON lines, which redtape restore --from FILE.jsonl brings into a server of any version: a file that does not exist yet,
    /// or - for stdout.
    #[arg(long, value_name = "FILE")]
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
