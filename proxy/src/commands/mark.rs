//! `REDTAPE.MARK`: a named restore point behind every acknowledged write.
//!
//! The server's offset is requested after the command has arrived: every effect acknowledged by then lies at or before
//! it. The mark is set when the journal reaches that offset in the same history, its window covers the time of the
//! command, and (unless syncs are off) the mark's LSN is durable. A mark that survived the loss of records before it
//! would name another point in time.
//!
//! If the server does not answer, or the journal does not reach the offset in time, no mark is set.

use std::path::Path;
use std::time::{Duration, Instant};

use redtape_capture::Prober;
use redtape_journal::{
    Catalog, Keyring, Lsn, Mark, Micros, OpenError, ReadError, ReplOffset, StoreError, Window, add_new_mark,
};
use redtape_net::Connector;

/// Time limit for the journal.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Why no mark was set.
#[derive(Debug, thiserror::Error)]
pub(super) enum MarkError {
    /// The name is in use.
    #[error("there is a mark {:?} already, of {} (LSN {}); choose another name", .0.shown_name(), .0.ts, .0.lsn)]
    Taken(Mark),
    /// The server's offset could not be read.
    #[error("cannot ask {address} for its replication offset ({why}); nothing was marked")]
    Server {
        /// The upstream.
        address: String,
        /// What happened.
        why: String,
    },
    /// There is nothing to restore from.
    #[error(
        "the journal has no base yet, and nothing before it can be restored; nothing was marked: try again when REDTAPE.INFO says tap_state:streaming"
    )]
    NoBase,
    /// The journal did not reach the server's offset.
    #[error("the journal did not reach the server's offset {offset} within {} s; nothing was marked: look at tap_state and tap_lag_bytes in REDTAPE.INFO, and try again", TIMEOUT.as_secs())]
    Behind {
        /// The server's offset when the command came.
        offset: ReplOffset,
    },
    /// The journal is not synced.
    #[error("the journal was not synced up to LSN {lsn} within {} s; nothing was marked: look at proxy_last_error in REDTAPE.INFO, and try again", TIMEOUT.as_secs())]
    NotDurable {
        /// The end of the synced part.
        lsn: Lsn,
    },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MarkError {
    /// First word of the error reply.
    pub(super) fn code(&self) -> &'static str {
        if matches!(self, Self::Taken(_)) { "ERR" } else { "JOURNAL" }
    }
}

/// Sets a mark in the journal at `dir`, which this process writes; `durable` returns the last synced LSN. Takes at most
/// [`TIMEOUT`] and the server's time to answer (a few seconds).
pub(super) async fn set(
    dir: &Path,
    keyring: &Keyring,
    upstream: &Connector,
    name: &str,
    durable: impl Fn() -> Lsn,
) -> Result<Mark, MarkError> {
    let asked = Micros::now();
    let deadline = Instant::now() + TIMEOUT;
    let failed = |e: redis::RedisError| MarkError::Server { address: upstream.address(), why: e.to_string() };
    let taken = |catalog: &Catalog| catalog.marks().iter().rev().find(|m| m.name == name).cloned();
    if let Some(mark) = taken(&Catalog::open(dir)?) {
        return Err(MarkError::Taken(mark));
    }
    let mut prober = Prober::connect(upstream).await.map_err(failed)?;
    let mut server = prober.history().await.map_err(failed)?;
    loop {
        let look = look(&Catalog::open_with(dir, keyring)?, &server, asked)?;
        let late = Instant::now() >= deadline;
        match look {
            Look::There { lsn, ts } if durable() >= lsn => {
                let mark = Mark { name: name.to_owned(), ts, lsn };
                return add_new_mark(dir, &mark)?.map_or(Ok(mark), |taken| Err(MarkError::Taken(taken)));
            }
            Look::There { lsn, .. } if late => return Err(MarkError::NotDurable { lsn }),
            Look::NoBase if late => return Err(MarkError::NoBase),
            _ if late => return Err(MarkError::Behind { offset: server.1 }),
            // The server's history differs from the journal's: a new timeline is about to begin, or the server has
            // changed since. A later offset is equally valid.
            Look::OtherHistory => server = prober.history().await.map_err(failed)?,
            Look::There { .. } | Look::NoBase | Look::Behind => {}
        }
        tokio::time::sleep(POLL).await;
    }
}

/// State of the journal.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It holds everything up to the offset: this is the mark.
    There { lsn: Lsn, ts: Micros },
    /// The offset is not reached yet.
    Behind,
    /// Its newest timeline belongs to another history.
    OtherHistory,
    /// Nothing can be restored.
    NoBase,
}

/// `server`: replication id and offset, requested after the time `asked`.
fn look(catalog: &Catalog, server: &(String, ReplOffset), asked: Micros) -> Result<Look, ReadError> {
    let timelines = catalog.timelines();
    let (Some(timeline), Some(window)) = (timelines.last(), catalog.windows().pop()) else { return Ok(Look::NoBase) };
    if window.timeline != timeline.id {
        return Ok(Look::NoBase);
    }
    if timeline.source_id != server.0 {
        return Ok(Look::OtherHistory);
    }
    let at = catalog.lsn_at_offset(timeline.id, server.1)?;
    if !at.reached || window.to < asked {
        return Ok(Look::Behind);
    }
    // A base taken in between contains everything acknowledged, and more.
    let lsn = at.lsn.max(window.from_lsn);
    let last = catalog.find_cut_by_lsn(timeline.id, lsn)?;
    Ok(Look::There { lsn, ts: within(&window, asked.max(last.ts)) })
}

/// A restore looks up a mark by its LSN in the window that contains its time.
fn within(window: &Window, ts: Micros) -> Micros {
    ts.clamp(window.from, window.to.max(window.from))
}
