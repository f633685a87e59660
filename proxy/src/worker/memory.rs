//! Accounts for clients' buffers as they change, and enforces the limit at the end of each turn.

use super::Worker;
use super::client_table::OverMemory;

impl Worker {
    /// Updates a client's share of memory.
    #[inline]
    pub(super) fn account(&mut self, index: usize) {
        let Some(client) = self.clients.at(index) else { return };
        let to_server = self.pool.pinned(client.pinned).map_or(0, |pinned| pinned.out.memory());
        self.clients.account(index, to_server);
    }

    /// At the end of a turn: disconnects the largest clients if the sum exceeds the limit.
    pub(super) fn limit_client_memory(&mut self) {
        match self.clients.check_memory(self.live.client_memory) {
            OverMemory::No => {}
            OverMemory::Here => self.evict_clients(),
            OverMemory::Elsewhere(worker) => self.shared.client_memory.wake(worker),
        }
    }

    fn evict_clients(&mut self) {
        for index in self.clients.which(|_| true) {
            self.account(index);
        }
        let limit = self.live.client_memory;
        for (bytes, index) in self.clients.largest() {
            if self.clients.check_memory(limit) != OverMemory::Here {
                return;
            }
            let Some(client) = self.clients.at(index) else { continue };
            self.shared.metrics.error("client_memory");
            tracing::warn!(
                session = client.state.id(),
                bytes,
                total = self.clients.total_memory(),
                limit,
                "the buffers of all clients together exceed client-memory: the client with the largest is disconnected"
            );
            self.close_client(index);
        }
        self.clients.check_memory(limit);
    }
}
