//! `REDTAPE.*`: the commands that the proxy answers itself, so that redis-cli is enough to operate it.
//!
//! ```text
//! request ─► is_admin_command ─► AdminCommands::answer ─► Reply   at once: INFO, LSN, HELP, every error
//!    │                                      ├──► Later            on a thread of its own: MARK, SNAPSHOT
//!    │                                      └──► WhileWanted      the same, ended with its client: GET
//!    └─────► completion ─► (server) ─► AdminCommands::complete    INFO and COMMAND: redtape's part of the server's reply
//! ```
//!
//! To a client they look like a module's commands: they appear in `COMMAND`, have a section in `INFO`, and fail with
//! the server's own error texts (`wording`). Everything is a function from bytes to bytes except `mark` and `snapshot`,
//! which query the server and write to the journal's directory.
//!
//! The caller's part: a request is answered after the replies to the session's earlier ones (so a mark lies behind
//! them, too). Inside MULTI it is forwarded like any unknown command, and the server refuses the transaction.

mod completion;
mod get;
mod glob;
mod info;
mod mark;
mod reply;
mod rows;
mod table;
mod wording;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redtape_capture::KeyringHandle;
use redtape_capture::snapshot::{self, SnapshotSlot};
use redtape_journal::{Keyring, Lsn, Mark, SnapshotKind};
use redtape_net::Connector;
use redtape_telemetry::{Status, Watermarks};
use redtape_wire::settings::Sharing;

pub(crate) use self::completion::{Completion, completion};
pub(crate) use self::get::CancelOnDrop;
use self::get::Place;
pub use self::get::{KeyQuery, KeyReader, ReadFailure};
use self::info::{Facts, Fixed};
use self::reply::{Field, error, fields, status_list, text};
use self::rows::Shape;
use self::table::{COMMANDS, HELP, Name};
use self::wording::Wording;
use crate::live::Live;

/// Time limit of a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_hours(1);

/// Answers `REDTAPE.*`; one for the process, shared by all workers.
#[derive(Debug)]
pub struct AdminCommands {
    fixed: Fixed,
    wording: Wording,
    status: Arc<Status>,
    live: Arc<ArcSwap<Live>>,
    keyring: KeyringHandle,
    upstream: Connector,
    source: Connector,
    dir: PathBuf,
    never_syncs: bool,
    started: Instant,
    snapshots: SnapshotSlot,
    past: Option<Arc<dyn KeyReader>>,
    reading: Place,
}

/// The kind of answer.
pub(crate) enum Answer {
    /// These bytes, at once.
    Reply(Vec<u8>),
    /// The result of this function, run on a thread of its own. [`mark::TIMEOUT`] and [`SNAPSHOT_TIMEOUT`] limit it.
    /// Dropping it before it runs has no effect.
    Later(Box<dyn FnOnce() -> Vec<u8> + Send>),
    /// As `Later`, and it ends early when the other part is dropped.
    WhileWanted(Box<dyn FnOnce() -> Vec<u8> + Send>, CancelOnDrop),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(bytes) => write!(f, "Reply({})", bytes.escape_ascii()),
            Self::Later(_) => f.write_str("Later"),
            Self::WhileWanted(..) => f.write_str("WhileWanted"),
        }
    }
}

/// True if the request is for [`AdminCommands::answer`]; `name` is in lower case.
#[inline]
pub(crate) fn is_admin_command(name: &[u8]) -> bool {
    name.starts_with(table::PREFIX)
}

/// True if [`completion()`] may be needed; `name` is in lower case.
#[inline]
pub(crate) fn may_lack(name: &[u8]) -> bool {
    name == b"info" || name == b"command"
}

