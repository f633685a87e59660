//! Cuts a shared connection without progress while the server answers others, since it holds up all its sessions.
//!
//! | oldest request of a shared connection unanswered, and | then |
//! | --- | --- |
//! | nothing else is answered on any connection | the server is busy, stopped or away: nothing is cut |
//! | connection for reads; others are answered | cut after `STALLED_TICKS` such ticks |
//! | connection for writes; other *writes* are answered | cut after `STALLED_TICKS` such ticks |
//! | connection for writes; others are answered, but no write | the server may pause writes: cut after `PAUSED_TICKS`, not during a known pause |
//!
//! Ticks are counted, not time: after a stop the server answers the shared connection within the first tick. If no
//! other requests are sent, a witness is opened: a connection that sends `HELLO` without a login. Clients that wait on
//! a cut shared connection are disconnected, as when a server dies: their requests may have run, and are not sent
//! again.
//!
//! [`UpstreamPool`](super::upstream_pool::UpstreamPool) counts and decides; this module carries it out.

use redtape_net::CONNECT_TIMEOUT;

use super::Worker;
use super::upstream_pool::Role;

impl Worker {
    /// At each tick: cuts stalled shared connections while the server answers others.
    pub(super) fn check_stalls(&mut self) {
        let stalls = self.pool.check_stalls(self.now, self.shared.pause.holds(self.now));
        for index in stalls.cut {
            self.cut_stalled(index);
        }
        if stalls.ask_witness
            && let Ok(witness) = self.dial(Role::Witness, self.now + CONNECT_TIMEOUT)
        {
            self.pool.witness_opened(witness);
        }
    }

    fn cut_stalled(&mut self, index: usize) {
        let Some(mut conn) = self.drop_conn(index) else { return };
        let seconds = self.now.saturating_duration_since(conn.progress).as_secs();
        let writes = conn.is_for_writes();
        let unanswered = conn.take_unanswered();
        self.shared.metrics.error("shared_stalled");
        tracing::warn!(
            seconds,
            sessions = unanswered.len(),
            writes,
            "a shared connection got no answer while the server answered others: it is closed, and the clients that wait on it are \
             disconnected; what they asked for may or may not have run"
        );
        for (waiter, _) in unanswered {
            if self.clients.get_mut(waiter).is_some() {
                self.finish(waiter.index);
            }
        }
    }

    /// The witness was answered or is gone.
    pub(super) fn witness_answered(&mut self, alive: bool) {
        let witness = self.pool.witness_answered(alive);
        self.close_conn(witness);
    }
}
