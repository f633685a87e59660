//! TLS towards the server: a real one with certificates, followed and proxied by `rediss://`.

use crate::harness::certs::Ca;
use crate::harness::redtape::run;
use crate::harness::{Conn, Dir, Redtape, Server, free_port, journal, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const UNAVAILABLE: i32 = 69;

/// A server with a TLS port beside its own.
struct TlsServer {
    server: Server,
    tls_port: u16,
    ca: Ca,
}

impl TlsServer {
    fn start(auth_clients: &str) -> Self {
        let ca = Ca::new("servers");
        let (cert, key) = ca.sign("server", &["127.0.0.1", "redis.test"]);
        let tls_port = free_port();
        let server = Server::with(&[
            "--tls-port",
            &tls_port.to_string(),
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca.file("ca.crt"),
            "--tls-auth-clients",
            auth_clients,
        ]);
        Self { server, tls_port, ca }
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.tls_port)
    }

    fn ca(&self) -> [String; 2] {
        ["--upstream-tls-ca-cert-file".to_owned(), self.ca.file("ca.crt")]
    }
}

/// `redtape follow`, killed when dropped.
struct Follower {
    child: Child,
    log: std::path::PathBuf,
}

impl Follower {
    fn start(args: &[&str], dir: &Dir) -> Self {
        let log = dir.path().with_extension("log");
        let file = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
        command.arg("follow").args(args).arg("--dir").arg(dir.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Self { child, log }
    }

    fn wait_said(&self, words: &str) {
        wait_for(words, Duration::from_secs(20), || {
            crate::harness::tail(&self.log, 1000).contains(words).then_some(())
        });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("follower: log\n{}", crate::harness::tail(&self.log, 40));
        }
    }
}

fn path(dir: &Dir) -> &str {
    dir.path().to_str().unwrap()
}

fn keys(dir: &Dir) -> Vec<String> {
    let groups = journal::cat(dir.path());
    let records = groups.iter().flat_map(|g| &g.records).filter(|r| r.args.len() > 1);
    records.map(|r| String::from_utf8_lossy(&r.args[1]).into_owned()).collect()
}

#[test]
fn a_server_is_followed_and_copied_over_tls() {
    let tls = TlsServer::start("no");
    let dir = Dir::new("journal");
    let ca = tls.ca();
    let args = ["--upstream", &tls.url(), &ca[0], &ca[1]];
    let follower = Follower::start(&args, &dir);
    follower.wait_said("the base is taken");
    let mut conn = tls.server.conn();
    conn.must(&args!["SET", "over-tls", "v"]);
    wait_for("the write on tape", Duration::from_secs(20), || {
        keys(&dir).contains(&"over-tls".to_owned()).then_some(())
    });
    let links = conn.info("replication", "connected_slaves");
    assert_eq!(links, "1");

    let mut create = vec!["snapshot", "create", "--dir", path(&dir)];
    create.extend(args);
    let taken = run(&create).expect_success("snapshot create");
    assert!(taken.stdout.contains("snapshot of"), "{taken:?}");
    // Another CA is trusted too from now on, and the link goes on.
    std::fs::write(tls.ca.file("ca.crt"), Ca::pem_of(&[&tls.ca, &Ca::new("next")])).unwrap();
    follower.wait_said("TLS files are read");
    conn.must(&args!["SET", "after-reload", "v"]);
    wait_for("it on tape", Duration::from_secs(20), || keys(&dir).contains(&"after-reload".to_owned()).then_some(()));
    // A broken one is reported, and the good one stays in use when the link is made anew.
    std::fs::write(tls.ca.file("ca.crt"), "-----BEGIN").unwrap();
    follower.wait_said("TLS files cannot be used");
    conn.must(&args!["CLIENT", "KILL", "TYPE", "replica"]);
    conn.must(&args!["SET", "after-kill", "v"]);
    wait_for("it on tape", Duration::from_secs(20), || keys(&dir).contains(&"after-kill".to_owned()).then_some(()));
}

