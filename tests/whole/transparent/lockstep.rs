//! The judge: one connection's requests at a time, in both worlds, until all that they cause is there.

use super::commands::{Commands, Request};
use super::frames::{Keys, Rule, comparable, invalidated, values};
use super::hostile::{ENDLESS, Hostile};
use super::sides::{ClientState, Worlds};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A reply through the proxy is there within this time, or is missing.
const PATIENCE: Duration = Duration::from_secs(5);
/// What has effects without a reply: the same in both worlds within this time.
const SILENT_PATIENCE: Duration = Duration::from_secs(2);
/// For so many steps an invalidation may be repeated that was divided into several messages.
const REPEATED_FOR: usize = 3;
/// How many of a connection's last requests a failure shows.
const HISTORY: usize = 60;

/// What nobody may say: the server answers with an error and closes.
pub const GARBAGE: &[&[u8]] = &[
    b"*1\r\n:5\r\n",
    b"*x\r\n",
    b"*3\r\n$3\r\nSET\r\n$-1\r\n",
    b"*2\r\n$3\r\nGET\r\n$x\r\n",
    b"*99999999999\r\n",
    b"*2147483648\r\n",
    b"GET \"a\r\n",
    b"GET 'a\\\r\n",
    b"SET a \"b\"c\r\n",
];
/// What a server takes for an attack: it closes at once, and whether replies to what stood in front still go out
/// depends on the turns of its event loop. So nothing stands in front.
pub const ATTACKS: &[&[u8]] = &[b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b"Host: x\r\n"];
/// What is no request, and no offence.
const NOTHING: &[&[u8]] = &[b"*0\r\n", b"*-1\r\n", b"\r\n", b"   \r\n", b"\n", b"*-5\r\n"];

pub struct Lockstep {
    worlds: Worlds,
    commands: Commands,
    /// Attackers and victims speak, instead of all kinds of commands.
    hostile: Option<Hostile>,
    /// The server waits for the end of something that has none.
    stuck: Vec<bool>,
    rng: StdRng,
    seed: u64,
    step: usize,
    client_states: Vec<ClientState>,
    broadcast: bool,
    /// Keys of which connections were told, directly, in the last steps: step, connection, keys.
    invalidated: VecDeque<(usize, usize, Keys)>,
    /// The end of a request whose start was sent, in both worlds' bytes.
    unfinished: Vec<Option<[Vec<u8>; 2]>>,
    /// It has asked for silence, and may have it still.
    silenced: Vec<bool>,
    history: Vec<VecDeque<String>>,
    /// The ids of each world, also of connections that are gone, by the session that they mean.
    names: [BTreeMap<i64, usize>; 2],
    pub told: Told,
}

/// What a run has seen: that nothing was left out.
#[derive(Debug, Default)]
pub struct Told {
    pub requests: usize,
    pub reply_bytes: usize,
    pub errors: usize,
    pub closed: usize,
    pub blocked: usize,
    pub in_multi: usize,
    pub subscribed: usize,
    pub resp3: usize,
    pub pushes_to_others: usize,
}

impl Lockstep {
    pub fn new(mut worlds: Worlds, seed: u64) -> Self {
        let conns = worlds.direct.links.len();
        let commands = Commands::of(&mut worlds.direct.control);
        // What asking has left behind must be in both.
        Commands::of(&mut worlds.proxied.control);
        let client_states = worlds.direct.client_states();
        Self {
            worlds,
            commands,
            hostile: None,
            stuck: vec![false; conns],
            rng: StdRng::seed_from_u64(seed),
            seed,
            step: 0,
            client_states,
            broadcast: false,
            invalidated: VecDeque::new(),
            unfinished: vec![None; conns],
            silenced: vec![false; conns],
            history: vec![VecDeque::new(); conns],
            names: Default::default(),
            told: Told::default(),
        }
    }

    /// So many of the connections are attackers, the others their victims.
    pub fn hostile(worlds: Worlds, seed: u64, attackers: usize) -> Self {
        let mut lockstep = Self::new(worlds, seed);
        let Worlds { direct, proxied, .. } = &mut lockstep.worlds;
        let servers = [&mut direct.control, &mut proxied.control];
        lockstep.hostile = Some(Hostile::new(attackers, lockstep.client_states.len(), servers));
        lockstep
    }

