//! Limits on clients, and the doors they come through: as `redtape.example.toml` documents them.

use crate::harness::certs::Ca;
use crate::harness::conn::{Value, raw as connect, until_closed};
use crate::harness::{Conn, Dir, Redtape, Server, free_port, journal, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Scene {
    server: Server,
    redtape: Redtape,
    journal: Dir,
}

fn scene(options: &[&str]) -> Scene {
    let journal = Dir::new("journal");
    let server = Server::start();
    let redtape = Redtape::start(&server.url(), journal.path(), options);
    Scene { server, redtape, journal }
}

impl Scene {
    fn raw(&self) -> TcpStream {
        connect(self.redtape.port)
    }

    fn reload(&self) {
        kill_process(Pid::from_raw(self.redtape.pid() as i32).unwrap(), Signal::HUP).unwrap();
    }
}

/// One reply of known length.
#[track_caller]
fn expect(stream: &mut impl Read, reply: &[u8]) {
    let mut got = vec![0; reply.len()];
    stream.read_exact(&mut got).unwrap_or_else(|e| panic!("{:?}: {e}", reply.escape_ascii().to_string()));
    assert_eq!(got.escape_ascii().to_string(), reply.escape_ascii().to_string());
}

#[track_caller]
fn ping(stream: &mut (impl Read + Write)) {
    stream.write_all(b"PING\r\n").unwrap();
    expect(stream, b"+PONG\r\n");
}

#[test]
fn one_client_too_many_is_told_so() {
    let s = scene(&["--maxclients", "3"]);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| s.raw()).collect();
    // The start looked whether the port is open: that client may still be counted.
    wait_for("three clients", Duration::from_secs(5), || {
        clients
            .iter_mut()
            .enumerate()
            .find_map(|(n, c)| {
                let served = c.write_all(b"PING\r\n").is_ok() && matches!(c.read(&mut [0; 100]), Ok(7));
                (!served).then_some(n)
            })
            .map_or(Some(()), |n| {
                clients[n] = s.raw();
                None
            })
    });
    for _ in 0..3 {
        assert_eq!(until_closed(&mut s.raw()), b"-ERR max number of clients reached\r\n");
    }
    clients.iter_mut().for_each(ping);
    // It keeps no connection to the server for those who were turned away.
    clients.pop();
    wait_for("room for another", Duration::from_secs(5), || {
        let mut next = s.raw();
        let _ = next.write_all(b"PING\r\n");
        let mut got = [0; 7];
        (next.read_exact(&mut got).is_ok() && &got == b"+PONG\r\n").then_some(())
    });
    clients.iter_mut().for_each(ping);
}

