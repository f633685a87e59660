//! The wanted keys, some at a time, with what is written of them; read ahead by a thread.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};

use redtape_journal::query::Filter;

use crate::values::digest::{Digest, NOTHING, digest};
use crate::values::held::read_whole;
use crate::values::image::Image;

use crate::client::Server;
use crate::error::RestoreError;
use crate::source::scratch::Scratch;
use crate::target::lookup::select;
use crate::target::pieces::size::is_large;
use crate::target::value_error::unreadable;
use crate::values::saved::{Saved, SavedKey};

/// Batches that are read ahead.
const AHEAD: usize = 2;

/// A key as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) key: Vec<u8>,
    pub(crate) image: Image,
    /// Of its value.
    pub(crate) digest: Digest,
    /// Its value is built in pieces.
    pub(crate) large: bool,
    /// It is written only where the live value has this digest ([`NOTHING`]: where there is none); `None` = whatever is there.
    pub(crate) expected: Option<Digest>,
    /// The target had no such key when it was looked at.
    pub(crate) new: bool,
}

impl Wanted {
    /// A key that the target may have.
    pub(crate) fn new(key: Vec<u8>, image: Image, expected: Option<Digest>) -> Result<Self, RestoreError> {
        let value = image.value().map_err(|e| unreadable(&key, e))?;
        let (digest, large) = (digest(&value), is_large(&value));
        Ok(Self { key, image, digest, large, expected, new: false })
    }
}

/// Keys of one database.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) db: u32,
    pub(crate) keys: Vec<Wanted>,
}

/// The dataset that is wanted, and what the target is expected to hold.
#[derive(Debug)]
pub(crate) struct Datasets {
    pub(crate) wanted: Scratch,
    saved: Saved,
    /// `None` = whatever it holds.
    pub(crate) expected: Option<Scratch>,
}

impl Datasets {
    /// Has the wanted one saved.
    pub(crate) fn new(mut wanted: Scratch, mut expected: Option<Scratch>) -> Result<Self, RestoreError> {
        wanted.hold()?;
        if let Some(expected) = &mut expected {
            expected.hold()?;
        }
        let path: PathBuf = wanted.save()?;
        Ok(Self { wanted, saved: Saved::new(path), expected })
    }

    /// The wanted keys, and what the target is expected to hold.
    pub(crate) fn parts(&mut self) -> (&Saved, Option<&mut Scratch>) {
        (&self.saved, self.expected.as_mut())
    }

    /// The wanted keys, and the scratch server that holds them.
    pub(crate) fn saved(&mut self) -> (&Saved, &mut Scratch) {
        (&self.saved, &mut self.wanted)
    }

    /// Says what to do about a scratch server that does not answer any more.
    pub(crate) fn explain(&mut self, error: RestoreError) -> RestoreError {
        let error = self.wanted.explain(error);
        match &mut self.expected {
            Some(expected) => expected.explain(error),
            None => error,
        }
    }

    /// The digests of what the target is expected to hold of some keys; `None` = it does not matter.
    pub(crate) fn expected_of(&mut self, db: u32, keys: &[&[u8]]) -> Result<Vec<Option<Digest>>, RestoreError> {
        expected_digests(self.expected.as_mut(), db, keys)
    }
}

/// The same of this dataset.
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

/// Calls `take` with each batch in turn, until it fails. `new`: for each wanted key in its order, whether the target had none.
pub(crate) fn each_batch(
    datasets: &mut Datasets,
    filter: &Filter,
    new: &[bool],
    take: &mut dyn FnMut(Batch) -> Result<(), RestoreError>,
) -> Result<(), RestoreError> {
    let Datasets { saved, expected, .. } = datasets;
    std::thread::scope(|scope| {
        let (send, batches) = sync_channel(AHEAD);
        let read = move || read_ahead(saved, expected.as_mut(), filter, new, &send);
        let reading = std::thread::Builder::new().name("value reader".to_owned()).spawn_scoped(scope, read);
        let reading = reading.map_err(RestoreError::io("start", "a thread"))?;
        let taken = batches.iter().try_for_each(take);
        drop(batches);
        let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(read)
    })
}

fn read_ahead(
    saved: &Saved,
    mut expected: Option<&mut Scratch>,
    filter: &Filter,
    new: &[bool],
    send: &SyncSender<Batch>,
) -> Result<(), RestoreError> {
    let mut values = saved.values()?;
    let mut new = new.iter().copied();
    saved.each(filter, &mut |db, saved| {
        let names: Vec<&[u8]> = saved.iter().map(|saved| &saved.key[..]).collect();
        let digests = expected_digests(expected.as_deref_mut(), db, &names)?;
        let mut keys = Vec::with_capacity(saved.len());
        for (saved, expected) in saved.into_iter().zip(digests) {
            let image = values.image(&saved)?;
            let SavedKey { key, .. } = saved;
            let new = new.next().unwrap_or(false);
            keys.push(Wanted { new, ..Wanted::new(key, image, expected)? });
        }
        // Where nobody receives any more, the other side tells why.
        send.send(Batch { db, keys }).map_err(|_| RestoreError::Interrupted)
    })
}