    /// All groups of the journal.
    pub fn journal(self) -> Vec<crate::harness::journal::Group> {
        self.worlds.journal()
    }

    pub fn run(&mut self, steps: usize, limit: Duration) {
        let started = Instant::now();
        while self.step < steps && started.elapsed() < limit {
            self.step += 1;
            let free: Vec<usize> = (0..self.client_states.len()).filter(|&c| !self.client_states[c].blocked).collect();
            let roll = self.rng.random_range(0..1000);
            match free.choose(&mut self.rng) {
                Some(&conn) if self.stuck[conn] || self.has_enough(conn) => self.leave(conn),
                Some(&conn) if roll < 950 && free.len() > 2 => self.batch(conn),
                _ if roll % 3 == 0 || free.len() == self.client_states.len() && roll < 985 => self.time_passes(),
                _ => {
                    let conn = self.rng.random_range(0..self.client_states.len());
                    self.leave(conn);
                }
            }
            self.reopen_closed();
            if self.step.is_multiple_of(100) {
                self.same_silent_state("every hundredth step");
            }
        }
        // Nothing comes after all.
        std::thread::sleep(Duration::from_millis(100));
        self.worlds.proxied.drain();
        self.worlds.direct.settle(0);
        self.compare(usize::MAX, Rule::Exact);
        self.forget_compared();
        self.same_silent_state("the end");
        println!("{} steps in {:?}: {:?}", self.step, started.elapsed(), self.told);
    }

    /// An attacker begins anew now and then: many are stuck in a transaction, or subscribed.
    fn has_enough(&mut self, conn: usize) -> bool {
        self.hostile.as_ref().is_some_and(|h| h.is_attacker(conn)) && self.rng.random_ratio(1, 12)
    }

    fn known(&self) -> Vec<usize> {
        let both = |c: &usize| self.worlds.direct.links[*c].id.is_some() && self.worlds.proxied.links[*c].id.is_some();
        (0..self.client_states.len()).filter(both).collect()
    }

    fn requests(&mut self, conn: usize) -> Vec<Request> {
        let state = &self.client_states[conn];
        let alone = !state.in_multi && self.unfinished[conn].is_none();
        let known = self.known();
        let any_broadcast = self.client_states.iter().any(|s| s.broadcast);
        let count = match self.rng.random_range(0..100) {
            0..50 => 1,
            50..80 => self.rng.random_range(1..5),
            80..98 => self.rng.random_range(2..16),
            _ => self.rng.random_range(50..200),
        };
        let mut requests = Vec::new();
        // Who gets the keys that were collected for BCAST depends on who asks for them when the event loop
        // turns: nothing stands beside a request that changes that.
        while requests.len() < count {
            let request = match &mut self.hostile {
                Some(hostile) => hostile.one(&mut self.rng, conn),
                None => self.commands.one(&mut self.rng, alone && requests.is_empty(), &known),
            };
            let changes_broadcast = request.names_broadcast() || any_broadcast && request.may_end_tracking();
            if changes_broadcast && !(alone && requests.is_empty()) {
                continue;
            }
            // What was about to be pushed to somebody is lost with the connection, if both come in one turn.
            if request.may_end_others() && !(alone && requests.is_empty()) {
                continue;
            }
            // A server with a replica holds on to what a transaction has written until it has sent it.
            if request.asks_refcount() && (!alone || requests.iter().any(Request::is_multi)) {
                continue;
            }
            self.silenced[conn] |= request.is_client_reply();
            // A server that may not answer QUIT ends only if something before it is still to be written.
            if request.is_quit() && self.silenced[conn] {
                continue;
            }
            // A server that closes while requests lie unread may take back what it said last: by chance.
            let ends = self.hostile.is_some() && request.is_quit();
            let last = ends || request.may_block() || request.rule != Rule::Exact || changes_broadcast;
            requests.push(request);
            if last {
                break;
            }
        }
        requests
    }

