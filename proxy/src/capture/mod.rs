//! Capture: follows the server and brings every effect to the journal.
//!
//! ```text
//! link ─► parser ─► join ─► block builder ─► writer's queue ─► segments
//!   ▲        ▲        ▲                          │
//!   │      offset   tee, probes                  ▼
//!   └── REPLCONF ACK <durable offset> ◄── watermarks
//! ```
//!
//! One thread owns all of it but the writer. What a crash leaves at each step:
//! - while a base is taken: an unfinished file, set aside at the next start; the old timeline stands;
//! - after a base, before its timeline begins: a base that nothing refers to; a new one is taken;
//! - in the stream: the journal up to the last whole block; the next start resumes at its offset,
//!   so that nothing is missing or doubled while the server's backlog reaches that far.
//!
//! Invariants: the server is only ever told offsets whose effects are synced; a timeline begins
//! with a base that is on the disk; within a timeline the stream has no holes.

mod base;
mod bystander;
mod clock;
#[cfg(test)]
mod cost;
pub(crate) mod effects;
mod gulps;
mod keys;
mod link;
mod probe;
mod prober;
mod recorder;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redtape_journal::{
    Catalog, Journal, Lsn, Micros, OpenError, OpenOptions, Recovered, ReplOffset, SyncPolicy, TimelineId,
};
use redtape_wire::command::CommandTable;
use redtape_wire::psync::PsyncReply;
use tokio::sync::watch;

pub(crate) use self::base::{CopyInProgress, manifest, receive};
use self::bystander::Bystander;
use self::clock::ClockWatch;
pub(crate) use self::link::{Link, LinkError};
pub(crate) use self::probe::Prober;
pub(crate) use self::probe::{ServerFacts, info_field};
use self::prober::{Pace, Probes};
use self::recorder::{RecordError, Recorder};
use crate::connect::Connector;
use crate::durable::Durable;
use crate::join::{Join, Probe};
use crate::metrics::Metrics;
use crate::reload::Live;
use crate::tee::Tee;

/// Pause between attempts to follow the server: doubled from the first up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the tee is emptied while nothing else happens.
pub(crate) const TEE_POLL: Duration = Duration::from_millis(10);

/// What capture needs to know.
#[derive(Debug, Clone)]
pub(crate) struct CaptureConfig {
    /// The server to follow: the upstream, or one of its replicas.
    pub source: Connector,
    /// The server whose offset tells how far we are: the upstream.
    pub upstream: Connector,
    /// The journal's directory.
    pub dir: PathBuf,
    /// When the journal is synced.
    pub sync: SyncPolicy,
    /// Size at which a segment is sealed.
    pub segment_bytes: u64,
    /// Sessions leave stamps.
    pub has_tee: bool,
    /// Where the keys are.
    pub live: Arc<ArcSwap<Live>>,
}

/// Where the journal stands in the server's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) timeline: TimelineId,
    pub(crate) replid: String,
    pub(crate) offset: ReplOffset,
    pub(crate) db: u32,
}

/// Why a stretch of following ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("asked to stop")]
    Stopped,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the server shuts down, and all that it has written was read")]
    ShutDown,
    #[error("the server has more to say, but the link has been silent for too long")]
    Silent,
    #[error("{0}")]
    Stream(#[from] effects::StreamError),
    #[error("the upstream can't be asked for its history: {0}")]
    Upstream(String),
    #[error(
        "{followed} is not a replica of {upstream}, writes are NOT being recorded: \
         make it one again (REPLICAOF), or start without --follow"
    )]
    Foreign { followed: String, upstream: String },
    #[error("the base copy: {0}")]
    Base(String),
    #[error("the journal: {0}")]
    Journal(String),
    #[error("the journal: {}", RecordError::Slow)]
    Slow,
}

impl From<RecordError> for Ended {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Failed(why) => Self::Journal(why),
            RecordError::Slow => Self::Slow,
        }
    }
}

/// Opens the journal as capture wants it.
pub(crate) fn open_journal(config: &CaptureConfig) -> Result<(Journal, Recovered), OpenError> {
    Journal::create_or_open(
        &config.dir,
        OpenOptions {
            segment_bytes: config.segment_bytes,
            sync: config.sync,
            keyring: config.live.load().keyring.clone(),
            source: config.upstream.url.to_string(),
            ..OpenOptions::default()
        },
    )
}

