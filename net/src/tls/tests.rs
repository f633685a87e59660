//! Real certificates, real handshakes, no sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair as Key, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{ClientConnection, Connection, HandshakeKind, ProtocolVersion, ServerConnection};
use tempfile::TempDir;

use super::*;

/// An authority and a folder for what it signs.
struct Ca {
    issuer: Issuer<'static, Key>,
    dir: TempDir,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = Key::generate().expect("a key");
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("ca.crt"), params.self_signed(&key).expect("a CA").pem()).expect("ca.crt");
        std::fs::write(dir.path().join("ca.key"), key.serialize_pem()).expect("ca.key");
        Self { issuer: Issuer::new(params, key), dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ca(&self) -> CaFiles {
        CaFiles { file: Some(self.file("ca.crt")), dir: None }
    }

    /// A certificate for a host, or with this name for a client.
    fn sign(&self, host: &str, serial: u64) -> KeyPair {
        self.sign_until(host, serial, 2060)
    }

    fn sign_until(&self, host: &str, serial: u64, year: i32) -> KeyPair {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = date_time_ymd(year, 7, 4);
        let key = Key::generate().expect("a key");
        let pair =
            KeyPair { cert_file: self.file(&format!("{host}.crt")), key_file: self.file(&format!("{host}.key")) };
        std::fs::write(&pair.cert_file, params.signed_by(&key, &self.issuer).expect("signed").pem()).expect("a file");
        std::fs::write(&pair.key_file, key.serialize_pem()).expect("a file");
        pair
    }

    fn revoke(&self, serial: u64) -> PathBuf {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2060, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.file("ca.crl");
        std::fs::write(&path, list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")).expect("a file");
        path
    }

    fn server(&self) -> ServerTls {
        ServerTls {
            pair: self.sign("redtape.test", 1),
            ca: CaFiles::default(),
            auth_clients: AuthClients::No,
            crl_files: Vec::new(),
            protocols: Protocols::default(),
            sni: Vec::new(),
        }
    }

    fn client(&self, pair: Option<KeyPair>) -> ClientTls {
        ClientTls { ca: self.ca(), pair, ..ClientTls::default() }
    }
}

/// Both ends of a connection, in the same hands.
fn connect(client: &TlsConnector, name: &str, server: &TlsAcceptor) -> Result<Connection, rustls::Error> {
    let name = ClientTls::default().server_name(name).expect("a name");
    let mut client = Connection::Client(ClientConnection::new(client.current(), name)?);
    let mut server = Connection::Server(ServerConnection::new(server.current())?);
    while hand_over(&mut client, &mut server)? | hand_over(&mut server, &mut client)? {}
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(client)
}

fn hand_over(from: &mut Connection, to: &mut Connection) -> Result<bool, rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("into memory");
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("from memory");
        to.process_new_packets()?;
    }
    Ok(!bytes.is_empty())
}

fn acceptor(tls: ServerTls) -> TlsAcceptor {
    TlsAcceptor::new(tls).expect("towards clients")
}

fn connector(tls: ClientTls) -> TlsConnector {
    TlsConnector::new(tls).expect("towards servers")
}

/// The end of the certificate that a client is shown.
fn shown(connection: &Connection) -> Vec<u8> {
    connection.peer_certificates().expect("a certificate")[0].to_vec()
}

fn der(path: &Path) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateDer::from_pem_file(path).expect("a certificate").to_vec()
}