    fn batch(&mut self, conn: usize) {
        let requests = self.requests(conn);
        // Also where it was on, or is, only between two requests of this step.
        self.broadcast =
            self.client_states.iter().any(|s| s.broadcast) || requests.iter().any(Request::names_broadcast);
        let rule = requests[0].rule;
        let attack = rule == Rule::Exact && self.unfinished[conn].is_none() && self.rng.random_ratio(1, 400);
        if attack {
            let wire = ATTACKS.choose(&mut self.rng).expect("attacks").to_vec();
            self.remember(conn, wire.escape_ascii().to_string());
            self.send(conn, &[wire.clone(), wire.clone()]);
            self.settle_direct(wire.len(), conn);
            self.compare(conn, rule);
            return self.forget_compared();
        }
        let mut wire = self.unfinished[conn].take().unwrap_or_default();
        for request in &requests {
            for (side, out) in [&self.worlds.direct, &self.worlds.proxied].into_iter().zip(&mut wire) {
                request.pack(|c| side.links[c].id.expect("a known id"), out);
            }
            self.remember(conn, request.show());
        }
        self.told.requests += requests.len();
        let mut silent = requests.iter().any(Request::is_client_reply);
        let may_add = rule == Rule::Exact && !requests.last().is_some_and(Request::may_block);
        // A server that may not answer what it closes for, closes only if something before it is still to be written.
        let may_be_garbage = may_add && !self.silenced[conn];
        match self.rng.random_range(0..200) {
            0..2 if may_be_garbage => {
                let garbage = *GARBAGE.choose(&mut self.rng).expect("garbage");
                wire.iter_mut().for_each(|w| w.extend_from_slice(garbage));
                self.remember(conn, format!("garbage {:?}", garbage.escape_ascii().to_string()));
                silent = true;
            }
            195..200 if may_add && self.hostile.as_ref().is_some_and(|h| h.is_attacker(conn)) => {
                let endless = *ENDLESS.choose(&mut self.rng).expect("endless");
                wire.iter_mut().for_each(|w| w.extend_from_slice(endless));
                self.remember(conn, format!("endless {:?}", endless.escape_ascii().to_string()));
                self.stuck[conn] = true;
                silent = true;
            }
            2..6 if may_add => {
                let nothing = *NOTHING.choose(&mut self.rng).expect("nothing");
                wire.iter_mut().for_each(|w| w.extend_from_slice(nothing));
                self.remember(conn, format!("nothing {:?}", nothing.escape_ascii().to_string()));
            }
            // The rest of the last request comes with the next ones.
            6..12 if may_add && wire[0] == wire[1] => {
                let keep = self.rng.random_range(1..wire[0].len().min(200));
                let rest = wire[0].split_off(wire[0].len() - keep);
                wire[1].truncate(wire[0].len());
                self.unfinished[conn] = Some([rest.clone(), rest]);
                self.remember(conn, format!("(but for its last {keep} bytes)"));
                silent = true;
            }
            _ => {}
        }
        self.send(conn, &wire);
        let sent = wire[0].len();
        let answered = self.settle_direct(sent, conn);
        self.compare(conn, rule);
        if answered < requests.len() || silent {
            self.same_silent_state("requests without replies");
        }
        if rule == Rule::Ids && requests[0].show().eq_ignore_ascii_case("CLIENT ID") && answered == 1 {
            self.learn_ids(conn);
        }
        self.forget_compared();
    }

    /// Both worlds get the same pieces: as a whole, or cut anywhere.
    fn send(&mut self, conn: usize, wire: &[Vec<u8>; 2]) {
        let cuts: Vec<f64> = if self.rng.random_bool(0.6) {
            Vec::new()
        } else {
            let mut cuts: Vec<f64> = (0..self.rng.random_range(1..6)).map(|_| self.rng.random()).collect();
            cuts.sort_by(f64::total_cmp);
            cuts
        };
        for (side, wire) in [&mut self.worlds.direct, &mut self.worlds.proxied].into_iter().zip(wire) {
            let mut at = 0;
            for cut in &cuts {
                let to = (wire.len() as f64 * cut) as usize;
                side.send(conn, &wire[at..to]);
                at = to;
                std::thread::sleep(Duration::from_micros(100));
            }
            side.send(conn, &wire[at..]);
        }
    }

