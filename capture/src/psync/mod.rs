//! Capture: follows the server and records every effect in the journal.
//!
//! ```text
//! link ─► parser ─► join ─► block builder ─► writer's queue ─► segments
//!   ▲        ▲        ▲                          │
//!   │      offset   tee, probes                  ▼
//!   └── REPLCONF ACK <durable offset> ◄── watermarks
//! ```
//!
//! One thread owns everything except the writer. State after a crash at each step:
//! - while a base is taken: an unfinished file, removed at the next start; the old timeline remains;
//! - after a base, before its timeline begins: a base without references; a new one is taken;
//! - in the stream: the journal up to the last whole block; the next start resumes at its offset, so that nothing is
//!   missing or doubled while the server's backlog reaches that far.
//!
//! Invariants: acknowledged offsets cover only synced effects; a timeline begins with a base that is on the disk;
//! within a timeline the stream has no holes.

mod backlog;
mod base;
mod bystander;
mod clock;
pub(crate) mod effects;
mod identify;
mod link;
mod pacing;
mod probe;
mod prober;
mod reading;
mod retry;
mod slow_disk;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redtape_journal::{Catalog, Journal, Micros, OpenError, Recovered, ReplOffset, StoreError, TimelineId};
use redtape_net::Connector;
use redtape_net::tls::TlsFailure;
use redtape_telemetry::{CaptureState, Metrics, Status};
use redtape_wire::command::CommandTable;
use redtape_wire::psync::PsyncReply;
use tokio::sync::watch;

pub(crate) use self::base::{CopyError, CopyInProgress, manifest, receive};
use self::bystander::Bystander;
use self::clock::ClockWatch;
pub use self::link::{Link, LinkError};
pub use self::probe::{Prober, is_unreachable};
use self::prober::{Pace, Probes};
use self::retry::{Complaints, Cost, Retry};
use crate::automatic_marks::AutomaticMarks;
use crate::durability::DurabilityTracker;
use crate::identity::{Mismatch, ServerFacts};
use crate::join::{Join, Probe};
use crate::options::{CaptureConfig, Position};
use crate::recorder::{RecordError, Recorder};
use crate::tee::Tee;

/// An attempt to connect that is older than this is abandoned once the server is known to be back.
const STALE_ATTEMPT: Duration = Duration::from_secs(1);
/// How often the tee is drained when idle.
pub(crate) const TEE_POLL: Duration = Duration::from_millis(10);

/// Why a period of following ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("a stop was requested")]
    Stopped,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the server shuts down, and all that it has written was read")]
    ShutDown,
    #[error("the server has more to say, but the link has been silent for too long")]
    Silent,
    #[error("{0}")]
    Stream(#[from] effects::StreamError),
    #[error("the upstream's history cannot be read: {0}")]
    Upstream(String),
    #[error("the upstream is not reachable: {0}")]
    Unreachable(String),
    #[error(
        "{0}; writes are NOT being recorded: correct --upstream or --dir, or start with --accept-new-history to record this \
         server in this journal from now on"
    )]
    OtherServer(Box<Mismatch>),
    #[error(
        "{followed} is not a replica of {upstream}, writes are NOT being recorded: \
         make it one again (REPLICAOF), or start without --follow"
    )]
    Foreign { followed: String, upstream: String },
    #[error("the base copy: {0}")]
    Base(String),
    #[error("the journal: {0}")]
    Journal(JournalError),
    #[error("the journal: {}", RecordError::Slow)]
    Slow,
}

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// A group was not accepted.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A base, or the list of recorded servers, cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal cannot be reopened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A stop was requested, and the disk did not answer in time.
    #[error("it was stopped while the disk was stalled")]
    StalledAtStop,
}

