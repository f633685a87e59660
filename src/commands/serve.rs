//! `redtape restore --serve`: options, what is said when clients may come, and the end.

// The comments on arguments are their help texts.
#![allow(clippy::doc_markdown, clippy::struct_field_names, rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use redtape_restore::console::Console;
use redtape_restore::target::serve::{Ready, prepare};
use redtape_restore::{Request, ServeAddress};

use crate::headings::TARGET_SERVE;
use crate::input::{PASSWORD_LIMIT, password_file};
use crate::output::{count, out};
use crate::signals::set_at_signal;

/// The options of a read-only server.
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Serve the data of that point in time, read-only, until Ctrl-C: IP:PORT or localhost:PORT (port 0: a free one). An address
    /// that other machines reach needs --serve-password-file.
    #[arg(help_heading = TARGET_SERVE, long, value_name = "ADDR")]
    serve: Option<String>,
    /// File that holds the password that clients of --serve log in with.
    #[arg(help_heading = TARGET_SERVE, long, value_name = "FILE", requires = "serve")]
    serve_password_file: Option<PathBuf>,
}

impl ServeOptions {
    /// True if a read-only server is wanted.
    pub(crate) fn is_given(&self) -> bool {
        self.serve.is_some()
    }

    /// Where to serve, if that is wanted.
    pub(crate) fn address(&self) -> anyhow::Result<Option<ServeAddress>> {
        let Some(at) = &self.serve else { return Ok(None) };
        let file = self.serve_password_file.as_ref();
        let password = file.map(|path| password_file(path, "--serve-password-file", PASSWORD_LIMIT)).transpose()?;
        Ok(Some(ServeAddress::new(at, password)?))
    }
}

/// Serves until a signal comes.
pub(crate) fn run(request: &Request, plan_only: bool, json: bool, console: &mut Console) -> anyhow::Result<ExitCode> {
    let prepared = prepare(request, console)?;
    if plan_only {
        let plan = prepared.plan();
        out(&format!("{}\n", if json { serde_json::to_string_pretty(plan)? } else { plan.to_string() }))?;
        return Ok(ExitCode::SUCCESS);
    }
    set_at_signal(request.interrupt.clone())?;
    let serving = prepared.start(console)?;
    let ready = serving.ready();
    out(&format!("{}\n", if json { serde_json::to_string(ready)? } else { human(ready) }))?;
    serving.wait()?;
    Ok(ExitCode::SUCCESS)
}

fn human(ready: &Ready) -> String {
    let keys = count(ready.keys.values().sum(), "key", "keys");
    let side = if ready.before { "as they were before" } else { "as of" };
    let Ready { address, at, lsn, .. } = ready;
    format!("serving {keys} {side} {at} (LSN {lsn}) at {address}, read-only; Ctrl-C ends it")
}
