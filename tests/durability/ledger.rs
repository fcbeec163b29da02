//! What was asked, what was answered, and what follows from it for a gateway that starts again.
//!
//! Order is all that counts: each question and each answer takes a number from one counter. What was asked and never answered
//! may have happened or not; what was answered has happened before its answer and stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::support::random::Random;

/// A moment: the number of the question or the answer.
type Tick = u64;

/// Something that ends sessions of one user.
struct Attempt {
    /// The one session that it is about; `None` for all that the user has.
    session: Option<usize>,
    /// The sign-in whose own session it spares.
    but: Option<usize>,
    reason: &'static str,
    asked: Tick,
    answered: Option<Tick>,
}

/// A sign-in that was answered with its cookie.
struct Held {
    /// Name and value, as a request carries it.
    cookie: String,
    /// Which sign-in it was.
    sign_in: usize,
    asked: Tick,
    answered: Tick,
    fate: Fate,
}

/// What restarts have shown of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is as it was when it was answered, for all that is known.
    Lives,
    /// It ended, for this reason, for ever.
    Ended(String),
    /// Only the app had heard of its log-out: nobody can tell any more whether it lives.
    Lost,
}

#[derive(Default)]
struct User {
    held: Vec<Held>,
    attempts: Vec<Attempt>,
    sign_ins: usize,
}

/// What a restart has to show of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Live,
    /// For one of these reasons.
    Ended(Vec<String>),
    /// Either: these ends were under way.
    Open(Vec<String>),
}

/// A session of the ledger, to be looked at.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) user: String,
    pub(crate) index: usize,
    pub(crate) cookie: String,
    pub(crate) due: Due,
    /// It was settled by an earlier restart.
    pub(crate) is_old: bool,
}

impl Known {
    /// Whether it may have ended so, for all that was answered.
    pub(crate) fn is_open_to(&self, reason: &str) -> bool {
        matches!(&self.due, Due::Open(reasons) if reasons.iter().any(|open| open == reason))
    }
}

/// What a question is about, until it is answered.
pub(crate) struct Question {
    user: String,
    /// Which of the user's attempts; `None` for a sign-in that ends nothing.
    attempt: Option<usize>,
    sign_in: usize,
    asked: Tick,
}

/// How many of what was noted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sign_ins: usize,
    pub(crate) ends: usize,
}

#[derive(Default)]
pub(crate) struct Ledger {
    ticks: AtomicU64,
    users: Mutex<BTreeMap<String, User>>,
    counts: Mutex<Counts>,
}

impl Ledger {
    fn tick(&self) -> Tick {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// A sign-in is about to be asked for; where the user may have one session only, it ends the others.
    pub(crate) fn asks_to_sign_in(&self, user: &str, is_alone: bool) -> Question {
        let mut users = self.users.lock();
        let entry = users.entry(user.to_owned()).or_default();
        entry.sign_ins += 1;
        let (sign_in, asked) = (entry.sign_ins, self.tick());
        let attempt = is_alone.then(|| {
            let (session, but) = (None, Some(sign_in));
            entry.attempts.push(Attempt { session, but, reason: "max_concurrent", asked, answered: None });
            entry.attempts.len() - 1
        });
        Question { user: user.to_owned(), attempt, sign_in, asked }
    }

    /// An end is about to be asked for: of one session, or of all that the user has.
    pub(crate) fn asks_to_end(&self, user: &str, session: Option<usize>, reason: &'static str) -> Question {
        let mut users = self.users.lock();
        let entry = users.get_mut(user).expect("a user who has signed in");
        let asked = self.tick();
        entry.attempts.push(Attempt { session, but: None, reason, asked, answered: None });
        Question { user: user.to_owned(), attempt: Some(entry.attempts.len() - 1), sign_in: 0, asked }
    }

    /// It was answered as done; a sign-in with its cookie.
    pub(crate) fn answered(&self, question: &Question, cookie: Option<String>) {
        let mut users = self.users.lock();
        let entry = users.get_mut(&question.user).expect("noted when it was asked");
        let answered = self.tick();
        if let Some(attempt) = question.attempt.and_then(|attempt| entry.attempts.get_mut(attempt)) {
            attempt.answered = Some(answered);
        }
        let mut counts = self.counts.lock();
        match cookie {
            None => counts.ends += 1,
            Some(cookie) => {
                counts.sign_ins += 1;
                let (sign_in, asked) = (question.sign_in, question.asked);
                entry.held.push(Held { cookie, sign_in, asked, answered, fate: Fate::Lives });
            }
        }
    }

    /// A session that nobody has tried to end, or any that is not known to have ended.
    pub(crate) fn pick(&self, random: &mut Random, untouched: bool) -> Option<Known> {
        let users = self.users.lock();
        let fits = |known: &Known| match known.due {
            Due::Live => true,
            Due::Open(_) => !untouched,
            Due::Ended(_) => false,
        };
        // From a random place on, so that a long ledger costs no more than a short one.
        let names: Vec<&String> = users.keys().collect();
        let from = random.below(names.len().max(1));
        let around = names.iter().cycle().skip(from).take(names.len());
        around.flat_map(|name| users[*name].known(name)).find(fits)
    }

    /// Whether nobody has tried to end it.
    pub(crate) fn is_untouched(&self, known: &Known) -> bool {
        self.users.lock()[&known.user].due(known.index) == Due::Live
    }

    /// Everything that is known.
    pub(crate) fn all(&self) -> Vec<Known> {
        self.users.lock().iter().flat_map(|(name, user)| user.known(name)).collect()
    }

    /// Sign-ins of a user whose sessions cannot be asked for, because nobody got their cookie.
    pub(crate) fn sign_ins_without_answer(&self, user: &str) -> usize {
        let of =
            |user: &User| user.sign_ins - user.held.iter().filter(|held| held.fate != Fate::Lost).count();
        self.users.lock().get(user).map_or(0, of)
    }

    /// What a restart has shown of a session stays so. Call [`Ledger::close`] once all are settled.
    pub(crate) fn settle(&self, known: &Known, fate: Fate) {
        let mut users = self.users.lock();
        let tick = self.tick();
        let held = &mut users.get_mut(&known.user).expect("known").held[known.index];
        (held.asked, held.answered, held.fate) = (tick, tick, fate);
    }

    /// The process has gone: nothing that was under way will happen any more.
    pub(crate) fn close(&self) {
        self.users.lock().values_mut().for_each(|user| user.attempts.clear());
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.counts.lock()
    }
}

impl User {
    fn known(&self, name: &str) -> impl Iterator<Item = Known> {
        let held = self.held.iter().enumerate().filter(|(_, held)| held.fate != Fate::Lost);
        held.map(|(index, held)| Known {
            user: name.to_owned(),
            index,
            cookie: held.cookie.clone(),
            due: self.due(index),
            is_old: held.fate != Fate::Lives,
        })
    }