    /// Until the server that is reached directly has nothing more to say; how many values it said on the
    /// connection that asked.
    fn settle_direct(&mut self, sent: usize, conn: usize) -> usize {
        self.worlds.direct.settle(sent);
        self.client_states = self.worlds.direct.client_states();
        let told = &mut self.told;
        for link in &self.worlds.direct.links {
            told.reply_bytes += link.got.len();
            told.errors += usize::from(link.got.starts_with(b"-"));
            told.closed += usize::from(link.closed);
        }
        told.pushes_to_others +=
            self.worlds.direct.links.iter().filter(|l| !l.got.is_empty()).count().saturating_sub(1);
        told.blocked += self.client_states.iter().filter(|s| s.blocked).count();
        told.in_multi += self.client_states.iter().filter(|s| s.in_multi).count();
        told.subscribed += self.client_states.iter().filter(|s| s.subscribed).count();
        told.resp3 += self.client_states.iter().filter(|s| s.resp3).count();
        values(&self.worlds.direct.links[conn].got).0.len()
    }

    /// Waits until every connection has the same in both worlds. `conn`: the one to which `rule` applies.
    fn compare(&mut self, conn: usize, rule: Rule) {
        while self.invalidated.pop_front_if(|(step, ..)| *step + REPEATED_FOR < self.step).is_some() {}
        let broadcast =
            self.broadcast || self.client_states.iter().any(|s| s.broadcast) || !self.invalidated.is_empty();
        let ids = &self.names;
        let rule_of = |c: usize| if c == conn { rule } else { Rule::Exact };
        let started = Instant::now();
        for other in 0..self.client_states.len() {
            let rule = rule_of(other);
            // What another's tracking has sent here comes by this session's own connection, its replies by a shared one:
            // in which order, nobody can say.
            let state = &self.client_states[other];
            let loose = broadcast || self.worlds.shares && state.resp3 && state.is_redirected_to;
            let told = invalidated(&self.worlds.direct.links[other].got);
            let before = self.invalidated.iter().filter(|(_, link, _)| *link == other);
            let late: Keys = before.flat_map(|(.., keys)| keys - &told).collect();
            let (none, late) = (Some(Keys::new()).filter(|_| loose), Some(late).filter(|_| loose));
            loop {
                let (want, got) = (&self.worlds.direct.links[other], &self.worlds.proxied.links[other]);
                let same = want.closed == got.closed && {
                    want.got == got.got
                        || comparable(&want.got, rule, &ids[0], none.as_ref())
                            == comparable(&got.got, rule, &ids[1], late.as_ref())
                        // An id that nobody has been told is compared in kind; then it is learnt.
                        || rule == Rule::Ids && both_are_numbers(&want.got, &got.got) && want.id.is_none()
                        // A server that closes while requests lie unread (behind a QUIT) resets the connection, and
                        // the end of a long reply may be lost: by chance, and here it was lost directly.
                        || want.reset && got.got.starts_with(&want.got)
                };
                if same {
                    break;
                }
                if started.elapsed() > PATIENCE {
                    self.differs(other, rule);
                }
                if self.worlds.proxied.drain() == 0 {
                    std::thread::sleep(Duration::from_micros(50));
                }
            }
            if broadcast && !told.is_empty() {
                self.invalidated.push_back((self.step, other, told));
            }
        }
    }

    fn forget_compared(&mut self) {
        for side in [&mut self.worlds.direct, &mut self.worlds.proxied] {
            for link in side.links.iter_mut().filter(|l| !l.got.is_empty()) {
                std::mem::swap(&mut link.compared, &mut link.got);
                link.got.clear();
            }
        }
    }

    fn learn_ids(&mut self, conn: usize) {
        for side in [&mut self.worlds.direct, &mut self.worlds.proxied] {
            let said = String::from_utf8_lossy(&side.links[conn].got).into_owned();
            side.links[conn].id = said.strip_prefix(':').and_then(|n| n.trim_end().parse().ok());
        }
        if let (Some(a), Some(b)) = (self.worlds.direct.links[conn].id, self.worlds.proxied.links[conn].id) {
            let name = *self.names[0].get(&a).unwrap_or(&self.names[0].len());
            self.names[0].insert(a, name);
            self.names[1].insert(b, name);
        }
    }

