//! The command table: which commands may write, and which of their arguments are keys.
//!
//! It comes from the server's own `COMMAND` reply (so modules are in it); where the server does not
//! let us ask, from a built-in copy of Redis 7.0's. Keys of commands whose position depends on the
//! arguments (`EVAL`, `ZUNIONSTORE`, `XREADGROUP`, …) follow the rules of Redis's `db.c`.

mod id;

use std::collections::HashMap;
use std::fmt::Write as _;

pub use id::CommandId;
use smallvec::SmallVec;

use crate::word;

/// Longest command name that is looked up; longer ones are unknown.
pub const NAME_MAX: usize = 64;

const BUILTIN: &str = include_str!("commands.txt");

/// One row of the table.
#[allow(clippy::struct_excessive_bools)] // As `COMMAND` gives them: flags that are on or off by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    /// Lower case.
    pub name: String,
    /// The same, for comparing.
    pub id: CommandId,
    /// Arity as `COMMAND` gives it: negative = at least.
    pub arity: i32,
    /// May change data.
    pub write: bool,
    /// Only reads.
    pub readonly: bool,
    /// May block the connection.
    pub blocking: bool,
    /// Comes from a module, built in or loaded.
    pub module: bool,
    /// Key positions depend on the arguments.
    pub movable: bool,
    /// Position of the first key, 0 = none.
    pub first: i32,
    /// Position of the last key, negative = from the end.
    pub last: i32,
    /// Distance between keys.
    pub step: i32,
    places: KeyPlaces,
}

/// Where the keys of a command stand, as Redis's `db.c` finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyPlaces {
    /// At `first`, `last`, `step`.
    Fixed,
    /// Their number stands here, they follow.
    Counted(usize),
    /// One at 1, then as `Counted(2)`.
    StoredCounted,
    /// One at 1, and one behind the last `STORE` or `STOREDIST` among the options from this argument on.
    Stored(usize),
    /// The first half of what follows `STREAMS`.
    Streams,
    /// One at 3, or all behind `KEYS`.
    Migrate,
}

impl KeyPlaces {
    fn of(name: &str) -> Self {
        match name {
            "eval" | "evalsha" | "eval_ro" | "evalsha_ro" | "fcall" | "fcall_ro" | "blmpop" | "bzmpop" => {
                Self::Counted(2)
            }
            "lmpop" | "zmpop" | "zunion" | "zinter" | "zdiff" | "sintercard" | "zintercard" => Self::Counted(1),
            "zunionstore" | "zinterstore" | "zdiffstore" => Self::StoredCounted,
            "sort" => Self::Stored(2),
            "georadius" => Self::Stored(6),
            "georadiusbymember" => Self::Stored(5),
            "xread" | "xreadgroup" => Self::Streams,
            "migrate" => Self::Migrate,
            _ => Self::Fixed,
        }
    }
}

/// A command's name in lower case, cut at [`NAME_MAX`] bytes.
pub fn lower_name<'a>(name: &[u8], room: &'a mut [u8; NAME_MAX]) -> &'a [u8] {
    let len = name.len().min(NAME_MAX);
    let lower = &mut room[..len];
    lower.copy_from_slice(&name[..len]);
    lower.make_ascii_lowercase();
    lower
}

/// Positions of key arguments.
pub type KeyPositions = SmallVec<[usize; 4]>;

/// All commands that a server knows.
#[derive(Debug, Clone)]
pub struct CommandTable {
    rows: HashMap<Vec<u8>, CommandSpec, foldhash::fast::FixedState>,
}

impl CommandTable {
    /// Redis 7.0's own commands.
    pub fn builtin() -> Self {
        Self::from_text(BUILTIN)
    }

    /// From rows of `COMMAND`.
    pub fn from_specs(specs: impl IntoIterator<Item = CommandSpec>) -> Self {
        Self { rows: specs.into_iter().map(|s| (s.name.clone().into_bytes(), s)).collect() }
    }

