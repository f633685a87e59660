//! The file of settings gives the journal's directory and keys to every command that opens a journal; the environment and
//! flags win over it.

use crate::harness::redtape::Outcome;
use crate::harness::{Dir, Redtape, Server};
use std::path::Path;
use std::process::{Command, Stdio};

const USAGE: i32 = 64;
const DATAERR: i32 = 65;
const NOPERM: i32 = 77;

/// Runs `redtape` in this folder, with these settings and none of the caller's.
fn redtape_in(folder: &Path, settings: &[(&str, &str)], args: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redtape"));
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("REDTAPE_")) {
        command.env_remove(name);
    }
    if let Some(server) = std::env::var_os("REDTAPE_TEST_SERVER") {
        command.env("REDTAPE_SERVER_BIN", server);
    }
    let out = command.args(args).envs(settings.iter().copied()).current_dir(folder).stdin(Stdio::null()).output();
    let out = out.expect("redtape");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Outcome { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

/// An encrypted journal of one write, which nobody writes to any more, with its key file.
fn recorded(dir: &Dir) -> (String, String) {
    let (journal, key) = (dir.join("journal"), dir.join("keys"));
    redtape_in(dir.path(), &[], &["journal", "keygen", text(&key)]).expect_success("keygen");
    let server = Server::start();
    let mut redtape = Redtape::start(&server.url(), &journal, &["--journal-key-file", text(&key)]);
    let mut conn = crate::harness::Conn::open(&redtape.url()).unwrap();
    conn.must(&args!["SET", "wanted", "value"]);
    redtape.wait_caught_up();
    redtape.terminate();
    (text(&journal).to_owned(), text(&key).to_owned())
}

#[test]
fn every_command_that_opens_a_journal_finds_directory_and_keys_in_the_file() {
    let dir = Dir::new("settings-file");
    let (journal, key) = recorded(&dir);
    let folder = dir.join("work");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("redtape.toml"), format!("dir = \"{journal}\"\njournal-key-file = \"{key}\"\n"))
        .unwrap();
    let target = Server::start();
    let to = target.url();

    let listed = redtape_in(&folder, &[], &["snapshot", "ls", "--json"]).expect_success("snapshot ls");
    let base: serde_json::Value = serde_json::from_str(listed.stdout.lines().next().unwrap()).unwrap();
    let base = base["name"].as_str().unwrap().to_owned();
    let commands: [(&[&str], i32, &str); 10] = [
        (&["get", "wanted", "--at", "latest", "--db", "0"], 0, "value"),
        (&["log", "--key", "wanted"], 0, "wanted"),
        (&["journal", "ls"], 0, "window"),
        (&["journal", "verify"], 0, "sound"),
        (&["journal", "cat"], 0, "wanted"),
        (&["journal", "repair", "--plan"], 0, "sound"),
        (&["journal", "prune", "--plan", "--retention", "7d"], 0, "nothing"),
        (&["snapshot", "ls"], 0, "base"),
        // The last base always stays.
        (&["snapshot", "rm", &base, "--plan"], USAGE, "last"),
        (&["restore", "--at", "latest", "--to", &to, "--plan"], 0, "restore to"),
    ];
    for (args, code, word) in commands {
        let by_file = redtape_in(&folder, &[], args);
        let said = format!("{}{}", by_file.stdout, by_file.stderr).to_lowercase();
        assert!(by_file.code == Some(code) && said.contains(word), "{args:?}: {by_file:?}");
        // Without the file, a journal is looked for under the usual name.
        let nowhere = redtape_in(&folder, &[], &[args, &["--config", "/dev/null"]].concat());
        assert_eq!(nowhere.code, Some(DATAERR), "{args:?}: {nowhere:?}");
        assert!(nowhere.stderr.contains("there is no journal at redtape-journal"), "{args:?}: {nowhere:?}");
        // Both names of the option, from anywhere.
        for name in ["--from", "--dir"] {
            let flags = [args, &[name, &journal, "--journal-key-file", &key]].concat();
            let by_flags = redtape_in(dir.path(), &[], &flags);
            assert_eq!(by_flags.code, Some(code), "{flags:?}: {by_flags:?}");
        }
    }
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let dir = Dir::new("settings-order");
    let (journal, key) = recorded(&dir);
    let other = dir.join("other");
    std::fs::write(&other, "no folder").unwrap();
    let folder = dir.join("work");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("redtape.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let cat = ["journal", "cat"];

    // The environment over the file, a flag over both.
    write(&format!("dir = \"{}\"\njournal-key-file = \"{key}\"\n", text(&other)));
    let wrong = redtape_in(&folder, &[], &cat);
    assert!(wrong.code != Some(0) && wrong.stderr.contains(text(&other)), "{wrong:?}");
    redtape_in(&folder, &[("REDTAPE_DIR", &journal)], &cat).expect_success("the environment");
    redtape_in(&folder, &[("REDTAPE_DIR", text(&other))], &[&cat[..], &["--from", &journal]].concat())
        .expect_success("a flag");

    // Keys alike; the file is named in either way.
    write(&format!("dir = \"{journal}\"\njournal-key-file = \"{}\"\n", text(&dir.join("no-keys"))));
    let wrong = redtape_in(&folder, &[], &cat);
    assert!(wrong.code != Some(0) && wrong.stderr.contains("no-keys"), "{wrong:?}");
    let named = [("REDTAPE_JOURNAL_KEY_FILE", &key[..]), ("REDTAPE_CONFIG", text(&file))];
    redtape_in(dir.path(), &named, &cat).expect_success("the environment's keys");
    let flags = ["--config", text(&file), "--journal-key-file", &key];
    redtape_in(dir.path(), &[], &[&cat[..], &flags].concat()).expect_success("the flag's keys");
    // No keys at all.
    let none = redtape_in(&folder, &[], &[&cat[..], &["--from", &journal, "--config", "/dev/null"]].concat());
    assert_eq!(none.code, Some(NOPERM), "{none:?}");
}

#[test]
fn what_is_wrong_with_the_file_is_told_with_what_to_do() {
    let dir = Dir::new("settings-wrong");
    let file = dir.join("redtape.toml");
    let missing = dir.join("missing");
    let refused = |code: i32, words: &[&str]| {
        let outcome = redtape_in(dir.path(), &[], &["log"]);
        assert_eq!((outcome.code, &outcome.stdout[..]), (Some(code), ""), "{outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{words:?}: {outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    };
    std::fs::write(&file, format!("# the journal\ndir = \"{}\"\n", text(&missing))).unwrap();
    refused(DATAERR, &["there is no journal at", text(&missing), "redtape.toml:2", "--from DIR"]);
    std::fs::write(&file, "dri = \"x\"\n").unwrap();
    refused(USAGE, &["redtape.toml:1: dri", "there is no such option"]);
    std::fs::write(&file, "dir = 7\n").unwrap();
    refused(USAGE, &["redtape.toml:1: dir"]);
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    refused(USAGE, &["cannot read redtape.toml", "--config"]);
    std::fs::remove_dir(&file).unwrap();
    refused(DATAERR, &["there is no journal at redtape-journal", "--from DIR"]);
}
