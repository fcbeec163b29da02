//! Keys under which tokens were known before the secret of the hashes was replaced.
//!
//! A gateway that goes by the old secret, and a request that was under way meanwhile, go on finding the token by them. Most
//! sessions have none.

use super::TokenKey;

/// The most that one session remembers: two for each token that it may hold. The oldest goes first.
const MAX: usize = 16;

/// See the module; one word of a record, as long as there is nothing to remember. Pairs of a former key and the key that the
/// token has now.
#[derive(Clone, Debug, Default)]
#[expect(clippy::box_collection, reason = "a vector alone would take three words of every session (R30)")]
pub(super) struct Former(Option<Box<Vec<(TokenKey, TokenKey)>>>);

impl Former {
    pub(super) fn of(mut pairs: Vec<(TokenKey, TokenKey)>) -> Self {
        pairs.truncate(MAX);
        Self((!pairs.is_empty()).then(|| Box::new(pairs)))
    }

    pub(super) fn pairs(&self) -> &[(TokenKey, TokenKey)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// The key that the token has now.
    pub(super) fn now(&self, key: TokenKey) -> TokenKey {
        self.pairs().iter().find(|(former, _)| *former == key).map_or(key, |(_, now)| *now)
    }

    /// The former keys of the token whose key is `now`.
    pub(super) fn keys_of(&self, now: TokenKey) -> impl Iterator<Item = TokenKey> {
        self.pairs().iter().filter(move |pair| pair.1 == now).map(|(former, _)| *former)
    }

    /// The token that was known by `former` has the key `now`. Returns a key that is remembered no longer.
    pub(super) fn note(&mut self, former: TokenKey, now: TokenKey) -> Option<TokenKey> {
        if former == now || self.pairs().contains(&(former, now)) {
            return None;
        }
        let pairs = self.0.get_or_insert_default();
        pairs.retain(|(known, _)| *known != former && *known != now);
        pairs.iter_mut().filter(|pair| pair.1 == former).for_each(|pair| pair.1 = now);
        pairs.push((former, now));
        (pairs.len() > MAX).then(|| pairs.remove(0).0)
    }

    /// The token whose key is `now` is gone: so are its former keys, which are returned.
    pub(super) fn gone(&mut self, now: TokenKey) -> Vec<TokenKey> {
        let keys: Vec<TokenKey> = self.keys_of(now).collect();
        if let Some(pairs) = &mut self.0 {
            pairs.retain(|pair| pair.1 != now);
            if pairs.is_empty() {
                self.0 = None;
            }
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> TokenKey {
        TokenKey([n; 16])
    }

    #[test]
    fn a_token_is_found_by_each_key_that_it_had() {
        let mut former = Former::default();
        assert_eq!(former.note(key(1), key(2)), None);
        assert_eq!(former.note(key(2), key(3)), None);
        assert_eq!([1, 2, 3, 4].map(|n| former.now(key(n))), [3, 3, 3, 4].map(key));
        // Back again: no key may lead in a circle.
        former.note(key(3), key(1));
        assert_eq!([1, 2, 3].map(|n| former.now(key(n))), [1, 1, 1].map(key));
        assert_eq!(former.gone(key(1)).len(), 2);
        assert!(former.0.is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut former = Former::default();
        let mut forgotten = Vec::new();
        for n in 0..40 {
            forgotten.extend(former.note(key(2 * n), key(2 * n + 1)));
        }
        assert_eq!((former.pairs().len(), forgotten.len()), (MAX, 40 - MAX));
        assert_eq!(forgotten[0], key(0), "the oldest goes first");
    }
}