impl Ended {
    /// What the attempt has cost the server; `copied`: a full copy was requested.
    fn cost(&self, copied: bool) -> Cost {
        match self {
            // A TLS handshake costs the server CPU time.
            Self::Link(LinkError::Unreachable { source, .. }) if TlsFailure::is_in(source) => Cost::Something,
            Self::Link(LinkError::Unreachable { .. }) | Self::Unreachable(_) => Cost::Nothing,
            Self::Link(LinkError::Later { .. }) | Self::ShutDown => Cost::Handshake,
            // The server continued from the requested offset, or closed the link before that: a server that fails over
            // closes its links.
            Self::Link(LinkError::Io { .. }) | Self::Silent if !copied => Cost::Handshake,
            _ => Cost::Something,
        }
    }
}

impl From<RecordError> for Ended {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Slow => Self::Slow,
            failed => Self::Journal(failed.into()),
        }
    }
}

/// The capture, owned by one thread.
pub(crate) struct Capture {
    config: CaptureConfig,
    metrics: Metrics,
    status: Arc<Status>,
    tee: Arc<Tee>,
    table: Arc<ArcSwap<CommandTable>>,
    stop: watch::Receiver<bool>,
    join: Join,
    recorder: Recorder,
    probes: Probes,
    position: Option<Position>,
    /// Why the present position cannot be continued; `None` = it can.
    break_reason: Option<String>,
    /// When and why following last ended.
    last_end: Option<(Micros, String)>,
    dropped: u64,
    /// Recorded data may not be on the disk: nothing is appended before the next base.
    unsound: bool,
    durability: Arc<DurabilityTracker>,
    clock: ClockWatch,
    complaints: Complaints,
    waiting: Complaints,
    /// A full copy was requested during this period of following.
    copied: bool,
    /// Following has ended because the disk was too slow.
    disk_was_slow: bool,
    bystander: Bystander,
}

/// Inputs of the capture.
pub struct CaptureInputs {
    /// The journal, and the result of its recovery.
    pub opened: (Journal, Recovered),
    /// A probe of the upstream taken before clients were accepted.
    pub first_probe: Probe,
    /// The upstream's `INFO`.
    pub facts: ServerFacts,
    /// Stamps from the sessions.
    pub tee: Arc<Tee>,
    /// The server's commands; updated here when the server changes.
    pub table: Arc<ArcSwap<CommandTable>>,
    /// Updated by the capture.
    pub metrics: Metrics,
    /// Updated with the capture's state.
    pub status: Arc<Status>,
    /// Updated with the durable position.
    pub durability: Arc<DurabilityTracker>,
    /// True ends the capture.
    pub stop: watch::Receiver<bool>,
}

/// Follows the server until a stop is requested, then flushes everything and seals the tail. Needs a
/// [`tokio::task::LocalSet`].
pub async fn run(config: CaptureConfig, inputs: CaptureInputs) {
    let CaptureInputs { opened, first_probe, facts, tee, table, metrics, status, durability, stop } = inputs;
    let mut join = Join::new(table.load_full(), config.has_tee);
    // Earlier effects were requested through an earlier process or past the proxy.
    join.unknown_until(first_probe.offset);
    let marks = AutomaticMarks::new(config.dir.clone(), config.marks.clone());
    let telemetry = (metrics.clone(), status.clone());
    let (recorder, position) =
        Recorder::start(opened, true, config.keyring.clone(), telemetry, durability.clone(), marks);
    if let Ok(catalog) = Catalog::open(&config.dir) {
        status.numbers.journal.gaps.set(catalog.gaps().len() as i64);
    }
    let probes = Probes::start(config.upstream.clone(), facts, table.clone(), metrics.clone(), status.clone());
    let bystander = Bystander::start(config.source.clone());
    let mut capture = Capture {
        config,
        metrics,
        status,
        tee,
        table,
        stop,
        join,
        recorder,
        probes,
        position,
        break_reason: None,
        last_end: None,
        dropped: 0,
        unsound: false,
        durability,
        clock: ClockWatch::start(),
        complaints: Complaints::default(),
        waiting: Complaints::default(),
        copied: false,
        disk_was_slow: false,
        bystander,
    };
    capture.go_on();
    capture.follow().await;
    capture.recorder.close();
}

