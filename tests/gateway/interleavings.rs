//! Any interleaving of signing in, rotation, requests, late answers, ends, restarts and signing in again, by one browser before
//! one app, over real sockets: never an answer for a session that is over, never a loop, never two sessions of one browser;
//! and a browser that nothing happened to is let alone.
//!
//! `TENURE_INTERLEAVINGS=2000` for more than the few of a usual run.

use std::collections::VecDeque;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tenure::config::check_text;
use tenure::server::Gateway;
use tokio::task::JoinHandle;

use crate::setup::{BY_HEADER, POLICY, World, config_text, post_login};
use crate::support::app::{Profile, Resurrect, Switches};
use crate::support::browser::{Ask, Browser, Mode, Opened};
use crate::support::wait::{PATIENCE, eventually};

const USERS: [&str; 2] = ["ann", "bob"];

/// A page that leads nowhere else after this many redirects is a loop.
const MOST_HOPS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    SignIn(usize),
    LogOut,
    Navigate,
    Fetch,
    /// A request whose answer is kept on its way.
    Hold,
    /// One of those arrives.
    Deliver(bool),
    /// A request that the app takes its time over.
    Slow,
    /// The app answers those.
    Release,
    Revoke,
    GoIdle,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..USERS.len()).prop_map(Step::SignIn),
        1 => Just(Step::LogOut),
        3 => Just(Step::Navigate),
        3 => Just(Step::Fetch),
        2 => Just(Step::Hold),
        2 => any::<bool>().prop_map(Step::Deliver),
        2 => Just(Step::Slow),
        2 => Just(Step::Release),
        1 => Just(Step::Revoke),
        1 => Just(Step::GoIdle),
        1 => Just(Step::Restart),
    ]
}

/// What the gateway and the app do in one case.
#[derive(Clone, Debug)]
struct Setting {
    profile: Profile,
    vault: bool,
    anonymous: bool,
    remember: bool,
    /// What the app does with the session at the end of a slow request.
    resurrect: Resurrect,
}

fn setting() -> impl Strategy<Value = Setting> {
    let profiles = prop_oneof![
        Just(Profile::Opaque),
        Just(Profile::Recycle),
        Just(Profile::RotateEach),
        Just(Profile::RotateLogin),
        Just(Profile::Route),
        Just(Profile::DoubleSet),
    ];
    let resurrect = prop_oneof![Just(Resurrect::None), Just(Resurrect::Same), Just(Resurrect::New)];
    (profiles, any::<bool>(), any::<bool>(), any::<bool>(), resurrect).prop_map(
        |(profile, vault, anonymous, remember, resurrect)| Setting {
            profile,
            vault,
            anonymous,
            remember,
            resurrect,
        },
    )
}

struct Play {
    world: World,
    browser: Browser,
    lines: String,
    held: VecDeque<Opened>,
    slow: Vec<JoinHandle<()>>,
    /// Who has to be signed in, if anybody may be.
    user: Option<usize>,
    /// Nothing happened since the sign-in that could have cost the browser its cookie in any setting.
    calm: bool,
    /// A late answer may have put an old cookie in the place of a newer one (FIELD F5): the browser itself lost its session,
    /// and nobody can tell that it is the same one when it signs in again.
    lost: bool,
    /// `Cookie` headers that worked once, and whose sessions are over.
    dead: Vec<String>,
}

impl Play {
    async fn new(setting: &Setting) -> Self {
        let custody = if setting.vault { "vault" } else { "track" };
        let lines = format!("custody = \"{custody}\"\ncompanions = [\"remember\"]");
        let habits = |s: &mut Switches| {
            s.identity_headers = true;
            s.profile = setting.profile;
            s.anonymous_cookie = setting.anonymous;
            // An app that keeps a value over a sign-in, or over a log-out that no answer shows (R11), would itself bring
            // back whoever was signed in before under it.
            s.resurrect = match (setting.profile, setting.resurrect) {
                (Profile::Recycle, _) => Resurrect::None,
                (Profile::RotateLogin, resurrect) | (_, resurrect @ Resurrect::New) => resurrect,
                (_, Resurrect::None | Resurrect::Same) => Resurrect::None,
            };
            s.remember_me = setting.remember.then(|| "remember".into());
            // Together the two would be a log-out that does nothing at all.
            s.replay = setting.profile != Profile::Recycle;
        };
        let world = World::with(habits, &lines, BY_HEADER, POLICY).await;
        let browser = world.browser();
        Self {
            world,
            browser,
            lines,
            held: VecDeque::new(),
            slow: Vec::new(),
            user: None,
            calm: true,
            lost: false,
            dead: Vec::new(),
        }
    }

    fn cookie_header(&self) -> String {
        let url = self.browser.url("/me");
        let from = crate::support::browser::From::SameSite;
        let pairs = self.browser.jar(|jar| jar.pairs(&url, from, self.browser.now()));
        String::from_utf8_lossy(&pairs.join(b"; ".as_slice())).into_owned()
    }

