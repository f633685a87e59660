//! Random histories of several writers, beside a model that knows the truth: who really wrote, which element a range really
//! removed, whether it was the server that removed a key.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::model::{Database, Model};
use super::*;
use crate::judge::Why;

const KEYS: [&str; 4] = ["k0", "k1", "j0", "j1"];
const ELEMENTS: [&str; 4] = ["a", "b", "c", "n"];

/// `$` a key, `#` an element, `@` a value, `%` a number, `!` a time,
/// `^` the other database.
const COMMANDS: [&str; 38] = [
    "HSET $ # @",
    "HSET $ # @",
    "HSET $ # @ # @",
    "HSET $ # @ # @",
    "HDEL $ #",
    "HDEL $ # #",
    "HINCRBY $ n 1",
    "SADD $ #",
    "SADD $ # #",
    "SADD $ # #",
    "SREM $ #",
    "SREM $ # #",
    "SMOVE $ $ #",
    "ZADD $ % #",
    "ZADD $ % # % #",
    "ZADD $ % # % #",
    "ZREM $ #",
    "ZREM $ # #",
    "ZREMRANGEBYSCORE $ % %",
    "SET $ @",
    "SET $ @ KEEPTTL",
    "SET $ @ PXAT !",
    "LPUSH $ @",
    "LPOP $",
    "DEL $",
    "DEL $",
    "DEL $ $",
    "DEL $ $",
    "PEXPIREAT $ !",
    "PEXPIREAT $ !",
    "PERSIST $",
    "RENAME $ $",
    "COPY $ $ REPLACE",
    "MOVE $ ^",
    "SUNIONSTORE $ $ $",
    "FLUSHDB",
    "FLUSHALL",
    "SWAPDB 0 1",
];

