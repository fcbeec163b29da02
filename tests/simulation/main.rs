//! The simulation: seeded browsers, users, admins, clock and policies against the real table, beside a naive model.
//!
//! The model is a flat list without locks, indexes or sweeper; after every step the table must say the same of every
//! token ever issued, hold every user to the limit, and have counted what it only observes. `TENURE_SEEDS=1000` runs that many seeds, `TENURE_SEED=42` replays one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod checks;
mod model;
#[path = "../support/random.rs"]
#[allow(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod random;
#[path = "../store_support/mod.rs"]
mod store_support;

use std::num::NonZeroU32;
use std::sync::Arc;

use model::{Naive, Role, Value};
use random::Random;
use store_support::{AT, Recorder, book, companion, identity, key, newcomer, secs, token};
use tempfile::TempDir;
use tenure::clock::Clock;
use tenure::session::gate::Standing;
use tenure::session::profile::CookieKind;
use tenure::session::record::{Mode, NewToken, PENDING_FOR};
use tenure::session::{EndReason, Moment, OnLimit, Policy};
use tenure::store::{Book, Disk, Enrolled, Newcomer, Opened, Opening, SessionRef, Table, Trouble};

const STEPS: usize = 300;
const USERS: [&str; 3] = ["ann", "bob", "cid"];
/// Few, so that eviction happens.
const ANONYMOUS: usize = 5;

struct World {
    random: Random,
    recorder: Arc<Recorder>,
    table: Arc<Table>,
    /// Where every other seed keeps its sessions.
    store: Option<Store>,
    restarted: bool,
    now: Moment,
    policy: Policy,
    mode: Mode,
    sessions: Vec<(SessionRef, Naive)>,
    /// Every value ever issued, its kind, and the session it stands for.
    issued: Vec<(CookieKind, Option<usize>)>,
    turns: u64,
}

struct Store {
    disk: Disk,
    place: TempDir,
}

impl Store {
    fn open(place: TempDir, book: Book, recorder: &Arc<Recorder>, now: Moment) -> (Arc<Table>, Self) {
        let (clock, trouble) = (Clock::manual(now), Arc::new(Trouble::default()));
        let opening = Opening { path: place.path(), secrets: None, clock, trouble };
        let Opened { table, disk, .. } = Disk::open(&opening, book, recorder.clone()).unwrap();
        (table, Self { disk, place })
    }
}

fn bounded(policy: Policy, mode: Mode) -> Book {
    let mut book = book(policy);
    book.apps[0].mode = mode;
    book.anonymous_sessions = ANONYMOUS;
    book
}

