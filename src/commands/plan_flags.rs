//! Flags of the commands that show a plan and ask before they change anything.

use clap::Args;

use crate::headings::OUTPUT;

/// Flattened into a command's arguments, which say with `mut_arg` what the flags do there.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PlanFlags {
    /// Print what would be done, and change nothing.
    #[arg(help_heading = OUTPUT, long)]
    pub(crate) plan: bool,
    /// Do it without asking.
    #[arg(help_heading = OUTPUT, long)]
    pub(crate) yes: bool,
    /// Print JSON (docs/json.md).
    #[arg(help_heading = OUTPUT, long)]
    pub(crate) json: bool,
}
