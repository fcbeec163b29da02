//! The session's record and everything that can happen to it, as plain values.
//!
//! The store keeps these records behind locks; which transitions exist, and that none leads back from an end (law 2),
//! is decided here.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::cookie::Attributes;
use super::gate::Standing;
use super::identity::Identity;
use super::policy::Rival;
use super::profile::CookieKind;
use super::{
    Deadline, EndReason, Moment, Policy, SessionId, Span, Times, TokenKey, Verdict, deadline, judge,
};

/// The most tokens one session holds: current values, aliases, siblings and companions. The oldest alias goes first.
pub const MAX_TOKENS: usize = 8;

/// The most values that live beside each other after rotations without a sign-in (R10).
pub const MAX_SIBLINGS: usize = 4;

/// How long a session may be held back as pending (R13).
pub const PENDING_FOR: Span = Span::from_secs(120);

/// Number of an app, given by the store in the order apps are first named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppId(pub u16);

/// A cookie's name and how it was set; shared by the many sessions whose cookies were set alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CookieShape {
    /// The cookie's name.
    pub name: String,
    /// Its attributes.
    pub attributes: Attributes,
}

/// A token as a response brings it.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its key.
    pub key: TokenKey,
    /// What the cookie is to the app.
    pub kind: CookieKind,
    /// Name and attributes.
    pub shape: Arc<CookieShape>,
}

/// A token of a session.
#[derive(Clone, Debug)]
pub struct Token {
    key: TokenKey,
    kind: CookieKind,
    shape: Arc<CookieShape>,
    role: TokenRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenRole {
    /// The value in use.
    Current,
    /// The value from before a rotation, until then.
    Alias(Moment),
    /// Another value from the same rotation that the browser may have kept instead, until then (FIELD F5).
    Sibling(Moment),
}

impl Token {
    fn is_over(&self, now: Moment) -> bool {
        match self.role {
            TokenRole::Current => false,
            TokenRole::Alias(until) | TokenRole::Sibling(until) => now >= until,
        }
    }
}

/// Whether time-outs and limits act, or are only counted (R17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They act.
    Enforce,
    /// They are counted once each.
    Observe,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// When.
    pub at: Moment,
    /// By whom, where a person or an operator's token ended it.
    pub by: Option<Arc<str>>,
    /// It was told on a navigation.
    pub told: bool,
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In use, as far as its deadline allows.
    Active,
    /// Held back until then.
    Pending(Moment),
    /// Over, for ever (law 2).
    Ended(End),
}

/// What a browser looked like when its session began.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Which book of policies `policy` was taken from.
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
    tokens: SmallVec<[Token; 1]>,
    /// Its cookie came back at least once.
    pub returned: bool,
    observed: Observed,
}

