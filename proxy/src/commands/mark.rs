//! `REDTAPE.MARK`: a named restore point behind every write that anybody was told of.
//!
//! The server is asked for its offset when the command has come: whatever it had acknowledged by then lies
//! at or before it. The mark is set when the journal reaches that offset within the same history, its
//! window covers the time of the command, and (unless syncs are off) the mark's LSN is durable: a mark that
//! outlived the records before it would name another moment.
//!
//! Without an answer from the server, or when the journal does not get there in time, nothing is marked.

use std::path::Path;
use std::time::{Duration, Instant};

use redtape_capture::Prober;
use redtape_journal::{
    Catalog, Keyring, Lsn, Mark, Micros, OpenError, ReadError, ReplOffset, StoreError, Window, add_new_mark,
};
use redtape_net::Connector;

/// The journal must be there within this time.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Why nothing was marked.
#[derive(Debug, thiserror::Error)]
pub(super) enum MarkError {
    /// The name is another mark's.
    #[error("there is a mark {:?} already, of {} (LSN {}); choose another name", .0.shown_name(), .0.ts, .0.lsn)]
    Taken(Mark),
    /// The server does not tell how far it is.
    #[error("cannot ask {address} for its replication offset ({why}); nothing was marked")]
    Server {
        /// The upstream.
        address: String,
        /// What happened.
        why: String,
    },
    /// There is nothing that a restore could start from.
    #[error(
        "the journal has no base yet, and nothing before it can be restored; nothing was marked: try again when REDTAPE.INFO says tap_state:streaming"
    )]
    NoBase,
    /// The journal is not where the server was.
    #[error("the journal did not reach the server's offset {offset} within {} s; nothing was marked: look at tap_state and tap_lag_bytes in REDTAPE.INFO, and try again", TIMEOUT.as_secs())]
    Behind {
        /// Where the server was when the command came.
        offset: ReplOffset,
    },
    /// The journal is not synced.
    #[error("the journal was not synced up to LSN {lsn} within {} s; nothing was marked: look at proxy_last_error in REDTAPE.INFO, and try again", TIMEOUT.as_secs())]
    NotDurable {
        /// Up to where.
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
    /// The word with which the error reply begins.
    pub(super) fn code(&self) -> &'static str {
        if matches!(self, Self::Taken(_)) { "ERR" } else { "JOURNAL" }
    }
}

/// Sets a mark in the journal at `dir`, which this process writes; `durable` gives the last LSN that is
/// synced. Ends within [`TIMEOUT`] and the time that the server takes to answer (a few seconds at most).
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
            // The server has another history than the journal so far: a new timeline will begin, or the
            // server has changed since it was asked. A later offset is as good.
            Look::OtherHistory => server = prober.history().await.map_err(failed)?,
            Look::There { .. } | Look::NoBase | Look::Behind => {}
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What the journal shows.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// Everything up to the offset is in it: the mark is this.
    There { lsn: Lsn, ts: Micros },
    /// It is still to come.
    Behind,
    /// Its newest timeline is not of the server's history.
    OtherHistory,
    /// Nothing can be restored.
    NoBase,
}

/// `server` is its replication id and offset, as it gave them after the moment `asked`.
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
    // A base that was taken in between shows everything that had been acknowledged, and more.
    let lsn = at.lsn.max(window.from_lsn);
    let last = catalog.find_cut_by_lsn(timeline.id, lsn)?;
    Ok(Look::There { lsn, ts: within(&window, asked.max(last.ts)) })
}

/// Restoring looks a mark up by its LSN in the window that its time lies in.
fn within(window: &Window, ts: Micros) -> Micros {
    ts.clamp(window.from, window.to.max(window.from))
}
