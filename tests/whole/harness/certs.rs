//! Certificates for a test: an authority and what it signs, as files.

use super::Dir;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::PathBuf;

pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    dir: Dir,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let dir = Dir::new("certs");
        std::fs::write(dir.join("ca.crt"), params.self_signed(&key).expect("a CA").pem()).expect("ca.crt");
        Self { issuer: Issuer::new(params, key), dir }
    }

    /// `ca.crt`, or what [`Ca::sign`] has made: `NAME.crt`, `NAME.key`.
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// The certificates of several, for one file.
    pub fn pem_of(all: &[&Self]) -> String {
        all.iter().map(|ca| std::fs::read_to_string(ca.dir.join("ca.crt")).expect("ca.crt")).collect()
    }

    /// A certificate for these hosts.
    pub fn sign(&self, name: &str, hosts: &[&str]) -> (String, String) {
        self.sign_until(name, hosts, 2099)
    }

    /// The same, until the end of this year.
    pub fn sign_until(&self, name: &str, hosts: &[&str], year: i32) -> (String, String) {
        let hosts: Vec<String> = hosts.iter().map(|&h| h.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let (cert_file, key_file): (PathBuf, PathBuf) =
            (self.dir.join(&format!("{name}.crt")), self.dir.join(&format!("{name}.key")));
        std::fs::write(&cert_file, params.signed_by(&key, &self.issuer).expect("signed").pem()).expect("a file");
        std::fs::write(&key_file, key.serialize_pem()).expect("a file");
        (cert_file.display().to_string(), key_file.display().to_string())
    }
}
