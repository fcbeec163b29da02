//! The seats before the gateway, and what happens at them.

mod events;

use std::collections::HashSet;

use tenure::session::SessionId;
use tenure::store::{Filter, SessionView, StateFilter};
use tokio::task::JoinHandle;

use crate::habits::{FEW_ANONYMOUS, Habit, Own};
use crate::model::{Model, values};
use crate::setup::{BY_HEADER, POLICY, World, config_text};
use crate::support::browser::{Ask, Browser, Mode, NetError, Opened, Page};
use crate::support::random::Random;

/// More than the limit allows each user.
const SEATS: usize = 5;
const TABS: usize = 3;
const USERS: [&str; 2] = ["ann", "bob"];
/// Steps from one quiet point to the next.
const STEPS: usize = 12;
/// So many copies of dead values are tried at a quiet point.
const COPIES: usize = 3;
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
    vault: bool,
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
        let vault = custody == "vault";
        let rotates = habit.rotates && !vault;
        let (random, model) = (Random(seed), Model::default());
        let mut storm = Self {
            habit,
            world,
            random,
            model,
            seats: Vec::new(),
            browsers: 0,
            vault,
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
        self.try_copies().await;
        self.look();
        let live: HashSet<_> = self.live_ids().into_iter().collect();
        let expected: HashSet<_> = self.model.live.keys().copied().collect();
        assert_eq!(live, expected, "the live sessions");
        for view in self.sessions(StateFilter::Ended).iter().filter(|view| is_signed_in(view)) {
            let reason = view.end.as_ref().map(|end| end.reason.as_str());
            assert_eq!(reason, self.model.ended.get(&view.id).copied(), "a false end of {:?}", view.id);
        }
        let anonymous = self.sessions(StateFilter::Active).iter().filter(|view| !is_signed_in(view)).count();
        let bound = if matches!(self.habit.own, Some(Own::Flood)) { FEW_ANONYMOUS } else { usize::MAX };
        assert!(anonymous <= bound, "{anonymous} anonymous sessions");
    }

    /// Somebody tries what they copied from sessions that are over.
    async fn try_copies(&mut self) {
        self.look();
        let dead: Vec<_> = self.model.dead.iter().take(COPIES).cloned().collect();
        for value in dead {
            let cookie = self.habit.copy.replace("{}", &value);
            let page = self.world.browser().fetch_with_cookie("/me", &cookie).await;
            let nobody = page.status == 401 || page.json()["user"].is_null();
            assert!(nobody, "a copy of a dead value opens nothing: {}", page.text());
        }
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
            let Some(seat) = self.seats.iter().find(|seat| seat.name == name) else { continue };
            if let Some(live) = seat.session.and_then(|id| self.model.live.get_mut(&id)) {
                live.held.extend(values);
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
