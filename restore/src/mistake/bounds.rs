//! Memory limits of the search for a mistake's effects.

/// Limits; tests have smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Affected keys that are listed. Beyond the limit, the databases of further keys are affected as a whole.
    pub keys: usize,
    /// Bytes of their names.
    pub key_bytes: usize,
    /// Elements of one key with separate dependents. Beyond the limit, all parts of the key depend.
    pub elements_of_key: usize,
    /// Keys and elements with recorded dependents. Beyond the limit, all parts of every affected key depend.
    pub parts: usize,
    /// Bytes of their names.
    pub part_bytes: usize,
    /// Dependents, likewise.
    pub dependents: usize,
    /// Samples of each kind.
    pub samples: usize,
    /// Clients that are counted one by one.
    pub clients: usize,
    /// Bytes of each command that is shown.
    pub command_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            keys: 1 << 20,
            key_bytes: 256 << 20,
            elements_of_key: 4096,
            parts: 1 << 20,
            part_bytes: 256 << 20,
            dependents: 1 << 17,
            samples: 20,
            clients: 1000,
            command_bytes: 200,
        }
    }
}

/// The rest of a limit in number and bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    count: usize,
    bytes: usize,
}

impl Room {
    pub(super) fn new(count: usize, bytes: usize) -> Self {
        Self { count, bytes }
    }

    /// Reserves room for one, if available.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        if self.count == 0 || self.bytes < bytes {
            return false;
        }
        self.count -= 1;
        self.bytes -= bytes;
        true
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes;
    }
}
