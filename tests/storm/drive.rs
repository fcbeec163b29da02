//! The seats before the gateway, and what happens at them.

use std::collections::HashSet;

use tenure::session::{EndReason, SessionId};
use tenure::store::{Filter, SessionView, StateFilter};
use tokio::task::JoinHandle;

use crate::habits::{Habit, Own};
use crate::model::{Live, Model, values};
use crate::setup::{BY_HEADER, POLICY, World, config_text};
use crate::support::app::{MFA_CODE, PASSWORD};
use crate::support::browser::{Ask, Browser, Mode, NetError, Opened, Page};
use crate::support::random::Random;
use crate::support::wait::{PATIENCE, eventually};

/// More than the limit allows each user.
const SEATS: usize = 5;
const TABS: usize = 3;
const USERS: [&str; 2] = ["ann", "bob"];
/// Steps from one quiet point to the next.
const STEPS: usize = 12;
/// Two of these and a session is idle.
const LULL_SECONDS: u64 = 2000;
/// Which seat a request is from; the gateway passes it on like any header that is none of its business.
const SEAT: &str = "x-seat";
/// Requests that race with an end: they may have been on their way to the app by then, whenever it reads them.
const RACING: &str = "racing";
const FETCHES: [&str; 4] = ["/me", "/poll", "/api/whoami", "/static/app.css"];
const PAGES: [&str; 2] = ["/", "/page"];

/// A person's place, with a browser.
struct Seat {
    browser: Browser,
    /// What stands in [`SEAT`].
    name: String,
    /// Whom the app must take it for.
    user: Option<&'static str>,
    /// The gateway's session, live; also where the app signed its user out and nobody could see that.
    session: Option<SessionId>,
    /// Values that travelled while nobody was signed in.
    anonymous: HashSet<String>,
    slow: Vec<Slow>,
    /// What a session of this browser held that is over.
    last_dead: Option<String>,
}

/// A request that the app has not answered yet.
struct Slow {
    answer: JoinHandle<Result<Opened, NetError>>,
    session: Option<SessionId>,
}

/// One habit, one custody, and everybody before it.
pub(crate) struct Storm {
    habit: Habit,
    world: World,
    random: Random,
    model: Model,
    seats: Vec<Seat>,
    browsers: usize,
    /// Each answer sets another value in the browser.
    rotates: bool,
    /// A log-out in answer to a value that was replaced meanwhile signs nobody out (R11).
    may_overlook_log_out: bool,
    /// Requests that reached the app.
    made: usize,
}

impl Storm {
    pub(crate) async fn new(habit: Habit, custody: &'static str, seed: u64) -> Self {
        let (cookie, lines) = habit.lines(custody);
        let rest = format!("{POLICY}{}", habit.rest);
        let text = |upstream: &str| {
            config_text(upstream, &lines, BY_HEADER, &rest).replace("cookie = \"SID\"", &cookie)
        };
        let world = World::from_text(|s| habit.switch_on(s), text).await;
        let rotates = habit.rotates && custody == "track";
        let (random, model) = (Random(seed), Model::default());
        let mut storm = Self {
            habit,
            world,
            random,
            model,
            seats: Vec::new(),
            browsers: 0,
            rotates,
            may_overlook_log_out: false,
            made: 0,
        };
        for _ in 0..SEATS {
            let seat = storm.seat();
            storm.seats.push(seat);
        }
        storm
    }

    fn seat(&mut self) -> Seat {
        self.browsers += 1;
        Seat {
            browser: self.world.browser(),
            name: format!("seat-{}", self.browsers),
            user: None,
            session: None,
            anonymous: HashSet::new(),
            slow: Vec::new(),
            last_dead: None,
        }
    }

    /// Goes on until `requests` have reached the app. Returns how many did.
    pub(crate) async fn rage(mut self, requests: usize) -> usize {
        while self.made < requests {
            for _ in 0..STEPS {
                self.step().await;
            }
            self.quiet_point().await;
        }
        self.made
    }

