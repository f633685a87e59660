//! Encryption at rest on real servers: keys change while applications write, snapshots are taken under each, and every point in time
//! restores with the keys of that time. Without them there is an error that names the missing one, and nothing that was
//! written can be found in any file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::redtape::{Outcome, run};
use crate::harness::{Dir, Redtape, Server, now_us, wait_for};
use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const NOPERM: i32 = 77;
const DATAERR: i32 = 65;
const USAGE: i32 = 64;
/// In every key and every value; it compresses to nothing else, as it is short.
const MARKER: &str = "TopSecretMarker";
const KEYS: u64 = 50;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// The journal and its keys.
struct World {
    journal: Dir,
    keys: Dir,
    server: Server,
    /// How many writes there were, and at which point in time and LSN that was.
    moments: Vec<(u64, u64, i64)>,
    written: u64,
}

impl World {
    fn key_file(&self) -> PathBuf {
        self.keys.join("keys")
    }

    fn keygen(&self, id: &str) {
        run(&["journal", "keygen", "--id", id, text(&self.key_file())]).expect_success("keygen");
    }

    /// Runs a command on the journal, with this key file if there is one.
    fn command(&self, words: &[&str], keys: Option<&Path>) -> Outcome {
        let mut args: Vec<&str> = words.to_vec();
        let dir = if words[..2] == ["snapshot", "create"] { "--dir" } else { "--from" };
        args.extend([dir, text(self.journal.path())]);
        if let Some(keys) = keys {
            args.extend(["--journal-key-file", text(keys)]);
        }
        run(&args)
    }

    /// The nth write is `SET <marker>:<n mod KEYS> <marker>-<n>-…`, so their number says what each key must hold.
    fn write(&mut self, redtape: &mut Redtape, count: u64) {
        let mut conn = crate::harness::Conn::open(&redtape.url()).expect("the proxy");
        for _ in 0..count {
            self.written += 1;
            let n = self.written;
            conn.must(&args!["SET", format!("{MARKER}:{}", n % KEYS), format!("{MARKER}-{n}-{}", MARKER.repeat(9))]);
        }
        redtape.wait_caught_up();
        let at = now_us();
        redtape.wait_caught_up();
        let catalog: Value = serde_json::from_str(&self.command(&["journal", "ls", "--json"], None).stdout).unwrap();
        let lsn = catalog["windows"].as_array().unwrap().last().unwrap()["to_lsn"].as_u64().unwrap();
        self.moments.push((self.written, lsn, at));
    }

    fn assert_restores(&self, keys: &Path) {
        for (written, lsn, at) in &self.moments {
            for at in [format!("lsn:{lsn}"), format!("@{}.{:06}", at / 1_000_000, at % 1_000_000)] {
                let target = Server::start();
                self.command(&["restore", "--at", &at, "--to", &target.url(), "--yes"], Some(keys)).expect_success(&at);
                let mut conn = target.conn();
                for key in 0..KEYS {
                    let newest = (written + KEYS - key) / KEYS * KEYS + key;
                    let newest = newest.checked_sub(KEYS).filter(|n| *n > 0);
                    let expected = newest.map(|n| format!("{MARKER}-{n}-{}", MARKER.repeat(9)));
                    let found = match conn.must(&args!["GET", format!("{MARKER}:{key}")]) {
                        crate::harness::conn::Value::Bytes(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
                        _ => None,
                    };
                    assert_eq!(found, expected, "key {key} at {at}");
                }
            }
        }
    }

    /// Every file of the journal, and what is beside it.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.journal.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.push((entry.path(), fs::read(entry.path()).unwrap_or_default()));
                }
            }
        }
        files
    }

    fn assert_nothing_in_clear(&self) {
        for (file, bytes) in self.files() {
            assert!(memmem::find(&bytes, MARKER.as_bytes()).is_none(), "{} holds what was written", file.display());
        }
    }

    /// How many segments and snapshots are encrypted with this key.
    fn files_with_key(&self, id: &str) -> (usize, usize) {
        let holds =
            |bytes: &[u8], up_to: usize| memmem::find(&bytes[..bytes.len().min(up_to)], id.as_bytes()).is_some();
        let of = |extension: &str, up_to: usize| {
            let files = self.files();
            let files = files.iter().filter(|(file, _)| file.extension().is_some_and(|e| e == extension));
            files.filter(|(_, bytes)| holds(bytes, up_to)).count()
        };
        (of("seg", 4096), of("json", usize::MAX))
    }
}

fn hang_up(redtape: &Redtape, said: &str) {
    let before = redtape.said().matches(said).count();
    kill_process(Pid::from_raw(redtape.pid() as i32).unwrap(), Signal::HUP).unwrap();
    wait_for(said, Duration::from_secs(20), || (redtape.said().matches(said).count() > before).then_some(()));
}

