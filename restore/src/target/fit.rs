//! Values for a server of another version: what it cannot hold is named before anything is written. Pure.
//!
//! | of a value | where the version does not have it |
//! | --- | --- |
//! | field TTLs, idempotent producers, a value of a module | refused: the data would be another |
//! | what a stream counts for itself (`XINFO`): greatest deleted id, entries added and read, when consumers were active | left out, with a warning: such a server has no place for it |

use std::collections::BTreeMap;

use redtape_wire::rdb::{Loss, RdbVersion, Value, losses, module_type};

use crate::error::RestoreError;
use crate::version::ServerVersion;

/// Keys that are named in a message.
const NAMED: usize = 5;

/// Looks at one value after the other.
#[derive(Debug)]
pub(crate) struct Fitting {
    server: ServerVersion,
    version: RdbVersion,
    /// Whether values of modules are let through: the server may have the module.
    modules: bool,
    left_out: BTreeMap<Loss, u64>,
    refused: u64,
    named: Vec<String>,
}

impl Fitting {
    /// For this server.
    pub(crate) fn new(server: ServerVersion, modules: bool) -> Self {
        let (left_out, named) = (BTreeMap::new(), Vec::new());
        Self { server, version: server.writes(), modules, left_out, refused: 0, named }
    }

    /// The version that values are written in.
    pub(crate) fn version(&self) -> RdbVersion {
        self.version
    }

    /// Makes the value one that the server holds; false if that is not possible. `name`: the key, for a message.
    pub(crate) fn fit(&mut self, value: &mut Value, name: impl FnOnce() -> String) -> bool {
        if let Value::Module { id, .. } = value
            && !self.modules
        {
            let module = module_type(*id).0;
            self.refuse(format!("{}: a value of a module ({module})", name()));
            return false;
        }
        let losses = losses(value, self.version);
        if let Some(loss) = losses.iter().find(|loss| matches!(loss, Loss::FieldTtls | Loss::Idempotence)) {
            self.refuse(format!("{}: {loss}", name()));
            return false;
        }
        for loss in losses {
            loss.take_from(value);
            *self.left_out.entry(loss).or_default() += 1;
        }
        true
    }

    /// Something that the server cannot hold.
    pub(crate) fn refuse(&mut self, what: String) {
        self.refused += 1;
        if self.named.len() < NAMED {
            self.named.push(what);
        }
    }

    /// Nothing was refused so far.
    pub(crate) fn fits(&self) -> bool {
        self.refused == 0
    }

    /// Fails if anything was refused. `way_out`: what can be done.
    pub(crate) fn check(&self, way_out: &str) -> Result<(), RestoreError> {
        if self.fits() {
            return Ok(());
        }
        let more = if self.refused > self.named.len() as u64 { "; …" } else { "" };
        Err(RestoreError::Unable(format!(
            "{} ({}) cannot hold all of the data, {} in all: {}{more}. Nothing was written. {way_out}",
            self.server,
            self.version,
            self.refused,
            self.named.join("; "),
        )))
    }

    /// What was left out.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let one = |(loss, streams): (&Loss, &u64)| {
            format!("{} does not keep of a stream {loss}: left out of {streams}", self.server)
        };
        self.left_out.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use redtape_wire::rdb::{Field, Stream, StreamId};

    use super::*;

    fn hash(expires_at_ms: Option<i64>) -> Value {
        Value::Hash(vec![Field { name: b"f".to_vec(), value: b"v".to_vec(), expires_at_ms }])
    }

    #[test]
    fn the_data_is_whole_or_refused_by_name() {
        let server = |banner: &str| ServerVersion::from_banner(banner).expect(banner);
        let mut old = Fitting::new(server("Redis v=6.0.16"), false);
        assert!(old.fit(&mut hash(None), || panic!("not named")) && old.check("").is_ok());
        assert!(!old.fit(&mut hash(Some(5)), || "\"h\" in db 0".to_owned()));
        assert!(!old.fit(&mut Value::Module { id: 0, data: vec![0] }, || "\"m\" in db 1".to_owned()));
        let said = old.check("Use another.").expect_err("refused").to_string();
        for word in [
            "Redis 6.0.16 (REDIS0009)",
            "2 in all",
            "\"h\" in db 0: when its fields expire",
            "AAAAAAAAA",
            "Use another.",
        ] {
            assert!(said.contains(word), "{word}: {said}");
        }
        let mut new = Fitting::new(server("Redis v=8.0.2"), true);
        assert!(new.fit(&mut hash(Some(5)), String::new));
        assert!(new.fit(&mut Value::Module { id: 0, data: vec![0] }, String::new));
        assert!(new.fits() && new.warnings().is_empty());
    }

    #[test]
    fn what_a_stream_counts_is_left_out_with_a_warning() {
        let id = StreamId { ms: 1, seq: 1 };
        let stream = Stream {
            entries: Vec::new(),
            last_id: id,
            first_id: StreamId::default(),
            max_deleted_id: id,
            entries_added: 1,
            groups: Vec::new(),
            idempotence: None,
        };
        let mut value = Value::Stream(Box::new(stream));
        let mut old = Fitting::new(ServerVersion::from_banner("Redis v=6.2.1").expect("a banner"), false);
        assert!(old.fit(&mut value, String::new));
        let Value::Stream(stream) = &value else { panic!("{value:?}") };
        assert_eq!((stream.max_deleted_id, stream.entries_added, stream.last_id), (StreamId::default(), 0, id));
        assert_eq!(old.warnings().len(), 2);
    }
}
