//! What happens by the clock: timeouts of clients and links, the end of idle lanes, draining.

use std::time::Duration;

use super::Worker;
use super::client::Stage;
use super::lanes::{LANE_IDLE, LANE_KEPT};
use super::link::{Role, Stage as LinkStage};
use crate::connect::CONNECT_TIMEOUT;

/// How often all clients are looked at.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// The same while something is being connected.
pub(super) const TICK_CONNECTING: Duration = Duration::from_millis(100);
/// The same while clients are drained.
const TICK_DRAINING: Duration = Duration::from_millis(5);
/// A session that works on a lane is heard of at home after so long, at the next tick: then no server takes it for idle, not even
/// with a `timeout` of one second, and whatever it is set to meanwhile. One that rests is not heard of, and the server ends it.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
/// For each so many of them, it takes as much longer, up to this.
const KEEP_ALIVE_SESSIONS: u32 = 1000;
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);
/// What a server takes note of, and neither answers nor counts as a command: an empty line.
const SIGN_OF_LIFE: &[u8] = b"\r\n";
/// Lanes that take no more requests, of one worker; then the oldest are closed.
const RETIRED_MAX: usize = 64;

/// A client that has ended its side while what it said last waits for a reply, is gone after so long without one: the
/// server, which would drop a blocked client at once, can't see that it left.
const GONE_AFTER: Duration = Duration::from_mins(1);

impl Worker {
    pub(super) fn tick(&mut self) {
        if self.now < self.next_tick && self.draining.is_none() {
            return;
        }
        if self.connecting > 0 || self.probe.is_some() {
            self.check_links();
        }
        if self.now >= self.next_check || self.draining.is_some() {
            self.next_check = self.now + TICK;
            self.shared.metrics.client_memory_bytes.set(self.shared.client_memory.bytes() as i64);
            self.check_clients();
            self.check_stalls();
            self.check_lanes();
            self.check_acks();
        }
        let pause = match self.draining {
            Some(_) => TICK_DRAINING,
            None if self.connecting > 0 || self.probe.is_some() => TICK_CONNECTING,
            None => TICK,
        };
        self.next_tick = (self.now + pause).min(self.next_check.max(self.now));
    }

    fn check_links(&mut self) {
        let late: Vec<usize> = self
            .links
            .iter()
            .filter(|(_, l)| matches!(l.stage, LinkStage::Connecting { until, .. } if self.now >= until))
            .map(|(index, _)| index)
            .collect();
        for index in late {
            self.connect_failed(index, &format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()));
        }
        if let Some((link, generation)) = self.probe
            && let Some(probe) = self.link(link, generation)
            && probe.is_ready()
        {
            // Connected, and silent for so long: a busy server counts as alive.
            let since = probe.progress;
            if self.now.saturating_duration_since(since) >= super::ends::ALIVE_TIMEOUT {
                self.probe_answered(true);
            }
        }
    }

    fn check_clients(&mut self) {
        let live = self.live.clone();
        let mut close = Vec::new();
        let mut alive = Vec::new();
        let stretch = 1 + u32::try_from(self.behind).unwrap_or(u32::MAX) / KEEP_ALIVE_SESSIONS;
        let keep_alive = KEEP_ALIVE.saturating_mul(stretch).min(KEEP_ALIVE_MAX);
        self.behind = self.clients.iter().filter(|(_, c)| c.behind).count();
        for (index, client) in &self.clients {
            let silent = self.now.saturating_duration_since(client.active);
            let over = match client.stage {
                Stage::Ending { until } | Stage::Finishing { until } | Stage::Lingering { until } => self.now >= until,
                _ if self.draining.is_some() && client.is_idle() => true,
                _ if !client.is_introduced() => {
                    self.now.saturating_duration_since(client.opened) >= live.handshake_timeout
                }
                Stage::Open if client.waiting && client.read_closed && silent >= GONE_AFTER => true,
                // Redis does not count those who wait for something either.
                Stage::Open => {
                    live.idle_timeout.is_some_and(|t| silent >= t)
                        && !client.asking
                        && client.state.is_idle()
                        && !client.state.is_listening()
                }
                Stage::Header { .. } => false,
            };
            if over {
                close.push(index);
            } else if client.behind
                && client.home.is_some()
                && client.state.is_free()
                && self.now.saturating_duration_since(client.home_active) >= keep_alive
            {
                alive.push(index);
            }
        }
        for index in close {
            self.close_client(index);
        }
        for index in alive {
            self.send_home(index, SIGN_OF_LIFE);
        }
        self.flush_links();
    }

    /// Closes lanes that nobody needs, and lets the server hear of the others.
    fn check_lanes(&mut self) {
        self.mark_kept_lanes();
        let now = self.now;
        let (mut idle, mut resting, mut retired) = (Vec::new(), Vec::new(), Vec::new());
        for (index, link) in &self.links {
            if matches!(link.role, Role::Barrier) && link.is_ready() {
                resting.push(index);
            }
            if !matches!(link.role, Role::Lane(_)) || !link.is_ready() || !link.queue.is_empty() {
                continue;
            }
            let rests = now.saturating_duration_since(link.used);
            if !link.kept && (link.retired || rests >= LANE_IDLE) {
                idle.push(index);
                continue;
            }
            if link.retired {
                retired.push((link.used, index));
            }
            resting.push(index);
        }
        if retired.len() > RETIRED_MAX {
            retired.sort_unstable();
            idle.extend(retired.iter().take(retired.len() - RETIRED_MAX).map(|(_, index)| *index));
        }
        for index in resting {
            // A server with a `timeout` would end it, maybe just when it is used again.
            self.links[index].out.push(SIGN_OF_LIFE);
            self.make_dirty(index);
        }
        for index in idle {
            self.lane_lost(index);
        }
        self.flush_links();
    }

    /// Which lanes carried the last writes of some session.
    fn mark_kept_lanes(&mut self) {
        for (_, link) in &mut self.links {
            link.kept = false;
        }
        let links = &mut self.links;
        for (_, client) in &mut self.clients {
            client.wrote.look(
                |lane| {
                    links
                        .get_mut(lane.link)
                        .filter(|l| l.generation == lane.generation)
                        .map(|l| l.kept = true)
                        .is_some()
                },
                self.now,
                LANE_KEPT,
            );
        }
    }

    /// Ends all that is left.
    pub(super) fn close_all(&mut self) {
        let left: Vec<usize> = self.clients.iter().map(|(index, _)| index).collect();
        for index in left {
            self.close_client(index);
        }
        self.tee.flush();
    }
}
