//! Checks that the server is the one that the journal records: before redtape asks it for anything costly, and again,
//! with a record in the journal, before one of its histories is recorded.
//!
//! With `--follow` the upstream's identity decides. The followed server must have the upstream's history; otherwise the
//! journal would record another server's data.

use redis::RedisError;
use redtape_journal::{ServerIdentity, add_server};

use super::{Capture, Ended, LinkError, Prober, is_unreachable};
use crate::identity::{Judgement, Recorded, ServerFacts, identity, is_same_process};

/// The result of the check of a server.
pub(super) struct Identified {
    judgement: Judgement,
    server: ServerIdentity,
}

impl Capture {
    /// Asks the upstream for its identity; refuses a server that the journal does not record.
    pub(super) async fn identify(&mut self) -> Result<Identified, Ended> {
        let facts = self.ask_upstream().await?;
        if facts.is_loading {
            let reply = "it is loading its data".to_owned();
            return Err(LinkError::Later { address: self.config.upstream.address(), reply }.into());
        }
        self.judge(&facts)
    }

    /// The followed server has answered `PSYNC` with a history. Checks that it is the history of the server examined
    /// before, and records it.
    pub(super) async fn confirm(&mut self, judged: Identified, followed: &str) -> Result<(), Ended> {
        let Identified { judgement, mut server } = judged;
        if server.replid == followed {
            return self.record_server(judgement, server);
        }
        // A server without a backlog starts another history for its first replica.
        let facts = self.ask_upstream().await?;
        if facts.replid != followed && !facts.replid.is_empty() {
            return Err(self.is_foreign());
        }
        let judgement = match judgement {
            Judgement::Known if is_same_process(&server, &facts) => Judgement::Known,
            // The judgement names the present history.
            _ => self.judge(&facts)?.judgement,
        };
        server = identity(&facts, server.address);
        followed.clone_into(&mut server.replid);
        self.record_server(judgement, server)
    }

    fn is_foreign(&self) -> Ended {
        let upstream = self.config.upstream.address();
        if self.config.source.url == self.config.upstream.url {
            return Ended::Upstream(format!("{upstream} has changed its history meanwhile"));
        }
        Ended::Foreign { followed: self.config.source.address(), upstream }
    }

    async fn ask_upstream(&mut self) -> Result<ServerFacts, Ended> {
        let upstream = self.config.upstream.clone();
        let failed = |e: RedisError| {
            if is_unreachable(&e) { Ended::Unreachable(e.to_string()) } else { Ended::Upstream(e.to_string()) }
        };
        let asking = async move {
            let mut prober = Prober::connect(&upstream).await.map_err(failed)?;
            prober.facts().await.map_err(failed)
        };
        self.or_stopped(Box::pin(asking)).await
    }

    fn judge(&self, facts: &ServerFacts) -> Result<Identified, Ended> {
        let recorded = Recorded::load(&self.config.dir).map_err(|e| Ended::Journal(e.into()))?;
        let address = self.config.address.clone();
        match recorded.judge(facts, &address, self.config.accept_new_history) {
            Judgement::Unrelated(mismatch) => Err(Ended::OtherServer(Box::new(mismatch))),
            judgement => Ok(Identified { judgement, server: identity(facts, address) }),
        }
    }

    fn record_server(&mut self, judgement: Judgement, mut server: ServerIdentity) -> Result<(), Ended> {
        server.accepted = matches!(judgement, Judgement::Accepted(_));
        add_server(&self.config.dir, &server).map_err(|e| Ended::Journal(e.into()))?;
        match judgement {
            Judgement::First | Judgement::Known | Judgement::Unrelated(_) => {}
            Judgement::Replaced(mismatch) => {
                self.metrics.error("server_replaced");
                tracing::warn!(
                    "{mismatch}: the address leads to a server with another history, which has lost its data or is another \
                     one. It is recorded from now on, in a new timeline. If that is not what you want, stop redtape and \
                     correct --upstream"
                );
                self.status.replaced(mismatch.to_string());
            }
            Judgement::Accepted(mismatch) => tracing::warn!(
                "{mismatch}: recorded from now on, in a new timeline, as accept-new-history is set. Take it out again, so \
                 that no other server is accepted"
            ),
        }
        Ok(())
    }
}
