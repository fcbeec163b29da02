//! What users and operators do.

use tenure::session::gate::Standing;
use tenure::session::record::AppId;
use tenure::session::{EndReason, Span};
use tenure::store::{Enrolled, SessionRef};

use crate::model::Fact;
use crate::store_support::{identity, key, secs, token};
use crate::world::{REASONS, SKEW, Site, USERS, World, one, some_terms};

impl World {
    pub(crate) fn step(&mut self) {
        self.sweep();
        self.act_on_plan();
        match self.random.below(20) {
            0..=2 => self.sign_in(),
            3 => self.rush(),
            4 => self.visit(),
            5 => self.identify(),
            6..=8 => self.touch(),
            9 | 10 => self.rotate(),
            11 | 12 => self.end(),
            13..=15 => self.look_everywhere(),
            16 | 17 => self.wait(),
            18 => self.set_terms(),
            _ => self.probe(),
        }
    }

    /// Most answers wait for the store.
    fn maybe_confirm(&mut self, at: usize, facts: &[Fact]) {
        if !self.random.one_in(3) {
            self.confirm(at, facts);
        }
    }

    fn sign_in(&mut self) {
        let (at, user) = (self.some_site(), self.random.pick(&USERS));
        if !self.random.one_in(4) {
            let (table, now) = (self.table(at), self.replica(at).now());
            self.runtime.block_on(table.meet(AppId(0), &identity(user), now));
        }
        if let Some(begun) = self.begin(at, user) {
            self.maybe_confirm(at, &[begun]);
        }
    }

    fn begin(&mut self, at: usize, user: &'static str) -> Option<Fact> {
        let n = self.issue();
        let enrolled = self.table(at).sign_in(&one(n), identity(user), self.replica(at).now());
        self.tell(format!("{user} signs in at {at} with {n}"));
        let (Enrolled::Active(session) | Enrolled::Pending(session)) = &enrolled else {
            panic!("a new value begins nothing");
        };
        let begun = self.happens(at);
        self.remember(session, Some(user), n, begun);
        Some(begun)
    }

    /// One user signs in at all gateways at once.
    fn rush(&mut self) {
        let user = self.random.pick(&USERS);
        let running: Vec<usize> =
            (0..self.sites.len()).filter(|at| self.sites[*at].replica.is_some()).collect();
        let begun: Vec<_> = running.into_iter().filter_map(|at| Some((at, self.begin(at, user)?))).collect();
        for (at, fact) in begun {
            self.confirm(at, &[fact]);
        }
    }

    fn visit(&mut self) {
        let (at, n) = (self.some_site(), self.issue());
        let session = self.table(at).start(&one(n), self.replica(at).now());
        self.tell(format!("somebody visits {at} with {n}"));
        let begun = self.happens(at);
        self.remember(&session, None, n, begun);
        self.maybe_confirm(at, &[begun]);
    }

    /// Some session that is not known to be over, and what a gateway says of it.
    fn meet_one(
        &mut self,
        wanted: impl Fn(&crate::model::Naive) -> bool,
    ) -> Option<(usize, usize, Option<SessionRef>)> {
        let open: Vec<usize> = (0..self.sessions.len())
            .filter(|i| !self.sessions[*i].over && wanted(&self.sessions[*i]))
            .collect();
        if open.is_empty() {
            return None;
        }
        let (at, i) = (self.some_site(), self.random.pick(&open));
        let n = self.sessions[i].value();
        let (standing, session) = self.look(at, i, n);
        let live = matches!(standing, Standing::Live { .. });
        Some((at, i, session.filter(|_| live)))
    }

    fn identify(&mut self) {
        let Some((at, i, Some(session))) = self.meet_one(|s| s.user.is_none()) else { return };
        let (user, n, now) = (self.random.pick(&USERS), self.issue(), self.replica(at).now());
        let enrolled = self.table(at).identify(&session, &[token(n)], identity(user), now);
        self.tell(format!("{user} signs in at {at} on {}, with {n}", self.sessions[i].value()));
        if matches!(enrolled, Enrolled::Over) {
            return;
        }
        let (fact, active) = (self.happens(at), self.happens(at));
        let naive = &mut self.sessions[i];
        naive.user = Some(user);
        naive.values.push((n, fact));
        naive.activity.push((self.now, active));
        self.maybe_confirm(at, &[fact]);
    }

    fn touch(&mut self) {
        let Some((at, i, Some(session))) = self.meet_one(|_| true) else { return };
        let (n, now) = (self.sessions[i].value(), self.replica(at).now());
        if self.table(at).note_request(&session, key(n), true, now) {
            self.tell(format!("{n} is active at {at}"));
            let fact = self.facts.was_active(self.replica(at).number);
            self.sessions[i].activity.push((self.now, fact));
        }
    }

