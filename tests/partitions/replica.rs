//! One gateway over the shared store: its table alone, and what it told.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tenure::clock::{Clock, Stopwatch};
use tenure::config;
use tenure::session::gate::Standing;
use tenure::session::{EndReason, Moment, OnLimit, Policy, SessionId, Span};
use tenure::store::{
    Event, EventKind, Observer, Pace, Redis, RedisFault, RedisOpened, RedisOpening, SessionRef, Table,
    Trouble,
};

use crate::store_support::{book, key, secs};

/// The name of the fact that policies are kept under.
const POLICY: &str = "policy";

/// Faster than gateways beat otherwise: a seed is short, and waits for many of them.
const BEAT: Duration = Duration::from_millis(250);

/// After this long every gateway that its link lets has looked at the server.
pub(crate) const NOTICED: Duration = Duration::from_millis(600);

/// For how long a gateway does not ask again for a value that nobody knew, and says so itself.
const BELIEVED_US: u64 = 1_000_000;

/// What a policy says, in few enough bytes for a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Minutes; 0 for off.
    pub(crate) idle: u8,
    /// 0 for off.
    pub(crate) max: u8,
    pub(crate) on_limit: OnLimit,
}

impl Terms {
    const LIMITS: [OnLimit; 4] = [OnLimit::EndOldest, OnLimit::EndIdlest, OnLimit::Ask, OnLimit::Refuse];

    fn bytes(self) -> Vec<u8> {
        let on_limit = Self::LIMITS.iter().position(|known| *known == self.on_limit).unwrap();
        vec![self.idle, self.max, u8::try_from(on_limit).unwrap()]
    }

    fn read(bytes: &[u8]) -> Self {
        Self { idle: bytes[0], max: bytes[1], on_limit: Self::LIMITS[usize::from(bytes[2])] }
    }

    pub(crate) fn idle_timeout(self) -> Option<Span> {
        (self.idle > 0).then(|| secs(60 * u64::from(self.idle)))
    }

    pub(crate) fn policy(self) -> Policy {
        Policy {
            idle_timeout: self.idle_timeout(),
            force_relogin: None,
            max_concurrent: NonZeroU32::new(u32::from(self.max)),
            on_limit: self.on_limit,
        }
    }
}

/// The ends that were told, with the number of the gateway that told it.
#[derive(Default)]
pub(crate) struct Told(Mutex<Vec<(u32, SessionId, EndReason)>>);

impl Told {
    pub(crate) fn of(&self, id: SessionId) -> Vec<(u32, EndReason)> {
        let told = self.0.lock();
        told.iter().filter(|(_, of, _)| *of == id).map(|(by, _, reason)| (*by, *reason)).collect()
    }
}

struct Ear {
    number: u32,
    told: Arc<Told>,
}

impl Observer for Ear {
    fn observe(&self, event: &Event) {
        if let EventKind::Ended { reason, .. } = event.kind {
            self.told.0.lock().push((self.number, event.id, reason));
        }
    }
}

/// See the module.
pub(crate) struct Replica {
    /// Of all gateways of a seed, those that crashed among them.
    pub(crate) number: u32,
    pub(crate) table: Arc<Table>,
    pub(crate) clock: Clock,
    pub(crate) terms: Arc<Mutex<Terms>>,
    trouble: Arc<Trouble>,
    asked: AtomicU64,
    /// When a value was said to be unknown: that is believed for a second.
    unknown: Mutex<HashMap<u64, Stopwatch>>,
    _redis: Redis,
}

impl Replica {
    pub(crate) fn open(
        settings: &config::Redis,
        (number, now): (u32, Moment),
        usual: Terms,
        told: &Arc<Told>,
    ) -> Self {
        let trouble = Arc::new(Trouble::default());
        let opening = RedisOpening {
            settings,
            secrets: Some([7; 32].into()),
            clock: Clock::manual(now),
            trouble: Arc::clone(&trouble),
            // Two beats of a gateway: as long as it takes until the others have said that they are there.
            patience: Span::from_ms(600),
        };
        let terms = Arc::new(Mutex::new(usual));
        let kept =
            |facts: &HashMap<String, Vec<u8>>| facts.get(POLICY).map_or(usual, |fact| Terms::read(fact));
        let under = |facts: &HashMap<String, Vec<u8>>| {
            *terms.lock() = kept(facts);
            Ok(book(kept(facts).policy()))
        };
        let ear = Arc::new(Ear { number, told: Arc::clone(told) });
        let opened = Redis::open_at::<RedisFault>(Pace::of(BEAT), &opening, under, ear);
        let RedisOpened { table, redis, clock, .. } = opened.expect("the store opens");
        let hears = (Arc::downgrade(&table), Arc::clone(&terms), clock.clone());
        redis.on_facts(Box::new(move |facts| {
            let (Some(table), Some(fact)) = (hears.0.upgrade(), facts.get(POLICY)) else { return };
            let mut terms = hears.1.lock();
            if *terms != Terms::read(fact) {
                *terms = Terms::read(fact);
                table.set_book(book(terms.policy()), hears.2.now());
            }
        }));
        Self {
            number,
            table,
            clock,
            terms,
            trouble,
            asked: AtomicU64::new(0),
            unknown: Mutex::default(),
            _redis: redis,
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// An operator sets the policy here.
    pub(crate) fn set_terms(&self, new: Terms) {
        let mut terms = self.terms.lock();
        self.table.keep_fact(POLICY, new.bytes());
        *terms = new;
        self.table.set_book(book(new.policy()), self.now());
    }

    /// As a request sees the token.
    pub(crate) async fn look(&self, n: u64) -> (Standing, Option<SessionRef>) {
        let now = self.now();
        // Each from another network: one of them may not ask often.
        let nth = u128::from(self.asked.fetch_add(1, Ordering::Relaxed));
        let address = IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) | (nth << 64)));
        let silent = self.table.ask(&[key(n)], address, now).await;
        match self.table.look_up(key(n), now) {
            (Standing::Unseen, session) if !silent.is_empty() => (Standing::Unavailable, session),
            (Standing::Unseen, session) => {
                let mut unknown = self.unknown.lock();
                let since = unknown.entry(n).or_insert_with(Stopwatch::start);
                // It was asked again.
                if since.elapsed_us() >= BELIEVED_US {
                    *since = Stopwatch::start();
                }
                drop(unknown);
                (Standing::Unseen, session)
            }
            found => found,
        }
    }

    /// Whether it has said lately that nobody knows the value: then it does not ask again.
    pub(crate) fn was_unknown(&self, n: u64) -> bool {
        let mut unknown = self.unknown.lock();
        unknown.retain(|_, since| since.elapsed_us() < BELIEVED_US + 100_000);
        unknown.contains_key(&n)
    }

    /// Whether it knows that its store is away.
    pub(crate) fn is_troubled(&self) -> bool {
        self.trouble.lasts(self.now()).is_some()
    }

    /// For whoever looks for what went wrong.
    pub(crate) fn trouble(&self) -> String {
        format!("{} wait, and {:?}", self.table.waiting(), self.trouble)
    }

    /// Whether nothing waits to be written, and the store is as it should be.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.is_troubled() && self.table.waiting() == 0
    }
}