/// Inputs of the admin commands.
#[derive(Debug)]
pub struct AdminSetup {
    /// The server behind the proxy.
    pub upstream: Connector,
    /// The followed server, if it is another one.
    pub follow: Option<Connector>,
    /// Version of the upstream, for its error texts.
    pub server_version: String,
    /// The journal's directory.
    pub dir: PathBuf,
    /// When the journal is synced, as the option's value.
    pub sync: &'static str,
    /// The operating system decides when the journal is synced: a mark cannot wait for it.
    pub never_syncs: bool,
    /// Whether sessions share upstream connections.
    pub sharing: Sharing,
    /// Which users may run commands with effects, and the rate limit of snapshots.
    pub live: Arc<ArcSwap<Live>>,
    /// The journal's keys.
    pub keyring: KeyringHandle,
    /// Shown in `INFO`.
    pub status: Arc<Status>,
    /// Permits one snapshot at a time.
    pub snapshots: SnapshotSlot,
    /// Answers `REDTAPE.GET`.
    pub past: Option<Arc<dyn KeyReader>>,
}

impl AdminCommands {
    /// Does not query or write anything before a command comes.
    pub fn new(setup: AdminSetup) -> Self {
        let fixed = Fixed::of(&setup);
        let source = setup.follow.unwrap_or_else(|| setup.upstream.clone());
        Self {
            fixed,
            wording: Wording::of(&setup.server_version),
            status: setup.status,
            live: setup.live,
            keyring: setup.keyring,
            upstream: setup.upstream,
            source,
            dir: setup.dir,
            never_syncs: setup.never_syncs,
            started: Instant::now(),
            snapshots: setup.snapshots,
            past: setup.past,
            reading: Place::default(),
        }
    }

    /// `args[0]` is the command's name in any case; `user` is `None` while the session is not authenticated. `db` is
    /// the session's database.
    pub(crate) fn answer(&self, args: &[&[u8]], user: Option<&str>, db: u32, resp3: bool) -> Answer {
        Answer::Reply(match self.judge(args, user) {
            Err(refusal) => refusal,
            Ok(Name::Info) => text(&self.section(), resp3),
            Ok(Name::Lsn) => {
                let Watermarks { captured, written, durable } = self.status.watermarks();
                let lsn = |lsn: u64| Field::Number(lsn as i64);
                fields(&[("captured", lsn(captured)), ("written", lsn(written)), ("durable", lsn(durable))], resp3)
            }
            Ok(Name::Help) => status_list(HELP),
            Ok(Name::Mark) => return self.mark(args[1], user.unwrap_or_default(), resp3),
            Ok(Name::Snapshot) => return self.snapshot(user.unwrap_or_default(), resp3),
            Ok(Name::Get) => return self.get(args[1], args[2], user.unwrap_or_default(), db, resp3),
        })
    }

    /// Completes the server's whole reply to a request for which [`completion()`] returned `completion`. An unexpected
    /// reply (an error, `+QUEUED`) is returned unchanged.
    pub(crate) fn complete(&self, completion: &Completion, reply: &[u8], resp3: bool) -> Vec<u8> {
        let section = || self.section();
        completion.apply(reply, section, &Shape::usual(self.wording, resp3)).unwrap_or_else(|| reply.to_vec())
    }

    /// The order in which Redis checks a command.
    fn judge(&self, args: &[&[u8]], user: Option<&str>) -> Result<Name, Vec<u8>> {
        let Some(user) = user else { return Err(error("NOAUTH Authentication required.")) };
        let Some(command) = COMMANDS.iter().find(|c| args[0].eq_ignore_ascii_case(c.name.as_bytes())) else {
            return Err(error(self.wording.unknown(args)));
        };
        if args.len() != command.arity {
            return Err(error(format!("ERR wrong number of arguments for '{}' command", command.name)));
        }
        if command.admin && !self.live.load().admin_users.iter().any(|admin| admin == user) {
            return Err(error(self.wording.no_permission(user, command.name)));
        }
        Ok(command.id)
    }

    fn section(&self) -> String {
        let snapshot_runs = self.snapshots.is_taken();
        Facts::now(&self.fixed, &self.status, self.started.elapsed(), snapshot_runs).section()
    }

