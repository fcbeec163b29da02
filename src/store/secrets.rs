//! Secrets while one takes the place of another.
//!
//! One secret keys what is new. Tokens that were keyed by those *before* it are known still, and get the new key when they are
//! presented; those that other gateways key by the *next* one already are known too. The store keeps proofs of the secrets
//! that key tokens in it, the newest first, so that a gateway that lacks one it needs is refused instead of signing people out.

use smallvec::SmallVec;

use super::keys::{Hasher, derive_key, proof};
use super::table::Table;
use crate::config;
use crate::session::gate::Standing;
use crate::session::{Moment, TokenKey};

/// Bytes of one proof.
const PROOF: usize = 32;

/// What keys tokens and seals jars. SECURITY: no `Debug`.
#[derive(Clone)]
pub struct Secrets {
    /// Keys and seals what is new.
    pub current: [u8; 32],
    /// Did so before.
    pub previous: Vec<[u8; 32]>,
    /// Does so at other gateways already, or soon.
    pub next: Option<[u8; 32]>,
    /// None that keys tokens in the store may be missing: a token that is unknown could be adopted, and it may be one that has
    /// ended (law 2).
    pub needs_all: bool,
}

impl From<[u8; 32]> for Secrets {
    fn from(current: [u8; 32]) -> Self {
        Self { current, previous: Vec::new(), next: None, needs_all: false }
    }
}

/// The store was written under other secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretFault {
    /// The newest of them is none of these.
    Other,
    /// One of them is missing, and all are needed.
    LeftOut,
}

impl Secrets {
    /// Those that the configuration names; `None` where it names none, and the store keeps its own.
    #[must_use]
    pub fn configured(store: &config::Store) -> Option<Self> {
        let key = |secret: &config::Secret| derive_key(secret.expose());
        Some(Self {
            current: key(store.secret.as_ref()?),
            previous: store.previous_secrets.iter().map(key).collect(),
            next: store.next_secret.as_ref().map(key),
            needs_all: false,
        })
    }

    /// Proofs of all of them.
    pub(super) fn proofs(&self) -> Vec<u8> {
        let all = std::iter::once(&self.current).chain(&self.next).chain(&self.previous);
        all.map(proof).collect::<Vec<_>>().concat()
    }

    /// Whether somebody with these proofs knows what is keyed by the current one.
    pub(super) fn is_known_to(&self, proofs: &[u8]) -> bool {
        proofs.as_chunks::<PROOF>().0.contains(&proof(&self.current))
    }

    /// Whether the current one keys something for the first time with these proofs, where others did before.
    pub(super) fn takes_over(&self, stored: &[u8]) -> bool {
        stored.first_chunk::<PROOF>().is_some_and(|newest| {
            *newest != proof(&self.current) && self.next.is_none_or(|next| proof(&next) != *newest)
        })
    }

    /// What the proofs in the store are to be from now on, where they are `stored` until now; nothing in a store that is new.
    pub(super) fn keyed_by(&self, stored: &[u8]) -> Result<Vec<u8>, SecretFault> {
        let current = proof(&self.current);
        let previous: Vec<[u8; PROOF]> = self.previous.iter().map(proof).collect();
        let (stored, rest) = stored.as_chunks::<PROOF>();
        let Some(newest) = stored.first().filter(|_| rest.is_empty()) else {
            return if rest.is_empty() { Ok(current.to_vec()) } else { Err(SecretFault::Other) };
        };
        if self.next.is_some_and(|next| proof(&next) == *newest) {
            // Others have gone ahead; what they dropped or kept is theirs to say.
            return Ok(stored.concat());
        }
        if current != *newest && !previous.contains(newest) {
            return Err(SecretFault::Other);
        }
        let older = stored.iter().filter(|stored| **stored != current);
        let (kept, left_out): (Vec<_>, Vec<_>) = older.partition(|stored| previous.contains(stored));
        if self.needs_all && !left_out.is_empty() {
            return Err(SecretFault::LeftOut);
        }
        Ok(std::iter::once(&current).chain(kept).copied().collect::<Vec<_>>().concat())
    }
}

/// Makes keys of an app's tokens, under every secret.
#[derive(Clone)]
pub struct Keyring {
    current: Hasher,
    previous: Vec<Hasher>,
    next: Option<Hasher>,
}

/// What a token is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The key under which the table knows it; where it does not, the one under which it would be noted.
    pub key: TokenKey,
    /// Where the table does not know it: the other keys under which a shared store may.
    pub others: SmallVec<[TokenKey; 1]>,
    /// It was keyed by a secret from before: the key that it is to have.
    pub rekeyed: Option<TokenKey>,
}

impl Keyring {
    /// The keyring of one app.
    #[must_use]
    pub fn new(secrets: &Secrets, app: &str) -> Self {
        let hasher = |secret: &[u8; 32]| Hasher::new(secret, app);
        Self {
            current: hasher(&secrets.current),
            previous: secrets.previous.iter().map(hasher).collect(),
            next: secrets.next.as_ref().map(hasher),
        }
    }