#[test]
fn keys_rotate_while_clients_write_and_every_point_restores() {
    let (journal, keys) = (Dir::new("journal"), Dir::new("keys"));
    let server = Server::with(&["--repl-backlog-size", "64mb", "--repl-diskless-sync-delay", "0"]);
    let mut world = World { journal, keys, server, moments: Vec::new(), written: 0 };
    let key_file = world.key_file();
    world.keygen("first-key");
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);
    let first_only = world.keys.join("first-only");
    fs::copy(&key_file, &first_only).unwrap();

    let options = ["--journal-key-file", text(&key_file), "--segment-mib", "1"];
    let mut redtape = Redtape::start(&world.server.url(), world.journal.path(), &options);
    world.write(&mut redtape, 120);
    let upstream = world.server.url();
    let snapshot = ["snapshot", "create", "--upstream", &upstream];
    world.command(&snapshot, Some(&key_file)).expect_success("a snapshot");
    // Who has no key cannot add to the journal in clear.
    let refused = world.command(&snapshot, None);
    assert_eq!(refused.code, Some(NOPERM), "{refused:?}");
    assert!(refused.stderr.contains("`first-key`"), "{refused:?}");

    // A key file that cannot be used changes nothing, nor does one that forgets the key in use.
    let good = fs::read_to_string(&key_file).unwrap();
    for bad in ["second-key:nonsense\n", ""] {
        fs::write(&key_file, bad).unwrap();
        hang_up(&redtape, "everything stays as it was");
    }
    fs::remove_file(&key_file).unwrap();
    world.keygen("second-key");
    hang_up(&redtape, "`first-key`, which is not there any more");
    world.write(&mut redtape, 30);
    fs::write(&key_file, &good).unwrap();
    world.keygen("second-key");
    hang_up(&redtape, "the journal's key");
    // The next segment and the next snapshot have the new key.
    let mut filled = 0;
    wait_for("a segment with the new key", Duration::from_secs(60), || {
        world.write(&mut redtape, 4000);
        filled += 1;
        if filled > 1 {
            world.moments.remove(world.moments.len() - 2);
        }
        (world.files_with_key("second-key").0 > 0).then_some(())
    });
    let mut conn = crate::harness::Conn::open(&redtape.url()).expect("the proxy");
    conn.must(&args!["REDTAPE.SNAPSHOT"]);
    conn.must(&args!["REDTAPE.MARK", "rotated"]);
    world.write(&mut redtape, 25);
    assert!(world.files_with_key("first-key").0 > 0 && world.files_with_key("first-key").1 >= 2);
    assert!(world.files_with_key("second-key").1 >= 1, "the snapshot after the rotation");
    let metrics = redtape.metrics().unwrap();
    let said = redtape.said();
    for line in fs::read_to_string(&key_file).unwrap().lines() {
        let secret = line.split_once(':').unwrap().1;
        assert!(!metrics.contains(secret) && !said.contains(secret), "a key is shown");
    }
    world.assert_nothing_in_clear();

    // A crash in the middle, then an orderly end; both go on where they were.
    redtape.kill9();
    redtape.start_again();
    redtape.wait_streaming();
    world.write(&mut redtape, 70);
    assert_eq!(redtape.terminate(), Some(0));
    let report = world.command(&["journal", "verify", "--json"], Some(&key_file)).expect_success("verify").stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["problems"], &report["notes"]), (&Value::Array(vec![]), &Value::Array(vec![])), "{report}");
    world.assert_nothing_in_clear();
    world.assert_restores(&key_file);

    // Without the right keys: errors that name the key and the option, and nothing is done.
    let wrong = world.keys.join("wrong");
    run(&["journal", "keygen", "--id", "first-key", text(&wrong)]).expect_success("keygen");
    run(&["journal", "keygen", "--id", "second-key", text(&wrong)]).expect_success("keygen");
    let target = Server::start();
    let to = target.url();
    let restore = ["restore", "--at", "latest", "--to", &to, "--yes"];
    for words in [&restore[..], &["journal", "cat"]] {
        for keys in [None, Some(&*first_only)] {
            let outcome = world.command(words, keys);
            assert_eq!(outcome.code, Some(NOPERM), "{words:?}: {outcome:?}");
            assert!(outcome.stderr.contains("-key`") && outcome.stderr.contains("--journal-key-file"), "{outcome:?}");
        }
        let outcome = world.command(words, Some(&wrong));
        assert_eq!(outcome.code, Some(DATAERR), "{words:?}: {outcome:?}");
        assert!(outcome.stderr.contains("another key than the `"), "{outcome:?}");
    }
    assert_eq!(target.conn().must(&args!["DBSIZE"]), crate::harness::conn::Value::Int(0));
    let dir = world.journal.path();
    let files = |world: &World| {
        let mut files = world.files();
        // It says who looked last.
        files.retain(|(file, _)| !file.ends_with("lock"));
        files
    };
    let before = files(&world);
    let upstream = world.server.url();
    for (keys, code) in [(None, NOPERM), (Some(&first_only), NOPERM), (Some(&wrong), DATAERR)] {
        let mut args = vec!["follow", "--upstream", &upstream, "--dir", text(dir)];
        args.extend(keys.iter().flat_map(|keys| ["--journal-key-file", text(keys)]));
        let outcome = run(&args);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stderr.contains("`second-key`"), "{outcome:?}");
    }
    assert!(files(&world) == before, "nothing was changed");
    // What stands in clear can be looked at without keys.
    world.command(&["journal", "ls"], None).expect_success("ls");
    world.command(&["snapshot", "ls"], None).expect_success("snapshot ls");
    let report = world.command(&["journal", "verify"], None).expect_success("verify").stdout;
    assert!(report.contains("`first-key`") && report.contains("`second-key`"), "{report}");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o644)).unwrap();
    let outcome = world.command(&["journal", "cat"], Some(&key_file));
    assert_eq!(outcome.code, Some(USAGE), "{outcome:?}");
    assert!(outcome.stderr.contains("chmod 600"), "{outcome:?}");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    // Pruning looks at nothing that is encrypted.
    let pruned = run(&["journal", "prune", "--dir", text(dir), "--max-size", "1", "--yes"]).expect_success("prune");
    assert!(pruned.stdout.contains("removed"), "{}", pruned.stdout);
    world.command(&["journal", "verify"], Some(&key_file)).expect_success("verify");
    let last = world.moments.pop().unwrap();
    world.moments = vec![last];
    world.assert_restores(&key_file);
}
