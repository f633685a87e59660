//! Flags of the commands that show a plan and ask before they change anything.

use clap::Args;

/// Flattened into a command's arguments, which say with `mut_arg` what the flags do there.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PlanFlags {
    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
