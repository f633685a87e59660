//! Marks: named restore points, appended as lines of JSON to `marks`.
//!
//! Each line ends with a CRC32C of what is before it: `{"name":…,"ts":…,"lsn":…,"crc32c":"9a3f00d1"}`.
//! A crash leaves at most a torn last line; the next mark replaces it, and readers skip a line that is wrong. Any process may add marks:
//! an exclusive `flock` on the file orders them. Pruning puts a shorter file in place, under the same lock: the old file or the new one
//! is there after a crash. What has waited for the lock of a file that was replaced opens the new one.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::directory::{Directory, write_atomically};
use crate::error::StoreError;
use crate::files;
use crate::jsonl::{append, decode, encode, parse};
use crate::types::Mark;

/// The file was replaced so often while its lock was waited for.
const LOCK_TRIES: usize = 100;

/// Appends a mark and syncs it. `dir` is the journal's directory.
pub fn add_mark(dir: impl AsRef<Path>, mark: &Mark) -> Result<(), StoreError> {
    let dir = Directory::new(dir);
    let path = dir.marks();
    let line = encode(mark).map_err(StoreError::io("encode a mark for", &path))?;
    lock(&dir).and_then(|file| append(file, &line, dir.root())).map_err(StoreError::io("append to", &path))
}

/// The same, unless there is a mark of that name: then nothing is changed and that mark is returned. Of
/// several who add one name at once, one succeeds.
pub fn add_new_mark(dir: impl AsRef<Path>, mark: &Mark) -> Result<Option<Mark>, StoreError> {
    let dir = Directory::new(dir);
    let path = dir.marks();
    let line = encode(mark).map_err(StoreError::io("encode a mark for", &path))?;
    let add = || {
        let file = lock(&dir)?;
        let (marks, _) = read_marks(&dir)?;
        match marks.into_iter().rev().find(|m| m.name == mark.name) {
            Some(taken) => Ok(Some(taken)),
            None => append(file, &line, dir.root()).map(|()| None),
        }
    };
    add().map_err(StoreError::io("append to", &path))
}

/// Adds a mark that redtape sets by itself; gives it as it was stored. `None` = that write has its mark already. Another write of the
/// same command and microsecond gets a name of its own.
pub fn add_automatic_mark(dir: impl AsRef<Path>, mark: Mark) -> Result<Option<Mark>, StoreError> {
    let dir = Directory::new(dir);
    let path = dir.marks();
    let add = || {
        let file = lock(&dir)?;
        let (marks, _) = read_marks(&dir)?;
        let taken = |name: &str| marks.iter().find(|m| m.name == name);
        let mark = match taken(&mark.name) {
            Some(there) if there.lsn == mark.lsn => return Ok(None),
            Some(_) => mark.with_lsn_in_name(),
            None => mark,
        };
        if taken(&mark.name).is_some() {
            return Ok(None);
        }
        append(file, &encode(&mark)?, dir.root())?;
        Ok(Some(mark))
    };
    add().map_err(StoreError::io("append to", &path))
}

/// Removes these marks; all other lines stay as they are, damaged ones too.
pub(crate) fn remove_marks(dir: &Directory, gone: &[Mark]) -> io::Result<()> {
    let path = dir.marks();
    let _locked = lock(dir)?;
    let bytes = files::read(&path)?;
    let goes = |line: &[u8]| {
        let mark = line.strip_suffix(b"\n").and_then(decode::<Mark>);
        mark.is_some_and(|mark| gone.contains(&mark))
    };
    let kept: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').filter(|line| !goes(line)).collect();
    let kept = kept.concat();
    if kept.len() < bytes.len() { write_atomically(&path, &kept) } else { Ok(()) }
}