    async fn step(&mut self) {
        let at = self.random.below(SEATS);
        match self.random.below(28) {
            0..=5 => self.shuffled(at).await,
            6..=8 => self.begin_slow(at).await,
            9..=11 => self.finish_slow().await,
            12..=16 => self.sign_in(at).await,
            17 | 18 => self.log_out(at).await,
            19 => self.revoke(at).await,
            20 => self.pass(LULL_SECONDS),
            21 => self.other_browser(at),
            22 => self.own(at).await,
            23..=25 => self.race(at).await,
            _ => self.all_at_once().await,
        }
        self.look();
        let seconds = 1 + self.random.below(3) as u64;
        self.pass(seconds);
    }

    fn pass(&mut self, seconds: u64) {
        self.look();
        self.world.pass(seconds);
        self.model.settle(self.world.clock.now());
        self.settle_seats();
    }

    /// Whose session is over is nobody any more.
    fn settle_seats(&mut self) {
        for seat in &mut self.seats {
            if seat.session.is_some_and(|id| !self.model.live.contains_key(&id)) {
                (seat.session, seat.user) = (None, None);
            }
        }
    }

    /// The session's user does something now.
    fn touch(&mut self, at: usize) {
        let now = self.world.clock.now();
        let live = self.seats[at].session.and_then(|id| self.model.live.get_mut(&id));
        live.into_iter().for_each(|live| live.active = now);
    }

    fn ask(&mut self, at: usize) -> Ask {
        let (mode, path) = match self.random.one_in(3) {
            true => (Mode::Navigate, self.random.pick(&PAGES)),
            false => (Mode::Fetch, self.random.pick(&FETCHES)),
        };
        Ask::get(mode, path).with(SEAT, &self.seats[at].name)
    }

    /// Each tab asks, all at once; the answers arrive in any order (FIELD F5).
    async fn shuffled(&mut self, at: usize) {
        self.touch(at);
        let mut asking = Vec::new();
        for _ in 0..=self.random.below(TABS) {
            let (ask, tab) = (self.ask(at), self.seats[at].browser.new_tab());
            let path = ask.reference.clone();
            asking.push((path, tokio::spawn(async move { tab.hold(ask).await })));
        }
        let mut held = Vec::new();
        for (path, asking) in asking {
            held.push((path, asking.await.unwrap().expect("an answer")));
        }
        self.random.shuffle(&mut held);
        for (path, held) in held {
            let page = self.seats[at].browser.deliver(held).await.expect("an answer");
            self.judge(at, &path, &page);
        }
    }

    /// Everybody asks at once, and each tab learns from its answer as it comes.
    async fn all_at_once(&mut self) {
        let mut asking = Vec::new();
        for at in 0..SEATS {
            self.touch(at);
            for _ in 0..TABS {
                let (ask, tab) = (self.ask(at), self.seats[at].browser.new_tab());
                let path = ask.reference.clone();
                asking.push((at, path, tokio::spawn(async move { tab.send(ask).await })));
            }
        }
        for (at, path, asking) in asking {
            let page = asking.await.unwrap().expect("an answer");
            self.judge(at, &path, &page);
        }
    }

    /// Whoever is signed in is served as themselves.
    fn judge(&self, at: usize, path: &str, page: &Page) {
        let seat = &self.seats[at];
        if let Some(user) = seat.user {
            assert_eq!(page.status, 200, "{path} of {} for {user}: {}", seat.name, page.text());
        }
        let shown = (path == "/me" && page.status == 200).then(|| page.json()["user"].clone());
        if let Some(shown) = shown {
            assert_eq!(shown.as_str(), seat.user, "{}", seat.name);
        }
    }

