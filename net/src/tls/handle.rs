//! A configuration that can be replaced while connections are made from it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use super::TlsError;

/// How often the files are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// From so long before the end on, each load warns.
const ENDS_SOON_SECONDS: i64 = 14 * 24 * 3600;

/// Options from which a rustls configuration is built.
pub trait Material: Clone + PartialEq + Send + 'static {
    /// `rustls::ServerConfig` or `rustls::ClientConfig`.
    type Config: Send + Sync + 'static;
    /// For messages: on which side.
    const SIDE: &'static str;
    /// Reads the files.
    fn build(&self) -> Result<Built<Self::Config>, TlsError>;
    /// What to watch. A file that is not there (yet) is watched, too.
    fn files(&self) -> Vec<PathBuf>;
}

/// What was built.
pub struct Built<C> {
    /// For connections.
    pub config: Arc<C>,
    /// When our certificate ends, in seconds since 1970, if there is one.
    pub ends: Option<i64>,
}

/// How a file looks from outside: another content nearly always has another. Links are followed, as secrets
/// are often swapped by them.
type Look = Vec<(PathBuf, Option<(u64, u64, i64, i64)>)>;

/// A configuration that can be replaced. Cheap to read; one caller at a time replaces it.
pub struct Handle<M: Material> {
    current: ArcSwap<M::Config>,
    /// Held while a configuration is built and put in place.
    loaded: Mutex<Loaded<M>>,
}

struct Loaded<M> {
    material: M,
    look: Look,
}

impl<M: Material> std::fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("side", &M::SIDE).finish_non_exhaustive()
    }
}

impl<M: Material> Handle<M> {
    /// Reads the files for the first time.
    pub fn new(material: M) -> Result<Self, TlsError> {
        let look = look(&material);
        let built = material.build()?;
        warn_of_the_end(M::SIDE, built.ends);
        Ok(Self { current: ArcSwap::new(built.config), loaded: Mutex::new(Loaded { material, look }) })
    }

    /// For the next connection.
    pub fn current(&self) -> Arc<M::Config> {
        self.current.load_full()
    }

    /// Reads `material` and puts it in place; on an error everything stays as it was.
    pub fn replace(&self, material: M) -> Result<(), TlsError> {
        let mut loaded = self.lock();
        // Before the files are read: what changes meanwhile is found by the next look.
        let look = look(&material);
        let built = material.build()?;
        self.current.store(built.config);
        *loaded = Loaded { material, look };
        let certificate_ends = built.ends.map(date).unwrap_or_default();
        tracing::info!(side = M::SIDE, certificate_ends, "TLS files are read; new connections use them");
        warn_of_the_end(M::SIDE, built.ends);
        Ok(())
    }

    /// Reads the files again. False = they cannot be used: that is logged, and the old ones stay in use.
    pub(super) fn reload(&self) -> bool {
        let material = self.lock().material.clone();
        let look = look(&material);
        match self.replace(material) {
            Ok(()) => true,
            Err(e) => {
                // Not again until they change again.
                self.lock().look = look;
                tracing::error!(side = M::SIDE, error = %e, "TLS files cannot be used; the ones read before stay in use");
                false
            }
        }
    }

    /// How the files look now, if that differs from when they were read.
    fn changed(&self) -> Option<Look> {
        let (material, before) = {
            let loaded = self.lock();
            (loaded.material.clone(), loaded.look.clone())
        };
        let now = look(&material);
        (now != before).then_some(now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Loaded<M>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reloads when files have changed and then stayed as they are from one look to the next: certificate and
/// key are seldom replaced at once. Calls `on_failure` for each set of files that cannot be used. Ends when dropped.
pub async fn watch<M: Material>(handle: Arc<Handle<M>>, on_failure: impl Fn()) {
    let mut seen = None;
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        let now = handle.changed();
        if now.is_some() && now == seen {
            if !handle.reload() {
                on_failure();
            }
            seen = None;
        } else {
            seen = now;
        }
    }
}

fn look<M: Material>(material: &M) -> Look {
    use std::os::unix::fs::MetadataExt as _;
    let files = material.files().into_iter();
    files
        .map(|path| {
            let seen = std::fs::metadata(&path).ok().map(|m| (m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
            (path, seen)
        })
        .collect()
}

fn warn_of_the_end(side: &str, ends: Option<i64>) {
    let Some(ends) = ends else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = ends - i64::try_from(now).unwrap_or(i64::MAX);
    if left < 0 {
        tracing::error!(side, ended = date(ends), "redtape's own TLS certificate has expired; peers will refuse it");
    } else if left < ENDS_SOON_SECONDS {
        tracing::warn!(side, ends = date(ends), "redtape's own TLS certificate expires soon");
    }
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map(|t| t.to_string()).unwrap_or_default()
}
