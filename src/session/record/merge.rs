//! What becomes of a session that two gateways changed: the record that one keeps takes over what the other stored.
//!
//! An end beats a life (law 2), the first end that was stored stays the one, and a later sign-in beats an earlier one with
//! all that it set. Everything else only grows, so that it does not matter who takes over from whom first.

use std::sync::Arc;

use super::{CookieShape, End, Image, Session, State};
use crate::session::tokens::Tokens;
use crate::session::{Moment, Policy, Span, TokenKey, deadline};

/// What the session took over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// It ended elsewhere, and this is the first time it is known here.
    pub ended: bool,
    /// It is over here, and the store does not know.
    pub ended_here: bool,
    /// It was active here after what the store knows of.
    pub active_here: bool,
    /// It has a value here that took the place of the one that the store knows.
    pub rotated_here: bool,
    /// Its user is another one than before, or was unknown; or has other roles.
    pub identity: bool,
    /// The keys that it held before and does not hold now, and those that it holds now.
    pub keys: Vec<TokenKey>,
}

impl Session {
    /// Takes over `theirs`, the same session as another gateway stored it. `is_changed` says that something happened to it
    /// here which is not in the store yet: then both count, else theirs alone. Afterwards call [`Session::hold`] if the
    /// identity is another one.
    pub fn merge(
        &mut self,
        theirs: Image,
        is_changed: bool,
        grace: Span,
        now: Moment,
        intern: &mut dyn FnMut(CookieShape) -> Arc<CookieShape>,
    ) -> Merged {
        let was_over = self.is_over();
        let before: Vec<TokenKey> = self.keys().collect();
        let later = theirs.times.signed_in_at > self.times.signed_in_at;
        let as_late = theirs.times.signed_in_at == self.times.signed_in_at;
        let tokens = Tokens::from_images(theirs.tokens, theirs.former, intern);
        // Who stored theirs had not heard of ours, which a server has lost since.
        let rotated_here = as_late && !is_changed && self.tokens.came_after(&tokens);
        let is_changed = is_changed || rotated_here;
        let identity = later || (as_late && !is_changed);
        let ended_here = self.ended().is_some() && !matches!(theirs.state, State::Ended(_));
        let active_here = self.times.last_active_at > theirs.times.last_active_at;
        let mut merged = Merged { ended_here, active_here, rotated_here, ..Merged::default() };
        if identity && self.identity.as_deref() != theirs.identity.as_ref() {
            self.identity = theirs.identity.map(Arc::new);
            merged.identity = true;
        }
        if identity {
            self.tokens = tokens;
        } else if as_late {
            self.tokens.unite(tokens, grace, now);
        }
        self.merge_state(theirs.state, is_changed);
        self.times.signed_in_at = self.times.signed_in_at.max(theirs.times.signed_in_at);
        self.times.last_active_at = self.times.last_active_at.max(theirs.times.last_active_at);
        self.requests = self.requests.max(theirs.requests);
        self.generation = self.generation.max(theirs.generation);
        self.returned |= theirs.returned;
        self.observed.idle |= theirs.observed.idle;
        self.observed.lifetime |= theirs.observed.lifetime;
        self.observed.limit |= theirs.observed.limit;
        self.deadline = deadline(&self.policy, &self.times);
        merged.ended = !was_over && self.is_over();
        merged.keys = before;
        merged.keys.extend(self.keys());
        merged
    }

    fn merge_state(&mut self, theirs: State, is_changed: bool) {
        match (&mut self.state, theirs) {
            (State::Ended(ours), State::Ended(theirs)) => {
                let (told, farewelled) = (ours.told || theirs.told, ours.farewelled || theirs.farewelled);
                *ours = End { told, farewelled, ..theirs };
            }
            (State::Ended(_), State::Active | State::Pending(_)) => {}
            (State::Active, State::Pending(_)) if is_changed => {}
            (ours @ (State::Active | State::Pending(_)), theirs) => *ours = theirs,
        }
    }

    /// The secret of the hashes is another one: the token that was known by `from` has the key `to`, and is found by both.
    /// Returns what is to be linked anew; `None` where nothing has changed.
    pub fn rekey(&mut self, from: TokenKey, to: TokenKey) -> Option<Vec<TokenKey>> {
        self.tokens.rekey(from, to)
    }

    /// From now on the session is held to this policy.
    pub fn hold(&mut self, policy: Policy) {
        self.policy = policy;
        self.deadline = deadline(&self.policy, &self.times);
        self.ask_anew();
    }

    /// Puts a sign-in that nobody has heard of yet behind another one, which was stored first: the clocks of two machines may
    /// say otherwise, and of those beyond a limit it is the last that stays. Returns whether it stood elsewhere before.
    pub fn sign_in_behind(&mut self, other: Moment) -> bool {
        let goes = self.times.signed_in_at.is_some_and(|at| at <= other);
        if goes {
            self.times.signed_in_at = Some(other.plus(Span::from_ms(1)));
            self.deadline = deadline(&self.policy, &self.times);
        }
        goes
    }

