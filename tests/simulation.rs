//! The simulation: seeded browsers, users, admins, clock and policies against the real table, beside a naive model.
//!
//! The model is a flat list without locks, indexes or sweeper; after every step the table must say the same of every
//! token ever issued. `TENURE_SEEDS=1000` runs that many seeds, `TENURE_SEED=42` replays one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test's helpers may fail as loudly as the test"
)]

mod store_support;

use std::num::NonZeroU32;
use std::sync::Arc;

use store_support::{AT, Recorder, book, identity, key, newcomer, secs, token};
use tenure::session::gate::Standing;
use tenure::session::record::PENDING_FOR;
use tenure::session::{EndReason, Moment, OnLimit, Policy, Span};
use tenure::store::{Enrolled, SessionRef, Table};

const STEPS: usize = 300;
const GRACE: Span = Span::from_secs(10);
const USERS: [&str; 3] = ["ann", "bob", "cid"];

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What the model knows of one session.
#[derive(Clone, Debug)]
struct Naive {
    user: Option<&'static str>,
    created: Moment,
    signed_in: Option<Moment>,
    active: Moment,
    /// As last computed (R1).
    deadline: Moment,
    reason: EndReason,
    pending_until: Option<Moment>,
    ended: Option<EndReason>,
    ended_at: Moment,
    current: u64,
    alias: Option<(u64, Moment)>,
}

impl Naive {
    fn compute(&mut self, policy: &Policy) {
        let idle = policy.idle_timeout.map_or(Moment::MAX, |s| self.active.plus(s));
        let start = self.signed_in.unwrap_or(self.created);
        let life = policy.force_relogin.map_or(Moment::MAX, |s| start.plus(s));
        self.deadline = idle.min(life);
        self.reason = if life <= idle { EndReason::ForceRelogin } else { EndReason::IdleTimeout };
    }

    fn settle(&mut self, now: Moment) {
        if self.ended.is_some() {
            return;
        }
        if let Some(until) = self.pending_until {
            if now >= until {
                self.end(EndReason::MaxConcurrent, until);
            }
        } else if now >= self.deadline {
            self.end(self.reason, self.deadline);
        }
    }

    fn end(&mut self, reason: EndReason, at: Moment) {
        self.ended = Some(reason);
        self.ended_at = at;
    }

    fn is_live(&self) -> bool {
        self.ended.is_none() && self.pending_until.is_none()
    }
}

