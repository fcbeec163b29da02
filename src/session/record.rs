//! The session's record and everything that can happen to it, as plain values.
//!
//! The store keeps these records behind locks; which transitions exist, and that none leads back from an end (law 2),
//! is decided here.

mod image;
mod merge;
mod unsure;

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::gate::Standing;
use super::identity::Identity;
use super::jar::Jar;
use super::policy::Rival;
use super::profile::CookieKind;
use super::tokens::Tokens;
pub use image::Image;
pub use merge::Merged;
use unsure::Elsewhere;

pub use super::tokens::{CookieShape, FellOut, MAX_SIBLINGS, MAX_TOKENS, NewToken};
use super::{
    Deadline, EndReason, Moment, Policy, SessionId, Span, Times, TokenKey, Verdict, deadline, judge,
};

/// A session that cannot be judged is looked at again after this long: the store has been asked by then, or is away.
const ASKED_AGAIN: Span = Span::from_secs(1);

/// How long a session may be held back as pending (R13).
pub const PENDING_FOR: Span = Span::from_secs(120);

/// Number of an app, given by the store in the order apps are first named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u16);

/// Whether time-outs and limits act, or are only counted (R17). Stores keep the variants by their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They act.
    Enforce,
    /// They are counted once each.
    Observe,
}

/// What a session is held to: the part of one book of policies that concerns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Its effective policy.
    pub policy: Policy,
    /// Whether the policy acts or is only counted.
    pub mode: Mode,
    /// Which book both were taken from. Numbers wrap around.
    pub epoch: u32,
}

/// Whether the book `epoch` came after the book `other`; numbers wrap around.
#[must_use]
pub const fn is_newer(epoch: u32, other: u32) -> bool {
    let ahead = epoch.wrapping_sub(other);
    ahead != 0 && ahead < u32::MAX / 2
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// When.
    pub at: Moment,
    /// By whom, where a person or an operator's token ended it.
    pub by: Option<Arc<str>>,
    /// It was told on a navigation.
    pub told: bool,
    /// The app's own logout was called for it.
    pub farewelled: bool,
}

/// Where a session stands. Stores keep the variants by their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In use, as far as its deadline allows.
    Active,
    /// Held back until then.
    Pending(Moment),
    /// Over, for ever (law 2).
    Ended(End),
}

/// What a browser looked like when its session began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visitor {
    /// Its address, as far as it can be trusted.
    pub ip: IpAddr,
    /// `User-Agent`, cut at 512 bytes.
    pub user_agent: Arc<str>,
}

/// One session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its public name.
    pub id: SessionId,
    /// Whose sessions it belongs to.
    pub app: AppId,
    /// From which deadlines are computed.
    pub times: Times,
    /// As last computed; never moved back once passed (R1).
    pub deadline: Deadline,
    /// What it is held to.
    pub policy: Policy,
    /// Whether the policy acts on it.
    pub mode: Mode,
    /// Which book of policies both were taken from.
    pub epoch: u32,
    /// Where it stands.
    pub state: State,
    /// Who signed in.
    pub identity: Option<Arc<Identity>>,
    /// Where it came from.
    pub visitor: Visitor,
    /// Which use of a recycled id this is; 0 for the first.
    pub generation: u32,
    /// Its cookie was adopted, not seen being issued.
    pub adopted: bool,
    /// Requests forwarded for it.
    pub requests: u64,
    /// The app's cookies, where they are kept from the browser.
    pub jar: Option<Arc<Jar>>,
    tokens: Tokens,
    /// Its cookie came back at least once.
    pub returned: bool,
    /// It was forgotten without an end: nothing happens on it any more.
    forgotten: bool,
    observed: Observed,
    /// It took on other terms, of those that a record keeps, since [`Session::take_adopted`] was last called.
    adopted_terms: bool,
    /// Where other gateways serve it too.
    elsewhere: Option<Box<Elsewhere>>,
}

/// What was counted instead of done while only observing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Observed {
    idle: bool,
    lifetime: bool,
    limit: bool,
}

