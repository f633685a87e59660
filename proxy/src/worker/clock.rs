//! Intervals at which a worker checks timeouts.

use std::time::Duration;

/// Interval of checks of all clients and connections; the unit in which stalls are counted.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// Interval while a connection is being established.
pub(super) const TICK_CONNECTING: Duration = Duration::from_millis(100);
/// Interval while clients are drained.
pub(super) const TICK_DRAINING: Duration = Duration::from_millis(5);