    /// A request is on its way that the app will take long to answer. It is of a session, if only of an anonymous one: what
    /// came without any cookie nobody could tell from a stranger's.
    async fn begin_slow(&mut self, at: usize) {
        if self.seats[at].slow.len() == TABS || (self.seats[at].user.is_none() && !self.habit.anonymous) {
            return;
        }
        let page = self.me(at).await;
        if page.status != 200 {
            // The end of somebody's session waits for a navigation that tells it.
            return;
        }
        let (ask, tab) = (Ask::get(Mode::Fetch, "/slow"), self.seats[at].browser.new_tab());
        let ask = ask.with(SEAT, &self.seats[at].name);
        let before = self.world.app.waiting();
        let answer = tokio::spawn(async move { tab.hold(ask).await });
        eventually(PATIENCE, async || self.world.app.waiting() > before).await;
        let session = self.seats[at].session;
        self.seats[at].slow.push(Slow { answer, session });
    }

    /// All slow requests are answered, whatever has become of their sessions, and arrive in any order.
    async fn finish_slow(&mut self) {
        self.look();
        self.world.app.release(self.world.app.waiting());
        let mut answers = Vec::new();
        for at in 0..SEATS {
            for slow in std::mem::take(&mut self.seats[at].slow) {
                answers.push((at, slow.session, slow.answer.await.unwrap().expect("an answer")));
            }
        }
        self.random.shuffle(&mut answers);
        for (at, session, held) in answers {
            let page = self.seats[at].browser.deliver(held).await.expect("an answer");
            let seat = &self.seats[at];
            if session.is_some() && session == seat.session && seat.user.is_some() {
                assert_eq!((page.status, page.json()["user"].as_str()), (200, seat.user), "{}", seat.name);
            }
        }
        for at in 0..SEATS {
            self.expect(at).await;
        }
    }

    /// The other tabs ask while one of them signs in or out, or an operator ends the session.
    async fn race(&mut self, at: usize) {
        if self.seats[at].session.is_none() {
            return;
        }
        self.touch(at);
        let mut asking = Vec::new();
        for _ in 1..TABS {
            let (ask, tab) = (self.ask(at).with(SEAT, RACING), self.seats[at].browser.new_tab());
            asking.push(tokio::spawn(async move { tab.send(ask).await }));
        }
        // Somewhere on their way.
        for _ in 0..self.random.below(8) {
            tokio::task::yield_now().await;
        }
        self.may_overlook_log_out = self.rotates;
        match self.random.below(if self.rotates { 2 } else { 3 }) {
            0 => self.revoke(at).await,
            1 => self.log_out(at).await,
            // Where each answer sets a value, the last one to arrive counts, and that may be one from before.
            _ => self.sign_in(at).await,
        }
        self.may_overlook_log_out = false;
        for asking in asking {
            asking.await.unwrap().expect("an answer");
        }
        self.expect(at).await;
    }

    /// Somebody signs in: anew, again, or in place of somebody else.
    async fn sign_in(&mut self, at: usize) {
        let user = self.random.pick(&USERS);
        self.touch(at);
        let tab = self.seats[at].browser.new_tab();
        let form = |path, fields: &[(&str, &str)]| Ask::form(path, fields).with(SEAT, &self.seats[at].name);
        let mut page = tab.send(form("/login", &[("username", user), ("password", PASSWORD)])).await.unwrap();
        if self.habit.mfa {
            page = tab.send(form("/mfa", &[("code", MFA_CODE)])).await.unwrap();
        }
        assert_eq!(page.status, 200, "{}: {}", self.seats[at].name, page.text());
        self.seats[at].user = Some(user);
        self.expect(at).await;
        self.signed_in(at, user);
    }

