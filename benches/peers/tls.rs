//! Certificates of this run, and the client's side of TLS. One generator meets every server alike: what TLS
//! costs the client burdens all in the same way.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;

/// Writes `ca.crt`, `server.crt`, `server.key` and `server.pem` (both in one, as `HAProxy` takes them); gives a
/// client that trusts them (and shows the same certificate where a server insists on one).
pub(crate) fn certificates(dir: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "redtape bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate()?;
    let ca = params.self_signed(&ca_key)?;
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;

    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
        )?;
    for (name, text) in [
        ("ca.crt", ca.pem()),
        ("server.crt", cert.pem()),
        ("server.key", key.serialize_pem()),
        ("server.pem", cert.pem() + &key.serialize_pem()),
    ] {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(Arc::new(client))
}