/// What [`Session::settle`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Nothing changed.
    AsBefore,
    /// The deadline had come: the session has ended just now, for this reason.
    JustEnded(EndReason),
    /// It would have ended now if the gateway enforced; told once for each reason.
    WouldEnd(EndReason),
}

impl Session {
    /// A new session that is active.
    #[must_use]
    pub fn new(id: SessionId, app: AppId, terms: Terms, visitor: Visitor, now: Moment) -> Self {
        let times = Times { created_at: now, signed_in_at: None, last_active_at: now };
        Self {
            id,
            app,
            times,
            deadline: deadline(&terms.policy, &times),
            policy: terms.policy,
            mode: terms.mode,
            epoch: terms.epoch,
            state: State::Active,
            identity: None,
            visitor,
            generation: 0,
            adopted: false,
            requests: 0,
            jar: None,
            tokens: Tokens::default(),
            returned: false,
            forgotten: false,
            observed: Observed::default(),
            adopted_terms: false,
            elsewhere: None,
        }
    }

    /// Ends the session if its deadline has come (law 1); every other method relies on this having been called.
    pub fn settle(&mut self, now: Moment) -> Settled {
        match self.state {
            State::Ended(_) => Settled::AsBefore,
            State::Active | State::Pending(_) if self.forgotten => Settled::AsBefore,
            State::Pending(until) if now >= until => {
                self.end(EndReason::MaxConcurrent, None, until);
                Settled::JustEnded(EndReason::MaxConcurrent)
            }
            State::Pending(_) => Settled::AsBefore,
            State::Active => match self.verdict(now) {
                Some(Verdict::Live) | None => Settled::AsBefore,
                Some(Verdict::Over(reason, at)) if self.mode == Mode::Enforce => {
                    self.end(reason, None, at.max(self.held_since()));
                    Settled::JustEnded(reason)
                }
                Some(Verdict::Over(reason, _)) if self.observe(reason) => Settled::WouldEnd(reason),
                Some(Verdict::Over(..)) => Settled::AsBefore,
            },
        }
    }

    /// Takes on the terms of a later book; those of an earlier one, brought by whoever comes late, change nothing.
    /// The caller has settled the session: one past its old deadline has ended for its old reason first (R1). One
    /// that is over only by the new terms ends now, not when these would have ended it had they held before.
    pub fn adopt(&mut self, terms: Terms, now: Moment) -> Settled {
        // One that cannot be judged by its old terms yet must not be saved by the new ones.
        if !is_newer(terms.epoch, self.epoch) || self.is_unsure(now) {
            return Settled::AsBefore;
        }
        self.epoch = terms.epoch;
        if self.is_over() {
            return Settled::AsBefore;
        }
        let kept = |policy: &Policy, mode| (policy.idle_timeout, policy.force_relogin, mode);
        self.adopted_terms |= kept(&self.policy, self.mode) != kept(&terms.policy, terms.mode);
        self.policy = terms.policy;
        self.mode = terms.mode;
        self.deadline = deadline(&self.policy, &self.times);
        self.settle_by_change(now)
    }

    /// Whether it took on other terms since this was last asked: then its record has to be written.
    pub fn take_adopted(&mut self) -> bool {
        std::mem::take(&mut self.adopted_terms)
    }

    /// The app or its sources gave the session's user other roles.
    pub fn change_roles(&mut self, identity: Arc<Identity>, policy: Policy, now: Moment) -> Settled {
        self.identity = Some(identity);
        self.policy = policy;
        self.deadline = deadline(&self.policy, &self.times);
        self.settle_by_change(now)
    }

    fn settle_by_change(&mut self, now: Moment) -> Settled {
        self.ask_anew();
        let settled = self.settle(now);
        if let (Settled::JustEnded(_), State::Ended(end)) = (settled, &mut self.state) {
            end.at = now;
        }
        self.hold_since(now);
        settled
    }

