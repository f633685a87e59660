//! The stream behind the base: effects to the join, attributed groups to the recorder, ACKs back.

use std::time::Duration;

use redtape_journal::{Micros, OriginKind, ReplOffset, SyncPolicy};
use redtape_telemetry::CaptureState;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, sleep_until};

use super::effects::{EffectParser, StreamEvent};
use super::pacing::ReadPacing;
use super::prober::Pace;
use super::{Capture, Ended, JournalError, Link, LinkError};
use crate::options::Position;
use crate::recorder::RecordError;

/// The server is told the durable offset this often.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// A server that sent the copy without its disk sends the stream when it is told an offset, but is deaf to that until it
/// has seen its own child end: until something comes, it is told this often, and so many times.
const ACK_AT_FIRST: (Duration, u32) = (Duration::from_millis(50), 20);
/// How often held groups are looked at again.
const HELD_POLL: Duration = Duration::from_millis(1);
/// After a stop is asked for, what is under way gets so long to arrive.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Groups that are attributed at a stretch, before probes, the clock and a stop get their turn.
const PUMP_MAX: usize = 1024;
/// And so long, looked at after so many groups: where many stamps wait, some take long.
const PUMP_TIME: (Duration, usize) = (Duration::from_millis(5), 16);
/// The server has produced something and the link has been silent for so long: it is dead.
const SILENT_SECONDS: u32 = 10;
/// An outage that the backlog covers for less than this many seconds is worth a warning.
const BACKLOG_SHORT_SECONDS: f64 = 60.0;
/// The write rate is judged after so many seconds, and from then on until it is worth a warning.
const RATE_AFTER: u32 = 5;

/// A worker that is busy for longer, in µs, is not waited for: what it knows comes too late. Nor is a link that is never empty.
const BUSY_MAX: i64 = 100_000;

/// How far the link was read.
#[derive(Debug, Default)]
struct Reading {
    /// All that could be read then was taken in.
    heard: Micros,
    /// The same of the read before, if it emptied the link: what was read last came after this.
    quiet: Micros,
    /// The link was empty at `heard`.
    emptied: bool,
}

impl Reading {
    /// The link was read, at `looked` or later; `emptied`: nothing is left; `fresh`: something came, and no part of it before.
    fn read(&mut self, looked: Micros, emptied: bool, fresh: bool) {
        if fresh && self.emptied {
            self.quiet = self.heard;
        }
        // What is left may be as old as what was read.
        let heard = if emptied { looked } else { self.heard.max(Micros(looked.0 - BUSY_MAX)) };
        (self.heard, self.emptied) = (heard, emptied);
    }

    /// Everything up to then was taken in: of the link, and of what workers know.
    fn upto(&self, told: Micros) -> Micros {
        self.heard.min(told).max(Micros(self.heard.0 - BUSY_MAX))
    }
}

/// What [`Capture::pump`] met.
struct Pumped {
    /// There are more groups.
    more: bool,
    /// Somebody writes who does not come through the proxy.
    outsiders: bool,
}

impl Capture {
    /// Follows the stream until it ends.
    pub(super) async fn stream(&mut self, mut link: Link) -> Ended {
        let Some(position) = self.position.clone() else { return Ended::Base("there is no base".to_owned()) };
        let mut parser = EffectParser::new(position.offset, position.db);
        let ended = self.stream_with(&mut link, &mut parser).await;
        // A server whose link is not read piles up what it has for us: it is better off without one.
        drop(link);
        self.durability.following(false);
        // Nobody shall see it as streaming until it is again.
        self.status.capture_because(CaptureState::Connecting, ended.to_string());
        if matches!(ended, Ended::Slow) {
            self.durability.report_failure(&ended.to_string());
            tracing::error!("{ended}; the server is not followed until it has caught up");
        }
        // What was read goes to the journal before anything else happens.
        let flushed = self.flush_all(&parser).await;
        let (offset, db) = parser.position();
        self.position = Some(Position { offset, db, ..position });
        if let Ended::Stream(e) = &ended {
            // Asking for the same offset again would give the same.
            self.break_reason = Some(e.to_string());
        }
        flushed.err().unwrap_or(ended)
    }

