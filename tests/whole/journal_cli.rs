//! What the commands on a journal say of it, and what they leave on the disk.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::redtape::{run, run_in};
use crate::harness::{Conn, Dir, Redtape, Server};
use serde_json::Value;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn json_lines(args: &[&str]) -> Vec<Value> {
    let out = run(args).expect_success(&args.join(" "));
    out.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// A journal with a base and some writes, whose writer has ended.
fn journal() -> (Dir, Server, Redtape) {
    let (dir, server) = (Dir::new("journal"), Server::start());
    let mut redtape = Redtape::start(&server.url(), dir.path(), &[]);
    let mut conn = Conn::open(&redtape.url()).expect("the proxy");
    for n in 0..50 {
        conn.must(&args!["SET", format!("k:{n}"), "v".repeat(500)]);
    }
    redtape.wait_caught_up();
    (dir, server, redtape)
}

fn files_in(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn bytes_of(files: &[PathBuf]) -> u64 {
    files.iter().map(|file| fs::metadata(file).expect("a file").len()).sum()
}

#[test]
fn twenty_processes_add_keys_at_once() {
    let dir = Dir::new("keys");
    let file = dir.join("keys");
    let said: Vec<String> = std::thread::scope(|scope| {
        let adding: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| run(&["journal", "keygen", text(&file)]).expect_success("keygen").stdout))
            .collect();
        adding.into_iter().map(|thread| thread.join().expect("a key")).collect()
    });
    let named: BTreeSet<&str> = said.iter().map(|said| said.split('`').nth(1).expect("the key's id")).collect();
    assert_eq!(named.len(), 20, "{said:?}");
    let content = fs::read_to_string(&file).expect("the key file");
    let there: BTreeSet<&str> = content.lines().map(|line| line.split(':').next().expect("an id")).collect();
    assert_eq!(there, named, "every key that was said to be there is there");
    assert_eq!(fs::metadata(&file).expect("the key file").permissions().mode() & 0o777, 0o600);
}

#[test]
fn ls_counts_snapshots_and_says_what_it_has_not_read() {
    let (dir, _server, mut redtape) = journal();
    assert_eq!(redtape.terminate(), Some(0));
    let segments = files_in(&dir.join("segments"), "seg");
    let mut snapshots = files_in(&dir.join("snapshots"), "rdb");
    // If there was time for one.
    snapshots.extend(files_in(&dir.join("snapshots"), "keys"));
    // One bit of a block's contents: no header, footer or manifest tells of it.
    let mut bytes = fs::read(&segments[0]).expect("a segment");
    bytes[700] ^= 1;
    fs::write(&segments[0], bytes).expect("the segment");
    let listed = run(&["journal", "ls", "--from", text(dir.path())]).expect_success("journal ls").stdout;
    assert!(listed.contains("in 1 segment, ") && listed.contains("in 1 snapshot)"), "{listed}");
    assert!(listed.contains("As headers, footers and manifests say"), "{listed}");
    assert!(listed.contains("were not read: `redtape journal verify` checks them"), "{listed}");
    let listed = &json_lines(&["journal", "ls", "--json", "--from", text(dir.path())])[0];
    assert_eq!(listed["segment_bytes"], bytes_of(&segments), "{listed}");
    assert_eq!(listed["snapshot_bytes"], bytes_of(&snapshots), "{listed}");
    assert_eq!(listed["bytes"], bytes_of(&segments) + bytes_of(&snapshots), "{listed}");
    assert_eq!((&listed["snapshots"], &listed["contents_checked"]), (&Value::from(1), &Value::from(false)));
    let quick = run(&["journal", "verify", "--quick", "--from", text(dir.path())]).expect_success("verify --quick");
    assert!(quick.stdout.contains("but for their contents"), "{}", quick.stdout);
    let verified = run(&["journal", "verify", "--from", text(dir.path())]);
    assert_eq!(verified.code, Some(65), "{}", verified.stdout);
}

#[test]
fn snapshots_are_listed_oldest_first_with_the_name_that_removes_them() {
    let (dir, server, mut redtape) = journal();
    // Nothing is written in between: they share an LSN.
    for _ in 0..11 {
        run(&["snapshot", "create", "--dir", text(dir.path()), "--upstream", &server.url()]).expect_success("create");
    }
    assert_eq!(redtape.terminate(), Some(0));
    let listed = json_lines(&["snapshot", "ls", "--json", "--dir", text(dir.path())]);
    assert_eq!(listed.len(), 12);
    let times: Vec<i64> = listed.iter().map(|s| s["ts_us"].as_i64().expect("a time")).collect();
    assert!(times.is_sorted(), "oldest first: {times:?}");
    let names: Vec<&str> = listed.iter().map(|s| s["name"].as_str().expect("a name")).collect();
    let shown = run(&["snapshot", "ls", "--dir", text(dir.path())]).expect_success("snapshot ls").stdout;
    let first_words: Vec<&str> = shown.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(first_words, names);
    assert!(names[11].ends_with("-11") && names[2].ends_with("-2"), "{names:?}");
    run(&["snapshot", "rm", names[2], "--dir", text(dir.path()), "--yes"]).expect_success("snapshot rm");
    assert_eq!(json_lines(&["snapshot", "ls", "--json", "--dir", text(dir.path())]).len(), 11);
}

#[test]
fn a_torn_tail_is_logged_once() {
    let (dir, _server, mut redtape) = journal();
    redtape.kill9();
    let segment = files_in(&dir.join("segments"), "seg").pop().expect("a segment");
    let mut file = fs::File::options().append(true).open(segment).expect("the segment");
    file.write_all(b"RTB1, and no more").expect("a torn tail");
    let before = redtape.said().matches("torn tail").count();
    redtape.start_again();
    redtape.wait_streaming();
    // Behind what there is to say of the tail.
    redtape.wait_said("the journal continues where it ended");
    assert_eq!(redtape.said().matches("torn tail").count() - before, 1, "{}", redtape.said());
}

#[test]
fn new_files_are_private_and_non_files_are_refused() {
    let (dir, server) = (Dir::new("journal"), Server::start());
    let path = dir.join("deep/journal");
    let mut redtape = Redtape::start(&server.url(), &path, &[]);
    for folder in ["deep", "deep/journal", "deep/journal/segments", "deep/journal/snapshots", "deep/journal/quarantine"]
    {
        let mode = fs::metadata(dir.join(folder)).expect("a folder").permissions().mode() & 0o777;
        assert_eq!(mode & 0o027, 0, "{folder}: {mode:o}");
    }
    assert_eq!(redtape.terminate(), Some(0));
    let precious = dir.join("precious");
    fs::write(&precious, "not ours").expect("a file");
    fs::remove_file(path.join("lock")).expect("the lock's file");
    std::os::unix::fs::symlink(&precious, path.join("lock")).expect("a link");
    let args = ["follow", "--upstream", &server.url(), "--dir", text(&path)].map(str::to_owned);
    let outcome = run_in(&[], &args);
    assert_eq!(outcome.code, Some(65), "{outcome:?}");
    assert!(outcome.stderr.contains("lock is a symbolic link, not a regular file"), "{}", outcome.stderr);
    assert_eq!(fs::read_to_string(&precious).expect("the file"), "not ours");
}