struct World {
    random: Random,
    table: Table,
    now: Moment,
    policy: Policy,
    sessions: Vec<(SessionRef, Naive)>,
    tokens: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let policy = some_policy(&mut random);
        let table = Table::new(book(policy), Arc::new(Recorder::default()));
        Self { random, table, now: AT, policy, sessions: Vec::new(), tokens: 0 }
    }

    fn fresh(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    fn settle_model(&mut self) {
        let now = self.now;
        self.sessions.iter_mut().for_each(|(_, naive)| naive.settle(now));
    }

    fn some_session(&mut self) -> Option<usize> {
        (!self.sessions.is_empty()).then(|| self.random.below(self.sessions.len()))
    }

    fn step(&mut self) {
        self.settle_model();
        match self.random.below(16) {
            0 | 1 => self.visit_anonymously(),
            2..=4 => self.sign_in_anew(),
            5 => self.sign_in_on_anonymous(),
            6..=8 => self.request(),
            9 => self.rotate(),
            10 => self.end_one(),
            11 => self.switch(),
            12 => self.change_policy(),
            13 => {
                self.table.sweep(self.now);
            }
            14 => self.retry_pending(),
            _ => {
                let step = self.random.pick(&[1, 5, 9, 10, 11, 59, 60, 61, 119, 120, 301, 3600]);
                self.now = self.now.plus(secs(step));
            }
        }
        self.settle_model();
        self.check_invariants();
    }

    fn naive(&self, user: Option<&'static str>, current: u64) -> Naive {
        let mut naive = Naive {
            user,
            created: self.now,
            signed_in: user.map(|_| self.now),
            active: self.now,
            deadline: self.now,
            reason: EndReason::IdleTimeout,
            pending_until: None,
            ended: None,
            ended_at: self.now,
            current,
            alias: None,
        };
        naive.compute(&self.policy);
        naive
    }

    fn visit_anonymously(&mut self) {
        let value = self.fresh();
        let session = self.table.start(&newcomer(&[value]), self.now);
        let naive = self.naive(None, value);
        self.sessions.push((session, naive));
    }

    fn sign_in_anew(&mut self) {
        let (user, value) = (self.random.pick(&USERS), self.fresh());
        let enrolled = self.table.sign_in(&newcomer(&[value]), identity(user), self.now);
        let naive = self.naive(Some(user), value);
        self.admit(enrolled, naive, None);
    }

    /// The model's admission: as the contract's words say it.
    fn admit(&mut self, enrolled: Enrolled, mut naive: Naive, replaces: Option<usize>) {
        let live = self.live_of(naive.user.unwrap(), replaces);
        let keep = self.policy.max_concurrent.map_or(usize::MAX, |max| max.get() as usize - 1);
        let full = live.len() > keep;
        let session = match enrolled {
            Enrolled::Active(session) => {
                assert!(!full || !self.policy.on_limit.holds_back(), "should have been held back");
                session
            }
            Enrolled::Pending(session) => {
                assert!(full && self.policy.on_limit.holds_back(), "should not have been held back");
                naive.pending_until.get_or_insert(self.now.plus(PENDING_FOR));
                session
            }
            Enrolled::Over => panic!("a live session was called over"),
        };
        if !self.policy.on_limit.holds_back() {
            self.end_beyond(&live, keep);
        }
        match replaces {
            Some(i) => self.sessions[i] = (session, naive),
            None => self.sessions.push((session, naive)),
        }
    }

    fn sign_in_on_anonymous(&mut self) {
        let anonymous = self.sessions.iter().position(|(_, s)| s.user.is_none() && s.is_live());
        let Some(i) = anonymous else { return };
        let (user, value) = (self.random.pick(&USERS), self.fresh());
        let (session, mut naive) = self.sessions[i].clone();
        let enrolled = self.table.identify(&session, &[token(value)], identity(user), self.now);
        naive.user = Some(user);
        naive.signed_in = Some(self.now);
        naive.active = naive.active.max(self.now);
        naive.current = value;
        naive.alias = None;
        naive.compute(&self.policy);
        self.admit(enrolled, naive, Some(i));
    }

    fn request(&mut self) {
        let Some(i) = self.some_session() else { return };
        let touch = self.random.below(3) > 0;
        let (session, naive) = &mut self.sessions[i];
        let noted = self.table.note_request(session, key(naive.current), touch, self.now);
        assert_eq!(noted, naive.is_live(), "{naive:?}");
        if noted && touch {
            naive.active = self.now;
            naive.compute(&self.policy);
        }
    }

    fn rotate(&mut self) {
        let Some(i) = self.some_session() else { return };
        let value = self.fresh();
        let (session, naive) = &mut self.sessions[i];
        let rotated = self.table.rotate(session, &[token(value)], key(naive.current), self.now);
        assert_eq!(rotated, naive.is_live());
        if rotated {
            naive.alias = Some((naive.current, self.now.plus(GRACE)));
            naive.current = value;
        }
    }

    fn end_one(&mut self) {
        let Some(i) = self.some_session() else { return };
        let reason = self.random.pick(&[EndReason::Revoked, EndReason::Logout]);
        let (session, naive) = &mut self.sessions[i];
        let ended = self.table.end(session, reason, None, self.now);
        assert_eq!(ended, naive.ended.is_none(), "an end happens once");
        if ended {
            naive.end(reason, self.now);
        }
    }

    fn switch(&mut self) {
        let signed_in = self.sessions.iter().position(|(_, s)| s.user.is_some() && s.is_live());
        let Some(i) = signed_in else { return };
        let (user, value) = (self.random.pick(&USERS), self.fresh());
        let session = self.sessions[i].0.clone();
        let reason = EndReason::AccountSwitched;
        let enrolled = self.table.succeed(&session, reason, newcomer(&[value]), identity(user), self.now);
        self.sessions[i].1.end(reason, self.now);
        let naive = self.naive(Some(user), value);
        self.admit(enrolled, naive, None);
    }

    fn retry_pending(&mut self) {
        let pending = self.sessions.iter().position(|(_, s)| s.ended.is_none() && s.pending_until.is_some());
        let Some(i) = pending else { return };
        let (session, mut naive) = self.sessions[i].clone();
        let enrolled = self.table.admit_pending(&session, self.now);
        if matches!(enrolled, Enrolled::Active(_)) {
            naive.pending_until = None;
            naive.active = self.now;
            naive.compute(&self.policy);
        }
        self.admit(enrolled, naive, Some(i));
    }

    fn change_policy(&mut self) {
        self.policy = some_policy(&mut self.random);
        self.table.set_book(book(self.policy), self.now);
        let policy = self.policy;
        let now = self.now;
        for (_, naive) in self.sessions.iter_mut().filter(|(_, s)| s.ended.is_none()) {
            naive.compute(&policy);
            naive.settle(now);
        }
        for user in USERS {
            self.reckon(user);
        }
    }

    /// A lowered limit: what a sign-in would have ended ends; nobody who is in where the policy holds back.
    fn reckon(&mut self, user: &str) {
        let live = self.live_of(user, None);
        let max = self.policy.max_concurrent.map_or(usize::MAX, |max| max.get() as usize);
        if !self.policy.on_limit.holds_back() {
            self.end_beyond(&live, max);
        }
    }

    /// The user's live sign-ins, those first that end first.
    fn live_of(&self, user: &str, but: Option<usize>) -> Vec<usize> {
        let rival = |(i, (_, s)): (usize, &(SessionRef, Naive))| {
            (Some(i) != but && s.user == Some(user) && s.is_live() && s.signed_in.is_some()).then_some(i)
        };
        let mut live: Vec<usize> = self.sessions.iter().enumerate().filter_map(rival).collect();
        live.sort_by_key(|i| {
            let (session, naive) = &self.sessions[*i];
            let idlest = self.policy.on_limit == OnLimit::EndIdlest;
            (idlest.then_some(naive.active), naive.signed_in, session.id())
        });
        live
    }

    fn end_beyond(&mut self, live: &[usize], keep: usize) {
        for i in &live[..live.len().saturating_sub(keep)] {
            self.sessions[*i].1.end(EndReason::MaxConcurrent, self.now);
        }
    }

    /// The table and the model agree about every token ever issued, and about every limit.
    fn check_invariants(&mut self) {
        for (_, naive) in &self.sessions {
            let standing = self.table.look_up(key(naive.current), self.now).0;
            let agrees = match (naive.ended, naive.pending_until) {
                (Some(reason), _) => matches!(standing, Standing::Ended { reason: r, .. } if r == reason),
                (None, Some(_)) => matches!(standing, Standing::Pending { .. }),
                (None, None) => matches!(standing, Standing::Live { alias: false, .. }),
            };
            assert!(agrees, "{standing:?} but {naive:?} at {:?}", self.now);
            let Some((alias, until)) = naive.alias else { continue };
            let standing = self.table.look_up(key(alias), self.now).0;
            let live = matches!(standing, Standing::Live { alias: true, .. });
            assert_eq!(live, naive.is_live() && self.now < until, "alias {standing:?} but {naive:?}");
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