/// Opens the file for appending; nobody else does until it is closed.
fn lock(dir: &Directory) -> io::Result<File> {
    let path = dir.marks();
    for _ in 0..LOCK_TRIES {
        let file = files::open_append(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        // Another file may have been put in its place meanwhile.
        let (locked, there) = (file.metadata()?, std::fs::symlink_metadata(&path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (locked.dev(), locked.ino())) {
            return Ok(file);
        }
    }
    Err(io::Error::other("it is replaced again and again"))
}

/// Reads the marks in order, and the offsets of lines that are wrong. A last line without its end
/// is torn or being written: it is left out silently.
pub(crate) fn read_marks(dir: &Directory) -> io::Result<(Vec<Mark>, Vec<u64>)> {
    let bytes = match files::read(&dir.marks()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    Ok(parse(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Lsn, Micros};

    fn mark(name: &str, lsn: u64) -> Mark {
        Mark { name: name.to_owned(), ts: Micros(7), lsn: Lsn(lsn) }
    }

    #[test]
    fn marks_come_back_and_a_torn_line_costs_only_itself() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        assert_eq!(read_marks(&dir).unwrap(), (vec![], vec![]));
        add_mark(root.path(), &mark("before \"deploy\"\n,\"crc32c\":\"", 1)).unwrap();
        let whole = std::fs::read(dir.marks()).unwrap();
        for cut in 1..whole.len() {
            std::fs::write(dir.marks(), &whole[..cut]).unwrap();
            assert_eq!(read_marks(&dir).unwrap(), (vec![], vec![]));
            add_mark(root.path(), &mark("b", 2)).unwrap();
            let (marks, wrong) = read_marks(&dir).unwrap();
            assert_eq!((marks.len(), wrong.len()), (1, 0), "cut at {cut}");
        }
        // What no append can have left stays, and is told.
        std::fs::write(dir.marks(), vec![b'x'; 1 << 17]).unwrap();
        add_mark(root.path(), &mark("b", 2)).unwrap();
        assert_eq!(read_marks(&dir).unwrap(), (vec![mark("b", 2)], vec![0]));
    }

    #[test]
    fn of_several_who_take_a_name_one_gets_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        let taken: Vec<Option<Mark>> = std::thread::scope(|scope| {
            let adding: Vec<_> =
                (1..=8).map(|lsn| scope.spawn(move || add_new_mark(dir, &mark("m", lsn)).unwrap())).collect();
            adding.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().filter(|t| t.is_none()).count(), 1, "{taken:?}");
        let (marks, _) = read_marks(&Directory::new(root.path())).unwrap();
        assert_eq!(marks.len(), 1);
        assert!(taken.iter().flatten().all(|t| *t == marks[0]));
        assert_eq!(add_new_mark(root.path(), &mark("other", 1)).unwrap(), None);
    }

    #[test]
    fn a_write_gets_one_automatic_mark_and_two_of_a_microsecond_get_two_names() {
        let root = tempfile::tempdir().unwrap();
        let before = |lsn: u64| Mark::automatic("FLUSHALL", Micros(7), Lsn(lsn));
        assert_eq!(add_automatic_mark(root.path(), before(3)).unwrap(), Some(before(3)));
        assert_eq!(add_automatic_mark(root.path(), before(3)).unwrap(), None, "the same write");
        let second = add_automatic_mark(root.path(), before(5)).unwrap().unwrap();
        assert_eq!((second.lsn, &second.name), (Lsn(5), &format!("{}#5", before(5).name)));
        assert_eq!(add_automatic_mark(root.path(), before(5)).unwrap(), None, "the same write");
        let (marks, wrong) = read_marks(&Directory::new(root.path())).unwrap();
        assert_eq!((marks, wrong), (vec![before(3), second], vec![]));
    }

    #[test]
    fn what_is_removed_goes_and_every_other_byte_stays() {
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        for lsn in 1..=3 {
            add_mark(root.path(), &mark(&format!("m{lsn}"), lsn)).unwrap();
        }
        let whole = std::fs::read_to_string(dir.marks()).unwrap();
        let lines: Vec<&str> = whole.split_inclusive('\n').collect();
        std::fs::write(dir.marks(), format!("{}damaged\n{}{}torn", lines[0], lines[1], lines[2])).unwrap();
        remove_marks(&dir, &[mark("m2", 2), mark("m3", 7)]).unwrap();
        let left = std::fs::read_to_string(dir.marks()).unwrap();
        assert_eq!(left, format!("{}damaged\n{}torn", lines[0], lines[2]));
    }

    #[test]
    fn no_mark_is_lost_that_is_added_while_others_are_removed() {
        const EACH: u64 = 200;
        let root = tempfile::tempdir().unwrap();
        let dir = Directory::new(root.path());
        add_mark(root.path(), &mark("first", 0)).unwrap();
        std::thread::scope(|scope| {
            for adder in 1..=3_u64 {
                let root = root.path();
                scope.spawn(move || {
                    for n in 0..EACH {
                        add_mark(root, &mark("stays", adder * 1000 + n)).unwrap();
                        add_mark(root, &mark("goes", adder * 1000 + n)).unwrap();
                    }
                });
            }
            for _ in 0..EACH {
                let (marks, _) = read_marks(&dir).unwrap();
                let gone: Vec<Mark> = marks.into_iter().filter(|m| m.name == "goes").collect();
                remove_marks(&dir, &gone).unwrap();
            }
        });
        let (marks, wrong) = read_marks(&dir).unwrap();
        assert_eq!(marks.iter().filter(|m| m.name == "stays").count() as u64, 3 * EACH);
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    #[test]
    fn names_of_marks() {
        for name in ["a", "before deploy 4.2", "vör", &"x".repeat(128)] {
            assert_eq!(Mark::check_name(name), Ok(()));
        }
        for (name, why) in [("", "128"), (&"x".repeat(129)[..], "128"), ("a\nb", "control"), ("a ", "blank")] {
            assert!(Mark::check_name(name).is_err_and(|e| e.contains(why)), "{name:?}");
        }
    }

    #[test]
    fn a_name_never_controls_a_terminal() {
        assert_eq!(mark("before déploy \"2\"", 1).shown_name(), "before déploy \"2\"");
        assert_eq!(mark("a\n\x1b[2Jb\u{85}", 1).shown_name(), "a\\n\\u{1b}[2Jb\\u{85}");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let line = encode(&mark("m", 9)).unwrap();
        let line = line.trim_end().as_bytes();
        assert_eq!(decode(line), Some(mark("m", 9)));
        for bit in 0..line.len() * 8 {
            let mut line = line.to_vec();
            line[bit / 8] ^= 1 << (bit % 8);
            assert!(decode::<Mark>(&line).is_none(), "bit {bit}");
        }
    }
}
