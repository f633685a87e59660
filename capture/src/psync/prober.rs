//! Probes the server repeatedly, as often as the capture needs.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::RedisError;
use redtape_net::Connector;
use redtape_telemetry::{Metrics, Status};
use redtape_wire::command::CommandTable;
use tokio::sync::{Notify, mpsc};

use super::probe::{Prober, Role, is_answer, is_unreachable};
use crate::identity::ServerFacts;
use crate::join::Probe;

/// Probes waiting for the capture.
const PENDING_MAX: usize = 64;
/// Pause after a failed connection: an attempt costs nothing.
const CONNECT_EVERY: Duration = Duration::from_millis(100);
/// Pause after an error reply.
const RETRY: Duration = Duration::from_millis(500);
/// Minimum interval of probes on request.
const AT_ONCE: Duration = Duration::from_millis(2);

/// How often to probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The stream lags, as during a full sync.
    Late,
    /// Requests were answered whose effect is still unknown.
    Doubtful,
    /// Writes arrive.
    Busy,
    /// No writes.
    Idle,
}

impl Pace {
    fn interval(self) -> Duration {
        Duration::from_millis(match self {
            Self::Late | Self::Doubtful => 5,
            Self::Busy => 50,
            Self::Idle => 500,
        })
    }
}

/// The capture's end of the channel.
pub(crate) struct Probes {
    receive: mpsc::Receiver<Probe>,
    pace: Rc<Cell<Pace>>,
    now: Rc<Notify>,
    facts: Rc<RefCell<ServerFacts>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Probes {
    /// Starts probing on this thread's local set.
    pub(crate) fn start(
        upstream: Connector,
        facts: ServerFacts,
        table: Arc<ArcSwap<CommandTable>>,
        metrics: Metrics,
        status: Arc<Status>,
    ) -> Self {
        let (send, receive) = mpsc::channel(PENDING_MAX);
        let pace = Rc::new(Cell::new(Pace::Idle));
        let now = Rc::new(Notify::new());
        let facts = Rc::new(RefCell::new(facts));
        let (pace_there, now_there, facts_there) = (pace.clone(), now.clone(), facts.clone());
        let mut probing = Probing {
            upstream,
            send,
            pace: pace_there,
            now: now_there,
            facts: facts_there,
            table,
            metrics,
            status,
            role: None,
            lost: false,
        };
        let task = tokio::task::spawn_local(async move { probing.run().await });
        Self { receive, pace, now, facts, task }
    }

    /// The next probe.
    pub(crate) async fn next(&mut self) -> Probe {
        match self.receive.recv().await {
            Some(probe) => probe,
            // The task holds the sender while `self` exists.
            None => std::future::pending().await,
        }
    }

    pub(crate) fn set_pace(&self, pace: Pace) {
        let before = self.pace.replace(pace);
        if pace.interval() < before.interval() {
            self.now.notify_one();
        }
    }

    pub(crate) fn at_once(&self) {
        self.now.notify_one();
    }

    pub(crate) fn facts(&self) -> ServerFacts {
        self.facts.borrow().clone()
    }
}

/// The task's end of the channel.
struct Probing {
    upstream: Connector,
    send: mpsc::Sender<Probe>,
    pace: Rc<Cell<Pace>>,
    now: Rc<Notify>,
    facts: Rc<RefCell<ServerFacts>>,
    table: Arc<ArcSwap<CommandTable>>,
    metrics: Metrics,
    status: Arc<Status>,
    /// The role found last.
    role: Option<Role>,
    /// The loss of the connection was reported.
    lost: bool,
}

impl Probing {
    async fn run(&mut self) {
        loop {
            let Err(e) = self.probe_until_lost().await;
            let why = e.to_string();
            let gone = is_unreachable(&e);
            if gone {
                self.status.upstream_unreachable(&why);
            } else if is_answer(&e) {
                self.status.upstream_answers();
            }
            if !std::mem::replace(&mut self.lost, true) {
                self.metrics.error("probe");
                tracing::warn!(error = why, "the side connection to the upstream is lost; connecting again");
            }
            tokio::time::sleep(if gone { CONNECT_EVERY } else { RETRY }).await;
        }
    }

    async fn probe_until_lost(&mut self) -> Result<Infallible, RedisError> {
        let mut prober = Prober::connect(&self.upstream).await?;
        // The server may be another version now.
        if let Ok(fresh) = prober.facts().await {
            self.facts.replace(fresh);
        }
        if let Some(fresh) = prober.commands().await {
            self.table.store(Arc::new(fresh));
        }
        loop {
            let probe = prober.probe().await?;
            self.lost = false;
            self.status.upstream_answers();
            self.look_at_role(prober.role());
            // The receiver exists while this task runs.
            let _ = self.send.send(probe).await;
            tokio::time::sleep(AT_ONCE).await;
            tokio::select! {
                () = tokio::time::sleep(self.pace.get().interval()) => {}
                () = self.now.notified() => {}
            }
        }
    }

    fn look_at_role(&mut self, role: &Role) {
        if self.role.as_ref() == Some(role) {
            return;
        }
        let before = self.role.replace(role.clone());
        self.metrics.upstream.is_replica.set(i64::from(*role != Role::Primary));
        let upstream = self.upstream.address();
        match (before, role) {
            (None, Role::Primary) => {}
            (None, Role::Replica { primary }) => {
                tracing::info!(
                    upstream,
                    primary,
                    "the upstream is a replica: what its primary does is recorded through it"
                );
            }
            (Some(_), Role::Primary) => tracing::warn!(upstream, "the upstream has become a primary"),
            (Some(_), Role::Replica { primary }) => tracing::warn!(
                upstream,
                primary,
                "the upstream has become a replica (FAILOVER, Sentinel or REPLICAOF): redtape now follows a replica, and \
                 clients that write through it get the server's READONLY error. Start redtape with --upstream {primary} \
                 to serve them by the primary"
            ),
        }
    }
}
