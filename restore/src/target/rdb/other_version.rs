//! The dataset of one scratch server into a second one, which does not load the RDB of the first: value by value, decoded and written
//! again in a form that it loads.
//!
//! Nobody else uses either server, so that `RESTORE` may take long; both clocks stand still, so that nothing expires.

use super::Job;
use crate::client::{Reply, Server};
use crate::error::RestoreError;
use crate::libraries::{self, Libraries};
use crate::progress::{Event, Observer, Unit};
use crate::source::binary::Binary;
use crate::source::scratch::Scratch;
use crate::target::fit::Fitting;
use crate::target::lookup::{select, show};
use crate::target::value_error::{not_taken, unreadable};
use crate::values::saved::{Saved, SavedKey, Values};
use redtape_wire::rdb::encode_dump;

/// Bytes that are sent at once, about.
const SEND_BYTES: usize = 4 << 20;
const WAY_OUT: &str = "Name a newer server with --server-bin, leave these out (--exclude-key), or write JSON lines (--to-jsonl), which hold everything";

/// Starts the second server and fills it.
pub(super) fn carry(
    job: &Job<'_>,
    saver: &Binary,
    (from, saved): (&mut Scratch, &Saved),
    warnings: &mut Vec<String>,
    observer: &mut dyn Observer,
) -> Result<Scratch, RestoreError> {
    let source = job.source;
    let mut fitting = Fitting::new(saver.version, false);
    let wanted = job.filter.is_everything();
    let functions = if wanted { libraries::read(&mut from.server)?.unwrap_or_default() } else { Libraries::new() };
    if !saver.version.has_redis(7, 0) {
        for name in functions.keys() {
            fitting.refuse(format!("the function library {}", show(name)));
        }
    }
    let mut to = Scratch::start(saver, source.databases(), source.limits(), job.interrupt)?;
    to.hold()?;
    let total = from.server.info(Some("keyspace"))?.keyspace().values().sum();
    observer.on(&Event::Step { name: "writing the values in the other version", total, unit: Unit::Keys });
    let mut carrier = Carrier {
        to: &mut to.server,
        fitting: &mut fitting,
        values: saved.values()?,
        packed: Vec::new(),
        sent: Vec::new(),
    };
    let mut seen = 0;
    let carried = saved.each(job.filter, &mut |db, keys| {
        job.interrupt.check()?;
        seen += keys.len() as u64;
        carrier.carry(db, keys)?;
        observer.on(&Event::At(seen));
        Ok(())
    });
    carried.map_err(|e| to.explain(e))?;
    observer.on(&Event::StepDone);
    fitting.check(WAY_OUT)?;
    for (name, code) in &functions {
        libraries::load(&mut to.server, &show(name), code)?;
    }
    warnings.extend(fitting.warnings());
    Ok(to)
}

struct Carrier<'a> {
    to: &'a mut Server,
    fitting: &'a mut Fitting,
    values: Values<'a>,
    packed: Vec<u8>,
    /// Keys of which no reply was read yet.
    sent: Vec<Vec<u8>>,
}

impl Carrier<'_> {
    fn carry(&mut self, db: u32, keys: Vec<SavedKey>) -> Result<(), RestoreError> {
        select(self.to, db)?;
        for saved in keys {
            let name = || format!("{} in db {db}", show(&saved.key));
            if saved.has_metadata() {
                self.fitting.refuse(format!("{}: what a module has put on it", name()));
                continue;
            }
            let image = self.values.image(&saved)?;
            let mut value = image.full_value().map_err(|e| unreadable(&saved.key, e))?;
            // Once something is refused, the rest is only looked at.
            if !self.fitting.fit(&mut value, name) || !self.fitting.fits() {
                continue;
            }
            let dump = encode_dump(&value, self.fitting.version()).map_err(|e| unreadable(&saved.key, e))?;
            let expires = image.expires_ms.to_string();
            self.to.encode(&mut self.packed, &[b"RESTORE", &saved.key[..], expires.as_bytes(), &dump, b"ABSTTL"]);
            self.sent.push(saved.key);
            if self.packed.len() >= SEND_BYTES {
                self.send()?;
            }
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), RestoreError> {
        if self.sent.is_empty() {
            return Ok(());
        }
        let replies = self.to.pipeline(&self.packed, self.sent.len())?;
        self.packed.clear();
        for (key, reply) in self.sent.drain(..).zip(replies) {
            if let Reply::Error(error) = reply {
                return Err(not_taken(self.to, &key, &error));
            }
        }
        Ok(())
    }
}
