//! The options of `redtape proxy` and `redtape follow`, as flags, environment variables and keys of
//! `redtape.toml` alike: each group is read from all three, and [`Or::or`] puts one over the other.

// The comments on arguments are their help texts, and the fields' names those of the options.
#![allow(clippy::doc_markdown, clippy::struct_field_names, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use redtape_journal::{KEYS_VARIABLE, Keyring};
use redtape_net::tls::{AuthClients, Protocols, SniCert};
use redtape_wire::settings::{Ack, OnJournalFailure, Sharing, SocketMode, Switch};
use redtape_wire::units::{ByteSize, Period, TimeOfDay};
use serde::Deserialize;

use super::file::one_or_many;
use super::listen::{HostPort, Listen};
use crate::exit::{Failure, USAGE};
use crate::headings::{CLIENTS, CLIENTS_TLS, JOURNAL, MARKS, MONITORING, RETENTION, SERVER, SERVER_TLS};

/// When the journal is synced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sync {
    /// After each batch of effects.
    Always,
    /// Once a second while there are writes.
    Everysec,
    /// When the operating system writes its cache back.
    No,
}

/// A group of options, each of which may be unset.
pub(super) trait Or {
    /// What is set here, else what is set there.
    fn or(self, other: Self) -> Self;
}

/// What proxy and follow have in common.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct CaptureOptions {
    /// The server that is recorded: redis://[user:password@]host[:port], rediss:// for TLS, or unix:///PATH of a socket. Give the
    /// password in REDTAPE_UPSTREAM_PASSWORD, or in the file that REDTAPE_UPSTREAM_PASSWORD_FILE names.
    #[arg(help_heading = SERVER, long, env = "REDTAPE_UPSTREAM", value_name = "URL", hide_env_values = true)]
    pub(crate) upstream: Option<String>,
    /// Directory of the journal [default: redtape-journal]
    #[arg(help_heading = JOURNAL, long, visible_alias = "from", env = "REDTAPE_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Record this server in this journal from now on, though the journal has recorded another one
    #[arg(help_heading = JOURNAL, long, env = "REDTAPE_ACCEPT_NEW_HISTORY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) accept_new_history: Option<bool>,
    /// Serve /metrics, /livez, /readyz and /journalz over HTTP here (HOST:PORT) [default: off]
    #[arg(help_heading = MONITORING, long, env = "REDTAPE_METRICS", value_name = "ADDR")]
    pub(crate) metrics: Option<HostPort>,
    /// When the journal is synced to the disk [default: everysec]
    #[arg(help_heading = JOURNAL, long, env = "REDTAPE_SYNC", value_enum)]
    pub(crate) sync: Option<Sync>,
    /// Size at which a segment of the journal is sealed, in MiB [default: 64]
    #[arg(help_heading = JOURNAL, long, env = "REDTAPE_SEGMENT_MIB", value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) segment_mib: Option<u64>,
}

/// The journal's keys; every command that opens a journal takes them.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct KeyOptions {
    /// File with the keys of an encrypted journal (`redtape journal keygen`): the newest encrypts, all of them decrypt; may be
    /// given several times. REDTAPE_JOURNAL_KEYS may hold the keys themselves.
    #[arg(help_heading = JOURNAL, long, env = "REDTAPE_JOURNAL_KEY_FILE", value_name = "FILE", value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) journal_key_file: Option<Vec<PathBuf>>,
}

impl Or for KeyOptions {
    fn or(self, other: Self) -> Self {
        Self { journal_key_file: self.journal_key_file.or(other.journal_key_file) }
    }
}

impl KeyOptions {
    /// Reads the keys: those of the environment, then those of the files.
    pub(crate) fn keyring(&self) -> Result<Keyring, Failure> {
        let mut keyring = match std::env::var(KEYS_VARIABLE) {
            Err(std::env::VarError::NotPresent) => Keyring::default(),
            Err(_) => return Err(Failure::new(USAGE, format!("{KEYS_VARIABLE} is not text"))),
            // Set and empty is no way to ask for a journal in clear.
            Ok(keys) => Keyring::parse(&keys).map_err(|e| Failure::new(USAGE, format!("{KEYS_VARIABLE}: {e}")))?,
        };
        for file in self.journal_key_file.iter().flatten() {
            keyring = Keyring::from_file(file).and_then(|keys| keyring.and(&keys))?;
        }
        Ok(keyring)
    }
}

