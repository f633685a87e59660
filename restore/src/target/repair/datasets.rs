//! Reads the wanted keys and their values in batches, ahead of the writer, in a thread.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use redtape_journal::query::Filter;
use redtape_wire::slot::SlotSet;

use super::new_keys::NewKeys;
use super::wanted::Wanted;
use crate::client::Server;
use crate::error::RestoreError;
use crate::source::scratch::Scratch;
use crate::target::lookup::{KeyCounts, select};
use crate::values::digest::{Digest, NOTHING};
use crate::values::held::read_whole;
use crate::values::image::Image;
use crate::values::saved::Saved;

/// Batches read ahead.
const AHEAD: usize = 2;
/// If no batch arrives within this time, the batches in flight are settled.
const QUIET: Duration = Duration::from_millis(50);

/// Keys of one database.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) db: u32,
    pub(crate) keys: Vec<Wanted>,
    /// Keys with small values that the target did not have when it was examined.
    pub(crate) new: NewKeys,
}

/// The wanted dataset, and what the target is expected to hold.
#[derive(Debug)]
pub(crate) struct Datasets {
    pub(crate) wanted: Scratch,
    saved: Saved,
    /// `None` = any value is accepted.
    pub(crate) expected: Option<Scratch>,
}

impl Datasets {
    /// Saves the wanted dataset to a file.
    pub(crate) fn new(mut wanted: Scratch, mut expected: Option<Scratch>) -> Result<Self, RestoreError> {
        wanted.hold()?;
        if let Some(expected) = &mut expected {
            expected.hold()?;
        }
        let path: PathBuf = wanted.save()?;
        Ok(Self { wanted, saved: Saved::new(path), expected })
    }

    /// Restricts the wanted keys to these slots of a cluster; `None` = all.
    pub(crate) fn see_only(&mut self, slots: Option<SlotSet>) {
        self.saved.see_only(slots);
    }

    /// True if the key may be written or deleted at present.
    pub(crate) fn sees(&self, key: &[u8]) -> bool {
        self.saved.sees(key)
    }

    /// Number of wanted keys in each database.
    pub(crate) fn count(&self, filter: &Filter) -> Result<KeyCounts, RestoreError> {
        let mut counts = KeyCounts::new();
        self.saved.each(filter, &mut |db, keys| {
            *counts.entry(db).or_default() += keys.len() as u64;
            Ok(())
        })?;
        Ok(counts)
    }

    /// The wanted keys, and the expected state of the target.
    pub(crate) fn parts(&mut self) -> (&Saved, Option<&mut Scratch>) {
        (&self.saved, self.expected.as_mut())
    }

    /// The wanted keys, and the scratch server that holds them.
    pub(crate) fn saved(&mut self) -> (&Saved, &mut Scratch) {
        (&self.saved, &mut self.wanted)
    }

    /// Adds advice to an error if the scratch server has failed.
    pub(crate) fn explain(&mut self, error: RestoreError) -> RestoreError {
        let error = self.wanted.explain(error);
        match &mut self.expected {
            Some(expected) => expected.explain(error),
            None => error,
        }
    }

    /// Digests of the expected values of some keys; `None` = any value is accepted.
    pub(crate) fn expected_of(&mut self, db: u32, keys: &[&[u8]]) -> Result<Vec<Option<Digest>>, RestoreError> {
        expected_digests(self.expected.as_mut(), db, keys)
    }
}

/// The same, of this dataset.
pub(super) fn expected_digests(
    expected: Option<&mut Scratch>,
    db: u32,
    keys: &[&[u8]],
) -> Result<Vec<Option<Digest>>, RestoreError> {
    match expected {
        None => Ok(vec![None; keys.len()]),
        Some(scratch) => expected_of(&mut scratch.server, db, keys),
    }
}

fn expected_of(server: &mut Server, db: u32, keys: &[&[u8]]) -> Result<Vec<Option<Digest>>, RestoreError> {
    select(server, db)?;
    let held = read_whole(server, keys)?;
    let digest = |held: Option<Image>| match held {
        None => Ok(Some(NOTHING)),
        Some(image) => image.digest().map(Some),
    };
    let unreadable = |e| RestoreError::Unable(format!("cannot read what the target is expected to hold: {e}"));
    held.into_iter().map(digest).collect::<Result<_, _>>().map_err(unreadable)
}

/// For each wanted key in order, whether the target lacked it; `None` = determined when it is written.
pub(crate) type New<'a> = Option<&'a [bool]>;

/// Calls `take` with each batch, and with `None` when none has arrived for [`QUIET`], until it fails. `packed`: keys
/// with small values that the target may lack become [`NewKeys`].
pub(crate) fn each_batch(
    datasets: &mut Datasets,
    filter: &Filter,
    (new, packed): (New<'_>, bool),
    take: &mut dyn FnMut(Option<Batch>) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let Datasets { saved, expected, .. } = datasets;
    std::thread::scope(|scope| {
        let (send, batches) = sync_channel(AHEAD);
        let read = move || read_ahead(saved, expected.as_mut(), filter, (new, packed), &send);
        let reading = std::thread::Builder::new().name("value reader".to_owned()).spawn_scoped(scope, read);
        let reading = reading.map_err(RestoreError::io("start", "a thread"))?;
        let taken = loop {
            let taken = match batches.recv_timeout(QUIET) {
                Ok(batch) => take(Some(batch)),
                Err(RecvTimeoutError::Timeout) => take(None),
                Err(RecvTimeoutError::Disconnected) => break Ok(()),
            };
            if taken.is_err() {
                break taken;
            }
        };
        drop(batches);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(read)
    })
}

fn read_ahead(
    saved: &Saved,
    mut expected: Option<&mut Scratch>,
    filter: &Filter,
    (new, packed): (New<'_>, bool),
    send: &SyncSender<Batch>,
) -> Result<(), RestoreError> {
    let mut values = saved.values()?;
    let mut known = new.map(|new| new.iter().copied());
    saved.each(filter, &mut |db, saved| {
        let names: Vec<&[u8]> = saved.iter().map(|saved| &saved.key[..]).collect();
        let digests = expected_digests(expected.as_deref_mut(), db, &names)?;
        let mut batch = Batch { db, ..Batch::default() };
        for (saved, expected) in saved.into_iter().zip(digests) {
            let new = known.as_mut().is_none_or(|known| known.next().unwrap_or(false));
            if !(new && packed && batch.new.push(&saved, &mut values, expected)?) {
                batch.keys.push(Wanted { new, ..Wanted::read(saved, &mut values, expected)? });
            }
        }
        // If the receiver is gone, its own error is reported.
        send.send(batch).map_err(|_| RestoreError::Interrupted)
    })
}
