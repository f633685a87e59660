//! Merges a stream that clients write to constantly.
//!
//! What was read is outdated by the time it is written, so the server itself catches up. The merged entries are built
//! under a temporary name. Then one script appends the entries added since, copies the present groups and counters, and
//! renames the live stream and puts the merged one in its place. The old stream is copied to the undo log afterwards,
//! like other keys that are moved aside.

use redtape_wire::rdb::{Group, Stream, Value as Canonical, encode_dump};

use super::{Engine, Wanted};
use crate::client::{Reply, Value};
use crate::error::RestoreError;
use crate::target::repair::before::Before;
use crate::target::repair::elements::How;
use crate::target::repair::judged::Judged;
use crate::target::repair::live;
use crate::target::value_error::unreadable;
use crate::values::digest::{Digest, digest};
use crate::values::image::Image;
use crate::values::stream_merge::{StreamMerge, merge_streams};

/// Attempts for one stream: if entries are deleted meanwhile, it starts again.
const TRIES: usize = 8;
/// Entries to append, and pending entries of a group: the script blocks the server.
const ENTRIES_MAX: usize = 4096;

/// `KEYS`: the live stream, the merged one, the name for the live one. `ARGV`: length and last id of the live one when
/// it was read; entries ever added and greatest deleted id of the merged one; the largest number of entries to append;
/// then for each entry to make pending again: group, consumer, id, time and number of deliveries. Returns 1, or 0 if
/// the merged stream cannot be used.
const SCRIPT: &str = r"
local live, new, old = KEYS[1], KEYS[2], KEYS[3]
local limit = tonumber(ARGV[5])
local function map(flat) local m = {} for i = 1, #flat, 2 do m[flat[i]] = flat[i + 1] end return m end
local function parts(id) return string.match(id, '^(%d+)-(%d+)$') end
local function above(a, b)
  local am, as = parts(a)
  local bm, bs = parts(b)
  if #am ~= #bm then return #am > #bm end
  if am ~= bm then return am > bm end
  if #as ~= #bs then return #as > #bs end
  return as > bs
end
local function ok(reply) return not (type(reply) == 'table' and reply.err) end
local function ms() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end
if redis.call('TYPE', live).ok ~= 'stream' then return 0 end
local info = map(redis.call('XINFO', 'STREAM', live))
local more = redis.call('XRANGE', live, '(' .. ARGV[2], '+', 'COUNT', limit + 1)
if #more > limit or info['length'] ~= ARGV[1] + #more then return 0 end
for _, entry in ipairs(more) do
  if not ok(redis.pcall('XADD', new, entry[1], unpack(entry[2]))) then return 0 end
