//! Streams of a live server get what they lack: entries, groups, pending entries; those that clients write to all the time as well.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redtape_journal::Keyring;
use redtape_journal::query::When;
use redtape_restore::client::{Value, text};
use redtape_restore::target::repair::{OnConflict, Outcome, Policy};
use redtape_restore::undo::{UndoRequest, prepare_undo};
use redtape_restore::{Filter, Interrupt, Limits, Request, Silent, prepare};
use support::record::Recorder;
use support::{Running, assert_same, request, run, state, version};

struct Scene {
    server: Running,
    folder: tempfile::TempDir,
    at: When,
}

impl Scene {
    /// What `before` and then `after` write; the point lies between.
    fn new(before: &[&str], after: &[&str]) -> Self {
        let server = Running::start(&["--enable-debug-command", "yes"]);
        let folder = tempfile::tempdir().unwrap();
        let mut client = server.client();
        let mut recorder = Recorder::start(&folder.path().join("j"), &server);
        for line in before {
            run(&mut client, line);
        }
        let at = When::At(recorder.catch_up());
        for line in after {
            run(&mut client, line);
        }
        recorder.catch_up();
        recorder.finish();
        Self { server, folder, at }
    }

    fn merge(&self) -> Outcome {
        let dir = self.folder.path().join("j");
        let repair = Some(Policy { on_conflict: OnConflict::Merge, ..Policy::default() });
        let state_dir = Some(self.folder.path().join("state"));
        let filter = Filter::new(&["*"], &[], &[]).unwrap();
        let request = Request { filter, repair, state_dir, ..request(&dir, self.at.clone(), &self.server, None) };
        prepare(&request, &mut Silent).unwrap().run(&mut Silent).unwrap().repair.unwrap()
    }

    fn undo(&self) -> Outcome {
        let request = UndoRequest {
            file: undo_file(&self.folder.path().join("state")).unwrap(),
            keyring: Keyring::default(),
            to: self.server.url().parse().unwrap(),
            replace: false,
            state_dir: Some(self.folder.path().join("undo-state")),
            interrupt: Interrupt::default(),
            limits: Limits::default(),
        };
        prepare_undo(request).unwrap().run(&mut Silent).unwrap()
    }

    fn ids(&self, key: &str) -> Vec<String> {
        let Value::Array(entries) = run(&mut self.server.client(), &format!("XRANGE {key} - +")) else { panic!() };
        let id = |entry: &Value| if let Value::Array(entry) = entry { text(&entry[0]) } else { panic!() };
        entries.iter().map(id).collect()
    }

    /// Pending entries of a group, as `id consumer`.
    fn pending(&self, key: &str, group: &str) -> Vec<String> {
        let reply = run(&mut self.server.client(), &format!("XPENDING {key} {group} - + 100"));
        let Value::Array(entries) = reply else { panic!() };
        let told = |entry: &Value| {
            if let Value::Array(entry) = entry { format!("{} {}", text(&entry[0]), text(&entry[1])) } else { panic!() }
        };
        entries.iter().map(told).collect()
    }

    /// A field of `XINFO STREAM`.
    fn info(&self, key: &str, name: &str) -> String {
        let Value::Array(fields) = run(&mut self.server.client(), &format!("XINFO STREAM {key}")) else { panic!() };
        let found = fields.chunks_exact(2).find(|pair| text(&pair[0]) == name);
        text(&found.unwrap()[1])
    }
}

fn undo_file(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            undo_file(&path)
        } else {
            path.to_string_lossy()
                .ends_with(".undo")
                .then_some(path)
                .filter(|path| !path.to_string_lossy().contains("-2."))
        }
    })
}

#[test]
fn what_a_stream_lacks_comes_back_below_what_was_added_since() {
    let scene = Scene::new(
        &[
            "XADD trimmed 1-1 f a",
            "XADD trimmed 2-1 f b",
            "XADD trimmed 3-1 f c",
            "XGROUP CREATE trimmed stays 0",
            "XGROUP CREATE trimmed gone 0",
            "XREADGROUP GROUP stays one COUNT 2 STREAMS trimmed >",
            "XREADGROUP GROUP gone two COUNT 1 STREAMS trimmed >",
            "XADD anew 1-1 f a",
            "XADD anew 2-1 f b",
            "XADD changed 1-1 f a",
            "XADD changed 2-1 f a",
            "XADD more 1-1 f a",
            "RPUSH list 1",
        ],
        &[
            "XACK trimmed stays 2-1",
            "XADD trimmed 4-1 f d",
            "XREADGROUP GROUP stays one COUNT 1 STREAMS trimmed >",
            "XTRIM trimmed MAXLEN 2",
            "XACK trimmed stays 1-1",
            "XGROUP DESTROY trimmed gone",
            "PEXPIRE trimmed 100000000",
            "DEL anew",
            "XADD anew 7-1 f z",
            "DEL changed",
            "XADD changed 2-1 f other",
            "XADD more 2-1 f b",
            "RPUSH list 2",
        ],
    );
    let mut client = scene.server.client();
    let after = state(&mut client);
    let merged = scene.merge();
    assert_eq!((merged.merged, merged.elements), (2, 5), "{merged:?}");
    // The time of expiry, the entry with other fields, the list.
    let mut left: Vec<&str> = merged.listed.iter().map(|left| left.key.trim_matches('"')).collect();
    left.sort_unstable();
    assert_eq!(left, ["changed", "list", "trimmed"], "{:?}", merged.listed);
    assert_eq!(scene.ids("trimmed"), ["1-1", "2-1", "3-1", "4-1"]);
    assert_eq!(scene.info("trimmed", "last-generated-id"), "4-1");
    // 1-1 comes back, and is pending again; 2-1 comes back, and so it is too: who acknowledged what was gone?
    assert_eq!(scene.pending("trimmed", "stays"), ["1-1 one", "2-1 one", "3-1 one"]);
    assert_eq!(scene.pending("trimmed", "gone"), ["1-1 two"]);
    assert_eq!(scene.ids("anew"), ["1-1", "2-1", "7-1"]);
    if version().has_redis(7, 0) {
        assert_eq!(
            (scene.info("trimmed", "entries-added"), scene.info("anew", "entries-added")),
            ("4".into(), "3".into())
        );
    }
    assert_eq!(scene.ids("changed"), ["2-1"]);
    assert_eq!(scene.ids("more"), ["1-1", "2-1"]);
    let Value::Int(ttl) = run(&mut client, "PTTL trimmed") else { panic!() };
    assert!(ttl > 90_000_000, "the live one stays");
    // Again: nothing is lacking.
    let again = scene.merge();
    assert_eq!((again.merged, again.left), (0, 3), "{again:?}");
    assert_eq!(scene.undo().left, 0);
    assert_same(&after, &state(&mut client), "undone");
}

