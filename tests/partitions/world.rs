//! The gateways of one seed, what was done through them, and the model.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use tenure::config::Redis;
use tenure::session::{EndReason, Moment, OnLimit, Span};
use tenure::store::{SessionRef, Table};
use tokio::runtime::{Handle, Runtime};

use crate::faults::Plan;
use crate::link::Link;
use crate::model::{Fact, Facts, Naive};
use crate::random::Random;
use crate::replica::{Replica, Terms, Told};
use crate::server::Database;
use crate::store_support::{AT, key, newcomer};

pub(crate) const USERS: [&str; 3] = ["ann", "bob", "cid"];

/// How far the gateways' clocks are apart at most: what is let pass (R23).
pub(crate) const SKEW: Span = Span::from_ms(200);

/// Where a seed runs.
pub(crate) struct Place {
    pub(crate) settings: Redis,
    pub(crate) database: u32,
}

/// Where a gateway runs, one after the other.
pub(crate) struct Site {
    pub(crate) link: Link,
    /// How far its clock is ahead.
    ahead: Span,
    pub(crate) replica: Option<Replica>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) runtime: Runtime,
    pub(crate) settings: Redis,
    pub(crate) database: Database,
    /// How often its server has lost something.
    pub(crate) losses: Arc<AtomicU32>,
    pub(crate) sites: Vec<Site>,
    pub(crate) told: Arc<Told>,
    pub(crate) now: Moment,
    opened: u32,
    pub(crate) first_terms: Terms,
    /// Policies may hold back who comes. Then nothing is lost: gateways may not agree for two minutes whether one that was
    /// admitted by what was lost is held back.
    pub(crate) holds_back: bool,
    /// What operators set, in their order.
    pub(crate) terms: Vec<(Terms, Fact)>,
    /// The last that was confirmed, and what held when all was quiet for the last time, with how many were set by then.
    pub(crate) confirmed_terms: Option<usize>,
    pub(crate) settled_terms: (Terms, usize),
    pub(crate) sessions: Vec<Naive>,
    pub(crate) facts: Facts,
    pub(crate) issued: u64,
    pub(crate) plan: Plan,
    /// A gateway crashed, or the store lost something: then nobody can say what was told how often.
    pub(crate) was_lossy: bool,
    story: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, place: &Place) -> Self {
        let mut random = Random(seed);
        let mut settings = place.settings.clone();
        settings.database = place.database;
        // Announcements go to all databases of a server.
        settings.prefix = format!("{seed}.{}:", place.database);
        let server = settings.nodes[0].port;
        let database = Database::open(server, place.database);
        let count = 2 + random.below(3);
        let losses = Arc::default();
        let site = |random: &mut Random| Site {
            link: Link::to(server, &losses, &Handle::current()),
            ahead: Span::from_ms(random.pick(&[0, 0, 1, 50, 190])),
            replica: None,
        };
        let holds_back = seed.is_multiple_of(4);
        let first_terms = some_terms(&mut random, holds_back);
        let mut world = Self {
            sites: (0..count).map(|_| site(&mut random)).collect(),
            losses,
            first_terms,
            holds_back,
            confirmed_terms: None,
            settled_terms: (first_terms, 0),
            random,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            settings,
            database,
            told: Arc::default(),
            now: AT,
            opened: 0,
            terms: Vec::new(),
            sessions: Vec::new(),
            facts: Facts::default(),
            issued: 0,
            plan: Plan::default(),
            was_lossy: false,
            story: Vec::new(),
        };
        world.tell(format!("{count} gateways under {:?}", world.first_terms));
        (0..count).for_each(|at| world.open(at));
        world
    }

    pub(crate) fn tell(&mut self, what: String) {
        self.story.push(what);
    }

    pub(crate) fn story(&self) -> String {
        self.story.join("\n")
    }

    /// For whoever looks for what went wrong.
    pub(crate) fn tell_what_is_known(&mut self) {
        let mut known = Vec::new();
        for naive in &self.sessions {
            known.push(format!("{naive:?}"));
            for replica in self.replicas() {
                let now = replica.now();
                let all = naive.values.iter().map(|(n, _)| (*n, replica.table.look_up(key(*n), now).0));
                known.push(format!("  gateway number {}: {:?}", replica.number, all.collect::<Vec<_>>()));
                let images = replica.table.images().into_iter().filter(|image| image.id == naive.id);
                known.extend(images.map(|image| format!("    {image:?}")));
            }
        }
        self.story.extend(known);
    }

    /// A gateway starts there.
    pub(crate) fn open(&mut self, at: usize) {
        self.opened += 1;
        let (number, site) = (self.opened, &mut self.sites[at]);
        let mut settings = self.settings.clone();
        settings.nodes[0].port = site.link.port;
        let now = self.now.plus(site.ahead);
        site.replica = Some(Replica::open(&settings, (number, now), self.first_terms, &self.told));
    }

    /// One that nobody had anything to do with: it knows what the store knows.
    pub(crate) fn witness(&mut self) -> Replica {
        self.opened += 1;
        Replica::open(&self.settings, (self.opened, self.now), self.first_terms, &self.told)
    }

    pub(crate) fn replica(&self, at: usize) -> &Replica {
        self.sites[at].replica.as_ref().expect("it runs")
    }

    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.sites.iter().filter_map(|site| site.replica.as_ref())
    }

    pub(crate) fn numbers(&self) -> BTreeSet<u32> {
        self.replicas().map(|replica| replica.number).collect()
    }

    /// One that runs.
    pub(crate) fn some_site(&mut self) -> usize {
        let running: Vec<usize> =
            (0..self.sites.len()).filter(|at| self.sites[*at].replica.is_some()).collect();
        self.random.pick(&running)
    }

    pub(crate) fn table(&self, at: usize) -> Arc<Table> {
        Arc::clone(&self.replica(at).table)
    }

    /// Time passes everywhere.
    pub(crate) fn advance(&mut self, span: Span) {
        self.now = self.now.plus(span);
        self.replicas().for_each(|replica| replica.clock.advance(span));
        self.sweep();
    }

    pub(crate) fn sweep(&self) {
        for replica in self.replicas() {
            replica.table.sweep(replica.now());
        }
    }

    /// Something happens at a gateway.
    pub(crate) fn happens(&mut self, at: usize) -> Fact {
        let number = self.replica(at).number;
        self.facts.happened(number)
    }

    /// Waits until the store has what happened, or the gateway gives up.
    pub(crate) fn confirm(&mut self, at: usize, facts: &[Fact]) -> bool {
        let table = self.table(at);
        let is_safe = self.runtime.block_on(table.safe()).is_ok();
        if is_safe {
            facts.iter().for_each(|fact| self.facts.stored(*fact));
        }
        self.tell(format!("  gateway {at}: {}", if is_safe { "stored" } else { "not stored" }));
        is_safe
    }

    pub(crate) fn issue(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// The strictest that ever held.
    pub(crate) fn strictest(&self) -> (Option<Span>, Option<usize>) {
        let all = || std::iter::once(self.first_terms).chain(self.terms.iter().map(|(terms, _)| *terms));
        let idle = all().filter_map(Terms::idle_timeout).min();
        let max = all().filter(|terms| terms.max > 0).map(|terms| usize::from(terms.max)).min();
        (idle, max)
    }

    pub(crate) fn ever_holds_back(&self) -> bool {
        let all = std::iter::once(self.first_terms).chain(self.terms.iter().map(|(terms, _)| *terms));
        all.into_iter().any(|terms| terms.max > 0 && terms.on_limit.holds_back())
    }

    /// Remembers a session that began at a gateway.
    pub(crate) fn remember(&mut self, session: &SessionRef, user: Option<&'static str>, n: u64, begun: Fact) {
        self.sessions.push(Naive {
            id: session.id(),
            user,
            was_visitor: user.is_none(),
            began: self.now,
            begun,
            values: vec![(n, begun)],
            activity: vec![(self.now, begun)],
            ends: Vec::new(),
            over: false,
        });
    }
}

pub(crate) fn some_terms(random: &mut Random, holds_back: bool) -> Terms {
    Terms {
        idle: random.pick(&[1, 1, 5, 10]),
        max: random.pick(&[0, 1, 2, 3]),
        on_limit: match random.below(4) {
            0 if holds_back => OnLimit::Refuse,
            1 => OnLimit::EndIdlest,
            _ => OnLimit::EndOldest,
        },
    }
}

pub(crate) fn one(n: u64) -> tenure::store::Newcomer {
    tenure::store::Newcomer { recycles: None, ..newcomer(&[n]) }
}

pub(crate) const REASONS: [EndReason; 2] = [EndReason::Revoked, EndReason::Logout];
