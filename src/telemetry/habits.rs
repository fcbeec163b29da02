//! What an app does that undoes its configuration: noticed by counting, told once in the log with the advice, and shown to
//! operators for as long as the process runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// So many answers before anything is said: a few prove nothing.
const ENOUGH: u64 = 50;

/// A habit that needs an operator's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// The session cookie changes with most answers.
    RotatesAlways,
    /// Values of ended sessions are used again.
    RecyclesIds,
    /// Sign-in forms are sent, and none counts as a sign-in.
    SignInNeverMatches,
    /// Sessions begin, and no source ever names a user.
    NobodySignsIn,
    /// Browsers present cookies that nobody saw being issued.
    UnseenCookies,
    /// Requests come with Basic or Bearer credentials and no session.
    Unidentified,
}

impl Habit {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::RotatesAlways,
        Self::RecyclesIds,
        Self::SignInNeverMatches,
        Self::NobodySignsIn,
        Self::UnseenCookies,
        Self::Unidentified,
    ];

    /// Its name in logs and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RotatesAlways => "rotates_always",
            Self::RecyclesIds => "recycles_ids",
            Self::SignInNeverMatches => "sign_in_never_matches",
            Self::NobodySignsIn => "nobody_signs_in",
            Self::UnseenCookies => "unseen_cookies",
            Self::Unidentified => "unidentified",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::RotatesAlways => {
                "the session cookie changes with every answer, and earlier values may stay valid in the app: \
                 set custody = \"vault\""
            }
            Self::RecyclesIds => {
                "the app uses values of ended sessions again, and copies of them live again with it: \
                 set custody = \"vault\""
            }
            Self::SignInNeverMatches => {
                "sign-in forms are sent and none counts as a sign-in: check path, user and success of the \
                 login-form source against what the app answers"
            }
            Self::NobodySignsIn => {
                "sessions begin and no identity source names a user, so that no limit per user can hold: \
                 check [[app.identity]]"
            }
            Self::UnseenCookies => {
                "browsers bring session cookies that nobody saw being issued: people signed in before the \
                 roll-out, or before a restart without a store, or there is a way to the app past the gateway"
            }
            Self::Unidentified => {
                "requests come with Basic or Bearer credentials and no session, and no time-out ends them: \
                 set unidentified = \"refuse\" if only browsers should come"
            }
        }
    }
}

/// What was counted of one app.
#[derive(Debug, Default)]
pub struct Habits {
    answers: AtomicU64,
    rotations: AtomicU64,
    recycled: AtomicU64,
    forms: AtomicU64,
    form_sign_ins: AtomicU64,
    began: AtomicU64,
    named: AtomicU64,
    unseen: AtomicU64,
    unidentified: AtomicU64,
    told: [AtomicBool; Habit::ALL.len()],
}

fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Habits {
    /// An answer to a request with a live session.
    pub fn answered(&self) {
        count(&self.answers);
    }

    /// Such an answer set a new value without a sign-in.
    pub fn rotated(&self, app: &str) {
        if count(&self.rotations) * 2 >= read(&self.answers).max(ENOUGH) {
            self.tell(app, Habit::RotatesAlways);
        }
    }

    /// A dead value began its next generation.
    pub fn recycled(&self, app: &str) {
        count(&self.recycled);
        self.tell(app, Habit::RecyclesIds);
    }

    /// A sign-in form was answered; `counted` when its rule held.
    pub fn form(&self, app: &str, counted: bool) {
        if counted {
            count(&self.form_sign_ins);
        } else if count(&self.forms) >= ENOUGH && read(&self.form_sign_ins) == 0 {
            self.tell(app, Habit::SignInNeverMatches);
        }
    }

    /// A session began, without a user; `sourced` when the configuration names a source of users, and `is_anybody` says whether
    /// somebody is signed in all the same, since before this process perhaps. That takes a while and is asked now and then.
    pub fn began(&self, app: &str, sourced: bool, is_anybody: impl FnOnce() -> bool) {
        let began = count(&self.began);
        if began.is_multiple_of(2 * ENOUGH) && sourced && read(&self.named) == 0 {
            match is_anybody() {
                true => self.named(),
                false => self.tell(app, Habit::NobodySignsIn),
            }
        }
    }

    /// A source named a user.
    pub fn named(&self) {
        count(&self.named);
    }

    /// A request presented only cookies that nobody saw being issued.
    pub fn unseen(&self, app: &str) {
        if count(&self.unseen) >= ENOUGH {
            self.tell(app, Habit::UnseenCookies);
        }
    }

    /// A request came with credentials in a header and no session.
    pub fn unidentified(&self, app: &str) {
        if count(&self.unidentified) >= ENOUGH {
            self.tell(app, Habit::Unidentified);
        }
    }

    /// How often it was counted, as metrics tell it.
    #[must_use]
    pub fn count(&self, habit: Habit) -> u64 {
        match habit {
            Habit::RotatesAlways => read(&self.rotations),
            Habit::RecyclesIds => read(&self.recycled),
            Habit::SignInNeverMatches => read(&self.forms),
            Habit::NobodySignsIn => read(&self.began),
            Habit::UnseenCookies => read(&self.unseen),
            Habit::Unidentified => read(&self.unidentified),
        }
    }

    /// The habits that were noticed so far. What a later count disproves is left out.
    pub fn noticed(&self) -> impl Iterator<Item = Habit> {
        Habit::ALL.into_iter().filter(|habit| {
            let disproved = match habit {
                Habit::SignInNeverMatches => read(&self.form_sign_ins) > 0,
                Habit::NobodySignsIn => read(&self.named) > 0,
                Habit::RotatesAlways | Habit::RecyclesIds | Habit::UnseenCookies | Habit::Unidentified => {
                    false
                }
            };
            self.told[*habit as usize].load(Ordering::Relaxed) && !disproved
        })
    }

    fn tell(&self, app: &str, habit: Habit) {
        let told = &self.told[habit as usize];
        if !told.load(Ordering::Relaxed) && !told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%app, habit = habit.as_str(), advice = habit.advice(), "the app has a habit that needs attention");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noticed(habits: &Habits) -> Vec<Habit> {
        habits.noticed().collect()
    }

    #[test]
    fn a_cookie_that_changes_with_most_answers_is_noticed() {
        let (always, seldom) = (Habits::default(), Habits::default());
        for n in 0..1000 {
            always.answered();
            always.rotated("app");
            seldom.answered();
            if n % 10 == 0 {
                seldom.rotated("app");
            }
        }
        assert_eq!((noticed(&always), noticed(&seldom)), (vec![Habit::RotatesAlways], vec![]));
        let few = Habits::default();
        for _ in 0..24 {
            few.answered();
            few.rotated("app");
        }
        assert_eq!(noticed(&few), []);
    }

    #[test]
    fn a_rule_that_matches_once_is_a_rule_that_matches() {
        let habits = Habits::default();
        (0..50).for_each(|_| habits.form("app", false));
        assert_eq!(noticed(&habits), [Habit::SignInNeverMatches]);
        habits.form("app", true);
        assert_eq!(noticed(&habits), []);
    }

    #[test]
    fn sessions_without_any_user_are_noticed_where_a_source_should_name_one() {
        let [sourced, unsourced, restarted] = [0; 3].map(|_| Habits::default());
        for _ in 0..100 {
            sourced.began("app", true, || false);
            unsourced.began("app", false, || false);
            restarted.began("app", true, || true);
        }
        assert_eq!((noticed(&sourced), noticed(&unsourced)), (vec![Habit::NobodySignsIn], vec![]));
        assert_eq!(noticed(&restarted), [], "who was signed in before was named before");
        sourced.named();
        assert_eq!(noticed(&sourced), []);
    }

    #[test]
    fn what_happens_once_in_a_while_is_told_once_it_is_often() {
        let habits = Habits::default();
        for _ in 0..49 {
            habits.unseen("app");
            habits.unidentified("app");
        }
        assert_eq!(noticed(&habits), []);
        habits.unseen("app");
        habits.unidentified("app");
        habits.recycled("app");
        assert_eq!(noticed(&habits), [Habit::RecyclesIds, Habit::UnseenCookies, Habit::Unidentified]);
    }
}
