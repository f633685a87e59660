//! What a restore tells while it runs.

use crate::plan::Plan;
use crate::point::RestorePoint;

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// The restore point is found; nothing has acted yet.
    Resolved(&'a RestorePoint),
    /// The plan is complete; nothing has acted yet.
    Planned(&'a Plan),
    /// A step begins.
    Step {
        /// What is done, in words.
        name: &'a str,
        /// How many of `unit` there are, 0 = not known.
        total: u64,
        /// What is counted.
        unit: Unit,
    },
    /// So many of the step's units are done.
    At(u64),
    /// The step is done.
    StepDone,
    /// Something to know.
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

/// Hears nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _: &Event<'_>) {}
}
