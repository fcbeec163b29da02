//! Browsers and operators at work, until the gateway goes away or they are told to stop. Each answer is noted in the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use crate::gateway::{Custody, Live, Operator};
use crate::ledger::{Known, Ledger, Question};
use crate::support::app::PASSWORD;
use crate::support::browser::{Ask, Browser, Mode, NetError, Page};
use crate::support::random::Random;

/// As many work at once.
const TASKS: u64 = 8;
/// Users who may have one session only; the configuration names them.
pub(crate) const SHARED: [&str; 2] = ["shared0", "shared1"];

/// What the tasks of a load share.
pub(crate) struct Load {
    ledger: Arc<Ledger>,
    custody: Custody,
    stop: AtomicBool,
    fresh: AtomicU64,
    /// Told apart from earlier loads on the same directory.
    round: u64,
    /// What must never be seen, whatever dies when.
    wrong: Mutex<Vec<String>>,
    refused: AtomicU64,
}

/// A load under way.
pub(crate) struct Working {
    load: Arc<Load>,
    tasks: JoinSet<()>,
}

impl Working {
    /// Sets everybody to work.
    pub(crate) fn begin(live: &Live, ledger: &Arc<Ledger>, custody: Custody, round: u64, seed: u64) -> Self {
        let load = Arc::new(Load {
            ledger: Arc::clone(ledger),
            custody,
            stop: AtomicBool::new(false),
            fresh: AtomicU64::new(0),
            round,
            wrong: Mutex::default(),
            refused: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (load, http, operator) = (Arc::clone(&load), live.http, live.operator());
            tasks.spawn(async move {
                let worker = Worker { load, tab: Browser::at(http), http, operator };
                // An error is the gateway's death: what was asked stays without an answer.
                let _ = worker.work(Random(seed.wrapping_mul(TASKS).wrapping_add(task))).await;
            });
        }
        Self { load, tasks }
    }

    /// Waits for the work to end, which the gateway's death ends too. Returns how many questions were answered by 503.
    pub(crate) async fn ends(mut self) -> u64 {
        self.load.stop.store(true, Ordering::SeqCst);
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
        let wrong = self.load.wrong.lock();
        assert!(wrong.is_empty(), "{wrong:#?}");
        self.load.refused.load(Ordering::SeqCst)
    }
}

struct Worker {
    load: Arc<Load>,
    tab: Browser,
    http: std::net::SocketAddr,
    operator: Operator,
}

impl Worker {
    async fn work(&self, mut random: Random) -> Result<(), NetError> {
        while !self.load.stop.load(Ordering::SeqCst) {
            match random.below(20) {
                0..6 => self.sign_in(&self.fresh_user()).await?,
                6..8 => self.sign_in(random.pick(&SHARED)).await?,
                8..14 => self.request(&mut random).await?,
                14..16 => self.log_out(&mut random).await?,
                16..18 => self.revoke_one(&mut random).await?,
                _ => self.revoke_user(&mut random).await?,
            }
        }
        Ok(())
    }

    fn fresh_user(&self) -> String {
        format!("u{}-{}", self.load.round, self.load.fresh.fetch_add(1, Ordering::SeqCst))
    }

    async fn sign_in(&self, user: &str) -> Result<(), NetError> {
        let browser = Browser::at(self.http);
        let question = self.load.ledger.asks_to_sign_in(user, SHARED.contains(&user));
        let ask = Ask::form("/login", &[("username", user), ("password", PASSWORD)]).no_follow();
        let page = browser.send(ask).await?;
        let name = self.load.custody.cookie();
        match (page.status, browser.cookie(name)) {
            (302, Some(value)) => self.load.ledger.answered(&question, Some(format!("{name}={value}"))),
            (503, None) => self.refused(),
            (status, cookie) => {
                self.is_wrong(format!(
                    "a sign-in was answered {status}, with a cookie: {}",
                    cookie.is_some()
                ));
            }
        }
        Ok(())
    }

    /// Who is signed in stays so, whatever the store does: nothing but an end is an answer of no user.
    async fn request(&self, random: &mut Random) -> Result<(), NetError> {
        let Some(known) = self.load.ledger.pick(random, true) else { return Ok(()) };
        let page = self.fetch("/me", &known).await?;
        if self.load.ledger.is_untouched(&known) && user_of(&page).as_deref() != Some(known.user.as_str()) {
            self.is_wrong(format!("{} is signed in, and was answered {}", known.user, page.status));
        }
        Ok(())
    }

    async fn log_out(&self, random: &mut Random) -> Result<(), NetError> {
        let Some(known) = self.load.ledger.pick(random, false) else { return Ok(()) };
        let question = self.load.ledger.asks_to_end(&known.user, Some(known.index), "logout");
        match self.fetch("/logout", &known).await?.status {
            302 => self.load.ledger.answered(&question, None),
            // Its session had ended already.
            401 => {}
            503 => self.refused(),
            status => self.is_wrong(format!("a log-out was answered {status}")),
        }
        Ok(())
    }

    async fn revoke_one(&self, random: &mut Random) -> Result<(), NetError> {
        let Some(known) = self.load.ledger.pick(random, false) else { return Ok(()) };
        if SHARED.contains(&known.user.as_str()) {
            // Its id could be that of another one by now.
            return self.revoke(&known.user).await;
        }
        let Some(id) = self.operator.id_of(&known.user).await? else { return Ok(()) };
        let question = self.load.ledger.asks_to_end(&known.user, None, "revoked");
        let page = self.operator.ask(Method::DELETE, &format!("/v1/sessions/{id}"), None).await?;
        self.is_revoked(&question, &page);
        Ok(())
    }

    /// By one operator, or by two who do not know of each other.
    async fn revoke_user(&self, random: &mut Random) -> Result<(), NetError> {
        let Some(Known { user, .. }) = self.load.ledger.pick(random, false) else { return Ok(()) };
        if random.one_in(2) {
            return self.revoke(&user).await;
        }
        let (one, other) = tokio::join!(self.revoke(&user), self.revoke(&user));
        one.and(other)
    }

    async fn revoke(&self, user: &str) -> Result<(), NetError> {
        let question = self.load.ledger.asks_to_end(user, None, "revoked");
        let body = json!({ "user": user });
        let page = self.operator.ask(Method::POST, "/v1/sessions/revoke", Some(&body)).await?;
        self.is_revoked(&question, &page);
        Ok(())
    }

    fn is_revoked(&self, question: &Question, page: &Page) {
        match page.status {
            200 => self.load.ledger.answered(question, None),
            503 => self.refused(),
            status => self.is_wrong(format!("a revocation was answered {status}: {}", page.text())),
        }
    }

    async fn fetch(&self, path: &str, known: &Known) -> Result<Page, NetError> {
        fetch(&self.tab, path, &known.cookie).await
    }

    fn refused(&self) {
        self.load.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn is_wrong(&self, what: String) {
        self.load.wrong.lock().push(what);
    }
}

/// A script's request with this cookie and no other.
pub(crate) async fn fetch(tab: &Browser, path: &str, cookie: &str) -> Result<Page, NetError> {
    tab.hold(Ask::get(Mode::Fetch, path).with("cookie", cookie)).await?.page().await
}

/// Whom the app took the request to be from.
pub(crate) fn user_of(page: &Page) -> Option<String> {
    (page.status == 200).then(|| page.json()["user"].as_str().map(str::to_owned)).flatten()
}
