//! What happens by the clock: timeouts of clients and links, the end of idle lanes, draining.

use std::time::Duration;

use super::Worker;
use super::client::Stage;
use super::lanes::LANE_IDLE;
use super::link::Stage as LinkStage;
use crate::connect::CONNECT_TIMEOUT;

/// How often all clients are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The same while something is being connected.
pub(super) const TICK_CONNECTING: Duration = Duration::from_millis(100);
/// The same while clients are drained.
const TICK_DRAINING: Duration = Duration::from_millis(5);
/// A session that works on a lane is heard of at home at least so often: a server with a `timeout` over twice that
/// does not take it for idle.
const HOME_IDLE: Duration = Duration::from_secs(5);

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
        let mut ping = Vec::new();
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
                && self.now.saturating_duration_since(client.home_active) >= HOME_IDLE
            {
                ping.push(index);
            }
        }
        for index in close {
            self.close_client(index);
        }
        for index in ping {
            self.ping_home(index);
        }
        self.flush_links();
    }

    fn check_lanes(&mut self) {
        let idle: Vec<usize> = self
            .lanes
            .open()
            .filter(|index| {
                self.links.get(*index).is_some_and(|lane| {
                    lane.is_ready()
                        && lane.queue.is_empty()
                        && self.now.saturating_duration_since(lane.used) >= LANE_IDLE
                })
            })
            .collect();
        for index in idle {
            self.lane_lost(index);
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