impl Capture {
    /// The journal was opened: the join resumes at its end.
    fn go_on(&mut self) {
        if let Some(position) = &self.position {
            let (tail, complete) = (self.recorder.tail(), self.recorder.complete_until());
            self.join.stream_resumes(tail.ts, complete.min(Micros::now()), position.offset);
        }
    }

    async fn follow(&mut self) {
        let mut retry = Retry::new();
        loop {
            let started = std::time::Instant::now();
            self.copied = false;
            let ended = self.follow_once().await;
            let cost = ended.cost(self.copied);
            self.disk_was_slow |= matches!(ended, Ended::Slow);
            self.durability.following(false);
            if matches!(ended, Ended::Stopped) {
                return;
            }
            let pause = retry.pause(cost, started.elapsed());
            self.tell(&ended, cost);
            if self.last_end.is_none() {
                self.last_end = Some((Micros::now(), ended.to_string()));
            }
            if matches!(ended, Ended::ShutDown) && self.stopped_before_it_stays().await {
                return;
            }
            let (mut stop, status) = (self.stop.clone(), self.status.clone());
            let stopped = self.with_tee(async {
                tokio::select! {
                    _ = stop.wait_for(|on| *on) => true,
                    () = tokio::time::sleep(pause) => false,
                    () = status.server_back() => {
                        retry.server_is_back();
                        false
                    }
                }
            });
            if stopped.await {
                return;
            }
        }
    }

    /// Logs and counts why following has ended, and updates the status.
    fn tell(&mut self, ended: &Ended, cost: Cost) {
        let said = ended.to_string();
        let state = match ended {
            Ended::Journal(_) | Ended::Foreign { .. } => CaptureState::Failed,
            Ended::OtherServer(_) => CaptureState::Refused,
            _ => CaptureState::Connecting,
        };
        self.status.capture_because(state, said.clone());
        match ended {
            Ended::Journal(e) => self.durability.report_failure(&e.to_string()),
            // Nothing is recorded until an operator acts: writes pass or are refused, as for any other failure. Clients
            // get no addresses or identities of servers.
            Ended::OtherServer(_) => self.durability.report_failure("it is the journal of another server"),
            Ended::Foreign { .. } => {
                self.durability.report_failure("the server that is followed is not a replica of this one");
            }
            _ => {}
        }
        // The server may be away, loading, or the wrong one for a long time.
        let repeats = cost != Cost::Something || matches!(ended, Ended::OtherServer(_));
        if repeats && !self.complaints.is_news(&said, std::time::Instant::now()) {
            return;
        }
        match ended {
            Ended::Journal(e) => {
                self.metrics.error("journal");
                tracing::error!(error = %e, "the journal cannot be written: writes are NOT being recorded");
            }
            Ended::Slow => {
                self.metrics.error("journal_slow");
                tracing::error!(
                    "{said}; it has caught up, and the server is followed again from there if its backlog reaches back so far"
                );
            }
            Ended::Link(LinkError::Refused { .. }) => {
                self.metrics.error("tap_refused");
                tracing::error!(
                    error = said,
                    "the server does not let redtape follow it: grant +psync +replconf, or check the password"
                );
            }
            Ended::OtherServer(_) => {
                self.metrics.error("server_refused");
                tracing::error!("{said}");
            }
            Ended::Foreign { .. } => {
                self.metrics.error("foreign_history");
                tracing::error!("{said}");
            }
            Ended::ShutDown => {
                tracing::info!("{said}; redtape does not keep it waiting, and follows it again when it is back");
            }
            _ => {
                self.metrics.error("tap_link");
                tracing::warn!(error = said, "the replication link ended; following again");
            }
        }
    }

