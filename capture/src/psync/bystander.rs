//! Keeps redtape out of the server's replica decisions: it is counted as a replica, never promoted, and never waited
//! for.
//!
//! What a server does with the offset that a replica acknowledges (Redis 7.0 `replication.c`, `server.c`; the same in
//! Redis 8 and Valkey 8 and 9):
//!
//! | operation | which replicas count | what redtape does |
//! | --- | --- | --- |
//! | `WAIT` | replicas with at least the offset of the client's last write | acknowledges what is durable |
//! | `FAILOVER` without `TO` | the first replica with exactly the server's offset | acknowledges one byte more: never equal |
//! | `SHUTDOWN` | waits until all have exactly the server's offset | disconnects after reading everything |
//!
//! An acknowledged offset one beyond the end of a command lies inside the next command, so it acknowledges nothing that
//! is not durable. The server ignores a smaller acknowledgement, so redtape leaves a `SHUTDOWN` by disconnecting:
//! writes are paused by then, the stream has ended, and the journal holds what was read. A connection of its own asks
//! whether the server shuts down. If the server refuses that (no `+info` for the user), the acknowledgement is exact:
//! `WAIT` and `SHUTDOWN` work as usual, `FAILOVER` needs `TO`, and the log says so.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use redtape_journal::ReplOffset;
use redtape_net::Connector;
use tokio::sync::Notify;

use super::probe::{Prober, ReplicaWaits, is_answer};

/// How often the server is asked. A server that shuts down checks its replicas ten times a second.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Pause after a failed attempt. After a refused login it doubles up to a second: each one is recorded in the server's
/// ACL LOG.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// A warning is logged after this many consecutive answers in `FAILOVER`.
const FAILOVER_ASKS: u32 = 10;

/// The last known state of the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    /// Unknown: there is no connection.
    #[default]
    Nothing,
    /// Unknown: the server refuses the request.
    Refused,
    /// The server's last answer.
    Said(ReplicaWaits),
}

impl Known {
    /// The offset to acknowledge when everything up to `durable` is on the disk.
    fn acknowledges(self, durable: ReplOffset) -> ReplOffset {
        match self {
            Self::Said(_) => ReplOffset(durable.0 + 1),
            Self::Nothing | Self::Refused => durable,
        }
    }
}

/// Asks the followed server while it can be reached.
pub(super) struct Bystander {
    known: Rc<Cell<Known>>,
    changed: Rc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Bystander {
    /// Starts a task on this thread's local set.
    pub(super) fn start(server: Connector) -> Self {
        let known: Rc<Cell<Known>> = Rc::default();
        let changed = Rc::new(Notify::new());
        let task = tokio::task::spawn_local({
            let (known, changed) = (known.clone(), changed.clone());
            async move {
                let mut pause = RETRY;
                loop {
                    let ended = ask_until_lost(&server, &known, &changed).await;
                    if ended == AskingEnded::NotAllowed {
                        break;
                    }
                    known.set(Known::Nothing);
                    changed.notify_one();
                    tokio::time::sleep(pause).await;
                    pause = next_pause(pause, ended);
                }
                known.set(Known::Refused);
                tracing::warn!(
                    server = server.address(),
                    "redtape may not ask the server it follows for INFO (+info): a FAILOVER without TO may choose redtape; \
                     name the replica (FAILOVER TO host port)"
                );
            }
        });
        Self { known, changed, task }
    }

    /// The offset to acknowledge when everything up to `durable` is on the disk.
    pub(super) fn acknowledges(&self, durable: ReplOffset) -> ReplOffset {
        self.known.get().acknowledges(durable)
    }

    /// End of the history, if the server waits to shut down.
    pub(super) fn shutdown_at(&self) -> Option<ReplOffset> {
        match self.known.get() {
            Known::Said(waits) => waits.shutdown_at,
            Known::Nothing | Known::Refused => None,
        }
    }

    /// Resolves when the server waits to shut down. The future borrows nothing from `self`.
    pub(super) fn shuts_down(&self) -> impl Future<Output = ()> + use<> {
        let known = self.known.clone();
        async move {
            while !matches!(known.get(), Known::Said(ReplicaWaits { shutdown_at: Some(_), .. })) {
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }

    /// Resolves when the known state changes. For a single waiter.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Why asking has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AskingEnded {
    /// The server refuses the request.
    NotAllowed,
    /// The server refuses the login.
    LoginRefused,
    /// The connection failed or has ended.
    Lost,
}

/// The pause after this one.
fn next_pause(pause: Duration, ended: AskingEnded) -> Duration {
    if ended == AskingEnded::LoginRefused { (pause * 2).min(RETRY_MAX) } else { RETRY }
}

async fn ask_until_lost(server: &Connector, known: &Cell<Known>, changed: &Notify) -> AskingEnded {
    let mut prober = match Prober::connect(server).await {
        Ok(prober) => prober,
        Err(e) if is_answer(&e) => return AskingEnded::LoginRefused,
        Err(_) => return AskingEnded::Lost,
    };
    let mut failover_asks = 0;
    loop {
        let waits = match prober.waits().await {
            Ok(waits) => waits,
            Err(e) if e.code() == Some("NOPERM") => return AskingEnded::NotAllowed,
            Err(_) => return AskingEnded::Lost,
        };
        if known.replace(Known::Said(waits)) != Known::Said(waits) {
            changed.notify_one();
        }
        failover_asks = if waits.failover { failover_asks + 1 } else { 0 };
        if failover_asks == FAILOVER_ASKS {
            tracing::warn!(
                server = server.address(),
                "the server waits in FAILOVER for a replica that has caught up, and writes are paused meanwhile. redtape is never \
                 chosen: attach another replica, or end it with FAILOVER ABORT"
            );
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_backs_off() {
        let mut pause = RETRY;
        for _ in 0..20 {
            let next = next_pause(pause, AskingEnded::LoginRefused);
            assert!(next > pause || next == RETRY_MAX);
            pause = next;
        }
        assert_eq!(pause, RETRY_MAX);
        assert_eq!(next_pause(pause, AskingEnded::Lost), RETRY);
    }

    #[test]
    fn what_is_acknowledged_is_never_the_servers_offset_unless_shutdown_cannot_be_seen() {
        let durable = ReplOffset(100);
        assert_eq!(Known::Nothing.acknowledges(durable), durable);
        assert_eq!(Known::Refused.acknowledges(durable), durable);
        assert_eq!(Known::Said(ReplicaWaits::default()).acknowledges(durable), ReplOffset(101));
    }
}