/// What is kept of the journal, and when snapshots are taken.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = RETENTION)]
pub(crate) struct HousekeepingOptions {
    /// Keep every point in time of this period restorable and remove what is older: 90s, 30m, 6h, 7d, 2w
    /// [default: keep everything]
    #[arg(long, env = "REDTAPE_RETENTION", value_name = "TIME")]
    pub(crate) retention: Option<Period>,
    /// Remove the oldest segments and snapshots until all of them are not larger than this, e.g. 10gb; wins over --retention
    /// [default: no limit]
    #[arg(long, env = "REDTAPE_JOURNAL_MAX_SIZE", value_name = "SIZE")]
    pub(crate) journal_max_size: Option<ByteSize>,
    /// Take a snapshot this long after the last one, e.g. 6h [default: none is taken]
    #[arg(long, env = "REDTAPE_SNAPSHOT_EVERY", value_name = "TIME", conflicts_with = "snapshot_at")]
    pub(crate) snapshot_every: Option<Period>,
    /// Take a snapshot each day at this time: 03:00 (UTC), or with an offset 03:00+02:00 [default: none is taken]
    #[arg(long, env = "REDTAPE_SNAPSHOT_AT", value_name = "HH:MM")]
    pub(crate) snapshot_at: Option<TimeOfDay>,
    /// Receive a snapshot at no more than this a second, e.g. 20mb. Meanwhile the server buffers what is written: see its
    /// client-output-buffer-limit for replicas [default: no limit]
    #[arg(long, env = "REDTAPE_SNAPSHOT_RATE", value_name = "SIZE")]
    pub(crate) snapshot_rate: Option<ByteSize>,
}

/// Marks that are set without being asked for.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = MARKS)]
pub(crate) struct MarkOptions {
    /// Set a mark before each FLUSHALL, FLUSHDB and SWAPDB, and before one client deletes many keys or sets the expiry of many
    /// keys: on or off [default: on]
    #[arg(long, env = "REDTAPE_AUTOMATIC_MARKS", value_name = "ON|OFF")]
    pub(crate) automatic_marks: Option<Switch>,
    /// How many keys are many; 0: only before FLUSHALL, FLUSHDB and SWAPDB [default: 100]
    #[arg(long, env = "REDTAPE_MASS_DELETE_KEYS", value_name = "N")]
    pub(crate) mass_delete_keys: Option<u64>,
    /// Within how many seconds [default: 10]
    #[arg(long, env = "REDTAPE_MASS_DELETE_SECONDS", value_name = "SECONDS")]
    pub(crate) mass_delete_seconds: Option<u32>,
}

impl Or for MarkOptions {
    fn or(self, other: Self) -> Self {
        Self {
            automatic_marks: self.automatic_marks.or(other.automatic_marks),
            mass_delete_keys: self.mass_delete_keys.or(other.mass_delete_keys),
            mass_delete_seconds: self.mass_delete_seconds.or(other.mass_delete_seconds),
        }
    }
}

impl Or for HousekeepingOptions {
    fn or(self, other: Self) -> Self {
        // A schedule replaces the other kind, too.
        let scheduled = self.snapshot_every.is_some() || self.snapshot_at.is_some();
        Self {
            retention: self.retention.or(other.retention),
            journal_max_size: self.journal_max_size.or(other.journal_max_size),
            snapshot_every: self.snapshot_every.or(other.snapshot_every.filter(|_| !scheduled)),
            snapshot_at: self.snapshot_at.or(other.snapshot_at.filter(|_| !scheduled)),
            snapshot_rate: self.snapshot_rate.or(other.snapshot_rate),
        }
    }
}

impl Or for CaptureOptions {
    fn or(self, other: Self) -> Self {
        Self {
            upstream: self.upstream.or(other.upstream),
            dir: self.dir.or(other.dir),
            metrics: self.metrics.or(other.metrics),
            sync: self.sync.or(other.sync),
            segment_mib: self.segment_mib.or(other.segment_mib),
            accept_new_history: self.accept_new_history.or(other.accept_new_history),
        }
    }
}