/// What a part of a key holds; each part of each key.
type Parts = BTreeMap<(usize, &'static str, String), Option<String>>;

fn parts(model: &Model) -> Parts {
    let mut parts = Parts::new();
    for (db, keys) in model.dbs.iter().enumerate() {
        for name in KEYS {
            let key = keys.get(name);
            parts.insert((db, name, String::new()), key.map(|key| format!("{:?}", key.value)));
            parts.insert((db, name, "@".to_owned()), key.and_then(|key| key.until).map(|until| until.to_string()));
            for element in ELEMENTS {
                let value = key.and_then(|key| key.value.element(element));
                parts.insert((db, name, format!("/{element}")), value);
            }
        }
    }
    parts
}

/// A key, and a part of it.
type PartName = (&'static str, String);

/// Who changed a part last, and who has touched its key.
#[derive(Debug, Clone, Default)]
struct Truth {
    /// Whether it was a selected write, and the database in which it ran.
    owners: BTreeMap<PartName, (bool, usize)>,
    /// By the command that runs: whose TTL it was is asked until all parts were looked at.
    changed: Vec<(PartName, (bool, usize))>,
    by_selected: BTreeSet<&'static str>,
    by_others: BTreeSet<&'static str>,
    /// Where these contents were at the beginning.
    home: usize,
    only_selected_swaps: bool,
}

struct World {
    rng: StdRng,
    model: Model,
    truths: [Truth; 2],
    now_ms: i64,
    lsn: u64,
    groups: Vec<Group>,
    times: BTreeSet<i64>,
    rare: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rare = rng.random_range(0..2) == 0;
        Self {
            rng,
            model: Model::default(),
            truths: Default::default(),
            now_ms: 10_000,
            lsn: 1,
            groups: Vec::new(),
            times: BTreeSet::new(),
            rare,
        }
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.random_range(0..from.len())]
    }

    fn begin(&mut self) {
        self.groups.clear();
        for (db, truth) in self.truths.iter_mut().enumerate() {
            *truth = Truth { home: db, only_selected_swaps: true, ..Truth::default() };
        }
    }

    fn command(&mut self, db: usize) -> String {
        let mut template = self.pick(&COMMANDS);
        // Seldom what touches everything.
        while (template.starts_with("FLUSH") || template.starts_with("SWAP")) && self.rng.random_range(0..4) > 0 {
            template = self.pick(&COMMANDS);
        }
        let mut words = Vec::new();
        for word in template.split(' ') {
            let word = match word {
                "$" => self.pick(&KEYS).to_owned(),
                "#" => self.pick(&ELEMENTS[..3]).to_owned(),
                "@" => self.pick(&["v0", "v1"]).to_owned(),
                "%" => self.pick(&["1", "2", "3"]).to_owned(),
                "!" => self.time().to_string(),
                "^" => (1 - db).to_string(),
                other => other.to_owned(),
            };
            words.push(word);
        }
        words.join(" ")
    }

    /// A time that was not used before.
    fn time(&mut self) -> i64 {
        loop {
            let time = self.now_ms + self.rng.random_range(50..6000);
            if self.times.insert(time) {
                return time;
            }
        }
    }

    /// Runs a command; `by_server` = it removes what has expired.
    fn run(&mut self, db: usize, line: &str, selected: bool, by_server: bool) -> bool {
        if line.starts_with("SWAPDB") {
            self.model.run(db, line);
            self.truths.swap(0, 1);
            self.truths.iter_mut().for_each(|truth| truth.only_selected_swaps &= selected);
            return true;
        }
        let before = parts(&self.model);
        if !self.model.run(db, line) {
            return false;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let named = |db_of: usize, key: &str| match words[0] {
            "FLUSHALL" => true,
            "FLUSHDB" => db_of == db,
            "MOVE" => key == words[1],
            _ => db_of == db && words[1..].contains(&key),
        };
        for ((db_of, key, part), value) in parts(&self.model) {
            let destination = match words[0] {
                "RENAME" | "COPY" => db_of == db && key == words[2],
                "MOVE" => db_of != db && key == words[1],
                "SUNIONSTORE" => db_of == db && key == words[1],
                _ => false,
            };
            let writes_value = !matches!(words[0], "SET" | "DEL" | "FLUSHALL" | "FLUSHDB" | "PEXPIREAT" | "PERSIST");
            let first = db_of == db && words.get(1) == Some(&key);
            // What is written to a value as a whole is a write, even of the same.
            let forced =
                destination || writes_value && first && part.is_empty() && words[0] != "SMOVE" && words[0] != "COPY";
            let changed = before[&(db_of, key, part.clone())] != value;
            let truth = &mut self.truths[db_of];
            let cause = truth.owners.get(&(key, "@".to_owned())).copied().unwrap_or((false, db_of));
            let owner = if by_server { cause } else { (selected, db_of) };
            if changed || forced {
                truth.changed.push(((key, part), owner));
            }
            if changed || named(db_of, key) {
                if selected && !by_server { &mut truth.by_selected } else { &mut truth.by_others }.insert(key);
            }
        }
        for truth in &mut self.truths {
            for (at, owner) in std::mem::take(&mut truth.changed) {
                truth.owners.insert(at, owner);
            }
        }
        true
    }

    fn expired(&self, db: usize) -> Vec<&'static str> {
        let keys: &Database = &self.model.dbs[db];
        let is = |key: &&&str| keys.get(**key).and_then(|key| key.until).is_some_and(|until| until <= self.now_ms);
        KEYS.iter().filter(is).copied().collect()
    }

    fn push(&mut self, who: &str, records: &[(u32, String)]) {
        let records: Vec<(u32, &str)> = records.iter().map(|(db, line)| (*db, line.as_str())).collect();
        let skew = self.rng.random_range(-300..300);
        self.groups.push(group(self.lsn, self.now_ms + skew, who, &records));
        self.lsn += records.len() as u64;
    }

    /// One group of one writer, or an expiry.
    fn step(&mut self) {
        self.now_ms += self.rng.random_range(1..900);
        let db = self.rng.random_range(0..2);
        if self.rng.random_range(0..3) == 0 {
            if let Some(key) = self.expired(db).first() {
                let line = format!("DEL {key}");
                self.run(db, &line, false, true);
                self.push("expiry", &[(db as u32, line)]);
            }
            return;
        }
        let selected = self.rng.random_range(0..3) == 0;
        let unknown = self.rare && self.rng.random_range(0..10) == 0;
        let script = self.rare && self.rng.random_range(0..80) == 0;
        let (mut records, mut by_client, mut removed) = (Vec::new(), false, false);
        for _ in 0..self.pick(&[1, 1, 1, 2, 3]) {
            let line = self.command(db);
            // What has expired is removed before it is looked at.
            let touched: Vec<_> = self.expired(db).into_iter().filter(|key| line.contains(*key)).collect();
            for key in touched {
                let removal = format!("DEL {key}");
                self.run(db, &removal, false, true);
                records.push((db as u32, removal));
                removed = true;
            }
            if self.run(db, &line, selected, false) {
                records.push((db as u32, line));
                by_client = true;
            }
        }
        let who = match (selected, unknown) {
            _ if !by_client => "expiry",
            (_, true) => "?",
            (true, false) => "bad",
            (false, false) => "app",
        };
        match records.is_empty() {
            true => {}
            // A script that stands there as it is; removals stand beside it.
            false if script && by_client && !removed => self.push(who, &[(db as u32, "EVAL x 0".to_owned())]),
            false => self.push(who, &records),
        }
    }
}

