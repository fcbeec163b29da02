//! Three gateways before one app, and people who use them all the while.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tenure::clock::Clock;
use tenure::config::check_text;
use tenure::server::Gateway;
use tenure::store::{Filter, StateFilter};
use tokio::task::LocalSet;

use crate::setup::{BY_HEADER, POLICY, config_text, sign_in, who};
use crate::support::app::App;
use crate::support::browser::Browser;
use crate::support::wait::eventually;

/// How long it may take until all gateways agree: the longest outage of the store's own, and what follows it.
const PATIENCE: Duration = Duration::from_secs(40);

/// How many people use each gateway.
const PEOPLE: usize = 3;

/// Gateways and the app; all on the machine's own clock.
pub(crate) struct Fleet {
    gateways: Vec<Gateway>,
    clock: Clock,
    _app: App,
}

impl Fleet {
    /// One gateway for each, with these lines in its `[store]`.
    pub(crate) async fn start(stores: &[impl AsRef<str>]) -> Self {
        let app = App::with(|s| s.identity_headers = true).await;
        let clock = Clock::system();
        let mut gateways = Vec::new();
        for lines in stores {
            let secret = "secret = \"one secret for all of the fleet\"";
            let store = format!("{secret}\non_outage = \"local\"\n{}\n", lines.as_ref());
            let text = config_text(&app.url(), "", BY_HEADER, POLICY).replacen("path = \"off\"\n", &store, 1);
            let config =
                check_text("test.toml", &text, Path::new(".")).unwrap_or_else(|f| panic!("{f}\n{text}"));
            gateways.push(Gateway::start(config, clock.clone()).expect("the gateway starts"));
        }
        Self { gateways, clock, _app: app }
    }

    fn browser(&self, at: usize) -> Browser {
        Browser::at(self.gateways[at].http.expect("plain HTTP"))
    }

    /// Somebody signs in through this gateway.
    pub(crate) async fn signed_in(&self, user: &str, at: usize) -> Browser {
        let browser = self.browser(at);
        sign_in(&browser, user).await;
        browser
    }

    /// An operator ends the sessions of a user through this gateway.
    pub(crate) fn revoke(&self, at: usize, user: &str) {
        let filter = Filter { user: Some(vec![user.to_owned()]), ..Filter::default() };
        let table = self.gateways[at].table();
        let ended = table.revoke(&filter, &[], false, &"test".into(), self.clock.now());
        assert_eq!(ended.ended.len(), 1, "{user} has one session at {at}");
    }

    pub(crate) fn is_over_at(&self, at: usize, user: &str) -> bool {
        !self.live_at(at).iter().any(|(name, _)| name == user)
    }

    /// Who is signed in, as this gateway has it; with the ids of the sessions.
    fn live_at(&self, at: usize) -> Vec<(String, String)> {
        let filter = Filter { state: Some(StateFilter::Active), ..Filter::default() };
        let listed = self.gateways[at].table().list(&filter, None, 1000, self.clock.now()).items;
        let named = listed
            .iter()
            .filter_map(|view| Some((view.identity.as_ref()?.user.clone(), view.id.to_string())));
        let mut live: Vec<_> = named.collect();
        live.sort();
        live
    }

    /// Waits until the store is there for every gateway, and all have the same sessions.
    pub(crate) async fn all_agree(&self) {
        let healthy = |gateway: &Gateway| {
            gateway.handle().metrics_text().lines().any(|line| line == "tenure_store_degraded 0")
        };
        eventually(PATIENCE, async || {
            let first = self.live_at(0);
            self.gateways.iter().all(healthy) && (1..self.gateways.len()).all(|at| self.live_at(at) == first)
        })
        .await;
    }

    /// Waits until every gateway has a session of each of them.
    pub(crate) async fn all_know(&self, users: &[&str]) {
        let knows = |at: usize| users.iter().all(|user| !self.is_over_at(at, user));
        eventually(PATIENCE, async || (0..self.gateways.len()).all(knows)).await;
    }

    /// Waits until no gateway has a session of any of them.
    pub(crate) async fn nobody_has(&self, users: &[&str]) {
        let lacks = |at: usize| users.iter().all(|user| self.is_over_at(at, user));
        eventually(PATIENCE, async || (0..self.gateways.len()).all(lacks)).await;
    }

    /// People sign in at every gateway; see [`Load::during`].
    pub(crate) async fn load(&self) -> Load {
        let mut people = Vec::new();
        for at in 0..self.gateways.len() {
            for n in 0..PEOPLE {
                let user = format!("person{at}{n}");
                people.push((self.signed_in(&user, at).await, user));
            }
        }
        let names: Vec<&str> = people.iter().map(|(_, user)| user.as_str()).collect();
        self.all_know(&names).await;
        Load { people: Rc::new(people), faults: Rc::default(), asked: Rc::default() }
    }
}

/// People who ask for pages all the while, each at one gateway.
pub(crate) struct Load {
    people: Rc<Vec<(Browser, String)>>,
    faults: Rc<RefCell<Vec<String>>>,
    asked: Rc<Cell<u64>>,
}

impl Load {
    /// While `story` is told, everybody asks for pages and remembers what was wrong with them.
    pub(crate) async fn during<T>(&self, story: impl Future<Output = T>) -> T {
        let tasks = LocalSet::new();
        for index in 0..self.people.len() {
            let (people, faults, asked) =
                (Rc::clone(&self.people), Rc::clone(&self.faults), Rc::clone(&self.asked));
            tasks.spawn_local(async move {
                let (browser, user) = &people[index];
                loop {
                    let page = browser.fetch("/me").await;
                    asked.set(asked.get() + 1);
                    if page.status != 200 || page.json()["user"].as_str() != Some(user) {
                        faults.borrow_mut().push(format!("{user}: {} {}", page.status, page.text()));
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        // Dropped with the story, the tasks end.
        tasks.run_until(story).await
    }

    /// Nobody met anything wrong, and everybody may go on at every other gateway.
    pub(crate) async fn stops(self, fleet: &Fleet) {
        let faults = self.faults.take();
        println!("{} requests, {} faults", self.asked.get(), faults.len());
        assert!(
            faults.is_empty(),
            "{} of {}: {:?}",
            faults.len(),
            self.asked.get(),
            &faults[..faults.len().min(5)]
        );
        assert!(self.asked.get() > 100, "there was load");
        for (browser, user) in self.people.iter() {
            for gateway in &fleet.gateways {
                browser.resolve("app.localhost", gateway.http.unwrap());
                browser.hang_up().await;
                assert_eq!(who(browser).await.as_ref(), Some(user));
            }
        }
    }
}
