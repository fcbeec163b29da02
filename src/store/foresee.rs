//! What a change of policy ends: before it is made, and while it is.
//!
//! Both count the same sessions, those that were still live under the old book (R1): by time-outs, and by the limit.

use std::sync::Arc;

use super::book::{Book, Bound};
use super::cell::Cell;
use super::table::{Table, UserKey, bind};
use crate::session::policy::surplus;
use crate::session::record::{Mode, Session};
use crate::session::{EndReason, Moment, Policy, SessionId};

impl Table {
    /// How many sessions would end if `book` came into force now. Changes nothing, but that every session is looked at: one
    /// whose time has come by the book in force ends for that.
    #[must_use]
    pub fn foresee(&self, book: Book, now: Moment) -> usize {
        let old = self.bound.load_full();
        let bound = bind(book, &old.apps, old.epoch.wrapping_add(1));
        let ends = |cell: &Arc<Cell>| self.under(cell, &bound, now).is_some_and(|session| session.is_over());
        let by_time = self.cells().iter().filter(|cell| ends(cell)).count();
        let users = self.users_indexed(|_| true);
        by_time + users.iter().map(|user| self.surplus_under(user, &bound, now)).sum::<usize>()
    }

    /// Replaces the book as [`Table::set_book`] does. Returns how many sessions ended by it.
    pub fn change_book(&self, book: Book, now: Moment) -> usize {
        let living: Vec<Arc<Cell>> =
            self.cells().into_iter().filter(|cell| self.with(cell, now, |s| !s.is_over())).collect();
        self.set_book(book, now);
        let by_policy = |reason| {
            matches!(reason, EndReason::IdleTimeout | EndReason::ForceRelogin | EndReason::MaxConcurrent)
        };
        let has_ended =
            |cell: &&Arc<Cell>| self.with(cell, now, |s| s.ended().is_some_and(|end| by_policy(end.reason)));
        living.iter().filter(has_ended).count()
    }

    /// The session as it would be under `bound`; `None` when it is over already.
    fn under(&self, cell: &Arc<Cell>, bound: &Bound, now: Moment) -> Option<Session> {
        let mut session = self.with(cell, now, |s| (!s.is_over()).then(|| s.clone()))?;
        let terms = bound.terms(session.app, session.identity.as_deref());
        session.adopt(terms, now);
        Some(session)
    }

    /// How many of a user's sessions would be beyond the limit of the latest sign-in; none while it is only observed.
    fn surplus_under(&self, user: &UserKey, bound: &Bound, now: Moment) -> usize {
        let cells = self.by_user.view(user, |_, cells| cells.clone()).unwrap_or_default();
        let mut rivals = Vec::new();
        let mut latest: Option<((Moment, SessionId), Policy, Mode)> = None;
        for session in cells.iter().filter_map(|cell| self.under(cell, bound, now)) {
            let Some(rival) = session.as_rival(now) else { continue };
            rivals.push(rival);
            let order = (rival.signed_in_at, rival.id);
            if latest.as_ref().is_none_or(|(known, ..)| *known < order) {
                latest = Some((order, session.policy, session.mode));
            }
        }
        let enforced = latest.filter(|(.., mode)| *mode == Mode::Enforce);
        enforced.map_or(0, |(_, policy, _)| surplus(&policy, &rivals).len())
    }
}
