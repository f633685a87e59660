//! Writes elements of a container. Each is compared and set individually, so that frequent writes by clients do not
//! block a repair.
//!
//! One script does both in the server. If scripts are not allowed, the container is watched. After [`WATCH_TRIES`]
//! attempts with conflicting writes, its elements are left unchanged.

use redtape_wire::rdb::Field;

use crate::client::{Reply, Server, Value};
use crate::error::RestoreError;
use crate::refusal::{Refusal, meaning};
use crate::values::merge::{Difference, Element};

/// Elements of one call: it blocks the server.
const CALL_ELEMENTS: usize = 256;
/// Approximate size of one call in bytes.
const CALL_BYTES: usize = 256 << 10;
/// Attempts of one call without scripts.
const WATCH_TRIES: usize = 32;

/// `KEYS[1]`, its required type, then for each element: name; `1` and the required present value, or `0` and an empty
/// string; `1` and the new value, or `0` and an empty string; expiry time or an empty string. Returns 1 for each
/// element that was set.
const SCRIPT: &str = r"
local set = {}
if redis.call('TYPE', KEYS[1]).ok ~= ARGV[1] then return set end
local kind = ARGV[1]
for i = 2, #ARGV, 6 do
  local name, has, seen, put, want, expires = unpack(ARGV, i, i + 5)
  local live, same
  if kind == 'hash' then
    live = redis.call('HGET', KEYS[1], name)
    same = live == seen
  elseif kind == 'set' then
    live = redis.call('SISMEMBER', KEYS[1], name) == 1
    same = live
  else
    live = redis.call('ZSCORE', KEYS[1], name)
    same = live and tonumber(live) == tonumber(seen)
  end
  local done = 0
  if (has == '1' and live and same) or (has == '0' and not live) then
    if kind == 'hash' then
      if put == '1' then redis.call('HSET', KEYS[1], name, want) else redis.call('HDEL', KEYS[1], name) end
      if expires ~= '' then redis.call('HPEXPIREAT', KEYS[1], expires, 'FIELDS', 1, name) end
    elseif kind == 'set' then
      redis.call(put == '1' and 'SADD' or 'SREM', KEYS[1], name)
    elseif put == '1' then
      redis.call('ZADD', KEYS[1], want, name)
    else
      redis.call('ZREM', KEYS[1], name)
    end
    done = 1
  end
  set[#set + 1] = done
end
return set";

/// Commands called by this script and the one for expiry times.
const SCRIPT_COMMANDS: [&[u8]; 14] = [
    b"TYPE",
    b"HGET",
    b"HSET",
    b"HDEL",
    b"HPEXPIREAT",
    b"SISMEMBER",
    b"SADD",
    b"SREM",
    b"ZSCORE",
    b"ZADD",
    b"ZREM",
    b"PEXPIRETIME",
    b"PERSIST",
    b"PEXPIREAT",
];

/// How elements are compared and set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// With a script.
    Script,
    /// With `WATCH`.
    Watch,
}

impl How {
    /// Determines whether scripts are allowed and the commands that they call exist: a renamed command is renamed in
    /// scripts as well.
    pub(crate) fn find(server: &mut Server) -> Result<Self, RestoreError> {
        if SCRIPT_COMMANDS.iter().any(|name| server.names().get(name) != *name) {
            return Ok(Self::Watch);
        }
        let reply = server.try_call(&["EVAL", "return redis.call('TYPE', KEYS[1]).ok", "1", "redtape:tmp:probe"])?;
        Ok(if reply.value().is_some() { Self::Script } else { Self::Watch })
    }
}

/// Sets these elements to the wanted values. Returns for each whether it was set: false if a client changed it
/// meanwhile.
pub(crate) fn set(
    server: &mut Server,
    how: How,
    key: &[u8],
    differences: &[Difference],
) -> Result<Vec<bool>, RestoreError> {
    let mut all = Vec::with_capacity(differences.len());
    let mut left = differences;
    while !left.is_empty() {
        let (now, rest) = left.split_at(call_len(left));
        left = rest;
        all.extend(match how {
            How::Script => by_script(server, key, now)?,
            How::Watch => by_watch(server, key, now)?,
        });
    }
    Ok(all)
}

/// How many differences fit into one call: at least one.
fn call_len(differences: &[Difference]) -> usize {
    let mut bytes = 0;
    let fit = differences.iter().take(CALL_ELEMENTS).take_while(|difference| {
        let first = bytes == 0;
        bytes += size(difference);
        first || bytes <= CALL_BYTES
    });
    fit.count().max(1)
}

fn size(difference: &Difference) -> usize {
    const OVERHEAD: usize = 64;
    let of = |element: &Element| match element {
        Element::Field(field) => field.name.len() + field.value.len(),
        Element::Member(name) | Element::Scored(name, _) => name.len(),
    };
    OVERHEAD
        + match difference {
            Difference::Lacking(element) | Difference::Extra(element) => of(element),
            Difference::Other { wanted, live } => of(wanted) + of(live),
        }
}

fn type_name(element: &Element) -> &'static [u8] {
    match element {
        Element::Field(_) => b"hash",
        Element::Member(_) => b"set",
        Element::Scored(..) => b"zset",
    }
}

/// The required present element, and the new one.
fn sides(difference: &Difference) -> (Option<&Element>, Option<&Element>) {
    match difference {
        Difference::Lacking(wanted) => (None, Some(wanted)),
        Difference::Other { wanted, live } => (Some(live), Some(wanted)),
        Difference::Extra(live) => (Some(live), None),
    }
}