#[test]
fn a_stream_that_clients_write_to_all_the_time_is_merged_and_nothing_of_it_is_lost() {
    if !version().has_redis(7, 0) {
        return;
    }
    let old: Vec<String> = (1..=200).map(|n| format!("XADD hot {n}-1 f {n}")).collect();
    let mut before: Vec<&str> = old.iter().map(String::as_str).collect();
    before.extend(["XGROUP CREATE hot g 0", "XREADGROUP GROUP g slow COUNT 5 STREAMS hot >"]);
    before.extend(["XGROUP CREATE hot gone 0", "XREADGROUP GROUP gone c COUNT 3 STREAMS hot >"]);
    let scene = Scene::new(&before, &["XTRIM hot MAXLEN 1", "XGROUP SETID hot g $", "XGROUP DESTROY hot gone"]);
    // Both write as long as the first entry is not back: so what the merge has made of it can be undone.
    let add = "if #redis.call('XRANGE', KEYS[1], '1-1', '1-1') == 0 then return redis.call('XADD', KEYS[1], '*', 'n', ARGV[1]) end return ''";
    let take = "if #redis.call('XRANGE', KEYS[1], '1-1', '1-1') > 0 then return -1 end
        local got = redis.call('XREADGROUP', 'GROUP', 'g', 'fast', 'COUNT', 3, 'STREAMS', KEYS[1], '>')
        if not got then return 0 end
        local pending = redis.call('XPENDING', KEYS[1], 'g')[1]
        for i = 1, #got[1][2] do if i > 1 or pending > 50 then redis.call('XACK', KEYS[1], 'g', got[1][2][i][1]) end end
        return #got[1][2]";
    let (written, end) = (AtomicU64::new(0), AtomicBool::new(false));
    let (merged, added) = std::thread::scope(|scope| {
        let adders: Vec<_> = (0..2)
            .map(|_| {
                let (mut client, written, end) = (scene.server.client(), &written, &end);
                scope.spawn(move || {
                    let mut ids = Vec::new();
                    loop {
                        let id = text(&client.call(&["EVAL", add, "1", "hot", "x"]).unwrap());
                        if id.is_empty() || end.load(Ordering::Relaxed) {
                            return ids;
                        }
                        ids.push(id);
                        written.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_micros(200));
                    }
                })
            })
            .collect();
        let (mut client, end) = (scene.server.client(), &end);
        scope.spawn(move || {
            while client.call(&["EVAL", take, "1", "hot"]).unwrap() != Value::Int(-1) && !end.load(Ordering::Relaxed) {}
        });
        while written.load(Ordering::Relaxed) < 50 {
            std::thread::yield_now();
        }
        let merged = scene.merge();
        end.store(merged.merged == 0, Ordering::Relaxed);
        let mut added: Vec<String> = adders.into_iter().flat_map(|adder| adder.join().unwrap()).collect();
        added.sort_by_key(|id| id.split('-').map(|part| part.parse::<u64>().unwrap()).collect::<Vec<_>>());
        (merged, added)
    });
    assert_eq!((merged.merged, merged.left), (1, 0), "{merged:?}");
    let want: Vec<String> = (1..=200).map(|n| format!("{n}-1")).chain(added.iter().cloned()).collect();
    assert_eq!(scene.ids("hot"), want);
    assert_eq!(scene.info("hot", "last-generated-id"), *added.last().unwrap());
    assert_eq!(scene.info("hot", "entries-added"), want.len().to_string());
    let pending = scene.pending("hot", "g");
    assert_eq!(pending[..5], ["1-1 slow", "2-1 slow", "3-1 slow", "4-1 slow", "5-1 slow"]);
    assert!(pending[5..].iter().all(|entry| entry.ends_with(" fast")), "{pending:?}");
    assert_eq!(scene.pending("hot", "gone"), ["1-1 c", "2-1 c", "3-1 c"]);
    // What it was at that moment is in the undo file, and what was put in its place is known to the last entry.
    let undone = scene.undo();
    assert_eq!((undone.left, undone.replaced), (0, 1), "{:?}", undone.listed);
    let want: Vec<String> = std::iter::once("200-1".to_owned()).chain(added).collect();
    assert_eq!(scene.ids("hot"), want);
    let mut client = scene.server.client();
    assert_eq!(run(&mut client, "KEYS redtape:*"), Value::Array(Vec::new()));
}
