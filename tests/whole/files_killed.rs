//! Restores into files, killed at random moments or on a disk that fails: under the name there is a whole file or none, and the next run
//! removes what was left.
//!
//! `REDTAPE_N` and `REDTAPE_SEED` set how often and when (`make repairs`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use redtape_wire::rdb::{Entry, Walker};
use serde_json::Value as Json;

use crate::harness::killed::spawn;
use crate::harness::redtape::{Outcome, run, run_in};
use crate::harness::server::Version;
use crate::harness::{Dir, Disk, Redtape, Server, env_number, seed, wait_for};

const KEYS: u64 = 6_000;
const FORMS: [(&str, &str); 3] = [("--to-rdb", "out.rdb"), ("--to-aof", "out.aof"), ("--to-jsonl", "out.jsonl")];

/// A journal, and a folder for files.
struct Scene {
    journal: Dir,
    files: Dir,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start();
        let journal = Dir::new("journal");
        let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
        let mut conn = server.conn();
        for n in 0..KEYS / 3 {
            let commands = [
                args!["SET", format!("s:{n}"), format!("{n:0300}")],
                args!["RPUSH", format!("l:{n}"), n, n * 2, format!("{:0200}", n * 3)],
                args!["HSET", format!("h:{n}"), "a", n, "b", n * 2],
            ];
            conn.pipeline(&commands).expect("replies");
        }
        redtape.wait_caught_up();
        assert_eq!(redtape.terminate(), Some(0));
        Self { journal, files: Dir::new("files") }
    }

    fn arguments(&self, form: &str, name: &str) -> Vec<String> {
        let (from, file) = (self.journal.path().display().to_string(), self.files.join(name).display().to_string());
        ["restore", "--from", &from, "--at", "latest", form, &file].map(str::to_owned).to_vec()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.files.path()).expect("the folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Whether the file is there; then all of it is.
    fn is_there(&self, name: &str, what: &str) -> bool {
        let path = self.files.join(name);
        if !path.exists() {
            return false;
        }
        match name {
            "out.rdb" => whole_rdb(&path, what),
            "out.jsonl" => whole_lines(&path, what),
            _ if !Version::tested().at_least((7, 0), (0, 0)) => whole_rdb(&path.join("appendonly.aof"), what),
            _ => {
                let at = |name: &str| path.join("appendonlydir").join(name);
                whole_rdb(&at("appendonly.aof.1.base.rdb"), what);
                assert_eq!(fs::read(at("appendonly.aof.1.incr.aof")).expect("the increment"), b"", "{what}");
                let manifest =
                    "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n";
                assert_eq!(
                    fs::read_to_string(at("appendonly.aof.manifest")).expect("the manifest"),
                    manifest,
                    "{what}"
                );
            }
        }
        true
    }

    fn remove(&self, name: &str) {
        let path = self.files.join(name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("the file");
    }
}

/// The walker compares the checksum.
fn whole_rdb(path: &Path, what: &str) {
    let file = File::open(path).unwrap_or_else(|e| panic!("{what}: {}: {e}", path.display()));
    let mut walker = Walker::new(file).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut keys = 0;
    while let Some(entry) = walker.next_entry().unwrap_or_else(|e| panic!("{what}: {e}")) {
        keys += u64::from(matches!(entry, Entry::Key(_)));
    }
    assert_eq!(keys, KEYS, "{what}");
}

fn whole_lines(path: &Path, what: &str) {
    let text = fs::read_to_string(path).expect("JSON lines");
    assert!(text.ends_with('\n'), "{what}");
    let end: Json =
        serde_json::from_str(text.lines().last().expect("a line")).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!((&end["end"], end["keys"]["0"].as_u64()), (&Json::Bool(true), Some(KEYS)), "{what}");
    assert_eq!(end["lines"].as_u64(), Some(text.lines().count() as u64), "{what}");
}

/// Processes that know this folder.
fn processes_of(tmp: &Path) -> Vec<PathBuf> {
    let tmp = tmp.as_os_str().as_encoded_bytes();
    let all = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let knows = |path: &PathBuf| {
        fs::read(path.join("cmdline")).is_ok_and(|line| line.windows(tmp.len()).any(|part| part == tmp))
    };
    all.filter(knows).collect()
}

/// Scratch folders that the next run must have removed. One that had no lock yet is left for a minute: it may be one that is just made.
fn left_in(tmp: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(tmp).expect("the folder").flatten().map(|entry| entry.path());
    all.filter(|dir| dir.join("lock").exists()).collect()
}

fn killed_and_run_again(kills: usize) {
    let scene = Scene::new();
    let mut random = SmallRng::seed_from_u64(seed());
    for (form, name) in FORMS {
        let arguments = scene.arguments(form, name);
        let started = Instant::now();
        run(&arguments).expect_success("a file");
        let whole = started.elapsed();
        assert!(scene.is_there(name, form));
        scene.remove(name);
        let (mut absent, mut begun) = (0, 0);
        for n in 0..kills {
            let tmp = Dir::new("tmp");
            // Every other one not before the file is begun.
            let begins = n % 2 == 1;
            // The first one certainly at work: later runs take less time than the first.
            let most = if n == 0 { 0.1 } else { 1.0 };
            let after = whole.mul_f64(random.random_range(0.0..most));
            let what = format!(
                "{form}, kill {n}, {after:?} (of {whole:?}) behind the beginning of the {}",
                if begins { "file" } else { "run" }
            );
            let mut child = spawn(&arguments, tmp.path());
            while begins && scene.names().is_empty() && child.try_wait().expect("its state").is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(after);
            child.kill().expect("SIGKILL");
            child.wait().expect("its end");
            begun += usize::from(!scene.names().is_empty());
            if scene.is_there(name, &what) {
                scene.remove(name);
            } else {
                absent += 1;
            }
            let gone = || processes_of(tmp.path()).is_empty().then_some(());
            wait_for("the end of the scratch server", Duration::from_secs(20), gone);
            let mut again = spawn(&arguments, tmp.path());
            assert!(again.wait().expect("its end").success(), "{what}");
            assert!(scene.is_there(name, &what), "{what}");
            assert_eq!(scene.names(), [name], "{what}");
            assert_eq!(left_in(tmp.path()), Vec::<PathBuf>::new(), "{what}");
            scene.remove(name);
        }
        println!(
            "{form}: {kills} kills within {whole:?}, {begun} behind the beginning of the file, {absent} without it"
        );
        assert!(absent > 0, "{form}: none was killed at work");
    }
}

#[test]
fn a_file_that_is_killed_on_its_way_is_written_again() {
    killed_and_run_again(2);
}

/// `make repairs`: as often as `REDTAPE_N` says for each form.
#[test]
#[ignore = "minutes: make repairs"]
fn files_that_are_killed_many_times() {
    killed_and_run_again(env_number("REDTAPE_N", 100));
}

/// Of the calls to the disk that files are on, the nth fails.
fn on_a_disk(scene: &Scene, arguments: &[String], how: &str) -> Outcome {
    let disk = Disk::fine();
    disk.is(how);
    run_in(&disk.environment_under(scene.files.path()), arguments)
}

#[test]
fn a_disk_that_fails_at_any_call_leaves_a_whole_file_or_none() {
    /// Calls of one kind that a small file takes at most.
    const CALLS_MAX: usize = 20;
    let scene = Scene::new();
    for (form, name) in FORMS {
        let arguments = scene.arguments(form, name);
        for (trouble, words) in [("write-full-nth", "make room"), ("sync-error-nth", "os error 5")] {
            let mut failed = 0;
            for n in 1.. {
                assert!(n < CALLS_MAX, "{form}: {trouble} never ends");
                let what = format!("{form}, {trouble} {n}");
                let outcome = on_a_disk(&scene, &arguments, &format!("{trouble} {n}"));
                let is_there = scene.is_there(name, &what);
                if outcome.code == Some(0) {
                    assert!(is_there, "{what}");
                    scene.remove(name);
                    break;
                }
                assert!(outcome.code == Some(74) && outcome.stderr.contains(words), "{what}: {outcome:?}");
                // Behind the rename only the sync of its folder is left.
                if is_there {
                    scene.remove(name);
                }
                assert_eq!(scene.names(), Vec::<String>::new(), "{what}");
                failed += 1;
            }
            assert!(failed > 0, "{form}: {trouble} was never met");
        }
    }
}
