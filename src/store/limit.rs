//! The limit of one user's sessions: who counts, and who has to go.

use std::sync::Arc;

use super::EventKind;
use super::book::Bound;
use super::cell::Cell;
use super::enrol::Aftermath;
use super::journal::Changed;
use super::table::{Table, UserKey, settle};
use crate::session::policy::{Policy, Rival, surplus};
use crate::session::record::{Mode, PENDING_FOR, Settled};
use crate::session::{EndReason, Moment, SessionId};

/// The sessions of one user that count.
#[derive(Default)]
pub(super) struct Present {
    pub(super) rivals: Vec<Rival>,
    /// The latest sign-in among them, and what it is held to.
    latest: Option<((Moment, SessionId), Policy, Mode)>,
}

impl Table {
    /// Holds one user to the limit without a newcomer: after a change of policy or of roles. The limit is that of the
    /// policy of the latest sign-in, as it was when that session came (R13).
    pub(super) fn reckon(&self, key: &UserKey, now: Moment) {
        self.hold_to_limit(key, false, now);
    }

    /// The same after sessions of several gateways were brought together (`is_met`).
    pub(super) fn hold_to_limit(&self, key: &UserKey, is_met: bool, now: Moment) {
        let mut aftermath = Aftermath::new();
        self.in_section(key, |cells| {
            let bound = self.bound.load_full();
            let present = self.present(cells, None, &bound, now, &mut aftermath);
            if let Some((_, policy, mode)) = present.latest {
                self.end_all(&surplus(&policy, &present.rivals), mode, cells, now, &mut aftermath);
                if is_met && mode == Mode::Enforce {
                    self.hold_back_surplus(&policy, &present.rivals, cells, now, &mut aftermath);
                }
            }
        });
        self.after_section(aftermath, now);
    }

    /// The user's live sessions besides the newcomer; those that are over leave the index.
    pub(super) fn present(
        &self,
        cells: &mut Vec<Arc<Cell>>,
        newcomer: Option<&Arc<Cell>>,
        bound: &Bound,
        now: Moment,
        aftermath: &mut Aftermath,
    ) -> Present {
        let mut present = Present::default();
        cells.retain(|cell| {
            if newcomer.is_some_and(|newcomer| Arc::ptr_eq(cell, newcomer)) {
                return true;
            }
            let mut session = cell.session.lock();
            let settled = settle(&mut session, bound, now);
            aftermath.extend(self.settled_kind(settled).map(|kind| (Arc::clone(cell), kind)));
            if let Some(rival) = session.as_rival(now) {
                let order = (rival.signed_in_at, rival.id);
                if present.latest.as_ref().is_none_or(|(latest, ..)| *latest < order) {
                    present.latest = Some((order, session.policy, session.mode));
                }
                present.rivals.push(rival);
            }
            !session.is_over()
        });
        present
    }

    /// Ends these sessions for the limit; while only observing, each is counted once.
    pub(super) fn end_all(
        &self,
        ids: &[SessionId],
        mode: Mode,
        cells: &[Arc<Cell>],
        now: Moment,
        aftermath: &mut Aftermath,
    ) {
        let reason = EndReason::MaxConcurrent;
        for cell in cells.iter().filter(|cell| ids.contains(&cell.id)) {
            let mut session = cell.session.lock();
            if mode == Mode::Observe {
                if session.observe(reason) {
                    self.mark(cell, Changed::RECORD);
                    aftermath.push((Arc::clone(cell), EventKind::WouldEnd(reason)));
                }
            } else if session.end(reason, None, now) {
                aftermath.push((Arc::clone(cell), self.own_end(reason)));
            }
        }
    }

    /// An end that no person asked for: every gateway that knows the session finds it out, and one of them tells.
    fn own_end(&self, reason: EndReason) -> EventKind {
        match self.is_shared() {
            true => EventKind::Over(reason),
            false => EventKind::Ended { reason, by: None },
        }
    }

    pub(super) fn settled_kind(&self, settled: Settled) -> Option<EventKind> {
        match settled {
            Settled::WouldEnd(reason) => Some(EventKind::WouldEnd(reason)),
            Settled::JustEnded(reason) => Some(self.own_end(reason)),
            Settled::AsBefore => None,
        }
    }

    /// Several gateways admitted somebody at once, each in the last place: sign-ins that nobody has heard of yet are held back
    /// after all, where the policy ends nobody for them (R13).
    fn hold_back_surplus(
        &self,
        policy: &Policy,
        rivals: &[Rival],
        cells: &[Arc<Cell>],
        now: Moment,
        aftermath: &mut Aftermath,
    ) {
        let Some(max) = policy.max_concurrent.filter(|_| policy.on_limit.holds_back()) else { return };
        let too_many = rivals.len().saturating_sub(usize::try_from(max.get()).unwrap_or(usize::MAX));
        let mut unheard: Vec<&Arc<Cell>> = cells.iter().filter(|cell| cell.is_unheard()).collect();
        unheard.retain(|cell| rivals.iter().any(|rival| rival.id == cell.id));
        unheard.sort_by_key(|cell| std::cmp::Reverse((cell.session.lock().times.signed_in_at, cell.id)));
        for cell in unheard.into_iter().take(too_many) {
            cell.session.lock().hold_back(now.plus(PENDING_FOR));
            // It may be on its way to the store as it was.
            self.mark(cell, Changed::RECORD);
            aftermath.push((Arc::clone(cell), EventKind::HeldBack));
        }
    }
}
