//! How the tokens that two gateways know of one session come together.

use smallvec::SmallVec;

use super::{Role, Token, Tokens};
use crate::session::{Moment, Span, TokenKey};

impl Tokens {
    /// Takes over the tokens that another gateway knows of the same sign-in. A value that is further from use in one of them
    /// is so in both; of two that are in use under one name the browser may have either (FIELD F5).
    pub(in crate::session) fn unite(&mut self, theirs: Self, grace: Span, now: Moment) {
        let Self { held, former } = theirs;
        for mut token in held {
            let names: SmallVec<[TokenKey; 2]> =
                std::iter::once(token.key).chain(former.keys_of(token.key)).collect();
            let known =
                self.held.iter().position(|ours| names.iter().any(|n| self.former.now(*n) == ours.key));
            if let Some(known) = known {
                let known = &mut self.held[known];
                if token.role.distance() > known.role.distance() {
                    known.role = token.role;
                }
                token.key = known.key;
            } else {
                let rival = |ours: &&mut Token| {
                    ours.role == Role::Current
                        && ours.shape.name == token.shape.name
                        && token.role == Role::Current
                };
                if let Some(rival) = self.held.iter_mut().find(rival) {
                    rival.role = Role::Unused(grace);
                    token.role = Role::Unused(grace);
                }
                self.held.push(token.clone());
            }
            for name in names {
                self.former.note(name, token.key);
            }
        }
        self.drop_surplus(now);
    }

    /// Whether a value is in use here that took the place of the one in use there, and they have not heard of it.
    pub(in crate::session) fn came_after(&self, theirs: &Self) -> bool {
        let in_use = |tokens: &Self, key| {
            let key = tokens.former.now(key);
            tokens.held.iter().find(|token| token.key == key).map(|token| token.role == Role::Current)
        };
        let is_current = |token: &&Token| token.role == Role::Current;
        theirs.held.iter().filter(is_current).any(|before| {
            let follows =
                |now: &Token| now.shape.name == before.shape.name && in_use(theirs, now.key).is_none();
            in_use(self, before.key) == Some(false) && self.held.iter().filter(is_current).any(follows)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GRACE, at, key, sid, tokens};

    #[test]
    fn gateways_that_go_by_two_secrets_know_one_token() {
        let (mut ours, mut theirs) = (tokens(1), tokens(1));
        theirs.rekey(key(1), key(9));
        ours.unite(theirs.clone(), GRACE, at(5));
        theirs.unite(tokens(1), GRACE, at(5));
        for tokens in [&ours, &theirs] {
            assert_eq!(tokens.held.len(), 1, "it is no rival of itself");
            assert_eq!([1, 9].map(|n| tokens.is_current(key(n))), [true; 2]);
        }
        // Both noted the value before either had heard of the other.
        let mut both = tokens(1);
        both.unite(tokens(9), GRACE, at(5));
        both.rekey(key(1), key(9));
        both.presented(key(1), at(6));
        assert_eq!((both.held.len(), both.alias(key(1), at(999))), (1, Some(false)));
    }

    #[test]
    fn what_came_after_is_told_from_what_came_elsewhere() {
        let before = tokens(1);
        let (mut later, mut elsewhere) = (before.clone(), before.clone());
        later.rotate(&[sid(2)], key(1), GRACE, at(5));
        elsewhere.rotate(&[sid(3)], key(1), GRACE, at(5));
        assert!(later.came_after(&before));
        assert!(!before.came_after(&later) && !before.came_after(&before), "it is known there");
        assert!(!later.came_after(&elsewhere), "nobody knows which one the browser has");
        let mut back = later.clone();
        back.rotate(&[sid(1)], key(2), GRACE, at(6));
        assert!(!later.came_after(&back), "it came back to an earlier value, and knows the later one");
    }
}
