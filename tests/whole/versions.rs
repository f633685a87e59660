//! Pairs of versions (`make compat`): what one server held goes as an RDB and as JSON lines into every other one that can hold it, and by
//! JSON lines back again. What a version cannot hold is refused by name, and the rest goes without it.
//!
//! The recorded server is `REDTAPE_TEST_SERVER`, the others are those of `.servers` and the one on `PATH`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::files::{Recorded, ended, import, loaded, recorded, special, text};
use crate::harness::moment::Key;
use crate::harness::redtape::{Outcome, run, run_in};
use crate::harness::server::{Version, as_tested, binary};
use crate::harness::workload::{preload, take_away_what_ends_soon};
use crate::harness::{Dir, Redtape, Server, State, rfc3339, seed};

/// The types that every server has.
const TYPES: [&str; 6] = ["string", "list", "set", "zset", "hash", "stream"];

/// A server that gets what another one held.
struct Other {
    binary: String,
    version: Version,
}

impl Other {
    fn all() -> Vec<Self> {
        let servers = Path::new(env!("CARGO_MANIFEST_DIR")).join(".servers");
        let folders = fs::read_dir(servers).into_iter().flatten().flatten().map(|entry| entry.path());
        let programs = folders.flat_map(|folder| ["redis-server", "valkey-server"].map(|name| folder.join(name)));
        let mut binaries: Vec<String> = programs.filter(|p| p.is_file()).map(|p| text(&p).to_owned()).collect();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = std::env::split_paths(&path).map(|folder| folder.join("redis-server")).find(|p| p.is_file());
        binaries.extend(own.map(|p| text(&p).to_owned()));
        binaries.sort();
        let mut seen = BTreeSet::new();
        let all = binaries.into_iter().map(|binary| Self { version: Version::of(&binary), binary });
        all.filter(|other| seen.insert(other.version)).collect()
    }

    /// It loads what the recorded server saves.
    fn loads_from(&self, recorded: Version) -> bool {
        match (recorded.valkey, self.version.valkey) {
            (false, false) | (true, true) => self.version >= recorded || self.format() >= format(recorded),
            // RDB version 11 is the last one that both know.
            (false, true) | (true, false) => recorded.valkey == self.version.valkey || format(recorded) <= 11,
        }
    }

    fn format(&self) -> u32 {
        format(self.version)
    }

    /// It has a place for all of this key.
    fn holds(&self, key: &Key, recorded: Version) -> bool {
        let fields = key.fields.is_empty() || self.version.at_least((7, 4), (9, 0));
        let known = TYPES.contains(&key.kind.as_str()) || (self.loads_from(recorded) && self.version >= recorded);
        fields && known
    }

    fn holds_functions(&self) -> bool {
        self.version.at_least((7, 0), (0, 0))
    }

    fn name(&self) -> String {
        let Version { valkey, major, minor, patch } = self.version;
        format!("{} {major}.{minor}.{patch}", if valkey { "Valkey" } else { "Redis" })
    }
}

/// Of RDBs; Valkey 9 has one of its own.
fn format(version: Version) -> u32 {
    match (version.valkey, version.major, version.minor) {
        (true, 9.., _) => 80,
        (true, ..) => 11,
        (false, 8, 6..) => 13,
        (false, 8, _) => 12,
        (false, 7, _) => 10,
        _ => 9,
    }
}

/// What one server gets of what another one held.
struct Pair<'a> {
    past: &'a Recorded,
    other: &'a Other,
    /// Some keys cannot go there, or functions.
    refused: bool,
    /// Those that can.
    want: State,
    /// That list as options.
    selection: Vec<String>,
}

impl<'a> Pair<'a> {
    fn new(past: &'a Recorded, other: &'a Other) -> Self {
        let (mut want, recorded) = (past.state.clone(), Version::tested());
        let before = want.keys();
        for (db, keys) in &mut want.dbs {
            keys.retain(|_, key| other.holds(key, recorded));
            want.sizes.insert(*db, keys.len() as i64);
        }
        want.dbs.retain(|_, keys| !keys.is_empty());
        want.sizes.retain(|_, keys| *keys > 0);
        let refused = want.keys() < before || !(want.functions.is_empty() || other.holds_functions());
        let mut selection = Vec::new();
        if refused {
            // Only some keys are wanted then, without functions.
            want.functions.clear();
            let gone = past.state.dbs.iter().flat_map(|(db, keys)| keys.keys().map(move |key| (db, key)));
            let gone = gone.filter(|(db, key)| !want.dbs.get(db).is_some_and(|keys| keys.contains_key(*key)));
            selection.extend(["--key".to_owned(), "*".to_owned()]);
            for (_, key) in gone {
                selection.extend(["--exclude-key".to_owned(), String::from_utf8(key.clone()).expect("a plain key")]);
            }
            // The same name may be in another database.
            let excluded: BTreeSet<&[u8]> = selection.chunks(2).skip(1).map(|pair| pair[1].as_bytes()).collect();
            for keys in want.dbs.values_mut() {
                keys.retain(|key, _| !excluded.contains(&key[..]));
            }
            want.sizes = want.dbs.iter().map(|(db, keys)| (*db, keys.len() as i64)).collect();
        }
        Self { past, other, refused, want, selection }
    }