    /// A link that begins now would delay a server that waits to shut down; true = a stop was requested meanwhile.
    async fn stopped_before_it_stays(&mut self) -> bool {
        while self.bystander.shutdown_at().is_some() && !*self.stop.borrow() {
            self.with_tee(tokio::time::sleep(TEE_POLL)).await;
        }
        *self.stop.borrow()
    }

    async fn follow_once(&mut self) -> Ended {
        if let Some(why) = self.recorder.failed() {
            // After a failed sync the kernel may mark pages clean that never reached the disk, so nothing is appended
            // to what is there.
            self.unsound |= self.recorder.is_doubtful();
            if self.unsound && self.position.is_some() {
                self.break_reason = Some(format!("the journal could not be synced ({why})"));
            }
            match self.recorder.reopen(&self.config, !self.unsound) {
                Ok(position) => {
                    self.position = position;
                    self.go_on();
                    // These effects were explained when first read.
                    self.join.stamps_were_lost(Micros::now());
                }
                Err(e) => {
                    // A sync that failed once may succeed the next time without having written anything.
                    self.unsound |= e.leaves_doubt();
                    return Ended::Journal(e.into());
                }
            }
        }
        self.probes.set_pace(Pace::Late);
        if self.disk_was_slow {
            if let Err(e) = self.wait_for_slow_disk().await {
                return e;
            }
            self.disk_was_slow = false;
        }
        // The probe just before a copy bounds what it contains.
        let from = self.position.clone().filter(|_| self.break_reason.is_none());
        let (mut link, reply) = match self.open_link(from.as_ref()).await {
            Ok(opened) => opened,
            Err(e) => return e,
        };
        match (reply, from) {
            (PsyncReply::Continue { replid }, Some(position)) => {
                if let Some(new) = replid.filter(|new| *new != position.replid)
                    && let Err(e) = self.change_source(new)
                {
                    return e;
                }
                tracing::info!(
                    timeline = position.timeline.0,
                    offset = position.offset.0,
                    "the journal continues where it ended"
                );
            }
            (PsyncReply::FullResync { replid, offset }, from) => {
                let reason = self.reason_for(from.as_ref(), &replid);
                if let Err(e) = self.take_base(&mut link, replid, ReplOffset(offset), reason).await {
                    return e;
                }
                self.break_reason = None;
            }
            (reply, _) => return Ended::Base(format!("the server answered PSYNC with {reply:?}")),
        }
        self.stream(link).await
    }

    /// Opens the replication link to a server that may be recorded, and asks to continue behind `from`.
    async fn open_link(&mut self, from: Option<&Position>) -> Result<(Link, PsyncReply), Ended> {
        let (source, status) = (self.config.source.clone(), self.status.clone());
        let connecting = async { connect(&source, &status).await.map_err(Ended::from) };
        let link = self.or_stopped(Box::pin(connecting)).await?;
        let judged = self.identify().await?;
        if from.is_none() && self.waiting.is_news("", std::time::Instant::now()) {
            tracing::info!(
                "waiting for a full copy of the server's data; nothing is recorded until it begins \
                 (a server with repl-diskless-sync waits repl-diskless-sync-delay first, 5 s by default)"
            );
        }
        let asked = from.map(|p| (p.replid.as_str(), p.offset));
        let opening = async { link.open(&source, asked).await.map_err(Ended::from) };
        let (link, reply) = self.or_stopped(Box::pin(opening)).await?;
        let followed = match &reply {
            PsyncReply::FullResync { replid, .. } | PsyncReply::Continue { replid: Some(replid) } => replid,
            _ => from.map_or("", |p| &p.replid),
        };
        self.copied = matches!(reply, PsyncReply::FullResync { .. });
        self.confirm(judged, followed).await?;
        Ok((link, reply))
    }

