//! Marks: named restore points, appended as lines of JSON to `marks`.
//!
//! Each line ends with a CRC32C of what is before it: `{"name":…,"ts":…,"lsn":…,"crc32c":"9a3f00d1"}`.
//! A crash leaves at most a torn last line; the next mark replaces it, and readers skip a line that is wrong. Any process may add marks: an exclusive `flock` on the file orders them.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::directory::Directory;
use crate::error::StoreError;
use crate::files;
use crate::jsonl::{append, encode, parse};
use crate::types::Mark;

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

/// Opens the file for appending; nobody else does until it is closed.
fn lock(dir: &Directory) -> io::Result<File> {
    let file = files::open_append(&dir.marks())?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
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
    use crate::jsonl::decode;
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
