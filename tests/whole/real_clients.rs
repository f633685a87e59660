//! Client libraries as applications use them, current releases, cannot tell redtape from the server.
//!
//! The same checks run directly first, then through redtape in each way of sharing that the binary knows:
//! what fails directly as well is the library's or the server's matter and is said so.
//! Those of Python and Node need what `make clients` installs, so they are not part of `make test`.

#[path = "../clients/rust/mod.rs"]
mod rust;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{Dir, Redtape, Server, free_port};

/// A run of one library's checks ends within.
const LIMIT: Duration = Duration::from_mins(4);

/// Certificates of this run: an authority, and a server's certificate signed by it.
struct Certificates(Dir);

impl Certificates {
    fn make() -> Self {
        let dir = Dir::new("certificates");
        std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
            .unwrap();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3"];
        for args in [
            [&["req", "-x509", "-subj", "/CN=Redtape Test CA", "-keyout", "ca.key", "-out", "ca.crt"], &key[..]]
                .concat(),
            [&["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"], &key[..5]].concat(),
            vec![
                "x509",
                "-req",
                "-in",
                "server.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "3",
                "-extfile",
                "san",
                "-out",
                "server.crt",
            ],
        ] {
            let out = Command::new("openssl").args(args).current_dir(dir.path()).output().expect("openssl runs");
            assert!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// The flags are those of Redis, also in redtape.
    fn flags(&self) -> [String; 8] {
        [
            ("--tls-auth-clients", "no".to_owned()),
            ("--tls-cert-file", self.path("server.crt")),
            ("--tls-key-file", self.path("server.key")),
            ("--tls-ca-cert-file", self.path("ca.crt")),
        ]
        .map(|(name, value)| [name.to_owned(), value])
        .concat()
        .try_into()
        .unwrap()
    }
}

/// Where the checks connect to; ended on drop.
struct Scene {
    server: Server,
    redtape: Option<(Redtape, Dir)>,
    tls_port: Option<u16>,
    certificates: Certificates,
}

impl Scene {
    fn directly() -> Self {
        let certificates = Certificates::make();
        let port = free_port();
        let mut flags = vec!["--tls-port".to_owned(), port.to_string()];
        flags.extend(certificates.flags());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Self { server: Server::with(&flags), redtape: None, tls_port: Some(port), certificates }
    }

    fn through_redtape(flags: &[&str]) -> Self {
        let certificates = Certificates::make();
        let server = Server::start();
        let journal = Dir::new("journal");
        let mut flags: Vec<String> = flags.iter().map(|&f| f.to_owned()).collect();
        let tls_port = knows("--tls-listen").then(free_port);
        if let Some(port) = tls_port {
            flags.extend(["--tls-listen".to_owned(), format!("127.0.0.1:{port}")]);
            flags.extend(certificates.flags());
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let redtape = Redtape::start(&server.url(), journal.path(), &flags);
        Self { server, redtape: Some((redtape, journal)), tls_port, certificates }
    }

    fn url(&self) -> String {
        self.redtape.as_ref().map_or_else(|| self.server.url(), |(redtape, _)| redtape.url())
    }

    /// Nothing that the clients did may have hurt the proxy or its journal.
    fn assert_sound(mut self) {
        if let Some((redtape, journal)) = &mut self.redtape {
            redtape.wait_streaming();
            redtape.wait_caught_up();
            assert!(!redtape.said().contains("panicked"), "{}", redtape.said());
            assert_eq!(redtape.terminate(), Some(0));
            crate::harness::journal::assert_verified(journal.path());
        }
    }
}

fn knows(flag: &str) -> bool {
    crate::harness::redtape::run(&["proxy", "--help"]).stdout.split_whitespace().any(|word| word == flag)
}

/// The ways of sharing that the binary knows.
fn ways() -> Vec<(&'static str, &'static [&'static str])> {
    if knows("--sharing") {
        vec![
            ("through redtape, sharing off", &["--sharing", "off"]),
            ("through redtape, sharing auto", &["--sharing", "auto"]),
        ]
    } else {
        vec![("through redtape", &[])]
    }
}

/// Runs a library's script; gives what became of each check: `ok`, `skip` or `FAIL` and why.
fn run_script(command: &[&str], scene: &mut Scene) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut script = Command::new(command[0]);
    script
        .args(&command[1..])
        .current_dir(root)
        .env("CHECKS_URL", scene.url())
        .env("CHECKS_MODULES", clients().join("node"))
        .env("CHECKS_DRIVER", "yes")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(port) = scene.tls_port {
        script.env("CHECKS_TLS_URL", format!("rediss://127.0.0.1:{port}"));
        script.env("CHECKS_TLS_CA", scene.certificates.path("ca.crt"));
    }
    let mut child = script.spawn().unwrap_or_else(|e| panic!("{}: {e}; `make clients` installs it", command[0]));
    let mut stdin = child.stdin.take().unwrap();
    let stdout = child.stdout.take().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
    let mut results = BTreeMap::new();
    loop {
        match receive.recv_timeout(LIMIT) {
            Ok(line) if line == "driver: restart" => {
                scene.server.kill9();
                std::thread::sleep(Duration::from_millis(500));
                scene.server.restart();
                // A script that has ended meanwhile says so by its output.
                let _ = writeln!(stdin, "restarted");
            }
            Ok(line) => {
                println!("    {line}");
                let mut words = line.splitn(3, ' ').filter(|w| !w.is_empty());
                if let (Some(verdict @ ("ok" | "skip" | "FAIL")), Some(rest)) = (words.next(), line.get(6..)) {
                    let name = rest.split([' ', ':']).next().unwrap_or(rest);
                    results.insert(name.to_owned(), format!("{verdict} {rest}"));
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                results.insert("(the whole run)".to_owned(), format!("FAIL silent for {LIMIT:?}"));
                break;
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().unwrap();
    if !status.success() && !results.values().any(|v| v.starts_with("FAIL")) {
        results.insert("(the whole run)".to_owned(), format!("FAIL ended with {status}"));
    }
    results
}

/// Where `make clients` puts the libraries.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers/clients")
}

fn library_is_served_as_directly(command: &[&str]) {
    println!("directly");
    let mut scene = Scene::directly();
    let directly = run_script(command, &mut scene);
    drop(scene);
    let mut wrong: Vec<String> = directly
        .iter()
        .filter(|(_, verdict)| verdict.starts_with("FAIL"))
        .map(|(name, verdict)| format!("{name}: fails DIRECTLY, so redtape is not to blame: {verdict}"))
        .collect();
    assert!(directly.values().filter(|v| v.starts_with("ok")).count() > 5, "hardly anything ran: {directly:?}");
    for (way, flags) in ways() {
        println!("{way}");
        let mut scene = Scene::through_redtape(flags);
        let through = run_script(command, &mut scene);
        for (name, verdict) in &directly {
            let here = through.get(name).map_or("did not run", String::as_str);
            let may_skip = name == "tls" && !knows("--tls-listen");
            if verdict.starts_with("ok") && !here.starts_with("ok") && !may_skip {
                wrong.push(format!("{name}: fine directly, but {way}: {here}"));
            }
        }
        if through.keys().any(|name| !directly.contains_key(name)) {
            wrong.push(format!("{way}: {:?}", through.get("(the whole run)")));
        }
        scene.assert_sound();
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
#[ignore = "needs what `make clients` installs"]
fn redis_py_is_served_as_directly() {
    let python = clients().join("python/bin/python");
    library_is_served_as_directly(&[python.to_str().unwrap(), "tests/clients/python/checks.py"]);
}

#[test]
#[ignore = "needs what `make clients` installs"]
fn node_redis_is_served_as_directly() {
    library_is_served_as_directly(&["node", "tests/clients/node/node_redis.mjs"]);
}

#[test]
#[ignore = "needs what `make clients` installs"]
fn ioredis_is_served_as_directly() {
    library_is_served_as_directly(&["node", "tests/clients/node/ioredis.mjs"]);
}

#[test]
fn the_redis_crate_is_served_as_directly() {
    let mut scenes = vec![("directly", Scene::directly())];
    scenes.extend(ways().into_iter().map(|(way, flags)| (way, Scene::through_redtape(flags))));
    for (way, mut scene) in scenes {
        println!("{way}");
        let url = scene.url();
        for check in rust::CHECKS {
            println!("    {}", check.name);
            scene.server.conn().must(&args!["FLUSHALL"]);
            (check.run)(&url);
        }
        println!("    restarts_under_load");
        rust::restarts_under_load(&url, || {
            scene.server.kill9();
            std::thread::sleep(Duration::from_millis(500));
            scene.server.restart();
        });
        scene.assert_sound();
    }
}
