//! The stream behind the base: effects to the join, attributed groups to the recorder, acknowledgements back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use redtape_journal::{Micros, OriginKind, ReplOffset, SyncPolicy};
use redtape_telemetry::CaptureState;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until};

use super::backlog::WriteRate;
use super::effects::{EffectParser, StreamEvent};
use super::pacing::ReadPacing;
use super::prober::Pace;
use super::reading::Reading;
use super::{Capture, Ended, JournalError, Link, LinkError};
use crate::join::Probe;
use crate::options::Position;
use crate::recorder::RecordError;

/// How often the durable offset is acknowledged.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// After a diskless copy the server starts the stream on an acknowledgement, but ignores it until its child process has
/// ended. So until something arrives, the acknowledgement is sent at this interval, up to this many times.
const ACK_AT_FIRST: (Duration, u32) = (Duration::from_millis(50), 20);
/// How often held groups are examined again.
const HELD_POLL: Duration = Duration::from_millis(1);
/// After a stop is requested, time limit for data already under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Groups attributed in one go, before probes, the clock and a stop get their turn.
const PUMP_MAX: usize = 1024;
/// Time limit of the same, checked after this many groups: with many stamps, a group may take long.
const PUMP_TIME: (Duration, usize) = (Duration::from_millis(5), 16);
/// If the server's offset has advanced and the link was silent for this long, the link is dead.
const SILENT_SECONDS: u32 = 10;

/// One period of following: the link, and the state kept between rounds of the loop.
struct Following {
    link: Link,
    parser: EffectParser,
    reading: Reading,
    pacing: ReadPacing,
    rate: WriteRate,
    /// A client waits in `WAIT` until the journal is durable up to here.
    ack_at: Option<ReplOffset>,
    /// See [`ACK_AT_FIRST`].
    first_acks: Interval,
    first_acks_left: u32,
    /// See [`ACK_EVERY`].
    second: Interval,
    /// Seconds since the link was last read.
    silent_seconds: u32,
    /// Signals that the journal's writer has advanced.
    progress: Arc<Notify>,
    stop: watch::Receiver<bool>,
    stopping: Option<Stopping>,
}

impl Following {
    /// Reads everything available after a read of `received` bytes; `looked`: a time before that. Returns the total
    /// number of bytes.
    async fn read_all(
        &mut self,
        received: Option<Result<usize, LinkError>>,
        looked: Micros,
    ) -> Option<Result<usize, LinkError>> {
        let mut received = match received {
            Some(received) => Some(received),
            None => self.link.receive_now().await,
        };
        let fresh = received.is_some() && self.parser.is_at_boundary();
        let mut emptied = true;
        if let Some(Ok(n)) = &mut received {
            let (more, all) = self.link.receive_rest(*n).await;
            (*n, emptied) = (*n + more, all);
        }
        self.reading.read(looked, emptied, fresh);
        received
    }

    /// Closes the link and keeps the parser, which knows the stream's position.
    fn close(self) -> EffectParser {
        self.parser
    }
}

/// A stop was requested: data under way is still taken in.
struct Stopping {
    since: Micros,
    deadline: Instant,
}

impl Stopping {
    fn begin() -> Self {
        Self { since: Micros::now(), deadline: Instant::now() + STOP_TIMEOUT }
    }

    /// `complete_until`: every effect up to then is in the journal.
    fn is_done(&self, complete_until: Option<Micros>) -> bool {
        complete_until >= Some(self.since) || Instant::now() >= self.deadline
    }
}

/// What ended a wait.
enum Woken {
    /// The link was read, or has ended.
    Received(Result<usize, LinkError>),
    Probe(Probe),
    /// The journal's writer has advanced.
    Progress,
    /// See [`ACK_AT_FIRST`].
    FirstAck,
    /// A second has passed.
    Second,
    /// A stop was requested.
    Stop,
    /// A stop was requested, and data under way has not arrived.
    StillStopping,
    /// Only the work of each round.
    Nothing,
}

/// Result of [`Capture::pump`].
struct Pumped {
    /// There are more groups.
    more: bool,
    /// Some writes did not come through the proxy.
    outsiders: bool,
}

