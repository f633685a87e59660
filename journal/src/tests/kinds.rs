//! What has the name of a journal's file and is none: told with its name and its kind, never followed, waited for, or changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::catalog::Catalog;
use crate::crypto::Keyring;
use crate::marks::add_mark;
use crate::model::{Fixture, OwnedGroup, open};
use crate::prune::{Retention, prune};
use crate::repair::plan_repair;
use crate::server::{add_server, tests::server};
use crate::snapshot::SnapshotWriter;
use crate::snapshot::tests::{manifest, store};
use crate::types::{Lsn, Mark, Micros};
use crate::verify::verify;

/// A journal in which every file of the format is there.
fn journal() -> Fixture {
    let mut journal = Fixture::new(4 << 10);
    store(&journal, manifest(0, 1, 1));
    journal.timeline();
    for n in 0..30 {
        journal.block(&[OwnedGroup::simple(&[n; 400])]);
    }
    journal.sync();
    journal.close();
    add_mark(journal.dir(), &mark()).unwrap();
    add_server(journal.dir(), &server("aa", None)).unwrap();
    crate::splices::Splices::default().store(&crate::directory::Directory::new(journal.dir())).unwrap();
    journal
}

fn mark() -> Mark {
    Mark { name: "m".to_owned(), ts: Micros(1), lsn: Lsn(1) }
}

/// What each operation says of a journal.
fn everything(dir: &Path) -> Vec<(&'static str, String)> {
    let text = |result: Result<(), String>| result.err().unwrap_or_default();
    let keep = Retention::default();
    let snapshot = || -> Result<(), String> {
        let mut writer = SnapshotWriter::create(dir).map_err(|e| e.to_string())?;
        writer.write(b"REDIS0010").map_err(|e| e.to_string())?;
        writer.commit(manifest(30, 1, 99)).map(drop).map_err(|e| e.to_string())
    };
    let check = || match verify(dir, true, |_| ()) {
        Err(e) => e.to_string(),
        Ok(report) => {
            let problems = report.problems.iter().map(|p| format!("{}: {}", dir.join(&p.file).display(), p.what));
            problems.collect::<Vec<_>>().join("; ")
        }
    };
    let read = || match Catalog::open(dir) {
        Err(e) => e.to_string(),
        Ok(catalog) => catalog.notes().join("; "),
    };
    vec![
        ("verify", check()),
        ("read", read()),
        ("plan a repair", text(plan_repair(dir, &Keyring::default()).map(drop).map_err(|e| e.to_string()))),
        ("mark", text(add_mark(dir, &mark()).map_err(|e| e.to_string()))),
        ("server", text(add_server(dir, &server("bb", None)).map(drop).map_err(|e| e.to_string()))),
        ("snapshot", text(snapshot())),
        ("prune", text(prune(dir, &keep, Micros(9), &mut |_| {}, &|| false).map(drop).map_err(|e| e.to_string()))),
        ("write", text(open(dir, 4 << 10).map(drop).map_err(|e| e.to_string()))),
    ]
}

/// Which operation must refuse, besides verification, for each name.
const WHO_REFUSES: [(&str, &str); 13] = [
    ("meta", "write"),
    ("lock", "write"),
    ("prune.lock", "prune"),
    ("snapshot.lock", "snapshot"),
    ("server", "server"),
    ("marks", "mark"),
    ("splices", "write"),
    ("segments", "write"),
    ("snapshots", "snapshot"),
    ("quarantine", "write"),
    ("segments/00000000000000000001-000001.seg", "write"),
    ("snapshots/00000000000000000000-000001.json", "read"),
    ("snapshots/00000000000000000000-000001.rdb", "read"),
];

#[test]
fn what_is_no_file_of_a_journal_is_refused_with_its_kind() {
    for (name, who) in WHO_REFUSES {
        for kind in ["symbolic link", "dangling symbolic link", "symbolic link to a device", "FIFO", "directory"] {
            let mut journal = journal();
            let dir = journal.dir().to_owned();
            let (path, kept) = (dir.join(name), journal.root.path().with_extension("kept"));
            let is_folder = path.is_dir();
            if kind == "directory" && is_folder {
                continue;
            }
            fs::rename(&path, &kept).unwrap();
            match kind {
                "symbolic link" => symlink(&kept, &path).unwrap(),
                "dangling symbolic link" => symlink(kept.with_extension("nowhere"), &path).unwrap(),
                "symbolic link to a device" => symlink("/dev/null", &path).unwrap(),
                "FIFO" => {
                    let fifo = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
                }
                _ => fs::create_dir(&path).unwrap(),
            }
            let before = contents(&kept);
            let said = everything(&dir);
            let wanted = ["symbolic link", "FIFO", "directory"].into_iter().find(|word| kind.contains(word)).unwrap();
            for needed in ["verify", who] {
                let (_, text) = said.iter().find(|(operation, _)| *operation == needed).unwrap();
                assert!(text.contains(wanted), "{name} as {kind}: {needed} says `{text}`; all: {said:#?}");
                assert!(text.contains(path.file_stem().unwrap().to_str().unwrap()), "{name} as {kind}: `{text}`");
            }
            assert_eq!(contents(&kept), before, "{name} as {kind}: what it led to was changed");
            assert!(!kept.with_extension("nowhere").exists(), "{name} as {kind}: it was created");
            // In its place again, all is well.
            if path.symlink_metadata().unwrap().is_dir() {
                fs::remove_dir_all(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            fs::rename(&kept, &path).unwrap();
            journal.reopen();
            journal.kill();
            assert_eq!(verify(&dir, true, |_| ()).unwrap().problems, [], "{name} as {kind}");
        }
    }
}

fn contents(path: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    if !path.is_dir() {
        return vec![(path.to_owned(), fs::read(path).unwrap())];
    }
    let mut all: Vec<_> = fs::read_dir(path).unwrap().flat_map(|entry| contents(&entry.unwrap().path())).collect();
    all.sort();
    all
}
