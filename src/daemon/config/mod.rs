//! What a proxy needs to know: every option, its default, and which go together.
//!
//! The binary reads flags, environment and `redtape.toml` into a [`Config`]; names in messages are those of
//! the options (kebab-case, Redis's own where Redis has them).

mod listing;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use redtape_capture::Thresholds;
use redtape_journal::{Keyring, SyncPolicy};
use redtape_net::tls::{ClientTls, ServerTls, TlsError};
use redtape_wire::settings::{Ack, ListenAddr, OnJournalFailure, Sharing, SocketMode, Switch};
use redtape_wire::units::{ByteSize, Period, TimeOfDay};
use redtape_wire::url::{Endpoint, RedisUrl};

pub(crate) use self::listing::sync;

/// Less could not hold one reply of usual size.
const OUTPUT_LIMIT_MIN: ByteSize = ByteSize(64 << 10);
/// With less, a few clients that are only slow would be taken for too much.
const CLIENT_MEMORY_MIN: ByteSize = ByteSize(16 << 20);
/// With less, the server would take the silence between two reads for a dead replica.
const SNAPSHOT_RATE_MIN: ByteSize = ByteSize(64 << 10);

/// What a proxy (or, without listeners, a follower) needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where clients are served; with `tls_listen`, none = capture only.
    pub(crate) listen: Vec<ListenAddr>,
    /// Where clients are served over TLS.
    pub(crate) tls_listen: Vec<SocketAddr>,
    /// Mode of unix sockets; `None` = by the umask.
    pub(crate) unix_socket_mode: Option<SocketMode>,
    /// Clients' addresses come in a PROXY protocol header (version 2) on every TCP connection.
    pub(crate) proxy_protocol: Switch,
    /// What is shown to and asked of clients on `tls_listen`. Live, but whether there is any.
    pub(crate) tls: Option<ServerTls>,
    /// The server behind the proxy.
    pub(crate) upstream: RedisUrl,
    /// A replica to follow instead of the upstream.
    pub(crate) follow: Option<RedisUrl>,
    /// An upstream with another history than the journal's is accepted, and recorded from now on.
    pub(crate) accept_new_history: bool,
    /// The name under which the journal knows the upstream, where that has no lasting address.
    pub(crate) known_as: Option<String>,
    /// How both are checked if their URLs say `rediss://`. Live, but for the server name.
    pub(crate) upstream_tls: ClientTls,
    /// Whether sessions share upstream connections.
    pub(crate) sharing: Sharing,
    /// Clients at once. Live.
    pub(crate) max_clients: usize,
    /// Clients that are idle for so long are disconnected (Redis's `timeout`). Live.
    pub(crate) timeout: Option<Duration>,
    /// Idle connections of clients are probed after this time.
    pub(crate) tcp_keepalive: Option<Duration>,
    /// TLS handshake and PROXY header must be through within this time. Live.
    pub(crate) handshake_timeout: Duration,
    /// A client that lets so many bytes of replies pile up is disconnected. Live.
    pub(crate) output_limit: ByteSize,
    /// The largest client is disconnected when the buffers of all together hold more (Redis's `maxmemory-clients`); 0 =
    /// no limit. Live.
    pub(crate) client_memory: ByteSize,
    /// ACL users who may run `REDTAPE.MARK` and `REDTAPE.SNAPSHOT`. Live.
    pub(crate) admin_users: Vec<String>,
    /// Worker threads.
    pub(crate) workers: usize,
    /// The journal's directory.
    pub(crate) dir: PathBuf,
    /// When the journal is synced.
    pub(crate) sync: SyncPolicy,
    /// When clients hear that their writes were done.
    pub(crate) ack: Ack,
    /// What becomes of writes while the journal cannot be written.
    pub(crate) on_journal_failure: OnJournalFailure,
    /// Size at which a segment is sealed, in bytes.
    pub(crate) segment_bytes: u64,
    /// The files that the journal's keys come from, for people. Live.
    pub(crate) journal_key_file: Vec<PathBuf>,
    /// The keys; without any, the journal is not encrypted. Live.
    pub(crate) keyring: Keyring,
    /// Where `/metrics` is served.
    pub(crate) metrics: Option<SocketAddr>,
    /// Every moment of so much time stays restorable; older ones go. Live.
    pub(crate) retention: Option<Period>,
    /// The oldest goes when the journal is larger. Live.
    pub(crate) journal_max_size: Option<ByteSize>,
    /// A snapshot is taken so long after the last one. Live.
    pub(crate) snapshot_every: Option<Period>,
    /// A snapshot is taken each day at this time. Live.
    pub(crate) snapshot_at: Option<TimeOfDay>,
    /// Bytes of a snapshot that are received in a second. Live.
    pub(crate) snapshot_rate: Option<ByteSize>,
    /// When marks are set without being asked for. Live.
    pub(crate) marks: Thresholds,
}

