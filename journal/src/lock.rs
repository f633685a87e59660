//! The one writer's lock: an exclusive `flock` on `lock`, which holds the writer's process id for
//! people to read. The lock ends with the process, however it ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::{FlockOperation, flock};

use crate::directory::{Directory, FILE_MODE};
use crate::error::OpenError;

/// Held as long as the journal is open for writing.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(dir: &Directory) -> Result<Self, OpenError> {
        let path = dir.lock();
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(OpenError::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
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
