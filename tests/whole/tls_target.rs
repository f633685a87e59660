//! TLS towards the target of a restore: a real server with certificates, and whatever can be wrong with them.

use crate::harness::certs::Ca;
use crate::harness::conn::int;
use crate::harness::redtape::{Outcome, run, run_in};
use crate::harness::{Dir, Redtape, Server, free_port};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
/// What a refusal may take on a loaded machine; a hanging handshake is given up after 5 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// A target that is reached over TLS.
struct Target {
    server: Server,
    port: u16,
    ca: Ca,
}

impl Target {
    fn with(hosts: &[&str], year: i32, more: &[&str]) -> Self {
        let ca = Ca::new("targets");
        let (cert, key) = ca.sign_until("server", hosts, year);
        let port = free_port();
        let (port_text, ca_file) = (port.to_string(), ca.file("ca.crt"));
        let tls = ["--tls-port", &port_text, "--tls-cert-file", &cert, "--tls-key-file", &key];
        let server = Server::with(&[&tls[..], &["--tls-ca-cert-file", &ca_file], more].concat());
        Self { server, port, ca }
    }

    fn start(auth_clients: &str) -> Self {
        Self::with(&["127.0.0.1", "target.test"], 2099, &["--tls-auth-clients", auth_clients])
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    fn keys(&self) -> i64 {
        int(&self.server.conn().must(&args!["DBSIZE"]))
    }
}

/// A journal with small keys, and some whose values are large.
fn journal() -> Dir {
    let (source, dir) = (Server::start(), Dir::new("journal"));
    let mut conn = source.conn();
    for n in 0..3000 {
        conn.must(&args!["SET", format!("key:{n}"), n]);
    }
    let large: String = (0u64..3 << 20).map(|n| char::from(b'0' + (n.wrapping_mul(n) % 61) as u8)).collect();
    for n in 0..4 {
        conn.must(&args!["SET", format!("large:{n}"), large.as_str()]);
    }
    assert_eq!(Redtape::start(&source.url(), dir.path(), &[]).terminate(), Some(0));
    dir
}

fn restore(journal: &Dir, to: &str, more: &[&str]) -> Outcome {
    let from = journal.path().to_str().unwrap();
    run(&[&["restore", "--from", from, "--at", "latest", "--to", to, "--yes"], more].concat())
}

#[track_caller]
fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is not in: {}", outcome.stderr);
    }
}

#[test]
fn a_restore_goes_over_tls() {
    let journal = journal();
    let target = Target::start("yes");
    let (cert, key) = target.ca.sign("redtape", &["redtape"]);
    let ca = target.ca.file("ca.crt");
    let tls = ["--to-tls-ca-cert-file", &ca, "--to-tls-cert-file", &cert, "--to-tls-key-file", &key];
    // Everything: copied, as the link is not encrypted.
    let plan = restore(&journal, &target.url(), &[&tls[..], &["--plan"]].concat()).expect_success("--plan").stdout;
    assert!(plan.contains("scratch server and copy: the target is reached over TLS, and the link"), "{plan}");
    assert!(plan.contains("usual names; TLS"), "{plan}");
    assert_eq!(target.keys(), 0);
    let told = restore(&journal, &target.url(), &tls).expect_success("everything").stdout;
    assert!(told.starts_with("restored 3004 keys"), "{told}");
    let insisted = restore(&journal, &target.url(), &[&tls[..], &["--via", "link"]].concat());
    refused(&insisted, 73, &["is not empty"]);
    let mut conn = target.server.conn();
    assert_eq!(int(&conn.must(&args!["STRLEN", "large:3"])), 3 << 20);
    conn.must(&args!["FLUSHALL"]);
    let insisted = restore(&journal, &target.url(), &[&tls[..], &["--via", "link"]].concat());
    refused(&insisted, UNAVAILABLE, &["--via link is not possible", "reached over TLS"]);
    // Some keys, with the options in the environment.
    let environment: Vec<(String, String)> = [("CA_CERT_FILE", &ca), ("CERT_FILE", &cert), ("KEY_FILE", &key)]
        .map(|(name, value)| (format!("REDTAPE_TO_TLS_{name}"), value.clone()))
        .to_vec();
    let (from, url) = (journal.path().to_str().unwrap(), target.url());
    let args = ["restore", "--from", from, "--at", "latest", "--to", &url, "--key", "large:*"];
    let told = run_in(&environment, &args).expect_success("some").stdout;
    assert!(told.starts_with("restored 4 keys"), "{told}");
}

#[test]
fn a_repair_and_its_undo_go_over_tls() {
    let journal = journal();
    let target = Target::start("yes");
    let (cert, key) = target.ca.sign("redtape", &["redtape"]);
    let ca = target.ca.file("ca.crt");
    let (tls, state) =
        (["--to-tls-ca-cert-file", &ca, "--to-tls-cert-file", &cert, "--to-tls-key-file", &key], Dir::new("state"));
    let mut conn = target.server.conn();
    conn.must(&args!["SET", "large:0", "since"]);
    let state = ["--state-dir", state.path().to_str().unwrap()];
    let some = ["--key", "large:*", "--on-conflict", "replace"];
    let told = restore(&journal, &target.url(), &[&tls[..], &state, &some].concat()).expect_success("a repair").stdout;
    assert!(told.contains("3 created, 1 replaced"), "{told}");
    let file = undo_file(std::path::Path::new(state[1])).expect("an undo file");
    let undo = ["undo", "--file", &file, "--to", &target.url(), "--yes"].map(str::to_owned);
    let undo: Vec<&str> = undo.iter().map(String::as_str).collect();
    refused(&run(&[&undo[..], &state].concat()), UNAVAILABLE, &["--to-tls-ca-cert-file"]);
    run(&[&undo[..], &state, &tls].concat()).expect_success("an undo");
    assert_eq!(int(&conn.must(&args!["EXISTS", "large:1", "large:2", "large:3"])), 0);
    assert_eq!(int(&conn.must(&args!["STRLEN", "large:0"])), 5);
}