/// The capture, for one thread.
pub(crate) struct Capture {
    config: CaptureConfig,
    metrics: Metrics,
    tee: Arc<Tee>,
    table: Arc<ArcSwap<CommandTable>>,
    stop: watch::Receiver<bool>,
    join: Join,
    recorder: Recorder,
    probes: Probes,
    position: Option<Position>,
    /// Why the present position can't be continued, if so.
    break_reason: Option<String>,
    /// How following ended last, and when.
    last_end: Option<(Micros, String)>,
    dropped: u64,
    /// What stands in the journal may be on no disk: until the next base, nothing is built on it.
    unsound: bool,
    durable: Arc<Durable>,
    clock: ClockWatch,
    bystander: Bystander,
}

/// Follows the server until asked to stop; then everything is flushed and the tail is sealed.
#[allow(clippy::too_many_arguments)] // Each has one owner and one use; a struct would only rename them.
pub(crate) async fn run(
    config: CaptureConfig,
    opened: (Journal, Recovered),
    first_probe: Probe,
    facts: ServerFacts,
    tee: Arc<Tee>,
    table: Arc<ArcSwap<CommandTable>>,
    metrics: Metrics,
    durable: Arc<Durable>,
    stop: watch::Receiver<bool>,
) {
    let mut join = Join::new(table.load_full(), config.has_tee);
    // What ran before this process is here was asked for through an earlier one, or past it.
    join.unknown_until(first_probe.offset);
    let (recorder, position) = Recorder::start(opened, true, config.live.clone(), metrics.clone(), durable.clone());
    if let Ok(catalog) = Catalog::open(&config.dir) {
        metrics.gaps.set(catalog.gaps().len() as i64);
    }
    let probes = Probes::start(config.upstream.clone(), facts, table.clone(), metrics.clone());
    let bystander = Bystander::start(config.source.clone());
    let mut capture = Capture {
        config,
        metrics,
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
        durable,
        clock: ClockWatch::start(),
        bystander,
    };
    capture.go_on();
    capture.follow().await;
    capture.recorder.close();
}

impl Capture {
    /// The journal was opened: the join takes up where it ends.
    fn go_on(&mut self) {
        if let Some(position) = &self.position {
            let (tail, complete) = (self.recorder.tail(), self.recorder.complete_until());
            self.join.stream_resumes(tail.ts, complete.min(Micros::now()), position.offset);
        }
    }

