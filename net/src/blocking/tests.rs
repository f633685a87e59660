use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::Connector;
use crate::tls::{CaFiles, ClientTls};

/// More than the buffers of both sides hold.
const LARGE: usize = 24 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Takes a little, gives it back, and takes no more before that is taken: as a proxy with a full buffer does.
fn echo(mut stream: impl Read + Write, bytes: usize) {
    let mut chunk = vec![0; 64 * 1024];
    let mut done = 0;
    while done < bytes {
        let n = stream.read(&mut chunk).expect("more");
        stream.write_all(&chunk[..n]).expect("room");
        stream.flush().expect("room");
        done += n;
    }
}

fn is_echoed(mut stream: BlockingStream) {
    stream.set_limit(PATIENCE).expect("a limit");
    let sent: Vec<u8> = (0..LARGE).map(|n| (n / 7) as u8).collect();
    stream.write_all(&sent).expect("written while both directions are full");
    let mut back = vec![0; LARGE];
    stream.read_exact(&mut back).expect("all of it");
    assert!(back == sent, "in the same order");
}

/// A certificate for 127.0.0.1, which is its own CA.
fn certificate(dir: &std::path::Path) -> (Arc<ServerConfig>, ClientTls) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let made = params.self_signed(&key).expect("a certificate");
    let file = dir.join("ca.crt");
    std::fs::write(&file, made.pem()).expect("a file");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(made.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a pair");
    let tls = ClientTls { ca: CaFiles { file: Some(file), dir: None }, ..ClientTls::default() };
    (Arc::new(config), tls)
}

fn connector(url: &str, tls: &ClientTls) -> Connector {
    Connector::new(url.parse().expect("a URL"), tls).expect("files")
}

#[test]
fn both_directions_may_be_full() {
    let dir = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let (config, tls) = certificate(dir.path());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            echo(listener.accept().expect("plain").0, LARGE);
            let socket = listener.accept().expect("TLS").0;
            echo(StreamOwned::new(ServerConnection::new(config).expect("TLS"), socket), LARGE);
        });
        let plain = connector(&format!("redis://127.0.0.1:{port}"), &ClientTls::default());
        is_echoed(plain.connect_blocking().expect("a connection"));
        is_echoed(connector(&format!("rediss://127.0.0.1:{port}"), &tls).connect_blocking().expect("TLS"));
    });
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(|| echo(listener.accept().expect("unix").0, LARGE));
        let unix = connector(&format!("unix://{}", path.display()), &ClientTls::default());
        is_echoed(unix.connect_blocking().expect("a connection"));
    });
}

#[test]
fn a_handshake_is_not_waited_for_without_limit() {
    const LIMIT: Duration = Duration::from_millis(700);
    let dir = tempfile::tempdir().expect("a folder");
    let (_, tls) = certificate(dir.path());
    let handle = crate::tls::TlsConnector::new(tls).expect("files");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    // One that says nothing, one that says a record's first bytes over and over, one that closes, one that speaks RESP.
    let endless = [0x16, 3, 3, 0x3f, 0xff];
    for (said, expected) in [
        (None, "is this the server's tls-port?"),
        (Some(&endless[..]), "is this the server's tls-port?"),
        (Some(&b""[..]), "closed the connection during the handshake"),
        (Some(&b"-ERR unknown command\r\n"[..]), "does not speak TLS on this port"),
    ] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut socket, _) = listener.accept().expect("a connection");
                match said {
                    None => std::thread::sleep(LIMIT * 2),
                    Some(b"") => {
                        let mut hello = [0; 4096];
                        let _ = socket.read(&mut hello);
                    }
                    Some(bytes) if bytes == endless => {
                        let start = Instant::now();
                        while start.elapsed() < LIMIT * 2 && socket.write_all(bytes).is_ok() {
                            std::thread::sleep(LIMIT / 10);
                        }
                    }
                    Some(bytes) => {
                        let _ = socket.write_all(bytes);
                        std::thread::sleep(LIMIT * 2);
                    }
                }
            });
            let start = Instant::now();
            let socket = Socket::tcp("127.0.0.1", address.port(), PATIENCE).expect("a connection");
            let name = ServerName::try_from("127.0.0.1").expect("a name");
            let result = BlockingStream::tls(socket, handle.current(), name, OptionNames::TARGET, LIMIT);
            let error = result.expect_err("no handshake");
            assert!(TlsFailure::is_in(&error) && error.to_string().contains(expected), "{expected}: {error}");
            assert!(start.elapsed() < LIMIT * 2, "{expected}: {:?}", start.elapsed());
        });
    }
}

#[test]
fn what_was_said_before_the_end_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let url = format!("redis://127.0.0.1:{port}");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut socket, _) = listener.accept().expect("a connection");
            socket.write_all(b"-DENIED protected\r\n").expect("room");
        });
        let mut stream = connector(&url, &ClientTls::default()).connect_blocking().expect("a connection");
        stream.set_limit(PATIENCE).expect("a limit");
        // Until the other side has gone: then the kernel takes no more.
        let mut said = Vec::new();
        for _ in 0..100 {
            stream.write_all(&vec![b'x'; 1 << 16]).expect("no failure before that is read");
            std::thread::sleep(Duration::from_millis(5));
            if !stream.held().is_empty() {
                break;
            }
        }
        let mut chunk = [0; 64];
        while !said.ends_with(b"\n") {
            let n = stream.read(&mut chunk).expect("what was said");
            assert!(n > 0, "{said:?}");
            said.extend_from_slice(&chunk[..n]);
        }
        assert_eq!(said, b"-DENIED protected\r\n");
    });
}

#[test]
fn silence_has_a_limit_in_both_directions() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let mut stream = connector(&format!("redis://127.0.0.1:{port}"), &ClientTls::default())
        .connect_blocking()
        .expect("a connection");
    stream.set_limit(Duration::from_millis(200)).expect("a limit");
    let error = stream.read(&mut [0; 8]).expect_err("nothing came");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    let error = stream.write_all(&vec![0; LARGE]).expect_err("nobody reads");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}
