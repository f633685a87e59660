//! Towards clients: which certificate redtape shows, and whose certificates it accepts.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use serde::Deserialize;

use super::files::revocation_lists;
use super::handle::Built;
use super::{CaFiles, KeyPair, Material, TlsError, provider, validity};

const CERT_OPTIONS: [&str; 2] = ["tls-cert-file", "tls-key-file"];
const CA_OPTIONS: [&str; 2] = ["tls-ca-cert-file", "tls-ca-cert-dir"];
const CRL_OPTION: &str = "tls-crl-file";
const SNI_OPTION: &str = "tls-sni-cert";

/// Whether clients show a certificate (Redis's `tls-auth-clients`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AuthClients {
    /// They must, as in Redis.
    #[default]
    Yes,
    /// They may; one that is shown must be good.
    Optional,
    /// They are not asked.
    No,
}

impl FromStr for AuthClients {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "yes" => Ok(Self::Yes),
            "optional" => Ok(Self::Optional),
            "no" => Ok(Self::No),
            _ => Err("expected yes, optional or no".to_owned()),
        }
    }
}

impl TryFrom<String> for AuthClients {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for AuthClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::Optional => "optional",
            Self::No => "no",
        })
    }
}

/// Which versions are spoken (Redis's `tls-protocols`, in its words: `"TLSv1.2 TLSv1.3"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Protocols {
    /// TLS 1.2.
    pub v12: bool,
    /// TLS 1.3.
    pub v13: bool,
}

impl Default for Protocols {
    fn default() -> Self {
        Self { v12: true, v13: true }
    }
}

impl FromStr for Protocols {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut protocols = Self { v12: false, v13: false };
        for word in text.split_whitespace() {
            match word.to_ascii_lowercase().as_str() {
                "tlsv1.2" => protocols.v12 = true,
                "tlsv1.3" => protocols.v13 = true,
                "tlsv1" | "tlsv1.1" => {
                    return Err(format!("{word} is broken and not supported; TLSv1.2 and TLSv1.3 are"));
                }
                _ => return Err("expected TLSv1.2, TLSv1.3 or both, separated by a blank".to_owned()),
            }
        }
        if protocols.v12 || protocols.v13 { Ok(protocols) } else { Err("expected TLSv1.2, TLSv1.3 or both".to_owned()) }
    }
}

impl TryFrom<String> for Protocols {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.v12, self.v13) {
            (true, true) => "TLSv1.2 TLSv1.3",
            (true, false) => "TLSv1.2",
            (false, _) => "TLSv1.3",
        })
    }
}

impl Protocols {
    fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let v12 = self.v12.then_some(&rustls::version::TLS12);
        v12.into_iter().chain(self.v13.then_some(&rustls::version::TLS13)).collect()
    }
}

/// A certificate for clients that ask for a certain name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SniCert {
    /// The name; `*.example.com` stands for each name one label longer.
    pub name: String,
    /// The chain.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// What redtape shows to clients, and what it asks of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Shown to clients that ask for no name, or for one that is not in `sni`.
    pub pair: KeyPair,
    /// Who signs clients' certificates.
    pub ca: CaFiles,
    /// Whether clients need one.
    pub auth_clients: AuthClients,
    /// Which of them are revoked. With such lists, each authority of a client's chain needs one: whose status
    /// is unknown is refused. A list counts though its next update is due.
    pub crl_files: Vec<PathBuf>,
    /// Which versions.
    pub protocols: Protocols,
    /// More certificates, by name.
    pub sni: Vec<SniCert>,
}

impl ServerTls {
    /// Whether the files can be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.build().map(drop)
    }

    fn verifier(&self) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
        if self.auth_clients == AuthClients::No {
            if !self.crl_files.is_empty() {
                let why = "tls-crl-file has no effect with tls-auth-clients = no; set it to yes or optional";
                return Err(TlsError::Options(why.to_owned()));
            }
            return Ok(WebPkiClientVerifier::no_client_auth());
        }
        if self.ca.is_empty() {
            return Err(TlsError::Options(format!(
                "tls-auth-clients is {} (the default is yes, as in Redis), so clients' certificates are checked: name \
                 the CA that signs them (tls-ca-cert-file or tls-ca-cert-dir), or set tls-auth-clients = no",
                self.auth_clients
            )));
        }
        let mut lists = Vec::new();
        for path in &self.crl_files {
            lists.extend(revocation_lists(path, CRL_OPTION)?);
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(self.ca.read(CA_OPTIONS)?, provider());
        builder = builder.with_crls(lists);
        if self.auth_clients == AuthClients::Optional {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|e| TlsError::Unusable {
            option: if self.crl_files.is_empty() { CA_OPTIONS[0] } else { CRL_OPTION },
            path: self.crl_files.first().cloned().or_else(|| self.ca.file.clone()).unwrap_or_default(),
            why: e.to_string(),
        })
    }
}

impl Material for ServerTls {
    type Config = ServerConfig;
    const SIDE: &'static str = "clients";

    fn build(&self) -> Result<Built<ServerConfig>, TlsError> {
        let default = Arc::new(self.pair.read(CERT_OPTIONS)?);
        let mut by_name = HashMap::new();
        for extra in &self.sni {
            let pair = KeyPair { cert_file: extra.cert_file.clone(), key_file: extra.key_file.clone() };
            let certified = Arc::new(pair.read([SNI_OPTION; 2])?);
            if by_name.insert(extra.name.to_ascii_lowercase(), certified).is_some() {
                return Err(TlsError::Options(format!("{SNI_OPTION} has {} twice", extra.name)));
            }
        }
        let ends = default.cert.first().and_then(|c| validity::not_after(c));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&self.protocols.versions())
            .map_err(|e| TlsError::Options(format!("tls-protocols: {e}")))?
            .with_client_cert_verifier(self.verifier()?)
            .with_cert_resolver(Arc::new(Certificates { default, by_name }));
        // Tickets are kept by the clients: a resumption costs redtape no memory. Their key lives and dies with
        // this configuration, so that a reload with a new CRL or CA ends all of them.
        config.ticketer =
            rustls::crypto::ring::Ticketer::new().map_err(|e| TlsError::Options(format!("session tickets: {e}")))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Built { config: Arc::new(config), ends })
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.pair.paths().into();
        files.extend(self.ca.paths());
        files.extend(self.crl_files.iter().cloned());
        files.extend(self.sni.iter().flat_map(|s| [s.cert_file.clone(), s.key_file.clone()]));
        files
    }
}

/// Chooses by the name that the client asks for.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()).clone())
    }
}
