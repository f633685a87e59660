//! What the options of TLS towards a server are called, for messages: the same words behind the server's own prefix.

/// Names of the options, without the dashes before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionNames {
    pub(super) ca_file: &'static str,
    pub(super) ca_dir: &'static str,
    pub(super) cert_file: &'static str,
    pub(super) key_file: &'static str,
    pub(super) sni: &'static str,
}

impl OptionNames {
    /// Of the server that is recorded.
    pub const UPSTREAM: Self = Self {
        ca_file: "upstream-tls-ca-cert-file",
        ca_dir: "upstream-tls-ca-cert-dir",
        cert_file: "upstream-tls-cert-file",
        key_file: "upstream-tls-key-file",
        sni: "upstream-tls-sni",
    };
    /// Of the server that a restore writes to.
    pub const TARGET: Self = Self {
        ca_file: "to-tls-ca-cert-file",
        ca_dir: "to-tls-ca-cert-dir",
        cert_file: "to-tls-cert-file",
        key_file: "to-tls-key-file",
        sni: "to-tls-sni",
    };
}

impl Default for OptionNames {
    fn default() -> Self {
        Self::UPSTREAM
    }
}
