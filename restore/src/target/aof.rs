//! A folder that a server starts from with `appendonly yes`: its data directory with an append-only file in it.
//!
//! | server | in the folder |
//! | --- | --- |
//! | Redis 7.0 and later, Valkey | `appendonlydir/`: the manifest, the dataset as the base RDB, an empty file for what comes |
//! | before | `appendonly.aof`: the dataset as an RDB, behind which the server appends (`aof-use-rdb-preamble yes`) |
//!
//! A server drops no key of it while it loads: those whose time has come expire afterwards.

use std::io::Write as _;

use super::new_file::cannot_write;
use super::new_folder::NewFolder;
use super::rdb::{Job, write_to};
use super::restored::Written;
use crate::error::RestoreError;
use crate::progress::Observer;
use crate::version::ServerVersion;

/// `appenddirname`, if nobody has changed it.
const FOLDER: &str = "appendonlydir";
/// Names of files as `appendfilename appendonly.aof` makes them.
const SINGLE: &str = "appendonly.aof";
const BASE: &str = "appendonly.aof.1.base.rdb";
const INCREMENT: &str = "appendonly.aof.1.incr.aof";
const MANIFEST: &str = "appendonly.aof.manifest";

/// Writes it for servers of this version.
pub(crate) fn write(
    job: &Job<'_>,
    version: ServerVersion,
    folder: NewFolder,
    observer: &mut dyn Observer,
) -> Result<Written, RestoreError> {
    let path = folder.path().to_owned();
    let failed = |e| cannot_write(&path, e);
    let written = if version.has_redis(7, 0) {
        folder.folder(FOLDER)?;
        let at = |name: &str| format!("{FOLDER}/{name}");
        let written = write_to(job, (&mut folder.file(&at(BASE))?, &path), observer)?;
        folder.file(&at(INCREMENT))?;
        let manifest = format!("file {BASE} seq 1 type b\nfile {INCREMENT} seq 1 type i\n");
        folder.file(&at(MANIFEST))?.write_all(manifest.as_bytes()).map_err(failed)?;
        written
    } else {
        write_to(job, (&mut folder.file(SINGLE)?, &path), observer)?
    };
    folder.place()?;
    Ok(written)
}