    /// Reads what [`Self::to_text`] wrote; lines that are not understood are left out.
    pub fn from_text(text: &str) -> Self {
        Self::from_specs(text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (name, arity, flags) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
            let mut position = || words.next()?.parse().ok();
            let (first, last, step) = (position()?, position()?, position()?);
            Some(CommandSpec::new(name, arity, &flags.split(',').collect::<Vec<_>>(), first, last, step))
        }))
    }

    /// One line a command: name, arity, flags, first, last, step.
    pub fn to_text(&self) -> String {
        let mut rows: Vec<_> = self.rows.values().collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        let mut text = String::new();
        for row in rows {
            let flags = [
                (row.write, "write"),
                (row.readonly, "readonly"),
                (row.blocking, "blocking"),
                (row.module, "module"),
                (row.movable, "movablekeys"),
            ];
            let flags: Vec<&str> = flags.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
            let flags = if flags.is_empty() { "-".to_owned() } else { flags.join(",") };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{} {} {flags} {} {} {}", row.name, row.arity, row.first, row.last, row.step);
        }
        text
    }

    /// Looks a command up, in any case.
    pub fn get(&self, name: &[u8]) -> Option<&CommandSpec> {
        if name.len() > NAME_MAX {
            return None;
        }
        self.get_lower(lower_name(name, &mut [0; NAME_MAX]))
    }

    /// Looks up a name that is in lower case already.
    pub fn get_lower(&self, name: &[u8]) -> Option<&CommandSpec> {
        self.rows.get(name)
    }

    /// How many commands there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// No commands at all.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl CommandSpec {
    /// Makes a row from `COMMAND`'s fields; corrects what `COMMAND` does not say plainly.
    pub fn new(name: &str, arity: i32, flags: &[&str], first: i32, last: i32, step: i32) -> Self {
        let has = |flag: &str| flags.contains(&flag);
        let name = name.to_ascii_lowercase();
        // Containers carry no flags of their own, and some "reads" write (docs/redis-facts.md 2.1, 5.8).
        let (write, first, last, step) = match name.as_str() {
            "xgroup" => (true, 2, 2, 1),
            "function" | "script" | "publish" | "spublish" | "pfcount" | "pfdebug" => (true, first, last, step),
            "eval" | "evalsha" | "fcall" | "exec" => (true, 0, 0, 0),
            _ => (has("write"), first, last, step),
        };
        Self {
            id: CommandId::of(name.as_bytes()),
            places: KeyPlaces::of(&name),
            name,
            arity,
            write,
            readonly: has("readonly") && !write,
            blocking: has("blocking"),
            module: has("module"),
            movable: has("movablekeys"),
            first,
            last,
            step,
        }
    }

    /// Whether [`Self::keys`] finds all of them: not for commands whose key positions depend on arguments in a way
    /// that is not known here.
    pub fn keys_are_known(&self) -> bool {
        !self.movable || self.places != KeyPlaces::Fixed
    }

    /// Positions of the key arguments among `args` (`args[0]` is the name).
    ///
    /// `argc` is what the request announces: of a huge one more arguments may be announced than have arrived. It only says
    /// where the last keys stand; work and result never exceed what is in `args`.
    pub fn keys(&self, args: &[&[u8]], argc: usize) -> KeyPositions {
        let mut keys = KeyPositions::new();
        let arrived = args.len().min(argc);
        let number = |i: usize| -> usize {
            args.get(i).and_then(|a| std::str::from_utf8(a).ok()).and_then(|s| s.parse().ok()).unwrap_or(0)
        };
        let find = |word: &str, from: usize| (from..arrived).find(|i| args.get(*i).is_some_and(|a| word::is(a, word)));
        let mut counted = |at: usize| {
            let from = at + 1;
            keys.extend(from..from.saturating_add(number(at)).min(arrived));
        };
        match self.places {
            KeyPlaces::Fixed => self.fixed_keys(arrived, argc, &mut keys),
            KeyPlaces::Counted(at) => counted(at),
            KeyPlaces::StoredCounted => {
                counted(2);
                keys.insert(0, 1);
            }
            KeyPlaces::Stored(options) => {
                keys.push(1);
                keys.extend(stored(&args[..arrived], options));
            }
            KeyPlaces::Streams => {
                if let Some(streams) = find("streams", 1) {
                    let from = streams + 1;
                    keys.extend(from..(from + argc.saturating_sub(from) / 2).min(arrived));
                }
            }
            KeyPlaces::Migrate => {
                keys.push(3);
                keys.extend(find("keys", 4).map_or(arrived, |i| i + 1)..arrived);
            }
        }
        keys.retain(|i| *i < arrived);
        keys
    }

    fn fixed_keys(&self, arrived: usize, argc: usize, keys: &mut KeyPositions) {
        if (self.first, self.last) == (1, 1) {
            keys.push(1);
            return;
        }
        let Ok(first) = usize::try_from(self.first) else { return };
        if first == 0 {
            return;
        }
        let last = if self.last < 0 {
            argc.checked_sub(self.last.unsigned_abs() as usize)
        } else {
            usize::try_from(self.last).ok()
        };
        let step = usize::try_from(self.step).unwrap_or(1).max(1);
        if let Some(last) = last.zip(arrived.checked_sub(1)).map(|(last, newest)| last.min(newest)) {
            keys.extend((first..=last).step_by(step));
        }
    }
}