impl Capture {
    /// Follows the stream until it ends.
    pub(super) async fn stream(&mut self, link: Link) -> Ended {
        let Some(position) = self.position.clone() else { return Ended::Base("there is no base".to_owned()) };
        let mut following = self.following(link, EffectParser::new(position.offset, position.db));
        let Err(ended) = self.follow_stream(&mut following).await;
        // A server buffers everything that its replica does not read, so the link is closed.
        let parser = following.close();
        self.durability.following(false);
        // The status shows "streaming" again only after the next successful start.
        self.status.capture_because(CaptureState::Connecting, ended.to_string());
        if matches!(ended, Ended::Slow) {
            self.durability.report_failure(&ended.to_string());
            tracing::error!("{ended}; the server is not followed until it has caught up");
        }
        // What was read goes to the journal first.
        let flushed = self.flush_all(&parser).await;
        let (offset, db) = parser.position();
        self.position = Some(Position { offset, db, ..position });
        if let Ended::Stream(e) = &ended {
            // Requesting the same offset again would fail in the same way.
            self.break_reason = Some(e.to_string());
        }
        flushed.err().unwrap_or(ended)
    }

    fn following(&self, link: Link, parser: EffectParser) -> Following {
        let now = Instant::now();
        // Without stamps, the arrival time is the only evidence of an effect's time.
        let always_prompt = self.config.sync == SyncPolicy::Always || !self.config.has_tee;
        let ticks = |first, every| {
            let mut ticks = interval_at(first, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        Following {
            link,
            parser,
            reading: Reading::default(),
            pacing: ReadPacing::new(always_prompt, self.durability.is_awaited(), now),
            rate: WriteRate::default(),
            ack_at: None,
            first_acks: ticks(now + ACK_AT_FIRST.0, ACK_AT_FIRST.0),
            first_acks_left: ACK_AT_FIRST.1,
            second: ticks(now, ACK_EVERY),
            silent_seconds: 0,
            progress: self.recorder.progress(),
            stop: self.stop.clone(),
            stopping: None,
        }
    }

    /// Writes everything that was read to the journal, however slow the disk is, unless a stop is requested meanwhile.
    async fn flush_all(&mut self, parser: &EffectParser) -> Result<(), Ended> {
        let late = Micros(i64::MAX);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                drained = self.recorder.drained() => drained?,
                // The writer may never return from the disk; what it holds is synced, or cut at the next start.
                () = stalled_at_stop(&mut stop) => {
                    return Err(Ended::Journal(JournalError::StalledAtStop));
                }
            }
            if self.break_reason.is_some() {
                // Nothing may follow a missing group.
                return self.recorder.flush(None).map_err(Ended::from);
            }
            match self.pump(parser, late, 0.0) {
                Ok(Pumped { more: true, .. }) | Err(Ended::Slow) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    async fn follow_stream(&mut self, on: &mut Following) -> Result<Infallible, Ended> {
        self.begin_streaming(&mut on.link).await?;
        loop {
            let more = self.attribute(on)?;
            self.acknowledge_awaited(on).await?;
            if on.stopping.as_ref().is_some_and(|stopping| stopping.is_done(self.join.complete_until())) {
                self.beat(&on.parser)?;
                return Err(Ended::Stopped);
            }
            if let Some(rest) = on.pacing.sleep(Instant::now()).filter(|_| !more && on.stopping.is_none()) {
                // Only the probes share this thread; they may become less exact by this much.
                std::thread::sleep(rest);
            }
            let looked = Micros::now();
            let mut received = match self.wait(on, more).await {
                Woken::Received(received) => Some(received),
                woken => {
                    self.answer(woken, on).await?;
                    None
                }
            };
            // Held groups age only as the link is read, whatever woke the loop.
            if !more && Instant::now() >= on.pacing.rest_until() {
                received = on.read_all(received, looked).await;
            }
            if let Some(n) = received.transpose()? {
                on.silent_seconds = 0;
                on.first_acks_left = 0;
                self.metrics.capture.received_bytes.inc_by(n as u64);
                on.pacing.took(n, Instant::now());
            }
        }
    }

    async fn begin_streaming(&mut self, link: &mut Link) -> Result<(), Ended> {
        self.status.capture(CaptureState::Streaming);
        self.complaints.over();
        self.waiting.over();
        self.last_end = None;
        if self.durability.has_failed() {
            self.recorder.try_disk()?;
        }
        self.durability.following(true);
        self.probes.set_pace(Pace::Late);
        Ok(self.acknowledge(link).await?)
    }

    /// Passes what was read through the join; attributed groups go to the journal. True = there are more groups.
    fn attribute(&mut self, on: &mut Following) -> Result<bool, Ended> {
        self.take_in(on)?;
        if self.bystander.shutdown_at().is_some_and(|at| on.parser.position().0 >= at) {
            return Err(Ended::ShutDown);
        }
        let told = self.take_stamps();
        self.join.workers_told(told);
        let awaited = on.ack_at.is_some() || on.stopping.is_some();
        let incoming = if awaited { 0.0 } else { on.pacing.gathered_rate(Instant::now()) };
        let Pumped { more, outsiders } = self.pump(&on.parser, on.reading.upto(told), incoming)?;
        if outsiders {
            // With writes past the proxy, arrival times show which client cannot have been the cause.
            on.pacing.be_prompt(Instant::now());
        }
        Ok(more)
    }

    /// A client waits in `WAIT`: the journal syncs at once, and the acknowledgement follows immediately.
    async fn acknowledge_awaited(&mut self, on: &mut Following) -> Result<(), Ended> {
        let Some(at) = on.ack_at else { return Ok(()) };
        self.recorder.sync_now();
        on.pacing.be_prompt(Instant::now());
        if self.recorder.durable_offset() >= at {
            on.ack_at = None;
            self.acknowledge(&mut on.link).await?;
        }
        Ok(())
    }

    /// Waits until there is something to do. `more`: there is already, but probes, the clock and the sockets get their
    /// turn.
    async fn wait(&mut self, on: &mut Following, more: bool) -> Woken {
        let gathered = self.recorder.gather_until().map(Instant::from_std);
        // The runtime polls the link meanwhile.
        tokio::task::yield_now().await;
        let (rest_until, held, stopping) = (on.pacing.rest_until(), self.join.held() > 0, on.stopping.is_some());
        let link = &mut on.link;
        tokio::select! {
            received = async { sleep_until(rest_until).await; link.receive().await }, if !more => Woken::Received(received),
            probe = self.probes.next() => Woken::Probe(probe),
            () = std::future::ready(()), if more => Woken::Nothing,
            () = on.progress.notified() => Woken::Progress,
            _ = on.first_acks.tick(), if on.first_acks_left > 0 => Woken::FirstAck,
            () = self.bystander.changed() => Woken::Nothing,
            // It may contain the reply for which a group waits.
            () = self.tee.filled(), if self.durability.is_awaited() && held => Woken::Nothing,
            () = self.tee.many() => Woken::Nothing,
            () = sleep(HELD_POLL), if held => Woken::Nothing,
            () = sleep_until(gathered.unwrap_or(rest_until)), if gathered.is_some() => Woken::Nothing,
            _ = on.second.tick() => Woken::Second,
            _ = on.stop.wait_for(|on| *on), if !stopping => Woken::Stop,
            () = sleep(HELD_POLL), if stopping => Woken::StillStopping,
        }
    }

    /// Does the due work.
    async fn answer(&mut self, woken: Woken, on: &mut Following) -> Result<(), Ended> {
        match woken {
            Woken::Received(_) | Woken::Nothing => {}
            Woken::Probe(probe) => {
                self.join.probe(probe);
                self.look();
                self.watch_clock();
            }
            Woken::Progress => self.recorder.export(),
            Woken::FirstAck => {
                on.first_acks_left -= 1;
                self.acknowledge(&mut on.link).await?;
            }
            Woken::Second => self.each_second(on).await?,
            Woken::Stop => {
                on.stopping = Some(Stopping::begin());
                self.probes.at_once();
            }
            Woken::StillStopping => self.probes.at_once(),
        }
        Ok(())
    }

    async fn each_second(&mut self, on: &mut Following) -> Result<(), Ended> {
        if let Some(e) = self.recorder.failed() {
            return Err(e.into());
        }
        on.silent_seconds += 1;
        if on.silent_seconds > SILENT_SECONDS && self.join.newest_probe().offset > on.parser.position().0 {
            return Err(Ended::Silent);
        }
        let beaten = self.beat(&on.parser);
        self.recorder.export();
        self.judge_backlog(&mut on.rate);
        beaten?;
        Ok(self.acknowledge(&mut on.link).await?)
    }

    /// Acknowledges the durable offset. Commands that are no effects (`PING`, `GETACK`) count with the effect before
    /// them.
    async fn acknowledge(&self, link: &mut Link) -> Result<(), LinkError> {
        let (mut offset, durable) = (self.recorder.durable_offset(), self.durability.position());
        if self.position.as_ref().is_some_and(|position| *position.replid == *durable.replid) {
            offset = offset.max(durable.offset);
        }
        link.ack(self.bystander.acknowledges(offset)).await
    }

    /// Parses everything received into groups for the join.
    fn take_in(&mut self, on: &mut Following) -> Result<(), Ended> {
        let now = Micros::now();
        while let Some(event) = on.parser.next(&mut on.link.buf, now)? {
            match event {
                StreamEvent::Group(group) => self.join.effect(group, on.reading.quiet),
                StreamEvent::GetAck => {
                    // A client waits in WAIT: everything before this must be on the disk.
                    let (offset, _) = on.parser.position();
                    on.ack_at = Some(self.join.end_of_last_group().map_or(ReplOffset(0), |end| end.min(offset)));
                }
            }
        }
        Ok(())
    }

    /// Moves attributed groups to the journal. Everything readable from the link and the tee at `upto` was taken in.
    /// `rate`: bytes per second of the stream, if no client waits for them.
    fn pump(&mut self, parser: &EffectParser, upto: Micros, rate: f64) -> Result<Pumped, Ended> {
        let until = Instant::now() + PUMP_TIME.0;
        let table = self.table.load_full();
        let mut more = true;
        let mut kinds = [0; ORIGIN_LABELS.len()];
        for n in 1..=PUMP_MAX {
            let Some(attributed) = self.join.next(upto) else {
                more = false;
                break;
            };
            kinds[attributed.origin.kind as usize] += 1;
            match self.recorder.push(&attributed, &table) {
                Ok(false) => {}
                Ok(true) => self.recorder.flush(None)?,
                Err(e) => {
                    // The group is not in the journal, so nothing behind it may be.
                    self.break_reason = Some(e.to_string());
                    return Err(e.into());
                }
            }
            if n % PUMP_TIME.1 == 0 && Instant::now() >= until {
                break;
            }
        }
        self.join.reached(parser.position().0);
        for (label, n) in ORIGIN_LABELS.into_iter().zip(kinds).filter(|(_, n)| *n > 0) {
            self.metrics.capture.groups.with_label_values(&[label]).inc_by(n);
        }
        self.recorder.gather(self.join.complete_until(), rate)?;
        if self.join.held() == 0 {
            self.recorder.reached(parser.position().0);
        }
        if self.join.wants_probe() {
            self.probes.at_once();
        } else if self.join.has_doubts(upto) {
            self.probes.set_pace(Pace::Doubtful);
        }
        Ok(Pumped { more, outsiders: kinds[OriginKind::Outside as usize] > 0 })
    }

    /// Called once a second: the window's end advances even without writes.
    fn beat(&mut self, parser: &EffectParser) -> Result<(), RecordError> {
        let (offset, db) = parser.position();
        if self.join.held() == 0
            && let Some(until) = self.join.complete_until()
        {
            self.recorder.heartbeat(until, offset, db)?;
        }
        Ok(())
    }

    /// After a probe: updates the lag and decides how often to probe.
    fn look(&mut self) {
        let probe = self.join.newest_probe();
        let lag = probe.offset.0.saturating_sub(self.join.processed().0);
        let numbers = &self.status.numbers.capture;
        numbers.lag_bytes.set(lag as i64);
        numbers.offset.set(self.join.processed().0 as i64);
        let complete = self.join.complete_until().unwrap_or_default();
        numbers.stamps_waiting.set(self.join.stamps().0 as i64);
        let behind_micros = probe.received.0 - complete.0;
        self.probes.set_pace(if lag > 0 && behind_micros > 100_000 {
            Pace::Late
        } else if self.join.has_doubts(probe.received) {
            Pace::Doubtful
        } else if lag > 0 || self.join.stamps().0 > 0 {
            Pace::Busy
        } else {
            Pace::Idle
        });
    }
}

/// Resolves some time after a stop was requested.
async fn stalled_at_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|on| *on).await;
    sleep(STOP_TIMEOUT).await;
}

/// The kinds of origin in numeric order, as metrics name them.
const ORIGIN_LABELS: [&str; 5] = ["client", "expiry", "eviction", "outside", "unknown"];
