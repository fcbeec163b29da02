//! What must hold: at every look, and once all is mended and quiet.

use std::collections::BTreeMap;
use std::time::Duration;

use tenure::clock::Stopwatch;
use tenure::session::gate::Standing;
use tenure::session::record::{End, State};
use tenure::session::{EndReason, Moment, SessionId};
use tenure::store::SessionRef;

use crate::replica::{Replica, Terms};
use crate::store_support::secs;
use crate::world::{REASONS, SKEW, World};

/// How long it may take until all agree: far longer than it takes.
const PATIENCE_US: u64 = 60_000_000;

/// Waits for what happens in the background.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Stopwatch::start();
    while !is_so() {
        assert!(began.elapsed_us() < PATIENCE_US, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a gateway makes of a session, as far as all must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    state: State,
    user: Option<String>,
    /// Of those that live: by it they are held to the limit.
    signed_in_at: Option<Moment>,
}

fn some_end() -> End {
    let (reason, at) = (EndReason::Logout, Moment::default());
    End { reason, at, by: None, told: false, farewelled: false }
}

fn views(replica: &Replica) -> BTreeMap<SessionId, View> {
    let images = replica.table.images().into_iter().filter(|image| image.identity.is_some());
    let view = |image: tenure::session::record::Image| {
        let state = match image.state {
            // Of a visitor's session one gateway may tell of another end than another one: it was stored in two places.
            State::Ended(_) if Some(image.times.created_at) != image.times.signed_in_at => {
                State::Ended(some_end())
            }
            State::Ended(end) => State::Ended(End { told: false, ..end }),
            state => state,
        };
        let user = image.identity.map(|identity| identity.user);
        let signed_in_at = image.times.signed_in_at.filter(|_| !matches!(state, State::Ended(_)));
        (image.id, View { state, user, signed_in_at })
    };
    images.map(view).collect()
}

impl World {
    /// A request with the value `n` of the session `i`; nothing that a gateway says may be wrong, whatever is broken.
    pub(crate) fn look(&mut self, at: usize, i: usize, n: u64) -> (Standing, Option<SessionRef>) {
        let excused = self.replica(at).was_unknown(n);
        let (standing, session) = self.runtime.block_on(self.replica(at).look(n));
        self.tell(format!("  {n} at {at}: {standing:?}"));
        let number = self.replica(at).number;
        let naive = &self.sessions[i];
        match &standing {
            Standing::Live { .. } => {
                assert!(!naive.over, "{n} is over, and lives at {at}");
                let known = |fact| self.facts.is_known_to(fact, number);
                let ended_here = naive.ends.iter().any(|(_, fact)| known(*fact));
                assert!(!ended_here, "{n} was ended at {at}, and lives there");
            }
            Standing::Ended { reason, .. } => self.check_end(at, i, *reason),
            Standing::Unseen => {
                let counts = self.facts.is_known_to(naive.begun, number) || self.facts.is_stored(naive.begun);
                let known = naive.value() == n
                    && naive.values.iter().any(|(value, fact)| {
                        *value == n && (self.facts.is_known_to(*fact, number) || self.facts.is_stored(*fact))
                    });
                assert!(naive.over || excused || !(counts && known), "{n} is unknown at {at}");
            }
            Standing::Stale | Standing::Replaced | Standing::Pending { .. } | Standing::Unavailable => {}
        }
        (standing, session)
    }

    /// Whether it may have ended for that.
    fn check_end(&self, at: usize, i: usize, reason: EndReason) {
        let naive = &self.sessions[i];
        if naive.over {
            return;
        }
        let what = format!("session {i} ({:?}) is ended at {at} as {reason:?}", naive.values);
        match reason {
            EndReason::Revoked | EndReason::Logout => {
                assert!(self.was_asked_for(i, reason), "{what}, and nobody asked for it");
            }
            EndReason::IdleTimeout => {
                let idle = self.strictest().0.expect("somebody may be idle");
                let ended = self.end_of(at, naive.id);
                let active = naive.active(|fact| self.facts.is_stored(fact));
                assert!(
                    ended.plus(SKEW) >= active.plus(idle),
                    "{what} at {ended:?}, and was active at {active:?}"
                );
            }
            EndReason::MaxConcurrent => self.check_limit_end(i, &what),
            EndReason::ForceRelogin | EndReason::Superseded | EndReason::AccountSwitched => panic!("{what}"),
        }
    }

    fn end_of(&self, at: usize, id: SessionId) -> Moment {
        let replica = self.replica(at);
        let session = replica.table.by_id(id).expect("it is known");
        replica.table.inspect(&session, replica.now(), |s| s.ended().expect("it has ended").at)
    }

    /// Others were later, enough of them.
    fn check_limit_end(&self, i: usize, what: &str) {
        let max = self.strictest().1.expect("there is a limit");
        if self.ever_holds_back() {
            return;
        }
        let rivals = self.sessions.iter().enumerate();
        let rivals =
            rivals.filter(|(other, s)| *other != i && s.user.is_some() && s.user == self.sessions[i].user);
        assert!(rivals.count() >= max, "{what}, and there were no others");
    }

    /// All is mended; everybody agrees, and what they agree on is right.
    pub(crate) fn come_to_rest(&mut self) {
        self.tell("all is mended".to_owned());
        for at in 0..self.sites.len() {
            self.mend(at);
            self.start(at);
        }
        self.agree();
        // Activity that follows another one within a sixtieth of the time-out is stored that much later; what could not be
        // stored, a second later. That all is stored is seen with everything else.
        self.advance(secs(10));
        self.agree();
        let witness = self.witness();
        self.agree_with(&witness);
        drop(witness);
        let numbers = self.numbers();
        for i in 0..self.sessions.len() {
            self.check_session(i);
        }
        // What came out may be an earlier value than all were asked about.
        self.agree();
        self.check_limits();
        self.check_terms();
        self.facts.spread(&numbers);
        self.check_told();
    }

    fn agree(&mut self) {
        let began = Stopwatch::start();
        for tried in 1.. {
            let Err(why) = self.is_agreed() else { break };
            assert!(began.elapsed_us() < PATIENCE_US, "they never agree: {why}");
            std::thread::sleep(Duration::from_millis(10));
            // Activity that could not be stored is tried again a second later.
            if tried % 100 == 0 {
                self.advance(secs(1));
            }
        }
    }

    fn is_agreed(&mut self) -> Result<(), String> {
        self.sweep();
        for replica in self.replicas() {
            if self.runtime.block_on(replica.table.safe()).is_err() {
                return Err(format!("{} cannot write", replica.number));
            }
        }
        let replicas: Vec<&Replica> = self.replicas().collect();
        for replica in &replicas {
            if !replica.is_quiet() {
                return Err(format!("{} is not quiet: {}", replica.number, replica.trouble()));
            }
        }
        let terms: Vec<_> = replicas.iter().map(|replica| *replica.terms.lock()).collect();
        if terms.iter().any(|other| *other != terms[0]) {
            return Err(format!("{terms:?}"));
        }
        // ORDER: who is idle is judged by this.
        self.standings()?;
        let first = views(replicas[0]);
        for replica in &replicas[1..] {
            let other = views(replica);
            let differs = first.keys().chain(other.keys()).find(|id| first.get(id) != other.get(id));
            if let Some(id) = differs {
                let values = self.sessions.iter().find(|s| s.id == *id).map(|s| &s.values);
                return Err(format!("{values:?}: {:?} and {:?}", first.get(id), other.get(id)));
            }
        }
        Ok(())
    }

    /// What all say of the value of each session.
    fn standings(&self) -> Result<Vec<Standing>, String> {
        let mut all = Vec::new();
        for naive in &self.sessions {
            let n = naive.value();
            let mut said: Vec<Standing> =
                self.replicas().map(|replica| self.runtime.block_on(replica.look(n)).0).collect();
            if said.contains(&Standing::Unavailable) || said.iter().any(|other| kind(other) != kind(&said[0]))
            {
                return Err(format!("{n}: {said:?}"));
            }
            all.push(said.remove(0));
        }
        Ok(all)
    }

    /// Who has only the store to learn from learns the same.
    fn agree_with(&mut self, witness: &Replica) {
        let began = Stopwatch::start();
        loop {
            let (known, found) = (views(self.replica(0)), views(witness));
            let differs = known.keys().chain(found.keys()).find(|id| known.get(id) != found.get(id));
            let Some(id) = differs else { break };
            assert!(
                began.elapsed_us() < PATIENCE_US,
                "the store has {:?}, and the gateways have {:?}",
                found.get(id),
                known.get(id)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        for naive in &self.sessions {
            let n = naive.value();
            loop {
                let here = self.runtime.block_on(self.replica(0).look(n)).0;
                let there = self.runtime.block_on(witness.look(n)).0;
                if kind(&here) == kind(&there) {
                    break;
                }
                let waits = began.elapsed_us() < PATIENCE_US;
                assert!(waits, "{n}: {here:?} and in the store {there:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// What comes out once the store was asked.
    fn judged(&mut self, i: usize, n: u64) -> Standing {
        let began = Stopwatch::start();
        loop {
            let (standing, _) = self.look(0, i, n);
            if standing != Standing::Unavailable {
                return standing;
            }
            assert!(began.elapsed_us() < PATIENCE_US, "{n} is never judged: {:?}", self.sessions[i]);
        }
    }

    fn check_session(&mut self, i: usize) {
        let standing = loop {
            let n = self.sessions[i].value();
            let standing = self.judged(i, n);
            let is_lost = matches!(standing, Standing::Unseen | Standing::Stale | Standing::Replaced);
            let naive = &mut self.sessions[i];
            if naive.over || !is_lost {
                break standing;
            }
            // A gateway may have taken with it what it alone knew.
            let last = naive.values.last().map(|(_, fact)| *fact);
            assert!(last.is_none_or(|fact| !self.facts.counts(fact)), "{n} is lost: {naive:?}");
            if naive.values.len() == 1 {
                break standing;
            }
            naive.values.pop();
        };
        let naive = &self.sessions[i];
        let over = match &standing {
            Standing::Live { .. } => {
                assert!(!naive.must_be_over(&self.facts), "it was ended: {naive:?}");
                self.check_active(i);
                false
            }
            Standing::Pending { .. } => {
                assert!(!naive.must_be_over(&self.facts), "it was ended: {naive:?}");
                false
            }
            Standing::Ended { .. } | Standing::Unseen | Standing::Stale | Standing::Replaced => true,
            Standing::Unavailable => unreachable!("it was judged: {naive:?}"),
        };
        let naive = &mut self.sessions[i];
        naive.over |= over;
        if !over {
            // Nobody knows of them any more.
            naive.ends.clear();
        }
    }

    /// Nobody lives beyond the idle time-out.
    fn check_active(&self, i: usize) {
        let naive = &self.sessions[i];
        let Some(idle) = self.replica(0).terms.lock().idle_timeout() else { return };
        let active = naive.active(|_| true);
        assert!(self.now < active.plus(idle).plus(SKEW), "{:?} is idle since {active:?}", naive.values);
    }

    fn check_limits(&self) {
        let terms = *self.replica(0).terms.lock();
        if terms.max == 0 || terms.on_limit.holds_back() {
            return;
        }
        for user in crate::world::USERS {
            let views = views(self.replica(0));
            let live = views.values().filter(|v| v.state == State::Active && v.user.as_deref() == Some(user));
            assert!(live.count() <= usize::from(terms.max), "{user} has too many: {views:?}");
        }
    }

    /// All are under the policy that was confirmed last, or under one that nobody confirmed.
    fn check_terms(&mut self) {
        let holds = *self.replica(0).terms.lock();
        let (settled, before) = self.settled_terms;
        let certain = self.confirmed_terms.filter(|n| *n >= before && self.facts.counts(self.terms[*n].1));
        let possible = self.terms.iter().enumerate().skip(before).filter(|(n, (_, fact))| {
            !self.facts.is_stored(*fact) || certain.is_none_or(|certain| *n >= certain)
        });
        let possible: Vec<Terms> = possible.map(|(_, (terms, _))| *terms).collect();
        let is_settled = certain.is_none() && holds == settled;
        assert!(is_settled || possible.contains(&holds), "{holds:?} holds, and may be one of {possible:?}");
        self.settled_terms = (holds, self.terms.len());
    }

    /// An end is told once, whoever found it out.
    fn check_told(&self) {
        if self.was_lossy {
            return;
        }
        for naive in self.sessions.iter().filter(|naive| naive.over) {
            let told = self.told.of(naive.id);
            let asked = told.iter().filter(|(_, reason)| REASONS.contains(reason)).count();
            // What a person did is told where it was done, whatever else ended the session at that moment.
            assert_eq!(asked, naive.ends.len(), "{:?}: told {told:?}", naive.values);
            // Somebody signed in on it at one gateway while it ended at another, where it was a visitor's still.
            let most = 1 + usize::from(naive.was_visitor && naive.user.is_some());
            assert!(told.len() - asked <= most && !told.is_empty(), "{:?}: told {told:?}", naive.values);
        }
    }
}

/// As far as all must agree.
fn kind(standing: &Standing) -> u8 {
    match standing {
        Standing::Live { .. } => 0,
        Standing::Pending { .. } => 1,
        Standing::Ended { .. } => 2,
        Standing::Unavailable => 3,
        Standing::Unseen | Standing::Stale | Standing::Replaced => 4,
    }
}
