//! Events during a restore.

use crate::plan::Plan;
use crate::point::RestorePoint;

/// An event.
#[derive(Debug)]
pub enum Event<'a> {
    /// The restore point is found; nothing was changed yet.
    Resolved(&'a RestorePoint),
    /// The plan is complete; nothing was changed yet.
    Planned(&'a Plan),
    /// A step begins.
    Step {
        /// What is done, in words.
        name: &'a str,
        /// Number of units; 0 = unknown.
        total: u64,
        /// What is counted.
        unit: Unit,
    },
    /// So many of the step's units are done.
    At(u64),
    /// The step is done.
    StepDone,
    /// A remark for the user.
    Note(&'a str),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Records of the journal.
    Records,
    /// Keys.
    Keys,
    /// Percent.
    Percent,
}

impl Unit {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Records => "records",
            Self::Keys => "keys",
            Self::Percent => "percent",
        }
    }
}

/// Gets the events.
pub trait Observer {
    /// One event.
    fn on(&mut self, event: &Event<'_>);
}

/// Ignores all events.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _: &Event<'_>) {}
}