    /// The model learns of the sign-in that has just been checked.
    fn signed_in(&mut self, at: usize, user: &'static str) {
        let now = self.world.clock.now();
        let old = self.seats[at].session.filter(|id| self.model.live.contains_key(id));
        let same = old.is_some_and(|id| self.model.live[&id].user == user);
        let in_use = self.values_of_last_request(at);
        let before = old.map(|id| self.model.live[&id].held.clone());
        let before = before.unwrap_or_else(|| std::mem::take(&mut self.seats[at].anonymous));
        let held = self.take_requests().into_iter().filter(|(seat, _)| *seat == self.seats[at].name);
        let held: HashSet<_> = held.flat_map(|(_, values)| values).filter(|v| !before.contains(v)).collect();
        let held: HashSet<_> = held.union(&in_use).cloned().collect();
        if let (Some(id), true, false) = (old, same, self.habit.renews) {
            self.model.live.get_mut(&id).unwrap().held.extend(held);
            return;
        }
        let fresh: Vec<_> =
            self.live_ids().into_iter().filter(|id| !self.model.live.contains_key(id)).collect();
        assert_eq!(fresh.len(), 1, "one sign-in is one session: {}", self.seats[at].name);
        match old {
            Some(id) => self.model.end(id, if same { "superseded" } else { "account_switched" }, &in_use),
            // The values from before a sign-in open nothing (session fixation).
            None => self.model.dead.extend(before.difference(&in_use).cloned()),
        }
        self.model.begin(fresh[0], Live { user, signed_in: now, active: now, held });
        self.seats[at].session = Some(fresh[0]);
        self.settle_seats();
    }

    async fn log_out(&mut self, at: usize) {
        self.look();
        self.touch(at);
        let ask = Ask::get(Mode::Navigate, "/logout").with(SEAT, &self.seats[at].name).no_follow();
        self.seats[at].browser.send(ask).await.expect("an answer");
        // The answer's own value, if any, is not the session's that is over.
        self.take_requests();
        let live = self.live_ids();
        let seat = &mut self.seats[at];
        seat.user = None;
        let hidden = seat.session.filter(|_| self.may_overlook_log_out).is_some_and(|id| live.contains(&id));
        if let Some(over) = seat.session.take_if(|_| !self.habit.hides_log_out && !hidden) {
            self.model.end(over, "logout", &HashSet::new());
        }
        self.expect(at).await;
    }

    async fn revoke(&mut self, at: usize) {
        let Some(id) = self.seats[at].session else { return };
        let (table, now) = (self.world.gateway.table(), self.world.clock.now());
        let session = table.by_id(id).expect("a live session is known");
        assert!(table.end(&session, EndReason::Revoked, Some("storm".into()), now), "it was live");
        assert!(self.world.gateway.handle().in_force().await, "the barrier was passed");
        // What reached the app before the revocation was in force was sent before it.
        self.look();
        self.seats[at].last_dead = self.model.live[&id].held.iter().next().cloned();
        self.model.end(id, "revoked", &HashSet::new());
        self.settle_seats();
        self.expect(at).await;
    }

    /// The browser is closed for good and a new one opened: the old session stays until its time has come.
    fn other_browser(&mut self, at: usize) {
        let fresh = self.seat();
        let gone = std::mem::replace(&mut self.seats[at], fresh);
        gone.slow.iter().for_each(|slow| slow.answer.abort());
    }

    async fn own(&mut self, at: usize) {
        match self.habit.own {
            None => {}
            Some(Own::Failover) => {
                let node = self.random.pick(&["node1", "node2"]);
                self.world.app.set(|s| s.route = node.to_owned());
            }
            Some(Own::Recycle) => {
                if let (None, Some(dead)) = (self.seats[at].session, self.seats[at].last_dead.take()) {
                    // From here on the app itself may bring it back (R12).
                    self.expect(at).await;
                    self.look();
                    self.model.dead.remove(&dead);
                    self.world.app.hand_out(&dead);
                    self.sign_in(at).await;
                }
            }
            Some(Own::Flood) => {
                for _ in 0..2 * crate::habits::FEW_ANONYMOUS / 4 {
                    self.world.browser().fetch("/poll").await;
                }
            }
        }
    }

    /// The app takes the seat for its user, or for nobody.
    async fn expect(&mut self, at: usize) {
        let page = self.me(at).await;
        let shown = (page.status == 200).then(|| page.json()["user"].clone());
        let seat = &self.seats[at];
        assert_eq!(
            shown.as_ref().and_then(|user| user.as_str()),
            seat.user,
            "whom the app takes {} for",
            seat.name
        );
    }

