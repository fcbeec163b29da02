//! The tokens of one session: values in use, values from before a rotation, and values that may be in use.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::cookie::Attributes;
use super::former::Former;
use super::profile::CookieKind;
use super::{Moment, Span, TokenKey};

mod unite;

/// The most tokens one session holds: current values, aliases, siblings and companions. The oldest alias goes first.
pub const MAX_TOKENS: usize = 8;

/// The most values that live beside the current ones after rotations without a sign-in (R10).
pub const MAX_SIBLINGS: usize = 4;

/// A cookie's name and how it was set; shared by the many sessions whose cookies were set alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

#[derive(Clone, Debug)]
struct Token {
    key: TokenKey,
    kind: CookieKind,
    shape: Arc<CookieShape>,
    role: Role,
}

/// Stores keep the variants by their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    /// The value in use.
    Current,
    /// The value from before a rotation, until then.
    Alias(Moment),
    /// Another value from the same rotation that the browser may have kept instead (FIELD F5). None of them has come
    /// back yet; from then on the others have this long.
    Unused(Span),
    /// Such a value after the browser used another one, until then.
    Sibling(Moment),
    /// The value from before a sign-in, remembered until then: no token any more (R10), but a request that was under way
    /// with it must not cost the browser the value that took its place (FIELD F9).
    Replaced(Moment),
}

impl Role {
    /// How far from use; see [`Tokens::unite`].
    const fn distance(self) -> u8 {
        match self {
            Self::Current => 0,
            Self::Unused(_) => 1,
            Self::Sibling(_) => 2,
            Self::Alias(_) => 3,
            Self::Replaced(_) => 4,
        }
    }
}

impl Token {
    /// Whether it stands for the session no more.
    fn is_over(&self, now: Moment) -> bool {
        match self.role {
            Role::Current | Role::Unused(_) => false,
            Role::Alias(until) | Role::Sibling(until) => now >= until,
            Role::Replaced(_) => true,
        }
    }

    /// Whether nothing is left to remember it for.
    fn is_spent(&self, now: Moment) -> bool {
        match self.role {
            Role::Replaced(until) => now >= until,
            Role::Current | Role::Unused(_) | Role::Alias(_) | Role::Sibling(_) => self.is_over(now),
        }
    }

    fn is_replaced(&self) -> bool {
        matches!(self.role, Role::Replaced(_))
    }
}

/// A token as stores hold it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenImage {
    key: TokenKey,
    kind: CookieKind,
    role: Role,
    shape: CookieShape,
}

/// What fell out of a session's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FellOut {
    /// The keys.
    pub keys: Vec<TokenKey>,
    /// How many of them were in use and had to go because an app sets more cookies than [`MAX_TOKENS`].
    pub crowded: usize,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    held: SmallVec<[Token; 1]>,
    former: Former,
}

impl Tokens {
    /// Whether `key` is a token at that moment, and if so whether by the value from before a rotation.
    pub(super) fn alias(&self, key: TokenKey, at: Moment) -> Option<bool> {
        let key = self.former.now(key);
        let token = self.held.iter().find(|token| token.key == key && !token.is_over(at))?;
        Some(matches!(token.role, Role::Alias(_)))
    }

    /// Whether `key` is a value from before a sign-in that is remembered still.
    pub(super) fn is_replaced(&self, key: TokenKey, now: Moment) -> bool {
        let key = self.former.now(key);
        self.held.iter().any(|token| token.key == key && token.is_replaced() && !token.is_spent(now))
    }

    /// The browser presented `key`. Of values from one rotation it has kept that one; the others live through the
    /// grace (R10).
    pub(super) fn presented(&mut self, key: TokenKey, now: Moment) {
        if self.held.len() < 2 {
            return;
        }
        let key = self.former.now(key);
        let Some(index) = self.held.iter().position(|t| t.key == key && !t.is_over(now)) else { return };
        let (name, role) = (Arc::clone(&self.held[index].shape), self.held[index].role);
        if let Role::Alias(_) = role {
            return;
        }
        for other in self.held.iter_mut().filter(|t| t.key != key && t.shape.name == name.name) {
            other.role = match (other.role, role) {
                (Role::Unused(grace), _) | (Role::Current, Role::Unused(grace)) => {
                    Role::Sibling(now.plus(grace))
                }
                (Role::Current, Role::Sibling(until)) => Role::Sibling(until),
                (as_before, _) => as_before,
            };
        }
        self.held[index].role = Role::Current;
    }

