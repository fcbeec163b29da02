//! What people, their browsers, operators and the app do.

use std::collections::HashSet;

use tenure::session::EndReason;

use super::{FETCHES, PAGES, RACING, SEAT, SEATS, Slow, Storm, TABS, USERS};
use crate::habits::{FEW_ANONYMOUS, Own};
use crate::model::Live;
use crate::support::app::{MFA_CODE, PASSWORD};
use crate::support::browser::{Ask, Mode, Page};
use crate::support::wait::{PATIENCE, eventually};

impl Storm {
    fn ask(&mut self, at: usize) -> Ask {
        let (mode, path) = match self.random.one_in(3) {
            true => (Mode::Navigate, self.random.pick(&PAGES)),
            false => (Mode::Fetch, self.random.pick(&FETCHES)),
        };
        Ask::get(mode, path).with(SEAT, &self.seats[at].name)
    }

    /// Each tab asks, all at once; the answers arrive in any order (FIELD F5).
    pub(super) async fn shuffled(&mut self, at: usize) {
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
    pub(super) async fn all_at_once(&mut self) {
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
    pub(super) async fn begin_slow(&mut self, at: usize) {
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
    pub(super) async fn finish_slow(&mut self) {
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
            // That the session is over was told when it ended, before its browser signed in anew.
            let is_old = held.headers.contains_key("tenure-session") && session != self.seats[at].session;
            if is_old {
                continue;
            }
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
    pub(super) async fn race(&mut self, at: usize) {
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
        let only_ends = self.rotates || self.habit.anonymous;
        self.may_overlook_log_out = self.rotates;
        match self.random.below(if only_ends { 2 } else { 3 }) {
            0 => self.revoke(at).await,
            1 => self.log_out(at).await,
            // Where each answer sets a value, the last one to arrive counts, and that may be one from before; and where every
            // visitor gets one, whoever still brings the value from before the sign-in is a visitor.
            _ => self.sign_in(at).await,
        }
        self.may_overlook_log_out = false;
        for asking in asking {
            asking.await.unwrap().expect("an answer");
        }
        self.expect(at).await;
    }

    /// Somebody signs in: anew, again, or in place of somebody else.
    pub(super) async fn sign_in(&mut self, at: usize) {
        let user = self.random.pick(&USERS);
        self.look();
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
        let requests = self.take_requests().into_iter().filter(|(seat, _)| *seat == self.seats[at].name);
        let requests: Vec<_> = requests.map(|(_, values)| values).collect();
        // Of what travelled for nobody, only what the form came with is replaced: other tabs may have had visits of their own.
        let posted = || requests.first().into_iter().flatten().cloned().collect();
        let before: HashSet<_> = old.map_or_else(posted, |id| self.model.live[&id].held.clone());
        let held = requests.iter().flatten().filter(|value| !before.contains(*value));
        let held: HashSet<_> = held.chain(&in_use).cloned().collect();
        // In a vault a value with another route is another value.
        let failed_over = matches!(self.habit.own, Some(Own::Failover)) && self.vault;
        let renews = self.habit.renews || failed_over && old.is_some_and(|id| !self.live_ids().contains(&id));
        if let (Some(id), true, false) = (old, same, renews) {
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

    pub(super) async fn log_out(&mut self, at: usize) {
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

    pub(super) async fn revoke(&mut self, at: usize) {
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
    pub(super) fn other_browser(&mut self, at: usize) {
        let fresh = self.seat();
        let gone = std::mem::replace(&mut self.seats[at], fresh);
        gone.slow.iter().for_each(|slow| slow.answer.abort());
    }

    pub(super) async fn own(&mut self, at: usize) {
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
                for _ in 0..FEW_ANONYMOUS / 2 {
                    self.world.browser().fetch("/poll").await;
                }
            }
        }
    }
}