    fn session_cookie(&self) -> Option<String> {
        let named = |name: &str| self.browser.cookie(name).map(|value| format!("{name}={value}"));
        named("SID").or_else(|| named("tenure-app"))
    }

    fn over(&mut self) {
        if self.user.take().is_some() {
            self.dead.push(self.cookie_header());
        }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::SignIn(user) => {
                let before = self.session_cookie().filter(|_| self.user.is_some());
                post_login(&self.browser, USERS[*user]).await;
                // Where the app keeps the value, it is the new session's, and no copy of an old one.
                self.dead.extend(before.filter(|before| self.session_cookie().as_ref() != Some(before)));
                (self.user, self.calm) = (Some(*user), self.held.is_empty() && self.slow.is_empty());
            }
            Step::LogOut => {
                // The log-out of a browser that lost its session is another's: what it lost goes on until it is idle.
                match self.lost {
                    true => self.user = None,
                    false => self.over(),
                }
                self.browser.navigate("/logout").await;
            }
            Step::Navigate => {
                let page = self.browser.navigate("/page").await;
                assert!(page.chain.len() <= MOST_HOPS, "a loop: {:?}", page.statuses());
            }
            Step::Fetch => drop(self.browser.fetch("/poll").await),
            Step::Hold => self.held.extend(self.browser.hold(Ask::get(Mode::Fetch, "/me")).await),
            Step::Deliver(newest) => {
                let held = if *newest { self.held.pop_back() } else { self.held.pop_front() };
                if let Some(held) = held {
                    let _ = self.browser.deliver(held).await;
                    (self.calm, self.lost) = (false, true);
                }
            }
            Step::Slow => self.ask_slowly().await,
            Step::Release => self.release().await,
            Step::Revoke => {
                self.over();
                self.lost = false;
                let by = "test".into();
                let filter = tenure::store::Filter { app: Some("app".into()), ..Default::default() };
                self.world.gateway.table().revoke(&filter, &[], false, &by, self.world.clock.now());
                self.world.gateway.handle().in_force().await;
            }
            Step::GoIdle => {
                self.over();
                self.lost = false;
                self.world.pass(3600);
            }
            Step::Restart => self.restart().await,
        }
    }

    async fn ask_slowly(&mut self) {
        let (tab, waiting) = (self.browser.new_tab(), self.world.app.waiting());
        let asked = tokio::spawn(async move { drop(tab.send(Ask::get(Mode::Fetch, "/slow")).await) });
        eventually(PATIENCE, async || asked.is_finished() || self.world.app.waiting() > waiting).await;
        self.slow.push(asked);
    }

    async fn release(&mut self) {
        self.world.app.release(self.world.app.waiting());
        for slow in self.slow.drain(..) {
            slow.await.unwrap();
            (self.calm, self.lost) = (false, true);
        }
    }

    /// Sessions are in memory alone: all of them are gone, and every cookie is one that nobody saw being issued.
    async fn restart(&mut self) {
        self.over();
        self.release().await;
        self.lost = false;
        self.held.clear();
        let text = config_text(&self.world.app.url(), &self.lines, BY_HEADER, POLICY);
        let config = check_text("test.toml", &text, Path::new(".")).unwrap();
        self.world.gateway = Gateway::start(config, self.world.clock.clone()).unwrap();
        self.browser.resolve("app.localhost", self.world.gateway.http.unwrap());
        self.browser.hang_up().await;
    }

    fn has_live(&self, user: &str) -> bool {
        !self.world.live_of(user).is_empty()
    }

    async fn check(&mut self) {
        let live = USERS.map(|user| self.world.live_of(user).len());
        assert!(self.lost || live.iter().sum::<usize>() <= 1, "two sessions of one browser: {live:?}");
        let found = self.browser.fetch("/me").await;
        let found = (found.status == 200).then(|| found.json()["user"].as_str().map(str::to_owned)).flatten();
        let expected = self.user.map(|user| USERS[user].to_owned());
        // An answer of a session that the browser lost, and that nobody ended, may bring it back (FIELD F5).
        let is_found_again = found.as_ref().filter(|_| self.lost).is_some_and(|user| self.has_live(user));
        if (self.calm || found.is_some()) && !is_found_again {
            assert_eq!(found, expected);
        }
        // Of an app that recycles ids the copies live again with the value, which `check` warns of (R12).
        let lives_again = self.session_cookie().filter(|_| self.user.is_some());
        for dead in
            self.dead.iter().filter(|dead| lives_again.as_ref().is_none_or(|live| !dead.contains(live)))
        {
            let page = self.world.browser().fetch_with_cookie("/me", dead).await;
            assert!(page.status == 401 || page.json()["user"].is_null(), "a copy opened the app");
        }
    }
}

#[test]
fn no_interleaving_brings_an_ended_session_back() {
    let cases = std::env::var("TENURE_INTERLEAVINGS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let outcome = runner.run(&(setting(), vec(step(), 1..25)), |(setting, steps)| {
        runtime.block_on(async {
            let mut play = Play::new(&setting).await;
            for step in &steps {
                play.take(step).await;
                play.check().await;
            }
        });
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