    /// See [`super::record::Session::rotate`].
    pub(super) fn rotate(
        &mut self,
        new: &[NewToken],
        carried: TokenKey,
        grace: Span,
        now: Moment,
    ) -> FellOut {
        let carried = self.former.now(carried);
        let carried_alias = self.held.iter().any(|t| t.key == carried && matches!(t.role, Role::Alias(_)));
        for token in new {
            let key = self.former.now(token.key);
            let known = self.held.iter().position(|t| t.key == key && !t.is_replaced());
            if known.is_some_and(|index| self.held[index].role == Role::Current) {
                self.set_again(token);
                continue;
            }
            // The browser may keep either value when both were set by answers that crossed each other.
            let crossed = known.is_some() || carried_alias;
            let demoted = if crossed { Role::Unused(grace) } else { Role::Alias(now.plus(grace)) };
            for old in self.held.iter_mut().filter(|t| t.shape.name == token.shape.name) {
                if old.role == Role::Current {
                    old.role = demoted;
                }
            }
            self.set_again(token);
        }
        self.drop_surplus(now)
    }

    /// See [`super::record::Session::replace`].
    pub(super) fn replace(&mut self, new: &[NewToken], grace: Span, now: Moment) -> FellOut {
        let until = now.plus(grace);
        for token in new {
            let key = self.former.now(token.key);
            let same_name = |old: &&mut Token| old.shape.name == token.shape.name && old.key != key;
            for old in self.held.iter_mut().filter(same_name).filter(|old| !old.is_replaced()) {
                // What is over stands for nothing that a request could be under way with.
                old.role = Role::Replaced(if old.is_over(now) { now } else { until });
            }
            self.set_again(token);
        }
        self.drop_surplus(now)
    }

    /// See [`super::record::Session::join`].
    pub(super) fn join(&mut self, new: &[NewToken], grace: Span, now: Moment) -> FellOut {
        for token in new.iter().filter(|token| !self.holds(token.key)).collect::<Vec<_>>() {
            let key = self.former.now(token.key);
            let mut has_rival = false;
            for old in self.held.iter_mut().filter(|t| t.shape.name == token.shape.name) {
                if old.role == Role::Current {
                    old.role = Role::Unused(grace);
                }
                has_rival |= matches!(old.role, Role::Unused(_));
            }
            self.set_again(token);
            if let Some(added) = self.held.iter_mut().find(|t| t.key == key && has_rival) {
                added.role = Role::Unused(grace);
            }
        }
        self.drop_surplus(now)
    }

    /// The secret of the hashes is another one: the token that was known by `from` has the key `to`. Returns what is to be
    /// linked anew, or `None` where that is known or no token of ours.
    pub(super) fn rekey(&mut self, from: TokenKey, to: TokenKey) -> Option<Vec<TokenKey>> {
        let from = self.former.now(from);
        let index = self.held.iter().position(|t| t.key == from).filter(|_| from != to)?;
        match self.held.iter().position(|t| t.key == to) {
            None => self.held[index].key = to,
            Some(twin) => {
                // Two gateways noted one value under two keys: it is as far from use as the nearer of both.
                let role = self.held[index].role;
                if role.distance() < self.held[twin].role.distance() {
                    self.held[twin].role = role;
                }
                self.held.remove(index);
            }
        }
        let forgotten = self.former.note(from, to);
        Some([to, from].into_iter().chain(forgotten).collect())
    }

    /// The token is in use, with the attributes it was set with last.
    fn set_again(&mut self, token: &NewToken) {
        let key = self.former.now(token.key);
        match self.held.iter_mut().find(|t| t.key == key) {
            Some(known) => {
                known.shape = Arc::clone(&token.shape);
                known.role = Role::Current;
            }
            None => self.held.push(Token {
                key,
                kind: token.kind,
                shape: Arc::clone(&token.shape),
                role: Role::Current,
            }),
        }
    }

    /// Forgets values from before a sign-in that nothing is left to remember for; returns their keys. Each session has one,
    /// and few change their cookie again: it would be kept for nothing.
    pub(super) fn forget_replaced(&mut self, now: Moment) -> Vec<TokenKey> {
        let goes = |token: &Token| token.is_replaced() && token.is_spent(now);
        if self.held.len() < 2 || !self.held.iter().any(goes) {
            return Vec::new();
        }
        let keys: Vec<TokenKey> =
            self.held.iter().filter(|token| goes(token)).map(|token| token.key).collect();
        self.held.retain(|token| !goes(token));
        self.held.shrink_to_fit();
        self.with_former(keys)
    }