#[test]
fn both_versions_are_spoken_and_resumed() {
    let ca = Ca::new("ca");
    for (v12, v13, version) in [
        (true, false, ProtocolVersion::TLSv1_2),
        (false, true, ProtocolVersion::TLSv1_3),
        (true, true, ProtocolVersion::TLSv1_3),
    ] {
        let server = acceptor(ServerTls { protocols: Protocols { v12, v13 }, ..ca.server() });
        let client = connector(ca.client(None));
        let first = connect(&client, "redtape.test", &server).expect("a handshake");
        assert_eq!((first.protocol_version(), first.handshake_kind()), (Some(version), Some(HandshakeKind::Full)));
        let second = connect(&client, "redtape.test", &server).expect("a handshake");
        assert_eq!(second.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[test]
fn clients_certificates_are_asked_for_as_configured() {
    let (ca, foreign) = (Ca::new("ca"), Ca::new("foreign"));
    let good = ca.client(Some(ca.sign("app", 2)));
    let none = ca.client(None);
    let bad = ClientTls { ca: ca.ca(), ..foreign.client(Some(foreign.sign("app", 3))) };
    for (auth_clients, allowed) in [
        (AuthClients::Yes, [true, false, false]),
        (AuthClients::Optional, [true, true, false]),
        (AuthClients::No, [true, true, true]),
    ] {
        let server = acceptor(ServerTls { auth_clients, ca: ca.ca(), ..ca.server() });
        let found = [&good, &none, &bad].map(|c| connect(&connector(c.clone()), "redtape.test", &server).is_ok());
        assert_eq!(found, allowed, "{auth_clients}: good, none, foreign");
    }
    let nobody = ServerTls { auth_clients: AuthClients::Yes, ..ca.server() };
    let refusal = TlsAcceptor::new(nobody).expect_err("no CA").to_string();
    assert!(refusal.contains("tls-ca-cert-file") && refusal.contains("tls-auth-clients"), "{refusal}");
}

#[test]
fn a_revoked_client_stays_out_even_with_a_ticket() {
    let ca = Ca::new("ca");
    let revoked = connector(ca.client(Some(ca.sign("left", 7))));
    let other = connector(ca.client(Some(ca.sign("stays", 8))));
    let before = ServerTls { auth_clients: AuthClients::Yes, ca: ca.ca(), ..ca.server() };
    let server = acceptor(before.clone());
    connect(&revoked, "redtape.test", &server).expect("not revoked yet");
    let resumed = connect(&revoked, "redtape.test", &server).expect("not revoked yet");
    assert_eq!(resumed.handshake_kind(), Some(HandshakeKind::Resumed));
    server.replace(ServerTls { crl_files: vec![ca.revoke(7)], ..before.clone() }).expect("a list");
    let error = connect(&revoked, "redtape.test", &server).expect_err("revoked");
    assert!(error.to_string().contains("Revoked"), "{error}");
    connect(&other, "redtape.test", &server).expect("not on the list");
    let useless = ServerTls { crl_files: vec![ca.file("ca.crl")], auth_clients: AuthClients::No, ..before };
    assert!(server.replace(useless).expect_err("no effect").to_string().contains("tls-crl-file"));
}

#[test]
fn a_reload_takes_good_files_and_keeps_the_old_ones_otherwise() {
    let ca = Ca::new("ca");
    let server = acceptor(ca.server());
    let client = connector(ca.client(None));
    let first = shown(&connect(&client, "redtape.test", &server).expect("a handshake"));

    let pair = ca.sign("redtape.test", 2);
    assert!(server.reload());
    let second = shown(&connect(&client, "redtape.test", &server).expect("a handshake"));
    assert!(second != first && second == der(&pair.cert_file));

    // Half of a new pair, a cut file, none.
    let other = ca.sign("other", 3);
    let key = std::fs::read(&pair.key_file).expect("the key");
    for bad in [std::fs::read(other.key_file).expect("a key"), key[..key.len() / 2].to_vec(), Vec::new()] {
        std::fs::write(&pair.key_file, bad).expect("a file");
        assert!(!server.reload());
        assert_eq!(shown(&connect(&client, "redtape.test", &server).expect("the old one")), second);
    }
    std::fs::remove_file(&pair.key_file).expect("removed");
    assert!(!server.reload());
    std::fs::write(&pair.key_file, key).expect("a file");
    assert!(server.reload());
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_noticed() {
    let ca = Ca::new("ca");
    let failures = Arc::new(AtomicUsize::new(0));
    let counted = failures.clone();
    let server = Arc::new(acceptor(ca.server()));
    let watching = tokio::spawn(watch(server.clone(), move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let looks = |n: u64| tokio::time::sleep(std::time::Duration::from_millis(1000 * n + 500));
    let client = connector(ca.client(None));
    let pair = ca.sign("redtape.test", 2);
    looks(3).await;
    let seen = shown(&connect(&client, "redtape.test", &server).expect("a handshake"));
    assert_eq!(seen, der(&pair.cert_file));
    std::fs::write(&pair.cert_file, "nothing").expect("a file");
    looks(10).await;
    assert_eq!(failures.load(Ordering::Relaxed), 1, "once for each change");
    ca.sign("redtape.test", 3);
    looks(3).await;
    assert_ne!(shown(&connect(&client, "redtape.test", &server).expect("a handshake")), seen);
    watching.abort();
}

#[test]
fn the_certificate_is_chosen_by_name() {
    let ca = Ca::new("ca");
    let extra = |name: &str, host: &str| {
        let KeyPair { cert_file, key_file } = ca.sign(host, 5);
        SniCert { name: name.to_owned(), cert_file, key_file }
    };
    let sni = vec![extra("a.test", "a.test"), extra("*.wild.test", "x.wild.test")];
    let server = acceptor(ServerTls { sni: sni.clone(), ..ca.server() });
    let client = connector(ca.client(None));
    for (name, file) in
        [("a.test", "a.test"), ("A.Test", "a.test"), ("x.wild.test", "x.wild.test"), ("redtape.test", "redtape.test")]
    {
        let connection = connect(&client, name, &server).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(shown(&connection), der(&ca.file(&format!("{file}.crt"))), "{name}");
    }
    let error = connect(&client, "deep.x.wild.test", &server).expect_err("the default's name is another");
    assert!(TlsFailure::explain(&error).to_string().contains("--upstream-tls-sni"), "{error}");
    let twice = vec![sni[0].clone(), sni[0].clone()];
    assert!(
        TlsAcceptor::new(ServerTls { sni: twice, ..ca.server() }).expect_err("twice").to_string().contains("a.test")
    );
}

#[test]
fn servers_are_checked_unless_told_otherwise() {
    let (ca, foreign) = (Ca::new("ca"), Ca::new("foreign"));
    let server = acceptor(ca.server());
    let error = connect(&connector(foreign.client(None)), "redtape.test", &server).expect_err("unknown CA");
    assert!(TlsFailure::explain(&error).to_string().contains("--upstream-tls-ca-cert-file"), "{error}");
    let insecure = ClientTls { insecure: true, ..ClientTls::default() };
    connect(&connector(insecure), "another.test", &server).expect("anything goes");
    // A folder with other things in it.
    std::fs::write(ca.file("README"), "not a certificate").expect("a file");
    let dir = ClientTls { ca: CaFiles { file: None, dir: Some(ca.dir.path().to_owned()) }, ..ClientTls::default() };
    connect(&connector(dir), "redtape.test", &server).expect("the CA is in the folder");
    let named = ClientTls { sni: Some("redtape.test".to_owned()), ..ClientTls::default() };
    assert_eq!(named.server_name("10.0.0.1").expect("a name").to_str(), "redtape.test");
}

#[test]
fn a_certificate_that_cannot_be_used_is_explained() {
    let ca = Ca::new("ca");
    let client = connector(ca.client(None));
    let explained = |name: &str, pair: KeyPair| {
        let server = acceptor(ServerTls { pair, ..ca.server() });
        let error = connect(&client, name, &server).expect_err("a certificate that cannot be used");
        TlsFailure::explain(&error).to_string()
    };
    let own = KeyPair { cert_file: ca.file("ca.crt"), key_file: ca.file("ca.key") };
    let said = explained("redtape.test", own);
    assert!(said.contains("a CA's certificate as its own") && said.contains("CA:FALSE"), "{said}");
    let said = explained("another.test", ca.sign("redtape.test", 1));
    assert!(said.contains("another name") && said.contains("--upstream-tls-sni"), "{said}");
    let said = explained("old.test", ca.sign_until("old.test", 2, 2024));
    assert!(said.contains("has expired"), "{said}");
}

#[test]
fn unusable_files_are_named() {
    let ca = Ca::new("ca");
    let good = ca.server();
    let pair = |cert: &Path, key: &Path| ServerTls {
        pair: KeyPair { cert_file: cert.to_owned(), key_file: key.to_owned() },
        ..good.clone()
    };
    let (cert, key) = (good.pair.cert_file.clone(), good.pair.key_file.clone());
    let other = ca.sign("other", 9);
    let encrypted = ca.file("encrypted.key");
    let pem = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(&encrypted, pem).expect("a file");
    let missing = ca.file("missing.crt");
    for (tls, words) in [
        (pair(&missing, &key), ["missing.crt", "tls-cert-file"]),
        (pair(&key, &key), ["redtape.test.key (tls-cert-file)", "no certificate"]),
        (pair(&cert, &cert), ["redtape.test.crt (tls-key-file)", "no private key"]),
        (pair(&cert, &encrypted), ["encrypted.key", "openssl pkey"]),
        (pair(&cert, &other.key_file), ["other.key", "do not belong together"]),
        (
            ServerTls {
                auth_clients: AuthClients::Yes,
                ca: CaFiles { file: Some(key.clone()), dir: None },
                ..good.clone()
            },
            ["tls-ca-cert-file", "no certificate"],
        ),
        (
            ServerTls { auth_clients: AuthClients::Yes, ca: ca.ca(), crl_files: vec![cert.clone()], ..good.clone() },
            ["tls-crl-file", "revocation list"],
        ),
    ] {
        let message = TlsAcceptor::new(tls).expect_err("refused").to_string();
        assert!(words.iter().all(|w| message.contains(w)), "{words:?}: {message}");
    }
}

#[test]
fn the_end_of_a_certificate_is_found() {
    let ca = Ca::new("ca");
    let leaf = der(&ca.sign("a.test", 1).cert_file);
    assert_eq!(validity::not_after(&leaf), Some(2_856_124_800), "2060-07-04, after 2050: GeneralizedTime");
    let mut params = CertificateParams::default();
    params.not_after = date_time_ymd(2030, 1, 2);
    let early = params.self_signed(&Key::generate().expect("a key")).expect("signed").der().to_vec();
    assert_eq!(validity::not_after(&early), Some(1_893_542_400), "2030-01-02: UTCTime");
    for cut in 0..leaf.len() {
        let _ = validity::not_after(&leaf[..cut]);
    }
}