fn new_token(n: u64, kind: CookieKind) -> NewToken {
    match kind {
        CookieKind::Session => token(n),
        CookieKind::Companion => companion(n),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let (policy, mode) = (some_policy(&mut random), Mode::Enforce);
        let recorder = Arc::new(Recorder::default());
        let book = bounded(policy, mode);
        let (table, store) = match seed % 2 {
            0 => {
                let (table, store) = Store::open(tempfile::tempdir().unwrap(), book, &recorder, AT);
                (table, Some(store))
            }
            _ => (Arc::new(Table::new(book, recorder.clone())), None),
        };
        let (sessions, issued, restarted) = (Vec::new(), Vec::new(), false);
        Self { random, recorder, table, store, restarted, now: AT, policy, mode, sessions, issued, turns: 0 }
    }

    fn issue(&mut self, kind: CookieKind) -> u64 {
        self.issued.push((kind, None));
        self.issued.len() as u64 - 1
    }

    fn owner(&self, n: u64) -> Option<usize> {
        self.issued[usize::try_from(n).unwrap()].1
    }

    fn settle_model(&mut self) {
        for i in 0..self.sessions.len() {
            if let Some((reason, at)) = self.sessions[i].1.is_due(self.now) {
                self.end(i, reason, at);
            }
        }
    }

    /// The session ends, and the companions it shares with others die with it.
    fn end(&mut self, i: usize, reason: EndReason, at: Moment) {
        let naive = &mut self.sessions[i].1;
        (naive.ended, naive.ended_at) = (Some(reason), at);
        let values = naive.values.clone();
        for value in values.iter().filter(|v| v.kind == CookieKind::Companion && !v.is_over(at)) {
            let owner = self.owner(value.n).map(|owner| &self.sessions[owner].1);
            let is_dead = owner.is_some_and(|owner| {
                owner.ended.is_some() && owner.value(value.n, self.judged_at(owner)).is_some()
            });
            // Also where it stood for nobody any more.
            if !is_dead || owner.is_some_and(|owner| owner.evicted) {
                self.issued[usize::try_from(value.n).unwrap()].1 = Some(i);
            }
        }
    }

    /// Whether the session `i` may hold `n`, which stands for it from now on unless another live one shares it.
    fn link(&mut self, n: u64, i: usize, recycles: bool, predecessor: Option<usize>) -> bool {
        let kind = self.issued[usize::try_from(n).unwrap()].0;
        let owner = self.owner(n).filter(|owner| *owner != i);
        let (holds, owns) = match owner.map(|owner| (owner, &self.sessions[owner].1)) {
            Some((_, owner)) if owner.evicted => (true, true),
            Some((_, naive)) if naive.value(n, self.judged_at(naive)).is_none() => (true, true),
            Some((owner, naive)) if naive.ended.is_some() => {
                let may = predecessor == Some(owner) || (recycles && naive.ended_at <= self.now);
                (may, may)
            }
            Some(_) => (kind == CookieKind::Companion, false),
            None => (true, true),
        };
        if owns {
            self.issued[usize::try_from(n).unwrap()].1 = Some(i);
        }
        holds
    }

    fn judged_at(&self, naive: &Naive) -> Moment {
        if naive.ended.is_some() { naive.ended_at.min(self.now) } else { self.now }
    }

    fn step(&mut self) {
        self.settle_model();
        match self.random.below(20) {
            0..=2 => self.visit_anonymously(),
            3..=5 => self.sign_in_anew(),
            6 => self.sign_in_on_anonymous(),
            7..=9 => self.request(),
            10 => self.request_by_what_was_found_before(),
            11 | 12 => self.rotate(),
            13 => self.end_one(),
            14 => self.switch(),
            15 => self.change_policy(),
            16 => drop(self.table.sweep(self.now)),
            17 => self.retry_pending(),
            18 if self.random.one_in(4) => self.restart(),
            _ => {
                let step = self.random.pick(&[1, 5, 9, 10, 11, 59, 60, 61, 119, 120, 301, 3600]);
                self.now = self.now.plus(secs(step));
            }
        }
        self.settle_model();
        self.check_invariants();
    }

    fn naive(&mut self, user: Option<&'static str>) -> Naive {
        self.turns += 1;
        let mut naive = Naive {
            user,
            created: self.now,
            signed_in: user.map(|_| self.now),
            active: self.now,
            mode: self.mode,
            deadline: self.now,
            reason: EndReason::IdleTimeout,
            pending_until: None,
            ended: None,
            ended_at: self.now,
            evicted: false,
            values: Vec::new(),
            turn: (false, self.turns),
            counted: Vec::new(),
        };
        naive.compute(&self.policy);
        naive
    }

    /// The value of a new session: a fresh one, or one that the app recycles (R12).
    fn some_value(&mut self) -> u64 {
        let dead = |(n, (kind, owner)): (usize, &(CookieKind, Option<usize>))| {
            let ended = owner.is_some_and(|owner| self.sessions[owner].1.ended.is_some());
            (*kind == CookieKind::Session && ended).then_some(n as u64)
        };
        let dead: Vec<u64> = self.issued.iter().enumerate().filter_map(dead).collect();
        // Who took a value over from whom is known to one process alone: with restarts none is used again.
        if self.store.is_some() || dead.is_empty() || !self.random.one_in(4) {
            return self.issue(CookieKind::Session);
        }
        self.random.pick(&dead)
    }

    fn newcomer(&mut self, n: u64) -> Newcomer {
        let recycles = (!self.random.one_in(3)).then_some(self.now);
        Newcomer { recycles, ..newcomer(&[n]) }
    }

    fn visit_anonymously(&mut self) {
        let n = self.some_value();
        let newcomer = self.newcomer(n);
        let i = self.sessions.len();
        let naive = self.naive(None);
        let begins = self.link(n, i, newcomer.recycles.is_some(), None);
        let session = self.table.start(&newcomer, self.now);
        assert_eq!(begins, self.sessions.iter().all(|(known, _)| !known.is(&session)));
        if !begins {
            return;
        }
        self.sessions.push((session, naive));
        self.sessions[i].1.hold(n, CookieKind::Session);
        let anonymous = |s: &Naive| s.user.is_none() && !s.is_over();
        while self.sessions.iter().filter(|(_, s)| anonymous(s)).count() > ANONYMOUS {
            let others = self.sessions[..i].iter_mut().filter(|(_, s)| anonymous(s));
            others.min_by_key(|(_, s)| s.turn).unwrap().1.evicted = true;
        }
    }

    fn sign_in_anew(&mut self) {
        let (user, n) = (self.random.pick(&USERS), self.some_value());
        let mut newcomer = self.newcomer(n);
        if self.random.one_in(2) {
            let companions: Vec<u64> = (0_u64..)
                .zip(&self.issued)
                .filter_map(|(n, (kind, _))| (*kind == CookieKind::Companion).then_some(n))
                .collect();
            let known = !companions.is_empty() && self.random.one_in(2);
            let n = if known { self.random.pick(&companions) } else { self.issue(CookieKind::Companion) };
            newcomer.tokens.push(companion(n));
            return self.sign_in_with(user, &newcomer, &[n]);
        }
        self.sign_in_with(user, &newcomer, &[]);
    }

    fn sign_in_with(&mut self, user: &'static str, newcomer: &Newcomer, companions: &[u64]) {
        let i = self.sessions.len();
        let sid = (0..self.issued.len() as u64).find(|n| newcomer.tokens[0].key == key(*n)).unwrap();
        let mut naive = self.naive(Some(user));
        for n in std::iter::once(sid).chain(companions.iter().copied()) {
            if self.link(n, i, newcomer.recycles.is_some(), None) {
                naive.hold(n, self.issued[usize::try_from(n).unwrap()].0);
            }
        }
        let enrolled = self.table.sign_in(newcomer, identity(user), self.now);
        if naive.values.is_empty() {
            assert!(matches!(enrolled, Enrolled::Over), "a dead value begins nothing");
            return;
        }
        self.admit(enrolled, naive, None);
    }

    /// The model's admission: as the contract's words say it.
    fn admit(&mut self, enrolled: Enrolled, mut naive: Naive, replaces: Option<usize>) {
        let live = self.live_of(naive.user.unwrap(), replaces);
        let keep = self.policy.max_concurrent.map_or(usize::MAX, |max| max.get() as usize - 1);
        let holds_back = live.len() > keep && self.policy.on_limit.holds_back();
        let session = match enrolled {
            Enrolled::Active(session) => {
                assert!(!holds_back || self.mode == Mode::Observe, "should have been held back");
                naive.pending_until = None;
                session
            }
            Enrolled::Pending(session) => {
                assert!(holds_back && self.mode == Mode::Enforce, "should not have been held back");
                naive.pending_until.get_or_insert(self.now.plus(PENDING_FOR));
                session
            }
            Enrolled::Over => panic!("a live session was called over"),
        };
        if holds_back && self.mode == Mode::Observe {
            naive.count(EndReason::MaxConcurrent);
        }
        match replaces {
            Some(i) => self.sessions[i] = (session, naive),
            None => self.sessions.push((session, naive)),
        }
        if !self.policy.on_limit.holds_back() {
            self.end_beyond(&live, keep);
        }
    }

    /// The user's live sign-ins, those first that end first.
    fn live_of(&self, user: &str, but: Option<usize>) -> Vec<usize> {
        let rival = |i: &usize| Some(*i) != but && self.sessions[*i].1.is_rival(user);
        let mut live: Vec<usize> = (0..self.sessions.len()).filter(rival).collect();
        live.sort_by_key(|i| {
            let (session, naive) = &self.sessions[*i];
            let idlest = self.policy.on_limit == OnLimit::EndIdlest;
            (idlest.then_some(naive.active), naive.signed_in, session.id())
        });
        live
    }

    fn end_beyond(&mut self, live: &[usize], keep: usize) {
        for i in &live[..live.len().saturating_sub(keep)] {
            match self.mode {
                Mode::Enforce => self.end(*i, EndReason::MaxConcurrent, self.now),
                Mode::Observe => self.sessions[*i].1.count(EndReason::MaxConcurrent),
            }
        }
    }

    fn sign_in_on_anonymous(&mut self) {
        let anonymous = self.sessions.iter().position(|(_, s)| s.user.is_none() && s.is_live());
        let Some(i) = anonymous else { return };
        let (user, n) = (self.random.pick(&USERS), self.issue(CookieKind::Session));
        let (session, mut naive) = self.sessions[i].clone();
        let enrolled = self.table.identify(&session, &[token(n)], identity(user), self.now);
        self.link(n, i, false, None);
        naive.user = Some(user);
        naive.signed_in = Some(self.now);
        naive.active = naive.active.max(self.now);
        naive.replace(n, CookieKind::Session, self.now);
        naive.compute(&self.policy);
        self.admit(enrolled, naive, Some(i));
        let again = self.table.identify(&session, &[], identity(user), self.now);
        assert!(matches!(again, Enrolled::Over), "nobody signs in twice on one anonymous session");
    }

    /// A browser presents any value that was ever issued, as the gate takes it.
    fn request(&mut self) {
        if self.issued.is_empty() {
            return;
        }
        let n = self.random.below(self.issued.len()) as u64;
        let (Standing::Live { alias, .. }, Some(session)) = self.table.look_up(key(n), self.now) else {
            return;
        };
        let touch = !alias && self.random.below(3) > 0;
        assert!(self.table.note_request(&session, key(n), touch, self.now));
        self.note(self.owner(n).unwrap(), n, touch);
    }

    /// A request that was judged before what has happened since.
    fn request_by_what_was_found_before(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let (i, n) = (self.random.below(self.sessions.len()), self.random.below(self.issued.len()) as u64);
        let (session, naive) = &self.sessions[i];
        let lives = naive.is_live() && naive.value(n, self.now).is_some();
        assert_eq!(self.table.is_live(session, key(n), self.now), lives, "{n} of {naive:?}");
        assert_eq!(self.table.note_request(session, key(n), true, self.now), lives);
        if lives {
            self.note(i, n, true);
        }
    }

    fn note(&mut self, i: usize, n: u64, touch: bool) {
        let (now, policy) = (self.now, self.policy);
        let naive = &mut self.sessions[i].1;
        naive.present(n, now);
        let minute = |moment: Moment| moment.unix_ms() / 60_000;
        let stirs = !naive.turn.0 || (touch && minute(naive.active) != minute(now));
        if touch {
            naive.active = now;
            naive.compute(&policy);
        }
        if stirs {
            self.turns += 1;
            naive.turn = (true, self.turns);
        }
    }

    /// An answer sets a new value, or one of its session's own again; its request may have carried any of them.
    fn rotate(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let i = self.random.below(self.sessions.len());
        let naive = self.sessions[i].1.clone();
        let carried = self.random.pick(&naive.values).n;
        let (n, kind) = match self.random.below(6) {
            0 => {
                let again = self.random.pick(&naive.values);
                (again.n, again.kind)
            }
            1 => (self.issue(CookieKind::Companion), CookieKind::Companion),
            _ => (self.issue(CookieKind::Session), CookieKind::Session),
        };
        let rotated = self.table.rotate(&self.sessions[i].0, &[new_token(n, kind)], key(carried), self.now);
        assert_eq!(rotated, naive.is_live());
        if rotated && self.link(n, i, false, None) {
            let now = self.now;
            self.sessions[i].1.rotate(n, kind, carried, now);
        }
    }

    fn end_one(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let i = self.random.below(self.sessions.len());
        let reason = self.random.pick(&[EndReason::Revoked, EndReason::Logout]);
        let ended = self.table.end(&self.sessions[i].0, reason, None, self.now);
        assert_eq!(ended, !self.sessions[i].1.is_over(), "an end happens once");
        if ended {
            self.end(i, reason, self.now);
        }
    }

    /// The process ends, and another one takes up what it left.
    fn restart(&mut self) {
        let Some(Store { disk, place }) = self.store.take() else { return };
        drop(disk);
        let (table, store) = Store::open(place, bounded(self.policy, self.mode), &self.recorder, self.now);
        (self.table, self.store, self.restarted) = (table, Some(store), true);
        for (session, _) in &mut self.sessions {
            // One that was forgotten is not there; of the old process's nothing more is heard.
            if let Some(found) = self.table.by_id(session.id()) {
                *session = found;
            }
        }
        self.take_turns_anew();
        for n in 0..self.issued.len() as u64 {
            self.issued[usize::try_from(n).unwrap()].1 = self.heir(n);
        }
    }

    /// Visitors stand in the order of their activity again.
    fn take_turns_anew(&mut self) {
        let is_visitor = |s: &Naive| s.user.is_none() && !s.is_over();
        let mut visitors: Vec<usize> =
            (0..self.sessions.len()).filter(|i| is_visitor(&self.sessions[*i].1)).collect();
        visitors.sort_by_key(|i| (self.sessions[*i].1.active, self.sessions[*i].0.id()));
        for i in visitors {
            self.turns += 1;
            self.sessions[i].1.turn.1 = self.turns;
        }
    }

    /// Whose a value is that several sessions held: the one's that ended last, unless another one began since.
    fn heir(&self, n: u64) -> Option<usize> {
        let held = |i: &usize| {
            let naive = &self.sessions[*i].1;
            !naive.evicted && naive.value(n, self.judged_at(naive)).is_some()
        };
        (0..self.sessions.len()).filter(held).max_by_key(|i| {
            let (session, naive) = &self.sessions[*i];
            let at = if naive.ended.is_some() { naive.ended_at } else { naive.created };
            (at, naive.ended.is_none(), session.id())
        })
    }

    fn switch(&mut self) {
        let Some(old) = self.sessions.iter().position(|(_, s)| s.user.is_some()) else { return };
        let old = old + self.random.below(self.sessions.len() - old);
        let (user, n) = (self.random.pick(&USERS), self.issue(CookieKind::Session));
        let (session, before) = self.sessions[old].clone();
        let reason = EndReason::AccountSwitched;
        let newcomer = Newcomer { recycles: None, ..newcomer(&[n]) };
        let enrolled = self.table.succeed(&session, reason, newcomer, identity(user), self.now);
        if before.is_over() {
            assert!(matches!(enrolled, Enrolled::Over), "nobody succeeds a session that is over");
            return;
        }
        self.end(old, reason, self.now);
        let (i, mut naive) = (self.sessions.len(), self.naive(Some(user)));
        self.link(n, i, false, None);
        naive.hold(n, CookieKind::Session);
        let current = |v: &&Value| v.role == Role::Current && v.kind == CookieKind::Companion;
        for value in before.values.iter().filter(current) {
            if self.link(value.n, i, false, Some(old)) {
                naive.hold(value.n, value.kind);
            }
        }
        self.admit(enrolled, naive, None);
    }

    fn retry_pending(&mut self) {
        let pending = self.sessions.iter().position(|(_, s)| !s.is_over() && s.pending_until.is_some());
        let Some(i) = pending else { return };
        let (session, mut naive) = self.sessions[i].clone();
        let enrolled = self.table.admit_pending(&session, self.now);
        if matches!(enrolled, Enrolled::Active(_)) {
            naive.active = self.now;
            naive.compute(&self.policy);
        }
        self.admit(enrolled, naive, Some(i));
    }

    fn change_policy(&mut self) {
        self.policy = some_policy(&mut self.random);
        self.mode = if self.random.one_in(4) { Mode::Observe } else { Mode::Enforce };
        self.table.set_book(bounded(self.policy, self.mode), self.now);
        for i in 0..self.sessions.len() {
            let (policy, mode, now) = (self.policy, self.mode, self.now);
            let naive = &mut self.sessions[i].1;
            if !naive.is_over() {
                naive.mode = mode;
                naive.compute(&policy);
                if let Some((reason, _)) = naive.is_due(now) {
                    self.end(i, reason, now);
                }
            }
        }
        // A lowered limit: what a sign-in would have ended ends; nobody who is in where the policy holds back.
        let max = self.policy.max_concurrent.map_or(usize::MAX, |max| max.get() as usize);
        let ends = !self.policy.on_limit.holds_back();
        for user in USERS.iter().filter(|_| ends) {
            let live = self.live_of(user, None);
            self.end_beyond(&live, max);
        }
    }
}

fn some_policy(random: &mut Random) -> Policy {
    let spans = [None, Some(secs(60)), Some(secs(300)), Some(secs(3600))];
    Policy {
        idle_timeout: random.pick(&spans),
        force_relogin: random.pick(&spans),
        max_concurrent: NonZeroU32::new(u32::try_from(random.below(4)).unwrap()),
        on_limit: random.pick(&[OnLimit::EndOldest, OnLimit::EndIdlest, OnLimit::Ask, OnLimit::Refuse]),
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
}

#[test]
fn the_table_agrees_with_the_naive_model() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let seeds = match number("TENURE_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("TENURE_SEEDS").unwrap_or(100),
    };
    let mut ran = 0;
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "failed; replay with TENURE_SEED={seed}");
        ran += 1;
    }
    assert!(ran > 0, "no seed was run");
}