    /// Forgets the tokens of one cookie; returns their keys.
    pub(super) fn forget(&mut self, name: &str) -> Vec<TokenKey> {
        let gone = self.held.iter().filter(|t| t.shape.name == name).map(|t| t.key).collect();
        self.held.retain(|token| token.shape.name != name);
        self.with_former(gone)
    }

    /// The keys of tokens that are gone, and those that they had before.
    fn with_former(&mut self, mut gone: Vec<TokenKey>) -> Vec<TokenKey> {
        let former: Vec<TokenKey> = gone.iter().flat_map(|key| self.former.gone(*key)).collect();
        gone.extend(former);
        gone
    }

    /// Drops tokens that are over, and what is beyond the bounds.
    fn drop_surplus(&mut self, now: Moment) -> FellOut {
        let mut fell_out = FellOut::default();
        loop {
            let over = self.held.iter().position(|t| t.is_spent(now));
            let Some(index) = over.or_else(|| self.surplus()) else { return fell_out };
            let token = self.held.remove(index);
            fell_out.crowded += usize::from(token.role == Role::Current);
            fell_out.keys.push(token.key);
            fell_out.keys.extend(self.former.gone(token.key));
        }
    }

    /// What goes next when there are too many: the oldest value that is not in use, then the oldest companion, then
    /// the oldest session cookie; never the last of these.
    fn surplus(&self) -> Option<usize> {
        let spare = self.held.iter().filter(|t| t.role != Role::Current).count();
        if self.held.len() <= MAX_TOKENS && spare <= MAX_SIBLINGS {
            return None;
        }
        let first = |wanted: fn(&Token) -> bool| self.held.iter().position(wanted);
        first(|t| t.role != Role::Current)
            .or_else(|| first(|t| t.kind == CookieKind::Companion))
            .or_else(|| first(|t| t.kind == CookieKind::Session))
    }

    pub(super) fn images(&self) -> Vec<TokenImage> {
        let image = |token: &Token| TokenImage {
            key: token.key,
            kind: token.kind,
            role: token.role,
            shape: CookieShape::clone(&token.shape),
        };
        self.held.iter().map(image).collect()
    }

    /// Former keys, each with the key that the token has now.
    pub(super) fn former(&self) -> Vec<(TokenKey, TokenKey)> {
        self.former.pairs().to_vec()
    }

    /// The tokens of such images, the first [`MAX_TOKENS`] of them, with their former keys.
    pub(super) fn from_images(
        images: Vec<TokenImage>,
        former: Vec<(TokenKey, TokenKey)>,
        intern: &mut dyn FnMut(CookieShape) -> Arc<CookieShape>,
    ) -> Self {
        let mut token = |image: TokenImage| Token {
            key: image.key,
            kind: image.kind,
            role: image.role,
            shape: intern(image.shape),
        };
        let held = images.into_iter().take(MAX_TOKENS).map(&mut token).collect();
        Self { held, former: Former::of(former) }
    }

    /// The values in use, as if a response had just set them.
    pub(super) fn current(&self) -> Vec<NewToken> {
        let current = self.held.iter().filter(|t| t.role == Role::Current);
        current.map(|t| NewToken { key: t.key, kind: t.kind, shape: Arc::clone(&t.shape) }).collect()
    }

    /// All keys by which it is found, former ones included.
    pub(super) fn keys(&self) -> impl Iterator<Item = TokenKey> {
        let former = self.former.pairs().iter().map(|(former, _)| *former);
        self.held.iter().map(|token| token.key).chain(former)
    }

    pub(super) fn kind_of(&self, key: TokenKey) -> Option<CookieKind> {
        let key = self.former.now(key);
        self.held.iter().find(|t| t.key == key).map(|t| t.kind)
    }

    pub(super) fn companions(&self) -> impl Iterator<Item = TokenKey> {
        self.held.iter().filter(|t| t.kind == CookieKind::Companion && !t.is_replaced()).map(|t| t.key)
    }

