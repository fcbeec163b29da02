//! Which session a key stands for.
//!
//! A key has one owner: the session that the map names. Normally that is the only session that holds it. Some apps,
//! though, give the same companion value (remember-me) to several browsers of one user. Then the first session keeps
//! it, the later ones hold it too, and it dies with whichever of them ends first (R3: a companion dies with its
//! session): from then on it stands for the session that it died with, so that nobody who was thrown out comes back
//! by it (law 2). The value of a session cookie is never held twice.
//!
//! A dead key begins anew only where R12 allows it, or with the session that follows on the one it died with.

use std::sync::Arc;

use dashmap::Entry;

use super::cell::Cell;
use super::table::Table;
use crate::session::gate::Standing;
use crate::session::profile::CookieKind;
use crate::session::record::{NewToken, Session};
use crate::session::{Moment, TokenKey};

/// Which dead keys a session may take over.
#[derive(Clone, Copy)]
pub(super) enum Revives<'a> {
    Nothing,
    /// Those of sessions that had ended by then (R12).
    EndedBy(Moment),
    /// Those of its predecessor.
    Of(&'a Arc<Cell>),
}

impl Revives<'_> {
    fn allows(self, owner: &Arc<Cell>, session: &Session) -> bool {
        match self {
            Self::Nothing => false,
            Self::EndedBy(moment) => session.ended().is_some_and(|end| end.at <= moment),
            Self::Of(predecessor) => Arc::ptr_eq(owner, predecessor),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Claim {
    /// The session may own the key.
    Own,
    /// It may hold the key, which stays another's.
    Share,
    /// The key died with its owner.
    Dead,
    /// It has no business with the key.
    None,
}

fn claim(session: &Session, key: TokenKey, kind: CookieKind, now: Moment) -> Claim {
    match session.standing(key, now) {
        Standing::Unseen | Standing::Stale | Standing::Replaced | Standing::Unavailable => Claim::Own,
        Standing::Ended { .. } => Claim::Dead,
        Standing::Live { .. } | Standing::Pending { .. } if kind == CookieKind::Companion => Claim::Share,
        Standing::Live { .. } | Standing::Pending { .. } => Claim::None,
    }
}

/// The tokens that a session may hold.
#[derive(Default)]
pub(super) struct Admissible {
    pub(super) tokens: Vec<NewToken>,
    /// The dead keys among them, each with the session from which it may be taken over. Should it be another's by the
    /// time that the new session can be found, then it has died once more meanwhile.
    pub(super) revived: Vec<(TokenKey, Arc<Cell>)>,
}

fn is_dead(standing: Standing) -> bool {
    matches!(standing, Standing::Ended { .. })
}

impl Table {
    /// The tokens among `tokens` that `cell` may hold; for a session that is about to begin there is no cell yet.
    pub(super) fn admissible(
        &self,
        cell: Option<&Arc<Cell>>,
        tokens: &[NewToken],
        revives: Revives<'_>,
        now: Moment,
    ) -> Admissible {
        let mut admissible = Admissible::default();
        for token in tokens {
            let owner = self.cell_by_token(token.key);
            let other = owner.filter(|owner| cell.is_none_or(|cell| !Arc::ptr_eq(cell, owner)));
            let Some(other) = other else {
                admissible.tokens.push(token.clone());
                continue;
            };
            let (claim, allowed) = self.with(&other, now, |session| {
                (claim(session, token.key, token.kind, now), revives.allows(&other, session))
            });
            if claim == Claim::None || (claim == Claim::Dead && !allowed) {
                continue;
            }
            admissible.tokens.push(token.clone());
            if claim == Claim::Dead {
                admissible.revived.push((token.key, other));
            }
        }
        admissible
    }

    /// Makes the map say of `keys` what `cell` says: after each change of a session's tokens, for those that came and
    /// those that went. Whoever changes them last comes last here, so what remains is right.
    #[expect(
        clippy::disallowed_methods,
        reason = "the table's own module; sessions are locked one at a time within a shard's lock, never the reverse"
    )]
    pub(super) fn relink(
        &self,
        cell: &Arc<Cell>,
        keys: impl IntoIterator<Item = TokenKey>,
        revived: &[(TokenKey, Arc<Cell>)],
        now: Moment,
    ) {
        for key in keys {
            let entry = self.by_token.entry(key);
            let kind = {
                let session = cell.session.lock();
                session.kind_of(key).filter(|_| !session.is_forgotten())
            };
            match (entry, kind) {
                (Entry::Vacant(vacant), Some(_)) => drop(vacant.insert(Arc::clone(cell))),
                (Entry::Occupied(owned), None) if Arc::ptr_eq(owned.get(), cell) => drop(owned.remove()),
                (Entry::Occupied(mut owned), Some(kind)) if !Arc::ptr_eq(owned.get(), cell) => {
                    let takes = match claim(&owned.get().session.lock(), key, kind, now) {
                        Claim::Own => true,
                        Claim::Dead => {
                            revived.iter().any(|(k, from)| *k == key && Arc::ptr_eq(from, owned.get()))
                        }
                        Claim::Share | Claim::None => false,
                    };
                    if takes {
                        owned.insert(Arc::clone(cell));
                    }
                }
                (Entry::Vacant(_) | Entry::Occupied(_), _) => {}
            }
        }
    }

    /// The session has ended: the companions that it shared die with it. One that died with another before stays that
    /// one's where `cell` is about to be succeeded, or the successor would bring it back; else it is `cell`'s now, so
    /// that a successor who is just being made of that other does not bring back what `cell` held too.
    #[expect(
        clippy::disallowed_methods,
        reason = "the table's own module; sessions are locked one at a time within a shard's lock, never the reverse"
    )]
    pub(super) fn bury_companions(&self, cell: &Arc<Cell>, is_succeeded: bool, now: Moment) {
        let keys: Vec<TokenKey> = {
            let session = cell.session.lock();
            session.companions().filter(|key| is_dead(session.standing(*key, now))).collect()
        };
        for key in keys {
            let mut owner = self.by_token.entry(key).or_insert_with(|| Arc::clone(cell));
            let died_before = is_dead(owner.session.lock().standing(key, now));
            if !(died_before && is_succeeded) {
                *owner = Arc::clone(cell);
            }
        }
    }

    /// Forgets all keys that stand for `cell`.
    pub(super) fn unlink_all(&self, cell: &Arc<Cell>) {
        let keys: Vec<TokenKey> = cell.session.lock().keys().collect();
        for key in keys {
            self.by_token.remove_if(&key, |_, owner| Arc::ptr_eq(owner, cell));
        }
    }
}