    /// Holds a session back whose sign-in nobody has heard of yet: it turned out that there was no room.
    pub fn hold_back(&mut self, until: Moment) {
        if self.state == State::Active && !self.forgotten {
            self.state = State::Pending(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::session::cookie::Attributes;
    use crate::session::gate::Standing;
    use crate::session::identity::Identity;
    use crate::session::profile::CookieKind;
    use crate::session::record::{AppId, Mode, NewToken, Terms, Visitor};
    use crate::session::{EndReason, SessionId};

    const GRACE: Span = Span::from_ms(10);

    fn at(ms: u64) -> Moment {
        Moment::from_unix_ms(ms)
    }

    fn sid(n: u8) -> NewToken {
        let shape = CookieShape { name: "sid".into(), attributes: Attributes::default() };
        NewToken { key: TokenKey([n; 16]), kind: CookieKind::Session, shape: Arc::new(shape) }
    }

    fn session() -> Session {
        let visitor = Visitor { ip: IpAddr::from([127, 0, 0, 1]), user_agent: "x".into() };
        let policy = Policy { idle_timeout: Some(Span::from_ms(100)), ..Policy::default() };
        let terms = Terms { policy, mode: Mode::Enforce, epoch: 0 };
        let mut session = Session::new(SessionId::from_u128(1), AppId(0), terms, visitor, at(0));
        session.replace(&[sid(1)], GRACE, at(0));
        session.share();
        session
    }

    fn alice() -> Arc<Identity> {
        Arc::new(Identity { user: "alice".into(), tenant: "t".into(), roles: vec![], source: 0 })
    }

    fn merge(ours: &mut Session, theirs: &Session, is_changed: bool, now: u64) -> Merged {
        let image = theirs.image("app").unwrap();
        ours.merge(image, is_changed, GRACE, at(now), &mut Arc::new)
    }

    fn lives(session: &Session, n: u8, now: u64) -> bool {
        matches!(session.standing(TokenKey([n; 16]), at(now)), Standing::Live { .. })
    }

    #[test]
    fn an_end_beats_a_life_whoever_takes_over_first() {
        let (mut ended, mut live) = (session(), session());
        live.touch(at(50));
        ended.end(EndReason::Revoked, None, at(20));
        for is_changed in [true, false] {
            let (mut ours, mut theirs) = (ended.clone(), live.clone());
            let known = merge(&mut ours, &live, is_changed, 60);
            assert!(!known.ended && known.ended_here, "it was known here, and here alone");
            let heard = merge(&mut theirs, &ended, is_changed, 60);
            assert!(heard.ended && !heard.ended_here);
            assert_eq!(ours.ended().unwrap().reason, EndReason::Revoked);
            assert_eq!(theirs.ended().unwrap().at, at(20));
        }
    }

    #[test]
    fn the_end_that_was_stored_first_stays() {
        let (mut ours, mut theirs) = (session(), session());
        ours.end(EndReason::Logout, None, at(30));
        theirs.end(EndReason::Revoked, None, at(20));
        merge(&mut ours, &theirs, true, 40);
        assert_eq!(ours.ended().unwrap().reason, EndReason::Revoked);
    }

    #[test]
    fn a_value_from_before_a_sign_in_elsewhere_is_dead_here() {
        let (mut ours, mut theirs) = (session(), session());
        theirs.replace(&[sid(2)], GRACE, at(5));
        theirs.sign_in(alice(), theirs.policy, at(5));
        ours.rotate(&[sid(3)], TokenKey([1; 16]), GRACE, at(5));
        let merged = merge(&mut ours, &theirs, true, 6);
        assert!(merged.identity);
        assert_eq!([1, 2, 3].map(|n| lives(&ours, n, 6)), [false, true, false]);
    }

    #[test]
    fn values_of_two_rotations_both_live_until_the_browser_uses_one() {
        let (mut ours, mut theirs) = (session(), session());
        ours.rotate(&[sid(2)], TokenKey([1; 16]), GRACE, at(5));
        theirs.rotate(&[sid(3)], TokenKey([1; 16]), GRACE, at(5));
        merge(&mut ours, &theirs, true, 6);
        assert_eq!([1, 2, 3].map(|n| lives(&ours, n, 6)), [true, true, true]);
        assert_eq!([1, 2, 3].map(|n| lives(&ours, n, 50)), [false, true, true]);
        ours.presented(TokenKey([2; 16]), at(50));
        assert_eq!([1, 2, 3].map(|n| lives(&ours, n, 60)), [false, true, false]);
    }

    #[test]
    fn idleness_is_judged_once_everybody_was_asked() {
        let mut ours = session();
        ours.settle(at(100));
        assert!(ours.is_unsure(at(100)) && !ours.is_live(at(100)) && !ours.is_over());
        assert_eq!(ours.standing(TokenKey([1; 16]), at(100)), Standing::Unavailable);
        ours.asked(Some(at(70)), at(100));
        ours.settle(at(100));
        assert!(ours.is_live(at(100)), "it was active elsewhere");
        ours.settle(at(170));
        assert!(ours.is_unsure(at(170)));
        ours.asked(Some(at(70)), at(170));
        ours.settle(at(171));
        assert_eq!(ours.ended().map(|end| (end.reason, end.at)), Some((EndReason::IdleTimeout, at(170))));
    }

    #[test]
    fn a_sign_in_that_nobody_heard_of_comes_after_those_that_are_stored() {
        let mut ours = session();
        ours.sign_in_behind(at(50));
        assert_eq!(ours.times.signed_in_at, None);
        ours.sign_in(alice(), ours.policy, at(40));
        ours.sign_in_behind(at(39));
        assert_eq!(ours.times.signed_in_at, Some(at(40)));
        ours.sign_in_behind(at(40));
        assert_eq!(ours.times.signed_in_at, Some(at(41)));
    }

    #[test]
    fn a_lifetime_needs_no_question() {
        let mut ours = session();
        ours.hold(Policy { force_relogin: Some(Span::from_ms(150)), ..ours.policy });
        ours.settle(at(149));
        assert!(ours.is_unsure(at(149)));
        ours.settle(at(150));
        assert_eq!(ours.ended().map(|end| end.reason), Some(EndReason::ForceRelogin));
    }
}
