//! The open questions by database, key and element.
//!
//! The questions of a database stay together when databases change places. What concerns many of them is noted once: on the
//! key where a command may have written any of its elements, on the database where it was exchanged.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::seen::Seen;
use super::state::Notes;
use super::{Part, Question, Why};

/// Questions of one part; a question may be asked twice.
pub(super) type Asked = SmallVec<[u32; 1]>;

/// The questions of a key.
#[derive(Debug, Default)]
pub(super) struct OfKey<'a> {
    pub(super) whole: Asked,
    pub(super) ttl: Asked,
    pub(super) elements: HashMap<&'a [u8], Asked>,
    /// Commands that may have written any of its elements.
    pub(super) element_notes: Notes,
    /// Commands that may have written anything of it.
    pub(super) notes: Notes,
    /// A command of a module was among these.
    pub(super) of_module: bool,
    /// For one of its questions, the write is looked for that set the end of the key or the field.
    pub(super) has_expired: bool,
}

impl OfKey<'_> {
    /// All that are open.
    pub(super) fn all(&self) -> impl Iterator<Item = u32> {
        self.whole.iter().chain(&self.ttl).chain(self.elements.values().flatten()).copied()
    }

    fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.ttl.is_empty() && self.elements.is_empty()
    }

    fn remove(&mut self, question: u32, part: &Part) {
        match part {
            Part::Whole => self.whole.retain(|open| *open != question),
            Part::Ttl => self.ttl.retain(|open| *open != question),
            Part::Element(element) => {
                if let Some(asked) = self.elements.get_mut(&element[..]) {
                    asked.retain(|open| *open != question);
                    if asked.is_empty() {
                        self.elements.remove(&element[..]);
                    }
                }
            }
        }
    }
}

/// The questions that were asked of one database.
#[derive(Debug, Default)]
pub(super) struct OfDatabase<'a> {
    pub(super) keys: HashMap<&'a [u8], OfKey<'a>>,
    /// Exchanges of it.
    pub(super) swaps: Notes,
    /// Each of its questions has seen that a selected write removed everything: another one says nothing new.
    pub(super) flushed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    /// By the database that was asked about.
    databases: BTreeMap<u32, OfDatabase<'a>>,
    /// Where the questions of a database are now: which were asked of another one.
    moved: BTreeMap<u32, u32>,
    open: usize,
}

impl<'a> Index<'a> {
    pub(super) fn new(questions: &'a [Question]) -> Self {
        let mut index = Self { open: questions.len(), ..Self::default() };
        for (question, number) in questions.iter().zip(0u32..) {
            let database = index.databases.entry(question.db).or_default();
            let of_key = database.keys.entry(&question.key).or_default();
            match &question.part {
                Part::Whole => of_key.whole.push(number),
                Part::Ttl => of_key.ttl.push(number),
                Part::Element(element) => of_key.elements.entry(element).or_default().push(number),
            }
        }
        index
    }

    /// The database that was asked about where the contents stand in `db` at this position.
    fn asked(&self, db: u32) -> u32 {
        self.moved.get(&db).copied().unwrap_or(db)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The questions of the contents that stand in `db`.
    pub(super) fn database(&mut self, db: u32) -> Option<&mut OfDatabase<'a>> {
        let asked = self.asked(db);
        self.databases.get_mut(&asked)
    }

    pub(super) fn key(&mut self, db: u32, key: &[u8]) -> Option<&mut OfKey<'a>> {
        self.database(db)?.keys.get_mut(key)
    }

    /// The database that was asked about, and that of its contents at this position.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        let at = |asked: &u32| self.moved.iter().find(|(_, of)| *of == asked).map_or(*asked, |(at, _)| *at);
        self.databases.keys().map(move |asked| (*asked, at(asked)))
    }

    /// What was noted of exchanges, if the contents are not where they were asked about.
    pub(super) fn swaps(&self, asked: u32) -> Option<&Notes> {
        let away = self.asked(asked) != asked;
        self.databases.get(&asked).filter(|_| away).map(|database| &database.swaps)
    }

    /// What was noted of a key.
    pub(super) fn of(&self, question: &Question) -> Option<&OfKey<'a>> {
        self.databases.get(&question.db)?.keys.get(&question.key[..])
    }

    /// The same, to note more.
    pub(super) fn of_mut(&mut self, question: &Question) -> Option<&mut OfKey<'a>> {
        self.databases.get_mut(&question.db)?.keys.get_mut(&question.key[..])
    }

    /// The database of a question.
    pub(super) fn asked_of(&mut self, question: &Question) -> Option<&mut OfDatabase<'a>> {
        self.databases.get_mut(&question.db)
    }

    /// Goes back over two databases changing places.
    pub(super) fn swap(&mut self, a: u32, b: u32, seen: &Seen) {
        if a == b {
            return;
        }
        let (of_a, of_b) = (self.asked(a), self.asked(b));
        for asked in [of_a, of_b] {
            if let Some(database) = self.databases.get_mut(&asked) {
                database.swaps.add(seen, Why::Swapped);
            }
        }
        self.moved.insert(a, of_b);
        self.moved.insert(b, of_a);
    }

    /// A question is answered.
    pub(super) fn remove(&mut self, question: &Question, number: u32) {
        let Some(database) = self.databases.get_mut(&question.db) else { return };
        let Some(of_key) = database.keys.get_mut(&question.key[..]) else { return };
        of_key.remove(number, &question.part);
        self.open -= 1;
        if of_key.is_empty() {
            database.keys.remove(&question.key[..]);
        }
        if database.keys.is_empty() {
            self.databases.remove(&question.db);
        }
    }

    /// How many keys are asked about.
    pub(super) fn keys_len(&self) -> usize {
        self.databases.values().map(|database| database.keys.len()).sum()
    }

    /// The keys, each in the database where its contents stand at this position.
    pub(super) fn keys(&self) -> impl Iterator<Item = (u32, &'a [u8])> {
        let keys = |(asked, at): (u32, u32)| {
            let database = self.databases.get(&asked);
            database.into_iter().flat_map(move |database| database.keys.keys().map(move |key| (at, *key)))
        };
        self.places().flat_map(keys)
    }

    /// All open questions.
    pub(super) fn all(&self) -> Vec<u32> {
        let of_keys = self.databases.values().flat_map(|database| database.keys.values());
        of_keys.flat_map(OfKey::all).collect()
    }
}