/// How often there was each verdict, and how often the model has confirmed it.
#[derive(Debug, Default)]
struct Counts {
    selected: u64,
    other: u64,
    uncertain: u64,
    not_written: u64,
    certain: u64,
}

fn one_history(seed: u64, counts: &mut Counts) {
    let mut world = World::new(seed);
    for _ in 0..world.rng.random_range(0..40) {
        world.step();
    }
    world.begin();
    let (start, before) = (world.model.clone(), parts(&world.model));
    for _ in 0..world.rng.random_range(1..40) {
        world.step();
    }
    let text = world.pick(&["client=bad", "client=bad", "client=bad,key=k*"]);
    let until = |model: &Model, db: usize, key: &str| model.dbs[db].get(key).and_then(|key| key.until);
    let differing = parts(&world.model).into_iter().filter(|(at, value)| before[at] != *value).map(|(at, _)| at);
    let asked: Vec<_> = differing
        .map(|(db, key, part)| {
            let (expires_before, expires_after) = (until(&start, db, key), until(&world.model, db, key));
            let question = Question { expires_before, expires_after, ..question(&format!("{db}:{key}{part}")) };
            ((db, key, part), question)
        })
        .collect();
    let questions: Vec<Question> = asked.iter().map(|(_, question)| question.clone()).collect();
    let verdicts = ask(&world.groups, &questions, &filter(text));
    for (((db, key, part), _), verdict) in asked.iter().zip(&verdicts) {
        let truth = &world.truths[*db];
        let wanted = text == "client=bad" || key.starts_with('k');
        let at_home = truth.home == *db;
        let owner = truth.owners.get(&(*key, part.clone())).copied();
        let (by_selected, by_others) = (truth.by_selected.contains(key), truth.by_others.contains(key));
        let what = || {
            let groups: Vec<String> = world.groups.iter().map(shown).collect();
            format!("seed {seed}, {text}: {db}:{key}{part}: {}, {truth:?}\n{}", show(verdict), groups.join("\n"))
        };
        match verdict {
            Verdict::Selected { .. } => {
                counts.selected += 1;
                let guilty = match owner {
                    Some((selected, at)) if at == *db || at_home => selected,
                    // Contents that were exchanged since.
                    Some((false, _)) => false,
                    _ => truth.only_selected_swaps && !at_home,
                };
                assert!(guilty && wanted, "{}", what());
            }
            Verdict::Other { .. } => {
                counts.other += 1;
                assert!(!at_home || by_others || !wanted, "{}", what());
            }
            Verdict::Uncertain { .. } => counts.uncertain += 1,
            Verdict::NotWritten => {
                counts.not_written += 1;
                panic!("{}", what());
            }
        }
        // Where there was but one, and every cause is known, there is no doubt.
        // What was written while databases were exchanged may stay in doubt, too.
        let by_the_clock = matches!(verdict, Verdict::Uncertain { why: Why::CauseOfExpiry | Why::Swapped, .. });
        if at_home && !world.rare && by_selected != by_others && !by_the_clock {
            counts.certain += 1;
            let is_certain = matches!(
                (verdict, by_selected && wanted),
                (Verdict::Selected { .. }, true) | (Verdict::Other { .. }, false)
            );
            assert!(is_certain, "{}", what());
        }
    }
}

fn shown(group: &Group) -> String {
    let record = |record: &Record| {
        let words: Vec<_> = record.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        format!("{} {}: {}", record.lsn, record.db, words.join(" "))
    };
    let records: Vec<String> = group.records.iter().map(record).collect();
    format!("{} {} | {}", group.ts.0 / 1000, group.origin, records.join("; "))
}

/// `REDTAPE_HISTORIES` is the number of histories, `REDTAPE_SEED` that of the first one.
#[test]
fn no_write_is_attributed_to_the_wrong_client() {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    let (first, histories) = (number("REDTAPE_SEED", 0), number("REDTAPE_HISTORIES", 3000));
    let mut counts = Counts::default();
    (first..first + histories).for_each(|seed| one_history(seed, &mut counts));
    let Counts { selected, other, uncertain, certain, .. } = counts;
    assert!(histories < 1000 || selected > histories / 2 && certain > histories / 2, "{counts:?}");
    assert!(histories < 1000 || uncertain * 3 < selected + other, "{counts:?}");
}