    fn name(&self, what: &str) -> String {
        format!("{what} for {}", self.other.name())
    }

    /// Runs it, without what cannot be held if something cannot; that is refused by name first.
    fn go(&self, what: &str, act: impl Fn(&[&str]) -> Outcome) -> Outcome {
        let some: Vec<&str> = self.selection.iter().map(String::as_str).collect();
        if !self.refused {
            return act(&[]).expect_success(&self.name(what));
        }
        ended(&act(&[]), 69, &[&self.other.name(), "cannot hold all of the data", "Nothing was written"]);
        act(&some).expect_success(&self.name(what))
    }

    /// An RDB of that version, loaded by it.
    fn as_rdb(&self) {
        let rdb = self.past.file("pair.rdb");
        let at = rfc3339(self.past.state.at_us);
        // The server that loads the base is found on PATH.
        let folder = Path::new(&binary()).parent().map(Path::to_owned).unwrap_or_default();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
        let said = self.go("an RDB", |more| {
            let from = text(self.past.journal.path());
            let form = ["--to-rdb", text(&rdb), "--server-bin", &self.other.binary];
            let args = [&["restore", "--from", from, "--at", &at][..], &form, more].concat();
            run_in(&[("PATH".to_owned(), path.clone())], &args)
        });
        let head = fs::read(&rdb).expect("the RDB");
        let expected =
            if self.other.format() == 80 { "VALKEY080".to_owned() } else { format!("REDIS{:04}", self.other.format()) };
        assert!(head.starts_with(expected.as_bytes()), "{}: {said:?}", self.name("an RDB"));
        let found = as_tested(&self.other.binary, || {
            let server = loaded(&rdb, self.want.at_us);
            State::record_restored(&mut server.conn(), self.want.at_us)
        });
        self.want.assert_same_values(&found, &self.name("an RDB"));
        fs::remove_file(rdb).expect("the RDB");
    }

    /// JSON lines, and back from it.
    fn as_lines(&self, lines: &Path) {
        let (other, want) = (self.other, &self.want);
        let (found, back) = as_tested(&other.binary, || {
            let server = Server::at_clock(want.at_us);
            self.go("JSON lines", |more| import(lines, &server, more));
            let found = State::record_restored(&mut server.conn(), want.at_us);
            (found, lines_of(&server, &self.past.file("back.jsonl"), &other.binary))
        });
        want.assert_same_values(&found, &self.name("JSON lines"));
        let server = Server::at_clock(want.at_us);
        import(&back, &server, &[]).expect_success(&self.name("JSON lines back"));
        let found = State::record_restored(&mut server.conn(), want.at_us);
        want.assert_same_values(&found, &self.name("JSON lines back"));
        fs::remove_file(back).expect("JSON lines");
    }
}

/// What a server holds, by a journal.
fn lines_of(server: &Server, file: &Path, binary: &str) -> PathBuf {
    let journal = Dir::new("journal");
    let mut redtape = Redtape::start(&server.url(), journal.path(), &[]);
    redtape.wait_caught_up();
    assert_eq!(redtape.terminate(), Some(0));
    let from = text(journal.path());
    run(&["restore", "--from", from, "--at", "latest", "--to-jsonl", text(file), "--server-bin", binary])
        .expect_success("JSON lines of the other server");
    file.to_owned()
}

#[test]
#[ignore = "a minute for each server: make compat"]
fn what_one_server_held_goes_to_each_other_that_can_hold_it() {
    let seed = seed();
    let past = recorded(|server| {
        preload(server, seed, 120);
        special(server);
        // Redis 6.0 does not work with a clock that stands still.
        take_away_what_ends_soon(server);
    });
    println!("{:?}: {}", Version::tested(), past.state.summary());
    let lines = past.file("lines.jsonl");
    past.restore(&["--to-jsonl", text(&lines)]).expect_success("JSON lines");
    for other in Other::all() {
        let pair = Pair::new(&past, &other);
        println!("to {}: {} keys{}", other.name(), pair.want.keys(), if pair.refused { ", not all" } else { "" });
        pair.as_rdb();
        pair.as_lines(&lines);
    }
}