/// Options that cannot be used. The message names them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// They do not go together.
    #[error("{0}")]
    Options(String),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Config {
    /// Every option at its default.
    pub(crate) fn new(upstream: RedisUrl) -> Self {
        Self {
            listen: Vec::new(),
            tls_listen: Vec::new(),
            unix_socket_mode: None,
            proxy_protocol: Switch::Off,
            tls: None,
            upstream,
            follow: None,
            accept_new_history: false,
            known_as: None,
            upstream_tls: ClientTls::default(),
            sharing: Sharing::Auto,
            max_clients: 10_000,
            timeout: None,
            tcp_keepalive: Some(Duration::from_mins(5)),
            handshake_timeout: Duration::from_secs(10),
            output_limit: ByteSize(1 << 30),
            client_memory: ByteSize(1 << 30),
            admin_users: vec!["default".to_owned()],
            workers: std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1)),
            dir: "redtape-journal".into(),
            sync: SyncPolicy::EverySec,
            ack: Ack::Upstream,
            on_journal_failure: OnJournalFailure::Pass,
            segment_bytes: 64 << 20,
            journal_key_file: Vec::new(),
            keyring: Keyring::default(),
            metrics: None,
            retention: None,
            journal_max_size: None,
            snapshot_every: None,
            snapshot_at: None,
            snapshot_rate: None,
            marks: Thresholds::default(),
        }
    }

    /// Clients are served, not only a journal written.
    pub(crate) fn serves(&self) -> bool {
        !self.listen.is_empty() || !self.tls_listen.is_empty()
    }

    /// The upstream's address as the journal remembers it.
    pub(crate) fn recorded_address(&self) -> String {
        self.known_as.clone().unwrap_or_else(|| self.upstream.address())
    }

    /// Writes are refused while the journal cannot be written.
    pub(crate) fn rejects_writes(&self) -> bool {
        self.ack == Ack::Journal || self.on_journal_failure == OnJournalFailure::Reject
    }

    /// TLS towards the followed server: its own name is checked, whatever the upstream's is.
    pub(crate) fn follow_tls(&self) -> ClientTls {
        ClientTls { sni: None, ..self.upstream_tls.clone() }
    }

    /// Whether the options go together and the TLS files can be used; nothing is changed anywhere. What is
    /// allowed but surely not meant is returned.
    pub(crate) fn check(&self) -> Result<Vec<String>, ConfigError> {
        let options = |why: String| Err(ConfigError::Options(why));
        let mut warnings = Vec::new();
        for (zero, name) in [
            (self.max_clients == 0, "maxclients"),
            (self.handshake_timeout.is_zero(), "handshake-timeout"),
            (self.workers == 0, "workers"),
            (self.marks.mass_time.is_zero(), "mass-delete-seconds"),
        ] {
            if zero {
                return options(format!("{name} must be at least 1"));
            }
        }
        if self.output_limit < OUTPUT_LIMIT_MIN {
            return options(format!("client-output-buffer-limit must be at least {OUTPUT_LIMIT_MIN}"));
        }
        if self.client_memory.0 != 0 && self.client_memory < CLIENT_MEMORY_MIN {
            return options(format!("client-memory must be at least {CLIENT_MEMORY_MIN}, or 0 for no limit"));
        }
        if self.ack == Ack::Journal && self.sync != SyncPolicy::Always {
            return options(
                "ack journal needs sync always: a reply waits until its write is synced; take sync out, or set it to always"
                    .to_owned(),
            );
        }
        self.check_addresses()?;
        warnings.extend(self.check_housekeeping()?);
        match (&self.tls, self.tls_listen.is_empty()) {
            (None, false) => {
                return options(
                    "tls-listen needs a certificate and its key: set tls-cert-file and tls-key-file".to_owned(),
                );
            }
            (Some(_), true) => {
                warnings.push(
                    "the tls-* options have no effect without tls-listen: clients are served without TLS".to_owned(),
                );
            }
            _ => {}
        }
        if let Some(tls) = &self.tls {
            tls.check()?;
        }
        let servers = [Some(&self.upstream), self.follow.as_ref()];
        if servers.iter().flatten().any(|url| url.tls) {
            self.upstream_tls.check()?;
            if let (true, Endpoint::Tcp { host, .. }) = (self.upstream.tls, &self.upstream.endpoint) {
                self.upstream_tls.server_name(host)?;
            }
            if let Some(RedisUrl { tls: true, endpoint: Endpoint::Tcp { host, .. }, .. }) = &self.follow {
                self.follow_tls().server_name(host)?;
            }
            if self.upstream_tls.insecure {
                warnings.push("upstream-tls-insecure: the server's certificate is not checked".to_owned());
            }
        } else if self.upstream_tls != ClientTls::default() {
            return options(format!(
                "the upstream-tls-* options have no effect with {}; use rediss://, or take them out",
                self.upstream
            ));
        }
        if self.admin_users.is_empty() {
            warnings.push(
                "admin-users is empty: no user may run REDTAPE.MARK, REDTAPE.SNAPSHOT and REDTAPE.GET".to_owned(),
            );
        }
        Ok(warnings)
    }

    fn check_housekeeping(&self) -> Result<Option<String>, ConfigError> {
        let options = |why: String| Err(ConfigError::Options(why));
        if self.snapshot_every.is_some() && self.snapshot_at.is_some() {
            return options("snapshot-every and snapshot-at are two schedules: set one of them".to_owned());
        }
        if self.snapshot_rate.is_some_and(|rate| rate < SNAPSHOT_RATE_MIN) {
            return options(format!("snapshot-rate must be at least {SNAPSHOT_RATE_MIN} (a second)"));
        }
        let prunes = self.retention.is_some() || self.journal_max_size.is_some();
        let scheduled = self.snapshot_every.is_some() || self.snapshot_at.is_some();
        Ok((prunes && !scheduled).then(|| {
            "retention and journal-max-size remove nothing before there is a newer snapshot to start from: set snapshot-every or snapshot-at"
                .to_owned()
        }))
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let plain = self.listen.iter().map(|a| ("listen", a.clone()));
        let tls = self.tls_listen.iter().map(|a| ("tls-listen", ListenAddr::Tcp(*a)));
        let metrics = self.metrics.iter().map(|a| ("metrics", ListenAddr::Tcp(*a)));
        let mut seen = HashSet::new();
        for (option, addr) in plain.chain(tls).chain(metrics) {
            let any_port = matches!(&addr, ListenAddr::Tcp(a) if a.port() == 0);
            if !any_port && !seen.insert(addr.clone()) {
                return Err(ConfigError::Options(format!("{addr} ({option}) is given twice")));
            }
            if option != "metrics" && self.is_upstream(&addr) {
                return Err(ConfigError::Options(format!(
                    "{addr} ({option}) is the upstream's own address: redtape would be its own client; choose another port"
                )));
            }
        }
        Ok(())
    }

    /// As far as it can be told without asking for names.
    fn is_upstream(&self, addr: &ListenAddr) -> bool {
        match (addr, &self.upstream.endpoint) {
            (ListenAddr::Tcp(addr), Endpoint::Tcp { host, port }) => {
                let local = matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1");
                let same = host.parse::<IpAddr>().is_ok_and(|ip| ip == addr.ip());
                addr.port() == *port && (same || (local && addr.ip().is_loopback() && host == "localhost"))
            }
            (ListenAddr::Unix(path), Endpoint::Unix(upstream)) => path.as_os_str() == upstream.as_str(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