/// How clients are served.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = CLIENTS)]
pub(crate) struct ClientOptions {
    /// Serve clients here: HOST:PORT (all addresses of a host name) or unix:///PATH; may be given several times
    /// [default: 127.0.0.1:6400, unless --tls-listen is given]
    #[arg(long, env = "REDTAPE_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) listen: Option<Vec<Listen>>,
    /// Mode of unix sockets, in octal, e.g. 770 [default: by the umask]
    #[arg(long, env = "REDTAPE_UNIXSOCKETPERM", value_name = "MODE")]
    pub(crate) unixsocketperm: Option<SocketMode>,
    /// Expect a PROXY protocol header (version 2) on every TCP connection: on or off [default: off]
    #[arg(long, env = "REDTAPE_PROXY_PROTOCOL", value_name = "ON|OFF")]
    pub(crate) proxy_protocol: Option<Switch>,
    /// Record from this replica of the upstream, which then makes the full copies. Give the password in REDTAPE_FOLLOW_PASSWORD
    /// [default: the upstream]
    #[arg(long, env = "REDTAPE_FOLLOW", value_name = "URL", hide_env_values = true, help_heading = SERVER)]
    pub(crate) follow: Option<String>,
    /// Whether clients share connections to the server where that makes no difference to them: auto or off [default: auto]
    #[arg(long, env = "REDTAPE_SHARING", value_name = "AUTO|OFF")]
    pub(crate) sharing: Option<Sharing>,
    /// When a client gets the reply to a write: upstream = when the server has replied; journal = when the write is also synced in
    /// the journal, so that every acknowledged write can be restored [default: upstream]
    #[arg(long, env = "REDTAPE_ACK", value_name = "UPSTREAM|JOURNAL")]
    pub(crate) ack: Option<Ack>,
    /// While the journal cannot be written (disk full, I/O error): pass = writes go on and are not recorded; reject = writes are
    /// refused with -JOURNAL and reads go on. --ack journal always rejects [default: pass]
    #[arg(long, env = "REDTAPE_ON_JOURNAL_FAILURE", value_name = "PASS|REJECT")]
    pub(crate) on_journal_failure: Option<OnJournalFailure>,
    /// How many clients may be connected [default: 10000]
    #[arg(long, env = "REDTAPE_MAXCLIENTS", value_name = "N")]
    pub(crate) maxclients: Option<u32>,
    /// Disconnect clients that are idle for this long; 0 = never [default: 0]
    #[arg(long, env = "REDTAPE_TIMEOUT", value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
    /// Send TCP keepalive probes on clients' connections that are idle for this long; 0 = never [default: 300]
    #[arg(long, env = "REDTAPE_TCP_KEEPALIVE", value_name = "SECONDS")]
    pub(crate) tcp_keepalive: Option<u32>,
    /// Disconnect a client whose TLS handshake or PROXY header takes longer than this [default: 10]
    #[arg(long, env = "REDTAPE_HANDSHAKE_TIMEOUT", value_name = "SECONDS")]
    pub(crate) handshake_timeout: Option<u32>,
    /// Disconnect a client with more unread replies than this, e.g. 256mb [default: 1gb]
    #[arg(long, env = "REDTAPE_CLIENT_OUTPUT_BUFFER_LIMIT", value_name = "SIZE")]
    pub(crate) client_output_buffer_limit: Option<ByteSize>,
    /// Disconnect the client with the largest buffers while those of all clients hold more than this, e.g. 512mb; 0 = no limit
    /// [default: 1gb]
    #[arg(long, env = "REDTAPE_CLIENT_MEMORY", value_name = "SIZE")]
    pub(crate) client_memory: Option<ByteSize>,
    /// ACL users who may run REDTAPE.MARK, REDTAPE.SNAPSHOT and REDTAPE.GET [default: default]
    #[arg(long, env = "REDTAPE_ADMIN_USERS", value_name = "USER", value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) admin_users: Option<Vec<String>>,
    /// Worker threads [default: half as many as there are cores, as the server needs some]
    #[arg(long, env = "REDTAPE_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
}

impl Or for ClientOptions {
    fn or(self, other: Self) -> Self {
        Self {
            listen: self.listen.or(other.listen),
            unixsocketperm: self.unixsocketperm.or(other.unixsocketperm),
            proxy_protocol: self.proxy_protocol.or(other.proxy_protocol),
            follow: self.follow.or(other.follow),
            sharing: self.sharing.or(other.sharing),
            ack: self.ack.or(other.ack),
            on_journal_failure: self.on_journal_failure.or(other.on_journal_failure),
            maxclients: self.maxclients.or(other.maxclients),
            timeout: self.timeout.or(other.timeout),
            tcp_keepalive: self.tcp_keepalive.or(other.tcp_keepalive),
            handshake_timeout: self.handshake_timeout.or(other.handshake_timeout),
            client_output_buffer_limit: self.client_output_buffer_limit.or(other.client_output_buffer_limit),
            client_memory: self.client_memory.or(other.client_memory),
            admin_users: self.admin_users.or(other.admin_users),
            workers: self.workers.or(other.workers),
        }
    }
}