/// What was counted instead of done while only observing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Observed {
    idle: bool,
    lifetime: bool,
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
    pub fn new(id: SessionId, app: AppId, policy: Policy, epoch: u32, visitor: Visitor, now: Moment) -> Self {
        let times = Times { created_at: now, signed_in_at: None, last_active_at: now };
        Self {
            id,
            app,
            times,
            deadline: deadline(&policy, &times),
            policy,
            epoch,
            state: State::Active,
            identity: None,
            visitor,
            generation: 0,
            adopted: false,
            requests: 0,
            tokens: SmallVec::new(),
            returned: false,
            observed: Observed::default(),
        }
    }

    /// Ends the session if its deadline has come (law 1); every other method relies on this having been called.
    pub fn settle(&mut self, mode: Mode, now: Moment) -> Settled {
        match self.state {
            State::Ended(_) => Settled::AsBefore,
            State::Pending(until) if now >= until => {
                self.end(EndReason::MaxConcurrent, None, until);
                Settled::JustEnded(EndReason::MaxConcurrent)
            }
            State::Pending(_) => Settled::AsBefore,
            State::Active => match judge(self.deadline, now) {
                Verdict::Live => Settled::AsBefore,
                Verdict::Over(reason, at) if mode == Mode::Enforce => {
                    self.end(reason, None, at);
                    Settled::JustEnded(reason)
                }
                Verdict::Over(reason, _) => self.observe(reason),
            },
        }
    }

    fn observe(&mut self, reason: EndReason) -> Settled {
        let flag = match reason {
            EndReason::ForceRelogin => &mut self.observed.lifetime,
            EndReason::IdleTimeout
            | EndReason::MaxConcurrent
            | EndReason::Revoked
            | EndReason::Logout
            | EndReason::Superseded
            | EndReason::AccountSwitched => &mut self.observed.idle,
        };
        if std::mem::replace(flag, true) { Settled::AsBefore } else { Settled::WouldEnd(reason) }
    }

    /// Ends the session unless it has ended before; a session ends once, for one reason.
    pub fn end(&mut self, reason: EndReason, by: Option<Arc<str>>, at: Moment) -> bool {
        if matches!(self.state, State::Ended(_)) {
            return false;
        }
        self.state = State::Ended(End { reason, at, by, told: false });
        true
    }

    /// The end, if there was one.
    #[must_use]
    pub fn ended(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            State::Active | State::Pending(_) => None,
        }
    }

    /// Whether it is active and its deadline, as settled, has not come.
    #[must_use]
    pub fn is_live(&self, mode: Mode, now: Moment) -> bool {
        self.state == State::Active && (mode == Mode::Observe || judge(self.deadline, now) == Verdict::Live)
    }

    /// Renews the idle clock: follows from a live verdict only (law 3), and never moves backwards.
    pub fn touch(&mut self, mode: Mode, now: Moment) -> bool {
        if !self.is_live(mode, now) {
            return false;
        }
        self.times.last_active_at = self.times.last_active_at.max(now);
        self.deadline = deadline(&self.policy, &self.times);
        true
    }

    /// Takes on a policy that was changed meanwhile. The caller has settled the session: one past its old deadline
    /// has ended for its old reason first (R1).
    pub fn adopt_policy(&mut self, policy: Policy, epoch: u32) {
        self.epoch = epoch;
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        self.policy = policy;
        self.deadline = deadline(&self.policy, &self.times);
    }

    /// Records a sign-in: the lifetime starts anew, created_at stays (law 4).
    pub fn sign_in(&mut self, identity: Arc<Identity>, policy: Policy, now: Moment) {
        self.identity = Some(identity);
        self.times.signed_in_at = Some(now);
        self.times.last_active_at = self.times.last_active_at.max(now);
        self.policy = policy;
        self.deadline = deadline(&self.policy, &self.times);
    }

    /// What `key`, one of this session's tokens, is worth. Settle first.
    #[must_use]
    pub fn standing(&self, key: TokenKey, now: Moment) -> Standing {
        // After an end the tokens stand as they stood then: an alias that was over is no token of this session.
        let judged_at = self.ended().map_or(now, |end| end.at.min(now));
        let token = self.tokens.iter().find(|token| token.key == key && !token.is_over(judged_at));
        let Some(token) = token else { return Standing::Stale };
        match &self.state {
            State::Ended(end) => Standing::Ended {
                session: self.id,
                reason: end.reason,
                signed_in: self.times.signed_in_at.is_some(),
                told: end.told,
            },
            State::Pending(_) => Standing::Pending { session: self.id },
            State::Active => {
                Standing::Live { session: self.id, alias: matches!(token.role, TokenRole::Alias(_)) }
            }
        }
    }

    /// Notes that the browser presented `key`. If it is a sibling, it changes places with the current value of its
    /// name: the last one used stays (R10).
    pub fn presented(&mut self, key: TokenKey, now: Moment) {
        self.returned = true;
        let Some(index) = self.tokens.iter().position(|token| token.key == key) else { return };
        let TokenRole::Sibling(until) = self.tokens[index].role else { return };
        if now >= until {
            return;
        }
        let shape = Arc::clone(&self.tokens[index].shape);
        for token in self.tokens.iter_mut().filter(|t| t.shape.name == shape.name) {
            if token.role == TokenRole::Current {
                token.role = TokenRole::Sibling(until);
            }
        }
        self.tokens[index].role = TokenRole::Current;
    }

    /// Adds the values that a response set without a sign-in. A value of the same name from before becomes an alias
    /// for `grace`, or a sibling when the request carried an alias already. Returns the keys that fell out.
    pub fn rotate(&mut self, new: &[NewToken], carried: TokenKey, grace: Span, now: Moment) -> Vec<TokenKey> {
        let carried_alias =
            self.tokens.iter().any(|t| t.key == carried && matches!(t.role, TokenRole::Alias(_)));
        let until = now.plus(grace);
        for token in new {
            if let Some(known) = self.tokens.iter_mut().find(|t| t.key == token.key) {
                known.shape = Arc::clone(&token.shape);
                continue;
            }
            for old in self.tokens.iter_mut().filter(|t| t.shape.name == token.shape.name) {
                if old.role == TokenRole::Current {
                    old.role =
                        if carried_alias { TokenRole::Sibling(until) } else { TokenRole::Alias(until) };
                }
            }
            self.push_token(token);
        }
        self.forget_surplus(now)
    }

    /// Replaces the values that a sign-in set: what was there before under the same name is no alias (R10).
    /// Returns the keys that fell out.
    pub fn replace(&mut self, new: &[NewToken], now: Moment) -> Vec<TokenKey> {
        let mut gone = Vec::new();
        for token in new {
            self.tokens.retain(|old| {
                let stays = old.shape.name != token.shape.name || old.key == token.key;
                if !stays {
                    gone.push(old.key);
                }
                stays
            });
            match self.tokens.iter_mut().find(|t| t.key == token.key) {
                Some(known) => {
                    known.shape = Arc::clone(&token.shape);
                    known.role = TokenRole::Current;
                }
                None => self.push_token(token),
            }
        }
        gone.extend(self.forget_surplus(now));
        gone
    }

    fn push_token(&mut self, token: &NewToken) {
        self.tokens.push(Token {
            key: token.key,
            kind: token.kind,
            shape: Arc::clone(&token.shape),
            role: TokenRole::Current,
        });
    }

    /// Forgets a token that the app deleted. Returns whether the session still has a current session cookie.
    pub fn forget(&mut self, name: &str) -> bool {
        self.tokens.retain(|token| token.shape.name != name);
        self.tokens.iter().any(|t| t.kind == CookieKind::Session && t.role == TokenRole::Current)
    }

    /// Drops tokens that are over, and the oldest alias or sibling beyond the bounds.
    fn forget_surplus(&mut self, now: Moment) -> Vec<TokenKey> {
        let mut gone = Vec::new();
        loop {
            let spare = self.tokens.iter().filter(|t| t.role != TokenRole::Current).count();
            let full = self.tokens.len() > MAX_TOKENS || spare > MAX_SIBLINGS;
            let drop = self.tokens.iter().position(|t| t.is_over(now)).or_else(|| {
                full.then(|| self.tokens.iter().position(|t| t.role != TokenRole::Current).unwrap_or(0))
            });
            match drop {
                Some(index) => gone.push(self.tokens.remove(index).key),
                None => return gone,
            }
        }
    }

    /// Its tokens as if a response had just set them: what a new session on the same values begins with.
    #[must_use]
    pub fn current_tokens(&self) -> Vec<NewToken> {
        let current = self.tokens.iter().filter(|t| t.role == TokenRole::Current);
        current.map(|t| NewToken { key: t.key, kind: t.kind, shape: Arc::clone(&t.shape) }).collect()
    }

    /// The keys of all its tokens.
    pub fn keys(&self) -> impl Iterator<Item = TokenKey> {
        self.tokens.iter().map(|token| token.key)
    }

    /// Names and attributes of its cookies, each name once: what an end deletes in the browser.
    #[must_use]
    pub fn shapes(&self) -> Vec<Arc<CookieShape>> {
        let mut shapes: Vec<Arc<CookieShape>> = Vec::new();
        for token in &self.tokens {
            if !shapes.contains(&token.shape) {
                shapes.push(Arc::clone(&token.shape));
            }
        }
        shapes
    }

    /// `Path` of its session cookie, as the app sets it now.
    #[must_use]
    pub fn cookie_path(&self) -> Option<&str> {
        let cookies = self.tokens.iter().rev().filter(|token| token.kind == CookieKind::Session);
        cookies.map(|token| token.shape.attributes.path.as_str()).next()
    }

    /// Whether `key` is a value in use (not an alias).
    #[must_use]
    pub fn is_current(&self, key: TokenKey) -> bool {
        self.tokens.iter().any(|t| t.key == key && !matches!(t.role, TokenRole::Alias(_)))
    }

    /// Whether `key` is one of its tokens at all.
    #[must_use]
    pub fn holds(&self, key: TokenKey) -> bool {
        self.tokens.iter().any(|t| t.key == key)
    }

    /// This session as a rival of a new sign-in; `None` unless it is live and somebody signed in on it.
    #[must_use]
    pub fn as_rival(&self, mode: Mode, now: Moment) -> Option<Rival> {
        let signed_in_at = self.times.signed_in_at?;
        self.is_live(mode, now).then_some(Rival {
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

    fn token(n: u8) -> NewToken {
        let shape = CookieShape { name: "sid".into(), attributes: Attributes::default() };
        NewToken { key: TokenKey([n; 16]), kind: CookieKind::Session, shape: Arc::new(shape) }
    }

    fn session() -> Session {
        let policy = Policy { idle_timeout: Some(Span::from_ms(100)), ..Policy::default() };
        let visitor = Visitor { ip: IpAddr::from([127, 0, 0, 1]), user_agent: "x".into() };
        let mut session = Session::new(SessionId::from_u128(1), AppId(0), policy, 0, visitor, at(0));
        session.replace(&[token(1)], at(0));
        session
    }

    fn live(session: &Session, n: u8, now: u64) -> Option<bool> {
        match session.standing(TokenKey([n; 16]), at(now)) {
            Standing::Live { alias, .. } => Some(alias),
            Standing::Unseen
            | Standing::Stale
            | Standing::Pending { .. }
            | Standing::Ended { .. }
            | Standing::Unavailable => None,
        }
    }

    #[test]
    fn a_touch_never_revives_a_session() {
        let mut session = session();
        assert!(session.touch(Mode::Enforce, at(99)));
        assert!(!session.touch(Mode::Enforce, at(199)));
        assert_eq!(session.settle(Mode::Enforce, at(199)), Settled::JustEnded(EndReason::IdleTimeout));
        assert_eq!(session.ended().unwrap().at, at(199));
        assert!(!session.end(EndReason::Revoked, None, at(300)), "an end is final");
    }

    #[test]
    fn an_observed_session_goes_on_and_is_counted_once() {
        let mut session = session();
        assert_eq!(session.settle(Mode::Observe, at(500)), Settled::WouldEnd(EndReason::IdleTimeout));
        assert_eq!(session.settle(Mode::Observe, at(501)), Settled::AsBefore);
        assert!(session.touch(Mode::Observe, at(502)));
    }

    #[test]
    fn rotation_leaves_an_alias_for_the_grace() {
        let mut session = session();
        let grace = Span::from_ms(10);
        session.rotate(&[token(2)], TokenKey([1; 16]), grace, at(50));
        assert_eq!(live(&session, 1, 59), Some(true));
        assert_eq!(live(&session, 1, 60), None);
        assert_eq!(live(&session, 2, 60), Some(false));
        assert_eq!(session.deadline.at(), at(100), "rotation moves no deadline");
    }

    #[test]
    fn of_siblings_the_last_one_used_stays() {
        let mut session = session();
        let grace = Span::from_ms(10);
        session.rotate(&[token(2)], TokenKey([1; 16]), grace, at(50));
        session.rotate(&[token(3)], TokenKey([1; 16]), grace, at(51));
        assert_eq!((live(&session, 2, 55), live(&session, 3, 55)), (Some(false), Some(false)));
        session.presented(TokenKey([2; 16]), at(56));
        assert_eq!((live(&session, 2, 70), live(&session, 3, 70)), (Some(false), None));
    }

    #[test]
    fn the_value_from_before_a_sign_in_is_no_alias() {
        let mut session = session();
        assert_eq!(session.replace(&[token(2)], at(5)), [TokenKey([1; 16])]);
        assert_eq!(live(&session, 1, 6), None);
        assert_eq!(live(&session, 2, 6), Some(false));
    }

    #[test]
    fn tokens_are_bounded() {
        let mut session = session();
        for n in 2..60 {
            session.rotate(&[token(n)], TokenKey([n - 1; 16]), Span::from_ms(1000), at(50));
            assert!(session.keys().count() <= MAX_TOKENS);
        }
    }
}
