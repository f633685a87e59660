//! Settings: flags over environment over `redtape.toml` over defaults.
//!
//! clap puts flags over the environment; [`ProxySettings::config`] puts both over the file and makes the
//! [`Config`]. It can be called again at any time, as SIGHUP does.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links)]

mod file;
mod journal;
mod listen;
mod options;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use redtape_journal::SyncPolicy;
use redtape_net::tls::{CaFiles, ClientTls, KeyPair, OptionNames, ServerTls};
use redtape_wire::settings::{Ack, ListenAddr, OnJournalFailure, Switch};

pub(crate) use self::file::File;
pub(crate) use self::journal::{JournalOptions, JournalPlace};
use self::listen::Listen;
use self::options::Or;
pub(crate) use self::options::{
    CaptureOptions, ClientOptions, HousekeepingOptions, KeyOptions, MarkOptions, Sync, TlsOptions, UpstreamTlsOptions,
};
use crate::daemon::Config;
use crate::exit::{Failure, USAGE};
use crate::input::url;

/// Where clients are served if nothing else is said.
const DEFAULT_LISTEN: &str = "127.0.0.1:6400";
const MIB: u64 = 1 << 20;
/// Where settings are looked for if no file is named: the first that is there.
const DEFAULT_FILES: [&str; 2] = ["redtape.toml", "/etc/redtape/redtape.toml"];
/// Lists of tables cannot be flags.
const IN_FILE_ONLY: &str = "tls-sni-cert";

/// `redtape follow`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FollowSettings {
    #[command(flatten)]
    pub(crate) capture: CaptureOptions,
    #[command(flatten)]
    pub(crate) keys: KeyOptions,
    #[command(flatten)]
    pub(crate) housekeeping: HousekeepingOptions,
    #[command(flatten)]
    pub(crate) marks: MarkOptions,
    #[command(flatten)]
    pub(crate) upstream_tls: UpstreamTlsOptions,
    #[command(flatten)]
    pub(crate) file: FileOption,
}

/// Where the file is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = None::<&str>)]
pub(crate) struct FileOption {
    /// File of settings (TOML), `name = value` with the names of the options; options and environment win over it
    /// [default: redtape.toml here, else /etc/redtape/redtape.toml, if there is one]
    #[arg(long, env = "REDTAPE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// `redtape proxy`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ProxySettings {
    #[command(flatten)]
    pub(crate) follow: FollowSettings,
    #[command(flatten)]
    pub(crate) clients: ClientOptions,
    #[command(flatten)]
    pub(crate) tls: TlsOptions,
}

impl FileOption {
    /// Reads it, or that of the default files which is there. All options of `redtape proxy` may be in it, whichever command
    /// reads it.
    pub(crate) fn read(&self) -> Result<File, Failure> {
        self.read_or(|_| false)
    }