/// TLS towards clients, in Redis's words.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = CLIENTS_TLS)]
pub(crate) struct TlsOptions {
    /// Serve clients over TLS here (HOST:PORT); may be given several times
    #[arg(long, env = "REDTAPE_TLS_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) tls_listen: Option<Vec<HostPort>>,
    /// Certificate that is shown to clients, then its chain (PEM); needs --tls-key-file
    #[arg(long, env = "REDTAPE_TLS_CERT_FILE", value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Key of --tls-cert-file (PEM, not encrypted)
    #[arg(long, env = "REDTAPE_TLS_KEY_FILE", value_name = "FILE")]
    pub(crate) tls_key_file: Option<PathBuf>,
    /// CA certificates that sign clients' certificates
    #[arg(long, env = "REDTAPE_TLS_CA_CERT_FILE", value_name = "FILE")]
    pub(crate) tls_ca_cert_file: Option<PathBuf>,
    /// Directory of files with CA certificates
    #[arg(long, env = "REDTAPE_TLS_CA_CERT_DIR", value_name = "DIR")]
    pub(crate) tls_ca_cert_dir: Option<PathBuf>,
    /// Whether clients must show a certificate: yes, optional or no [default: yes]
    #[arg(long, env = "REDTAPE_TLS_AUTH_CLIENTS", value_name = "YES|OPTIONAL|NO")]
    pub(crate) tls_auth_clients: Option<AuthClients>,
    /// Versions of TLS: TLSv1.2, TLSv1.3 or "TLSv1.2 TLSv1.3" [default: both]
    #[arg(long, env = "REDTAPE_TLS_PROTOCOLS", value_name = "VERSIONS")]
    pub(crate) tls_protocols: Option<Protocols>,
    /// Lists of revoked client certificates (PEM), one from each CA of a client's chain; may be given several times
    #[arg(long, env = "REDTAPE_TLS_CRL_FILE", value_name = "FILE", value_delimiter = ',')]
    #[serde(default, deserialize_with = "one_or_many")]
    pub(crate) tls_crl_file: Option<Vec<PathBuf>>,
    /// More certificates, by server name. In the file only.
    #[arg(skip)]
    pub(crate) tls_sni_cert: Option<Vec<SniCert>>,
}

impl Or for TlsOptions {
    fn or(self, other: Self) -> Self {
        Self {
            tls_listen: self.tls_listen.or(other.tls_listen),
            tls_cert_file: self.tls_cert_file.or(other.tls_cert_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
            tls_ca_cert_file: self.tls_ca_cert_file.or(other.tls_ca_cert_file),
            tls_ca_cert_dir: self.tls_ca_cert_dir.or(other.tls_ca_cert_dir),
            tls_auth_clients: self.tls_auth_clients.or(other.tls_auth_clients),
            tls_protocols: self.tls_protocols.or(other.tls_protocols),
            tls_crl_file: self.tls_crl_file.or(other.tls_crl_file),
            tls_sni_cert: self.tls_sni_cert.or(other.tls_sni_cert),
        }
    }
}

/// TLS towards the server, for rediss:// URLs.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = SERVER_TLS)]
pub(crate) struct UpstreamTlsOptions {
    /// CA certificates that sign the server's certificate [default: those of this machine]
    #[arg(long, env = "REDTAPE_UPSTREAM_TLS_CA_CERT_FILE", value_name = "FILE")]
    pub(crate) upstream_tls_ca_cert_file: Option<PathBuf>,
    /// Directory of files with CA certificates
    #[arg(long, env = "REDTAPE_UPSTREAM_TLS_CA_CERT_DIR", value_name = "DIR")]
    pub(crate) upstream_tls_ca_cert_dir: Option<PathBuf>,
    /// Certificate that is shown to the server (PEM); needs --upstream-tls-key-file
    #[arg(long, env = "REDTAPE_UPSTREAM_TLS_CERT_FILE", value_name = "FILE")]
    pub(crate) upstream_tls_cert_file: Option<PathBuf>,
    /// Key of --upstream-tls-cert-file (PEM, not encrypted)
    #[arg(long, env = "REDTAPE_UPSTREAM_TLS_KEY_FILE", value_name = "FILE")]
    pub(crate) upstream_tls_key_file: Option<PathBuf>,
    /// Name that the server's certificate must have, instead of the host of --upstream
    #[arg(long, env = "REDTAPE_UPSTREAM_TLS_SNI", value_name = "NAME")]
    pub(crate) upstream_tls_sni: Option<String>,
    /// Do not check the server's certificate: any server that answers is trusted. For tests only
    #[arg(long, env = "REDTAPE_UPSTREAM_TLS_INSECURE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) upstream_tls_insecure: Option<bool>,
}

impl Or for UpstreamTlsOptions {
    fn or(self, other: Self) -> Self {
        Self {
            upstream_tls_ca_cert_file: self.upstream_tls_ca_cert_file.or(other.upstream_tls_ca_cert_file),
            upstream_tls_ca_cert_dir: self.upstream_tls_ca_cert_dir.or(other.upstream_tls_ca_cert_dir),
            upstream_tls_cert_file: self.upstream_tls_cert_file.or(other.upstream_tls_cert_file),
            upstream_tls_key_file: self.upstream_tls_key_file.or(other.upstream_tls_key_file),
            upstream_tls_sni: self.upstream_tls_sni.or(other.upstream_tls_sni),
            upstream_tls_insecure: self.upstream_tls_insecure.or(other.upstream_tls_insecure),
        }
    }
}