end
local added = math.max(info['entries-added'], ARGV[3] + #more, redis.call('XLEN', new))
local function claim(group, consumer, id, time, count)
  local done = redis.pcall('XCLAIM', new, group, consumer, 0, id, 'TIME', time, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
  return ok(done) and #done == 1
end
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', live)) do
  local group = map(flat)
  local create = {'XGROUP', 'CREATE', new, group['name'], group['last-delivered-id']}
  if group['entries-read'] and added == info['entries-added'] then
    create[6], create[7] = 'ENTRIESREAD', group['entries-read']
  end
  if not ok(redis.pcall(unpack(create))) then return 0 end
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', live, group['name'])) do
    redis.call('XGROUP', 'CREATECONSUMER', new, group['name'], map(consumer)['name'])
  end
  local before, pending, now
  for _ = 1, 32 do
    before = ms()
    pending = redis.call('XPENDING', live, group['name'], '-', '+', limit + 1)
    now = ms()
    if before == now then break end
  end
  if before ~= now or #pending > limit then return 0 end
  for _, entry in ipairs(pending) do
    if not claim(group['name'], entry[2], entry[1], string.format('%.0f', now - entry[3]), entry[4]) then return 0 end
  end
end
for i = 6, #ARGV, 5 do
  local group, consumer, id, time, count = unpack(ARGV, i, i + 4)
  local there = redis.pcall('XPENDING', new, group, id, id, 1)
  if ok(there) and #there == 0 and not claim(group, consumer, id, time, count) then return 0 end
end
local last = redis.call('XINFO', 'STREAM', new)
last = map(last)['last-generated-id']
if above(info['last-generated-id'], last) then last = info['last-generated-id'] end
local deleted = ARGV[4]
if above(info['max-deleted-entry-id'], deleted) then deleted = info['max-deleted-entry-id'] end
if not ok(redis.pcall('XSETID', new, last, 'ENTRIESADDED', string.format('%.0f', added), 'MAXDELETEDID', deleted)) then
  return 0
end
local expires = redis.call('PEXPIRETIME', live)
if expires > 0 then redis.call('PEXPIREAT', new, string.format('%.0f', expires)) else redis.call('PERSIST', new) end
redis.call('RENAME', live, old)
redis.call('RENAME', new, live)
return 1";

/// A merged stream without the live one's groups, and the script's other arguments.
struct Prepared {
    base: Wanted,
    digest: Digest,
    lacking: u64,
    args: Vec<Vec<u8>>,
}

impl Engine<'_> {
    /// Returns whether it was merged.
    pub(super) fn merge_hot_stream(&mut self, db: u32, wanted: &Wanted) -> Result<bool, RestoreError> {
        let may = self.how == How::Script && self.version.has_redis(7, 0) && matches!(self.judged, Judged::NotAsked);
        if !may || wanted.expected.is_some() || self.log.doubt(db, &wanted.key).is_some() {
            return Ok(false);
        }
        for _ in 0..TRIES {
            self.interrupt.check()?;
            let Some(prepared) = self.prepare(wanted)? else { return Ok(false) };
            if self.catch_up(db, wanted, &prepared)? {
                self.outcome.merged += 1;
                self.outcome.elements += prepared.lacking;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Prepares the merge with the present stream; `None` = not a stream, or not mergeable, or nothing to merge.
    fn prepare(&mut self, wanted: &Wanted) -> Result<Option<Prepared>, RestoreError> {
        let Wanted { key, image, .. } = wanted;
        let found = live::read(self.target, &[key], self.version, false)?;
        let Some(there) = found.keys.into_iter().next().flatten() else { return Ok(None) };
        let Some((before, live)) = streams(key, image, &there)? else { return Ok(None) };
        let StreamMerge::Lacking(merged, lacking) = merge_streams(&before, &live) else { return Ok(None) };
        let mut args: Vec<Vec<u8>> = vec![
            live.entries.len().to_string().into_bytes(),
            live.last_id.to_string().into_bytes(),
            merged.entries_added.to_string().into_bytes(),
            merged.max_deleted_id.to_string().into_bytes(),
            ENTRIES_MAX.to_string().into_bytes(),
        ];
        for group in &live.groups {
            if let Some(now) = merged.groups.iter().find(|merged| merged.name == group.name) {
                pending_again(group, now, &mut args);
            }
        }
        let is_live = |group: &Group| live.groups.iter().any(|other| other.name == group.name);
        let mut base = (*merged).clone();
        base.groups.retain(|group| !is_live(group));
        let Ok(dump) = encode_dump(&Canonical::Stream(Box::new(base)), self.version.writes()) else { return Ok(None) };
        let base = Wanted::new(key.clone(), Image { dump, expires_ms: 0 }, None)?;
        Ok(Some(Prepared { base, digest: digest_of(*merged), lacking, args }))
    }

    /// Puts the merged stream in place; `false` = the live one has changed too much.
    fn catch_up(&mut self, db: u32, wanted: &Wanted, prepared: &Prepared) -> Result<bool, RestoreError> {
        let key = &wanted.key;
        let (old, new) = self.names(key);
        let written = Some(prepared.digest);
        let entry = self.log.add(db, &Before::Moved { key, temporary: &old, written })?;
        self.log.sync()?;
        self.build_as(&new, &prepared.base)?;
        let mut args: Vec<&[u8]> = vec![b"EVAL", SCRIPT.as_bytes(), b"3", key, &new, &old];
        args.extend(prepared.args.iter().map(Vec::as_slice));
        // If the user may not call a command of the script, nothing was put in place.
        let reply = self.target.try_call(&args)?;
        if !matches!(reply, Reply::Value(Value::Int(1))) {
            self.log.not_written(entry)?;
            self.target.call(&[&b"UNLINK"[..], &new])?;
            return Ok(false);
        }
        let held = live::read(self.target, &[&old], self.version, false)?.keys.into_iter().next().flatten();
        let streams = held.as_ref().map(|held| streams(key, &wanted.image, held)).transpose()?.flatten();
        // The result equals a merge of both streams at that time.
        let written = streams.and_then(|(before, held)| match merge_streams(&before, &held) {
            StreamMerge::Lacking(merged, _) => Some(digest_of(*merged)),
            StreamMerge::NothingLacking => Some(digest_of(held)),
            StreamMerge::Conflict(_) => None,
        });
        self.keep_moved(db, key, &old, written.or(Some(prepared.digest)))?;
        self.log.done()?;
        Ok(true)
    }
}

fn streams(key: &[u8], wanted: &Image, live: &Image) -> Result<Option<(Stream, Stream)>, RestoreError> {
    let value = |image: &Image| image.full_value().map_err(|e| unreadable(key, e));
    Ok(match (value(wanted)?, value(live)?) {
        (Canonical::Stream(wanted), Canonical::Stream(live)) => Some((*wanted, *live)),
        _ => None,
    })
}

/// Digest for comparison, without what servers do not replicate.
fn digest_of(mut stream: Stream) -> Digest {
    stream.forget_unreplicated();
    digest(&Canonical::Stream(Box::new(stream)))
}

/// Appends what is pending in the second group and not in the first.
fn pending_again(live: &Group, merged: &Group, args: &mut Vec<Vec<u8>>) {
    for entry in &merged.pending {
        let is_there = live.pending.binary_search_by_key(&entry.id, |other| other.id).is_ok();
        if let (false, Some(consumer)) = (is_there, merged.consumers.get(entry.consumer)) {
            args.extend([live.name.clone(), consumer.name.clone(), entry.id.to_string().into_bytes()]);
            args.extend([entry.delivered_ms.to_string().into_bytes(), entry.deliveries.to_string().into_bytes()]);
        }
    }
}