    /// The same, but a default file that may not be read is passed over: it is the service's, and what is needed most is given.
    pub(crate) fn read_if_allowed(&self) -> Result<File, Failure> {
        self.read_or(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    fn read_or(&self, pass_over: fn(&io::Error) -> bool) -> Result<File, Failure> {
        let all = ProxySettings::augment_args(clap::Command::new("redtape"));
        let longs = all.get_arguments().filter_map(clap::Arg::get_long).filter(|l| *l != "config");
        let known: Vec<String> = longs.chain([IN_FILE_ONLY]).map(str::to_owned).collect();
        if let Some(named) = &self.config {
            return File::read(named, &known);
        }
        for path in DEFAULT_FILES {
            if let Some(file) = File::read_default(Path::new(path), &known, pass_over)? {
                return Ok(file);
            }
        }
        Ok(File::default())
    }
}

impl FollowSettings {
    /// The settings as they are now. `needs` names the ways to give the server.
    pub(crate) fn config(&self, needs: &str) -> anyhow::Result<Config> {
        self.with(&self.file.read()?, needs)
    }

    fn with(&self, file: &File, needs: &str) -> anyhow::Result<Config> {
        let from = |option: Option<&String>, key: &str| match option {
            Some(_) => format!("--{key}"),
            None => file.place(key).map_or_else(|| format!("--{key}"), |place| format!("{place}: {key}")),
        };
        let what = from(self.capture.upstream.as_ref(), "upstream");
        let options = self.capture.clone().or(file.group()?);
        let upstream = options.upstream.ok_or_else(|| {
            Failure::new(USAGE, format!("which server? Give {needs}, for example --upstream redis://127.0.0.1:6379"))
        })?;
        let mut config = Config::new(url(&upstream, &what, "REDTAPE_UPSTREAM_PASSWORD")?);
        set(&mut config.dir, options.dir);
        set(&mut config.accept_new_history, options.accept_new_history);
        // One server for all of them: the first address is the usual one.
        config.metrics = options.metrics.map(|addr| addr.resolve("--metrics")).transpose()?.map(|all| all[0]);
        set(&mut config.sync, options.sync.map(policy));
        set(&mut config.segment_bytes, options.segment_mib.map(|m| m * MIB));
        let keys = self.keys.clone().or(file.group()?);
        config.keyring = keys.keyring()?;
        config.journal_key_file = keys.journal_key_file.unwrap_or_default();
        let keep = self.housekeeping.clone().or(file.group()?);
        (config.retention, config.journal_max_size) = (keep.retention, keep.journal_max_size);
        (config.snapshot_every, config.snapshot_at) = (keep.snapshot_every, keep.snapshot_at);
        config.snapshot_rate = keep.snapshot_rate;
        let marks = self.marks.clone().or(file.group()?);
        set(&mut config.marks.enabled, marks.automatic_marks.map(|switch| switch == Switch::On));
        set(&mut config.marks.mass_keys, marks.mass_delete_keys);
        set(&mut config.marks.mass_time, marks.mass_delete_seconds.map(|n| Duration::from_secs(n.into())));
        config.upstream_tls = client_tls(self.upstream_tls.clone().or(file.group()?))?;
        Ok(config)
    }
}

impl ProxySettings {
    /// The settings as they are now.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        let file = self.follow.file.read()?;
        let mut config = self.follow.with(&file, "--upstream URL, or --embedded to try things out")?;
        let what = match (&self.clients.follow, file.place("follow")) {
            (None, Some(place)) => format!("{place}: follow"),
            _ => "--follow".to_owned(),
        };
        let options = self.clients.clone().or(file.group()?);
        let tls = self.tls.clone().or(file.group()?);
        for addr in tls.tls_listen.iter().flatten() {
            config.tls_listen.extend(addr.resolve("--tls-listen")?);
        }
        config.listen = match options.listen {
            Some(listen) => listen.iter().map(Listen::resolve).collect::<Result<Vec<_>, _>>()?.concat(),
            // Who asks for TLS does not ask for a second way in without it.
            None if !config.tls_listen.is_empty() => Vec::new(),
            None => vec![DEFAULT_LISTEN.parse::<ListenAddr>().map_err(anyhow::Error::msg)?],
        };
        if !config.serves() {
            return Err(Failure::new(USAGE, "listen is empty: name an address, or use redtape follow").into());
        }
        config.tls = server_tls(tls)?;
        config.follow = options.follow.map(|f| url(&f, &what, "REDTAPE_FOLLOW_PASSWORD")).transpose()?;
        config.unix_socket_mode = options.unixsocketperm;
        set(&mut config.proxy_protocol, options.proxy_protocol);
        set(&mut config.sharing, options.sharing);
        set(&mut config.ack, options.ack);
        if config.ack == Ack::Journal {
            if options.on_journal_failure == Some(OnJournalFailure::Pass) {
                let why = "ack journal rejects writes that cannot be journaled: take on-journal-failure out, or set it to reject";
                return Err(Failure::new(USAGE, why).into());
            }
            config.on_journal_failure = OnJournalFailure::Reject;
            if self.follow.capture.clone().or(file.group()?).sync.is_none() {
                config.sync = SyncPolicy::Always;
            }
        }
        set(&mut config.on_journal_failure, options.on_journal_failure);
        set(&mut config.max_clients, options.maxclients.map(|n| n as usize));
        set(&mut config.timeout, options.timeout.map(seconds));
        set(&mut config.tcp_keepalive, options.tcp_keepalive.map(seconds));
        set(&mut config.handshake_timeout, options.handshake_timeout.map(|n| Duration::from_secs(n.into())));
        set(&mut config.output_limit, options.client_output_buffer_limit);
        set(&mut config.client_memory, options.client_memory);
        set(&mut config.admin_users, options.admin_users);
        set(&mut config.workers, options.workers.map(usize::from));
        Ok(config)
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// 0 = never.
fn seconds(n: u32) -> Option<Duration> {
    (n != 0).then(|| Duration::from_secs(n.into()))
}

fn policy(sync: Sync) -> SyncPolicy {
    match sync {
        Sync::Always => SyncPolicy::Always,
        Sync::Everysec => SyncPolicy::EverySec,
        Sync::No => SyncPolicy::No,
    }
}

/// A certificate and its key, which go together.
pub(super) fn pair(names: [&str; 2], cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<KeyPair>, Failure> {
    match (cert, key) {
        (Some(cert_file), Some(key_file)) => Ok(Some(KeyPair { cert_file, key_file })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::new(USAGE, format!("{} needs {}", names[0], names[1]))),
        (None, Some(_)) => Err(Failure::new(USAGE, format!("{} needs {}", names[1], names[0]))),
    }
}

fn server_tls(options: TlsOptions) -> Result<Option<ServerTls>, Failure> {
    let more = options.tls_ca_cert_file.is_some()
        || options.tls_ca_cert_dir.is_some()
        || options.tls_auth_clients.is_some()
        || options.tls_protocols.is_some()
        || options.tls_crl_file.is_some()
        || options.tls_sni_cert.is_some();
    match pair(["tls-cert-file", "tls-key-file"], options.tls_cert_file, options.tls_key_file)? {
        Some(pair) => Ok(Some(ServerTls {
            pair,
            ca: CaFiles { file: options.tls_ca_cert_file, dir: options.tls_ca_cert_dir },
            auth_clients: options.tls_auth_clients.unwrap_or_default(),
            crl_files: options.tls_crl_file.unwrap_or_default(),
            protocols: options.tls_protocols.unwrap_or_default(),
            sni: options.tls_sni_cert.unwrap_or_default(),
        })),
        None if more => Err(Failure::new(
            USAGE,
            "TLS towards clients needs a certificate and its key: set tls-cert-file and tls-key-file",
        )),
        None => Ok(None),
    }
}

fn client_tls(options: UpstreamTlsOptions) -> Result<ClientTls, Failure> {
    Ok(ClientTls {
        pair: pair(
            ["upstream-tls-cert-file", "upstream-tls-key-file"],
            options.upstream_tls_cert_file,
            options.upstream_tls_key_file,
        )?,
        ca: CaFiles { file: options.upstream_tls_ca_cert_file, dir: options.upstream_tls_ca_cert_dir },
        sni: options.upstream_tls_sni,
        insecure: options.upstream_tls_insecure.unwrap_or(false),
        names: OptionNames::UPSTREAM,
    })
}