    async fn follow(&mut self) {
        let mut pause = BACKOFF.0;
        loop {
            let started = std::time::Instant::now();
            let ended = self.follow_once().await;
            self.durable.following(false);
            // Nobody shall see it as streaming until it is again.
            self.metrics.state("connecting");
            if self.last_end.is_none() {
                self.last_end = Some((Micros::now(), ended.to_string()));
            }
            match ended {
                Ended::Stopped => return,
                ended @ Ended::ShutDown => {
                    tracing::info!("{ended}; redtape does not keep it waiting, and follows it again when it is back");
                    if self.stopped_before_it_stays().await {
                        return;
                    }
                }
                Ended::Journal(e) => {
                    self.durable.trouble(&e);
                    self.metrics.error("journal");
                    self.metrics.state("failed");
                    tracing::error!(error = e, "the journal can't be written: writes are NOT being recorded");
                }
                Ended::Slow => {
                    self.metrics.error("journal_slow");
                    tracing::error!(
                        "{}; it has caught up, and the server is followed again from there if its backlog reaches back so far",
                        Ended::Slow
                    );
                }
                Ended::Link(e @ LinkError::Refused { .. }) => {
                    self.metrics.error("tap_refused");
                    tracing::error!(error = %e, "the server does not let redtape follow it: grant +psync +replconf, or check the password");
                }
                ended @ Ended::Foreign { .. } => {
                    self.metrics.error("foreign_history");
                    self.metrics.state("failed");
                    tracing::error!("{ended}");
                }
                ended => {
                    self.metrics.error("tap_link");
                    tracing::warn!(error = %ended, "the replication link ended; following again");
                }
            }
            if started.elapsed() > BACKOFF.1 {
                pause = BACKOFF.0;
            }
            let mut stop = self.stop.clone();
            let stopped = self.with_tee(async {
                tokio::select! {
                    _ = stop.wait_for(|on| *on) => true,
                    () = tokio::time::sleep(pause) => false,
                }
            });
            if stopped.await {
                return;
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// A server that waits to shut down would wait for a link that begins now; true = a stop was asked for meanwhile.
    async fn stopped_before_it_stays(&mut self) -> bool {
        while self.bystander.shutdown_at().is_some() && !*self.stop.borrow() {
            self.with_tee(tokio::time::sleep(TEE_POLL)).await;
        }
        *self.stop.borrow()
    }

    async fn follow_once(&mut self) -> Ended {
        if let Some(why) = self.recorder.failed() {
            // After a failed sync the kernel may call pages clean that never reached the disk: what is
            // there is not built upon.
            self.unsound |= self.recorder.is_doubtful();
            if self.unsound && self.position.is_some() {
                self.break_reason = Some(format!("the journal could not be synced ({why})"));
            }
            match self.recorder.reopen(&self.config, !self.unsound) {
                Ok(position) => {
                    self.position = position;
                    self.go_on();
                    // What is read again was explained before.
                    self.join.stamps_were_lost(Micros::now());
                }
                Err(e) => {
                    // A sync that failed once may succeed the next time without having done anything.
                    self.unsound |= e.contains("sync");
                    return Ended::Journal(e);
                }
            }
        }
        self.metrics.state("connecting");
        // The probe just before a copy bounds what is in it.
        self.probes.set_pace(Pace::Late);
        let from = self.position.clone().filter(|_| self.break_reason.is_none());
        let source = self.config.source.clone();
        let asked = from.clone();
        let mut stop = self.stop.clone();
        if from.is_none() {
            tracing::info!(
                "waiting for a full copy of the server's data; nothing is recorded until it begins \
                 (a server with repl-diskless-sync waits repl-diskless-sync-delay first, 5 s by default)"
            );
        }
        let opened = self
            .with_tee(async move {
                tokio::select! {
                    r = Link::open(&source, asked.as_ref().map(|p| (p.replid.as_str(), p.offset))) => Some(r),
                    _ = stop.wait_for(|on| *on) => None,
                }
            })
            .await;
        let (mut link, reply) = match opened {
            None => return Ended::Stopped,
            Some(Ok(opened)) => opened,
            Some(Err(e)) => return e.into(),
        };
        if let Err(e) = self.same_history(&reply, from.as_ref()).await {
            return e;
        }
        match (reply, from) {
            (PsyncReply::Continue { replid }, Some(position)) => {
                if let Some(new) = replid.filter(|new| *new != position.replid) {
                    // A MULTI that contained REPLICAOF can have lost writes here without a trace.
                    self.break_reason = Some(format!(
                        "the server's replication id changed from {} to {new} (failover, or it was made a primary again)",
                        position.replid
                    ));
                    return Ended::Base("the history changed hands; a new base is needed".to_owned());
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

    /// With `--follow`: the server that is followed must have the upstream's history, or the journal
    /// would show another server's data as the upstream's.
    async fn same_history(&mut self, reply: &PsyncReply, from: Option<&Position>) -> Result<(), Ended> {
        if self.config.source.url == self.config.upstream.url {
            return Ok(());
        }
        let followed = match reply {
            PsyncReply::FullResync { replid, .. } | PsyncReply::Continue { replid: Some(replid) } => replid.clone(),
            _ => from.map(|p| p.replid.clone()).unwrap_or_default(),
        };
        let upstream = self.config.upstream.clone();
        let facts = self.with_tee(async move { Prober::connect(&upstream).await?.facts().await }).await;
        let upstream = facts.map_err(|e| Ended::Upstream(e.to_string()))?.replid;
        if upstream == followed {
            return Ok(());
        }
        Err(Ended::Foreign { followed: self.config.source.address(), upstream: self.config.upstream.address() })
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

    /// Runs something slow while the tee is emptied and probes are taken in.
    pub(crate) async fn with_tee<F: Future>(&mut self, slow: F) -> F::Output {
        tokio::pin!(slow);
        let mut tick = tokio::time::interval(TEE_POLL);
        loop {
            tokio::select! {
                done = &mut slow => return done,
                _ = tick.tick() => self.take_stamps(),
                probe = self.probes.next() => {
                    self.join.probe(probe);
                    if let Some(position) = &self.position {
                        self.metrics.tap_lag_bytes.set(probe.offset.0.saturating_sub(position.offset.0) as i64);
                    }
                }
            }
        }
    }

    /// Empties the tee.
    pub(crate) fn take_stamps(&mut self) {
        self.tee.drain(|message| self.join.tee(message));
        let dropped = self.tee.dropped() + self.join.stamps().1;
        if dropped > self.dropped {
            self.metrics.stamps_dropped.inc_by(dropped - self.dropped);
            self.dropped = dropped;
            self.join.stamps_were_lost(Micros::now());
        }
    }

    pub(crate) fn next_timeline(&self) -> TimelineId {
        // A base whose timeline never began must not be taken for the base of another.
        let snapshots =
            Catalog::open(&self.config.dir).map(|c| c.snapshots().iter().map(|s| s.manifest.timeline.0).max());
        TimelineId(snapshots.ok().flatten().unwrap_or(0).max(self.recorder.last_timeline().0).saturating_add(1))
    }
}

/// What the journal holds at its end, for messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) lsn: Lsn,
    pub(crate) ts: Micros,
    pub(crate) timeline: TimelineId,
}
