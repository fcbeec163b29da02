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
use crate::session::record::NewToken;
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

#[derive(PartialEq, Eq)]
enum Claim {
    /// The session may own the key.
    Own,
    /// It may hold the key, which stays another's.
    Share,
    /// It has no business with the key.
    None,
}

fn claim(owner: &Arc<Cell>, key: TokenKey, kind: CookieKind, revives: Revives<'_>, now: Moment) -> Claim {
    let session = owner.session.lock();
    match session.standing(key, now) {
        Standing::Unseen | Standing::Stale | Standing::Unavailable => Claim::Own,
        Standing::Ended { .. } => {
            let allowed = match revives {
                Revives::Nothing => false,
                Revives::EndedBy(moment) => session.ended().is_some_and(|end| end.at <= moment),
                Revives::Of(predecessor) => Arc::ptr_eq(owner, predecessor),
            };
            if allowed { Claim::Own } else { Claim::None }
        }
        Standing::Live { .. } | Standing::Pending { .. } => match kind {
            CookieKind::Companion => Claim::Share,
            CookieKind::Session => Claim::None,
        },
    }
}

impl Table {
    /// The tokens among `tokens` that `cell` may hold; for a session that is about to begin there is no cell yet.
    pub(super) fn admissible(
        &self,
        cell: Option<&Arc<Cell>>,
        tokens: &[NewToken],
        revives: Revives<'_>,
        now: Moment,
    ) -> Vec<NewToken> {
        let may_hold = |token: &&NewToken| {
            let Some(owner) = self.cell_by_token(token.key) else { return true };
            if cell.is_some_and(|cell| Arc::ptr_eq(cell, &owner)) {
                return true;
            }
            self.with(&owner, now, |_| ());
            claim(&owner, token.key, token.kind, revives, now) != Claim::None
        };
        tokens.iter().filter(may_hold).cloned().collect()
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
        revives: Revives<'_>,
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
                    if claim(owned.get(), key, kind, revives, now) == Claim::Own {
                        owned.insert(Arc::clone(cell));
                    }
                }
                (Entry::Vacant(_) | Entry::Occupied(_), _) => {}
            }
        }
    }

    /// The session has ended: the companions that it shared die with it. One that died before stays with the session
    /// it died with.
    pub(super) fn bury_companions(&self, cell: &Arc<Cell>) {
        let keys: Vec<TokenKey> = {
            let session = cell.session.lock();
            let at = session.ended().map(|end| end.at).unwrap_or_default();
            session.companions().filter(|key| session.standing(*key, at) != Standing::Stale).collect()
        };
        for key in keys {
            self.by_token.alter(&key, |_, owner| {
                let is_dead = owner.session.lock().ended().is_some();
                if is_dead { owner } else { Arc::clone(cell) }
            });
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
