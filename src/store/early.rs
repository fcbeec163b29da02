//! Sign-ins that an answer showed before the answer of the sign-in itself.
//!
//! An app that keeps its session over a sign-in names the new user to every tab at once: whichever answer comes first tells of
//! the sign-in. The sign-in's own answer must then find the session that has begun by that, or the browser would have two.
//! Remembered in memory alone: what was under way is lost with the process.

use std::collections::VecDeque;

use super::cell::SessionRef;
use super::enrol::Enrolled;
use super::journal::Changed;
use super::table::Table;
use crate::session::record::NewToken;
use crate::session::{Moment, SessionId};

/// Most sign-ins that are remembered; the oldest goes first. Their own answers come within moments.
const MOST: usize = 1024;

/// Sessions that requests carried, each with the one on which somebody has signed in.
#[derive(Default)]
pub(super) struct Early(VecDeque<(SessionId, SessionId)>);

impl Early {
    fn note(&mut self, carried: SessionId, signed_in: SessionId) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((carried, signed_in));
    }

    fn of(&self, carried: SessionId) -> Option<SessionId> {
        self.0.iter().rev().find(|(known, _)| *known == carried).map(|(_, signed_in)| *signed_in)
    }
}

impl Table {
    /// Enrols by `enrol` whom an answer to a request with the session `carried` named away from where signing in happens.
    pub fn sign_in_early(&self, carried: &SessionRef, enrol: impl FnOnce() -> Enrolled) -> Enrolled {
        // ORDER: held until the session is there; whoever sees that the one before is over, and asks for it, waits so long.
        // Nothing that is done or told meanwhile takes this lock.
        let mut early = self.early.lock();
        let enrolled = enrol();
        if let Enrolled::Active(session) | Enrolled::Pending(session) = &enrolled {
            early.note(carried.id(), session.id());
        }
        enrolled
    }

    /// The session on which whoever was signing in with the session `carried` has been seen already; `None` when it is over.
    #[must_use]
    pub fn early_sign_in(&self, carried: &SessionRef, now: Moment) -> Option<SessionRef> {
        let id = self.early.lock().of(carried.id())?;
        self.by_id(id).filter(|session| !self.inspect(session, now, |s| s.is_over()))
    }

    /// The values of the sign-in's own answer join the session on which it has been seen. Returns whether that is not over.
    pub fn join(&self, session: &SessionRef, tokens: &[NewToken], now: Moment) -> bool {
        let grace = self.bound.load().book.rotation_grace;
        let tokens = self.admissible(Some(&session.0), tokens, super::link::Revives::Nothing, now).tokens;
        let fell_out = self.with(&session.0, now, |s| {
            (!s.is_over()).then(|| {
                // ORDER: before anybody else can look, so that what another gateway stored before does not undo it.
                self.mark(&session.0, Changed::RECORD);
                s.join(&tokens, grace, now)
            })
        });
        let Some(fell_out) = fell_out else { return false };
        self.relink_changed(&session.0, &tokens, fell_out, now);
        true
    }
}