    fn mark(&self, name: &[u8], user: &str, resp3: bool) -> Answer {
        let name = match std::str::from_utf8(name) {
            Err(_) => Err("a mark's name is UTF-8 text"),
            Ok(name) => Mark::check_name(name).map(|()| name.to_owned()),
        };
        let name = match name {
            Ok(name) => name,
            Err(why) => return Answer::Reply(error(format!("ERR {why}"))),
        };
        let (dir, upstream, user) = (self.dir.clone(), self.upstream.clone(), user.to_owned());
        let keyring = Keyring::clone(&self.keyring.load());
        // Without syncs by redtape, written data is all that can be waited for.
        let synced = (!self.never_syncs).then(|| self.status.clone());
        Answer::Later(Box::new(move || {
            let durable = || synced.as_ref().map_or(Lsn(u64::MAX), |status| Lsn(status.watermarks().durable));
            match block_on(mark::set(&dir, &keyring, &upstream, &name, durable)) {
                Ok(Ok(mark)) => {
                    tracing::info!(user, name = mark.shown_name(), lsn = mark.lsn.0, ts = %mark.ts, "mark set");
                    let time = Field::Text(mark.ts.to_string());
                    let (lsn, micros) = (Field::Number(mark.lsn.0 as i64), Field::Number(mark.ts.0));
                    fields(
                        &[("name", Field::Text(mark.name)), ("lsn", lsn), ("time", time), ("time_us", micros)],
                        resp3,
                    )
                }
                Ok(Err(e)) => error(format!("{} {e}", e.code())),
                Err(e) => error(format!("JOURNAL {e}")),
            }
        }))
    }

    fn get(&self, key: &[u8], when: &[u8], user: &str, db: u32, resp3: bool) -> Answer {
        let Some(past) = self.past.clone() else { return Answer::Reply(error("ERR this process reads no past keys")) };
        let Ok(when) = std::str::from_utf8(when) else {
            return Answer::Reply(error("ERR a point in time is UTF-8 text"));
        };
        let Some(taken) = self.reading.take() else {
            return Answer::Reply(error("BUSY another REDTAPE.GET is running; try again when it has ended"));
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let query = KeyQuery { key: key.to_vec(), db, when: when.to_owned(), cancelled: Arc::clone(&cancelled) };
        let user = user.to_owned();
        let run = move || {
            let read = past.read(&query);
            drop(taken);
            match read {
                Ok(json) => {
                    tracing::info!(user, "a past key was read");
                    text(&json, resp3)
                }
                Err(ReadFailure { code, message }) => error(format!("{code} {message}")),
            }
        };
        Answer::WhileWanted(Box::new(run), CancelOnDrop(cancelled))
    }

    fn snapshot(&self, user: &str, resp3: bool) -> Answer {
        let Some(running) = self.snapshots.begin() else {
            return Answer::Reply(error("ERR a snapshot is already running; REDTAPE.INFO tells when it has ended"));
        };
        let (dir, source, user) = (self.dir.clone(), self.source.clone(), user.to_owned());
        let (rate, keyring) = (self.live.load().snapshot_rate, Keyring::clone(&self.keyring.load()));
        let how = snapshot::Taking { kind: SnapshotKind::Manual, rate, keyring };
        Answer::Later(Box::new(move || {
            let taking = async { tokio::time::timeout(SNAPSHOT_TIMEOUT, snapshot::take(&dir, &source, how)).await };
            let taken = block_on(taking);
            drop(running);
            match taken {
                Ok(Ok(Ok(taken))) => {
                    tracing::info!(user, lsn = taken.lsn.0, bytes = taken.bytes, "snapshot taken");
                    let file = Field::Text(taken.path.display().to_string());
                    let number = |n: u64| Field::Number(i64::try_from(n).unwrap_or(i64::MAX));
                    let (lsn, bytes) = (number(taken.lsn.0), number(taken.bytes));
                    let (time, micros) = (Field::Text(taken.ts.to_string()), Field::Number(taken.ts.0));
                    let timeline = number(u64::from(taken.timeline.0));
                    let all = [("file", file), ("lsn", lsn), ("bytes", bytes), ("time", time), ("time_us", micros)];
                    fields(&all.into_iter().chain([("timeline", timeline)]).collect::<Vec<_>>(), resp3)
                }
                Ok(Ok(Err(e))) => error(format!("JOURNAL {e}")),
                Ok(Err(_)) => {
                    let minutes = SNAPSHOT_TIMEOUT.as_secs() / 60;
                    error(format!("JOURNAL the snapshot was not complete after {minutes} min; nothing was changed"))
                }
                Err(e) => error(format!("JOURNAL {e}")),
            }
        }))
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
