//! The one writer's lock: an exclusive `flock` on `lock`, which holds the writer's process id for
//! people to read. The lock ends with the process, however it ends.
//!
//! A reader that asks whether there is a writer takes the lock for a moment, shared; so a writer tries again for longer than that.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::directory::Directory;
use crate::error::OpenError;
use crate::files;

/// How often a writer tries to take the lock, as a reader may hold it for a short time.
const TAKE_TRIES: u32 = 20;
/// How long it waits in between.
const TAKE_PAUSE: Duration = Duration::from_millis(5);

/// Held as long as the journal is open for writing.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(dir: &Directory) -> Result<Self, OpenError> {
        let path = dir.lock();
        let mut file = files::open_or_create(&path).map_err(OpenError::io("open", &path))?;
        match take_patiently(&file) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(OpenError::Locked { dir: dir.root().to_owned(), pid });
            }
            Err(e) => return Err(OpenError::io("lock", &path)(e.into())),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(OpenError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

fn take_patiently(file: &File) -> Result<(), Errno> {
    for _ in 1..TAKE_TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(TAKE_PAUSE),
            other => return other,
        }
    }
    flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Whether a live process holds the lock of the file at `path`.
pub(crate) fn is_held(path: &Path) -> bool {
    files::open_read(path)
        .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}
