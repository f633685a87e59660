//! Towards servers (`rediss://`): whom redtape trusts, and what it shows.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::handle::Built;
use super::{CaFiles, KeyPair, Material, OptionNames, TlsError, provider, validity};

/// Servers whose sessions are kept for resumption: the upstream and a followed replica.
const RESUMPTION_MAX: usize = 16;

/// How servers are checked, and what redtape shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Who signs the servers' certificates; empty = whom the machine trusts.
    pub ca: CaFiles,
    /// What redtape shows to a server that asks.
    pub pair: Option<KeyPair>,
    /// The name asked for and checked, instead of the URL's host.
    pub sni: Option<String>,
    /// Take any certificate.
    pub insecure: bool,
    /// What the options are called that say all this.
    pub names: OptionNames,
}

impl ClientTls {
    /// Whether the files can be used.
    pub fn check(&self) -> Result<(), TlsError> {
        self.build().map(drop)
    }

    /// The name that the server must be able to prove.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let (name, from) = self.sni.as_deref().map_or((host, "the URL"), |sni| (sni, self.names.sni));
        ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::Options(format!("{name:?} (from {from}) is no DNS name or IP address for TLS")))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        if !self.ca.is_empty() {
            return self.ca.read([self.names.ca_file, self.names.ca_dir]);
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let why = found.errors.first().map(|e| format!(" ({e})")).unwrap_or_default();
            return Err(TlsError::Options(format!(
                "this machine has no list of trusted CAs{why}: name the server's CA with {}, or install the package \
                 ca-certificates",
                self.names.ca_file
            )));
        }
        Ok(Arc::new(roots))
    }
}

impl Material for ClientTls {
    type Config = ClientConfig;
    const SIDE: &'static str = "upstream";

    fn build(&self) -> Result<Built<ClientConfig>, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::Options(e.to_string()))?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider())))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let (mut config, ends) = match &self.pair {
            None => (builder.with_no_client_auth(), None),
            Some(pair) => {
                let certified = pair.read([self.names.cert_file, self.names.key_file])?;
                let ends = certified.cert.first().and_then(|c| validity::not_after(c));
                let one = rustls::sign::SingleCertAndKey::from(certified);
                (builder.with_client_cert_resolver(Arc::new(one)), ends)
            }
        };
        config.resumption = Resumption::in_memory_sessions(RESUMPTION_MAX);
        Ok(Built { config: Arc::new(config), ends })
    }

    fn files(&self) -> Vec<PathBuf> {
        self.pair.iter().flat_map(KeyPair::paths).chain(self.ca.paths()).collect()
    }
}

/// `upstream-tls-insecure`: any certificate is taken for the server's. Its signatures are still checked, so that a broken
/// handshake is seen as one.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
