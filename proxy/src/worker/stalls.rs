//! A shared connection that makes no progress holds others up: it is cut when the server answers others meanwhile.
//!
//! | the oldest request of a shared connection is not answered | then |
//! | --- | --- |
//! | and nobody else is, on any connection | the server is busy, stopped or away: nothing is cut |
//! | of a shared connection for reads, and others are | after `STALLED_TICKS` in which that was so, it is cut |
//! | of a shared connection for writes, and other *writes* are | the same |
//! | of a shared connection for writes, and other requests are, but no write | the server may pause writes: `PAUSED_TICKS`, not while a pause is known |
//!
//! Ticks are counted, not time: after a stop the server answers the shared connection within the first. When nobody asks anything, a
//! witness does: a connection that says `HELLO` as nobody. Those who wait on a shared connection that is cut are
//! disconnected, as by a server that died: what they asked for may have run, and is not sent again.
//!
//! [`UpstreamPool`](super::upstream_pool::UpstreamPool) counts and decides; here it is carried out.

use redtape_net::CONNECT_TIMEOUT;

use super::Worker;
use super::upstream_pool::Role;

impl Worker {
    /// At each tick: cuts shared connections that stall while the server answers others.
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

    /// The witness was answered, or is gone.
    pub(super) fn witness_answered(&mut self, alive: bool) {
        let witness = self.pool.witness_answered(alive);
        self.close_conn(witness);
    }
}
