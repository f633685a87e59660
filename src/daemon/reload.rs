//! SIGHUP: settings and certificates are read again, and what can change while redtape runs does.
//!
//! All or nothing: new settings are read and checked as at a start, TLS files included, before the first is
//! applied. Options that cannot change are named with a warning, again at each SIGHUP until a restart.

use std::sync::Arc;

use arc_swap::ArcSwap;
use redtape_capture::{KeyringHandle, ThresholdsHandle};
use redtape_journal::Keyring;
use redtape_net::tls::{ClientTls, ServerTls, TlsAcceptor, TlsConnector, TlsError};
use redtape_proxy::Live;
use redtape_telemetry::Metrics;
use serde_json::Value;
use tokio::signal::unix::Signal;

use super::config::Config;
use super::housekeeping::Settings;

/// Reads the settings again, with the flags and environment of the start.
pub(crate) type Reread = Box<dyn FnMut() -> Result<Config, String> + Send>;

/// Settings that can change while redtape runs, each where its readers look it up.
#[derive(Clone)]
pub(super) struct Handles {
    /// For sessions.
    pub(super) live: Arc<ArcSwap<Live>>,
    /// For the housekeeping.
    pub(super) housekeeping: Arc<ArcSwap<Settings>>,
    /// The journal's keys.
    pub(super) keyring: KeyringHandle,
    /// For automatic marks.
    pub(super) marks: ThresholdsHandle,
}

impl Handles {
    /// With the settings of the start.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            live: Arc::new(ArcSwap::from_pointee(live(config))),
            housekeeping: Arc::new(ArcSwap::from_pointee(Settings::from(config))),
            keyring: Arc::new(ArcSwap::from_pointee(config.keyring.clone())),
            marks: Arc::new(ArcSwap::from_pointee(config.marks.clone())),
        }
    }

    fn replace(&self, config: &Config) {
        self.live.store(Arc::new(live(config)));
        self.housekeeping.store(Arc::new(Settings::from(config)));
        self.keyring.store(Arc::new(config.keyring.clone()));
        self.marks.store(Arc::new(config.marks.clone()));
    }
}

fn live(config: &Config) -> Live {
    Live {
        max_clients: config.max_clients,
        idle_timeout: config.timeout,
        handshake_timeout: config.handshake_timeout,
        output_limit: usize::try_from(config.output_limit.0).unwrap_or(usize::MAX),
        client_memory: usize::try_from(config.client_memory.0).ok().filter(|limit| *limit > 0),
        admin_users: config.admin_users.clone(),
        snapshot_rate: config.snapshot_rate.map(|rate| rate.0),
    }
}

/// What a reload reaches.
pub(crate) struct Reload {
    /// What is in force.
    pub(crate) config: Config,
    /// Reads what shall be.
    pub(crate) reread: Reread,
    /// Where they are looked up.
    pub(crate) handles: Handles,
    /// Towards clients, if TLS is served.
    pub(crate) acceptor: Option<Arc<TlsAcceptor>>,
    /// Towards the upstream, if it is `rediss://`.
    pub(crate) upstream: Option<Arc<TlsConnector>>,
    /// Towards the followed server, likewise.
    pub(crate) follow: Option<Arc<TlsConnector>>,
    /// Counted here.
    pub(crate) metrics: Metrics,
}

impl Reload {
    /// Reloads at each signal until dropped.
    pub(crate) async fn at_each(mut self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: settings and TLS files are read again");
            if let Err(why) = self.now() {
                self.metrics.error("config_reload");
                tracing::error!(error = why, "the new settings cannot be used; everything stays as it was");
            }
        }
    }

    fn now(&mut self) -> Result<(), String> {
        let new = (self.reread)()?;
        for warning in new.check().map_err(|e| e.to_string())? {
            tracing::warn!("{warning}");
        }
        let before = self.config.clone();
        new.keyring.keeps_current_of(&before.keyring).map_err(|id| {
            format!("the journal is being encrypted with the key `{id}`, which is not there any more; keep it beside the new one (journal-key-file, REDTAPE_JOURNAL_KEYS)")
        })?;
        self.replace_tls(&new).map_err(|e| e.to_string())?;
        self.config = self.in_force(&new);
        self.handles.replace(&self.config);
        let changes = changes(&before, &self.config, &new);
        if changes.is_empty() {
            tracing::info!("no setting has changed");
        }
        for Change { option, from, to, applied } in changes {
            if applied {
                tracing::info!(option, %from, %to, "applied");
            } else {
                tracing::warn!(option, %from, %to, "needs a restart; until then the old value is in force");
            }
        }
        Ok(())
    }

    /// What needs a restart stays as it is, so that the next SIGHUP says it again.
    fn in_force(&self, new: &Config) -> Config {
        let (old, new_tls) = (self.config.clone(), self.new_upstream_tls(new).is_some());
        Config {
            max_clients: new.max_clients,
            timeout: new.timeout,
            handshake_timeout: new.handshake_timeout,
            output_limit: new.output_limit,
            client_memory: new.client_memory,
            admin_users: new.admin_users.clone(),
            journal_key_file: new.journal_key_file.clone(),
            keyring: new.keyring.clone(),
            retention: new.retention,
            journal_max_size: new.journal_max_size,
            snapshot_every: new.snapshot_every,
            snapshot_at: new.snapshot_at,
            snapshot_rate: new.snapshot_rate,
            marks: new.marks.clone(),
            tls: if self.new_tls(new).is_some() { new.tls.clone() } else { old.tls.clone() },
            upstream_tls: if new_tls {
                ClientTls { sni: old.upstream_tls.sni.clone(), ..new.upstream_tls.clone() }
            } else {
                old.upstream_tls.clone()
            },
            ..old
        }
    }

    /// Whether TLS is served at all is settled at the start.
    fn new_tls<'a>(&'a self, new: &'a Config) -> Option<(&'a TlsAcceptor, &'a ServerTls)> {
        self.acceptor.as_deref().zip(new.tls.as_ref())
    }

    /// So is whether servers are reached by it; a new `redis://` waits, and must not take the CA away meanwhile.
    fn new_upstream_tls(&self, new: &Config) -> Option<ClientTls> {
        let upstream = self.upstream.is_some() && new.upstream.tls;
        let follow = self.follow.is_some() && new.follow.as_ref().is_some_and(|f| f.tls);
        (upstream || follow).then(|| new.upstream_tls.clone())
    }

    fn replace_tls(&self, new: &Config) -> Result<(), TlsError> {
        if let Some((acceptor, tls)) = self.new_tls(new) {
            acceptor.replace(tls.clone())?;
        }
        if let Some(tls) = self.new_upstream_tls(new) {
            // The names that are checked do not change.
            for handle in self.upstream.iter().chain(&self.follow) {
                handle.replace(tls.clone())?;
            }
        }
        Ok(())
    }
}

