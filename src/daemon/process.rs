//! Limits and signals of the process.

/// `setrlimit(2)`: a file would grow beyond its limit.
const SIGXFSZ: i32 = 25;

/// What the process needs of the operating system, as far as it may have it.
pub(super) fn prepare() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Two file descriptors for each client: as many as are allowed.
    let files = getrlimit(Resource::Nofile);
    if setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum }).is_err() {
        tracing::warn!("cannot raise the limit on open files; it is {:?}", files.current);
    }
    // A file size limit makes a write fail, as a full disk does, instead of ending the process.
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ)) {
        Ok(mut exceeded) => drop(tokio::spawn(async move { while exceeded.recv().await.is_some() {} })),
        Err(e) => tracing::warn!(error = %e, "cannot handle SIGXFSZ"),
    }
}
