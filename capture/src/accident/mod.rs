//! Writes that take much away, and the mark before each of them.
//!
//! Pure: what is recorded goes in, with its LSN; a mark comes out. Two kinds of accident are told:
//!
//! | accident | mark |
//! | --- | --- |
//! | `FLUSHALL`, `FLUSHDB`, `SWAPDB`, of any origin | before each group with one in it |
//! | one client deletes keys (`DEL`, `UNLINK`), or gives keys an expiry (`EXPIRE` and its kin), [`Thresholds::mass_keys`] of them within [`Thresholds::mass_time`] | before the first of these writes; one for each accident |
//!
//! What expires or is evicted is no accident. Writes without a client's address count as those of one client for each kind of origin.
//! Deletions and expiries are counted apart: many applications give expiries all day.
//!
//! Marks are limited by the hour, as some applications delete all day. Counting begins anew when the journal is opened again.

mod clients;
mod limit;
#[cfg(test)]
mod tests;
mod window;

use redtape_journal::{Lsn, Mark, Micros, Origin, OriginKind};

use self::clients::Clients;
use self::limit::{HourlyLimit, Verdict};
use self::window::First;
use crate::group::{Effect, EffectGroup};
use crate::options::Thresholds;

/// Marks before `FLUSHALL`, `FLUSHDB` and `SWAPDB` in an hour.
const FLUSH_MARKS_AN_HOUR: usize = 120;
/// Marks before mass deletions in an hour, and as many before mass expiries.
const MASS_MARKS_AN_HOUR: usize = 12;

/// What a write does that takes much away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    FlushAll,
    FlushDb,
    SwapDb,
    Del,
    Unlink,
    Expire,
}

impl Loss {
    /// `name` is that of a command in the stream, in capital or small letters. It is asked for each write.
    fn of(name: &[u8]) -> Option<Self> {
        let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
        match name.len() {
            3 if is(b"del") => Some(Self::Del),
            6 if is(b"unlink") => Some(Self::Unlink),
            6 if is(b"expire") => Some(Self::Expire),
            6 if is(b"swapdb") => Some(Self::SwapDb),
            7 if is(b"flushdb") => Some(Self::FlushDb),
            7 if is(b"pexpire") => Some(Self::Expire),
            8 if is(b"flushall") => Some(Self::FlushAll),
            8 if is(b"expireat") => Some(Self::Expire),
            9 if is(b"pexpireat") => Some(Self::Expire),
            _ => None,
        }
    }

    fn of_effect(effect: &Effect) -> Option<Self> {
        let (from, to) = *effect.args.first()?;
        Self::of(&effect.chunk[from as usize..to as usize])
    }

    /// As it stands in the mark's name.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::FlushAll => "FLUSHALL",
            Self::FlushDb => "FLUSHDB",
            Self::SwapDb => "SWAPDB",
            Self::Del => "DEL",
            Self::Unlink => "UNLINK",
            Self::Expire => "EXPIRE",
        }
    }

    /// Keys of an effect with so many arguments, its name included.
    fn keys(self, args: usize) -> u64 {
        match self {
            Self::Del | Self::Unlink => args.saturating_sub(1) as u64,
            _ => 1,
        }
    }
}

/// What is counted for each client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mass {
    Deletion,
    Expiry,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Set this mark.
    Mark(Mark),
    /// There were too many in the last hour; said once.
    TooMany {
        /// Before which command the mark would have been.
        command: &'static str,
        /// So many an hour are set.
        limit: usize,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accidents {
    clients: Clients,
    flushes: HourlyLimit,
    deletions: HourlyLimit,
    expiries: HourlyLimit,
}

impl Default for Accidents {
    fn default() -> Self {
        Self {
            clients: Clients::default(),
            flushes: HourlyLimit::new(FLUSH_MARKS_AN_HOUR),
            deletions: HourlyLimit::new(MASS_MARKS_AN_HOUR),
            expiries: HourlyLimit::new(MASS_MARKS_AN_HOUR),
        }
    }
}

/// What of a group matters here: sums over its effects.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    flush: Option<Loss>,
    deleted: Option<(Loss, u64)>,
    expiring: Option<(Loss, u64)>,
}

impl Losses {
    /// `None` for nearly all that is ever written.
    pub(crate) fn of(group: &EffectGroup) -> Option<Self> {
        let mut found = None;
        for effect in &group.effects {
            let Some(loss) = Loss::of_effect(effect) else { continue };
            let all: &mut Self = found.get_or_insert_default();
            let sum = match loss {
                Loss::FlushAll | Loss::FlushDb | Loss::SwapDb => {
                    all.flush.get_or_insert(loss);
                    continue;
                }
                Loss::Del | Loss::Unlink => &mut all.deleted,
                Loss::Expire => &mut all.expiring,
            };
            sum.get_or_insert((loss, 0)).1 += loss.keys(effect.args.len());
        }
        found
    }
}

impl Accidents {
    /// Takes what a group at `ts` takes away; `before`: the last record before the group.
    pub(crate) fn look(
        &mut self,
        losses: &Losses,
        origin: &Origin,
        (ts, before): (Micros, Lsn),
        thresholds: &Thresholds,
    ) -> Option<Found> {
        let deletion = self.count(Mass::Deletion, losses.deleted, origin, (ts, before), thresholds);
        let expiry = self.count(Mass::Expiry, losses.expiring, origin, (ts, before), thresholds);
        if let Some(loss) = losses.flush {
            return told(self.flushes.ask(ts), First { loss, ts, before }, FLUSH_MARKS_AN_HOUR);
        }
        let (first, limit) = match (deletion, expiry) {
            (Some(first), _) => (first, &mut self.deletions),
            (None, first) => (first?, &mut self.expiries),
        };
        told(limit.ask(ts), first, MASS_MARKS_AN_HOUR)
    }

    /// The first write of an accident that begins.
    fn count(
        &mut self,
        mass: Mass,
        lost: Option<(Loss, u64)>,
        origin: &Origin,
        (ts, before): (Micros, Lsn),
        thresholds: &Thresholds,
    ) -> Option<First> {
        let (loss, keys) = lost?;
        let client = match origin.kind {
            OriginKind::Expiry | OriginKind::Eviction => return None,
            OriginKind::Client | OriginKind::Outside | OriginKind::Unknown => {
                (origin.kind as u8, &origin.addr[..], mass)
            }
        };
        self.clients.window(&client).add(First { loss, ts, before }, keys, thresholds)
    }

    /// The journal was opened again: LSNs may be given anew. How many marks were set in the last hour is still known.
    pub(crate) fn forget_clients(&mut self) {
        self.clients = Clients::default();
    }
}

fn told(verdict: Verdict, first: First, limit: usize) -> Option<Found> {
    let First { loss, ts, before } = first;
    match verdict {
        Verdict::Allowed => Some(Found::Mark(Mark::automatic(loss.command(), ts, before))),
        Verdict::Reached => Some(Found::TooMany { command: loss.command(), limit }),
        Verdict::Over => None,
    }
}
