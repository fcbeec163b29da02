//! After a restart: does everything that browsers and operators can see agree with the ledger?

use std::collections::{BTreeMap, HashMap};

use crate::gateway::{Live, Operator};
use crate::ledger::{Due, Fate, Known, Ledger};
use crate::load::{SHARED, fetch, user_of};
use crate::support::app::App;
use crate::support::browser::{Browser, Page};
use crate::support::random::Random;

/// Of what an earlier restart has shown to have ended only so many are asked for as a browser does; the list has all.
const OLD_ONES_ASKED: usize = 50;

/// Looks at every session, and takes what it finds as settled. Returns what does not agree.
pub(crate) async fn compare(
    live: &Live,
    ledger: &Ledger,
    app: &App,
    random: &mut Random,
    is_full: bool,
) -> Vec<String> {
    let listed = Listed::read(&live.operator()).await;
    let mut look = Look { listed, tab: Browser::at(live.http), wrong: Vec::new(), live: BTreeMap::new() };
    app.forget_requests();
    let all = ledger.all();
    let old = all.iter().filter(|known| known.is_old).count();
    let mut dead: Vec<&Known> = Vec::new();
    for known in &all {
        if known.is_old && !is_full && random.below(old) >= OLD_ONES_ASKED {
            look.reason(known);
            continue;
        }
        let fate = look.at(known).await;
        if matches!(fate, Fate::Ended(_)) {
            dead.push(known);
        }
        ledger.settle(known, fate);
    }
    let by_user: BTreeMap<&str, ()> = all.iter().map(|known| (known.user.as_str(), ())).collect();
    by_user.keys().for_each(|user| look.count(user, ledger));
    look.wrong.extend(reached_the_app(app, &dead));
    ledger.close();
    look.wrong
}

/// No token of a session that is over is in what the app was asked.
fn reached_the_app(app: &App, dead: &[&Known]) -> Vec<String> {
    let value = |known: &&Known| Some((known.cookie.split_once('=')?.1.to_owned(), known.user.clone()));
    let values: HashMap<String, String> = dead.iter().filter_map(value).collect();
    let lines = app.requests().into_iter().flat_map(|seen| seen.all("cookie"));
    let pairs = lines.flat_map(|line| line.split("; ").map(str::to_owned).collect::<Vec<_>>());
    let found = pairs.filter_map(|pair| values.get(pair.split_once('=')?.1).cloned());
    found.map(|user| format!("a dead token of {user} reached the app")).collect()
}

/// Goes from session to session.
struct Look {
    listed: Listed,
    tab: Browser,
    wrong: Vec<String>,
    /// How many live ones were found of each user.
    live: BTreeMap<String, usize>,
}

impl Look {
    async fn at(&mut self, known: &Known) -> Fate {
        let status = self.fetch("/.tenure/status", known).await;
        let me = self.fetch("/me", known).await;
        let (is_live, user) = (status.status == 200 && status.json()["state"] == "active", user_of(&me));
        if status.status >= 500 || me.status >= 500 {
            self.is_wrong(known, &format!("was answered {} and {}", status.status, me.status));
        }
        if user.as_ref().is_some_and(|user| *user != known.user) {
            self.is_wrong(known, "is somebody else");
        }
        match (&known.due, is_live) {
            (Due::Live, false) => self.is_wrong(known, "an acknowledged sign-in is lost"),
            (Due::Ended(_), true) => self.is_wrong(known, "an ended session is back"),
            (Due::Live | Due::Ended(_) | Due::Open(_), _) => {}
        }
        match (is_live, user) {
            (true, Some(_)) => {
                *self.live.entry(known.user.clone()).or_default() += 1;
                Fate::Lives
            }
            // The app obeyed a log-out whose answer nobody saw: it may say so, the gateway cannot know it yet.
            (true, None) if known.is_open_to("logout") => Fate::Lost,
            (true, None) => {
                self.is_wrong(known, "lives, and is nobody to the app");
                Fate::Lost
            }
            (false, Some(_)) => {
                self.is_wrong(known, "is over, and reaches the app as its user");
                Fate::Lost
            }
            (false, None) => Fate::Ended(self.reason(known)),
        }
    }

    /// Why it ended, as far as the list can tell the sessions of one user apart.
    fn reason(&mut self, known: &Known) -> String {
        let reasons = self.listed.ended.get(&known.user).map_or(&[][..], Vec::as_slice);
        let due = match &known.due {
            Due::Live => return "lost".to_owned(),
            Due::Ended(due) | Due::Open(due) => due,
        };
        if let Some(found) = reasons.iter().find(|reason| due.contains(reason)) {
            return found.clone();
        }
        let what = format!("is listed as ended for {reasons:?}");
        self.is_wrong(known, &what);
        "unlisted".to_owned()
    }

    /// As many are listed as active as can be asked for, and those whose cookie nobody got.
    fn count(&mut self, user: &str, ledger: &Ledger) {
        let asked = self.live.get(user).copied().unwrap_or(0);
        let listed = self.listed.live.get(user).copied().unwrap_or(0);
        let unknown = ledger.sign_ins_without_answer(user);
        if !(asked..=asked + unknown).contains(&listed) {
            self.wrong.push(format!("{user}: {asked} sessions answer, {listed} are listed as active"));
        }
        if SHARED.contains(&user) && listed > 1 {
            self.wrong.push(format!("{user}: {listed} sessions, where one is allowed"));
        }
    }

    async fn fetch(&self, path: &str, known: &Known) -> Page {
        fetch(&self.tab, path, &known.cookie).await.expect("a gateway that has started answers")
    }

    fn is_wrong(&mut self, known: &Known, what: &str) {
        self.wrong.push(format!("{}, its session {}: {what}; due: {:?}", known.user, known.index, known.due));
    }
}

/// The API's list, by user.
struct Listed {
    live: BTreeMap<String, usize>,
    ended: BTreeMap<String, Vec<String>>,
}

impl Listed {
    async fn read(operator: &Operator) -> Self {
        let mut listed = Self { live: BTreeMap::new(), ended: BTreeMap::new() };
        for item in operator.list().await {
            let user = item["user"].as_str().unwrap_or_default().to_owned();
            match item["end_reason"].as_str() {
                None => *listed.live.entry(user).or_default() += 1,
                Some(reason) => listed.ended.entry(user).or_default().push(reason.to_owned()),
            }
        }
        listed
    }
}
