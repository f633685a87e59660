//! The stream behind the base: effects to the join, judged groups to the recorder, ACKs back.

use std::time::Duration;

use redtape_journal::{Micros, ReplOffset};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::effects::{EffectParser, StreamEvent};
use super::prober::Pace;
use super::{Capture, Ended, Link, Position};
use crate::join::HOLD;

/// The server is told the durable offset this often.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// Pause between reads while the stream runs, so that one read takes what many writes left:
/// a tap that wakes for each write costs the server and us a system call each.
const GULP_PAUSE: Duration = Duration::from_millis(1);
/// How often held groups are looked at again.
const HELD_POLL: Duration = Duration::from_millis(1);
/// After a stop is asked for, what is under way gets so long to arrive.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Groups that are judged at a stretch.
const PUMP_MAX: usize = 8192;
/// The server has produced something and the link has been silent for so long: it is dead.
const SILENT_SECONDS: u32 = 10;
/// An outage that the backlog covers for less than this many seconds is worth a warning.
const BACKLOG_SHORT_SECONDS: f64 = 60.0;
/// The write rate is judged after so many seconds.
const RATE_AFTER: u32 = 5;

impl Capture {
    /// Follows the stream until it ends.
    pub(super) async fn stream(&mut self, link: &mut Link) -> Ended {
        let Some(position) = self.position.clone() else { return Ended::Base("there is no base".to_owned()) };
        let mut parser = EffectParser::new(position.offset, position.db);
        let ended = self.stream_with(link, &mut parser).await;
        // What was read goes to the journal before anything else happens.
        let late = Micros(Micros::now().0 + HOLD);
        let mut flushed = Ok(true);
        while let Ok(true) = flushed {
            flushed = self.pump(&parser, late).await;
        }
        let (offset, db) = parser.position();
        self.position = Some(Position { offset, db, ..position });
        if let Ended::Stream(e) = &ended {
            // Asking for the same offset again would give the same.
            self.break_reason = Some(e.to_string());
        }
        match flushed {
            Err(e) => Ended::Journal(e),
            Ok(_) => ended,
        }
    }

    async fn stream_with(&mut self, link: &mut Link, parser: &mut EffectParser) -> Ended {
        self.metrics.state("streaming");
        self.last_end = None;
        self.probes.set_pace(Pace::Late);
        // A server that sent the copy without its disk waits for this before it sends the stream.
        if let Err(e) = link.ack(self.recorder.durable_offset()).await {
            return e.into();
        }
        let progress = self.recorder.progress();
        let mut second = interval(ACK_EVERY);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.stop.clone();
        let mut stopping: Option<(Micros, Instant)> = None;
        let mut rest_until = Instant::now();
        let mut ack_at: Option<ReplOffset> = None;
        let mut rate = Rate::default();
        let mut silent_seconds = 0;
        loop {
            if let Err(e) = self.take_in(link, parser, &mut ack_at) {
                return e;
            }
            self.take_stamps();
            let more = match self.pump(parser, Micros::now()).await {
                Ok(more) => more,
                Err(e) => return Ended::Journal(e),
            };
            if ack_at.is_some() {
                self.recorder.sync_now();
            }
            if ack_at.is_some_and(|at| self.recorder.durable_offset() >= at) {
                ack_at = None;
                if let Err(e) = link.ack(self.recorder.durable_offset()).await {
                    return e.into();
                }
            }
            if let Some((since, deadline)) = stopping
                && (self.join.complete_until() >= Some(since) || Instant::now() >= deadline)
            {
                return match self.beat(parser).await {
                    Ok(()) => Ended::Stopped,
                    Err(e) => Ended::Journal(e),
                };
            }
            tokio::select! {
                r = async { sleep_until(rest_until).await; link.receive().await } => match r {
                    Ok(n) => {
                        silent_seconds = 0;
                        self.metrics.tap_received_bytes.inc_by(n as u64);
                        rest_until = Instant::now() + GULP_PAUSE;
                    }
                    Err(e) => return e.into(),
                },
                probe = self.probes.next() => {
                    self.join.probe(probe);
                    self.look();
                }
                () = std::future::ready(()), if more => {}
                () = progress.notified() => self.recorder.export(),
                () = sleep(HELD_POLL), if self.join.held() > 0 => {}
                _ = second.tick() => {
                    if let Some(e) = self.recorder.failed() {
                        return Ended::Journal(e);
                    }
                    silent_seconds += 1;
                    if silent_seconds > SILENT_SECONDS && self.join.newest_probe().offset > parser.position().0 {
                        return Ended::Silent;
                    }
                    let beaten = self.beat(parser).await;
                    self.recorder.export();
                    self.judge_backlog(&mut rate);
                    if let Err(e) = beaten {
                        return Ended::Journal(e);
                    }
                    if let Err(e) = link.ack(self.recorder.durable_offset()).await {
                        return e.into();
                    }
                }
                _ = stop.wait_for(|on| *on), if stopping.is_none() => {
                    stopping = Some((Micros::now(), Instant::now() + STOP_TIMEOUT));
                    self.probes.at_once();
                }
                () = sleep(HELD_POLL), if stopping.is_some() => self.probes.at_once(),
            }
        }
    }