fn by_script(server: &mut Server, key: &[u8], differences: &[Difference]) -> Result<Vec<bool>, RestoreError> {
    let Some(first) = differences.first() else { return Ok(Vec::new()) };
    let (live, wanted) = sides(first);
    let of_type = live.or(wanted).map_or(&b""[..], type_name);
    let mut args: Vec<Vec<u8>> =
        vec![b"EVAL".to_vec(), SCRIPT.as_bytes().to_vec(), b"1".to_vec(), key.to_vec(), of_type.to_vec()];
    for difference in differences {
        let (live, wanted) = sides(difference);
        args.push(difference.name().to_vec());
        for side in [live, wanted] {
            args.push(if side.is_some() { b"1".to_vec() } else { b"0".to_vec() });
            args.push(side.map(Element::content).unwrap_or_default());
        }
        args.push(match wanted {
            Some(Element::Field(Field { expires_at_ms: Some(expires), .. })) => expires.to_string().into_bytes(),
            _ => Vec::new(),
        });
    }
    let Value::Array(set) = server.call(&args)? else {
        return Err(RestoreError::Link(format!("{} gave no list to EVAL", server.address)));
    };
    let mut set: Vec<bool> = set.iter().map(|one| *one == Value::Int(1)).collect();
    // An empty reply: the key has another type now.
    set.resize(differences.len(), false);
    Ok(set)
}

fn by_watch(server: &mut Server, key: &[u8], differences: &[Difference]) -> Result<Vec<bool>, RestoreError> {
    for _ in 0..WATCH_TRIES {
        if let Some(set) = watch_once(server, key, differences)? {
            return Ok(set);
        }
    }
    Ok(vec![false; differences.len()])
}

/// One attempt; `None` = a client wrote to the key meanwhile.
fn watch_once(server: &mut Server, key: &[u8], differences: &[Difference]) -> Result<Option<Vec<bool>>, RestoreError> {
    let mut packed = Vec::new();
    server.encode(&mut packed, &[b"WATCH", key]);
    for difference in differences {
        let (live, wanted) = sides(difference);
        let get: &[u8] = match live.or(wanted) {
            Some(Element::Field(_)) => b"HGET",
            Some(Element::Scored(..)) => b"ZSCORE",
            _ => b"SISMEMBER",
        };
        server.encode(&mut packed, &[get, key, difference.name()]);
    }
    server.encode(&mut packed, &[b"EXISTS", key]);
    let mut replies = server.pipeline(&packed, differences.len() + 2)?.into_iter();
    let watched = replies.next().ok_or_else(|| RestoreError::Link("no reply to WATCH".to_owned()))?;
    server.must("WATCH", watched)?;
    let there: Vec<Reply> = replies.by_ref().take(differences.len()).collect();
    if !matches!(replies.next(), Some(Reply::Value(Value::Int(1))))
        || there.iter().any(|reply| matches!(reply, Reply::Error(e) if meaning(&e.code) == Refusal::WrongType))
    {
        server.call(&["UNWATCH"])?;
        return Ok(Some(vec![false; differences.len()]));
    }
    let as_seen: Vec<bool> =
        differences.iter().zip(&there).map(|(difference, reply)| is_as_seen(sides(difference).0, reply)).collect();
    let mut packed = Vec::new();
    server.encode(&mut packed, &[b"MULTI"]);
    let mut commands = 1;
    for (difference, _) in differences.iter().zip(&as_seen).filter(|(_, as_seen)| **as_seen) {
        commands += encode_write(server, &mut packed, key, difference);
    }
    server.encode(&mut packed, &[b"EXEC"]);
    let mut replies = server.pipeline(&packed, commands + 1)?;
    match replies.pop().map(|reply| server.must("EXEC", reply)) {
        Some(Ok(Value::Nil)) => Ok(None),
        Some(Ok(_)) => Ok(Some(as_seen)),
        Some(Err(e)) => Err(e),
        None => Err(RestoreError::Link("no reply to EXEC".to_owned())),
    }
}

fn is_as_seen(seen: Option<&Element>, reply: &Reply) -> bool {
    let Reply::Value(value) = reply else { return false };
    match (seen, value) {
        (None, Value::Nil | Value::Int(0)) | (Some(Element::Member(_)), Value::Int(1)) => true,
        (Some(Element::Field(field)), Value::Bytes(bytes)) => field.value == *bytes,
        (Some(Element::Scored(_, score)), Value::Bytes(bytes)) => {
            std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<f64>().ok()) == Some(score.get())
        }
        _ => false,
    }
}

/// Appends the commands that set an element; returns their number.
fn encode_write(server: &Server, packed: &mut Vec<u8>, key: &[u8], difference: &Difference) -> usize {
    let name = difference.name();
    match sides(difference) {
        (_, Some(element @ Element::Field(field))) => {
            server.encode(packed, &[b"HSET", key, name, &element.content()]);
            let Some(expires) = field.expires_at_ms else { return 1 };
            server.encode(packed, &[b"HPEXPIREAT", key, expires.to_string().as_bytes(), b"FIELDS", b"1", name]);
            return 2;
        }
        (_, Some(Element::Member(_))) => server.encode(packed, &[b"SADD", key, name]),
        (_, Some(element @ Element::Scored(..))) => server.encode(packed, &[b"ZADD", key, &element.content(), name]),
        (Some(Element::Field(_)), None) => server.encode(packed, &[b"HDEL", key, name]),
        (Some(Element::Member(_)), None) => server.encode(packed, &[b"SREM", key, name]),
        (Some(Element::Scored(..)), None) => server.encode(packed, &[b"ZREM", key, name]),
        (None, None) => return 0,
    }
    1
}