    /// The key of a value that nobody has seen before.
    #[must_use]
    pub fn key(&self, name: &[u8], id: &[u8]) -> TokenKey {
        self.current.key(name, id)
    }

    /// What the id `id` in the cookie `name` is known by. One key is made of it unless the table does not know that one and
    /// there are other secrets.
    #[must_use]
    pub fn find(&self, table: &Table, name: &[u8], id: &[u8], now: Moment) -> Known {
        let key = self.key(name, id);
        let known = Known { key, others: SmallVec::new(), rekeyed: None };
        if (self.previous.is_empty() && self.next.is_none()) || is_settled(table, key, now) {
            return known;
        }
        let others: SmallVec<[TokenKey; 1]> =
            self.next.iter().chain(&self.previous).map(|hasher| hasher.key(name, id)).collect();
        // ORDER: whom it stands for now counts before whom it died with, as a successor may have been begun elsewhere.
        let candidates = || std::iter::once(key).chain(others.iter().copied());
        let found = candidates()
            .find(|key| is_settled(table, *key, now))
            .or_else(|| candidates().find(|key| table.look_up(*key, now).0 != Standing::Unseen));
        match found {
            None => Known { others, ..known },
            Some(found) => {
                let is_next = self.next.as_ref().is_some_and(|next| next.key(name, id) == found);
                Known { key: found, rekeyed: (found != key && !is_next).then_some(key), ..known }
            }
        }
    }
}

/// Whether nothing that the table knows of another key could count before this.
fn is_settled(table: &Table, key: TokenKey, now: Moment) -> bool {
    match table.look_up(key, now).0 {
        Standing::Live { .. } | Standing::Pending { .. } | Standing::Unavailable | Standing::Replaced => true,
        Standing::Unseen | Standing::Stale | Standing::Ended { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 32] = [1; 32];
    const B: [u8; 32] = [2; 32];
    const C: [u8; 32] = [3; 32];

    fn secrets(current: [u8; 32], previous: &[[u8; 32]], next: Option<[u8; 32]>) -> Secrets {
        Secrets { previous: previous.to_vec(), next, ..Secrets::from(current) }
    }

    fn proofs(secrets: &[[u8; 32]]) -> Vec<u8> {
        secrets.iter().map(proof).collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_rotation_goes_through_its_steps_and_no_other_way() {
        for (held, stored, then) in [
            (secrets(A, &[], None), &[][..], Ok(&[A][..])),
            (secrets(A, &[], None), &[A], Ok(&[A])),
            (secrets(B, &[], None), &[A], Err(SecretFault::Other)),
            // All gateways accept the next one, then use it, and leave the old one out at last.
            (secrets(A, &[], Some(B)), &[A], Ok(&[A])),
            (secrets(B, &[A], None), &[A], Ok(&[B, A])),
            (secrets(A, &[], Some(B)), &[B, A], Ok(&[B, A])),
            (secrets(B, &[A], None), &[B, A], Ok(&[B, A])),
            (secrets(B, &[], None), &[B, A], Ok(&[B])),
            (secrets(B, &[A], None), &[B], Ok(&[B])),
            // One that was left behind.
            (secrets(A, &[], None), &[B, A], Err(SecretFault::Other)),
            // The next rotation before the last one is over, and the way back.
            (secrets(C, &[B, A], None), &[B, A], Ok(&[C, B, A])),
            (secrets(C, &[B], None), &[B, A], Ok(&[C, B])),
            (secrets(C, &[A], None), &[B, A], Err(SecretFault::Other)),
            (secrets(A, &[B], None), &[B, A], Ok(&[A, B])),
        ] {
            let found = held.keyed_by(&proofs(stored));
            assert_eq!(found, then.map(proofs), "{stored:?}");
        }
        assert_eq!(secrets(A, &[], None).keyed_by(&proofs(&[A])[..20]), Err(SecretFault::Other));
    }

    #[test]
    fn who_goes_ahead_is_known_by_those_who_are_to_follow() {
        let ahead = secrets(B, &[A], None);
        assert!(ahead.takes_over(&proofs(&[A])));
        assert!(!ahead.takes_over(&proofs(&[B, A])) && !ahead.takes_over(&[]));
        let follows = secrets(A, &[], Some(B));
        assert!(!follows.takes_over(&proofs(&[A])) && !follows.takes_over(&proofs(&[B, A])));
        assert!(ahead.is_known_to(&follows.proofs()));
        assert!(!ahead.is_known_to(&secrets(A, &[], None).proofs()));
    }

    #[test]
    fn while_tokens_are_adopted_no_secret_may_be_left_out() {
        let all = |held: Secrets| Secrets { needs_all: true, ..held };
        assert_eq!(all(secrets(B, &[], None)).keyed_by(&proofs(&[B, A])), Err(SecretFault::LeftOut));
        assert!(all(secrets(B, &[A], None)).keyed_by(&proofs(&[B, A])).is_ok());
    }
}
