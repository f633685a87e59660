//! Every option with its value, for people: `config show`, and what changed at a reload.

use std::time::Duration;

use redtape_journal::SyncPolicy;
use redtape_net::tls::SniCert;
use redtape_wire::settings::Switch;
use serde_json::{Value, json};

use super::Config;

/// One option as it is set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    /// As in `redtape.toml`.
    pub(crate) name: &'static str,
    /// Secrets are `***`; null = not set.
    pub(crate) value: Value,
    /// SIGHUP changes it while redtape runs.
    pub(crate) live: bool,
}

impl Config {
    /// All of them, in the order of the documentation.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut all = Vec::new();
        let mut fixed = |name, value| all.push(Setting { name, value, live: false });
        fixed("listen", texts(&self.listen));
        fixed("tls-listen", texts(&self.tls_listen));
        fixed("unixsocketperm", json!(self.unix_socket_mode.map(|m| m.to_string())));
        fixed("proxy-protocol", json!(self.proxy_protocol.to_string()));
        fixed("upstream", json!(self.upstream.to_string()));
        fixed("follow", json!(self.follow.as_ref().map(ToString::to_string)));
        fixed("accept-new-history", json!(self.accept_new_history));
        fixed("sharing", json!(self.sharing.to_string()));
        fixed("tcp-keepalive", seconds(self.tcp_keepalive));
        fixed("workers", json!(self.workers));
        fixed("dir", json!(self.dir));
        fixed("sync", json!(sync(self.sync)));
        fixed("ack", json!(self.ack.to_string()));
        fixed("on-journal-failure", json!(self.on_journal_failure.to_string()));
        fixed("segment-mib", json!(self.segment_bytes >> 20));
        fixed("metrics", json!(self.metrics.map(|a| a.to_string())));
        fixed("upstream-tls-sni", json!(self.upstream_tls.sni));

        let mut live = |name, value| all.push(Setting { name, value, live: true });
        let key_files = Some(&self.journal_key_file).filter(|files| !files.is_empty());
        live("journal-key-file", json!(key_files));
        live("maxclients", json!(self.max_clients));
        live("retention", text(self.retention));
        live("journal-max-size", text(self.journal_max_size));
        live("snapshot-every", text(self.snapshot_every));
        live("snapshot-at", text(self.snapshot_at));
        live("snapshot-rate", text(self.snapshot_rate));
        live("automatic-marks", json!(if self.marks.enabled { Switch::On } else { Switch::Off }.to_string()));
        live("mass-delete-keys", json!(self.marks.mass_keys));
        live("mass-delete-seconds", seconds(Some(self.marks.mass_time)));
        live("timeout", seconds(self.timeout));
        live("handshake-timeout", seconds(Some(self.handshake_timeout)));
        live("client-output-buffer-limit", json!(self.output_limit.to_string()));
        live("client-memory", json!(self.client_memory.to_string()));
        live("admin-users", json!(self.admin_users));
        // Whether TLS is served at all depends on tls-listen; with which files can change.
        let tls = self.tls.as_ref();
        live("tls-cert-file", json!(tls.map(|t| &t.pair.cert_file)));
        live("tls-key-file", json!(tls.map(|t| &t.pair.key_file)));
        live("tls-ca-cert-file", json!(tls.and_then(|t| t.ca.file.as_ref())));
        live("tls-ca-cert-dir", json!(tls.and_then(|t| t.ca.dir.as_ref())));
        live("tls-auth-clients", json!(tls.map(|t| t.auth_clients.to_string())));
        live("tls-crl-file", json!(tls.map(|t| &t.crl_files)));
        live("tls-protocols", json!(tls.map(|t| t.protocols.to_string())));
        live("tls-sni-cert", tls.map_or(Value::Null, |t| sni_certs(&t.sni)));
        let upstream = &self.upstream_tls;
        live("upstream-tls-ca-cert-file", json!(upstream.ca.file));
        live("upstream-tls-ca-cert-dir", json!(upstream.ca.dir));
        live("upstream-tls-cert-file", json!(upstream.pair.as_ref().map(|p| &p.cert_file)));
        live("upstream-tls-key-file", json!(upstream.pair.as_ref().map(|p| &p.key_file)));
        live("upstream-tls-insecure", json!(upstream.insecure));
        all
    }
}

fn text<T: ToString>(value: Option<T>) -> Value {
    json!(value.map(|v| v.to_string()))
}

fn texts<T: ToString>(values: &[T]) -> Value {
    values.iter().map(T::to_string).collect()
}

fn sni_certs(all: &[SniCert]) -> Value {
    all.iter().map(|s| json!({"name": s.name, "cert-file": s.cert_file, "key-file": s.key_file})).collect()
}

fn seconds(time: Option<Duration>) -> Value {
    json!(time.map_or(0, |t| t.as_secs()))
}

/// A sync policy in Redis's words.
pub(crate) fn sync(policy: SyncPolicy) -> &'static str {
    match policy {
        SyncPolicy::Always => "always",
        SyncPolicy::EverySec => "everysec",
        SyncPolicy::No => "no",
    }
}