    fn rotate(&mut self) {
        let Some((at, i, Some(session))) = self.meet_one(|_| true) else { return };
        let (old, n, now) = (self.sessions[i].value(), self.issue(), self.replica(at).now());
        if self.table(at).rotate(&session, &[token(n)], key(old), now) {
            self.tell(format!("{old} becomes {n} at {at}"));
            let fact = self.happens(at);
            self.sessions[i].values.push((n, fact));
            self.maybe_confirm(at, &[fact]);
        }
    }

    fn end(&mut self) {
        let Some((at, i, _)) = self.meet_one(|_| true) else { return };
        self.end_at(at, i);
    }

    pub(crate) fn end_at(&mut self, at: usize, i: usize) {
        let (id, reason) = (self.sessions[i].id, self.random.pick(&REASONS));
        let (table, now) = (self.table(at), self.replica(at).now());
        let Some(session) = table.by_id(id) else { return };
        if table.end(&session, reason, None, now) {
            self.tell(format!("{} is ended at {at}", self.sessions[i].value()));
            let fact = self.happens(at);
            self.sessions[i].ends.push((reason, fact));
            self.maybe_confirm(at, &[fact]);
        }
    }

    fn look_everywhere(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let i = self.random.below(self.sessions.len());
        let n = self.random.pick(&self.sessions[i].values).0;
        for at in 0..self.sites.len() {
            if self.sites[at].replica.is_some() {
                self.look(at, i, n);
            }
        }
    }

    /// Time passes: first as much as activity may wait to be written, then more.
    fn wait(&mut self) {
        self.advance(secs(600 / 60));
        self.write_activity();
        let seconds = self.random.pick(&[1, 5, 20, 30, 50, 61]);
        self.tell(format!("{seconds} s pass"));
        self.advance(secs(seconds));
    }

    /// The activity of whoever can write is stored.
    pub(crate) fn write_activity(&mut self) {
        let sites = 0..self.sites.len();
        let could: Vec<usize> = sites.filter(|at| self.writes_at(*at)).collect();
        // What could not be written a moment before is tried again a second later.
        self.advance(secs(1));
        for at in could {
            if self.writes_at(at) && !self.replica(at).is_troubled() {
                self.activity_is_stored(self.replica(at).number);
            }
        }
    }

    fn writes_at(&self, at: usize) -> bool {
        let Site { link, replica, .. } = &self.sites[at];
        let Some(replica) = replica.as_ref().filter(|_| link.passes()) else { return false };
        // Two batches: the first may have been under way.
        let safe = async { replica.table.safe().await.and(replica.table.safe().await) };
        self.runtime.block_on(safe).is_ok()
    }

    /// The store knows when sessions were active at this gateway, and knew it before anybody could take them for idle.
    fn activity_is_stored(&mut self, number: u32) {
        let idle = self.strictest().0.unwrap_or(secs(1_000_000));
        for naive in &self.sessions {
            let known = naive.active(|fact| self.facts.is_stored(fact)).max(naive.began);
            if self.now.plus(SKEW) < known.plus(idle) {
                for (_, fact) in &naive.activity {
                    if self.facts.is_known_to(*fact, number) {
                        self.facts.stored(*fact);
                    }
                }
            }
        }
    }

    fn set_terms(&mut self) {
        let (at, terms) = (self.some_site(), some_terms(&mut self.random, self.holds_back));
        // By the clocks of all gateways it is later than what was set before.
        self.advance(Span::from_ms(2 * SKEW.as_ms()));
        self.tell(format!("{terms:?} at {at}"));
        self.replica(at).set_terms(terms);
        let fact = self.happens(at);
        self.terms.push((terms, fact));
        if self.random.one_in(2) && self.confirm(at, &[fact]) {
            self.confirmed_terms = Some(self.terms.len() - 1);
        }
    }

    /// A value that nobody ever issued.
    fn probe(&mut self) {
        let (at, n) = (self.some_site(), 1_000_000 + self.random.next() % 1_000_000);
        let standing = self.runtime.block_on(self.replica(at).look(n)).0;
        assert!(matches!(standing, Standing::Unseen | Standing::Unavailable), "{n} at {at}: {standing:?}");
    }

    /// Why it ended, by which it may have.
    pub(crate) fn was_asked_for(&self, i: usize, reason: EndReason) -> bool {
        self.sessions[i].ends.iter().any(|(asked, _)| *asked == reason)
    }
}