    /// Counts what would have ended the session; once for each reason (R17). Returns whether this was the first time.
    pub fn observe(&mut self, reason: EndReason) -> bool {
        let flag = match reason {
            EndReason::ForceRelogin => &mut self.observed.lifetime,
            EndReason::MaxConcurrent => &mut self.observed.limit,
            EndReason::IdleTimeout
            | EndReason::Revoked
            | EndReason::Logout
            | EndReason::Superseded
            | EndReason::AccountSwitched => &mut self.observed.idle,
        };
        !std::mem::replace(flag, true)
    }

    /// Ends the session unless it is over; a session ends once, for one reason.
    pub fn end(&mut self, reason: EndReason, by: Option<Arc<str>>, at: Moment) -> bool {
        if self.is_over() {
            return false;
        }
        self.state = State::Ended(End { reason, at, by, told: false, farewelled: false });
        true
    }

    /// Forgets the session without an end. Returns whether it was not over before.
    pub fn forget(&mut self) -> bool {
        let was_over = self.is_over();
        self.forgotten = true;
        !was_over
    }

    /// The end, if there was one.
    #[must_use]
    pub fn ended(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            State::Active | State::Pending(_) => None,
        }
    }

    /// Whether it has ended or was forgotten: then nothing happens on it any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.forgotten || self.ended().is_some()
    }

    /// Whether it was forgotten without an end, as if nobody had ever seen it.
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.forgotten && self.ended().is_none()
    }

    /// Whether it is active and its deadline, as settled, has not come.
    #[must_use]
    pub fn is_live(&self, now: Moment) -> bool {
        self.state == State::Active
            && !self.forgotten
            && (self.mode == Mode::Observe || judge(self.deadline, now) == Verdict::Live)
    }

    /// Whether it is only observed, and both its deadline and its last activity are that long ago: nobody waits for
    /// it any more, and only enforcement would have ended it.
    #[must_use]
    pub fn is_abandoned(&self, kept: Span, now: Moment) -> bool {
        self.mode == Mode::Observe
            && self.state == State::Active
            && now >= self.deadline.at().max(self.times.last_active_at).plus(kept)
    }

    /// When it should be looked at next though nobody asks; `None` when never. One that is only observed goes on
    /// past its deadline, and is looked at again after `again`.
    #[must_use]
    pub fn next_look(&self, again: Span, now: Moment) -> Option<Moment> {
        let at = match self.state {
            State::Active if self.mode == Mode::Observe && self.deadline.at() <= now => now.plus(again),
            State::Active if self.is_unsure(now) => now.plus(ASKED_AGAIN),
            State::Active => self.deadline.at(),
            State::Pending(until) => until,
            State::Ended(_) => return None,
        };
        (!self.forgotten && at != Moment::MAX).then_some(at)
    }

    /// Renews the idle clock: follows from a live verdict only (law 3), and never moves backwards.
    pub fn touch(&mut self, now: Moment) -> bool {
        if !self.is_live(now) {
            return false;
        }
        self.times.last_active_at = self.times.last_active_at.max(now);
        self.deadline = deadline(&self.policy, &self.times);
        true
    }

    /// Takes back the touch of the moment `noted`; `before` is where the idle clock stood. An end stays an end.
    pub fn take_back(&mut self, before: Moment, noted: Moment) {
        let touched = self.times.last_active_at == noted && before < noted;
        if touched && !self.is_over() && self.times.signed_in_at.is_none_or(|at| at < noted) {
            self.times.last_active_at = before;
            self.deadline = deadline(&self.policy, &self.times);
        }
    }

    /// Records a sign-in: the lifetime starts anew, `created_at` stays (law 4).
    pub fn sign_in(&mut self, identity: Arc<Identity>, policy: Policy, now: Moment) {
        self.identity = Some(identity);
        self.times.signed_in_at = Some(now);
        self.times.last_active_at = self.times.last_active_at.max(now);
        self.policy = policy;
        self.deadline = deadline(&self.policy, &self.times);
    }

    /// A session that was held back is in use: that is its user's activity, and no second sign-in (law 4).
    pub fn admit(&mut self, policy: Policy, now: Moment) {
        self.state = State::Active;
        self.times.last_active_at = self.times.last_active_at.max(now);
        self.policy = policy;
        self.deadline = deadline(&self.policy, &self.times);
    }

    /// What `key`, one of this session's tokens, is worth. Settle first.
    #[must_use]
    pub fn standing(&self, key: TokenKey, now: Moment) -> Standing {
        // After an end the tokens stand as they stood then: an alias that was over is no token of this session.
        let judged_at = self.ended().map_or(now, |end| end.at.min(now));
        let Some(alias) = self.tokens.alias(key, judged_at) else {
            // Once this session is over there is nothing of the browser's to protect.
            let protects = !self.is_over() && !self.forgotten && self.tokens.is_replaced(key, now);
            return if protects { Standing::Replaced } else { Standing::Stale };
        };
        match &self.state {
            State::Ended(end) => Standing::Ended {
                session: self.id,
                reason: end.reason,
                signed_in: self.times.signed_in_at.is_some(),
                told: end.told,
            },
            State::Pending(_) | State::Active if self.forgotten => Standing::Stale,
            State::Pending(_) => Standing::Pending { session: self.id },
            State::Active if self.is_unsure(now) => Standing::Unavailable,
            State::Active => Standing::Live { session: self.id, alias },
        }
    }

    /// Whether a request that carries `key` may reach the app now: the session is live, and `key` is still a token
    /// of it (an alias within its grace is one).
    #[must_use]
    pub fn is_live_by(&self, key: TokenKey, now: Moment) -> bool {
        self.is_live(now) && self.tokens.alias(key, now).is_some()
    }

    /// Notes that the browser presented `key`: of several values from one rotation the last one used stays (R10).
    /// Returns the keys of values from before a sign-in that are forgotten by now.
    pub fn presented(&mut self, key: TokenKey, now: Moment) -> Vec<TokenKey> {
        self.returned = true;
        self.tokens.presented(key, now);
        self.tokens.forget_replaced(now)
    }

    /// Adds the values that a response set without a sign-in. A value of the same name from before becomes an alias
    /// for `grace`, or a sibling when the request carried an alias already or the new value was known before.
    pub fn rotate(&mut self, new: &[NewToken], carried: TokenKey, grace: Span, now: Moment) -> FellOut {
        self.tokens.rotate(new, carried, grace, now)
    }

    /// Adds the values of the sign-in by which the session began, or gained its user, where another answer was first: the
    /// browser may keep either.
    pub fn join(&mut self, new: &[NewToken], grace: Span, now: Moment) -> FellOut {
        self.tokens.join(new, grace, now)
    }

    /// Replaces the values by those that a sign-in set: what was there before under the same name is no alias (R10). For
    /// `grace` it is remembered as [`Standing::Replaced`], where anything is enforced at all (R17).
    pub fn replace(&mut self, new: &[NewToken], grace: Span, now: Moment) -> FellOut {
        let grace = if self.mode == Mode::Enforce { grace } else { Span::ZERO };
        self.tokens.replace(new, grace, now)
    }

    /// Forgets a cookie that the app deleted. Returns the keys of its values.
    pub fn forget_cookie(&mut self, name: &str) -> Vec<TokenKey> {
        self.tokens.forget(name)
    }

    /// Its tokens as if a response had just set them: what a new session on the same values begins with.
    #[must_use]
    pub fn current_tokens(&self) -> Vec<NewToken> {
        self.tokens.current()
    }

    /// The keys of all its tokens.
    pub fn keys(&self) -> impl Iterator<Item = TokenKey> {
        self.tokens.keys()
    }

    /// What the cookie of `key` is to the app; `None` when it is none of the session's.
    #[must_use]
    pub fn kind_of(&self, key: TokenKey) -> Option<CookieKind> {
        self.tokens.kind_of(key)
    }

    /// The keys of its companions.
    pub fn companions(&self) -> impl Iterator<Item = TokenKey> {
        self.tokens.companions()
    }

    /// Names and attributes of its cookies, each once: what an end deletes in the browser.
    #[must_use]
    pub fn shapes(&self) -> Vec<Arc<CookieShape>> {
        self.tokens.shapes()
    }

    /// `Path` of its session cookie, as the app sets it now.
    #[must_use]
    pub fn cookie_path(&self) -> Option<&str> {
        self.tokens.cookie_path()
    }

    /// Whether `key` is a value that may be in use: a current one or a sibling, not an alias.
    #[must_use]
    pub fn is_current(&self, key: TokenKey) -> bool {
        self.tokens.is_current(key)
    }

    /// Whether `key` is one of its tokens at all.
    #[must_use]
    pub fn holds(&self, key: TokenKey) -> bool {
        self.tokens.holds(key)
    }

    /// This session as a rival of a new sign-in; `None` unless it is live and somebody signed in on it. One that the
    /// limit would have ended takes no place either: what is counted is what would happen.
    #[must_use]
    pub fn as_rival(&self, now: Moment) -> Option<Rival> {
        let signed_in_at = self.times.signed_in_at?;
        let only_counted = self.mode == Mode::Observe && self.observed.limit;
        ((self.is_live(now) || self.is_unsure(now)) && !only_counted).then_some(Rival {
            id: self.id,
            signed_in_at,
            last_active_at: self.times.last_active_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_unix_ms(ms)
    }

    fn terms(idle_ms: u64, mode: Mode, epoch: u32) -> Terms {
        let policy = Policy { idle_timeout: Some(Span::from_ms(idle_ms)), ..Policy::default() };
        Terms { policy, mode, epoch }
    }

    fn session(mode: Mode) -> Session {
        let visitor = Visitor { ip: IpAddr::from([127, 0, 0, 1]), user_agent: "x".into() };
        Session::new(SessionId::from_u128(1), AppId(0), terms(100, mode, 0), visitor, at(0))
    }

    #[test]
    fn a_touch_never_revives_a_session() {
        let mut session = session(Mode::Enforce);
        assert!(session.touch(at(99)));
        assert!(!session.touch(at(199)));
        assert_eq!(session.settle(at(199)), Settled::JustEnded(EndReason::IdleTimeout));
        assert_eq!(session.ended().unwrap().at, at(199));
        assert!(!session.end(EndReason::Revoked, None, at(300)), "an end is final");
    }

    #[test]
    fn an_observed_session_goes_on_and_is_counted_once() {
        let mut session = session(Mode::Observe);
        assert_eq!(session.settle(at(500)), Settled::WouldEnd(EndReason::IdleTimeout));
        assert_eq!(session.settle(at(501)), Settled::AsBefore);
        assert!(session.touch(at(502)));
    }

    #[test]
    fn tighter_terms_end_a_session_when_they_come_and_not_before() {
        let mut session = session(Mode::Enforce);
        assert_eq!(session.settle(at(90)), Settled::AsBefore);
        assert_eq!(
            session.adopt(terms(10, Mode::Enforce, 1), at(90)),
            Settled::JustEnded(EndReason::IdleTimeout)
        );
        assert_eq!(session.ended().unwrap().at, at(90));
    }

    #[test]
    fn terms_of_an_earlier_book_change_nothing() {
        let mut session = session(Mode::Enforce);
        session.adopt(terms(200, Mode::Enforce, 2), at(1));
        session.adopt(terms(10, Mode::Observe, 1), at(50));
        assert_eq!((session.epoch, session.mode, session.deadline.at()), (2, Mode::Enforce, at(200)));
        session.epoch = u32::MAX;
        session.adopt(terms(300, Mode::Enforce, 0), at(1));
        assert_eq!(session.deadline.at(), at(300), "numbers wrap around");
    }

    #[test]
    fn nothing_happens_on_a_forgotten_session() {
        let mut session = session(Mode::Enforce);
        assert!(session.forget());
        assert!(!session.forget() && !session.touch(at(1)) && !session.is_live(at(1)));
        assert!(!session.end(EndReason::Revoked, None, at(1)));
        assert_eq!(session.settle(at(500)), Settled::AsBefore);
    }
}