    /// Names and attributes, each once.
    pub(super) fn shapes(&self) -> Vec<Arc<CookieShape>> {
        let mut shapes: Vec<Arc<CookieShape>> = Vec::new();
        for token in self.held.iter().filter(|token| !token.is_replaced()) {
            if !shapes.contains(&token.shape) {
                shapes.push(Arc::clone(&token.shape));
            }
        }
        shapes
    }

    /// `Path` of the session cookie, as the app sets it now.
    pub(super) fn cookie_path(&self) -> Option<&str> {
        let held = self.held.iter().rev().filter(|token| !token.is_replaced());
        let cookies = held.filter(|token| token.kind == CookieKind::Session);
        cookies.map(|token| token.shape.attributes.path.as_str()).next()
    }

    pub(super) fn is_current(&self, key: TokenKey) -> bool {
        let key = self.former.now(key);
        self.held.iter().any(|t| t.key == key && !matches!(t.role, Role::Alias(_) | Role::Replaced(_)))
    }

    pub(super) fn holds(&self, key: TokenKey) -> bool {
        let key = self.former.now(key);
        self.held.iter().any(|t| t.key == key && !t.is_replaced())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const GRACE: Span = Span::from_ms(10);

    pub(super) fn at(ms: u64) -> Moment {
        Moment::from_unix_ms(ms)
    }

    pub(super) fn key(n: u8) -> TokenKey {
        TokenKey([n; 16])
    }

    fn cookie(name: &str, kind: CookieKind, n: u8) -> NewToken {
        let shape = CookieShape { name: name.into(), attributes: Attributes::default() };
        NewToken { key: key(n), kind, shape: Arc::new(shape) }
    }

    pub(super) fn sid(n: u8) -> NewToken {
        cookie("sid", CookieKind::Session, n)
    }

    pub(super) fn tokens(first: u8) -> Tokens {
        let mut tokens = Tokens::default();
        tokens.replace(&[sid(first)], GRACE, at(0));
        tokens
    }

    /// Two answers to requests with value 1 crossed each other.
    fn crossed() -> Tokens {
        let mut tokens = tokens(1);
        tokens.rotate(&[sid(2)], key(1), GRACE, at(50));
        tokens.rotate(&[sid(3)], key(1), GRACE, at(51));
        tokens
    }

    fn values(tokens: &Tokens, now: u64) -> [Option<bool>; 3] {
        [1, 2, 3].map(|n| tokens.alias(key(n), at(now)))
    }

    #[test]
    fn rotation_leaves_an_alias_for_the_grace() {
        let mut tokens = tokens(1);
        tokens.rotate(&[sid(2)], key(1), GRACE, at(50));
        assert_eq!(values(&tokens, 59), [Some(true), Some(false), None]);
        assert_eq!(values(&tokens, 60), [None, Some(false), None]);
    }

    #[test]
    fn of_siblings_the_last_one_used_stays() {
        let mut tokens = crossed();
        tokens.presented(key(2), at(56));
        assert_eq!(values(&tokens, 65), [None, Some(false), Some(false)]);
        assert_eq!(values(&tokens, 70), [None, Some(false), None]);
    }

    #[test]
    fn siblings_wait_until_the_browser_uses_one() {
        let mut tokens = crossed();
        assert_eq!(values(&tokens, 9000), [None, Some(false), Some(false)], "its user reads for a while");
        tokens.presented(key(3), at(9000));
        assert_eq!(values(&tokens, 9009), [None, Some(false), Some(false)]);
        assert_eq!(values(&tokens, 9010), [None, None, Some(false)]);
    }

    #[test]
    fn values_of_two_answers_to_one_sign_in_wait_until_the_browser_uses_one() {
        let mut tokens = tokens(1);
        tokens.join(&[sid(2)], GRACE, at(50));
        assert_eq!(values(&tokens, 9000), [Some(false), Some(false), None]);
        tokens.join(&[sid(1)], GRACE, at(60));
        tokens.presented(key(1), at(9000));
        assert_eq!(values(&tokens, 9010), [Some(false), None, None]);
        let mut tokens = Tokens::default();
        tokens.join(&[sid(1)], GRACE, at(5));
        tokens.rotate(&[sid(2)], key(1), GRACE, at(6));
        assert_eq!(values(&tokens, 16), [None, Some(false), None], "alone it is in use");
    }

    #[test]
    fn an_alias_that_comes_back_settles_nothing() {
        let mut tokens = crossed();
        tokens.presented(key(1), at(55));
        assert_eq!(values(&tokens, 9000), [None, Some(false), Some(false)]);
    }

    #[test]
    fn a_value_that_the_app_sets_again_is_in_use() {
        let mut tokens = tokens(1);
        tokens.rotate(&[sid(2)], key(1), GRACE, at(50));
        tokens.rotate(&[sid(1)], key(1), GRACE, at(51));
        assert_eq!(values(&tokens, 9000), [Some(false), Some(false), None]);
        tokens.presented(key(1), at(9000));
        assert_eq!(values(&tokens, 9010), [Some(false), None, None]);
    }

    #[test]
    fn the_value_from_before_a_sign_in_is_no_alias() {
        let mut tokens = tokens(1);
        tokens.replace(&[sid(2)], GRACE, at(5));
        assert_eq!(values(&tokens, 6), [None, Some(false), None]);
        assert_eq!((tokens.holds(key(1)), tokens.is_current(key(1))), (false, false));
    }

    #[test]
    fn the_value_from_before_a_sign_in_is_remembered_for_the_grace() {
        let mut tokens = tokens(1);
        tokens.replace(&[sid(2)], GRACE, at(5));
        assert_eq!([14, 15].map(|ms| tokens.is_replaced(key(1), at(ms))), [true, false]);
        assert_eq!(tokens.forget_replaced(at(14)), []);
        assert_eq!(tokens.forget_replaced(at(15)), [key(1)]);
        assert_eq!(tokens.keys().collect::<Vec<_>>(), [key(2)]);
    }

    #[test]
    fn a_replaced_value_that_the_app_sets_again_is_in_use() {
        let mut tokens = tokens(1);
        tokens.replace(&[sid(2)], GRACE, at(5));
        tokens.rotate(&[sid(1)], key(2), GRACE, at(6));
        assert_eq!(values(&tokens, 7), [Some(false), Some(true), None]);
    }

    #[test]
    fn a_token_lives_and_dies_under_all_its_keys() {
        let mut tokens = tokens(1);
        assert_eq!(tokens.rekey(key(1), key(9)), Some(vec![key(9), key(1)]));
        assert_eq!(tokens.rekey(key(1), key(9)), None, "it is known");
        assert_eq!(tokens.rekey(key(5), key(6)), None, "no token of ours");
        assert_eq!([1, 9].map(|n| tokens.alias(key(n), at(5))), [Some(false); 2]);
        // Set again under either key it is no other value.
        tokens.rotate(&[sid(1)], key(1), GRACE, at(6));
        tokens.rotate(&[sid(9)], key(9), GRACE, at(7));
        assert_eq!(tokens.held.len(), 1);
        let fell_out = tokens.rotate(&[sid(2)], key(1), GRACE, at(8));
        assert_eq!(fell_out, FellOut::default());
        assert_eq!([1, 9].map(|n| tokens.alias(key(n), at(9))), [Some(true); 2]);
        let fell_out = tokens.rotate(&[sid(3)], key(2), GRACE, at(50));
        assert_eq!(fell_out.keys, [key(9), key(1)]);
        assert_eq!([1, 9].map(|n| tokens.holds(key(n))), [false; 2]);
    }

    #[test]
    fn tokens_are_bounded() {
        let mut tokens = tokens(1);
        for n in 2..60 {
            tokens.rotate(&[sid(n)], key(n - 1), Span::from_ms(1000), at(50));
            assert!(tokens.keys().count() <= MAX_TOKENS);
        }
    }

    #[test]
    fn more_cookies_than_fit_never_push_out_the_session_cookie() {
        let mut tokens = tokens(1);
        let more: Vec<NewToken> =
            (2..14).map(|n| cookie(&format!("c{n}"), CookieKind::Companion, n)).collect();
        let fell_out = tokens.replace(&more, GRACE, at(5));
        assert_eq!((tokens.keys().count(), fell_out.crowded), (MAX_TOKENS, 5));
        assert_eq!(tokens.alias(key(1), at(5)), Some(false));
        let more: Vec<NewToken> =
            (20..40).map(|n| cookie(&format!("s{n}"), CookieKind::Session, n)).collect();
        tokens.rotate(&more, key(1), GRACE, at(6));
        assert_eq!(tokens.keys().last(), Some(key(39)), "the newest stays");
    }
}
