//! Index of the open questions by database, key and element.
//!
//! The questions of a database stay together when databases are swapped. Writes that concern many questions are
//! recorded once: on the key, if a command may have written any of its elements; on the database, if it was swapped.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::seen::Seen;
use super::state::Notes;
use super::{Part, Question, Why};

/// Questions about one part; a question may occur twice.
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
    /// One of its questions searches for the write that set the expiry time of the key or the field.
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

/// The questions about one database.
#[derive(Debug, Default)]
pub(super) struct OfDatabase<'a> {
    pub(super) keys: HashMap<&'a [u8], OfKey<'a>>,
    /// Its swaps.
    pub(super) swaps: Notes,
    /// For each of its questions a selected write is known to have deleted everything: another one adds nothing.
    pub(super) flushed: bool,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    /// By the database in the question.
    databases: BTreeMap<u32, OfDatabase<'a>>,
    /// Present place of a database's questions, if swapped.
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

    /// The database in the questions, for the content of `db` at this position.
    fn asked(&self, db: u32) -> u32 {
        self.moved.get(&db).copied().unwrap_or(db)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// The questions about the content of `db`.
    pub(super) fn database(&mut self, db: u32) -> Option<&mut OfDatabase<'a>> {
        let asked = self.asked(db);
        self.databases.get_mut(&asked)
    }

    pub(super) fn key(&mut self, db: u32, key: &[u8]) -> Option<&mut OfKey<'a>> {
        self.database(db)?.keys.get_mut(key)
    }

    /// The database in a question, and its content's place at this position.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        let at = |asked: &u32| self.moved.iter().find(|(_, of)| *of == asked).map_or(*asked, |(at, _)| *at);
        self.databases.keys().map(move |asked| (*asked, at(asked)))
    }

    /// The recorded swaps, if the content is in another place.
    pub(super) fn swaps(&self, asked: u32) -> Option<&Notes> {
        let away = self.asked(asked) != asked;
        self.databases.get(&asked).filter(|_| away).map(|database| &database.swaps)
    }

    /// What was recorded for a key.
    pub(super) fn of(&self, question: &Question) -> Option<&OfKey<'a>> {
        self.databases.get(&question.db)?.keys.get(&question.key[..])
    }

    /// As above, mutable.
    pub(super) fn of_mut(&mut self, question: &Question) -> Option<&mut OfKey<'a>> {
        self.databases.get_mut(&question.db)?.keys.get_mut(&question.key[..])
    }

    /// The database of a question.
    pub(super) fn asked_of(&mut self, question: &Question) -> Option<&mut OfDatabase<'a>> {
        self.databases.get_mut(&question.db)
    }

    /// Steps back over a swap of two databases.
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

    /// Removes an answered question.
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

    /// Number of keys in open questions.
    pub(super) fn keys_len(&self) -> usize {
        self.databases.values().map(|database| database.keys.len()).sum()
    }

    /// The keys, each with the database of its content at this position.
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