/// Where the destination of a `SORT` or `GEORADIUS` stands. Values of other options (`BY store`) are passed over.
fn stored(args: &[&[u8]], options: usize) -> Option<usize> {
    let (mut at, mut found) = (options, None);
    while let Some(arg) = args.get(at) {
        if word::is_one_of(arg, &["store", "storedist"]) {
            found = Some(at + 1);
        }
        at += match () {
            () if word::is(arg, "limit") => 3,
            () if word::is_one_of(arg, &["store", "storedist", "by", "get", "count"]) => 2,
            () => 1,
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(line: &str) -> Vec<String> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let table = CommandTable::builtin();
        let spec = table.get(args[0]).expect("known");
        let found = spec.keys(&args, args.len());
        found.iter().map(|i| String::from_utf8_lossy(args[*i]).into_owned()).collect()
    }

    #[test]
    fn key_positions() {
        for (line, want) in [
            ("SET k v", "k"),
            ("mset a 1 b 2", "a b"),
            ("DEL a b c", "a b c"),
            ("EVAL script 2 a b x y", "a b"),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"),
            ("SORT l BY w STORE dst", "l dst"),
            ("XREADGROUP GROUP g c COUNT 2 STREAMS a b > >", "a b"),
            ("XGROUP CREATE s g $", "s"),
            ("BLPOP a b 0", "a b"),
            ("BLMPOP 0 2 a b LEFT", "a b"),
            ("LMPOP 1 a LEFT", "a"),
            ("RENAME a b", "a b"),
            ("BITOP AND d a b", "d a b"),
            ("FLUSHALL", ""),
            ("SWAPDB 0 1", ""),
            ("EVAL s 999999999999 a", "a"),
            ("GEORADIUS g 1 2 3 m STORE d", "g d"),
            ("GEORADIUS g 1 2 3 m COUNT 5 STOREDIST d", "g d"),
            ("GEORADIUSBYMEMBER g store 5 m STORE d", "g d"),
            ("SORT l BY store GET storedist STORE d", "l d"),
            ("SORT l LIMIT 0 5 STORE store STORE d", "l d"),
            ("SORT l STORE\0x dst", "l dst"),
            ("XREAD streams\0 a 0", "a"),
        ] {
            assert_eq!(keys(line).join(" "), want, "{line}");
        }
    }

    #[test]
    fn a_request_that_announces_more_than_has_arrived_costs_what_has_arrived() {
        let table = CommandTable::builtin();
        for (line, announced, want) in [
            // Redis takes no more arguments than this.
            ("DEL a", i32::MAX as usize, &[1][..]),
            ("DEL", i32::MAX as usize, &[]),
            ("MSET a 1 b", usize::MAX, &[1, 3]),
            ("SORT l BY w", i32::MAX as usize, &[1]),
            ("SORT l STORE", i32::MAX as usize, &[1]),
            ("GEORADIUS g 1 2 3 m STOREDIST d", i32::MAX as usize, &[1, 7]),
            ("XREADGROUP GROUP g c STREAMS a b", i32::MAX as usize, &[5, 6]),
            ("XREAD STREAMS a b", 8, &[2, 3]),
            ("XREAD STREAMS a b", 5, &[2]),
            ("MIGRATE h 1 k 0 9 KEYS a", i32::MAX as usize, &[3, 7]),
            ("MIGRATE h 1", i32::MAX as usize, &[]),
            ("EVAL s 2147483646 a", i32::MAX as usize, &[3]),
            ("ZUNIONSTORE d 2147483640 a", i32::MAX as usize, &[1, 3]),
            ("BLPOP a b 0", i32::MAX as usize, &[1, 2, 3]),
            ("BLPOP a b 0", 4, &[1, 2]),
            ("BITOP AND d", i32::MAX as usize, &[2]),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let spec = table.get(args[0]).expect("known");
            let begun = std::time::Instant::now();
            let keys = spec.keys(&args, announced);
            assert_eq!(keys.as_slice(), want, "{line} of {announced}");
            assert!(!keys.spilled() || keys.capacity() <= 8, "{line}: room for {}", keys.capacity());
            assert!(begun.elapsed() < std::time::Duration::from_millis(50), "{line}: {:?}", begun.elapsed());
        }
    }

    #[test]
    fn text_round_trip_and_flags() {
        let table = CommandTable::builtin();
        assert!(table.len() > 200);
        let again = CommandTable::from_text(&table.to_text());
        for (name, row) in &table.rows {
            assert_eq!(again.rows.get(name), Some(row));
        }
        let write = |n: &str| table.get(n.as_bytes()).is_some_and(|s| s.write);
        assert!(
            write("Set")
                && write("EVALSHA")
                && write("pfcount")
                && write("xgroup")
                && !write("get")
                && !write("eval_ro")
        );
    }
}