    fn due(&self, index: usize) -> Due {
        let held = &self.held[index];
        if let Fate::Ended(reason) = &held.fate {
            return Due::Ended(vec![reason.clone()]);
        }
        let possible: Vec<&Attempt> = self.attempts.iter().filter(|a| a.may_end(held, index)).collect();
        let reasons: BTreeSet<String> = possible.iter().map(|attempt| attempt.reason.to_owned()).collect();
        let reasons = reasons.into_iter().collect();
        match possible.iter().any(|attempt| attempt.has_ended(held, &possible)) {
            true => Due::Ended(reasons),
            false if possible.is_empty() => Due::Live,
            false => Due::Open(reasons),
        }
    }
}

impl Attempt {
    fn may_end(&self, held: &Held, index: usize) -> bool {
        let is_about = self.session.is_none_or(|session| session == index) && self.but != Some(held.sign_in);
        is_about && self.answered.is_none_or(|answered| answered > held.asked)
    }

    /// It was answered, and the session was there before. A log-out that finds its session ended already, by what was not
    /// answered yet, confirms nothing: it is passed to the app as any request without a session.
    fn has_ended(&self, held: &Held, others: &[&Self]) -> bool {
        let Some(answered) = self.answered else { return false };
        let alone = || {
            let before = |other: &&&Self| other.asked < answered && !std::ptr::eq(**other, self);
            let overlaps = |other: &Self| other.answered.is_none_or(|over| over > self.asked);
            !others.iter().filter(before).any(|other| overlaps(other))
        };
        self.asked > held.answered && (self.reason != "logout" || alone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(ledger: &Ledger) -> Vec<Due> {
        ledger.all().into_iter().map(|known| known.due).collect()
    }

    fn ended(reasons: &[&str]) -> Due {
        Due::Ended(reasons.iter().map(|&reason| reason.to_owned()).collect())
    }

    fn open(reasons: &[&str]) -> Due {
        Due::Open(reasons.iter().map(|&reason| reason.to_owned()).collect())
    }

    fn signs_in(ledger: &Ledger, is_alone: bool) {
        let question = ledger.asks_to_sign_in("ann", is_alone);
        ledger.answered(&question, Some("SID=1".to_owned()));
    }

    #[test]
    fn what_was_answered_has_happened_and_what_was_not_may_have() {
        let ledger = Ledger::default();
        signs_in(&ledger, false);
        assert_eq!(dues(&ledger), [Due::Live]);
        let question = ledger.asks_to_end("ann", Some(0), "revoked");
        assert_eq!(dues(&ledger), [open(&["revoked"])]);
        ledger.answered(&question, None);
        assert_eq!(dues(&ledger), [ended(&["revoked"])]);
        // Whoever signs in later is none of those that were revoked.
        signs_in(&ledger, false);
        assert_eq!(dues(&ledger), [ended(&["revoked"]), Due::Live]);
    }

    #[test]
    fn of_sign_ins_at_once_either_may_be_the_last() {
        let ledger = Ledger::default();
        signs_in(&ledger, true);
        let (one, other) = (ledger.asks_to_sign_in("ann", true), ledger.asks_to_sign_in("ann", true));
        ledger.answered(&one, Some("SID=2".to_owned()));
        assert_eq!(dues(&ledger), [ended(&["max_concurrent"]), open(&["max_concurrent"])]);
        ledger.answered(&other, Some("SID=3".to_owned()));
        assert_eq!(dues(&ledger)[1..], [open(&["max_concurrent"]), open(&["max_concurrent"])]);
    }

    #[test]
    fn a_restart_settles_what_was_open() {
        let ledger = Ledger::default();
        signs_in(&ledger, false);
        signs_in(&ledger, false);
        let _unanswered = ledger.asks_to_end("ann", None, "revoked");
        let all = ledger.all();
        ledger.settle(&all[0], Fate::Lives);
        ledger.settle(&all[1], Fate::Ended("revoked".to_owned()));
        ledger.close();
        assert_eq!(dues(&ledger), [Due::Live, ended(&["revoked"])]);
    }

    #[test]
    fn a_logout_beside_another_end_confirms_nothing() {
        let ledger = Ledger::default();
        signs_in(&ledger, false);
        let _unanswered = ledger.asks_to_end("ann", Some(0), "revoked");
        let logout = ledger.asks_to_end("ann", Some(0), "logout");
        ledger.answered(&logout, None);
        assert_eq!(dues(&ledger), [open(&["logout", "revoked"])]);
    }
}