    /// The server continues its history under another id, and the timeline continues with it. A transaction that
    /// contains `REPLICAOF` can have lost writes there without a trace (Redis 7.0), so a base is taken beside the
    /// stream.
    fn change_source(&mut self, replid: String) -> Result<(), Ended> {
        let Some(position) = &mut self.position else { return Ok(()) };
        tracing::warn!(
            before = position.replid,
            now = replid,
            "the server's replication id has changed (it restarted, or a failover or promotion): it continues its history, and \
             so does the journal, without a gap; a new base is taken in the background"
        );
        self.recorder.change_source(&replid)?;
        position.replid = replid;
        self.status.want_base();
        Ok(())
    }

    /// Runs something slow while the tee is drained. Ends early if a stop is requested or the server waits to shut
    /// down, since it would wait for a replica that lags behind.
    pub(super) async fn or_stopped<T>(&mut self, slow: impl Future<Output = Result<T, Ended>>) -> Result<T, Ended> {
        let (mut stop, shuts_down) = (self.stop.clone(), self.bystander.shuts_down());
        let slow = async {
            tokio::select! {
                result = slow => result,
                () = shuts_down => Err(Ended::ShutDown),
                _ = stop.wait_for(|on| *on) => Err(Ended::Stopped),
            }
        };
        self.with_tee(slow).await
    }

    fn reason_for(&mut self, from: Option<&Position>, replid: &str) -> String {
        if let Some(reason) = self.break_reason.clone() {
            return reason;
        }
        let mut reason = match from {
            Some(p) if p.replid == replid => {
                format!("the server's backlog no longer reached back to offset {}", p.offset)
            }
            Some(p) => {
                format!("the server has another history ({replid}) than the one that was followed ({})", p.replid)
            }
            None if self.recorder.last_timeline() > TimelineId(0) => "the journal was repaired".to_owned(),
            None => "first start".to_owned(),
        };
        if let Some((at, how)) = &self.last_end {
            reason = format!("{reason}; following had ended at {at}: {how}");
        }
        reason
    }

    /// Runs something slow while the tee is drained and probes are taken in.
    pub(crate) async fn with_tee<F: Future>(&mut self, slow: F) -> F::Output {
        tokio::pin!(slow);
        let mut tick = tokio::time::interval(TEE_POLL);
        loop {
            tokio::select! {
                done = &mut slow => return done,
                _ = tick.tick() => {
                    self.take_stamps();
                }
                probe = self.probes.next() => {
                    self.join.probe(probe);
                    if let Some(position) = &self.position {
                        self.status.numbers.capture.lag_bytes.set(probe.offset.0.saturating_sub(position.offset.0) as i64);
                    }
                }
            }
        }
    }

    /// Drains the tee. Every reply that a worker had read before the returned time was in it.
    pub(crate) fn take_stamps(&mut self) -> Micros {
        let told = self.tee.told_until(Micros::now());
        self.tee.drain(|message| self.join.tee(message));
        self.join.unstamped_until(self.tee.unstamped_until());
        let dropped = self.tee.dropped() + self.join.stamps().1;
        if dropped > self.dropped {
            self.status.numbers.capture.stamps_dropped.inc_by(dropped - self.dropped);
            self.dropped = dropped;
            self.join.stamps_were_lost(Micros::now());
        }
        told
    }

    pub(crate) fn next_timeline(&self) -> TimelineId {
        // A base whose timeline never began must not serve as the base of another.
        let snapshots =
            Catalog::open(&self.config.dir).map(|c| c.snapshots().iter().map(|s| s.manifest.timeline.0).max());
        TimelineId(snapshots.ok().flatten().unwrap_or(0).max(self.recorder.last_timeline().0).saturating_add(1))
    }
}

/// Connects to the followed server. An attempt that the network has swallowed is abandoned once the server is known to
/// be back.
async fn connect(source: &Connector, status: &Status) -> Result<Link, LinkError> {
    loop {
        let begun = tokio::time::Instant::now();
        let stale = async {
            status.server_back().await;
            tokio::time::sleep_until(begun + STALE_ATTEMPT).await;
        };
        tokio::select! {
            connected = Link::connect(source) => return connected,
            () = stale => {}
        }
    }
}