    async fn me(&mut self, at: usize) -> Page {
        self.touch(at);
        let ask = Ask::get(Mode::Fetch, "/me").with(SEAT, &self.seats[at].name);
        self.seats[at].browser.send(ask).await.expect("an answer")
    }

    /// Nothing is under way but slow requests: gateway and model must agree to the last session.
    async fn quiet_point(&mut self) {
        for at in 0..SEATS {
            self.expect(at).await;
        }
        self.look();
        let live: HashSet<_> = self.live_ids().into_iter().collect();
        let expected: HashSet<_> = self.model.live.keys().copied().collect();
        assert_eq!(live, expected, "the live sessions");
        for view in self.sessions(StateFilter::Ended).iter().filter(|view| is_signed_in(view)) {
            let reason = view.end.as_ref().map(|end| end.reason.as_str());
            assert_eq!(reason, self.model.ended.get(&view.id).copied(), "a false end of {:?}", view.id);
        }
        let anonymous = self.sessions(StateFilter::Active).iter().filter(|view| !is_signed_in(view)).count();
        let bound = if matches!(self.habit.own, Some(Own::Flood)) {
            crate::habits::FEW_ANONYMOUS
        } else {
            usize::MAX
        };
        assert!(anonymous <= bound, "{anonymous} anonymous sessions");
    }

    fn sessions(&self, state: StateFilter) -> Vec<SessionView> {
        let filter = Filter { state: Some(state), ..Filter::default() };
        self.world.gateway.table().list(&filter, None, 1_000_000, self.world.clock.now()).items
    }

    fn live_ids(&self) -> Vec<SessionId> {
        let live = self.sessions(StateFilter::Active).into_iter().filter(is_signed_in);
        live.map(|view| view.id).collect()
    }

    /// Reads what has reached the app since: nothing dead, and what else travelled is told to whom it belongs.
    fn look(&mut self) {
        for (name, values) in self.take_requests() {
            let Some(seat) = self.seats.iter_mut().find(|seat| seat.name == name) else { continue };
            match seat.session.and_then(|id| self.model.live.get_mut(&id)) {
                Some(live) => live.held.extend(values),
                None => seat.anonymous.extend(values),
            }
        }
        for seat in &self.seats {
            let Some(live) = seat.session.and_then(|id| self.model.live.get_mut(&id)) else { continue };
            let jar = seat.browser.jar(|jar| jar.all().iter().map(|c| c.value.clone()).collect::<Vec<_>>());
            live.held.extend(jar.iter().flat_map(|value| values(value.as_bytes())));
        }
    }

    /// The seat and the values of every request that has reached the app since the last call.
    fn take_requests(&mut self) -> Vec<(String, Vec<String>)> {
        let seen = self.world.app.requests();
        self.world.app.forget_requests();
        self.made += seen.len();
        let read = |seen: &crate::support::app::Seen| {
            let found: Vec<_> = values(&seen.raw).chain(values(&seen.body)).collect();
            let dead = found.iter().filter(|value| self.model.dead.contains(*value)).count();
            let seat = seen.header(SEAT).unwrap_or_default();
            assert!(
                dead == 0 || seat == RACING,
                "a dead value reached the app: {} {}",
                seen.method,
                seen.target
            );
            (seat, found)
        };
        seen.iter().map(read).collect()
    }

    fn values_of_last_request(&self, at: usize) -> HashSet<String> {
        let seen = self.world.app.requests();
        let last = seen.iter().rfind(|seen| seen.header(SEAT).as_ref() == Some(&self.seats[at].name));
        last.map(|seen| values(&seen.raw).collect()).unwrap_or_default()
    }
}

fn is_signed_in(view: &SessionView) -> bool {
    view.times.signed_in_at.is_some()
}
