//! Looks at the server again and again, as often as the capture needs it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redtape_wire::command::CommandTable;
use tokio::sync::{Notify, mpsc};

use super::probe::{Prober, ServerFacts};
use crate::connect::Connector;
use crate::join::Probe;
use crate::metrics::Metrics;

/// Probes on their way to the capture.
const PENDING_MAX: usize = 64;
/// Pause after a failed probe.
const RETRY: Duration = Duration::from_millis(500);
/// Probes asked for at once are at least so far apart.
const AT_ONCE: Duration = Duration::from_millis(2);

/// How often to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The stream runs late, as during a full sync.
    Late,
    /// Requests were answered of which it is not known whether they had an effect.
    Doubtful,
    /// Writes arrive.
    Busy,
    /// Nothing happens.
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

/// The capture's end of it.
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
    ) -> Self {
        let (send, receive) = mpsc::channel(PENDING_MAX);
        let pace = Rc::new(Cell::new(Pace::Idle));
        let now = Rc::new(Notify::new());
        let facts = Rc::new(RefCell::new(facts));
        let task = tokio::task::spawn_local({
            let (pace, now, facts) = (pace.clone(), now.clone(), facts.clone());
            async move {
                loop {
                    let ended = probe_until_lost(&upstream, &send, &pace, &now, &facts, &table, &metrics).await;
                    metrics.error("probe");
                    metrics.upstream_up.set(0);
                    tracing::warn!(error = ended, "the side connection to the upstream is lost; connecting again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        });
        Self { receive, pace, now, facts, task }
    }

    /// The next probe.
    pub(crate) async fn next(&mut self) -> Probe {
        match self.receive.recv().await {
            Some(probe) => probe,
            // The task holds the sender for as long as we are here.
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

async fn probe_until_lost(
    upstream: &Connector,
    send: &mpsc::Sender<Probe>,
    pace: &Cell<Pace>,
    now: &Notify,
    facts: &RefCell<ServerFacts>,
    table: &ArcSwap<CommandTable>,
    metrics: &Metrics,
) -> String {
    let mut prober = match Prober::connect(upstream).await {
        Ok(prober) => prober,
        Err(e) => return e.to_string(),
    };
    metrics.upstream_up.set(1);
    // The server may be another version than before.
    if let Ok(fresh) = prober.facts().await {
        facts.replace(fresh);
    }
    if let Some(fresh) = prober.commands().await {
        table.store(Arc::new(fresh));
    }
    loop {
        match prober.probe().await {
            Ok(probe) if send.send(probe).await.is_ok() => {}
            Ok(_) => return "the capture ended".to_owned(),
            Err(e) => return e.to_string(),
        }
        tokio::time::sleep(AT_ONCE).await;
        tokio::select! {
            () = tokio::time::sleep(pace.get().interval()) => {}
            () = now.notified() => {}
        }
    }
}
