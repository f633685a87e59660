//! A folder that a server starts from with `appendonly yes`: its data directory with an append-only file in it.
//!
//! | server | in the folder |
//! | --- | --- |
//! | Redis 7.0 and later, Valkey | `appendonlydir/`: the manifest, the dataset as the base RDB, an empty file for what comes |
//! | before | `appendonly.aof`: the dataset as an RDB, behind which the server appends (`aof-use-rdb-preamble yes`) |
//!
//! A server drops no key of it while it loads: those whose time has come expire afterwards.
//!
//! With the history since the base (`history`), the base RDB is the journal's own and the file for what comes holds its records.

mod history;

use std::io::Write as _;

pub(crate) use self::history::check as check_history;
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

/// Writes it with the history since the base, for servers that load that.
pub(crate) fn write_with_history(
    job: &Job<'_>,
    folder: NewFolder,
    observer: &mut dyn Observer,
) -> Result<Written, RestoreError> {
    let path = folder.path().to_owned();
    let at = |name: &str| format!("{FOLDER}/{name}");
    folder.folder(FOLDER)?;
    let (mut base, mut increment) = (folder.file(&at(BASE))?, folder.file(&at(INCREMENT))?);
    let written = history::write(job, (&mut base, &mut increment, &path), observer)?;
    put_manifest(&folder)?;
    folder.place()?;
    Ok(written)
}

/// Says which files there are.
fn put_manifest(folder: &NewFolder) -> Result<(), RestoreError> {
    let manifest = format!("file {BASE} seq 1 type b\nfile {INCREMENT} seq 1 type i\n");
    let mut file = folder.file(&format!("{FOLDER}/{MANIFEST}"))?;
    file.write_all(manifest.as_bytes()).map_err(|e| cannot_write(folder.path(), e))
}

/// Writes it for servers of this version.
pub(crate) fn write(
    job: &Job<'_>,
    version: ServerVersion,
    folder: NewFolder,
    observer: &mut dyn Observer,
) -> Result<Written, RestoreError> {
    let path = folder.path().to_owned();
    let written = if version.has_redis(7, 0) {
        folder.folder(FOLDER)?;
        let at = |name: &str| format!("{FOLDER}/{name}");
        let written = write_to(job, (&mut folder.file(&at(BASE))?, &path), observer)?;
        folder.file(&at(INCREMENT))?;
        put_manifest(&folder)?;
        written
    } else {
        write_to(job, (&mut folder.file(SINGLE)?, &path), observer)?
    };
    folder.place()?;
    Ok(written)
}