/// The first undo file below a directory.
fn undo_file(dir: &std::path::Path) -> Option<String> {
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        let found = if path.is_dir() { undo_file(&path) } else { path.to_str().map(str::to_owned) };
        if let Some(found) = found.filter(|found| found.ends_with(".undo")) {
            return Some(found);
        }
    }
    None
}

#[test]
fn a_target_that_replicates_over_tls_gets_copies() {
    let journal = journal();
    let target = Target::with(&["127.0.0.1"], 2099, &["--tls-auth-clients", "no", "--tls-replication", "yes"]);
    let ca = target.ca.file("ca.crt");
    for (url, more) in [(target.url(), &["--to-tls-ca-cert-file", &ca][..]), (target.server.url(), &[])] {
        let plan = restore(&journal, &url, &[more, &["--plan"]].concat()).expect_success("--plan").stdout;
        assert!(plan.contains("scratch server and copy: the target takes its data over TLS only"), "{plan}");
        let told = restore(&journal, &url, more).expect_success("a copy").stdout;
        assert!(told.starts_with("restored 3004 keys"), "{told}");
        target.server.conn().must(&args!["FLUSHALL"]);
    }
}

#[test]
fn certificates_that_do_not_fit_are_explained() {
    let journal = journal();
    let began = Instant::now();
    let target = Target::start("yes");
    let ca = target.ca.file("ca.crt");
    let foreign = Ca::new("foreign");
    let (their_cert, their_key) = foreign.sign("stranger", &["stranger"]);
    let foreign_ca = foreign.file("ca.crt");
    let url = target.url();
    let with_ca = ["--to-tls-ca-cert-file", &ca];
    refused(
        &restore(&journal, &url, &["--to-tls-ca-cert-file", &foreign_ca]),
        UNAVAILABLE,
        &["signed by a CA that is not trusted here", "--to-tls-ca-cert-file"],
    );
    refused(
        &restore(&journal, &url, &with_ca),
        UNAVAILABLE,
        &["wants a client certificate", "--to-tls-cert-file and --to-tls-key-file"],
    );
    let strange = ["--to-tls-cert-file", &their_cert, "--to-tls-key-file", &their_key];
    refused(
        &restore(&journal, &url, &[&with_ca[..], &strange].concat()),
        UNAVAILABLE,
        &["does not accept our certificate", "--to-tls-cert-file"],
    );
    let expired = Target::with(&["127.0.0.1"], 2024, &["--tls-auth-clients", "no"]);
    let expired_ca = expired.ca.file("ca.crt");
    refused(
        &restore(&journal, &expired.url(), &["--to-tls-ca-cert-file", &expired_ca]),
        UNAVAILABLE,
        &["certificate has expired", "renew it there"],
    );
    let named = Target::with(&["target.test"], 2099, &["--tls-auth-clients", "no"]);
    let named_ca = ["--to-tls-ca-cert-file".to_owned(), named.ca.file("ca.crt")];
    let named_ca: Vec<&str> = named_ca.iter().map(String::as_str).collect();
    refused(&restore(&journal, &named.url(), &named_ca), UNAVAILABLE, &["is for another name", "--to-tls-sni"]);
    for target in [&target, &expired, &named] {
        assert_eq!(target.keys(), 0);
    }
    // By the name, or without a look at it.
    let some = ["--key", "key:1*", "--plan"];
    for more in [&[named_ca[0], named_ca[1], "--to-tls-sni", "target.test"][..], &["--to-tls-insecure"]] {
        restore(&journal, &named.url(), &[more, &some].concat()).expect_success("the right name");
    }
    assert!(began.elapsed() < PATIENCE * 4, "{:?}", began.elapsed());
}

#[test]
fn ports_without_tls_and_options_without_use() {
    let journal = journal();
    let target = Server::start();
    let plain = format!("rediss://127.0.0.1:{}", target.port);
    refused(&restore(&journal, &plain, &["--to-tls-insecure"]), UNAVAILABLE, &["TLS", "tls-port"]);
    let began = Instant::now();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("rediss://127.0.0.1:{}", silent.local_addr().unwrap().port());
    refused(
        &restore(&journal, &silent, &["--to-tls-insecure"]),
        UNAVAILABLE,
        &["no answer to the handshake", "within 5 s", "tls-port"],
    );
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    // TLS where none is asked for.
    let tls = Target::start("no");
    let to_tls_port = format!("redis://127.0.0.1:{}", tls.port);
    refused(&restore(&journal, &to_tls_port, &[]), UNAVAILABLE, &["cannot reach"]);
    refused(
        &restore(&journal, &target.url(), &["--to-tls-insecure"]),
        USAGE,
        &["--to-tls-* options have no effect", "rediss://"],
    );
    refused(
        &restore(&journal, &plain, &["--to-tls-cert-file", "/nowhere.crt"]),
        USAGE,
        &["--to-tls-cert-file needs --to-tls-key-file"],
    );
    refused(
        &restore(&journal, &plain, &["--to-tls-ca-cert-file", "/nowhere.crt"]),
        USAGE,
        &["/nowhere.crt", "to-tls-ca-cert-file"],
    );
}