    /// Brings all that was read to the journal, however slow the disk is, unless a stop is asked for meanwhile.
    async fn flush_all(&mut self, parser: &EffectParser) -> Result<(), Ended> {
        let late = Micros(i64::MAX);
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                drained = self.recorder.drained() => drained?,
                // The writer may never come back from the disk; what it has is synced or cut at the next start.
                () = stalled_at_stop(&mut stop) => {
                    return Err(Ended::Journal(JournalError::StalledAtStop));
                }
            }
            if self.break_reason.is_some() {
                // Behind a group that is missing, none may follow.
                return self.recorder.flush(None).map_err(Ended::from);
            }
            match self.pump(parser, late, 0.0) {
                Ok(Pumped { more: true, .. }) | Err(Ended::Slow) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    async fn stream_with(&mut self, link: &mut Link, parser: &mut EffectParser) -> Ended {
        self.status.capture(CaptureState::Streaming);
        self.complaints.over();
        self.waiting.over();
        self.last_end = None;
        if self.durability.has_failed()
            && let Err(e) = self.recorder.try_disk()
        {
            return e.into();
        }
        self.durability.following(true);
        self.probes.set_pace(Pace::Late);
        if let Err(e) = self.acknowledge(link).await {
            return e.into();
        }
        let progress = self.recorder.progress();
        let mut second = interval(ACK_EVERY);
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stop = self.stop.clone();
        let mut stopping: Option<(Micros, Instant)> = None;
        // Without stamps, the time of arrival is all that is known of an effect's time.
        let always_prompt = self.config.sync == SyncPolicy::Always || !self.config.has_tee;
        let mut pacing = ReadPacing::new(always_prompt, self.durability.is_awaited(), Instant::now());
        let tee = self.tee.clone();
        let mut ack_at: Option<ReplOffset> = None;
        let mut rate = Rate::default();
        let mut silent_seconds = 0;
        let mut first_acks = interval_at(Instant::now() + ACK_AT_FIRST.0, ACK_AT_FIRST.0);
        first_acks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first_acks_left = ACK_AT_FIRST.1;
        let mut reading = Reading::default();
        loop {
            if let Err(e) = self.take_in(link, parser, &mut ack_at, reading.quiet) {
                return e;
            }
            if self.bystander.shutdown_at().is_some_and(|at| parser.position().0 >= at) {
                return Ended::ShutDown;
            }
            let told = self.take_stamps();
            let awaited = ack_at.is_some() || stopping.is_some();
            let incoming = if awaited { 0.0 } else { pacing.gathered_rate(Instant::now()) };
            let Pumped { more, outsiders } = match self.pump(parser, reading.upto(told), incoming) {
                Ok(pumped) => pumped,
                Err(e) => return e,
            };
            if outsiders {
                // Where not all come through the proxy, who cannot have been the cause is told by the time
                // of arrival.
                pacing.be_prompt(Instant::now());
            }
            if ack_at.is_some() {
                self.recorder.sync_now();
                pacing.be_prompt(Instant::now());
            }
            if ack_at.is_some_and(|at| self.recorder.durable_offset() >= at) {
                ack_at = None;
                if let Err(e) = self.acknowledge(link).await {
                    return e.into();
                }
            }
            if let Some((since, deadline)) = stopping
                && (self.join.complete_until() >= Some(since) || Instant::now() >= deadline)
            {
                return match self.beat(parser) {
                    Ok(()) => Ended::Stopped,
                    Err(e) => e.into(),
                };
            }
            if let Some(rest) = pacing.sleep(Instant::now()).filter(|_| !more && stopping.is_none()) {
                // Nobody else works on this thread but the probes, which may be up to so much less exact.
                std::thread::sleep(rest);
            }
            // They, the clock and the sockets get their turn however much comes. Whether the link can be read is asked of the kernel
            // meanwhile.
            let (looked, looked_at) = (Micros::now(), Instant::now());
            let gathered = self.recorder.gather_until().map(Instant::from_std);
            tokio::task::yield_now().await;
            let mut received = None;
            tokio::select! {
                r = async { sleep_until(pacing.rest_until()).await; link.receive().await }, if !more => received = Some(r),
                probe = self.probes.next() => {
                    self.join.probe(probe);
                    self.look();
                    self.watch_clock();
                }
                () = std::future::ready(()), if more => {}
                () = progress.notified() => self.recorder.export(),
                _ = first_acks.tick(), if first_acks_left > 0 => {
                    first_acks_left -= 1;
                    if let Err(e) = self.acknowledge(link).await {
                        return e.into();
                    }
                }
                () = self.bystander.changed() => {}
                // The reply that a group waits for may be among it.
                () = tee.filled(), if self.durability.is_awaited() && self.join.held() > 0 => {}
                () = tee.many() => {}
                () = sleep(HELD_POLL), if self.join.held() > 0 => {}
                () = sleep_until(gathered.unwrap_or(looked_at)), if gathered.is_some() => {}
                _ = second.tick() => {
                    if let Some(e) = self.recorder.failed() {
                        return e.into();
                    }
                    silent_seconds += 1;
                    if silent_seconds > SILENT_SECONDS && self.join.newest_probe().offset > parser.position().0 {
                        return Ended::Silent;
                    }
                    let beaten = self.beat(parser);
                    self.recorder.export();
                    self.judge_backlog(&mut rate);
                    if let Err(e) = beaten {
                        return e.into();
                    }
                    if let Err(e) = self.acknowledge(link).await {
                        return e.into();
                    }
                }
                _ = stop.wait_for(|on| *on), if stopping.is_none() => {
                    stopping = Some((Micros::now(), Instant::now() + STOP_TIMEOUT));
                    self.probes.at_once();
                }
                () = sleep(HELD_POLL), if stopping.is_some() => self.probes.at_once(),
            }
            // Whoever was first above, time passes for groups that are held only as the link is read.
            if !more && Instant::now() >= pacing.rest_until() {
                if received.is_none() {
                    received = link.receive_now().await;
                }
                let fresh = received.is_some() && parser.is_at_boundary();
                let mut emptied = true;
                if let Some(Ok(n)) = &mut received {
                    let (more, all) = link.receive_rest(*n).await;
                    (*n, emptied) = (*n + more, all);
                }
                reading.read(looked, emptied, fresh);
            }
            match received {
                Some(Ok(n)) => {
                    silent_seconds = 0;
                    first_acks_left = 0;
                    self.metrics.capture.received_bytes.inc_by(n as u64);
                    pacing.took(n, Instant::now());
                }
                Some(Err(e)) => return e.into(),
                None => {}
            }
        }
    }

    /// Tells the server how far the journal is on the disk; what is no effect (`PING`, `GETACK`) counts with the effect
    /// before it.
    async fn acknowledge(&self, link: &mut Link) -> Result<(), LinkError> {
        let (mut offset, durable) = (self.recorder.durable_offset(), self.durability.position());
        if self.position.as_ref().is_some_and(|position| *position.replid == *durable.replid) {
            offset = offset.max(durable.offset);
        }
        link.ack(self.bystander.acknowledges(offset)).await
    }

    /// Everything that was received becomes groups in the join.
    fn take_in(
        &mut self,
        link: &mut Link,
        parser: &mut EffectParser,
        ack_at: &mut Option<ReplOffset>,
        quiet: Micros,
    ) -> Result<(), Ended> {
        let now = Micros::now();
        while let Some(event) = parser.next(&mut link.buf, now)? {
            match event {
                StreamEvent::Group(group) => self.join.effect(group, quiet),
                StreamEvent::GetAck => {
                    // A client waits in WAIT: what came before this must be on the disk.
                    let (offset, _) = parser.position();
                    *ack_at = Some(self.join.end_of_last_group().map_or(ReplOffset(0), |end| end.min(offset)));
                }
            }
        }
        Ok(())
    }

    /// Lets attributed groups go to the journal; all that could be read, and all that workers knew, at `upto` was taken in.
    /// `rate`: bytes a second that come, if nobody waits for them.
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
                    // The group is not in the journal, so neither may anything behind it be.
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

    /// Once a second: the window's end moves on though nothing happens.
    fn beat(&mut self, parser: &EffectParser) -> Result<(), RecordError> {
        let (offset, db) = parser.position();
        if self.join.held() == 0
            && let Some(until) = self.join.complete_until()
        {
            self.recorder.heartbeat(until, offset, db)?;
        }
        Ok(())
    }

    /// After a probe: how far behind are we, and how often to look next.
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

    fn judge_backlog(&mut self, rate: &mut Rate) {
        let backlog = self.probes.facts().backlog_bytes;
        self.status.numbers.capture.backlog_bytes.set(backlog as i64);
        let Some(per_second) = rate.second(self.join.newest_probe().offset) else { return };
        let covers = if per_second > 0.0 { backlog as f64 / per_second } else { f64::INFINITY };
        self.status.numbers.capture.backlog_covers.set(covers);
        if rate.seconds < RATE_AFTER || backlog == 0 || rate.warned {
            return;
        }
        let (mib, kib) = (backlog as f64 / 1_048_576.0, per_second / 1024.0);
        if covers < BACKLOG_SHORT_SECONDS {
            rate.warned = true;
            let want = (per_second * BACKLOG_SHORT_SECONDS * 10.0).max(64.0 * 1_048_576.0) / 1_048_576.0;
            tracing::warn!(
                "the server's backlog of {mib:.0} MiB covers an outage of redtape of only {covers:.0} s at the present {kib:.0} KiB/s; \
                 a longer one costs a gap. Raise it: CONFIG SET repl-backlog-size {want:.0}mb"
            );
        } else if rate.seconds > RATE_AFTER {
            // That it suffices was said; it may become too short when more is written.
        } else if per_second >= 1024.0 {
            tracing::info!(
                "the server's backlog of {mib:.0} MiB covers an outage of redtape of {covers:.0} s at the present {kib:.0} KiB/s"
            );
        } else {
            tracing::info!("the server's backlog is {mib:.0} MiB; hardly anything is being written at present");
        }
    }
}

/// A stop was asked for some time ago.
async fn stalled_at_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|on| *on).await;
    sleep(STOP_TIMEOUT).await;
}

/// The kinds of origin in the order of their numbers, as metrics name them.
const ORIGIN_LABELS: [&str; 5] = ["client", "expiry", "eviction", "outside", "unknown"];

/// Bytes a second of the replication stream, smoothed.
#[derive(Debug, Default)]
struct Rate {
    last: Option<ReplOffset>,
    per_second: f64,
    seconds: u32,
    /// Once is enough.
    warned: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_is_not_emptied_says_nothing_of_what_is_left() {
        let mut reading = Reading::default();
        reading.read(Micros(1_000_000), true, true);
        assert_eq!(reading.upto(Micros(2_000_000)), Micros(1_000_000));
        reading.read(Micros(1_050_000), false, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_000_000), Micros(1_000_000)));
        // One that is never empty holds nothing up for ever.
        reading.read(Micros(1_500_000), false, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_500_000 - BUSY_MAX), Micros(1_000_000)));
        reading.read(Micros(1_600_000), true, true);
        assert_eq!((reading.heard, reading.quiet), (Micros(1_600_000), Micros(1_000_000)));
    }
}