    fn same_silent_state(&mut self, why: &str) {
        let started = Instant::now();
        loop {
            let (want, got) = (self.worlds.direct.silent_state(), self.worlds.proxied.silent_state());
            if want == got {
                break;
            }
            if started.elapsed() > SILENT_PATIENCE {
                panic!(
                    "{}\nthe servers differ ({why})\ndirectly {want:?}\n{}\nproxied {got:?}\n{}\n{}",
                    self.hint(),
                    self.worlds.direct.clients(),
                    self.worlds.proxied.clients(),
                    self.all_history()
                );
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        // What has no trace there (MULTI, tracking, names) may still be under way.
        std::thread::sleep(Duration::from_millis(2));
    }

    fn time_passes(&mut self) {
        let by = *[1, 10, 60, 1000, 5000, 200_000].choose(&mut self.rng).expect("times");
        for c in 0..self.client_states.len() {
            self.remember(c, format!("({by} ms pass)"));
        }
        self.broadcast = false;
        self.worlds.advance(Duration::from_millis(by));
        self.settle_direct(0, 0);
        self.compare(usize::MAX, Rule::Exact);
        self.forget_compared();
    }

    /// A client goes away: at once, or after it has ended its sending direction.
    fn leave(&mut self, conn: usize) {
        self.remember(conn, "(the client leaves)".to_owned());
        for side in [&mut self.worlds.direct, &mut self.worlds.proxied] {
            side.links[conn].shut();
            side.links[conn].got.clear();
            side.reopen(conn);
        }
        self.forget(conn);
        self.settle_direct(0, 0);
        self.same_silent_state("a client left");
        // What that means to others: broken redirections.
        self.settle_direct(0, 0);
        self.compare(usize::MAX, Rule::Exact);
        self.forget_compared();
    }

    fn reopen_closed(&mut self) {
        for conn in 0..self.client_states.len() {
            if self.worlds.direct.links[conn].closed {
                self.remember(conn, "(closed by the server)".to_owned());
                self.worlds.direct.reopen(conn);
                self.worlds.proxied.reopen(conn);
                self.forget(conn);
                self.client_states[conn] = ClientState::default();
                self.same_silent_state("a connection was closed");
            }
        }
    }

    fn forget(&mut self, conn: usize) {
        self.unfinished[conn] = None;
        self.silenced[conn] = false;
        self.stuck[conn] = false;
        if let Some(hostile) = &mut self.hostile {
            hostile.forget(conn);
        }
    }

    fn remember(&mut self, conn: usize, what: String) {
        let history = &mut self.history[conn];
        history.push_back(format!("[{}] {what}", self.step));
        while history.len() > HISTORY {
            history.pop_front();
        }
    }

    fn hint(&self) -> String {
        format!("again: REDTAPE_SEED={} REDTAPE_STEPS={} (it fails at step {})", self.seed, self.step, self.step)
    }

    fn history_of(&self, conn: usize) -> String {
        let lines: Vec<&str> = self.history[conn].iter().map(String::as_str).collect();
        format!("connection {conn} said:\n  {}\n", lines.join("\n  "))
    }

    fn all_history(&self) -> String {
        (0..self.history.len()).map(|c| self.history_of(c)).collect()
    }

    fn differs(&mut self, conn: usize, rule: Rule) -> ! {
        let clients = self.worlds.proxied.clients();
        let show = |l: &super::sides::Link| {
            let end = if l.closed { "<closed>" } else { "" };
            let text = |bytes: &[u8]| bytes[..bytes.len().min(3000)].escape_ascii().to_string();
            format!("{} bytes {}{end}\n  (before: {})", l.got.len(), text(&l.got), text(&l.compared))
        };
        let (want, got) = (&self.worlds.direct.links[conn], &self.worlds.proxied.links[conn]);
        let same = want.got.iter().zip(&got.got).take_while(|(a, b)| a == b).count();
        panic!(
            "{}\nconnection {conn} ({rule:?}), {:?}: bytes differ from {same} on\ndirectly {}\nproxied  {}\n{clients}\n{}",
            self.hint(),
            self.client_states[conn],
            show(want),
            show(got),
            self.history_of(conn)
                + &(0..self.history.len()).filter(|c| *c != conn).map(|c| self.history_of(c)).collect::<String>()
        );
    }
}

fn both_are_numbers(a: &[u8], b: &[u8]) -> bool {
    a.starts_with(b":") && b.starts_with(b":")
}