    /// Everything that was received becomes groups in the join.
    fn take_in(
        &mut self,
        link: &mut Link,
        parser: &mut EffectParser,
        ack_at: &mut Option<ReplOffset>,
    ) -> Result<(), Ended> {
        let now = Micros::now();
        while let Some(event) = parser.next(&mut link.buf, now)? {
            match event {
                StreamEvent::Group(group) => self.join.effect(group),
                StreamEvent::GetAck => {
                    // A client waits in WAIT: what came before this must be on the disk.
                    let (offset, _) = parser.position();
                    *ack_at = Some(self.join.end_of_last_group().map_or(ReplOffset(0), |end| end.min(offset)));
                }
            }
        }
        Ok(())
    }

    /// Lets judged groups go to the journal.
    /// True = there are more; the link, the clock and a stop are looked at in between.
    async fn pump(&mut self, parser: &EffectParser, now: Micros) -> Result<bool, String> {
        let mut any = false;
        let mut left = PUMP_MAX;
        while left > 0
            && let Some(judged) = self.join.next(now)
        {
            left -= 1;
            let kind = origin_label(judged.origin.kind);
            self.metrics.groups.with_label_values(&[kind]).inc();
            any = true;
            match self.recorder.push(&judged) {
                Ok(false) => {}
                Ok(true) => self.recorder.flush(None).await?,
                Err(e) => {
                    // The group is not in the journal, so neither may anything behind it be.
                    self.break_reason = Some(e.clone());
                    return Err(e);
                }
            }
        }
        self.join.reached(parser.position().0);
        if any {
            self.recorder.flush(self.join.complete_until()).await?;
        }
        if self.join.wants_probe() {
            self.probes.at_once();
        }
        Ok(left == 0)
    }

    /// Once a second: the window's end moves on though nothing happens.
    async fn beat(&mut self, parser: &EffectParser) -> Result<(), String> {
        let (offset, db) = parser.position();
        if self.join.held() == 0
            && let Some(until) = self.join.complete_until()
        {
            self.recorder.heartbeat(until, offset, db).await?;
        }
        Ok(())
    }

    /// After a probe: how far behind are we, and how often to look next.
    fn look(&mut self) {
        let probe = self.join.newest_probe();
        let lag = probe.offset.0.saturating_sub(self.join.processed().0);
        self.metrics.tap_lag_bytes.set(lag as i64);
        let complete = self.join.complete_until().unwrap_or_default();
        self.metrics.stamps_waiting.set(self.join.stamps().0 as i64);
        self.metrics.clock_steps.inc_by(std::mem::take(&mut self.join.clock_steps));
        let behind_micros = probe.received.0 - complete.0;
        self.probes.set_pace(if lag > 0 && behind_micros > 100_000 {
            Pace::Late
        } else if lag > 0 || self.join.stamps().0 > 0 {
            Pace::Busy
        } else {
            Pace::Idle
        });
    }

    fn judge_backlog(&mut self, rate: &mut Rate) {
        let backlog = self.probes.facts().backlog_bytes;
        self.metrics.backlog_bytes.set(backlog as i64);
        let Some(per_second) = rate.second(self.join.newest_probe().offset) else { return };
        let covers = if per_second > 0.0 { backlog as f64 / per_second } else { f64::INFINITY };
        self.metrics.backlog_covers_seconds.set(covers);
        if rate.seconds != RATE_AFTER || backlog == 0 {
            return;
        }
        let (mib, kib) = (backlog as f64 / 1_048_576.0, per_second / 1024.0);
        if covers < BACKLOG_SHORT_SECONDS {
            let want = (per_second * BACKLOG_SHORT_SECONDS * 10.0).max(64.0 * 1_048_576.0) / 1_048_576.0;
            tracing::warn!(
                "the server's backlog of {mib:.0} MiB covers an outage of redtape of only {covers:.0} s at the present {kib:.0} KiB/s; \
                 a longer one costs a gap. Raise it: CONFIG SET repl-backlog-size {want:.0}mb"
            );
        } else if per_second >= 1024.0 {
            tracing::info!(
                "the server's backlog of {mib:.0} MiB covers an outage of redtape of {covers:.0} s at the present {kib:.0} KiB/s"
            );
        } else {
            tracing::info!("the server's backlog is {mib:.0} MiB; hardly anything is being written at present");
        }
    }
}

fn origin_label(kind: redtape_journal::OriginKind) -> &'static str {
    use redtape_journal::OriginKind as K;
    match kind {
        K::Client => "client",
        K::Expiry => "expiry",
        K::Eviction => "eviction",
        K::Outside => "outside",
        K::Unknown => "unknown",
    }
}

/// Bytes a second of the replication stream, smoothed.
#[derive(Debug, Default)]
struct Rate {
    last: Option<ReplOffset>,
    per_second: f64,
    seconds: u32,
}

impl Rate {
    /// Once a second with the server's offset.
    fn second(&mut self, offset: ReplOffset) -> Option<f64> {
        let last = self.last.replace(offset)?;
        let now = offset.0.saturating_sub(last.0) as f64;
        self.per_second = if self.seconds == 0 { now } else { self.per_second * 0.8 + now * 0.2 };
        self.seconds = self.seconds.saturating_add(1);
        Some(self.per_second)
    }
}