#[test]
fn idle_clients_are_disconnected_and_waiting_ones_are_not() {
    let s = scene(&["--timeout", "1"]);
    let (mut idle, mut busy, mut subscriber, mut blocked) = (s.raw(), s.raw(), s.raw(), s.raw());
    ping(&mut idle);
    let asked = Instant::now();
    subscriber.write_all(b"SUBSCRIBE news\r\n").unwrap();
    expect(&mut subscriber, b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    blocked.write_all(b"BLPOP queue 0\r\n").unwrap();
    idle.set_nonblocking(true).unwrap();
    let mut closed_after = None;
    while asked.elapsed() < Duration::from_secs(4) {
        ping(&mut busy);
        if closed_after.is_none() && matches!(idle.read(&mut [0; 10]), Ok(0)) {
            closed_after = Some(asked.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let closed_after = closed_after.expect("an idle client stays connected");
    assert!(closed_after >= Duration::from_millis(900), "cut after {closed_after:?}");
    // As with Redis's own `timeout`: who waits for something is not idle.
    let mut conn = s.server.conn();
    conn.must(&args!["RPUSH", "queue", "job"]);
    expect(&mut blocked, b"*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    conn.must(&args!["PUBLISH", "news", "x"]);
    expect(&mut subscriber, b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n");
}

#[test]
fn a_client_that_never_reads_is_cut_at_the_limit() {
    let s = scene(&["--client-output-buffer-limit", "4mb"]);
    s.server.conn().must(&args!["SET", "big", "z".repeat(1 << 20)]);
    let (mut deaf, mut other) = (s.raw(), s.raw());
    for _ in 0..20 {
        other.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
        expect(&mut other, b"+PONG\r\n");
        std::thread::sleep(Duration::from_millis(5));
    }
    // On a shared connection, on which nobody waits for it.
    ping(&mut deaf);
    deaf.set_nonblocking(true).unwrap();
    let _ = deaf.write(&b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n".repeat(100));
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        ping(&mut other);
        std::thread::sleep(Duration::from_millis(20));
    }
    deaf.set_nonblocking(false).unwrap();
    // What the sockets took, and what waited at most; not the hundred.
    let got = until_closed(&mut deaf).len();
    assert!(got < 40 << 20, "{} MiB were kept for it", got >> 20);
    // On a connection of its own a client is held back and not cut (the server's limits may), and gets all of it.
    other.write_all(&b"GET big\r\n".repeat(30)).unwrap();
    let value = format!("$1048576\r\n{}\r\n", "z".repeat(1 << 20)).into_bytes();
    for _ in 0..30 {
        let mut reply = vec![0; value.len()];
        other.read_exact(&mut reply).unwrap();
        assert!(reply == value);
    }
}

/// A client that believes `ca`, and shows a certificate where it has one.
fn tls(
    port: u16,
    ca: &Ca,
    own: Option<&(String, String)>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca.file("ca.crt")).unwrap() {
        roots.add(cert.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    let config = match own {
        Some((cert, key)) => {
            let chain = CertificateDer::pem_file_iter(cert).unwrap().map(Result::unwrap).collect();
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let name = ServerName::try_from("redtape.test").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(port))
}

fn is_served(mut client: StreamOwned<ClientConnection, TcpStream>) -> bool {
    let mut got = [0; 7];
    client.write_all(b"PING\r\n").and_then(|()| client.read_exact(&mut got)).is_ok() && &got == b"+PONG\r\n"
}

struct TlsScene {
    scene: Scene,
    port: u16,
    ca: Ca,
    cert: (String, String),
}

fn tls_scene(options: &[&str]) -> TlsScene {
    let ca = Ca::new("redtape");
    let cert = ca.sign("redtape", &["redtape.test"]);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let trust = ca.file("ca.crt");
    let mut all = vec!["--tls-listen", &listen, "--tls-cert-file", &cert.0, "--tls-key-file", &cert.1];
    if !options.contains(&"no") {
        all.extend(["--tls-ca-cert-file", &trust]);
    }
    all.extend(options);
    let scene = scene(&all);
    TlsScene { scene, port, ca, cert }
}

#[test]
fn tls_clients_are_served_in_the_versions_that_are_allowed() {
    let t = tls_scene(&["--tls-auth-clients", "no"]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = tls(t.port, &t.ca, None, &[version]);
        ping(&mut client);
        // Both directions, more than one record.
        let value = "v".repeat(300_000);
        client.write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300000\r\n{value}\r\n").as_bytes()).unwrap();
        expect(&mut client, b"+OK\r\n");
        client.write_all(b"GET k\r\n").unwrap();
        expect(&mut client, format!("$300000\r\n{value}\r\n").as_bytes());
        assert_eq!(client.conn.protocol_version(), Some(version.version));
        // QUIT ends it properly.
        client.write_all(b"QUIT\r\n").unwrap();
        assert_eq!(until_closed(&mut client), b"+OK\r\n");
    }
    // Somebody else's CA.
    assert!(!is_served(tls(t.port, &Ca::new("other"), None, rustls::ALL_VERSIONS)));
    let old = tls_scene(&["--tls-auth-clients", "no", "--tls-protocols", "TLSv1.2"]);
    assert!(is_served(tls(old.port, &old.ca, None, rustls::ALL_VERSIONS)));
    assert!(!is_served(tls(old.port, &old.ca, None, &[&rustls::version::TLS13])));
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let stranger = Ca::new("stranger");
    let forged = stranger.sign("client", &["client.test"]);
    for (mode, without, with_forged) in [("yes", false, false), ("optional", true, false), ("no", true, true)] {
        let t = tls_scene(&["--tls-auth-clients", mode]);
        let own = t.ca.sign("client", &["client.test"]);
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            assert!(is_served(tls(t.port, &t.ca, Some(&own), &[version])), "{mode}: a good certificate");
            assert_eq!(is_served(tls(t.port, &t.ca, None, &[version])), without, "{mode}: none");
            assert_eq!(is_served(tls(t.port, &t.ca, Some(&forged), &[version])), with_forged, "{mode}: another CA's");
        }
    }
}

#[test]
fn the_tls_port_is_for_tls_and_handshakes_end() {
    let t = tls_scene(&["--tls-auth-clients", "no", "--handshake-timeout", "1"]);
    let mut good = tls(t.port, &t.ca, None, rustls::ALL_VERSIONS);
    ping(&mut good);
    let mut plain = connect(t.port);
    plain.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
    let got = until_closed(&mut plain);
    assert!(!got.windows(4).any(|w| w == b"PONG") && got.len() < 50, "{:?}", got.escape_ascii().to_string());
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let begun = Instant::now();
        let mut slow = connect(t.port);
        slow.write_all(start).unwrap();
        until_closed(&mut slow);
        let took = begun.elapsed();
        assert!((Duration::from_millis(800)..Duration::from_secs(4)).contains(&took), "cut after {took:?}");
    }
    // One that has shaken hands, and one without TLS, may be silent for longer.
    let mut silent = t.scene.raw();
    std::thread::sleep(Duration::from_millis(1500));
    ping(&mut good);
    ping(&mut silent);
}

#[test]
fn replaced_certificates_are_served_to_new_connections() {
    let t = tls_scene(&["--tls-auth-clients", "no"]);
    let shown = || {
        let mut client = tls(t.port, &t.ca, None, rustls::ALL_VERSIONS);
        ping(&mut client);
        client.conn.peer_certificates().unwrap()[0].to_vec()
    };
    let mut old_client = tls(t.port, &t.ca, None, rustls::ALL_VERSIONS);
    ping(&mut old_client);
    let first = shown();
    let next = t.ca.sign("next", &["redtape.test"]);
    std::fs::rename(&next.0, &t.cert.0).unwrap();
    std::fs::rename(&next.1, &t.cert.1).unwrap();
    let second = wait_for("the new certificate", Duration::from_secs(10), || Some(shown()).filter(|c| *c != first));
    ping(&mut old_client);
    // A file that cannot be used changes nothing.
    std::fs::write(&t.cert.0, "nothing good").unwrap();
    wait_for("a word about it", Duration::from_secs(10), || {
        (t.scene.redtape.metric(r#"redtape_errors_total{kind="tls_reload"}"#)? >= 1.0).then_some(())
    });
    assert!(shown() == second);
    ping(&mut old_client);
}

#[test]
fn unix_sockets_are_served_with_the_mode_asked_for() {
    let dir = Dir::new("socket");
    let path = dir.join("redtape.sock");
    let listen = format!("unix://{}", path.display());
    let mut s = scene(&["--listen", &listen, "--unixsocketperm", "700"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    ping(&mut client);
    client.write_all(b"SET k by-socket\r\n").unwrap();
    expect(&mut client, b"+OK\r\n");
    ping(&mut s.raw());
    s.redtape.wait_caught_up();
    let groups = journal::cat(s.journal.path());
    assert!(groups.iter().any(|g| g.records[0].args[2] == b"by-socket" && g.origin.kind == "client"), "{groups:?}");
    // A socket file that a crash has left is no obstacle.
    s.redtape.kill9();
    s.redtape.start_again();
    // Its port is served slightly earlier.
    let mut client = wait_for("the socket", Duration::from_secs(10), || UnixStream::connect(&path).ok());
    ping(&mut client);
}

/// A header of version 2: `command` 0 is LOCAL, 1 is PROXY.
fn proxy_header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, family]);
    header.extend((addresses.len() as u16).to_be_bytes());
    header.extend(addresses);
    header
}

#[test]
fn a_proxy_header_says_who_the_client_is() {
    let mut s = scene(&["--proxy-protocol", "on", "--handshake-timeout", "1"]);
    // 203.0.113.7:4242 to 192.0.2.1:6400.
    let v4 = proxy_header(1, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0x92, 0x19, 0x00]);
    let mut addresses = [0; 36];
    addresses[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
    addresses[32..34].copy_from_slice(&5353_u16.to_be_bytes());
    let v6 = proxy_header(1, 0x21, &addresses);
    // With a field behind the addresses, which is skipped.
    let with_field =
        proxy_header(1, 0x11, &[203, 0, 113, 8, 192, 0, 2, 1, 0x10, 0x92, 0x19, 0x00, 0x04, 0x00, 0x02, 0xff, 0xff]);
    let local = proxy_header(0, 0x00, &[]);
    for (header, value, split) in [(&v4, "four", 0), (&v6, "six", 5), (&with_field, "field", 20), (&local, "local", 13)]
    {
        let mut client = s.raw();
        let sent = [&header[..], format!("SET k {value}\r\n").as_bytes()].concat();
        client.write_all(&sent[..split]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        client.write_all(&sent[split..]).unwrap();
        expect(&mut client, b"+OK\r\n");
    }
    // Without a header, with another one, with half of one: nothing is answered, and the end comes.
    let v1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 6400\r\nPING\r\n";
    let wrong_version = [b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c".as_slice(), &[0; 12]].concat();
    for garbage in [&b"PING\r\n*1\r\n$4\r\nPING\r\n"[..], v1, &wrong_version, &v4[..14], b""] {
        let mut client = s.raw();
        client.write_all(garbage).unwrap();
        assert_eq!(
            until_closed(&mut client).escape_ascii().to_string(),
            "",
            "{:?}",
            garbage.escape_ascii().to_string()
        );
    }
    s.redtape.wait_caught_up();
    let groups = journal::cat(s.journal.path());
    let seen: Vec<(String, String)> = groups
        .iter()
        .map(|g| (String::from_utf8_lossy(&g.records[0].args[2]).into_owned(), g.origin.addr.clone()))
        .collect();
    let of = |value: &str| seen.iter().find(|(v, _)| v == value).map(|(_, addr)| addr.as_str());
    assert_eq!(of("four"), Some("203.0.113.7:4242"), "{seen:?}");
    assert_eq!(of("six"), Some("[2001:db8::7]:5353"), "{seen:?}");
    assert_eq!(of("field"), Some("203.0.113.8:4242"), "{seen:?}");
    assert!(of("local").is_some_and(|a| a.starts_with("127.0.0.1:")), "{seen:?}");
}

#[test]
fn sighup_changes_limits_while_clients_are_connected() {
    let dir = Dir::new("config");
    let config = dir.join("redtape.toml");
    let settings = |clients: u32, timeout: u32| {
        std::fs::write(&config, format!("maxclients = {clients}\ntimeout = {timeout}\n")).unwrap()
    };
    settings(2, 0);
    let s = scene(&["--config", config.to_str().unwrap()]);
    let open = || Conn::open(&s.redtape.url()).ok();
    let served = |conn: &mut Conn| matches!(conn.call(&args!["PING"]), Ok(Value::Text(t)) if t == "PONG");
    let mut clients: Vec<Conn> = Vec::new();
    wait_for("two clients", Duration::from_secs(5), || {
        clients.extend(open().into_iter().filter_map(|mut c| served(&mut c).then_some(c)));
        (clients.len() == 2).then_some(())
    });
    assert!(!served(&mut open().unwrap()));
    settings(4, 0);
    s.reload();
    wait_for("room for more", Duration::from_secs(5), || {
        clients.extend(open().into_iter().filter_map(|mut c| served(&mut c).then_some(c)));
        (clients.len() == 4).then_some(())
    });
    assert!(!served(&mut open().unwrap()));
    // Fewer than there are: those who are connected stay.
    settings(1, 0);
    s.reload();
    std::thread::sleep(Duration::from_millis(300));
    assert!(clients.iter_mut().all(served));
    clients.truncate(1);
    wait_for("the others' end", Duration::from_secs(5), || {
        (s.redtape.metric("redtape_sessions") == Some(1.0)).then_some(())
    });
    assert!(!served(&mut open().unwrap()));
    // Settings that are not sound change nothing.
    std::fs::write(&config, "maxclients = -3\n").unwrap();
    s.reload();
    wait_for("a word about it", Duration::from_secs(5), || {
        (s.redtape.metric(r#"redtape_errors_total{kind="config_reload"}"#)? >= 1.0).then_some(())
    });
    assert!(!served(&mut open().unwrap()));
    settings(1, 1);
    s.reload();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!served(&mut clients[0]), "an idle client outlives the new timeout");
}