/// An option that is not what it was.
#[derive(Debug, PartialEq)]
struct Change {
    option: &'static str,
    from: Value,
    to: Value,
    applied: bool,
}

fn changes(old: &Config, in_force: &Config, new: &Config) -> Vec<Change> {
    let all = old.settings().into_iter().zip(in_force.settings()).zip(new.settings());
    let mut changes: Vec<Change> = all
        .filter(|((old, _), new)| old.value != new.value)
        .map(|((old, now), new)| Change {
            option: old.name,
            applied: now.value == new.value,
            from: old.value,
            to: new.value,
        })
        .collect();
    // Other keys in the same file look the same.
    if old.keyring != new.keyring {
        let said = |keyring: &Keyring| keyring.current().map_or(Value::Null, Into::into);
        let (from, to) = (said(&old.keyring), said(&new.keyring));
        changes.push(Change { option: "the journal's key", from, to, applied: in_force.keyring == new.keyring });
    }
    // So does another password.
    for (option, before, after) in
        [("upstream", Some(&old.upstream), Some(&new.upstream)), ("follow", old.follow.as_ref(), new.follow.as_ref())]
    {
        if before != after && !changes.iter().any(|c| c.option == option) {
            let (from, to) = ("its old password".into(), "its new password".into());
            changes.push(Change { option, from, to, applied: false });
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use redtape_wire::units::ByteSize;

    use super::*;

    fn config() -> Config {
        Config::new("redis://u:old@h".parse().expect("a URL"))
    }

    fn reload(new: Result<Config, String>) -> Reload {
        let (config, mut new) = (config(), Some(new));
        Reload {
            handles: Handles::of(&config),
            config,
            reread: Box::new(move || new.take().expect("one reload")),
            acceptor: None,
            upstream: None,
            follow: None,
            metrics: Metrics::new(Arc::default()).expect("metrics"),
        }
    }

    #[test]
    fn live_options_change_and_others_wait() {
        let mut new = Config { max_clients: 5, workers: 77, output_limit: ByteSize(1 << 20), ..config() };
        new.client_memory = ByteSize(0);
        new.admin_users = vec!["ops".to_owned()];
        new.retention = "7d".parse().ok();
        new.snapshot_every = "6h".parse().ok();
        new.marks.mass_keys = 7;
        new.upstream = "redis://u:new@h".parse().expect("a URL");
        let in_force = reload(Ok(new.clone())).in_force(&new);
        let mut all: Vec<_> = changes(&config(), &in_force, &new).into_iter().map(|c| (c.option, c.applied)).collect();
        all.sort_unstable();
        let expected = [
            ("admin-users", true),
            ("client-memory", true),
            ("client-output-buffer-limit", true),
            ("mass-delete-keys", true),
            ("maxclients", true),
            ("retention", true),
            ("snapshot-every", true),
            ("upstream", false),
            ("workers", false),
        ];
        assert_eq!(all, expected);
        let mut reload = reload(Ok(new.clone()));
        reload.now().expect("a reload");
        let live = reload.handles.live.load();
        assert_eq!((live.max_clients, live.output_limit, live.client_memory), (5, 1 << 20, None));
        assert_eq!(live.admin_users, ["ops"]);
        assert_eq!(reload.handles.marks.load().mass_keys, 7);
        let housekeeping = reload.handles.housekeeping.load();
        assert!(housekeeping.retention.is_set() && housekeeping.schedule.is_some());
        let still: Vec<_> = changes(&reload.config, &reload.config, &new).into_iter().map(|c| c.option).collect();
        assert_eq!(still, ["workers", "upstream"], "said again at the next SIGHUP");
    }

    #[test]
    fn bad_settings_change_nothing() {
        for new in [Err("no such file".to_owned()), Ok(Config { max_clients: 9, workers: 0, ..config() })] {
            let mut reload = reload(new);
            let before = (reload.handles.live.load_full(), reload.handles.housekeeping.load_full());
            assert!(reload.now().is_err());
            assert_eq!((reload.handles.live.load_full(), reload.handles.housekeeping.load_full()), before);
            assert_eq!(reload.config.max_clients, before.0.max_clients);
        }
    }
}