#[test]
fn a_proxy_speaks_tls_to_its_upstream_only() {
    let tls = TlsServer::start("yes");
    let (cert, key) = tls.ca.sign("redtape", &["redtape"]);
    let dir = Dir::new("journal");
    let ca = tls.ca();
    let args = [&ca[0], &ca[1], "--upstream-tls-cert-file", &cert, "--upstream-tls-key-file", &key];
    let mut proxy = Redtape::start(&tls.url(), dir.path(), &args);
    let mut conn = Conn::open(&proxy.url()).unwrap();
    conn.must(&args!["SET", "through", "v"]);
    // More than one TLS record both ways.
    let large = "x".repeat(1 << 20);
    conn.must(&args!["SET", "large", large.as_str()]);
    assert_eq!(crate::harness::conn::bytes(&conn.must(&args!["GET", "large"])).len(), large.len());
    proxy.wait_caught_up();
    assert_eq!(proxy.terminate(), Some(0));
    assert_eq!(keys(&dir), ["through", "large"]);
}

#[test]
fn tls_failures_of_both_sides_are_distinguished() {
    let tls = TlsServer::start("yes");
    let foreign = Ca::new("foreign");
    let dir = Dir::new("refused");
    let journal = dir.join("journal");
    let ca = tls.ca();
    let (url, foreign_ca) = (tls.url(), foreign.file("ca.crt"));
    let (cert, key) = foreign.sign("redtape", &["redtape"]);
    let plain = format!("rediss://127.0.0.1:{}", tls.server.port);
    for (what, args, words) in [
        ("a wrong CA", vec![url.as_str(), "--upstream-tls-ca-cert-file", &foreign_ca], "--upstream-tls-ca-cert-file"),
        ("another name", vec![&url, &ca[0], &ca[1], "--upstream-tls-sni", "other.test"], "--upstream-tls-sni"),
        ("no client certificate", vec![&url, &ca[0], &ca[1]], "--upstream-tls-cert-file"),
        (
            "a foreign client certificate",
            vec![&url, &ca[0], &ca[1], "--upstream-tls-cert-file", &cert, "--upstream-tls-key-file", &key],
            "--upstream-tls-cert-file",
        ),
        ("a port without TLS", vec![&plain, &ca[0], &ca[1]], "tls-port"),
    ] {
        let mut command = vec!["follow", "--dir", journal.to_str().unwrap(), "--upstream"];
        command.extend(args);
        let outcome = run(&command);
        println!("{what}\n  {}", outcome.stderr.trim_end());
        assert_eq!(outcome.code, Some(UNAVAILABLE), "{what}: {outcome:?}");
        let message = &outcome.stderr[outcome.stderr.find("redtape: ").unwrap()..];
        assert!(message.contains("TLS: ") && message.contains(words), "{what}: {message}");
        assert!(!journal.exists(), "{what}: nothing is written");
    }
}

#[test]
fn sighup_applies_what_can_change_and_names_the_rest() {
    let server = Server::start();
    let dir = Dir::new("journal");
    let config = dir.path().with_extension("toml");
    let write = |more: &str| std::fs::write(&config, format!("upstream = '{}'\n{more}", server.url())).unwrap();
    write("maxclients = 5\n");
    let mut proxy = Redtape::start(&server.url(), dir.path(), &["--config", config.to_str().unwrap()]);
    let hangup = |proxy: &Redtape, words: &[&str]| {
        kill_process(Pid::from_raw(proxy.pid() as i32).unwrap(), Signal::HUP).unwrap();
        wait_for(&words.join(", "), Duration::from_secs(10), || {
            let said = proxy.said();
            words.iter().all(|w| said.contains(w)).then_some(())
        });
    };
    write("maxclients = 6\nworkers = 7\n");
    hangup(&proxy, &["maxclients", "applied", "workers", "needs a restart"]);
    write("maxclient = 7\n");
    hangup(&proxy, &["did you mean maxclients?", "everything stays as it was"]);
    assert_eq!(proxy.metric("redtape_errors_total{kind=\"config_reload\"}"), Some(1.0));
    Conn::open(&proxy.url()).unwrap().must(&args!["SET", "k", "v"]);
    proxy.wait_caught_up();
    assert_eq!(proxy.terminate(), Some(0));
}
